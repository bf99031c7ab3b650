"""Convolution as a matrix: its entries, its format, and its errors."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from cases import BY_NAME, CASES, DTYPES, geometries, pruned, variants
from hypothesis import given, reject
from scipy import sparse

import fastconv
from fastconv import conv, conv_backward, conv_forward, convolution_matrix, toeplitz_matrix, toeplitz_operator
from fastconv.convolution.toeplitz import csr as _csr

FORMATS = ("csr", "csc", "coo", "bsr", "lil", "dok", "dia")


def check_canonical(A):
    """The arrays are sorted, without duplicates, and of the right sizes; this is computed here and not read from flags."""
    assert isinstance(A, sparse.csr_array)
    assert A.indptr[0] == 0 and len(A.indptr) == A.shape[0] + 1 and A.indptr[-1] == len(A.indices) == len(A.data)
    assert (np.diff(A.indptr) >= 0).all()
    inside = np.ones(len(A.indices), bool)
    inside[A.indptr[:-1][np.diff(A.indptr) > 0]] = False
    assert (np.diff(A.indices, prepend=-1)[inside] > 0).all()
    if A.nnz:
        assert A.indices.min() >= 0 and A.indices.max() < A.shape[1]
    assert A.indices.dtype == A.indptr.dtype
    assert A.has_sorted_indices and A.has_canonical_format


def by_windows(case, w):
    """The matrix from the windows of the oracle; SciPy adds up weights that meet the same cell."""
    table, _ = case.table()
    groups, cells = case.options.get("groups", 1), math.prod(case.x[2:])
    turned = np.flip(w, tuple(range(2, w.ndim))) if case.options.get("flip") else w
    F, channels = w.shape[:2]
    f, c, tap = np.nonzero(turned.reshape(F, channels, -1))
    cell = table.T[tap]
    rows = f[:, np.newaxis] * len(table) + np.arange(len(table))
    columns = (f // (F // groups) * channels + c)[:, np.newaxis] * cells + cell
    values = np.broadcast_to(turned.reshape(F, channels, -1)[f, c, tap][:, np.newaxis].astype(float), cell.shape)
    inside = cell >= 0
    return sparse.coo_array(
        (values[inside], (rows[inside], columns[inside])), (F * len(table), case.x[1] * cells)
    ).tocsr()


@DTYPES
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_entries_against_loops(case, dtype, monkeypatch):
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    _, w, _ = case.arrays(dtype)
    for weights in (w, pruned(w), 0 * w):
        A = toeplitz_matrix(weights, case.x[1:], **case.options)
        check_canonical(A)
        assert A.dtype == dtype and A.indices.dtype == np.int32
        exact = by_windows(case, weights)
        assert A.shape == exact.shape
        assert np.array_equal(A.indptr, exact.indptr) and np.array_equal(A.indices, exact.indices)
        tolerance = 0 if case.geometry.pad_mode == "zeros" else np.finfo(dtype).eps * 100
        np.testing.assert_allclose(A.data, exact.data, rtol=0, atol=tolerance)
    assert toeplitz_matrix(w, case.x[1:], **case.options).nnz == case.geometry.toeplitz_nnz


@DTYPES
@pytest.mark.parametrize("case", [case for case in CASES if case.x[0]], ids=lambda case: case.name)
def test_products_are_the_convolution_and_its_gradient(case, dtype):
    x, w, _ = case.arrays(dtype)
    A = toeplitz_matrix(w, case.x[1:], **case.options)
    out, cache = conv_forward(x, w, None, case.options, algorithm="reference")
    dout = np.random.default_rng(2).standard_normal(out.shape).astype(dtype)
    dx = conv_backward(dout, cache, need_dw=False)[0]
    tolerance = {np.float32: 2e-5, np.float64: 1e-12}[dtype]
    for n in range(len(x)):
        for product, wanted in ((A @ x[n].ravel(), out[n]), (A.T @ dout[n].ravel(), dx[n])):
            assert product.dtype == dtype
            scale = max(1, np.abs(wanted).max(initial=0))
            np.testing.assert_allclose(product, wanted.ravel(), rtol=0, atol=tolerance * scale)


@given(geometries())
def test_random_geometries(geometry):
    x_shape, w_shape, options = geometry
    try:
        fastconv.conv_geometry(x_shape, w_shape, **options)
    except ValueError:
        reject()
    rng = np.random.default_rng(0)
    w = rng.integers(-2, 3, w_shape).astype(float)
    x = rng.integers(-9, 10, (1, *x_shape[1:])).astype(float)
    A = toeplitz_matrix(w, x_shape[1:], **options)
    check_canonical(A)
    if A.nnz:
        assert np.array_equal(A @ x.ravel(), conv(x, w, algorithm="reference", **options).ravel())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wide_indices_and_the_transpose(case):
    """64-bit indices, and building the transpose row by row, give the same matrix."""
    _, w, _ = case.arrays()
    w, geometry = pruned(w), case.geometry
    A = toeplitz_matrix(w, case.x[1:], **case.options)
    wide = _csr.build(w, _csr.of_outputs(geometry, geometry.flip), 2, indices=np.dtype(np.int64))
    assert wide.wide and wide.indices.dtype == np.int64
    for name in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(wide, name), getattr(A, name))
    C = toeplitz_matrix(w, case.x[1:], format="csc", **case.options)
    assert isinstance(C, sparse.csc_array)
    expected = A.tocsc()
    for name in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(C, name), getattr(expected, name))


def windows(x, k, options):
    """The cell that each output of one channel and axis reads at each tap, -1 for none: (outputs, taps)."""
    lo, mode = options["pad"], options["pad_mode"]
    image = np.pad(np.arange(x), lo, **({"constant_values": -1} if mode == "constant" else {}), mode=mode)
    span = (k - 1) * options["dilation"] + 1
    return np.lib.stride_tricks.sliding_window_view(image, span)[:: options["stride"], :: options["dilation"]]


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_borders_of_every_kind_against_padded_images(mode, rng, monkeypatch):
    """Pads wider than the image, kernels longer than it, strides larger than both; also in blocks of a few windows."""
    named = {"constant": "zeros", "edge": "replicate", "wrap": "circular"}.get(mode, mode)
    seen = 0
    for x, k, stride, dilation in itertools.product((1, 2, 5, 8), (1, 2, 3, 7), (1, 2, 3, 30), (1, 2, 9)):
        for pad in {0, 1, x - 1, x, 3 * x + 4, 40}:
            if x + 2 * pad <= (k - 1) * dilation or pad > {"reflect": x - 1, "circular": x}.get(named, pad):
                continue
            monkeypatch.setattr("fastconv.convolution.toeplitz.pattern._CELLS", (1 << 20, 3 * k)[seen % 4 > 1])
            seen += 1
            options = {"stride": stride, "pad": pad, "dilation": dilation}
            w = rng.integers(1, 9, k).astype(float)
            w[rng.random(k) < 0.3 * (seen % 3 == 0)] = 0
            cells = windows(x, k, {**options, "pad_mode": mode})
            exact = np.zeros((len(cells), x + 1))
            np.add.at(exact, (np.arange(len(cells))[:, np.newaxis], cells), w)
            # Both formats, of which one turns the kernel.
            for flip, form in ((seen % 2 > 0, "csr"), (seen % 2 == 0, "csc")):
                weights = (w[::-1] if flip else w)[np.newaxis, np.newaxis]
                A = toeplitz_matrix(weights, (1, x), pad_mode=named, flip=flip, format=form, **options)
                assert np.array_equal(A.toarray(), exact[:, :x])
                assert A.nnz == np.count_nonzero(exact[:, :x]) and A.has_canonical_format
    assert seen > 200


@pytest.mark.parametrize(
    ("x", "w", "options", "most"),
    [
        (10, 3, {"pad": 10**15}, 10),
        (10, 3, {"pad": 10**15, "dilation": 10**8}, 10),
        (10, 3, {"pad": 10**15, "pad_mode": "replicate"}, 10),
        (10**5, 3, {"pad": 10**5, "pad_mode": "circular"}, 20),
        (10**5, 3, {"pad": 10**5 - 1, "pad_mode": "reflect"}, 10),
        (20000, 2001, {"pad": 1000, "pad_mode": "circular"}, 4 * 2001),
        (10**6, 3, {"stride": 5 * 10**5}, 20),
        (10**6, 3, {"stride": 1000}, 5000),
    ],
)
def test_borders_take_few_segments_however_wide(x, w, options, most):
    """Positions that read no cells, or the same cells shifted, share one entry of the table."""
    geometry = fastconv.conv_geometry((1, 1, x), (1, 1, w), **options)
    structures = [_csr.of_outputs(geometry, False)]
    if geometry.pad_mode == "zeros":
        structures.append(_csr.of_cells(geometry, False))
    for sparsity in structures:
        assert len(sparsity.counts) <= most and sparsity.pattern.nbytes // 8 <= 20 * (most + w)
        assert sparsity.counts.sum() == sparsity.shape[0]


def test_published_4x16():
    """Dumoulin and Visin, section 4.1: C is the matrix of a 3x3 kernel on a 4x4 image, C^T the transposed convolution."""
    w = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    a, b, c, d, e, f, g, h, i = range(1, 10)
    C = [
        [a, b, c, 0, d, e, f, 0, g, h, i, 0, 0, 0, 0, 0],
        [0, a, b, c, 0, d, e, f, 0, g, h, i, 0, 0, 0, 0],
        [0, 0, 0, 0, a, b, c, 0, d, e, f, 0, g, h, i, 0],
        [0, 0, 0, 0, 0, a, b, c, 0, d, e, f, 0, g, h, i],
    ]
    A = toeplitz_matrix(w, (1, 4, 4))
    assert np.array_equal(A.toarray(), C)
    dout = np.array([1.0, -2.0, 3.0, 5.0])
    full = scipy.signal.convolve2d(dout.reshape(2, 2), w[0, 0])
    assert np.array_equal(A.T @ dout, full.ravel())


def test_diagonals_are_constant_inside_blocks(rng):
    """At stride 1 on an unpadded image every (filter, channel, row, row) block is Toeplitz, as is their arrangement."""
    w = rng.standard_normal((2, 3, 3, 2))
    A = toeplitz_matrix(w, (3, 6, 7)).toarray().reshape(2, 4, 6, 3, 6, 7)
    for f, c, oh, h in np.ndindex(2, 3, 4, 6):
        block = A[f, oh, :, c, h]
        assert np.array_equal(block[1:, 1:], block[:-1, :-1])
        if oh and h:
            assert np.array_equal(block, A[f, oh - 1, :, c, h - 1])
    B = toeplitz_matrix(w[:1, :1, :1], (1, 1, 9), stride=(1, 2)).toarray()
    assert np.array_equal(B[1:, 2:], B[:-1, :-2])


@pytest.mark.parametrize("name", ["2d_asymmetric", "2d_reflect", "3d_everything", "1d_groups"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
def test_formats(format, name):
    case = BY_NAME[name]
    _, w, _ = case.arrays(np.float32)
    A = toeplitz_matrix(w, case.x[1:], format=format, **case.options)
    assert isinstance(A, sparse.sparray) and A.format == format and A.dtype == np.float32
    np.testing.assert_allclose(A.toarray(), by_windows(case, w).toarray(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["fortran", "strided", "reversed", "read_only", "byte_swapped", "unaligned", "list"])
def test_layouts(name):
    case = BY_NAME["2d_asymmetric"]
    _, w, _ = case.arrays()
    other = variants(w)[name]
    before = np.array(other, copy=True)
    A, B = (toeplitz_matrix(a, case.x[1:], **case.options) for a in (w, other))
    assert np.array_equal(A.data, B.data) and np.array_equal(A.indices, B.indices)
    assert np.array_equal(before, other)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("float32", "float32"), ("float64", "float64"), ("float16", "float32"), ("int8", "float64"), ("bool", "float64")],
)
def test_dtypes(given, expected):
    w = np.ones((2, 1, 3), given)
    assert toeplitz_matrix(w, (1, 5)).dtype == expected
    assert convolution_matrix(w[0, 0], 5).dtype == expected
    operator = toeplitz_operator(w, (1, 5))
    assert operator.dtype == expected and (operator @ np.ones(5, expected)).dtype == expected


def test_zeros_of_w_are_dropped_and_sums_that_cancel_are_not():
    A = toeplitz_matrix(np.array([[[0.0, 2.0, 0.0, -0.0]]]), (1, 6))
    assert A.nnz == 3 and np.array_equal(A.data, [2, 2, 2])
    # The first and the last tap read the same reflected cell.
    B = toeplitz_matrix(np.array([[[1.0, 3.0, -1.0]]]), (1, 4), pad=1, pad_mode="reflect")
    assert np.array_equal(B.toarray()[0], [3, 0, 0, 0]) and B.nnz == 10
    check_canonical(B)
    assert np.isnan(toeplitz_matrix(np.array([[[np.nan, 1.0]]]), (1, 2)).data[0])


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 1, 1 << 28), (1, 1, 9), {}),
        ((1, 64, 400, 400), (64, 64, 3, 3), {"pad": 1}),
        ((1, 1, 9), (1 << 29, 1, 5), {}),
    ],
)
def test_index_width_switches_where_entries_pass_31_bits(x, w, options):
    geometry = fastconv.conv_geometry(x, w, **options)
    for sparsity in (_csr.of_outputs(geometry, geometry.flip), _csr.of_cells(geometry, geometry.flip)):
        assert sparsity.nnz == geometry.toeplitz_nnz > 1 << 31
        assert _csr.index_dtype(sparsity.shape, sparsity.nnz) == np.int64
        rows, columns = sparsity.shape
        assert _csr.nbytes((rows, columns), sparsity.nnz, np.dtype(np.float32)) == sparsity.nnz * 12 + 8 * (rows + 1)
    limit = np.iinfo(np.int32).max
    assert _csr.index_dtype((5, 7), limit) == _csr.index_dtype((limit, 7), 9) == np.int32
    assert all(
        _csr.index_dtype(*case) == np.int64 for case in (((5, 7), limit + 1), ((limit + 1, 7), 9), ((5, 1 << 31), 9))
    )


def test_diagonals_are_counted_in_parts(rng, monkeypatch):
    monkeypatch.setattr("fastconv.convolution.toeplitz.csr._PART", 7)
    monkeypatch.setattr("fastconv.convolution.toeplitz.csr._ALWAYS_FREE", 0)
    monkeypatch.setattr("fastconv.runtime.memory.available", lambda: 1)
    for density in (0.02, 0.2):
        A = sparse.random_array((40, 30), density=density, format="csr", rng=rng)
        A.sort_indices()
        count = len(sparse.dia_array(A).offsets)
        with pytest.raises(MemoryError, match=f"on {count} diagonals"):
            _csr.check_diagonals(_csr.Csr(A.indptr, A.indices, A.data, A.shape))


def test_large_matrices_are_not_copied_when_turned(rng):
    """Arrays of 16 MiB and more are views of mappings.

    SciPy may copy a view, because it takes it for part of an array.
    """
    A = toeplitz_matrix(rng.standard_normal((16, 16, 5, 5)).astype(np.float32), (16, 28, 28), pad=2)
    assert A.data.nbytes > 1 << 24
    assert np.shares_memory(A.T.data, A.data) and np.shares_memory(A.T.indices, A.indices)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_repeats(threads, rng, monkeypatch):
    monkeypatch.setattr("fastconv.runtime.threads.SERIAL_BYTES", 0)
    w = pruned(rng.standard_normal((3, 4, 3, 3)), 0.2)
    expected = toeplitz_matrix(w, (4, 20, 21), pad=1)
    with fastconv.threads(threads):
        for _ in range(5):
            A = toeplitz_matrix(w, (4, 20, 21), pad=1)
            for name in ("indptr", "indices", "data"):
                assert np.array_equal(getattr(A, name), getattr(expected, name))


def test_rows_of_all_lengths(rng):
    for k, dtype in itertools.product(range(1, 40), (np.float32, np.float64)):
        w = rng.standard_normal((1, 1, k)).astype(dtype)
        A = toeplitz_matrix(w, (1, 45), pad=3, dilation=1)
        check_canonical(A)
        exact = scipy.linalg.convolution_matrix(w[0, 0, ::-1], 45)[k - 4 : 45 + 3] if k > 3 else None
        if exact is not None:
            assert np.array_equal(A.toarray(), exact)
        else:
            assert np.array_equal(A.toarray()[3:-3], scipy.linalg.convolution_matrix(w[0, 0, ::-1], 45, "valid"))


@DTYPES
def test_convolution_matrix_is_scipys_in_one_dimension(dtype, rng):
    for k, n, mode in itertools.product(range(1, 8), range(1, 8), ("full", "same", "valid")):
        h, x = rng.standard_normal(k).astype(dtype), rng.standard_normal(n).astype(dtype)
        A = convolution_matrix(h, n, mode)
        check_canonical(A)
        assert A.dtype == dtype and np.array_equal(A.toarray(), scipy.linalg.convolution_matrix(h, n, mode))
        np.testing.assert_allclose(A @ x, np.convolve(x, h, mode), atol=1e-5)
        expected = scipy.signal.convolve(x, h, mode, method="direct")
        product = convolution_matrix(h, (n,), mode) @ x
        assert product.shape == expected.shape
        np.testing.assert_allclose(product, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(
    ("h", "x"),
    [
        ((2, 3), (5, 4)),
        ((3, 3), (3, 3)),
        ((5, 4), (2, 4)),
        ((1, 1), (4, 2)),
        ((2, 1, 3), (4, 3, 5)),
        ((4, 3, 3), (2, 3, 1)),
        ((4, 2), (3, 5)),
    ],
)
def test_convolution_matrix_is_scipys_convolve(h, x, mode, rng):
    kernel, image = rng.standard_normal(h), rng.standard_normal(x)
    if mode == "valid" and (h, x) == ((4, 2), (3, 5)):
        with pytest.raises(ValueError, match="at least as large as the other in every axis, got h"):
            convolution_matrix(kernel, x, mode)
        with pytest.raises(ValueError, match="mode"):
            scipy.signal.convolve(image, kernel, mode)
        return
    expected = scipy.signal.convolve(image, kernel, mode, method="direct")
    A = convolution_matrix(kernel, x, mode)
    check_canonical(A)
    assert A.shape == (expected.size, image.size)
    np.testing.assert_allclose(A @ image.ravel(), expected.ravel(), atol=1e-12)
    for format in FORMATS:
        assert convolution_matrix(kernel, x, mode, format=format).format == format


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: toeplitz_matrix(np.ones((1, 1, 3)), (1, 1, 5)),
            ValueError,
            r"x_shape \(1, 1, 5\) has 3 axes, but w \(1, 1, 3\) goes with 2",
        ),
        (
            lambda: toeplitz_matrix(np.ones((1, 1, 3)), np.ones((1, 5))),
            TypeError,
            "x_shape must be a tuple of ints, got ndarray",
        ),
        (
            lambda: toeplitz_matrix(np.ones((1, 1, 3)), (2, 5)),
            ValueError,
            r"^x_shape \(2, 5\) has 2 channels, so with groups=1 w must be \(F, 2, \*kernel\), got w \(1, 1, 3\) with 1",
        ),
        (lambda: toeplitz_matrix(np.ones((1, 0, 3)), (0, 5)), ValueError, r"^x_shape \(0, 5\) and w \(1, 0, 3\)"),
        (lambda: toeplitz_matrix(np.ones((1, 1)), (1,)), ValueError, r"w has 2 axes, \(1, 1\); legal are 3 to 5"),
        (
            lambda: toeplitz_operator(np.ones((1, 1, 3)), (1, 9), algorithm="winograd", stride=3),
            ValueError,
            r"algorithm 'winograd' cannot do this forward: the kernel \(3,\) must be longer than the stride \(3,\)",
        ),
        (
            lambda: convolution_matrix([1, 2], np.array([4, 5])),
            TypeError,
            r"shape must be an int or a tuple of ints, got an ndarray; to use its shape, pass \(2,\)",
        ),
        (lambda: convolution_matrix([1, 2], np.array(4.0)), TypeError, "shape must be an int >= 1"),
        (lambda: toeplitz_matrix(np.ones((1, 1, 3)), (1, 2)), ValueError, "spatial axis 0: the kernel covers 3 cells"),
        (lambda: toeplitz_matrix(np.ones((1, 1, 3)), (1, 6), stride=2, strict=True), ValueError, "leaves a remainder"),
        (lambda: toeplitz_matrix(np.ones(3), (1, 6)), ValueError, "x_shape"),
        (lambda: toeplitz_matrix(np.ones((1, 1, 3), complex), (1, 6)), TypeError, "w has dtype complex128"),
        (
            lambda: toeplitz_matrix(np.ones((1, 1, 3)), (1, 6), format="dense"),
            ValueError,
            "format is 'dense'; legal are 'csr'",
        ),
        (lambda: toeplitz_matrix(np.ones((1, 1, 3)), (1, 6), format=None), TypeError, "format is None"),
        (
            lambda: toeplitz_matrix(np.ones((1, 1, 3)), (1, 6), algorithm="auto"),
            TypeError,
            "unknown option 'algorithm'",
        ),
        (lambda: toeplitz_operator(np.ones((1, 1, 3)), (1, 6), format="csr"), TypeError, "unknown option 'format'"),
        (lambda: toeplitz_operator(np.ones((1, 1, 3)), (1, 6), algorithm="magic"), ValueError, "algorithm is 'magic'"),
        (lambda: toeplitz_operator(np.ones((1, 1, 3)), (1, 6), threads=0), ValueError, "threads is 0"),
        (
            lambda: convolution_matrix(np.ones(3), 5, "some"),
            ValueError,
            "mode is 'some'; legal are 'full', 'same', 'valid'",
        ),
        (lambda: convolution_matrix(np.ones(3), 5, 1), TypeError, "mode is 1"),
        (lambda: convolution_matrix(np.ones(3), 0), ValueError, "shape must be an int >= 1, got 0"),
        (lambda: convolution_matrix(np.ones(3), 2.5), TypeError, "shape must be an int >= 1, got 2.5"),
        (lambda: convolution_matrix(np.ones((3, 3)), 5), ValueError, r"shape \(5,\) has 1 axis, but h \(3, 3\) has 2"),
        (lambda: convolution_matrix(np.ones(0), 5), ValueError, r"h has shape \(0,\)"),
        (lambda: convolution_matrix(np.ones((2,) * 4), (5,) * 4), ValueError, "one to three axes"),
        (lambda: convolution_matrix("abc", 5), TypeError, "h"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_length_as_an_array_of_one_number():
    assert convolution_matrix([1, 2], np.array(4)).shape == convolution_matrix([1, 2], np.int64(4)).shape == (5, 4)


def test_images_without_cells():
    A = toeplitz_matrix(np.ones((2, 1, 3)), (1, 0), pad=2)
    assert A.shape == (4, 0) and A.nnz == 0
    B = toeplitz_operator(np.ones((2, 1, 3)), (1, 0), pad=2)
    assert np.array_equal(B @ np.ones(0), np.zeros(4)) and (B.T @ np.ones(4)).shape == (0,)
