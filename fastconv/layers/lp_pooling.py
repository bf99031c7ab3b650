"""Pooling by norms: L2 by kernels of its own, other exponents as the root of a sum of powers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastconv import _arrays, _memory, _threads
from fastconv._messages import cache_repr
from fastconv._options import as_cache, as_number
from fastconv._pool_geometry import PoolGeometry
from fastconv.layers import _pool_kernels, _windows
from fastconv.layers._caches import checked_geometry
from fastconv.layers.pooling import PoolParam, prepare

#: The exponent that has kernels of its own.
_OWN_KERNELS = 2.0
#: Powers are held of so many cells at a time, in bytes.
_POWER_BYTES = 1 << 20
#: Sums and factors out of these ranges have lost digits to powers that are no normal numbers, or may have.
_SUMS, _FACTORS = (1e-290, math.inf), (1e-200, 1e200)


class LpPoolCache(NamedTuple):
    """What `lp_pool_backward` needs of the forward pass."""

    x: np.ndarray
    out: np.ndarray
    geometry: PoolGeometry
    p: float
    threads: int | None

    def __repr__(self) -> str:
        return cache_repr(self)


def _exponent(p: Any) -> float:
    """`p` as a float of at least 1."""
    try:
        return as_number("p", p, 1)
    except ValueError as error:
        if p != math.inf:
            raise
        raise ValueError(f"{error}; the limit is the maximum of abs(x), which max_pool_forward finds") from None


def lp_pool_forward(x: Any, pool_param: PoolParam = None, **options: Any) -> tuple[np.ndarray, LpPoolCache]:
    """The p-norm of every window, ``(sum |x|**p) ** (1/p)``.

    Parameters
    ----------
    x, pool_param, **options
        As `max_pool_forward`; cells of the padding add nothing. And
    p : float, default 2
        At least 1, and finite. 1 is the sum of absolute values, 2 has kernels
        of its own.

    Returns
    -------
    out : ndarray, (N, C, *out_spatial)
    cache : tuple
        For `lp_pool_backward`. It holds `out`, and `x` where no copy was
        needed: changing them in place changes the gradient.

    Raises
    ------
    ValueError, TypeError
        As `max_pool_forward`, and for a `p` below 1, infinite or no number.

    Notes
    -----
    With ``p=2`` squares are summed in the dtype of `x`, as PyTorch does: they are inf, and
    their gradients 0, from 1.8e19 on in float32, 1.3e154 in float64, and lose their digits
    below 1.1e-19 and 1.5e-154. Any other `p` takes numbers of any size.

    References
    ----------
    P. Sermanet, S. Chintala, Y. LeCun, "Convolutional neural networks applied
    to house numbers digit classification", ICPR 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import lp_pool_forward
    >>> lp_pool_forward(np.array([[[3.0, -4.0, 5.0, 12.0]]]), kernel_size=2)[0]
    array([[[ 5., 13.]]])
    >>> lp_pool_forward(np.array([[[3.0, -4.0, 5.0, 12.0]]]), kernel_size=2, p=1)[0]
    array([[[ 7., 17.]]])
    """
    x, geometry, rest = prepare("lp_pool_forward", x, pool_param, options)
    p, threads = _exponent(rest["p"]), rest["threads"]
    workers = _threads.resolve(threads)
    out = _arrays.fresh(geometry.out_shape, x.dtype, "the output")
    if out.size and p == _OWN_KERNELS:
        _pool_kernels.norm(x, out, geometry, workers)
    elif out.size:
        _norms(x, out, geometry, p, workers)
    # A view: a shape that the caller assigns to an array later must not reach the cache.
    return out, LpPoolCache(x[...], out[...], geometry, p, threads)


def lp_pool_backward(dout: Any, cache: LpPoolCache) -> np.ndarray:
    """Gradient of `lp_pool_forward`: ``dout * sign(x) * (|x| / out) ** (p - 1)``, summed over windows.

    Parameters
    ----------
    dout : array_like, (N, C, *out_spatial)
        Cast to the dtype of the forward pass.
    cache : tuple
        From `lp_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)
        Windows whose norm is 0, where there is no derivative, add 0.

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import lp_pool_forward, lp_pool_backward
    >>> out, cache = lp_pool_forward(np.array([[[3.0, -4.0, 0.0, 0.0]]]), kernel_size=2)
    >>> lp_pool_backward(np.array([[[10.0, 1.0]]]), cache)
    array([[[ 6., -8.,  0.,  0.]]])
    """
    x, out, geometry, p, threads = as_cache(cache, "lp_pool_forward", LpPoolCache)
    if type(geometry) is not PoolGeometry:
        checked_geometry("lp_pool_forward", geometry, PoolGeometry)
    if type(p) is not float or not 1 <= p < math.inf:
        p = _exponent(p)
    _arrays.check_cached("lp_pool_forward", ("x", "out"), (x, out), (geometry.x_shape, geometry.out_shape))
    workers = _threads.resolve(threads)
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, x.dtype, workers)
    dx = _memory.empty(geometry.x_shape, x.dtype)
    if dx.size and p == _OWN_KERNELS:
        _pool_kernels.norm_gradient(dout, out, x, dx, geometry, workers)
    elif dx.size:
        _gradients(dout, out, x, dx, geometry, p, workers)
    return dx


def _parts(
    geometry: PoolGeometry, inputs: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...], gradient: bool
) -> Iterator[tuple[PoolGeometry, slice, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
    """Some planes at a time, as one image of so many channels; of large planes some rows.

    Inputs and outputs have the shapes of x and of out. Those of a part are rows of x with all windows that meet some
    of them where `gradient`; else rows of out with all cells of their windows. The slice is of those rows.
    """
    planes = geometry.planes
    step = max(1, min(planes, _POWER_BYTES // (8 * geometry.cells)))
    axis = geometry.axes[0]
    _, _, stride, _, dilation, _ = axis.row()
    reach = dilation * (axis.row()[1] - 1) + 1
    total = axis.size if gradient else axis.out
    each = 8 * (geometry.cells // axis.size)
    # Half as many rows as a window has at least, or most of the work would be done again and again.
    rows = total if step > 1 else max(_POWER_BYTES // each, reach // 2, 1) // (1 if gradient else stride) + 1
    stacked = [[a.reshape(1, planes, *a.shape[2:]) for a in arrays] for arrays in (inputs, outputs)]
    for begin in range(0, total, rows):
        end = min(begin + rows, total)
        part, cells, windows = _rows_of(geometry, begin, end, gradient)
        own = slice(begin - cells.start, end - cells.start) if gradient else slice(None)
        for first in range(0, planes, step):
            count = min(step, planes - first)
            ins, outs = (
                tuple(a[:, first : first + count, chosen] for a in arrays)
                for arrays, chosen in zip(stacked, (cells, windows), strict=True)
            )
            yield part.for_planes(count), own, ins, outs


def _rows_of(geometry: PoolGeometry, begin: int, end: int, gradient: bool) -> tuple[PoolGeometry, slice, slice]:
    """A pooling of some rows: its geometry, its rows of x, and its rows of out."""
    axis = geometry.axes[0]
    size, k, stride, lo, dilation, out = axis.row()
    reach = dilation * (k - 1) + 1
    if gradient:
        first = min(max(0, -((reach - 1 - begin - lo) // stride)), (begin + lo) // stride, out - 1)
        last = min(max(first + 1, (end - 1 + lo) // stride + 1), out)
    else:
        first, last = begin, end
    if (first, last) == (0, out) and not gradient:
        return geometry, slice(0, size), slice(0, out)
    low = max(0, first * stride - lo)
    high = min(size, (last - 1) * stride - lo + reach)
    if gradient:
        low, high = min(low, begin), max(high, end)
    before = low - (first * stride - lo)
    after = (last - 1) * stride - lo + reach - high
    cut = dataclasses.replace(axis, size=high - low, lo=before, hi=max(after, 0), out=last - first)
    shape = (*geometry.x_shape[:2], high - low, *geometry.x_shape[3:])
    part = geometry.derive(x_shape=shape, axes=(cut, *geometry.axes[1:]))
    return part, slice(low, high), slice(first, last)


def _between(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return (values > ends[0]) & (values < ends[1])


def _norms(x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, p: float, threads: int) -> None:
    for part, _, (cells,), (result,) in _parts(geometry, (x,), (out,), False):
        # In double, where powers are seldom 0 or inf.
        powers, sums = np.abs(cells, dtype=np.float64), np.empty(part.out_shape)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            np.power(powers, p, out=powers)
            _pool_kernels.mean(powers, sums, part, threads, True)
            sums *= part.window_sizes(True)
            kept = _between(sums, _SUMS)
            np.power(sums, 1 / p, out=sums)
            result[...] = sums
            if not kept.all():
                peaks = np.empty(part.out_shape, cells.dtype)
                _pool_kernels.maximum(np.abs(cells), peaks, part, threads)
                # Of zeros, inf and NaN the sums are right.
                lost = ~kept & _between(peaks, (0, math.inf))
                if lost.any():
                    _norms_by_peaks(cells, result, part, p, peaks, lost)


def _norms_by_peaks(
    x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, p: float, peaks: np.ndarray, chosen: np.ndarray
) -> None:
    """The chosen norms, by powers of what cells are to the largest of their window: these are at most 1."""
    outs, peaks, chosen = (array.reshape(-1, *array.shape[2:]) for array in (out, peaks, chosen))
    for planes, padded in _windows.pad_planes(x, geometry):
        for outputs, windows in _windows.copy_windows(padded, geometry):
            where = chosen[planes][outputs]
            peak = peaks[planes][outputs][where].astype(np.float64)
            ratios = np.abs(windows[where.reshape(-1)], dtype=np.float64) / peak[:, None]
            outs[planes][outputs][where] = peak * np.power(ratios, p).sum(axis=-1) ** (1 / p)


def _gradients(
    dout: np.ndarray, out: np.ndarray, x: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, p: float, threads: int
) -> None:
    for part, own, (cells, result), (gradient, norms) in _parts(geometry, (x, dx), (dout, out), True):
        with np.errstate(all="ignore"):
            shares = np.power(norms, 1 - p, dtype=np.float64)
            lost = ~_between(shares, _FACTORS) & _between(norms, (0, math.inf))
            shares *= gradient
            shares[lost | (norms == 0)] = 0
            # What `mean_gradient` divides by.
            shares *= part.window_sizes(True)
            sums, factors = np.empty(part.x_shape), np.abs(cells, dtype=np.float64)
            _pool_kernels.mean_gradient(shares, sums, part, threads, True)
            sums *= np.copysign(np.power(factors, p - 1, out=factors), cells)
            # The sign of 0 is 0, of which only p = 1 makes a difference.
            sums[cells == 0] = 0
            if lost.any():
                # A power that is inf met shares of 0: all its windows are among the lost.
                sums[np.isinf(factors) & np.isfinite(cells)] = 0
                _add_gradients_by_ratios(gradient, norms, cells, sums, part, p, lost)
            result[:, :, own] = sums[:, :, own]


def _add_gradients_by_ratios(
    dout: np.ndarray,
    out: np.ndarray,
    x: np.ndarray,
    dx: np.ndarray,
    geometry: PoolGeometry,
    p: float,
    chosen: np.ndarray,
) -> None:
    """Adds what the chosen windows spread, by powers of what their cells are to their norm."""
    douts, outs, sums, chosen = (array.reshape(-1, *array.shape[2:]) for array in (dout, out, dx, chosen))
    inside = tuple(slice(axis.lo, axis.lo + axis.size) for axis in geometry.axes)
    for planes, padded in _windows.pad_planes(x, geometry):
        spread = _windows.GradientSums(padded.shape, np.float64)
        for outputs, windows in _windows.copy_windows(padded, geometry):
            where = chosen[planes][outputs]
            norms = outs[planes][outputs][where].astype(np.float64)
            cells = windows[where.reshape(-1)]
            ratios = np.abs(cells, dtype=np.float64) / norms[:, None]
            shares = np.sign(cells) * np.power(ratios, p - 1) * douts[planes][outputs][where][:, None]
            for i, to in enumerate(_windows.cells_by_tap(geometry, outputs)):
                added = np.zeros(where.shape)
                added[where] = shares[:, i]
                spread.add(to, added)
        sums[planes] += spread.result()[(slice(None), *inside)]
