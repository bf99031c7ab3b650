"""Maximum and average pooling, and unpooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.arrays import prepare_inputs
from fastconv.checks.messages import cache_repr, kind_of
from fastconv.checks.options import as_bool, as_cache, as_int, as_shape, merge_options
from fastconv.geometry.pool import PoolGeometry, resolve_pool
from fastconv.layers.caches import checked_dtype, checked_geometry
from fastconv.layers.calls import Call, Calls, plain_options
from fastconv.layers.pool.kernels import index_dtype, plan_for, planes
from fastconv.layers.pool.plan import INDEX_DTYPES, INT32, INT64, PoolPlan
from fastconv.runtime import memory as _memory, threads as _threads

#: The type of the argument `pool_param`: a dict of options, the value of the option `kernel_size`, or None.
PoolParam: TypeAlias = Mapping[str, Any] | int | Sequence[int] | None

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
#: The default options of the functions that have one more option than `max_pool_forward`.
_DEFAULTS_OF = {
    "avg_pool_forward": {**_DEFAULTS, "count_include_pad": True},
    "lp_pool_forward": {**_DEFAULTS, "p": 2},
}
_FLOAT32, _FLOAT64 = _arrays.DTYPES
#: The type of a function that makes a plan from a geometry, a dtype, an option and a number of threads.
MakePlan: TypeAlias = Callable[[PoolGeometry, np.dtype, Any, int], Any]


class MaxPoolCache(NamedTuple):
    """The cache of `max_pool_forward`. `indices` has the index of each maximum in its plane (a channel of an image)."""

    geometry: PoolGeometry
    indices: np.ndarray
    dtype: np.dtype
    threads: int | None

    def __repr__(self) -> str:
        return cache_repr(self)


class AvgPoolCache(NamedTuple):
    """The cache of `avg_pool_forward`: the values that `avg_pool_backward` needs."""

    geometry: PoolGeometry
    count_include_pad: bool
    dtype: np.dtype
    threads: int | None

    def __repr__(self) -> str:
        return cache_repr(self)


def _as_param(caller: str, pool_param: Any) -> Mapping[str, Any]:
    """Return `pool_param` as a dict of options. An int or a sequence becomes the option `kernel_size`."""
    if isinstance(pool_param, Mapping):
        return pool_param
    whole = hasattr(pool_param, "__index__") and not isinstance(pool_param, (bool, np.bool_))
    if whole or isinstance(pool_param, (list, tuple, np.ndarray)):
        return {"kernel_size": pool_param}
    raise TypeError(
        f"pool_param must be a dict of options, a kernel_size (an int or a sequence of ints), or None, got "
        f"{kind_of(pool_param)}; {caller}() also takes options as keywords"
    )


def _kernel_size(caller: str, settings: dict[str, Any], rank: int) -> Any:
    """Return the size of the window, from `kernel_size` or from CS231n's `pool_height` and `pool_width`."""
    height, width, kernel_size = settings["pool_height"], settings["pool_width"], settings["kernel_size"]
    if height is None and width is None:
        if kernel_size is None:
            raise TypeError(f"{caller}() needs kernel_size, or pool_height and pool_width")
        return kernel_size
    if kernel_size is not None:
        raise TypeError(f"{caller}() got both kernel_size and pool_height or pool_width; give one of them")
    if height is None or width is None:
        raise TypeError(
            f"{caller}() needs both pool_height and pool_width, got pool_height={height!r} and pool_width={width!r}"
        )
    if rank != 2:
        raise ValueError(f"pool_height and pool_width need two spatial axes, but x has {rank}; use kernel_size")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        return as_int("pool_height", height, 1), as_int("pool_width", width, 1)
    return height, width


PoolCall: TypeAlias = Call[PoolGeometry]


def pool_calls(
    caller: str, make_plan: MakePlan, option: Callable[[Mapping[str, Any]], Any] | None = None
) -> Calls[PoolCall]:
    """Return a store for the calls of a pooling. The function `option` gets all options, and returns the value of the
    option that only this pooling has.
    """

    def resolve(dtype: np.dtype, x: np.ndarray, pool_param: Any, options: Mapping[str, Any]) -> PoolCall:
        geometry, settings = resolve_call(caller, x.shape, pool_param, options)
        instead = "Pool fewer images at a time, or with a larger stride"
        _memory.check_array("the output", geometry.out_shape, dtype, instead)
        return Call(geometry, option(settings) if option else None, settings["threads"], make_plan, dtype)

    return Calls(("x",), resolve)


def find_call(calls: Calls[PoolCall], x: Any, pool_param: Any, options: dict[str, Any]) -> tuple[np.ndarray, PoolCall]:
    """Return x in the form that kernels read, and the call. An int as `pool_param` is the kernel size."""
    if type(pool_param) is int and "kernel_size" not in options:
        pool_param, options = None, {"kernel_size": pool_param, **options}
    call, (x,), _ = calls.find((x,), plain_options(pool_param, options), pool_param, options)
    return x, call


def resolve_call(
    caller: str, x_shape: tuple[int, ...], pool_param: Any, options: Mapping[str, Any]
) -> tuple[PoolGeometry, Mapping[str, Any]]:
    """Check the options of a call. Return the geometry, and a dict with all options."""
    if pool_param is not None and type(pool_param) is not dict:
        pool_param = _as_param(caller, pool_param)
    settings = merge_options(caller, _DEFAULTS_OF.get(caller, _DEFAULTS), options, pool_param, "pool_param")
    kernel_size = _kernel_size(caller, settings, len(x_shape) - 2)
    _threads.resolve(settings["threads"])
    geometry = resolve_pool(
        x_shape,
        kernel_size=kernel_size,
        stride=settings["stride"],
        pad=settings["pad"],
        dilation=settings["dilation"],
        ceil_mode=settings["ceil_mode"],
    )
    return geometry, settings


def plan_maximum(geometry: PoolGeometry, dtype: np.dtype, _: None, threads: int) -> PoolPlan:
    """Return the plan of a max pooling."""
    return plan_for("maximum", geometry, dtype, threads, index_dtype=index_dtype(geometry))


def plan_mean(geometry: PoolGeometry, dtype: np.dtype, include_pad: bool, threads: int) -> PoolPlan:
    """Return the plan of an average pooling."""
    return plan_for("mean", geometry, dtype, threads, include_pad)


def _count_include_pad(settings: Mapping[str, Any]) -> bool:
    return as_bool("count_include_pad", settings["count_include_pad"])


_max_pool = pool_calls("max_pool_forward", plan_maximum)
_avg_pool = pool_calls("avg_pool_forward", plan_mean, _count_include_pad)


def max_pool_forward(x: Any, pool_param: PoolParam = None, **options: Any) -> tuple[np.ndarray, MaxPoolCache]:
    """Compute the maximum of every window.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    pool_param : dict, int or sequence of int, optional
        Options by name, as in CS231n:
        ``{'pool_height': 2, 'pool_width': 2, 'stride': 2}``. An int or a sequence
        is the `kernel_size`: ``max_pool_forward(x, 2)``.
    **options
        The same options as keywords. It is an error to give an option both ways.
    kernel_size : int or sequence of int
        The size of the window. ``pool_height`` and ``pool_width`` may be given
        instead.
    stride : int or sequence of int, default `kernel_size`
    pad : int, sequence, or {'valid', 'same', 'same_lower'}, default 0
        The number of cells added on each side, less than the extent of the
        window. A cell of the padding is never the maximum.
    dilation : int or sequence of int, default 1
    ceil_mode : bool, default False
        Round the output size up, so that no cell is left over. A last window
        that would start in the padding at the end is dropped.
    threads : int, optional

    Returns
    -------
    out : ndarray, (N, C, *out_spatial)
        The result of a window with a NaN is NaN, because NaN counts as larger than
        every number. Among several NaNs or equal maxima, the first in the window
        is chosen.
    cache : tuple
        For `max_pool_backward` and `max_pool_indices`.

    Raises
    ------
    ValueError
        If sizes do not fit, or a window needs more than 1 GiB of workspace for each thread.
    TypeError
        See docs/conventions.md.

    Notes
    -----
    The time hardly grows with the size of the window, because a large window is computed axis
    by axis, from windows of half its length.

    References
    ----------
    M. van Herk, "A fast algorithm for local minimum and maximum filters on rectangular and
    octagonal kernels", Pattern Recognition Letters 13, 1992; J. Gil, M. Werman, "Computing
    2-D min, median, and max filters", IEEE PAMI 15, 1993.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import max_pool_forward
    >>> x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    >>> out, cache = max_pool_forward(x[None, None], 2)
    >>> out[0, 0]
    array([[6., 8.],
           [3., 4.]])
    """
    return forward_max(*find_call(_max_pool, x, pool_param, options))


def forward_max(x: np.ndarray, call: PoolCall) -> tuple[np.ndarray, MaxPoolCache]:
    """Return the output and the cache of a max pooling."""
    geometry = call.geometry
    out = _arrays.empty_result(geometry.out_shape, x.dtype, "the output")
    indices = _arrays.empty_result(geometry.out_shape, index_dtype(geometry), "the indices")
    (call.run or call.find_plan(x.dtype).run)(x, out, indices)
    indices.setflags(write=False)
    return out, MaxPoolCache(geometry, indices, x.dtype, call.threads)


def max_pool_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient of max pooling: each element of `dout` is added to the cell of `dx` that was the maximum.

    Parameters
    ----------
    dout : array_like, (N, C, *out_spatial)
    cache : tuple
        From `max_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)
        A cell that is the maximum of several windows gets the sum of their gradients.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

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
    if dtype is not _FLOAT32 and dtype is not _FLOAT64:
        checked_dtype("max_pool_forward", dtype)
    kind = _check_indices(geometry, indices)
    workers = _threads.resolve(threads)
    plan = plan_for("maximum_gradient", geometry, dtype, workers, True, kind)
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, dtype, workers)
    dx = _arrays.empty_result(geometry.x_shape, dtype, "dx")
    if not plan.run(dout, dx, indices):
        raise ValueError(f"cache holds indices outside the planes of x {geometry.x_shape}; do not change the cache")
    return dx


def _check_indices(geometry: Any, indices: Any) -> np.dtype:
    """Return the dtype of the indices in a cache. Raise an error if `max_pool_forward` cannot have made the indices."""
    if type(geometry) is not PoolGeometry or type(indices) is not np.ndarray:
        checked_geometry("max_pool_forward", geometry, PoolGeometry)
        raise TypeError(f"indices in cache must be an ndarray, got {kind_of(indices)}; do not change the cache")
    kind = indices.dtype
    fit = indices.shape == geometry.out_shape and (kind is INT32 or kind is INT64 or kind in INDEX_DTYPES)
    if not fit or not (flags := indices.flags).c_contiguous or not flags.aligned:
        raise ValueError(
            f"indices in cache must be C-contiguous, of shape {geometry.out_shape} and of dtype int32 or int64, got "
            f"shape {indices.shape} and dtype {indices.dtype}; do not change the cache"
        )
    return INT32 if kind is INT32 or kind == INT32 else INT64


def max_pool_indices(cache: MaxPoolCache) -> np.ndarray:
    """Return the index of each maximum in its plane, which is one channel of one image.

    Parameters
    ----------
    cache : tuple
        From `max_pool_forward`.

    Returns
    -------
    ndarray of int64, (N, C, *out_spatial)
        Flat indices into the plane (or line, or volume) of a channel. NaN counts as
        larger than every number. Among equal maxima or several NaNs, the first is
        chosen, as in `numpy.argmax`. (PyTorch chooses the last of several NaNs.)

    Raises
    ------
    TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import max_pool_forward, max_pool_indices
    >>> out, cache = max_pool_forward(np.array([[[1.0, 3.0, 2.0, 2.0]]]), kernel_size=2)
    >>> max_pool_indices(cache)
    array([[[1, 2]]])
    >>> out, cache = max_pool_forward(np.array([[[1.0, np.nan, 2.0, np.nan]]]), kernel_size=4)
    >>> max_pool_indices(cache)
    array([[[1]]])
    """
    geometry, indices, _, _ = as_cache(cache, "max_pool_forward", MaxPoolCache)
    _check_indices(geometry, indices)
    return indices.astype(np.int64)


def max_unpool(x: Any, indices: Any, out_shape: tuple[int, ...]) -> np.ndarray:
    """Put maxima back into the cells that they came from. All other cells are zeros.

    Parameters
    ----------
    x : array_like, (N, C, *pooled)
        Values.
    indices : array_like of int, of the shape of `x`
        From `max_pool_indices`. If several values have the same index, the last one is kept.
    out_shape : tuple of int
        The whole shape, ``(N, C, *spatial)``.

    Returns
    -------
    ndarray, `out_shape`

    Raises
    ------
    ValueError
        If shapes do not fit, or an index lies outside its plane.
    TypeError
        If `indices` does not have an integer dtype. See also docs/conventions.md.

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

    def resolve(x: np.ndarray, places: np.ndarray) -> tuple[tuple[int, ...], None]:
        shape = as_shape("out_shape", out_shape)
        if places.dtype.kind not in "iu":
            raise TypeError(f"indices must be integers, got dtype {places.dtype}")
        if places.shape != x.shape:
            raise ValueError(f"indices must have the shape of x, {x.shape}, got shape {places.shape}")
        if x.ndim != len(shape) or not 3 <= x.ndim <= 5 or x.shape[:2] != shape[:2]:
            raise ValueError(
                f"out_shape must be (N, C, *spatial) with the N, C and number of axes of x {x.shape}, got {shape}"
            )
        cells = math.prod(shape[2:])
        if places.size and (places.min() < 0 or places.max() >= cells):
            raise ValueError(
                f"indices must be from 0 to {cells - 1}, because a plane of out_shape {shape} has {cells} cells, got "
                f"{places.min()} to {places.max()}"
            )
        _memory.check_bytes("the output", shape, _arrays.result_dtype(x))
        return shape, None

    shape, (x, places), _ = prepare_inputs(resolve, convert=None, integer="indices", x=x, indices=indices)
    dtype = _arrays.result_dtype(x)
    out = np.zeros(shape, dtype)
    if x.size:
        np.put_along_axis(planes(out), planes(places).astype(np.intp), planes(x), axis=1)
    return out


def avg_pool_forward(x: Any, pool_param: PoolParam = None, **options: Any) -> tuple[np.ndarray, AvgPoolCache]:
    """Compute the mean of every window.

    Parameters
    ----------
    x, pool_param, **options
        See `max_pool_forward`. There is one more option:
    count_include_pad : bool, default True
        If True, the mean includes cells of the padding as zeros. Cells beyond the
        padding, which windows read only with ``ceil_mode``, are never included.

    Returns
    -------
    out : ndarray, (N, C, *out_spatial)
    cache : tuple
        For `avg_pool_backward`.

    Raises
    ------
    ValueError, TypeError
        See `max_pool_forward` and docs/conventions.md.

    Notes
    -----
    The error of a mean is that of a pairwise sum, however large the window is, because
    a window is the sum of windows of half its length. Nothing is subtracted, so an inf or a
    NaN affects only the windows that contain it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import avg_pool_forward
    >>> avg_pool_forward(np.array([[[1.0, 3.0, 2.0, 4.0]]]), kernel_size=2)[0]
    array([[[2., 3.]]])
    """
    return forward_avg(*find_call(_avg_pool, x, pool_param, options))


def forward_avg(x: np.ndarray, call: PoolCall) -> tuple[np.ndarray, AvgPoolCache]:
    """Return the output and the cache of an average pooling."""
    out = _arrays.empty_result(call.geometry.out_shape, x.dtype, "the output")
    (call.run or call.find_plan(x.dtype).run)(x, out)
    return out, AvgPoolCache(call.geometry, call.option, x.dtype, call.threads)


def avg_pool_backward(dout: Any, cache: AvgPoolCache) -> np.ndarray:
    """Gradient of average pooling: each element of `dout` is divided evenly among the cells of its window.

    Parameters
    ----------
    dout : array_like, (N, C, *out_spatial)
    cache : tuple
        From `avg_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

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
    if type(geometry) is not PoolGeometry or (dtype is not _FLOAT32 and dtype is not _FLOAT64):
        checked_geometry("avg_pool_forward", geometry, PoolGeometry)
        checked_dtype("avg_pool_forward", dtype)
    if count_include_pad is not True:
        count_include_pad = as_bool("count_include_pad in cache", count_include_pad)
    workers = _threads.resolve(threads)
    plan = plan_for("mean_gradient", geometry, dtype, workers, count_include_pad)
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, dtype, workers)
    dx = _arrays.empty_result(geometry.x_shape, dtype, "dx")
    plan.run(dout, dx)
    return dx
