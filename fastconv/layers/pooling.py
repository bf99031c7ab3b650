"""Maximum and average pooling, global pooling, and unpooling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv import _arrays, _isa, _threads
from fastconv._ext import pool as _ext
from fastconv._options import as_bool, as_cache, as_shape, merge_options
from fastconv.geometry import PoolGeometry, resolve_pool
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
_NO_INDICES = np.empty(0, np.int32)

_DEFAULTS: dict[str, Any] = {
    "kernel_size": None,
    "stride": None,
    "pad": 0,
    "dilation": 1,
    "ceil_mode": False,
    "pool_height": None,
    "pool_width": None,
    "threads": None,
}
_AVG_DEFAULTS = {**_DEFAULTS, "count_include_pad": True}


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


class MaxPoolCache(NamedTuple):
    """What `max_pool_backward` needs: the geometry, and where every maximum was."""

    geometry: PoolGeometry
    indices: np.ndarray
    dtype: np.dtype
    threads: int | None


class AvgPoolCache(NamedTuple):
    """What `avg_pool_backward` needs."""

    geometry: PoolGeometry
    count_include_pad: bool
    dtype: np.dtype
    threads: int | None


def _kernel_size(where: str, settings: dict[str, Any], rank: int) -> Any:
    """The window, from `kernel_size` or from CS231n's `pool_height` and `pool_width`."""
    height, width, kernel_size = settings["pool_height"], settings["pool_width"], settings["kernel_size"]
    if height is None and width is None:
        if kernel_size is None:
            raise TypeError(f"{where}() needs kernel_size, or pool_height and pool_width")
        return kernel_size
    if kernel_size is not None:
        raise TypeError(f"{where}() got both kernel_size and pool_height or pool_width; give one of them")
    if height is None or width is None:
        raise TypeError(f"{where}() needs both pool_height and pool_width, got {height!r} and {width!r}")
    if rank != 2:
        raise ValueError(f"pool_height and pool_width are for two spatial axes, x has {rank}; use kernel_size")
    return height, width


def _prepare(
    where: str, x: Any, pool_param: Any, options: Mapping[str, Any], defaults: Mapping[str, Any] = _DEFAULTS
) -> tuple[np.ndarray, PoolGeometry, dict[str, Any]]:
    settings = merge_options(where, defaults, options, pool_param, "pool_param")
    x = _arrays.as_array("x", x)
    kernel_size = _kernel_size(where, settings, x.ndim - 2)
    _threads.resolve(settings["threads"])
    geometry = resolve_pool(
        x.shape,
        kernel_size=kernel_size,
        stride=settings["stride"],
        pad=settings["pad"],
        dilation=settings["dilation"],
        ceil_mode=settings["ceil_mode"],
    )
    return _arrays.prepare(x, _arrays.result_dtype(x)), geometry, settings


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
    threads: int | None,
    include_pad: bool = True,
) -> bool:
    """The maximum, or without `indices` the mean, by vectors; False where the windows are not made for it."""
    plan = _pool_tables.plan(geometry, "forward", include_pad)
    if plan is None:
        return False
    count = _threads.resolve(threads)
    _threads.run(
        _ROWS[x.dtype][0],
        (_flat(x), _flat(out), _flat(indices), plan.table, np.empty((count, plan.space), x.dtype), _isa.current),
        items=plan.items,
        work=_ROWS_SLOWNESS * (x.nbytes + out.nbytes + indices.nbytes) + _ITEM_BYTES * plan.items,
        threads=count,
    )
    return True


def _mean_backward_rows(
    dout: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, threads: int | None, include_pad: bool
) -> bool:
    """The adjoint of the mean; False where the windows are not made for it."""
    plan = _pool_tables.plan(geometry, "backward", include_pad)
    if plan is None:
        return False
    count = _threads.resolve(threads)
    _threads.run(
        _ROWS[dx.dtype][1],
        (_flat(dout), _flat(dx), plan.table, np.empty((count, plan.space), dx.dtype), _isa.current),
        items=plan.items,
        work=_ROWS_SLOWNESS * (dx.nbytes + dout.nbytes) + _ITEM_BYTES * plan.items,
        threads=count,
    )
    return True


def _pairs(direction: int, arrays: tuple[np.ndarray, ...], geometry: PoolGeometry, threads: int | None) -> None:
    """The maximum of 2 x 2 cells, forward or backward."""
    rows, items = _pool_tables.pair_blocks(geometry)
    _threads.run(
        _PAIRS[arrays[0].dtype][direction],
        (*map(_flat, arrays), *geometry.x_shape[2:], _isa.current),
        items=items,
        work=sum(array.nbytes for array in arrays) // 3,
        threads=_threads.resolve(threads),
        tail=(rows,),
    )


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)


def _global_mean(x: np.ndarray, out: np.ndarray, threads: int | None) -> None:
    out[...] = (plane_sums(x, _threads.resolve(threads)) / math.prod(x.shape[2:])).reshape(out.shape)


def _planes(array: np.ndarray) -> np.ndarray:
    """(N, C, *spatial) as (N * C, cells)."""
    return array.reshape(math.prod(array.shape[:2]), -1)


def max_pool_forward(
    x: Any, pool_param: Mapping[str, Any] | None = None, **options: Any
) -> tuple[np.ndarray, MaxPoolCache]:
    """The largest cell of every window.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    pool_param : dict, optional
        Options by name, as in CS231n:
        ``{'pool_height': 2, 'pool_width': 2, 'stride': 2}``.
    **options
        The same options as keywords; one given both ways is refused.
    kernel_size : int or sequence of int
        The window; instead of it ``pool_height`` and ``pool_width``.
    stride : int or sequence of int, default `kernel_size`
    pad : int, sequence, or {'valid', 'same', 'same_lower'}, default 0
        Cells added on each side, fewer than the window covers. They never win.
    dilation : int or sequence of int, default 1
    ceil_mode : bool, default False
        Round the output size up, so that no cell is left over; a last window
        that would start in the padding at the end is dropped.
    threads : int, optional

    Returns
    -------
    out : ndarray, (N, C, *out_spatial)
        NaN where a window holds one.
    cache : tuple
        For `max_pool_backward` and `max_pool_indices`.

    Raises
    ------
    ValueError
        If sizes do not fit.
    TypeError
        For an unknown option, one of the wrong type, or complex or object input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import max_pool_forward
    >>> x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> out, cache = max_pool_forward(x[None, None], kernel_size=2)
    >>> out[0, 0]
    array([[6., 8.],
           [3., 4.]])
    """
    x, geometry, rest = _prepare("max_pool_forward", x, pool_param, options)
    return _max_forward(x, geometry, rest["threads"])


def _max_forward(x: np.ndarray, geometry: PoolGeometry, threads: int | None) -> tuple[np.ndarray, MaxPoolCache]:
    out = _arrays.output(None, geometry.out_shape, x.dtype, "the output")
    # Half the memory wherever a plane's cells can be counted in 32 bits.
    small = math.prod(x.shape[2:]) <= _INT32_CELLS
    indices = np.empty(geometry.out_shape, np.int32 if small else np.int64)
    if not out.size:
        pass
    elif small and geometry.is_global:
        plane_maxima(x, out, indices, _threads.resolve(threads))
    elif small and geometry.in_pairs:
        _pairs(0, (x, out, indices), geometry, threads)
    elif not (small and _forward_rows(x, out, indices, geometry, threads)):
        rows, blocks = _rows(geometry)
        _threads.run(
            _MAX[x.dtype, indices.dtype][0],
            (_planes(x), _planes(out), _planes(indices), *geometry.tables),
            items=blocks,
            tail=(rows,),
            work=_SLOWNESS * (x.nbytes + out.nbytes + indices.nbytes),
            threads=_threads.resolve(threads),
        )
    indices.setflags(write=False)
    return out, MaxPoolCache(geometry, indices, x.dtype, threads)


def max_pool_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient of max pooling: each output's gradient goes to the cell that won.

    Parameters
    ----------
    dout : array_like, (N, C, *out_spatial)
        Cast to the dtype of the forward pass.
    cache : tuple
        From `max_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)
        Where windows overlap, gradients add up.

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import max_pool_forward, max_pool_backward
    >>> out, cache = max_pool_forward(np.array([[[1.0, 3.0, 2.0, 2.0]]]), kernel_size=2)
    >>> max_pool_backward(np.array([[[10.0, 20.0]]]), cache)
    array([[[ 0., 10., 20.,  0.]]])
    """
    as_cache(cache, "max_pool_forward", MaxPoolCache)
    geometry, indices, dtype, threads = cache
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, dtype)
    dx = np.empty(geometry.x_shape, dtype)
    if indices.shape != geometry.out_shape or indices.dtype not in _INDEX_NAMES or not indices.flags.c_contiguous:
        raise ValueError(f"cache holds indices of shape {indices.shape} and dtype {indices.dtype}; it was changed")
    if not dx.size:
        return dx
    astray = np.zeros(1, np.int8)
    if geometry.in_pairs and dx.shape[-1] >= _PAIRS_WIDTH and indices.dtype == np.int32:
        _pairs(1, (dout, indices, dx, astray), geometry, threads)
        if not astray[0]:
            return dx
        # Not from a forward pass, then; what can be made of it the general kernel knows.
        astray[0] = 0
    _threads.run(
        _MAX[dtype, indices.dtype][1],
        (_planes(dout), _planes(indices), _planes(dx), astray),
        items=math.prod(geometry.x_shape[:2]),
        work=(dx.nbytes + dout.nbytes + indices.nbytes) // 3,
        threads=_threads.resolve(threads),
    )
    if astray[0]:
        raise ValueError(f"cache holds indices outside the planes of {geometry.x_shape}; it was changed")
    return dx


def max_pool_indices(cache: MaxPoolCache) -> np.ndarray:
    """Where the maxima were.

    Parameters
    ----------
    cache : tuple
        From `max_pool_forward`.

    Returns
    -------
    ndarray of int64, (N, C, *out_spatial)
        Flat index into each channel's plane (or line, or volume). The first of
        equal maxima wins, and NaN wins over numbers.

    Raises
    ------
    TypeError
        If `cache` is of another layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import max_pool_forward, max_pool_indices
    >>> out, cache = max_pool_forward(np.array([[[1.0, 3.0, 2.0, 2.0]]]), kernel_size=2)
    >>> max_pool_indices(cache)
    array([[[1, 2]]])
    """
    as_cache(cache, "max_pool_forward", MaxPoolCache)
    return cache.indices.astype(np.int64)


def max_unpool(x: Any, indices: Any, out_shape: tuple[int, ...]) -> np.ndarray:
    """Put maxima back where they came from; zeros everywhere else.

    Parameters
    ----------
    x : array_like, (N, C, *pooled)
        Values.
    indices : array_like of int, of the shape of `x`
        From `max_pool_indices`. Of values with the same index the last stays.
    out_shape : tuple of int
        ``(N, C, *spatial)``, whole.

    Returns
    -------
    ndarray, `out_shape`

    Raises
    ------
    ValueError
        If shapes do not fit, or an index lies outside its plane.
    TypeError
        If `indices` are not integers, or `x` is complex or object.

    References
    ----------
    M. Zeiler, R. Fergus, "Visualizing and understanding convolutional
    networks", arXiv:1311.2901.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import max_unpool
    >>> max_unpool(np.array([[[3.0, 2.0]]]), np.array([[[1, 2]]]), (1, 1, 4))
    array([[[0., 3., 2., 0.]]])
    """
    x = _arrays.as_array("x", x)
    out_shape = as_shape("out_shape", out_shape)
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got dtype {indices.dtype}")
    if indices.shape != x.shape:
        raise ValueError(f"indices have shape {indices.shape}, but x has shape {x.shape}")
    if x.ndim != len(out_shape) or not 3 <= x.ndim <= 5 or x.shape[:2] != out_shape[:2]:
        raise ValueError(f"out_shape {out_shape} must be (N, C, *spatial) with the N, C and rank of x {x.shape}")
    cells = math.prod(out_shape[2:])
    if indices.size and (indices.min() < 0 or indices.max() >= cells):
        raise ValueError(
            f"indices run from {indices.min()} to {indices.max()}, but a plane of out_shape {out_shape} has {cells} "
            f"cells; legal are 0 to {cells - 1}"
        )
    dtype = _arrays.result_dtype(x)
    _arrays.check_bytes("the output", out_shape, dtype)
    out = np.zeros(out_shape, dtype)
    if x.size:
        np.put_along_axis(_planes(out), _planes(indices).astype(np.intp), _planes(x), axis=1)
    return out


def avg_pool_forward(
    x: Any, pool_param: Mapping[str, Any] | None = None, **options: Any
) -> tuple[np.ndarray, AvgPoolCache]:
    """The mean of every window.

    Parameters
    ----------
    x, pool_param, **options
        As `max_pool_forward`, and
    count_include_pad : bool, default True
        Whether cells of the padding count as zeros, or not at all. Cells beyond
        the padding, which only ``ceil_mode`` reaches, never count.

    Returns
    -------
    out : ndarray, (N, C, *out_spatial)
    cache : tuple
        For `avg_pool_backward`.

    Raises
    ------
    ValueError, TypeError
        As `max_pool_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import avg_pool_forward
    >>> avg_pool_forward(np.array([[[1.0, 3.0, 2.0, 4.0]]]), kernel_size=2)[0]
    array([[[2., 3.]]])
    """
    x, geometry, rest = _prepare("avg_pool_forward", x, pool_param, options, _AVG_DEFAULTS)
    return _avg_forward(x, geometry, as_bool("count_include_pad", rest["count_include_pad"]), rest["threads"])


def _avg_forward(
    x: np.ndarray, geometry: PoolGeometry, count_include_pad: bool, threads: int | None
) -> tuple[np.ndarray, AvgPoolCache]:
    out = _arrays.output(None, geometry.out_shape, x.dtype, "the output")
    if out.size and geometry.is_global:
        _global_mean(x, out, threads)
    elif out.size and not _forward_rows(x, out, _NO_INDICES, geometry, threads, count_include_pad):
        rows, blocks = _rows(geometry)
        _threads.run(
            _SUM[x.dtype][0],
            (_planes(x), _planes(out), *geometry.tables),
            items=blocks,
            tail=(rows,),
            work=_SLOWNESS * (x.nbytes + out.nbytes),
            threads=_threads.resolve(threads),
        )
        out /= geometry.window_sizes(count_include_pad).astype(x.dtype)
    return out, AvgPoolCache(geometry, count_include_pad, x.dtype, threads)


def avg_pool_backward(dout: Any, cache: AvgPoolCache) -> np.ndarray:
    """Gradient of average pooling: each output's gradient is spread evenly over its window.

    Parameters
    ----------
    dout : array_like, (N, C, *out_spatial)
        Cast to the dtype of the forward pass.
    cache : tuple
        From `avg_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import avg_pool_forward, avg_pool_backward
    >>> out, cache = avg_pool_forward(np.ones((1, 1, 4)), kernel_size=2)
    >>> avg_pool_backward(np.array([[[2.0, 6.0]]]), cache)
    array([[[1., 1., 3., 3.]]])
    """
    as_cache(cache, "avg_pool_forward", AvgPoolCache)
    geometry, count_include_pad, dtype, threads = cache
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, dtype)
    dx = np.empty(geometry.x_shape, dtype)
    if dx.size and geometry.is_global:
        _planes(dx)[...] = _planes(dout / dtype.type(math.prod(geometry.x_shape[2:])))
    elif dx.size and not _mean_backward_rows(dout, dx, geometry, threads, count_include_pad):
        share = dout / geometry.window_sizes(count_include_pad).astype(dtype)
        _threads.run(
            _SUM[dtype][1],
            (_planes(share), _planes(dx), *geometry.tables),
            tail=_rows(geometry)[:1],
            items=math.prod(geometry.x_shape[:2]),
            work=_SLOWNESS * (dx.nbytes + dout.nbytes),
            threads=_threads.resolve(threads),
        )
    return dx


def _global(where: str, x: Any) -> tuple[np.ndarray, PoolGeometry]:
    """One window over the whole of each plane."""
    x = _arrays.as_array("x", x)
    sizes = x.shape[2:]
    if 3 <= x.ndim <= 5 and 0 in sizes:
        raise ValueError(f"x {x.shape} has an empty spatial axis, over which {where}() has nothing to reduce")
    geometry = resolve_pool(x.shape, kernel_size=sizes or 1, stride=1, pad=0, dilation=1, ceil_mode=False)
    return _arrays.prepare(x, _arrays.result_dtype(x)), geometry


def global_max_pool_forward(x: Any) -> tuple[np.ndarray, MaxPoolCache]:
    """The largest cell of each channel.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)

    Returns
    -------
    out : ndarray, (N, C, 1, ...)
        The spatial axes are kept as ones.
    cache : tuple
        For `global_max_pool_backward`.

    Raises
    ------
    ValueError
        For an empty spatial axis, or another rank than 3 to 5.
    TypeError
        For complex or object input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import global_max_pool_forward
    >>> global_max_pool_forward(np.arange(4.0).reshape(1, 1, 2, 2))[0]
    array([[[[3.]]]])
    """
    return _max_forward(*_global("global_max_pool_forward", x), None)


def global_max_pool_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient of `global_max_pool_forward`; as `max_pool_backward`.

    Parameters
    ----------
    dout : array_like, (N, C, 1, ...)
        Gradient of the loss by the output; cast to the dtype of the forward pass.
    cache : tuple
        From `global_max_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import global_max_pool_forward, global_max_pool_backward
    >>> out, cache = global_max_pool_forward(np.arange(4.0).reshape(1, 1, 2, 2))
    >>> global_max_pool_backward(np.ones_like(out), cache)[0, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    return max_pool_backward(dout, cache)


def global_avg_pool_forward(x: Any) -> tuple[np.ndarray, AvgPoolCache]:
    """The mean of each channel.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)

    Returns
    -------
    out : ndarray, (N, C, 1, ...)
        The spatial axes are kept as ones.
    cache : tuple
        For `global_avg_pool_backward`.

    Raises
    ------
    ValueError
        For an empty spatial axis, or another rank than 3 to 5.
    TypeError
        For complex or object input.

    References
    ----------
    M. Lin, Q. Chen, S. Yan, "Network in network", arXiv:1312.4400.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import global_avg_pool_forward
    >>> global_avg_pool_forward(np.arange(4.0).reshape(1, 1, 2, 2))[0]
    array([[[[1.5]]]])
    """
    x, geometry = _global("global_avg_pool_forward", x)
    return _avg_forward(x, geometry, True, None)


def global_avg_pool_backward(dout: Any, cache: AvgPoolCache) -> np.ndarray:
    """Gradient of `global_avg_pool_forward`; as `avg_pool_backward`.

    Parameters
    ----------
    dout : array_like, (N, C, 1, ...)
        Gradient of the loss by the output; cast to the dtype of the forward pass.
    cache : tuple
        From `global_avg_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import global_avg_pool_forward, global_avg_pool_backward
    >>> out, cache = global_avg_pool_forward(np.ones((1, 1, 2, 2)))
    >>> global_avg_pool_backward(np.ones_like(out), cache)[0, 0]
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    return avg_pool_backward(dout, cache)
