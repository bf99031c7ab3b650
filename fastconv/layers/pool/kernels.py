"""The kernels of pooling: which one a geometry takes, and the call of it.

Windows of 2 x 2 at a stride of 2 and those over whole planes have kernels of
their own. Small windows are worked tap by tap, in vectors over a row; all others
axis by axis (`_pool_running`), whatever their size.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext import pool as _ext, pool_rows as _ext_rows
from fastconv.checks import arrays as _arrays
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.planes import plane_maxima, plane_sums
from fastconv.layers.pool import running as _pool_running, tables as _pool_tables
from fastconv.runtime import isa as _isa, threads as _threads
from fastconv.runtime.plan_cache import plans

#: What a maximum's place is kept as.
INDEX_DTYPES = _INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)

#: Sums have no places.
_NO_INDICES = np.empty(0, np.int32)

#: Time of the kernels that work row by row in vectors against a copy of as many bytes, roughly.
_ROWS_SLOWNESS = 1
#: And what a block of rows takes besides.
_ITEM_BYTES = 500
#: Time of putting gradients in their places one by one against a copy of the indices' bytes.
_SCATTERED = 5
#: Gradients of narrower images are sooner put in their places one by one.
_LEAST_WIDTH_2X2 = 24
#: Planes with more cells are indexed by 64 bits.
_INT32_CELLS = np.iinfo(np.int32).max


def planes(array: np.ndarray) -> np.ndarray:
    """(N, C, *spatial) as (N * C, cells)."""
    return array.reshape(math.prod(array.shape[:2]), -1)


def maximum(x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, threads: int) -> np.ndarray:
    """`out`, the maximum of every window of x; returns where each is in its plane."""
    # Half the memory wherever a plane's cells can be counted in 32 bits.
    small = geometry.cells <= _INT32_CELLS
    indices = _arrays.empty_result(geometry.out_shape, _INT32 if small else _INT64, "the indices")
    if not out.size:
        return indices
    geometry = geometry.squeezed
    if small and geometry.is_global:
        plane_maxima(x, out, indices, threads)
    elif not (
        small
        and (_forward_2x2(x, out, indices, geometry, threads) or _rows_forward(x, out, indices, geometry, threads))
    ):
        _pool_running.maximum(x, out, indices, geometry, threads)
    return indices


def maximum_gradient(
    dout: np.ndarray, indices: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int
) -> bool:
    """dx, each entry of dout added where its maximum was; False if some index is outside its plane."""
    if not dx.size:
        return True
    geometry = geometry.squeezed
    wide = indices.dtype == _INT64
    if geometry.x_shape[-1] >= _LEAST_WIDTH_2X2 and not wide and _backward_2x2(dout, indices, dx, geometry, threads):
        # Else they are not from a forward pass; what can be made of them the general kernel knows.
        return True
    if geometry.most_windows > _pool_tables.MOST_IN_TURN and _by_bands(dout, indices, dx, geometry, threads):
        return True
    return _threads.share(
        _ext.max_backward,
        (_arrays.DTYPES[dx.dtype], dout, indices, dx, wide, geometry.planes),
        items=geometry.planes,
        work=dx.nbytes // 3 + _SCATTERED * indices.nbytes,
        threads=threads,
    )


def _by_bands(dout: np.ndarray, indices: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int) -> bool:
    """The same where many gradients may meet in a cell; False where some index is not of its window."""
    table, longest = _pool_tables.bands(geometry, dx.itemsize, threads)
    items = geometry.planes * len(table)
    slots = _threads.most(threads, items)
    blocks, pages = _pool_tables.pages(longest, dx.itemsize)
    space = np.empty(slots * pages * _pool_tables.PAGE, dx.dtype)
    marks = np.empty(slots * (blocks + pages), np.int32)
    return _threads.share(
        _ext.max_backward_bands,
        (
            *(_arrays.DTYPES[dx.dtype], dout, indices, dx, indices.dtype == _INT64, geometry.planes),
            *(table, len(table), space, marks, pages, slots),
        ),
        items=items,
        work=dx.nbytes + _SCATTERED * indices.nbytes,
        threads=threads,
    )


def mean(x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, threads: int, include_pad: bool) -> None:
    """`out`, the mean of every window of x."""
    if not out.size:
        return
    geometry = geometry.squeezed
    if geometry.is_global:
        out[...] = (plane_sums(x, threads) / geometry.cells).reshape(out.shape)
    elif not (
        _forward_2x2(x, out, _NO_INDICES, geometry, threads)
        or _rows_forward(x, out, _NO_INDICES, geometry, threads, include_pad)
    ):
        _pool_running.mean(x, out, geometry, threads, include_pad)


def mean_gradient(dout: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int, include_pad: bool) -> None:
    """dx, each entry of dout spread over its window."""
    if not dx.size:
        return
    geometry = geometry.squeezed
    if geometry.is_global:
        planes(dx)[...] = planes(dout / dx.dtype.type(geometry.cells))
    elif not (
        _backward_2x2(dout, _NO_INDICES, dx, geometry, threads)
        or _rows_backward(dout, dx, geometry, threads, include_pad)
    ):
        _pool_running.mean_gradient(dout, dx, geometry, threads, include_pad)


def norm(x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, threads: int) -> None:
    """`out`, the root of the sum of squares of every window of x."""
    geometry = geometry.squeezed
    if not (
        _forward_2x2(x, out, _NO_INDICES, geometry, threads, True)
        or _rows_forward(x, out, _NO_INDICES, geometry, threads, True, True)
    ):
        _pool_running.norm(x, out, geometry, threads)


def norm_gradient(
    dout: np.ndarray, norms: np.ndarray, x: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int
) -> None:
    """dx, of each cell x times the sum of what each window spreads, dout over its norm."""
    geometry = geometry.squeezed
    if not (
        _backward_2x2(dout, _NO_INDICES, dx, geometry, threads, norms, x)
        or _rows_backward(dout, dx, geometry, threads, True, norms, x)
    ):
        _pool_running.norm_gradient(dout, norms, x, dx, geometry, threads)


def _rows_forward(
    x: np.ndarray,
    out: np.ndarray,
    indices: np.ndarray,
    geometry: PoolGeometry,
    threads: int,
    include_pad: bool = True,
    norm: bool = False,
) -> bool:
    """The maximum, or without `indices` mean or norm, by vectors; False where the windows are not made for it."""
    plan = _rows_plan(geometry, "forward", include_pad, not indices.size, x.itemsize)
    if plan is None:
        return False
    _threads.share(
        _ext_rows.forward_rows,
        (_arrays.DTYPES[x.dtype], x, out, indices, norm, *_workspace(plan, x, threads)),
        items=plan.items,
        work=_ROWS_SLOWNESS * (x.nbytes + out.nbytes + indices.nbytes) + _ITEM_BYTES * plan.items,
        threads=threads,
    )
    return True


def _rows_backward(
    dout: np.ndarray,
    dx: np.ndarray,
    geometry: PoolGeometry,
    threads: int,
    include_pad: bool,
    norms: np.ndarray | None = None,
    x: np.ndarray | None = None,
) -> bool:
    """The adjoint of the mean, or with `norms` and x of the norm; False where the windows are not made for it."""
    plan = _rows_plan(geometry, "backward", include_pad, True, dx.itemsize)
    if plan is None:
        return False
    _threads.share(
        _ext_rows.backward_rows,
        (_arrays.DTYPES[dx.dtype], dout, norms, x, dx, *_workspace(plan, dx, threads)),
        items=plan.items,
        work=_ROWS_SLOWNESS * (dx.nbytes + dout.nbytes) + _ITEM_BYTES * plan.items,
        threads=threads,
    )
    return True


def _rows_plan(
    geometry: PoolGeometry, direction: str, include_pad: bool, sums: bool, itemsize: int
) -> _pool_tables.Plan | None:
    """The plan of the kernels by rows, or None where they are not made for the windows, or take longer."""
    plan = _pool_tables.plan(geometry, direction, include_pad)
    if plan is None or not plans.find(_rows_are_faster, geometry, direction, sums, itemsize, _isa.current):
        return None
    return plan


def _rows_are_faster(geometry: PoolGeometry, direction: str, sums: bool, itemsize: int, _isa_in_use: int) -> bool:
    by_rows = _pool_tables.time(geometry, direction, sums, itemsize)
    return by_rows <= _pool_running.time(geometry, not sums, direction == "backward", itemsize)


def _workspace(plan: _pool_tables.Plan, like: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """The table, a row of workspace for each thread that can come, how many these are, and the instruction set."""
    slots = _threads.most(threads, plan.items)
    space = np.empty(slots * plan.space, like.dtype)
    return plan.table, space, slots, _isa.narrow(plan.width * like.itemsize)


def _forward_2x2(
    x: np.ndarray, out: np.ndarray, indices: np.ndarray, geometry: PoolGeometry, threads: int, norm: bool = False
) -> bool:
    """As `_rows_forward`, of windows of 2 x 2 cells at a stride of 2."""
    sizes = _pool_tables.sizes_2x2(geometry)
    if sizes is None:
        return False
    height, width, rows, items = sizes
    isa = _isa.narrow(width // 2 * x.itemsize)
    _threads.share(
        _ext_rows.forward_2x2,
        (_arrays.DTYPES[x.dtype], x, out, indices, norm, height, width, rows, isa),
        items=items,
        work=x.nbytes // 2,
        threads=threads,
    )
    return True


def _backward_2x2(
    dout: np.ndarray,
    indices: np.ndarray,
    dx: np.ndarray,
    geometry: PoolGeometry,
    threads: int,
    norms: np.ndarray | None = None,
    x: np.ndarray | None = None,
) -> bool:
    """The adjoint; False also where some index is not of its window."""
    sizes = _pool_tables.sizes_2x2(geometry)
    if sizes is None:
        return False
    height, width, rows, items = sizes
    isa = _isa.narrow(width // 2 * dx.itemsize)
    return _threads.share(
        _ext_rows.backward_2x2,
        (_arrays.DTYPES[dx.dtype], dout, indices, norms, x, dx, height, width, rows, isa),
        items=items,
        work=dx.nbytes // 2,
        threads=threads,
    )
