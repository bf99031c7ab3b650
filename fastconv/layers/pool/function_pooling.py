"""Pooling by any function of a window, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import cache_repr
from fastconv.checks.options import as_cache
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.caches import checked_geometry
from fastconv.layers.pool import windows as _windows
from fastconv.layers.pool.pooling import PoolParam, find_call, pool_calls
from fastconv.runtime.records import dataclass

Function = Callable[[np.ndarray], Any]
Derivative = Callable[[np.ndarray, np.ndarray], Any]

_HINT = ": reduce the last axis, as in lambda w: np.median(w, axis=-1)"


@dataclass(frozen=True)
class FunctionPlan:
    """A plan that calls a Python function on copies of the windows, in the thread of the caller."""

    geometry: PoolGeometry
    nbytes = 0

    def __str__(self) -> str:
        return "function of windows"

    def run(self, x: np.ndarray, out: np.ndarray, fn: Function) -> None:
        """Write ``fn(windows)`` to `out`. Each call of `fn` gets some of the windows."""
        outs = out.reshape(-1, *out.shape[2:])
        for planes, padded in _windows.pad_planes(x, self.geometry):
            for outputs, windows in _windows.copy_windows(padded, self.geometry):
                shape, target = windows.shape, outs[planes][outputs]
                target[...] = _checked("fn", fn(windows), shape[:-1], shape, _HINT).reshape(target.shape)


def _make_plan(geometry: PoolGeometry, dtype: np.dtype, option: None, threads: int) -> FunctionPlan:
    return FunctionPlan(geometry)


_pool = pool_calls("pool_forward", _make_plan)


class PoolCache(NamedTuple):
    """The cache of `pool_forward`: the arrays and options that `pool_backward` needs."""

    x: np.ndarray
    out: np.ndarray
    geometry: PoolGeometry
    fn_grad: Derivative | None

    def __repr__(self) -> str:
        return cache_repr(self)


def pool_forward(
    x: Any, pool_param: PoolParam, fn: Function, fn_grad: Derivative | None = None, **options: Any
) -> tuple[np.ndarray, PoolCache]:
    """Apply a function to every window, such as a median, a quantile or a soft maximum.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    pool_param : dict, int, sequence of int, or None
        See `max_pool_forward`. Cells of the padding are zeros, and so are the
        cells beyond the padding that windows read with ``ceil_mode``.
    fn : callable
        ``fn(windows)`` reduces the last axis of `windows`, an array
        ``(windows, taps)`` with some of the windows. The last axis has the cells
        of a window in order, the last spatial axis fastest. `fn` may overwrite it.
    fn_grad : callable, optional
        ``fn_grad(windows, out)`` returns the derivative of each output with
        respect to the cells of its window, in the shape of `windows`.
        `pool_backward` needs it.
    **options
        The options of `pool_param` as keywords. ``threads`` is accepted but has
        no effect, because `fn` is called in the calling thread.

    Returns
    -------
    out : ndarray, (N, C, *out_spatial)
    cache : tuple
        For `pool_backward`. It holds `out`, and `x` itself if no copy was needed.

    Raises
    ------
    ValueError
        If sizes do not fit, or `fn` returns another shape.
    TypeError
        If `fn` or `fn_grad` cannot be called. See also docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import pool_forward, pool_backward
    >>> x = np.array([[[1.0, 9.0, 2.0, 4.0, 4.0, 5.0]]])
    >>> pool_forward(x, {'kernel_size': 3}, lambda windows: np.median(windows, axis=-1))[0]
    array([[[2., 4.]]])
    >>> def spread(windows, out):
    ...     return np.ones_like(windows)
    >>> out, cache = pool_forward(x, {'kernel_size': 3}, lambda windows: windows.sum(axis=-1), spread)
    >>> pool_backward(np.array([[[1.0, 2.0]]]), cache)
    array([[[1., 1., 1., 2., 2., 2.]]])
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function, called as fn(windows), got {fn!r}")
    if fn_grad is not None and not callable(fn_grad):
        raise TypeError(f"fn_grad must be None or a function, called as fn_grad(windows, out), got {fn_grad!r}")
    x, call = find_call(_pool, x, pool_param, options)
    geometry = call.geometry
    out = _arrays.empty_result(geometry.out_shape, x.dtype, "the output")
    call.find_plan(x.dtype).run(x, out, fn)
    # Store views, because the caller may later change the shape of an array by assigning to `array.shape`.
    return out, PoolCache(x[...], out[...], geometry, fn_grad)


def pool_backward(dout: Any, cache: PoolCache) -> np.ndarray:
    """Gradient of `pool_forward`.

    Each cell of `dx` is a sum over the windows that contain the cell. Each window adds its element of `dout`, times the
    derivative of its output with respect to the cell. `fn_grad` returns these derivatives.

    Parameters
    ----------
    dout : array_like, (N, C, *out_spatial)
    cache : tuple
        From `pool_forward`, with a `fn_grad`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)

    Raises
    ------
    ValueError
        If there is no `fn_grad`, or it returns another shape, or `dout` does not
        have the shape of the output.
    TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import pool_forward, pool_backward
    >>> def product_grad(windows, out):
    ...     return out[..., None] / windows
    >>> x = np.array([[[1.0, 2.0, 3.0]]])
    >>> out, cache = pool_forward(x, {'kernel_size': 2, 'stride': 1}, lambda w: w.prod(axis=-1), product_grad)
    >>> pool_backward(np.ones_like(out), cache)
    array([[[2., 4., 2.]]])
    """
    x, out, geometry, fn_grad = as_cache(cache, "pool_forward", PoolCache)
    if fn_grad is None:
        raise ValueError("cache holds no fn_grad; pass fn_grad(windows, out), the derivative of fn, to pool_forward")
    if not callable(fn_grad):
        raise TypeError(f"fn_grad in cache must be a function, called as fn_grad(windows, out), got {fn_grad!r}")
    checked_geometry("pool_forward", geometry, PoolGeometry)
    _arrays.check_cached("pool_forward", ("x", "out"), (x, out), (geometry.x_shape, geometry.out_shape))
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, x.dtype)
    dx = _arrays.empty_result(geometry.x_shape, x.dtype, "dx")
    outs, douts = (array.reshape(-1, *array.shape[2:]) for array in (out, dout))
    for planes, padded in _windows.pad_planes(x, geometry):
        sums = _windows.GradientSums(padded.shape, padded.dtype)
        for outputs, windows in _windows.copy_windows(padded, geometry):
            results = outs[planes][outputs]
            derivative = _checked(
                "fn_grad", fn_grad(windows, results.reshape(-1).copy()), windows.shape, windows.shape
            ).reshape(*results.shape, -1)
            for i, cells in enumerate(_windows.cells_by_tap(geometry, outputs)):
                sums.add(cells, derivative[..., i] * douts[planes][outputs])
        inside = (slice(axis.lo, axis.lo + axis.size) for axis in geometry.axes)
        dx.reshape(-1, *dx.shape[2:])[planes] = sums.result()[(slice(None), *inside)]
    return dx


def _checked(name: str, result: Any, shape: tuple[int, ...], windows: tuple[int, ...], hint: str = "") -> np.ndarray:
    array = np.asarray(result)
    if array.shape != shape:
        raise ValueError(
            f"{name} must return shape {shape} for windows of shape {windows}, got shape {array.shape}{hint}"
        )
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must return real numbers, got dtype {array.dtype}")
    return array
