"""Activation functions and their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv._ext.elementwise import activation as _ext
from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import cache_repr
from fastconv.checks.options import as_cache, as_number
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads

#: A function with exponentials, such as tanh, takes about this many times as long as a copy of its input.
_SLOWNESS = 3


def _each(function: int, first: np.ndarray, second: np.ndarray, slope: float = 0.0, slowness: int = 1) -> np.ndarray:
    """Apply an elementwise function to two C-contiguous arrays of the same shape and dtype, and return the result.
    `function` is a constant of `_ext`, such as `_ext.TANH`.
    """
    to = _memory.empty(first.shape, first.dtype)
    if to.size:
        _threads.share(
            _ext.each,
            (function, _arrays.DTYPES[to.dtype], first, second, to, slope, _isa.current),
            items=-(-to.size // _ext.PIECE),
            work=slowness * to.nbytes,
            threads=_threads.get_threads(),
        )
    return to


def _gradient(function: int, dout: Any, known: Any, source: str, slope: float = 0.0) -> np.ndarray:
    """Return dx. `known` is the array in the cache: the input or the output of the forward pass."""
    known, dout = _arrays.prepare_backward("cache", as_cache(known, source, np.ndarray), dout)
    return _each(function, known, dout, slope)


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
        See docs/conventions.md.

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
    x = _arrays.as_float_array("x", x)
    return _each(_ext.RECTIFY, x, x), x


def relu_backward(dout: Any, cache: np.ndarray) -> np.ndarray:
    """Gradient of `relu_forward`: `dout` where the input was positive, and 0 elsewhere.

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
        See docs/conventions.md.
    TypeError
        If `cache` is not an array, or `dout` is complex or object. An array from another layer is not detected.

    Notes
    -----
    The gradient is 0 where the input was 0, negative or NaN. (PyTorch returns `dout` where the
    input was NaN.)

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import relu_forward, relu_backward
    >>> out, cache = relu_forward(np.array([-1.0, 2.0]))
    >>> relu_backward(np.array([5.0, 5.0]), cache)
    array([0., 5.])
    >>> relu_backward(np.array([5.0, 5.0]), np.array([np.nan, 0.0]))
    array([0., 0.])
    """
    return _gradient(_ext.RECTIFY_GRADIENT, dout, cache, "relu_forward")


class LeakyReluCache(NamedTuple):
    """The cache of `leaky_relu_forward`: its input and its slope."""

    x: np.ndarray
    slope: float

    def __repr__(self) -> str:
        return cache_repr(self)


def leaky_relu_forward(x: Any, slope: float = 0.01) -> tuple[np.ndarray, LeakyReluCache]:
    """Leaky rectified linear unit: `x` where `x` is positive, and ``slope * x`` elsewhere. NaN stays NaN.

    Parameters
    ----------
    x : array_like, of any shape
    slope : float, default 0.01
        Any finite number.

    Returns
    -------
    out : ndarray
    cache : tuple
        ``(x, slope)``, for `leaky_relu_backward`.

    Raises
    ------
    ValueError
        If `slope` is not finite.
    TypeError
        If `slope` is not a number. See also docs/conventions.md.

    References
    ----------
    A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network
    acoustic models", ICML 2013.

    Examples
    --------
    >>> from fastconv.layers import leaky_relu_forward
    >>> leaky_relu_forward([-1.0, 2.0], slope=0.5)[0]
    array([-0.5,  2. ])
    """
    slope = as_number("slope", slope)
    x = _arrays.as_float_array("x", x)
    return _each(_ext.LEAK, x, x, slope), LeakyReluCache(x, slope)


def leaky_relu_backward(dout: Any, cache: LeakyReluCache) -> np.ndarray:
    """Gradient of `leaky_relu_forward`: `dout` where the input was positive, and ``slope * dout`` elsewhere.

    Parameters
    ----------
    dout : array_like, of the shape of the input
    cache : tuple
        From `leaky_relu_forward`.

    Returns
    -------
    dx : ndarray

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Notes
    -----
    The slope applies where the input was 0, negative or NaN, as in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import leaky_relu_forward, leaky_relu_backward
    >>> out, cache = leaky_relu_forward(np.array([-1.0, 2.0]), slope=0.5)
    >>> leaky_relu_backward(np.array([5.0, 5.0]), cache)
    array([2.5, 5. ])
    """
    x, slope = as_cache(cache, "leaky_relu_forward", LeakyReluCache)
    return _gradient(_ext.LEAK, dout, x, "leaky_relu_forward", as_number("slope in cache", slope))


def sigmoid_forward(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The logistic function, ``1 / (1 + exp(-x))``.

    Parameters
    ----------
    x : array_like, of any shape

    Returns
    -------
    out : ndarray
        The error is a few units in the last place. Values below the least normal number are 0.
    cache : ndarray
        `out` itself, for `sigmoid_backward`. Do not change it before the backward pass.

    Raises
    ------
    TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> from fastconv.layers import sigmoid_forward
    >>> sigmoid_forward([0.0, 1000.0])[0]
    array([0.5, 1. ])
    """
    x = _arrays.as_float_array("x", x)
    out = _each(_ext.SIGMOID, x, x, slowness=_SLOWNESS)
    return out, out


def sigmoid_backward(dout: Any, cache: np.ndarray) -> np.ndarray:
    """Gradient of `sigmoid_forward`, ``dout * out * (1 - out)``.

    Parameters
    ----------
    dout : array_like, of the shape of the input
    cache : ndarray
        From `sigmoid_forward`.

    Returns
    -------
    dx : ndarray

    Raises
    ------
    ValueError
        See docs/conventions.md.
    TypeError
        If `cache` is not an array, or `dout` is complex or object. An array from another layer is not detected.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import sigmoid_forward, sigmoid_backward
    >>> out, cache = sigmoid_forward(np.zeros(2))
    >>> sigmoid_backward(np.array([1.0, 4.0]), cache)
    array([0.25, 1.  ])
    """
    return _gradient(_ext.SIGMOID_GRADIENT, dout, cache, "sigmoid_forward")


def tanh_forward(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The hyperbolic tangent.

    Parameters
    ----------
    x : array_like, of any shape

    Returns
    -------
    out : ndarray
        The error is a few units in the last place.
    cache : ndarray
        `out` itself, for `tanh_backward`. Do not change it before the backward pass.

    Raises
    ------
    TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> from fastconv.layers import tanh_forward
    >>> tanh_forward([0.0, 1000.0])[0]
    array([0., 1.])
    """
    x = _arrays.as_float_array("x", x)
    out = _each(_ext.TANH, x, x, slowness=_SLOWNESS)
    return out, out


def tanh_backward(dout: Any, cache: np.ndarray) -> np.ndarray:
    """Gradient of `tanh_forward`, ``dout * (1 - out**2)``.

    Parameters
    ----------
    dout : array_like, of the shape of the input
    cache : ndarray
        From `tanh_forward`.

    Returns
    -------
    dx : ndarray

    Raises
    ------
    ValueError
        See docs/conventions.md.
    TypeError
        If `cache` is not an array, or `dout` is complex or object. An array from another layer is not detected.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import tanh_forward, tanh_backward
    >>> out, cache = tanh_forward(np.zeros(2))
    >>> tanh_backward(np.array([1.0, 4.0]), cache)
    array([1., 4.])
    """
    return _gradient(_ext.TANH_GRADIENT, dout, cache, "tanh_forward")
