"""Pooling by the p-norm. There are special kernels for p = 2. The module `powers` computes all other norms."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import cache_repr
from fastconv.checks.options import as_cache, as_number
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.caches import checked_geometry
from fastconv.layers.pool.kernels import plan_for
from fastconv.layers.pool.plan import PoolCase, PoolPlan
from fastconv.layers.pool.pooling import PoolParam, find_call, pool_calls
from fastconv.layers.pool.powers import PowersPlan
from fastconv.runtime import isa as _isa, threads as _threads

#: The exponent p of the norm for which there are special kernels.
_OWN_KERNELS = 2.0


class LpPoolCache(NamedTuple):
    """The cache of `lp_pool_forward`: the arrays and options that `lp_pool_backward` needs."""

    x: np.ndarray
    out: np.ndarray
    geometry: PoolGeometry
    p: float
    threads: int | None

    def __repr__(self) -> str:
        return cache_repr(self)


def _exponent(p: Any) -> float:
    """Return `p` as a float. Raise an error if `p` is infinite or below 1."""
    try:
        return as_number("p", p, 1)
    except ValueError as error:
        if p != math.inf:
            raise
        raise ValueError(f"{error}; for p = inf, call max_pool_forward(abs(x), ...)") from None


def plan_norm(geometry: PoolGeometry, dtype: np.dtype, p: float, threads: int) -> PoolPlan:
    """Return the plan of a pooling by the p-norm."""
    if p == _OWN_KERNELS:
        return plan_for("norm", geometry, dtype, threads)
    return PowersPlan(PoolCase("norm", geometry, dtype, threads, _isa.current), p)


def plan_norm_gradient(geometry: PoolGeometry, dtype: np.dtype, p: float, threads: int) -> PoolPlan:
    """Return the plan of the gradient of a pooling by the p-norm."""
    if p == _OWN_KERNELS:
        return plan_for("norm_gradient", geometry, dtype, threads)
    return PowersPlan(PoolCase("norm_gradient", geometry, dtype, threads, _isa.current), p)


_lp_pool = pool_calls("lp_pool_forward", plan_norm, lambda settings: _exponent(settings["p"]))


def lp_pool_forward(x: Any, pool_param: PoolParam = None, **options: Any) -> tuple[np.ndarray, LpPoolCache]:
    """Compute the p-norm of every window, ``(sum |x|**p) ** (1/p)``.

    Parameters
    ----------
    x, pool_param, **options
        See `max_pool_forward`. Cells of the padding add nothing. There is one more
        option:
    p : float, default 2
        The exponent, finite and at least 1. With 1, the result is the sum of
        absolute values. 2 has its own, faster kernels.

    Returns
    -------
    out : ndarray, (N, C, *out_spatial)
    cache : tuple
        For `lp_pool_backward`. It holds `out`, so do not change `out` before the backward pass.

    Raises
    ------
    ValueError, TypeError
        If `p` is below 1, infinite or not a number. See also docs/conventions.md.

    Notes
    -----
    With ``p=2`` squares are summed in the dtype of `x`, as in PyTorch. For numbers above
    1.8e19 in float32 or 1.3e154 in float64 the squares are inf, and the gradients are 0. For
    numbers below 1.1e-19 or 1.5e-154 they lose digits. Any other `p` has no such limits.

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
    x, call = find_call(_lp_pool, x, pool_param, options)
    geometry = call.geometry
    out = _arrays.empty_result(geometry.out_shape, x.dtype, "the output")
    (call.run or call.find_plan(x.dtype).run)(x, out)
    # Store views, because the caller may later change the shape of an array by assigning to `array.shape`.
    return out, LpPoolCache(x[...], out[...], geometry, call.option, call.threads)


def lp_pool_backward(dout: Any, cache: LpPoolCache) -> np.ndarray:
    """Gradient of `lp_pool_forward`: ``dout * sign(x) * (|x| / out) ** (p - 1)``, summed over windows.

    Parameters
    ----------
    dout : array_like, (N, C, *out_spatial)
    cache : tuple
        From `lp_pool_forward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial)
        A window whose norm is 0 has no derivative, and adds 0.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

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
    plan = plan_norm_gradient(geometry, x.dtype, p, workers)
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, x.dtype, workers)
    dx = _arrays.empty_result(geometry.x_shape, x.dtype, "dx")
    plan.run(dout, dx, norms=out, factors=x)
    return dx
