"""Pooling with a single window that covers a whole plane. A plane is one channel of one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.geometry.pool import resolve_pool
from fastconv.layers.calls import Call, Calls
from fastconv.layers.pool.pooling import (
    AvgPoolCache,
    MakePlan,
    MaxPoolCache,
    PoolCall,
    avg_pool_backward,
    forward_avg,
    forward_max,
    max_pool_backward,
    plan_maximum,
    plan_mean,
)
from fastconv.runtime import memory as _memory


def _global_calls(caller: str, make_plan: MakePlan, option: Any) -> Calls[PoolCall]:
    """Return a store for the calls of a pooling with a single window that covers a whole plane."""

    def resolve(dtype: np.dtype, x: np.ndarray) -> PoolCall:
        sizes = x.shape[2:]
        if 3 <= x.ndim <= 5 and 0 in sizes:
            raise ValueError(f"x must not have an empty spatial axis in {caller}(), got shape {x.shape}")
        geometry = resolve_pool(x.shape, kernel_size=sizes or 1, stride=1, pad=0, dilation=1, ceil_mode=False)
        _memory.check_array("the output", geometry.out_shape, dtype, "Pool fewer images at a time")
        return Call(geometry, option, None, make_plan, dtype)

    return Calls(("x",), resolve)


_global_max_pool = _global_calls("global_max_pool_forward", plan_maximum, None)
_global_avg_pool = _global_calls("global_avg_pool_forward", plan_mean, True)


def global_max_pool_forward(x: Any) -> tuple[np.ndarray, MaxPoolCache]:
    """Compute the maximum of each channel of each image.

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
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import global_max_pool_forward
    >>> global_max_pool_forward(np.arange(4.0).reshape(1, 1, 2, 2))[0]
    array([[[[3.]]]])
    """
    call, (x,), _ = _global_max_pool.find((x,), {})
    return forward_max(x, call)


def global_max_pool_backward(dout: Any, cache: MaxPoolCache) -> np.ndarray:
    """Gradient of `global_max_pool_forward`, computed by `max_pool_backward`.

    Parameters
    ----------
    dout : array_like, (N, C, 1, ...)
    cache : tuple
        From `global_max_pool_forward`.

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
    >>> from fastconv import global_max_pool_forward, global_max_pool_backward
    >>> out, cache = global_max_pool_forward(np.arange(4.0).reshape(1, 1, 2, 2))
    >>> global_max_pool_backward(np.ones_like(out), cache)[0, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    return max_pool_backward(dout, cache)


def global_avg_pool_forward(x: Any) -> tuple[np.ndarray, AvgPoolCache]:
    """Compute the mean of each channel of each image.

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
        See docs/conventions.md.

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
    call, (x,), _ = _global_avg_pool.find((x,), {})
    return forward_avg(x, call)


def global_avg_pool_backward(dout: Any, cache: AvgPoolCache) -> np.ndarray:
    """Gradient of `global_avg_pool_forward`, computed by `avg_pool_backward`.

    Parameters
    ----------
    dout : array_like, (N, C, 1, ...)
    cache : tuple
        From `global_avg_pool_forward`.

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
    >>> from fastconv import global_avg_pool_forward, global_avg_pool_backward
    >>> out, cache = global_avg_pool_forward(np.ones((1, 1, 2, 2)))
    >>> global_avg_pool_backward(np.ones_like(out), cache)[0, 0]
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    return avg_pool_backward(dout, cache)
