"""Local response normalisation."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastconv import _arrays
from fastconv._options import as_cache, as_int, as_number, merge_options
from fastconv.geometry import check_rank
from fastconv.layers import _norm_kernels
from fastconv.layers._caches import shape_of


def _constants(size: Any, alpha: Any, beta: Any, k: Any) -> tuple[int, float, float, float]:
    """The parameters of the layer, checked: as they are given, and as a cache holds them."""
    floats = type(alpha) is type(beta) is type(k) is float and math.isfinite(alpha + beta + k)
    if floats and type(size) is int and 1 <= size <= sys.maxsize:
        return size, alpha, beta, k
    return as_int("size", size, 1, sys.maxsize), as_number("alpha", alpha), as_number("beta", beta), as_number("k", k)


class LrnCache(NamedTuple):
    """What `lrn_backward` needs."""

    x: np.ndarray
    size: int
    alpha: float
    beta: float
    k: float


def _kernel(cache: LrnCache, dout: np.ndarray | None = None) -> np.ndarray:
    x, size, alpha, beta, k = cache
    if not x.size:
        return np.empty(x.shape, x.dtype)
    # The odd channel of an even size lies after the one that is divided.
    return _norm_kernels.lrn(x, dout, ((size - 1) // 2, size // 2), (alpha / size, beta, k))


def lrn_forward(x: Any, lrn_param: Mapping[str, Any]) -> tuple[np.ndarray, LrnCache]:
    """Local response normalisation: each value is divided by what the channels around it have there.

    ``x / (k + alpha / size * sum(x**2)) ** beta``, the sum over the `size` channels from
    ``c - (size - 1) // 2`` to ``c + size // 2``, as far as there are such: ONNX's formula.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    lrn_param : dict
        ``'size'``: int, at least 1. ``'alpha'``: 1e-4. ``'beta'``: 0.75. ``'k'``: 1.0, in ONNX the bias.

    Returns
    -------
    out : ndarray, (N, C, *spatial)
    cache : tuple
        For `lrn_backward`.

    Raises
    ------
    ValueError
        If `x` is not of such a shape, or a parameter is out of its range.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Notes
    -----
    PyTorch's windows of an even size begin a channel earlier.

    Squares are summed in the dtype of the result. Sums beyond 3.4e38 in float32, 1.8e308 in
    float64, are inf, and `out` is 0 there.

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
    defaults = {"size": None, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
    settings = merge_options("lrn_forward", defaults, {}, lrn_param, "lrn_param", legal="a dict with 'size'")
    if settings["size"] is None:
        raise ValueError("lrn_param has no 'size', how many channels a window has; it must be an int >= 1")
    size, alpha, beta, k = _constants(**settings)
    x = _arrays.as_floats("x", x)
    check_rank("x", x.shape)
    cache = LrnCache(x, size, alpha, beta, k)
    return _kernel(cache), cache


def lrn_backward(dout: Any, cache: LrnCache) -> np.ndarray:
    """Gradient of `lrn_forward`.

    Parameters
    ----------
    dout : array_like, (N, C, *spatial)
        Gradient of the loss by the output; cast to the dtype of the forward pass.
    cache : tuple
        From `lrn_forward`.

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
    >>> from fastconv.layers import lrn_forward, lrn_backward
    >>> out, cache = lrn_forward(np.array([[[3.0], [4.0]]]), {'size': 1, 'alpha': 1, 'beta': 1, 'k': 0})
    >>> lrn_backward(np.array([[[9.0], [16.0]]]), cache).round(9)
    array([[[-1.],
            [-1.]]])
    """
    x, *settings = as_cache(cache, "lrn_forward", LrnCache)
    if _arrays.ready(x) is None or not 3 <= x.ndim <= 5:
        shape_of("lrn_forward", "x", x, 3, 5)
    return _kernel(LrnCache(x, *_constants(*settings)), _arrays.cast_gradient("dout", dout, x.shape, x.dtype))
