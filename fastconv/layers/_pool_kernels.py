"""The kernels of pooling: which one a geometry takes, and the call of it.

Most windows are worked row by row in vectors, those of 2 x 2 at a stride of 2
and those over whole planes by kernels of their own. What these are not made
for, by the general ones.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv import _isa, _threads
from fastconv._ext import pool as _ext
from fastconv.geometry import PoolGeometry
from fastconv.layers import _pool_tables
from fastconv.layers._planes import plane_maxima, plane_sums

_NAMES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_INDEX_NAMES = {np.dtype(np.int32): "int32_t", np.dtype(np.int64): "int64_t"}
_SUM = {dtype: (_ext.sum_forward[name], _ext.sum_backward[name]) for dtype, name in _NAMES.items()}
_MAX = {
    (dtype, index): (_ext.max_forward[f"{name}|{index_name}"], _ext.max_backward[f"{name}|{index_name}"])
    for dtype, name in _NAMES.items()
    for index, index_name in _INDEX_NAMES.items()
}

_ROWS = {dtype: (_ext.forward_rows[name], _ext.mean_backward_rows[name]) for dtype, name in _NAMES.items()}
_PAIRS = {dtype: (_ext.pairs_forward[name], _ext.pairs_backward[name]) for dtype, name in _NAMES.items()}
#: The mean has no places that could be wrong.
_NO_INDICES, _NOT_ASTRAY = np.empty(0, np.int32), np.zeros(1, np.int8)

#: What a maximum's place is kept as.
INDEX_DTYPES = tuple(_INDEX_NAMES)

#: Time of a window kernel against a copy of as many bytes, roughly: it compares or adds cell by cell.
_SLOWNESS = 8
#: The same of the kernels that work row by row in vectors.
_ROWS_SLOWNESS = 1
#: And what a block of rows takes besides.
_ITEM_BYTES = 500
#: Gradients of narrower images are sooner put in their places one by one.
_PAIRS_WIDTH = 24
#: Planes with more cells are indexed by 64 bits.
_INT32_CELLS = np.iinfo(np.int32).max
#: Outputs that are held in the first-level cache while every tap meets them.
_BLOCK_OUTPUTS = 512


def planes(array: np.ndarray) -> np.ndarray:
    """(N, C, *spatial) as (N * C, cells)."""
    return array.reshape(math.prod(array.shape[:2]), -1)


def maximum(x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, threads: int) -> np.ndarray:
    """`out`, the maximum of every window of x; returns where each is in its plane."""
    # Half the memory wherever a plane's cells can be counted in 32 bits.
    small = math.prod(x.shape[2:]) <= _INT32_CELLS
    indices = np.empty(geometry.out_shape, np.int32 if small else np.int64)
    if not out.size:
        return indices
    if small and geometry.is_global:
        plane_maxima(x, out, indices, threads)
    elif small and geometry.in_pairs:
        _pairs(0, (x, out, indices), geometry, threads)
    elif not (small and _forward_rows(x, out, indices, geometry, threads)):
        rows, blocks = _rows(geometry)
        _threads.run(
            _MAX[x.dtype, indices.dtype][0],
            (planes(x), planes(out), planes(indices), *geometry.tables),
            items=blocks,
            tail=(rows,),
            work=_SLOWNESS * (x.nbytes + out.nbytes + indices.nbytes),
            threads=threads,
        )
    return indices


def maximum_gradient(
    dout: np.ndarray, indices: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int
) -> bool:
    """dx, each entry of dout added where its maximum was; False if some index is outside its plane."""
    if not dx.size:
        return True
    astray = np.zeros(1, np.int8)
    if geometry.in_pairs and dx.shape[-1] >= _PAIRS_WIDTH and indices.dtype == np.int32:
        _pairs(1, (dout, indices, dx, astray), geometry, threads)
        if not astray[0]:
            return True
        # Not from a forward pass, then; what can be made of it the general kernel knows.
        astray[0] = 0
    _threads.share(
        _MAX[dx.dtype, indices.dtype][1],
        (_flat(dout), _flat(indices), _flat(dx), math.prod(geometry.x_shape[:2]), astray),
        items=math.prod(geometry.x_shape[:2]),
        work=(dx.nbytes + dout.nbytes + indices.nbytes) // 3,
        threads=threads,
    )
    return not astray[0]


def mean(x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, threads: int, include_pad: bool) -> None:
    """`out`, the mean of every window of x."""
    if not out.size:
        return
    if geometry.is_global:
        out[...] = (plane_sums(x, threads) / math.prod(x.shape[2:])).reshape(out.shape)
    elif geometry.in_pairs:
        _pairs(0, (x, out, _NO_INDICES), geometry, threads)
    elif not _forward_rows(x, out, _NO_INDICES, geometry, threads, include_pad):
        rows, blocks = _rows(geometry)
        _threads.run(
            _SUM[x.dtype][0],
            (planes(x), planes(out), *geometry.tables),
            items=blocks,
            tail=(rows,),
            work=_SLOWNESS * (x.nbytes + out.nbytes),
            threads=threads,
        )
        out /= geometry.window_sizes(include_pad).astype(x.dtype)


def mean_gradient(dout: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int, include_pad: bool) -> None:
    """dx, each entry of dout spread over its window."""
    if not dx.size:
        return
    if geometry.is_global:
        planes(dx)[...] = planes(dout / dx.dtype.type(math.prod(geometry.x_shape[2:])))
    elif geometry.in_pairs:
        _pairs(1, (dout, _NO_INDICES, dx, _NOT_ASTRAY), geometry, threads)
    elif not _mean_backward_rows(dout, dx, geometry, threads, include_pad):
        share = dout / geometry.window_sizes(include_pad).astype(dx.dtype)
        _threads.run(
            _SUM[dx.dtype][1],
            (planes(share), planes(dx), *geometry.tables),
            tail=_rows(geometry)[:1],
            items=math.prod(geometry.x_shape[:2]),
            work=_SLOWNESS * (dx.nbytes + dout.nbytes),
            threads=threads,
        )


def _rows(geometry: PoolGeometry) -> tuple[int, int]:
    """Rows of outputs to a block, and blocks in all."""
    *_, depth, height, width = (1, 1, *geometry.out_shape[2:])
    rows = max(1, min(_BLOCK_OUTPUTS // width, height))
    return rows, math.prod(geometry.out_shape[:2]) * depth * -(-height // rows)


def _forward_rows(
    x: np.ndarray,
    out: np.ndarray,
    indices: np.ndarray,
    geometry: PoolGeometry,
    threads: int,
    include_pad: bool = True,
) -> bool:
    """The maximum, or without `indices` the mean, by vectors; False where the windows are not made for it."""
    plan = _pool_tables.plan(geometry, "forward", include_pad)
    if plan is None:
        return False
    _threads.share(
        _ROWS[x.dtype][0],
        (_flat(x), _flat(out), _flat(indices), plan.table, _space(plan, x, threads), _isa.current),
        items=plan.items,
        work=_ROWS_SLOWNESS * (x.nbytes + out.nbytes + indices.nbytes) + _ITEM_BYTES * plan.items,
        threads=threads,
    )
    return True


def _mean_backward_rows(
    dout: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int, include_pad: bool
) -> bool:
    """The adjoint of the mean; False where the windows are not made for it."""
    plan = _pool_tables.plan(geometry, "backward", include_pad)
    if plan is None:
        return False
    _threads.share(
        _ROWS[dx.dtype][1],
        (_flat(dout), _flat(dx), plan.table, _space(plan, dx, threads), _isa.current),
        items=plan.items,
        work=_ROWS_SLOWNESS * (dx.nbytes + dout.nbytes) + _ITEM_BYTES * plan.items,
        threads=threads,
    )
    return True


def _pairs(direction: int, arrays: tuple[np.ndarray, ...], geometry: PoolGeometry, threads: int) -> None:
    """Maxima or means of 2 x 2 cells, forward or backward."""
    rows, items = _pool_tables.pair_blocks(geometry)
    _threads.share(
        _PAIRS[arrays[0].dtype][direction],
        (*map(_flat, arrays), *geometry.x_shape[2:], rows, _isa.current),
        items=items,
        work=sum(array.nbytes for array in arrays) // 3,
        threads=threads,
    )


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)


def _space(plan: _pool_tables.Plan, like: np.ndarray, threads: int) -> np.ndarray:
    """A row of workspace for each thread that can come."""
    return np.empty((_threads.most(threads, plan.items), plan.space), like.dtype)
