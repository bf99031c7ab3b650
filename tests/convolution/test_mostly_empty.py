"""Toeplitz matrices of kernels that are mostly zeros: the work depends on the entries, not on the taps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

import fastconv
from fastconv import conv, convolution_matrix, toeplitz_matrix
from fastconv.convolution.toeplitz import csr as _csr, pattern as _pattern
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import GEOMETRY_DEFAULTS, resolve_conv

MODES = ("zeros", "reflect", "replicate", "circular")
#: Images and large kernels whose matrices once took up to thousands of times as long as those of their few weights.
FRAMES = [((3000,), (301,)), ((60, 60), (51, 51)), ((14, 14, 14), (11, 11, 11))]


@pytest.fixture
def built(monkeypatch):
    """Every matrix that is made, with its sparsity pattern."""
    seen = []
    build = _csr.build

    def spy(w, structure, *args):
        seen.append((structure, build(w, structure, *args)))
        return seen[-1][1]

    monkeypatch.setattr(fastconv.toeplitz._csr, "build", spy)
    return seen


def frame(kernel, n, rng):
    """A kernel (1, 1, *kernel) with n nonzero weights, one of them in the middle."""
    w = np.zeros((1, 1, *kernel))
    places = rng.permutation(math.prod(kernel))[: n - 1]
    w.reshape(-1)[[*places, math.prod(kernel) // 2]] = rng.integers(1, 9, n)
    return w


def by_taps(w, shape, **options):
    """The same matrix as a sum of the matrices of single weights."""
    total = 0
    for at in zip(*np.nonzero(w), strict=True):
        one = np.zeros_like(w)
        one[at] = w[at]
        x = np.eye(math.prod(shape)).reshape(-1, *shape)
        total = total + conv(x, one, **options).reshape(len(x), -1).T
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "kernel"), FRAMES, ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_one_weight_is_as_little_work_as_without_its_frame(shape, kernel, mode, form, built, rng):
    """Visited weights, segments and tables are compared with those of a 1x1 kernel."""
    w = frame(kernel, 1, rng)
    pads = tuple((k // 2, k // 2) for k in kernel)
    A = toeplitz_matrix(w, (1, *shape), pad=pads, pad_mode=mode, format=form)
    small = toeplitz_matrix(w[w != 0].reshape(1, 1, *(1,) * len(kernel)), (1, *shape), format=form)
    np.testing.assert_array_equal(A.indptr, small.indptr)
    np.testing.assert_array_equal(A.indices, small.indices)
    np.testing.assert_array_equal(A.data, small.data)
    (structure, found), (without, least) = built
    # The weight in the middle meets no border, so each segment has a list of one entry, with at most three segments an
    # axis.
    assert structure.counts.size <= 3 ** len(shape)
    assert structure.longest == without.longest == 1
    assert structure.pattern.nbytes // 8 <= without.pattern.nbytes // 8 + 64 * len(shape)
    # Each list has one entry, of one channel, plane and line, and a thread makes it anew for some parts of the rows.
    pieces = 16 * 2
    assert least.visits <= found.visits <= 3 ** len(shape) * (1 + pieces) * 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "kernel"), FRAMES, ids=["1-D", "2-D", "3-D"])
def test_eight_weights_are_looked_at_no_more_often_than_entries_are_written(shape, kernel, mode, built, rng):
    w = frame(kernel, 8, rng)
    pads = tuple((k // 2, k // 2) for k in kernel)
    A = toeplitz_matrix(w, (1, *shape), pad=pads, pad_mode=mode)
    (structure, found), *_ = built
    taps = math.prod(kernel)
    assert structure.taps <= 8 ** len(shape) < taps or len(shape) == 1
    assert structure.counts.size <= math.prod(shape)
    # Each list is visited twice with its lines and planes: once to count it, once to write it.
    assert found.visits <= 2 * 3 * (A.nnz + structure.counts.size) + 32 * structure.counts.size
    # Earlier versions visited every tap of every list twice.
    assert structure.counts.size * taps > 10 * found.visits or len(shape) == 1


def test_scattered_weights_of_many_filters(built, rng):
    """Together the filters need all taps of the frame, but each filter has one weight."""
    w = np.zeros((24, 1, 31, 31), np.float32)
    for f, at in enumerate(rng.permutation(31 * 31)[:24]):
        w[f].reshape(-1)[at] = f + 1
    A = toeplitz_matrix(w, (1, 40, 40), pad=15)
    (structure, found), *_ = built
    assert structure.taps > 250
    assert found.visits < 6 * 24 * structure.counts.size < 24 * structure.taps * structure.counts.size / 20
    x = rng.standard_normal((1, 1, 40, 40)).astype(np.float32)
    np.testing.assert_allclose(A @ x.ravel(), conv(x, w, pad=15).ravel(), rtol=1e-6)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_convolution_matrix_of_few_weights(mode, built, rng):
    """The matrix equals one made of SciPy's Kronecker products of shifts."""
    from scipy import sparse

    h = frame((21, 15), 6, rng)[0, 0]
    shape, out = (30, 26), {"full": (50, 40), "same": (30, 26), "valid": (10, 12)}[mode]
    first = {"full": (0, 0), "same": (10, 7), "valid": (20, 14)}[mode]
    wanted = sum(
        h[i, j]
        * sparse.kron(
            sparse.eye_array(out[0], shape[0], k=first[0] - i), sparse.eye_array(out[1], shape[1], k=first[1] - j)
        )
        for i, j in zip(*np.nonzero(h), strict=True)
    )
    A = convolution_matrix(h, shape, mode)
    assert A.nnz == wanted.tocsr().nnz
    np.testing.assert_array_equal(A.toarray(), wanted.toarray())
    (structure, found), *_ = built
    assert found.visits <= 2 * 3 * A.nnz and structure.taps <= 36


OPTIONS = [
    {},
    {"stride": 2},
    {"stride": 3, "dilation": 2},
    {"flip": True, "dilation": 2},
    {"flip": True, "stride": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "kernel"), [((23,), (9,)), ((9, 10), (5, 7)), ((5, 6, 5), (3, 3, 5))], ids=str)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_entries_are_those_of_the_weights(shape, kernel, mode, options, n, rng):
    w = frame(kernel, n, rng)
    dilation = options.get("dilation", 1)
    pads = tuple(
        (min(k // 2 * dilation, s - 1), min(k // 2 * dilation, s - 1)) for k, s in zip(kernel, shape, strict=True)
    )
    options = {**options, "pad": pads, "pad_mode": mode, "strict": False}
    wanted = by_taps(w, (1, *shape), algorithm="reference", **options)
    for form in ("csr", "csc"):
        A = toeplitz_matrix(w, (1, *shape), format=form, **options)
        np.testing.assert_array_equal(A.toarray(), wanted)
        assert A.has_canonical_format
        assert A.nnz == np.count_nonzero(wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 3])
def test_channels_filters_and_groups(dtype, groups, isa, rng):
    w = rng.integers(1, 5, (6, 6 // groups, 5, 5)).astype(dtype)
    w[rng.random(w.shape) < 0.9] = 0
    w[1], w[:, 1] = 0, 0
    x = rng.integers(-4, 5, (1, 6, 9, 8)).astype(dtype)
    for mode in MODES:
        options = {"pad": 2, "groups": groups, "pad_mode": mode}
        A = toeplitz_matrix(w, (6, 9, 8), **options)
        np.testing.assert_array_equal(A @ x.ravel(), conv(x, w, algorithm="reference", **options).ravel())
        np.testing.assert_array_equal(toeplitz_matrix(w, (6, 9, 8), format="csc", **options).toarray(), A.toarray())


@pytest.mark.parametrize("mode", MODES)
def test_few_and_many_weights_make_the_same_lists(mode, isa, monkeypatch, rng):
    """The same weights, once from their list and once tap by tap; entries that cancel are present either way."""
    w = rng.integers(-1, 2, (3, 2, 5, 4)).astype(np.float32)
    geometry = resolve_conv((1, 2, 8, 7), w.shape, **{**GEOMETRY_DEFAULTS, "pad": ((4, 4), (3, 3)), "pad_mode": mode})
    structure = _csr.of_outputs(geometry, False)
    made = []
    for share in (0, 1 << 30):  # All rows count as having few weights, or none does.
        monkeypatch.setattr(_csr, "_FEW", share)
        for index in (np.dtype(np.int32), np.dtype(np.int64)):
            made.append(_csr.build(w, structure, 2, indices=index))
    for one in made[1:]:
        np.testing.assert_array_equal(one.indptr, made[0].indptr)
        np.testing.assert_array_equal(one.indices, made[0].indices)
        np.testing.assert_array_equal(one.data, made[0].data)
    assert np.any(made[0].data == 0) == (mode == "replicate") or mode in ("reflect", "circular")


@pytest.mark.parametrize(("mode", "most"), [("reflect", 1.25), ("replicate", 1.75)])
@pytest.mark.parametrize(
    ("shape", "kernel"), [((60, 60), (117, 117)), ((20, 20, 20), (37, 37, 37))], ids=["2-D", "3-D"]
)
def test_mirrored_weights_are_looked_at_where_entries_are_written_and_not_to_count_them(
    shape, kernel, mode, most, built
):
    """Each output has a list of its own; counting it visits only weights that meet the same line of cells."""
    w = frame(kernel, 8, np.random.default_rng(3))
    A = toeplitz_matrix(w, (1, *shape), pad=tuple((k // 2, k // 2) for k in kernel), pad_mode=mode)
    (structure, found), *_ = built
    assert structure.counts.size > 0.9 * math.prod(shape)
    # Besides entries, the weights are sorted once for each line of outputs; several may meet one replicated cell.
    assert A.nnz <= found.visits <= most * A.nnz


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "kernel", "n"),
    [((20, 21), (15, 17), 70), ((24, 7), (19, 7), 40), ((7, 7, 7), (5, 5, 7), 50), ((16, 17), (13, 15), 7)],
    ids=str,
)
def test_lists_of_many_weights_that_lie_in_each_others_lines(shape, kernel, n, dtype, mode, isa, rng):
    """Lists longer than insertion sort handles or one chunk holds; the sums of weights that meet one cell are exact."""
    w = np.concatenate([frame(kernel, n, rng) for _ in range(6)]).reshape(3, 2, *kernel).astype(dtype)
    options = {"pad": tuple((k // 2, k // 2) for k in kernel), "pad_mode": mode}
    x = rng.integers(-4, 5, (1, 2, *shape)).astype(dtype)
    A = toeplitz_matrix(w, (2, *shape), **options)
    assert A.has_canonical_format
    assert np.all(np.diff(A.indices)[np.setdiff1d(np.arange(A.nnz - 1), A.indptr[1:-1] - 1)] > 0)
    np.testing.assert_array_equal(A @ x.ravel(), conv(x, w, algorithm="reference", **options).ravel())
    # Every entry belongs to a cell that some weight meets.
    present = np.abs(w).astype(np.float64)
    meets = toeplitz_matrix(present, (2, *shape), **options)
    assert meets.nnz == A.nnz == np.count_nonzero(meets.toarray())


def test_entries_of_axes_too_large_for_the_kernels_numbers():
    assert _csr._entries(np.array([2**40, 3]), np.array([2**40, 5])) == 2**80 + 15
    assert _csr._entries(np.array([7, 3]), np.array([2, 5])) == 29
    assert _csr._entries(np.empty(0, np.intp), np.empty(0, np.intp)) == 0


def test_weights_that_are_not_numbers_are_entries(rng):
    w = np.zeros((1, 1, 9, 9))
    w[0, 0, 2, 3], w[0, 0, 7, 1], w[0, 0, 4, 4] = np.nan, np.inf, -0.0
    A = toeplitz_matrix(w, (1, 12, 12))
    assert A.nnz == 2 * 16
    assert np.isnan(A.data).sum() == np.isinf(A.data).sum() == 16


def test_no_weights_at_all():
    for kernel in ((7,), (5, 5), (3, 3, 3)):
        w = np.zeros((2, 1, *kernel), np.float32)
        for form, mode in itertools.product(("csr", "csc"), MODES):
            A = toeplitz_matrix(w, (1, *(8,) * len(kernel)), pad=1, pad_mode=mode, format=form)
            assert A.nnz == 0 and A.shape[1] == 8 ** len(kernel) and A.dtype == np.float32


@given(
    st.integers(1, 30),
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(MODES),
    st.booleans(),
    st.data(),
)
def test_an_axis_of_some_taps_is_that_of_all_without_the_others(size, k, stride, dilation, mode, flip, data):
    some = np.array(sorted(data.draw(st.sets(st.integers(0, k - 1), min_size=1))), np.intp)
    lo, hi = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    reach = (k - 1) * dilation + 1
    if size + lo + hi < reach:
        return
    axis = Axis(size, k, stride, lo, hi, dilation, (size + lo + hi - reach) // stride + 1)
    ways = [lambda some: _pattern.of_outputs(axis, mode, flip, some)]
    if mode == "zeros":
        ways.append(lambda some: _pattern.of_cells(axis, flip, some))
    for way in ways:
        every, found = pairs(way(None)), pairs(way(some))
        assert sorted(found) == sorted(pair for pair in every if pair[2] in some)


def pairs(spans):
    """All (position, cell, tap) of the table, read as the kernels read it, by keys as well as by entries."""
    segments, entries, lists, places, keys = spans.arrays()
    found = []
    for start, step, count, begin, end, base, base_step, key in segments.tolist():
        for m in range(count):
            here = []
            for offset, tap in entries[begin:end].tolist():
                cell = base + m * base_step + offset - int(entries[begin, 0])
                taps = [tap] if tap >= 0 else lists[~tap + 1 : ~tap + 1 + lists[~tap]].tolist()
                here += [(start + m * step, cell, tap) for tap in taps]
            if key < 0:
                by_key = [(cell, tap) for cell, tap in zip(places[~key : ~key + len(keys)], keys, strict=True)]
            else:
                by_key = [
                    (entries[i, 0] - entries[begin, 0], keys[(key + i - begin) % len(keys)]) for i in range(begin, end)
                ]
            assert sorted((cell, tap) for _, cell, tap in here) == sorted(
                (base + m * base_step + c, t) for c, t in by_key
            )
            found += here
    return found
