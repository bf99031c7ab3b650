"""The size of a matrix is computed and checked before anything is allocated."""

import tracemalloc

import numpy as np
import pytest
from cases import CASES, pruned
from test_toeplitz import by_windows

import fastconv
from fastconv import convolution_matrix, toeplitz_matrix
from fastconv.convolution.toeplitz import csr as _csr


def test_what_does_not_fit_says_so_before_anything_is_allocated(monkeypatch):
    w = np.ones((64, 64, 3, 3), np.float32)
    geometry = fastconv.conv_geometry((1, 64, 100, 100), w.shape, pad=1)
    nnz = geometry.toeplitz_nnz
    size = nnz * 8 + (64 * 100 * 100 + 1) * 4
    monkeypatch.setattr("fastconv.runtime.memory.available", lambda: size - 1)
    tracemalloc.start()
    message = (
        rf"matrix 640000 x 640000 has {nnz} entries, which take {size} bytes in float32; {size - 1} bytes are free"
    )
    for kind in (MemoryError, ValueError):
        with pytest.raises(kind, match=message):
            toeplitz_matrix(w, (64, 100, 100), pad=1)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    with pytest.raises(MemoryError, match=f"take {2 * size} bytes .* during the conversion to format 'coo'"):
        toeplitz_matrix(w, (64, 100, 100), pad=1, format="coo")
    # With all but a few weights set to zero, the matrix fits.
    w[:, 1:] = 0
    assert toeplitz_matrix(w, (64, 100, 100), pad=1).nnz == nnz // 64
    with pytest.raises(ValueError, match=r"\d+ bytes in float32: more than can be indexed"):
        toeplitz_matrix(np.ones((1 << 12, 1, 1 << 12), np.float32), (1, 1 << 40), pad=1)
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: toeplitz_matrix(w, (1, 10), pad=2**40), f"matrix {2**41 + 8} x 10 has 30 entries, which take"),
        (
            lambda w: toeplitz_matrix(w, (1, 10), pad=2**40, pad_mode="replicate"),
            f"matrix {2**41 + 8} x 10 has at least 30 entries, which take",
        ),
        (
            lambda w: toeplitz_matrix(w, (1, 2**40), format="csc"),
            f"matrix {2**40 - 2} x {2**40} has {3 * (2**40 - 2)} entries, which take",
        ),
        (
            lambda w: convolution_matrix(np.ones(10**5), 10**5),
            f"matrix {2 * 10**5 - 1} x {10**5} has {10**10} entries",
        ),
        (
            lambda w: convolution_matrix(np.arange(10**5) % 2, (10**5,)),
            f"matrix {2 * 10**5 - 1} x {10**5} has {10**10 // 2} entries",
        ),
        (
            lambda w: toeplitz_matrix(np.ones((1, 1, 10**5)), (1, 10**5), pad=99999, pad_mode="reflect"),
            "has at least [0-9]+ entries",
        ),
    ],
)
def test_size_is_known_before_any_table_is_made(call, message, monkeypatch):
    monkeypatch.setattr("fastconv.runtime.memory.available", lambda: 1 << 30)
    for module in ("of_outputs", "of_cells"):
        monkeypatch.setattr(
            f"fastconv.convolution.toeplitz.pattern.{module}", lambda *_: pytest.fail("a table was made")
        )
    with pytest.raises(
        fastconv.convolution.toeplitz.csr.MatrixTooLargeError, match=f"{message}.*{1 << 30} bytes are free"
    ):
        call(np.ones((1, 1, 3)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_size_in_advance(case, monkeypatch):
    """The size is that of zero padding, whichever weights are zero; for other modes it is an upper bound."""
    _, w, _ = case.arrays()
    sizes = []
    monkeypatch.setattr("fastconv.runtime.memory.available", lambda: 0)
    monkeypatch.setattr("fastconv.convolution.toeplitz.csr._ALWAYS_FREE", -1)
    monkeypatch.setattr(
        "fastconv.convolution.toeplitz.csr.nbytes", lambda shape, nnz, dtype: sizes.append(nnz) or nnz + 1
    )
    for weights in (w, pruned(w), 0 * w):
        exact = by_windows(case, weights).nnz
        with pytest.raises(MemoryError):
            toeplitz_matrix(weights, case.x[1:], **case.options)
        assert sizes[-1] == exact if case.geometry.pad_mode == "zeros" else 0 <= sizes[-1] <= exact


@pytest.mark.filterwarnings("ignore:Constructing a DIA matrix")
def test_formats_are_refused_by_the_memory_that_they_take(monkeypatch):
    w = np.ones((16, 16, 3, 3), np.float32)
    A = toeplitz_matrix(w, (16, 12, 12), stride=2, pad=1)
    monkeypatch.setattr("fastconv.convolution.toeplitz.csr._ALWAYS_FREE", 0)
    for format in ("lil", "dok", "dia"):
        tracemalloc.start()
        B = A.asformat(format)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        size = A.data.nbytes + A.indices.nbytes + A.indptr.nbytes
        free = size + peak - (1 << 14)
        monkeypatch.setattr("fastconv.runtime.memory.available", lambda free=free: free)
        if format == "dia":
            diagonals = len(B.offsets)
            assert B.data.nbytes > 4 * size
            message = rf"{A.nnz} entries on {diagonals} diagonals.* format 'dia'; {B.data.nbytes} bytes are free"
            monkeypatch.setattr("fastconv.runtime.memory.available", lambda B=B: B.data.nbytes)
        else:
            message = rf"{A.nnz} entries, which take \d+ bytes .* format '{format}'; {free} bytes are free"
        with pytest.raises(_csr.MatrixTooLargeError, match=message):
            toeplitz_matrix(w, (16, 12, 12), stride=2, pad=1, format=format)
        monkeypatch.setattr("fastconv.runtime.memory.available", lambda free=free: 2 * free)
        assert toeplitz_matrix(w, (16, 12, 12), stride=2, pad=1, format=format).format == format


def test_free_memory_is_known_or_not(monkeypatch):
    from fastconv.runtime import memory as _memory

    free = _memory.available()
    assert free is None or free > 0
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}[name], raising=False)
    monkeypatch.setattr(
        "fastconv.runtime.memory.os.sysconf", lambda name: {"SC_AVPHYS_PAGES": 7, "SC_PAGE_SIZE": 4096}[name]
    )
    assert _memory.available() == 7 * 4096


def test_memory_is_that_of_the_matrix(rng):
    """Construction takes no memory besides the arrays, except for a few rows."""
    for x, w, options in [
        ((3, 30, 30), (16, 3, 5, 5), {"pad": 2}),
        ((1, 30000), (2, 1, 9), {"pad": 4}),
        ((6, 9, 9, 9), (6, 6, 3, 3, 3), {"pad": 1, "pad_mode": "circular"}),
    ]:
        w = rng.standard_normal(w)
        toeplitz_matrix(w, x, **options)
        tracemalloc.start()
        A = toeplitz_matrix(w, x, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        size = A.data.nbytes + A.indices.nbytes + A.indptr.nbytes
        assert size < 1 << 24  # Larger arrays do not come from the allocator that is traced.
        assert peak <= 1.1 * size
