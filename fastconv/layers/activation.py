"""Activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _arrays
from fastconv._options import as_cache
from fastconv.layers._planes import rectify


def relu_forward(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rectified linear unit, ``max(x, 0)``; NaN stays NaN.

    Parameters
    ----------
    x : array_like, of any shape

    Returns
    -------
    out : ndarray
    cache : ndarray
        `x`, for `relu_backward`.

    Raises
    ------
    TypeError
        For complex or object input.

    References
    ----------
    V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann
    machines", ICML 2010.

    Examples
    --------
    >>> from fastconv.layers import relu_forward
    >>> relu_forward([-1.0, 2.0])[0]
    array([0., 2.])
    """
    x = _arrays.as_floats("x", x)
    return rectify(x, x, gradient=False), x


def relu_backward(dout: Any, cache: np.ndarray) -> np.ndarray:
    """Gradient of `relu_forward`: `dout` where the input was positive.

    Parameters
    ----------
    dout : array_like, of the shape of the input
    cache : ndarray
        From `relu_forward`.

    Returns
    -------
    dx : ndarray

    Raises
    ------
    ValueError
        If `dout` is not of the input's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import relu_forward, relu_backward
    >>> out, cache = relu_forward(np.array([-1.0, 2.0]))
    >>> relu_backward(np.array([5.0, 5.0]), cache)
    array([0., 5.])
    """
    as_cache(cache, "relu_forward", np.ndarray)
    x = _arrays.as_floats("cache", cache)
    return rectify(x, _arrays.cast_gradient("dout", dout, x.shape, x.dtype), gradient=True)
