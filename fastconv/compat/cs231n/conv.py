"""The convolutions of CS231n's layers.py and fast_layers.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import channels_last_hint, count
from fastconv.checks.options import as_cache, as_int, merge_options
from fastconv.compat.cs231n.columns import col2im_6d_cython, col2im_indices, im2col_indices, output_size
from fastconv.compat.shared import common, images
from fastconv.convolution.gemm import matmul
from fastconv.layers import conv_backward, conv_forward
from fastconv.layers.convolution.conv import prepare_cache
from fastconv.lowering.columns import im2col


def _conv_layer(
    caller: str, x: Any, w: Any, b: Any, conv_param: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Check all arguments of a layer of the course, and return x, w, b, the stride and the pad."""
    legal, defaults = "{'stride': int, 'pad': int}", {"stride": None, "pad": None}
    settings = merge_options(caller, defaults, {}, conv_param, "conv_param", legal=f"a dict {legal}")
    for name, value in settings.items():
        if value is None:
            raise ValueError(f"conv_param has no {name!r}; it must be {legal}")
    stride, pad = as_int("stride", settings["stride"], 1), as_int("pad", settings["pad"], 0)
    x, w, b = images("x", x), images("w", w, "(F, C, HH, WW)"), _arrays.as_array("b", b)
    if w.shape[0] < 1:
        raise ValueError(f"w must be (F, C, HH, WW) with at least one filter, got shape {w.shape}")
    if w.shape[1] != x.shape[1]:
        hint = channels_last_hint("x", x.shape, w.shape[1])
        raise ValueError(f"x {x.shape} has {count(x.shape[1], 'channel')}, but w {w.shape} takes {w.shape[1]}{hint}")
    if b.shape != (w.shape[0],):
        raise ValueError(
            f"b has shape {b.shape}, but w {w.shape} has {count(w.shape[0], 'filter')}; b must be ({w.shape[0]},)"
        )
    output_size(x.shape, w.shape[2], w.shape[3], pad, stride)
    return x, w, b, stride, pad


def conv_forward_naive(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, int]
) -> tuple[np.ndarray, tuple[Any, Any, Any, Mapping[str, int]]]:
    """Convolve images with filters.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    w : array_like, (F, C, HH, WW)
    b : array_like, (F,)
    conv_param : dict
        ``{'stride': int, 'pad': int}``.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple
        ``(x, w, b, conv_param)``.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_naive
    >>> out, cache = conv_forward_naive(
    ...     np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), np.zeros(1), {'stride': 1, 'pad': 1})
    >>> out[0, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]])
    """
    *_, stride, pad = _conv_layer("conv_forward_naive", x, w, b, conv_param)
    return conv_forward(x, w, b, stride=stride, pad=pad)[0], (x, w, b, conv_param)


def conv_backward_naive(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_forward_naive`.

    Parameters
    ----------
    dout : array_like, (N, F, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_forward_naive`.

    Returns
    -------
    dx, dw, db : ndarray
        Arrays of the shapes of `x`, `w` and `b`.

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_naive, conv_backward_naive
    >>> out, cache = conv_forward_naive(
    ...     np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), np.zeros(1), {'stride': 1, 'pad': 1})
    >>> conv_backward_naive(np.ones_like(out), cache)[2]
    array([9.])
    """
    x, w, b, conv_param = as_cache(cache, "conv_forward_naive", length=4)
    _conv_layer("conv_backward_naive", x, w, b, conv_param)
    layer = prepare_cache("conv_backward_naive", x, w, b, conv_param, {})
    return conv_backward(dout, layer)  # type: ignore[return-value]


def _product(w: np.ndarray, cols: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return w @ cols + b for all images: [F x K] @ [K x columns], where K is C * HH * WW."""
    out = matmul(w.reshape(w.shape[0], -1), cols)
    out += b[:, None]
    return out


def _gradients(dout: np.ndarray, w: np.ndarray, x_cols: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the gradients (dcols, dw, db) from dout, which has one row per filter and one column per output position.
    K is C * HH * WW.
    """
    x_cols = _arrays.as_array("x_cols", x_cols)
    if x_cols.shape != (w[0].size, dout.shape[1]):
        raise ValueError(
            f"x_cols in cache must have shape {(w[0].size, dout.shape[1])} for w {w.shape} and dout, got {x_cols.shape}"
        )
    x_cols = _arrays.prepare(x_cols, w.dtype)
    # [K x F] @ [F x columns], [F x columns] @ [columns x K]
    dcols, dw = matmul(w.reshape(len(w), -1).T, dout), matmul(dout, x_cols.T)
    return dcols, dw.reshape(w.shape), dout.sum(axis=1)


def conv_forward_im2col(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Convolve all images by one matrix product. The im2col matrix is that of `im2col_cython`.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward_naive`.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple
        ``(x, w, b, conv_param, x_cols)``. The columns of `x_cols` are in the order oh, ow, n.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_im2col
    >>> out, cache = conv_forward_im2col(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> out.shape, cache[-1].shape
    ((2, 4, 1, 1), (9, 2))
    """
    ax, aw, ab, stride, pad = _conv_layer("conv_forward_im2col", x, w, b, conv_param)
    ax, aw, ab = common(ax, aw, ab)
    N, HH, WW = ax.shape[0], *aw.shape[2:]
    x_cols = im2col_indices(ax, HH, WW, pad, stride)
    out = _product(aw, x_cols, ab).reshape(len(aw), *output_size(ax.shape, HH, WW, pad, stride), N)
    return np.ascontiguousarray(out.transpose(3, 0, 1, 2)), (x, w, b, conv_param, x_cols)


def conv_backward_im2col(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_forward_im2col`.

    Parameters
    ----------
    dout : array_like, (N, F, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_forward_im2col`.

    Returns
    -------
    dx, dw, db : ndarray
        Arrays of the shapes of `x`, `w` and `b`.

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_im2col, conv_backward_im2col
    >>> out, cache = conv_forward_im2col(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> conv_backward_im2col(np.ones_like(out), cache)[2]
    array([2., 2., 2., 2.])
    """
    x, w, b, conv_param, x_cols = as_cache(cache, "conv_forward_im2col", length=5)
    x, w, b, stride, pad = _conv_layer("conv_backward_im2col", x, w, b, conv_param)
    x, w, b = common(x, w, b)
    dout = _cast_dout(dout, x, w, stride, pad)
    dcols, dw, db = _gradients(dout.transpose(1, 2, 3, 0).reshape(len(w), -1), w, x_cols)
    return col2im_indices(dcols, x.shape, w.shape[2], w.shape[3], pad, stride), dw, db


def conv_forward_strides(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Convolve all images by one matrix product. The columns of the im2col matrix are in the order n, oh, ow.

    `conv_forward_fast` does the same.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward_naive`.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple
        ``(x, w, b, conv_param, x_cols)``; columns of `x_cols` run n, oh, ow.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_fast
    >>> out, cache = conv_forward_fast(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> out.shape, cache[-1].shape
    ((2, 4, 1, 1), (9, 2))
    """
    ax, aw, ab, stride, pad = _conv_layer("conv_forward_strides", x, w, b, conv_param)
    ax, aw, ab = common(ax, aw, ab)
    N, HH, WW = ax.shape[0], *aw.shape[2:]
    volume, strides, pads = ax.transpose(1, 0, 2, 3)[None], (1, stride, stride), (0, pad, pad)
    x_cols = im2col(volume, (1, HH, WW), stride=strides, pad=pads)[0] if N else np.empty((aw[0].size, 0), ax.dtype)
    out = _product(aw, x_cols, ab).reshape(len(aw), N, *output_size(ax.shape, HH, WW, pad, stride))
    return np.ascontiguousarray(out.transpose(1, 0, 2, 3)), (x, w, b, conv_param, x_cols)


def conv_backward_strides(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_forward_strides`. `conv_backward_fast` does the same.

    Parameters
    ----------
    dout : array_like, (N, F, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_forward_strides`.

    Returns
    -------
    dx, dw, db : ndarray
        Arrays of the shapes of `x`, `w` and `b`.

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_fast, conv_backward_fast
    >>> out, cache = conv_forward_fast(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> conv_backward_fast(np.ones_like(out), cache)[2]
    array([2., 2., 2., 2.])
    """
    x, w, b, conv_param, x_cols = as_cache(cache, "conv_forward_strides", length=5)
    x, w, b, stride, pad = _conv_layer("conv_backward_strides", x, w, b, conv_param)
    x, w, b = common(x, w, b)
    (N, C, H, W), (HH, WW) = x.shape, w.shape[2:]
    dout = _cast_dout(dout, x, w, stride, pad)
    dcols, dw, db = _gradients(dout.transpose(1, 0, 2, 3).reshape(len(w), -1), w, x_cols)
    return col2im_6d_cython(dcols.reshape(C, HH, WW, N, *dout.shape[2:]), N, C, H, W, HH, WW, pad, stride), dw, db


def _cast_dout(dout: Any, x: np.ndarray, w: np.ndarray, stride: int, pad: int) -> np.ndarray:
    shape = (x.shape[0], w.shape[0], *output_size(x.shape, w.shape[2], w.shape[3], pad, stride))
    return _arrays.cast_gradient("dout", dout, shape, x.dtype)


def conv_forward_fast(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Do the same as `conv_forward_strides`. The layers of the course use this name.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward_naive`.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple
        ``(x, w, b, conv_param, x_cols)``; columns of `x_cols` run n, oh, ow.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_fast
    >>> out, cache = conv_forward_fast(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> out.shape, cache[-1].shape
    ((2, 4, 1, 1), (9, 2))
    """
    try:
        return conv_forward_strides(x, w, b, conv_param)
    except (TypeError, ValueError) as error:
        raise _renamed(error) from None


def conv_backward_fast(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_forward_fast`.

    Parameters
    ----------
    dout : array_like, (N, F, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_forward_fast` or `conv_forward_strides`.

    Returns
    -------
    dx, dw, db : ndarray
        Arrays of the shapes of `x`, `w` and `b`.

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.conv import conv_forward_fast, conv_backward_fast
    >>> out, cache = conv_forward_fast(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> conv_backward_fast(np.ones_like(out), cache)[2]
    array([2., 2., 2., 2.])
    """
    try:
        return conv_backward_strides(dout, cache)
    except (TypeError, ValueError) as error:
        raise _renamed(error) from None


def _renamed(error: Exception) -> Exception:
    """Replace ``_strides`` by ``_fast`` in the message, because the user called a function ``conv_*_fast``."""
    if type(error) not in (TypeError, ValueError):  # raised by a signal handler
        return error
    return type(error)(str(error).replace("_strides", "_fast"))
