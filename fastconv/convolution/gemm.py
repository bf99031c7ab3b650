"""Matrix products in fastconv's threads, or by BLAS if BLAS uses no more threads than the call may."""

from __future__ import annotations

import math

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.convolution.implicit_gemm.algorithm import Implicit
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.geometry.conv import ConvGeometry, conv_geometry
from fastconv.runtime import blas as _blas, isa as _isa, threads as _threads
from fastconv.runtime.plan_cache import plans

#: `gemm` leaves small products to BLAS, which computes them in the calling thread alone. These are products of at most
#: `FEW` multiply-adds, or `_FEW_OF_VECTOR` for a matrix and a vector. OpenBLAS starts threads above
#: 4 * FEW multiply-adds for two matrices, and above 9216 for a matrix and a vector.
FEW, _FEW_OF_VECTOR = 1 << 16, 1 << 13
#: Instead of a @ b, `gemm` computes b.T @ a.T in two cases, because a @ b would not fill a tile. First, b is a
#: transposed view, and a @ b has at most `_FEW_ROWS` rows and at least `_LONG` times as many columns. Second, a is a
#: transposed view, and a @ b has at most `_FEW_COLUMNS` columns and at least `_LONG` times as many rows.
_FEW_ROWS, _FEW_COLUMNS, _LONG = 32, 20, 8
#: The largest number of multiply-adds of one call of BLAS, which takes some 50 ms. Longer products are divided into
#: several calls, because Python runs signal handlers only between calls.
_BLAS_PIECE = 1 << 31

#: The algorithm that computes the products which BLAS does not compute.
IMPLICIT = Implicit()


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b, computed by `gemm` with the default number of threads."""
    out = _arrays.empty_result((*a.shape[:-1], b.shape[-1]), a.dtype, "the product")
    gemm(a, b, out, _threads.get_threads())
    return out


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray, threads: int) -> None:
    """Compute out = a @ b by BLAS if BLAS is known to use at most `threads` threads, otherwise by `gemm`."""
    if not _blas.within(threads):
        gemm(a, b, out, threads)
        return
    *batch, m, n = out.shape
    step = max(1, _BLAS_PIECE // max(math.prod(batch) * n * a.shape[-1], 1))
    with np.errstate(all="ignore"):  # no warning for inf - inf, which is NaN by definition
        for begin in range(0, m, step):
            rows = (..., slice(begin, begin + step), slice(None))
            # [step x k] @ [k x n]
            np.matmul(a[rows], b, out=out[rows])


def gemm(a: np.ndarray, b: np.ndarray, out: np.ndarray, threads: int) -> None:
    """Compute out = a @ b, which is [m x k] @ [k x n] or a batch of such products, in at most `threads` threads.

    The arrays are aligned, in native byte order and of one float dtype. `out` is C-contiguous and overlaps neither
    factor. A factor is copied unless it is C-contiguous or the transpose of a C-contiguous array. If both factors are
    transposed, one of them is copied.
    """
    *batch, m, n = out.shape
    k = a.shape[-1]
    if not out.size:
        return
    if not k:
        out[...] = 0
    elif _is_small(m, k, n):
        np.matmul(a, b, out=out)
    elif (m == 1 or n == 1) and k > 1 and not batch:
        # A matrix-vector product takes the time to read the matrix once. Packing the matrix would double this time.
        # `einsum` uses no BLAS, because `optimize` is off.
        np.einsum("mk,kn->mn", a, b, out=out)
    elif _is_flat(m, n, _transposed(a), _transposed(b)):
        a, b = b.swapaxes(-1, -2), a.swapaxes(-1, -2)
        turned = np.empty((*batch, n, m), out.dtype)
        # [n x k] @ [k x m]
        _multiply(a, np.ascontiguousarray(b), turned, threads)
        out[...] = turned.swapaxes(-1, -2)
    else:
        _multiply(a, b, out, threads)


def workspace_bytes(
    groups: int, m: int, k: int, n: int, dtype: np.dtype, threads: int, *, first: bool = False, second: bool = False
) -> int:
    """Return the bytes of workspace that `product` needs. `first` and `second` say which factors are transposed."""
    if _blas.within(threads) or _is_small(m, k, n):
        return 0
    more = 0
    if _is_flat(m, n, first, second):
        more = groups * (m * n + m * k * second) * dtype.itemsize
        m, n, second = n, m, False
    case = Case.of(*_layer(groups, m, k, n, first, second), dtype, threads)
    return more + IMPLICIT.plan(case).workspace_bytes


def _is_small(m: int, k: int, n: int) -> bool:
    """Return whether the product is so small that BLAS computes it in the calling thread alone."""
    return m * n * k <= (_FEW_OF_VECTOR if m == 1 or n == 1 else FEW)


def _is_flat(m: int, n: int, first: bool, second: bool) -> bool:
    """Return whether it is faster to compute the transpose of the product.

    `first` and `second` say whether the first and the second factor are transposed.
    """
    if second:
        return m <= _FEW_ROWS and n >= _LONG * m
    return first and n <= _FEW_COLUMNS and m >= _LONG * n


def _transposed(array: np.ndarray) -> bool:
    """Return whether `array` is the transpose of a C-contiguous matrix or batch, and not C-contiguous itself."""
    return not array.flags.c_contiguous and array.swapaxes(-1, -2).flags.c_contiguous


def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray, threads: int) -> None:
    """Compute the product as a pointwise convolution, in which each matrix of the batch is a group."""
    (*batch, m, n), k = out.shape, a.shape[-1]
    first, second = _transposed(a), _transposed(b)
    if first and not b.flags.c_contiguous:
        a, first = np.ascontiguousarray(a), False
    plan = plans.find(_plan, math.prod(batch), m, k, n, first, second, out.dtype, threads, _isa.current)
    if first:
        plan.run(b, a.swapaxes(-1, -2), None, out)
    elif second:
        plan.run(b.swapaxes(-1, -2), np.ascontiguousarray(a), None, out)
    else:
        plan.run(np.ascontiguousarray(b), np.ascontiguousarray(a), None, out)


def _plan(
    groups: int, m: int, k: int, n: int, first: bool, second: bool, dtype: np.dtype, threads: int, isa: int
) -> Plan:
    """Return the plan of the pointwise convolution that `_layer` returns."""
    return IMPLICIT.plan(Case(*_layer(groups, m, k, n, first, second), dtype, threads, isa))


def _layer(groups: int, m: int, k: int, n: int, first: bool, second: bool) -> tuple[Op, ConvGeometry]:
    """Return the op and the geometry of a pointwise convolution that computes [m x k] @ [k x n]."""
    op: Op
    if first:  # compute dx of a layer with m channels, k filters and n positions
        op, filters, channels, positions = "backward_data", k, m, n
    elif second:  # compute dw of a layer with m filters, n channels and k positions
        op, filters, channels, positions = "backward_weights", m, n, k
    else:  # compute the output of a layer with m filters, k channels and n positions
        op, filters, channels, positions = "forward", m, k, n
    return op, conv_geometry((1, groups * channels, positions), (groups * filters, channels, 1), groups=groups)
