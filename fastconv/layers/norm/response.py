"""Local response normalisation."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import cache_repr
from fastconv.checks.options import as_cache, as_int, as_number, merge_options, refuse_keywords
from fastconv.geometry.axis import check_rank
from fastconv.layers.caches import shape_of
from fastconv.layers.calls import Call, Calls
from fastconv.layers.norm.kernels import LrnPlan, NormSizes, plan_lrn
from fastconv.runtime import memory as _memory


def _constants(size: Any, alpha: Any, beta: Any, k: Any) -> tuple[int, float, float, float]:
    """Check the parameters of the layer. Return `size` as an int, and `alpha`, `beta` and `k` as floats."""
    floats = type(alpha) is type(beta) is type(k) is float and math.isfinite(alpha + beta + k)
    if floats and type(size) is int and 1 <= size <= sys.maxsize:
        return size, alpha, beta, k
    return as_int("size", size, 1, sys.maxsize), as_number("alpha", alpha), as_number("beta", beta), as_number("k", k)


class LrnCache(NamedTuple):
    """The cache of `lrn_forward`: its input and its parameters."""

    x: np.ndarray
    size: int
    alpha: float
    beta: float
    k: float

    def __repr__(self) -> str:
        return cache_repr(self)


def _run(plan: LrnPlan, cache: LrnCache, dout: np.ndarray | None = None) -> np.ndarray:
    x, size, alpha, beta, k = cache
    if not x.size or beta == 0:
        # If beta is 0, every power is 1, also 0 ** 0. So the output is x, and dx is dout.
        return np.array(x if dout is None else dout)
    to = _memory.empty(x.shape, x.dtype)
    plan.run(x, dout, to, (alpha / size, beta, k))
    return to


def _plan_forward(sizes: NormSizes, dtype: np.dtype, size: int, threads: int) -> LrnPlan:
    return plan_lrn(sizes, size, dtype, is_gradient=False)


def _resolve(dtype: np.dtype, x: np.ndarray, size: int) -> Call[NormSizes]:
    check_rank("x", x.shape)
    return Call(NormSizes.of(x.shape), size, None, _plan_forward, dtype)


_calls = Calls(("x",), _resolve)


def _may_fail(layer: LrnCache) -> bool:
    """Return whether a finite x may give an infinite or NaN output or gradient.

    With the usual parameters, a finite x always gives a finite output and gradient. Then `_check_powers` is not needed.
    """
    _, _, alpha, beta, k = layer
    return not (alpha >= 0 and 0 <= beta <= 8 and k >= 1e-4)  # 1e-4 ** -8 is finite in float32


def _check_powers(layer: LrnCache, out: np.ndarray) -> None:
    """Raise an error if a window of finite numbers has an infinite or NaN output or gradient."""
    x, size, alpha, beta, k = layer
    for c in range(x.shape[1]):
        window = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        # Sum in the dtype of x, as the kernels do, because squares may underflow to 0 in this dtype.
        sums = k + alpha / size * np.square(window).sum(axis=1)
        below = (sums < 0) & (beta != round(beta))
        bad = (sums == 0) | below | (np.isfinite(sums) & ~np.isfinite(out[:, c]))
        if bad.any():
            n, *at = (int(i) for i in np.argwhere(bad)[0])
            found = float(sums[(n, *at)])
            if found == 0:
                reason = "the result or its gradient would divide by 0"
            elif found < 0 and beta != round(beta):
                reason = "a negative number has only integer powers"
            else:
                reason = f"1 divided by this power is too large for {x.dtype}"
            raise ValueError(
                f"k + alpha / size * sum(x**2) is {found:g} at x{[n, c, *at]}, which cannot be raised to the power of "
                f"beta = {beta:g}, because {reason}; use {'alpha >= 0 and ' if alpha < 0 else ''}a k above 0"
            )


def lrn_forward(x: Any, lrn_param: Mapping[str, Any] | None = None, **unknown: Any) -> tuple[np.ndarray, LrnCache]:
    """Local response normalisation: each value is divided by a norm over neighbouring channels at the same position.

    The result in channel c is ``x / (k + alpha / size * sum(x**2)) ** beta``, as in ONNX. The sum
    runs over the channels from ``c - (size - 1) // 2`` to ``c + size // 2`` that exist.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    lrn_param : dict
        ``'size'``: an int, at least 1. ``'alpha'``: default 1e-4. ``'beta'``: default 0.75.
        ``'k'``: default 1.0; ONNX calls it ``bias``.

    Returns
    -------
    out : ndarray, (N, C, *spatial)
    cache : tuple
        For `lrn_backward`.

    Raises
    ------
    ValueError
        If `x` does not have 3 to 5 axes, a parameter is out of its range, or the power of a window
        of finite numbers is not finite. With ``k=0`` a window of zeros has no finite power. With a
        negative `k` or `alpha`, ``k + alpha / size * sum(x**2)`` may be zero, or negative while
        `beta` is not an integer. If `k` is positive and `alpha` is not negative, all powers are
        finite.
    TypeError
        See docs/conventions.md.

    Notes
    -----
    In PyTorch a window of even size begins one channel earlier.

    Squares are summed in the dtype of the result. A sum above 3.4e38 in float32, or above 1.8e308
    in float64, overflows to inf. Then `out` is 0.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep
    convolutional neural networks", NIPS 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import lrn_forward
    >>> lrn_forward(np.array([[[3.0], [4.0]]]), {'size': 2, 'alpha': 2, 'beta': 0.5, 'k': 0})[0]
    array([[[0.6],
            [1. ]]])
    """
    if unknown:
        refuse_keywords("lrn_forward", "lrn_param", unknown, size=5)
    defaults = {"size": None, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
    settings = merge_options("lrn_forward", defaults, {}, lrn_param, "lrn_param", legal="a dict with 'size'")
    if settings["size"] is None:
        raise ValueError("lrn_param has no 'size'; size is the number of channels in a window and must be an int >= 1")
    size, alpha, beta, k = _constants(**settings)
    call, (x,), _ = _calls.find((x,), {"size": size}, size)
    cache = LrnCache(x, size, alpha, beta, k)
    out = _run(call.plan, cache)
    if beta != 0 and _may_fail(cache):
        with np.errstate(all="ignore"):
            _check_powers(cache, out)
    return out, cache


def lrn_backward(dout: Any, cache: LrnCache) -> np.ndarray:
    """Gradient of `lrn_forward`.

    Parameters
    ----------
    dout : array_like, (N, C, *spatial)
    cache : tuple
        From `lrn_forward`.

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
    >>> from fastconv.layers import lrn_forward, lrn_backward
    >>> out, cache = lrn_forward(np.array([[[3.0], [4.0]]]), {'size': 1, 'alpha': 1, 'beta': 1, 'k': 0})
    >>> lrn_backward(np.array([[[9.0], [16.0]]]), cache).round(9)
    array([[[-1.],
            [-1.]]])
    """
    x, *settings = as_cache(cache, "lrn_forward", LrnCache)
    if _arrays.common_dtype_if_ready(x) is None or not 3 <= x.ndim <= 5:
        shape_of("lrn_forward", "x", x, 3, 5)
    layer = LrnCache(x, *_constants(*settings))
    dout = _arrays.cast_gradient("dout", dout, x.shape, x.dtype)
    return _run(plan_lrn(NormSizes.of(x.shape), layer.size, x.dtype, is_gradient=True), layer, dout)
