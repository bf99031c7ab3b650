"""The functions of deeplearning.ai's assignment "Convolution model: step by step".

Use ``from fastconv.compat.deeplearning_ai import *``. Names, argument orders, layouts and caches are those of the
assignment: images are ``(m, n_H, n_W, n_C)``, and filters are ``(f, f, n_C_prev, n_C)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv import layers
from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import count
from fastconv.checks.options import as_cache, as_int, as_shape, per_axis
from fastconv.compat.shared import images, zero_padded
from fastconv.geometry.pool import PoolGeometry, resolve_pool
from fastconv.layers.convolution.conv import prepare_cache
from fastconv.layers.pool.pooling import AvgPoolCache, PoolCall, forward_avg, forward_max, plan_maximum, plan_mean

__all__ = [
    "conv_backward",
    "conv_forward",
    "conv_single_step",
    "create_mask_from_window",
    "distribute_value",
    "pool_backward",
    "pool_forward",
    "zero_pad",
]

_LAYOUT = "(m, n_H_prev, n_W_prev, n_C_prev)"


def zero_pad(X: Any, pad: int) -> np.ndarray:
    """Pad each image with `pad` zeros at both ends of its height and width.

    Parameters
    ----------
    X : array_like, (m, n_H, n_W, n_C)
    pad : int
        Number of zeros on each of the four sides.

    Returns
    -------
    ndarray, (m, n_H + 2 * pad, n_W + 2 * pad, n_C)
        The result has the dtype of `X`.

    Raises
    ------
    ValueError
        If `X` does not have four axes, or `pad` is negative.
    TypeError
        For complex or object input, or a `pad` that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.deeplearning_ai import zero_pad
    >>> zero_pad(np.ones((1, 1, 2, 1)), 1)[0, :, :, 0]
    array([[0., 0., 0., 0.],
           [0., 1., 1., 0.],
           [0., 0., 0., 0.]])
    """
    X = images("X", X, "(m, n_H, n_W, n_C)", channels=3)
    pad = as_int("pad", pad, 0)
    return zero_padded(X, (pad, pad), 1, X.dtype.newbyteorder("="))


def conv_single_step(a_slice_prev: Any, W: Any, b: Any) -> np.floating:
    """Apply one filter to one window: the sum of the products, plus the bias.

    Parameters
    ----------
    a_slice_prev : array_like, (f, f, n_C_prev)
        A window of the input.
    W : array_like, (f, f, n_C_prev)
    b : array_like, (1, 1, 1)
        Any array of one element, or a number.

    Returns
    -------
    scalar
        float32 or float64.

    Raises
    ------
    ValueError
        If shapes do not fit each other.
    TypeError
        For complex or object input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.deeplearning_ai import conv_single_step
    >>> float(conv_single_step(np.full((2, 2, 1), 3), np.ones((2, 2, 1)), np.array([[[0.5]]])))
    12.5
    """
    window, W = _arrays.as_array("a_slice_prev", a_slice_prev), _arrays.as_array("W", W)
    if window.shape != W.shape:
        raise ValueError(f"a_slice_prev and W must have the same shape, got {window.shape} and {W.shape}")
    # A Python number has no dtype of its own, so the arrays determine the dtype.
    dtype = _arrays.result_dtype(window, W)
    bias = _arrays.as_array("b", b)
    if bias.size != 1:
        raise ValueError(f"b must hold one number, such as an array of shape (1, 1, 1), got shape {bias.shape}")
    if isinstance(b, (np.ndarray, np.generic)):
        dtype = _arrays.result_dtype(window, W, bias)
    return np.sum(window.astype(dtype) * W.astype(dtype)) + bias.reshape(()).astype(dtype)[()]


def _hparameter(hparameters: Any, name: str) -> Any:
    if not isinstance(hparameters, Mapping):
        raise TypeError(f"hparameters must be a dict, got {type(hparameters).__name__}")
    if name not in hparameters:
        raise ValueError(
            f"hparameters must have the key {name!r}, got the keys {', '.join(map(repr, hparameters)) or '(none)'}"
        )
    return hparameters[name]


def _conv_layer(
    A_prev: Any, W: Any, b: Any, hparameters: Any
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], dict[str, int]]:
    """Check all arguments, and return the arrays and options with channels first, as `layers.conv` needs them."""
    stride = as_int("stride", _hparameter(hparameters, "stride"), 1)
    pad = as_int("pad", _hparameter(hparameters, "pad"), 0)
    A_prev, W, b = images("A_prev", A_prev, _LAYOUT, channels=3), _arrays.as_array("W", W), _arrays.as_array("b", b)
    if W.ndim != 4:
        raise ValueError(f"W must be (f, f, n_C_prev, n_C), got shape {W.shape}")
    if not all(W.shape):
        raise ValueError(f"W must be (f, f, n_C_prev, n_C) with no size of 0, got shape {W.shape}")
    if W.shape[2] != A_prev.shape[3]:
        raise ValueError(
            f"A_prev {A_prev.shape} has {count(A_prev.shape[3], 'channel')}, but W {W.shape} takes {W.shape[2]}; "
            "channels are the last axis of A_prev and the third of W"
        )
    if b.shape != (1, 1, 1, W.shape[3]):
        raise ValueError(
            f"b has shape {b.shape}, but W {W.shape} has {count(W.shape[3], 'filter')}; "
            f"b must be (1, 1, 1, {W.shape[3]})"
        )
    dtype = _arrays.result_dtype(A_prev, W, b)
    x, w = _arrays.prepare(A_prev.transpose(0, 3, 1, 2), dtype), _arrays.prepare(W.transpose(3, 2, 0, 1), dtype)
    return (x, w, _arrays.prepare(b.reshape(-1), dtype)), {"stride": stride, "pad": pad}


def conv_forward(A_prev: Any, W: Any, b: Any, hparameters: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Convolve images whose channels are the last axis.

    Parameters
    ----------
    A_prev : array_like, (m, n_H_prev, n_W_prev, n_C_prev)
    W : array_like, (f, f, n_C_prev, n_C)
        Filters; they need not be square.
    b : array_like, (1, 1, 1, n_C)
    hparameters : dict
        ``{'stride': int, 'pad': int}``; other keys are ignored.

    Returns
    -------
    Z : ndarray, (m, n_H, n_W, n_C)
        ``n_H = (n_H_prev - f + 2 * pad) // stride + 1``.
    cache : tuple
        ``(A_prev, W, b, hparameters)``, the objects that were passed.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other, or one is missing.
    TypeError
        For complex or object input, or a parameter of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.deeplearning_ai import conv_forward
    >>> Z, cache = conv_forward(
    ...     np.ones((1, 3, 3, 1)), np.ones((3, 3, 1, 2)), np.zeros((1, 1, 1, 2)), {'stride': 2, 'pad': 1})
    >>> Z[0, :, :, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    arrays, options = _conv_layer(A_prev, W, b, hparameters)
    Z = layers.conv(*arrays, stride=options["stride"], pad=options["pad"])
    return np.ascontiguousarray(Z.transpose(0, 2, 3, 1)), (A_prev, W, b, hparameters)


def conv_backward(dZ: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `conv_forward`.

    Parameters
    ----------
    dZ : array_like, (m, n_H, n_W, n_C)
        The gradient of the cost with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_forward`.

    Returns
    -------
    dA_prev : ndarray, (m, n_H_prev, n_W_prev, n_C_prev)
    dW : ndarray, (f, f, n_C_prev, n_C)
    db : ndarray, (1, 1, 1, n_C)

    Raises
    ------
    ValueError
        If `dZ` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dZ` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.deeplearning_ai import conv_forward, conv_backward
    >>> Z, cache = conv_forward(
    ...     np.ones((1, 3, 3, 1)), np.ones((3, 3, 1, 2)), np.zeros((1, 1, 1, 2)), {'stride': 2, 'pad': 1})
    >>> dA_prev, dW, db = conv_backward(np.ones_like(Z), cache)
    >>> dA_prev.shape, dW.shape, db.shape
    ((1, 3, 3, 1), (3, 3, 1, 2), (1, 1, 1, 2))
    """
    arrays, options = _conv_layer(*as_cache(cache, "conv_forward", length=4))
    layer = prepare_cache("conv_backward", *arrays, None, options)
    m, n_C, n_H, n_W = layer.geometry.out_shape
    dout = _arrays.cast_gradient("dZ", dZ, (m, n_H, n_W, n_C), layer.x.dtype).transpose(0, 3, 1, 2)
    dx, dw, db = layers.conv_backward(dout, layer)
    assert dx is not None and dw is not None and db is not None
    dA_prev, dW = np.ascontiguousarray(dx.transpose(0, 2, 3, 1)), np.ascontiguousarray(dw.transpose(2, 3, 1, 0))
    return dA_prev, dW, db.reshape(1, 1, 1, n_C)


def _check_mode(mode: Any) -> None:
    if not isinstance(mode, str) or mode not in ("max", "average"):
        raise ValueError(f"mode must be 'max' or 'average', got {mode!r}")


def _pool_layer(A_prev: Any, hparameters: Any) -> tuple[np.ndarray, PoolGeometry]:
    """Return A_prev as volumes (m, 1, n_H, n_W, n_C), and the sizes of a pooling with windows of size (f, f, 1)."""
    stride = as_int("stride", _hparameter(hparameters, "stride"), 1)
    f = per_axis("f", _hparameter(hparameters, "f"), 2, 1)
    A_prev = images("A_prev", A_prev, _LAYOUT, channels=3)
    volume = _arrays.prepare(A_prev, _arrays.result_dtype(A_prev))[:, None]
    geometry = resolve_pool(
        volume.shape, kernel_size=(*f, 1), stride=(stride, stride, 1), pad=0, dilation=1, ceil_mode=False
    )
    return volume, geometry


def pool_forward(A_prev: Any, hparameters: Mapping[str, int], mode: str = "max") -> tuple[np.ndarray, tuple]:
    """Compute the maximum or mean of every window of images whose channels are the last axis.

    Parameters
    ----------
    A_prev : array_like, (m, n_H_prev, n_W_prev, n_C_prev)
    hparameters : dict
        ``{'f': int, 'stride': int}``; `f` may be two ints, for windows that
        are not square. Other keys are ignored.
    mode : {'max', 'average'}

    Returns
    -------
    A : ndarray, (m, n_H, n_W, n_C_prev)
        ``n_H = (n_H_prev - f) // stride + 1``.
    cache : tuple
        ``(A_prev, hparameters)``, the objects that were passed.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other, one is missing, or
        `mode` is unknown.
    TypeError
        For complex or object input, or a parameter of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.deeplearning_ai import pool_forward
    >>> A_prev = np.arange(8.0).reshape(1, 2, 4, 1)
    >>> pool_forward(A_prev, {'f': 2, 'stride': 2})[0].ravel()
    array([5., 7.])
    >>> pool_forward(A_prev, {'f': 2, 'stride': 2}, mode='average')[0].ravel()
    array([2.5, 4.5])
    """
    _check_mode(mode)
    volume, geometry = _pool_layer(A_prev, hparameters)
    A = (
        _maxima(volume, geometry)
        if mode == "max"
        else forward_avg(volume, PoolCall(geometry, True, None, plan_mean))[0]
    )
    return A[:, 0], (A_prev, hparameters)


def pool_backward(dA: Any, cache: tuple, mode: str = "max") -> np.ndarray:
    """Gradient of `pool_forward`.

    If several cells are the maximum, each of them gets the whole gradient, because
    `create_mask_from_window` marks all of them.

    Parameters
    ----------
    dA : array_like, (m, n_H, n_W, n_C_prev)
        The gradient of the cost with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `pool_forward`.
    mode : {'max', 'average'}
        As in the forward pass.

    Returns
    -------
    dA_prev : ndarray, (m, n_H_prev, n_W_prev, n_C_prev)

    Raises
    ------
    ValueError
        If `dA` does not have the shape of the output, or `mode` is unknown.
    TypeError
        If `cache` comes from another layer, or `dA` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.deeplearning_ai import pool_forward, pool_backward
    >>> A, cache = pool_forward(np.array([1, 3, 3, 2]).reshape(1, 2, 2, 1), {'f': 2, 'stride': 1})
    >>> pool_backward(np.full_like(A, 8), cache)[0, :, :, 0]
    array([[0., 8.],
           [8., 0.]])
    """
    _check_mode(mode)
    A_prev, hparameters = as_cache(cache, "pool_forward", length=2)
    volume, geometry = _pool_layer(A_prev, hparameters)
    m, _, n_H, n_W, n_C = geometry.out_shape
    dA = _arrays.cast_gradient("dA", dA, (m, n_H, n_W, n_C), volume.dtype)
    if mode == "average":
        return layers.avg_pool_backward(dA[:, None], AvgPoolCache(geometry, True, volume.dtype, None))[:, 0]
    A = _maxima(volume, geometry)[:, 0]
    return _to_all_maxima(dA, A, volume[:, 0], geometry)


def _maxima(volume: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    return forward_max(volume, PoolCall(geometry, None, None, plan_maximum))[0]


def _to_all_maxima(dA: np.ndarray, A: np.ndarray, A_prev: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    dA_prev = np.zeros_like(A_prev)
    height, width = geometry.axes[:2]
    for kh, kw in np.ndindex(height.k, width.k):
        # Select the cell at row kh and column kw of every window.
        rows = slice(kh, kh + (height.out - 1) * height.stride + 1, height.stride)
        columns = slice(kw, kw + (width.out - 1) * width.stride + 1, width.stride)
        dA_prev[:, rows, columns] += dA * (A_prev[:, rows, columns] == A)
    return dA_prev


def create_mask_from_window(x: Any) -> np.ndarray:
    """Return a mask that is True at every cell that equals the maximum of the window.

    Parameters
    ----------
    x : array_like
        A window, (f, f).

    Returns
    -------
    ndarray of bool, of the shape of `x`
        If the window holds NaN, the mask is False everywhere, because NaN equals nothing.

    Raises
    ------
    ValueError
        If `x` is empty.
    TypeError
        For complex or object input.

    Examples
    --------
    >>> from fastconv.compat.deeplearning_ai import create_mask_from_window
    >>> create_mask_from_window([[1, 3], [3, 2]])
    array([[False,  True],
           [ True, False]])
    """
    x = _arrays.as_array("x", x)
    if not x.size:
        raise ValueError(f"x must not be empty, because an empty window has no maximum, got shape {x.shape}")
    return np.asarray(x == np.max(x))


def distribute_value(dz: Any, shape: tuple[int, int]) -> np.ndarray:
    """Spread a number evenly over a window.

    Parameters
    ----------
    dz : number
        A number, or an array of one element.
    shape : (n_H, n_W)

    Returns
    -------
    ndarray, `shape`
        ``dz / (n_H * n_W)`` in every cell; float32 if `dz` is float32, else float64.

    Raises
    ------
    ValueError
        If `dz` holds more than one number, or `shape` is not two positive sizes.
    TypeError
        For a complex or object `dz`, or a `shape` that does not hold ints.

    Examples
    --------
    >>> from fastconv.compat.deeplearning_ai import distribute_value
    >>> distribute_value(2, (2, 2))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    value = _arrays.as_array("dz", dz)
    if value.size != 1:
        raise ValueError(f"dz must be one number, got shape {value.shape}")
    n_H, n_W = _window("shape", shape)
    dtype = _arrays.result_dtype(value)
    return np.full((n_H, n_W), value.reshape(()).astype(dtype) / dtype.type(n_H * n_W), dtype)


def _window(name: str, shape: Any) -> tuple[int, int]:
    sizes = as_shape(name, shape, 1)
    if len(sizes) != 2:
        raise ValueError(f"{name} must be two ints, (n_H, n_W), got {shape!r}")
    return sizes[0], sizes[1]
