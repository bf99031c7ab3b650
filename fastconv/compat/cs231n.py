"""The convolution names of Stanford's CS231n, second assignment: ``from fastconv.compat.cs231n import *``.

Names, argument orders, column orders and cache tuples are the course's;
its limits are not: filters need not be square, strides need not tile, and any
dtype and memory order does. Images are ``(N, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv import _arrays
from fastconv._options import as_int, merge_options
from fastconv.gradient_check import (
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    eval_numerical_gradient_blobs,
    eval_numerical_gradient_net,
    grad_check_sparse,
    rel_error,
)
from fastconv.layers import (
    affine_backward,
    affine_forward,
    affine_relu_backward,
    affine_relu_forward,
    conv_backward,
    conv_forward,
    max_pool_backward,
    max_pool_forward,
    relu_backward,
    relu_forward,
    softmax_loss,
)
from fastconv.layers.conv import prepare
from fastconv.lowering import col2im, im2col

__all__ = [
    "affine_backward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "col2im_6d_cython",
    "col2im_cython",
    "col2im_indices",
    "conv_backward_fast",
    "conv_backward_im2col",
    "conv_backward_naive",
    "conv_backward_strides",
    "conv_forward_fast",
    "conv_forward_im2col",
    "conv_forward_naive",
    "conv_forward_strides",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
    "eval_numerical_gradient",
    "eval_numerical_gradient_array",
    "eval_numerical_gradient_blobs",
    "eval_numerical_gradient_net",
    "get_im2col_indices",
    "grad_check_sparse",
    "im2col_cython",
    "im2col_indices",
    "max_pool_backward_fast",
    "max_pool_backward_im2col",
    "max_pool_backward_naive",
    "max_pool_backward_reshape",
    "max_pool_forward_fast",
    "max_pool_forward_im2col",
    "max_pool_forward_naive",
    "max_pool_forward_reshape",
    "rel_error",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
]


# --- im2col.py and im2col_cython.pyx ------------------------------------------------------------
#
# Both orders of columns are im2col of a volume: with N as the last axis of a volume (H, W, N) the
# columns run oh, ow, n; with N as its first axis, (N, H, W), they run n, oh, ow. The kernel is 1
# cell long in N.


def _images(name: str, x: Any) -> np.ndarray:
    x = _arrays.as_array(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name} must be (N, C, H, W), got shape {x.shape}")
    return x


def _output_size(x_shape: tuple[int, ...], height: int, width: int, pad: int, stride: int) -> tuple[int, int]:
    """OH and OW, floored, everything validated."""
    if not isinstance(x_shape, (tuple, list)) or len(x_shape) != 4:
        raise ValueError(f"x_shape must be (N, C, H, W), got {x_shape!r}")
    height, width = as_int("field_height", height, 1), as_int("field_width", width, 1)
    pad, stride = as_int("padding", pad, 0), as_int("stride", stride, 1)
    sizes = tuple(
        (size + 2 * pad - field) // stride + 1 for size, field in zip(x_shape[2:], (height, width), strict=True)
    )
    if min(sizes) < 1:
        raise ValueError(
            f"a {height} x {width} field does not fit into images of {x_shape[2]} x {x_shape[3]} with padding {pad}"
        )
    return sizes[0], sizes[1]


def get_im2col_indices(
    x_shape: tuple[int, int, int, int], field_height: int, field_width: int, padding: int = 1, stride: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices ``(k, i, j)`` that pick the columns out of padded images.

    Parameters
    ----------
    x_shape : (N, C, H, W)
    field_height, field_width, padding, stride : int

    Returns
    -------
    k : ndarray, (C * field_height * field_width, 1)
        Channels.
    i, j : ndarray, (C * field_height * field_width, OH * OW)
        Rows and columns of the padded image.

    Examples
    --------
    >>> from fastconv.compat.cs231n import get_im2col_indices
    >>> k, i, j = get_im2col_indices((1, 1, 2, 2), 2, 1, padding=0)
    >>> i
    array([[0, 0],
           [1, 1]])
    """
    out_height, out_width = _output_size(x_shape, field_height, field_width, padding, stride)
    channels = as_int("x_shape[1]", x_shape[1], 1)
    k, kh, kw = np.indices((channels, field_height, field_width)).reshape(3, -1, 1)
    oh, ow = np.indices((out_height, out_width)).reshape(2, 1, -1)
    return k, kh + stride * oh, kw + stride * ow


def im2col_indices(x: Any, field_height: int, field_width: int, padding: int = 1, stride: int = 1) -> np.ndarray:
    """Lower images to one matrix, columns in the order oh, ow, n.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    field_height, field_width, padding, stride : int

    Returns
    -------
    ndarray, (C * field_height * field_width, OH * OW * N)

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import im2col_indices
    >>> x = np.arange(8).reshape(2, 1, 2, 2)
    >>> im2col_indices(x, 1, 1, padding=0)
    array([[0., 4., 1., 5., 2., 6., 3., 7.]])
    """
    x = _images("x", x)
    _output_size(x.shape, field_height, field_width, padding, stride)
    volume = x.transpose(1, 2, 3, 0)[None]
    if not len(x):  # a volume of no cells along one axis has no output; a batch of no images has
        return np.empty((x.shape[1] * field_height * field_width, 0), _arrays.result_dtype(x))
    return im2col(volume, (field_height, field_width, 1), stride=(stride, stride, 1), pad=(padding, padding, 0))[0]


def col2im_indices(
    cols: Any,
    x_shape: tuple[int, int, int, int],
    field_height: int = 3,
    field_width: int = 3,
    padding: int = 1,
    stride: int = 1,
) -> np.ndarray:
    """The adjoint of `im2col_indices`: overlapping entries are summed.

    Parameters
    ----------
    cols : array_like, (C * field_height * field_width, OH * OW * N)
    x_shape : (N, C, H, W)
    field_height, field_width, padding, stride : int

    Returns
    -------
    ndarray, `x_shape`

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import col2im_indices
    >>> col2im_indices(np.ones((9, 4)), (1, 1, 2, 2))[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    cols = _arrays.as_array("cols", cols)
    out_height, out_width = _output_size(x_shape, field_height, field_width, padding, stride)
    N, C, H, W = x_shape
    expected = (C * field_height * field_width, out_height * out_width * N)
    if cols.shape != expected:
        raise ValueError(f"cols has shape {cols.shape}, but x_shape {tuple(x_shape)} lowers to {expected}")
    if not N:
        return np.empty(x_shape, _arrays.result_dtype(cols))
    kernel, strides, pads = (field_height, field_width, 1), (stride, stride, 1), (padding, padding, 0)
    volume = col2im(cols[None], (1, C, H, W, N), kernel, stride=strides, pad=pads)
    return np.ascontiguousarray(volume[0].transpose(3, 0, 1, 2))


def im2col_cython(x: Any, field_height: int, field_width: int, padding: int, stride: int) -> np.ndarray:
    """As `im2col_indices`, without defaults.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import im2col_cython
    >>> im2col_cython(np.ones((2, 3, 8, 8)), 3, 3, 1, 1).shape
    (27, 128)
    """
    return im2col_indices(x, field_height, field_width, padding, stride)


def col2im_cython(
    cols: Any, N: int, C: int, H: int, W: int, field_height: int, field_width: int, padding: int, stride: int
) -> np.ndarray:
    """As `col2im_indices`, with the shape as four numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import col2im_cython
    >>> col2im_cython(np.ones((27, 128)), 2, 3, 8, 8, 3, 3, 1, 1).shape
    (2, 3, 8, 8)
    """
    return col2im_indices(cols, (N, C, H, W), field_height, field_width, padding, stride)


def col2im_6d_cython(cols: Any, N: int, C: int, H: int, W: int, HH: int, WW: int, pad: int, stride: int) -> np.ndarray:
    """Sum six-dimensional columns back into images.

    Parameters
    ----------
    cols : array_like, (C, HH, WW, N, OH, OW)
    N, C, H, W, HH, WW, pad, stride : int

    Returns
    -------
    ndarray, (N, C, H, W)

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import col2im_6d_cython
    >>> col2im_6d_cython(np.ones((1, 3, 3, 1, 2, 2)), 1, 1, 2, 2, 3, 3, 1, 1)[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    cols = _arrays.as_array("cols", cols)
    out_height, out_width = _output_size((N, C, H, W), HH, WW, pad, stride)
    expected = (C, HH, WW, N, out_height, out_width)
    if cols.shape != expected:
        raise ValueError(f"cols has shape {cols.shape}, but (C, HH, WW, N, OH, OW) is {expected}")
    if not N:
        return np.empty((N, C, H, W), _arrays.result_dtype(cols))
    matrix = cols.reshape(1, C * HH * WW, -1)
    volume = col2im(matrix, (1, C, N, H, W), (1, HH, WW), stride=(1, stride, stride), pad=(0, pad, pad))
    return np.ascontiguousarray(volume[0].transpose(1, 0, 2, 3))


# --- convolution: layers.py and fast_layers.py ---------------------------------------------------


def _conv_layer(x: Any, w: Any, b: Any, conv_param: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Arrays, stride and pad of a layer of the course, checked against each other."""
    settings = merge_options("conv_forward", {"stride": None, "pad": None}, {}, conv_param, "conv_param")
    for name, value in settings.items():
        if value is None:
            raise ValueError(f"conv_param has no {name!r}; it must be {{'stride': int, 'pad': int}}")
    stride, pad = as_int("stride", settings["stride"], 1), as_int("pad", settings["pad"], 0)
    x, w, b = _images("x", x), _images("w", w), _arrays.as_array("b", b)
    if w.shape[1] != x.shape[1]:
        raise ValueError(f"x {x.shape} has {x.shape[1]} channels, but w {w.shape} takes {w.shape[1]}")
    if b.shape != (w.shape[0],):
        raise ValueError(f"b has shape {b.shape}, but w {w.shape} has {w.shape[0]} filters; b must be ({w.shape[0]},)")
    _output_size(x.shape, w.shape[2], w.shape[3], pad, stride)
    return x, w, b, stride, pad


def _unpack(cache: Any, length: int, source: str) -> tuple:
    if not (isinstance(cache, tuple) and len(cache) == length):
        raise TypeError(f"cache must come from {source}, a tuple of {length}, got a {type(cache).__name__}")
    return cache


def conv_forward_naive(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, int]
) -> tuple[np.ndarray, tuple[Any, Any, Any, Mapping[str, int]]]:
    """Convolution.

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

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_forward_naive
    >>> out, cache = conv_forward_naive(
    ...     np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), np.zeros(1), {'stride': 1, 'pad': 1})
    >>> out[0, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]])
    """
    *_, stride, pad = _conv_layer(x, w, b, conv_param)
    return conv_forward(x, w, b, stride=stride, pad=pad)[0], (x, w, b, conv_param)


def conv_backward_naive(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_forward_naive`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_forward_naive, conv_backward_naive
    >>> out, cache = conv_forward_naive(
    ...     np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), np.zeros(1), {'stride': 1, 'pad': 1})
    >>> conv_backward_naive(np.ones_like(out), cache)[2]
    array([9.])
    """
    x, w, b, conv_param = _unpack(cache, 4, "conv_forward_naive")
    _conv_layer(x, w, b, conv_param)
    layer, _ = prepare("conv_backward_naive", x, w, b, conv_param, {})
    return conv_backward(dout, layer)  # type: ignore[return-value]


def _product(w: np.ndarray, cols: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The layer as one product over all images, [F x K] @ [K x columns]."""
    out = w.reshape(w.shape[0], -1) @ cols
    out += b[:, None]
    return out


def _gradients(dout: np.ndarray, w: np.ndarray, x_cols: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dcols, dw, db) from dout (F, columns)."""
    x_cols = _arrays.as_array("x_cols", x_cols)
    if x_cols.shape != (w[0].size, dout.shape[1]):
        raise ValueError(
            f"x_cols in cache has shape {x_cols.shape}, but w {w.shape} and dout need {(w[0].size, dout.shape[1])}"
        )
    # [F x columns] @ [columns x K], [K x F] @ [F x columns]
    return w.reshape(len(w), -1).T @ dout, (dout @ x_cols.T).reshape(w.shape), dout.sum(axis=1)


def conv_forward_im2col(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Convolution by `im2col_cython`.

    Parameters
    ----------
    x, w, b, conv_param
        As `conv_forward_naive`.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple
        ``(x, w, b, conv_param, x_cols)``; columns of `x_cols` run oh, ow, n.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_forward_im2col
    >>> out, cache = conv_forward_im2col(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> out.shape, cache[-1].shape
    ((2, 4, 1, 1), (9, 2))
    """
    ax, aw, ab, stride, pad = _conv_layer(x, w, b, conv_param)
    ax, aw, ab = _common(ax, aw, ab)
    N, HH, WW = ax.shape[0], *aw.shape[2:]
    x_cols = im2col_indices(ax, HH, WW, pad, stride)
    out = _product(aw, x_cols, ab).reshape(len(aw), *_output_size(ax.shape, HH, WW, pad, stride), N)
    return np.ascontiguousarray(out.transpose(3, 0, 1, 2)), (x, w, b, conv_param, x_cols)


def conv_backward_im2col(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_forward_im2col`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_forward_im2col, conv_backward_im2col
    >>> out, cache = conv_forward_im2col(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> conv_backward_im2col(np.ones_like(out), cache)[2]
    array([2., 2., 2., 2.])
    """
    x, w, b, conv_param, x_cols = _unpack(cache, 5, "conv_forward_im2col")
    x, w, b, stride, pad = _conv_layer(x, w, b, conv_param)
    x, w, b = _common(x, w, b)
    dout = _cast_dout(dout, x, w, stride, pad)
    dcols, dw, db = _gradients(dout.transpose(1, 2, 3, 0).reshape(len(w), -1), w, x_cols)
    return col2im_indices(dcols, x.shape, w.shape[2], w.shape[3], pad, stride), dw, db


def conv_forward_strides(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Convolution by columns in the order n, oh, ow; also called `conv_forward_fast`.

    Parameters
    ----------
    x, w, b, conv_param
        As `conv_forward_naive`.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple
        ``(x, w, b, conv_param, x_cols)``; columns of `x_cols` run n, oh, ow.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_forward_fast
    >>> out, cache = conv_forward_fast(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> out.shape, cache[-1].shape
    ((2, 4, 1, 1), (9, 2))
    """
    ax, aw, ab, stride, pad = _conv_layer(x, w, b, conv_param)
    ax, aw, ab = _common(ax, aw, ab)
    N, HH, WW = ax.shape[0], *aw.shape[2:]
    volume, strides, pads = ax.transpose(1, 0, 2, 3)[None], (1, stride, stride), (0, pad, pad)
    x_cols = im2col(volume, (1, HH, WW), stride=strides, pad=pads)[0] if N else np.empty((aw[0].size, 0), ax.dtype)
    out = _product(aw, x_cols, ab).reshape(len(aw), N, *_output_size(ax.shape, HH, WW, pad, stride))
    return np.ascontiguousarray(out.transpose(1, 0, 2, 3)), (x, w, b, conv_param, x_cols)


def conv_backward_strides(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_forward_strides`; also called `conv_backward_fast`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_forward_fast, conv_backward_fast
    >>> out, cache = conv_forward_fast(
    ...     np.ones((2, 1, 3, 3)), np.ones((4, 1, 3, 3)), np.zeros(4), {'stride': 1, 'pad': 0})
    >>> conv_backward_fast(np.ones_like(out), cache)[2]
    array([2., 2., 2., 2.])
    """
    x, w, b, conv_param, x_cols = _unpack(cache, 5, "conv_forward_strides")
    x, w, b, stride, pad = _conv_layer(x, w, b, conv_param)
    x, w, b = _common(x, w, b)
    (N, C, H, W), (HH, WW) = x.shape, w.shape[2:]
    dout = _cast_dout(dout, x, w, stride, pad)
    dcols, dw, db = _gradients(dout.transpose(1, 0, 2, 3).reshape(len(w), -1), w, x_cols)
    return col2im_6d_cython(dcols.reshape(C, HH, WW, N, *dout.shape[2:]), N, C, H, W, HH, WW, pad, stride), dw, db


def _common(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    dtype = _arrays.result_dtype(*arrays)
    return tuple(_arrays.prepare(array, dtype) for array in arrays)


def _cast_dout(dout: Any, x: np.ndarray, w: np.ndarray, stride: int, pad: int) -> np.ndarray:
    shape = (x.shape[0], w.shape[0], *_output_size(x.shape, w.shape[2], w.shape[3], pad, stride))
    return _arrays.cast_gradient("dout", dout, shape, x.dtype)


conv_forward_fast = conv_forward_strides
conv_backward_fast = conv_backward_strides


# --- max pooling: layers.py and fast_layers.py ---------------------------------------------------


def _pool_layer(x: Any, pool_param: Any) -> tuple[np.ndarray, int, int, int]:
    """The images in a float dtype, window and stride of a layer of the course."""
    known = {"pool_height": None, "pool_width": None, "stride": None}
    settings = merge_options("max_pool_forward", known, {}, pool_param, "pool_param")
    for name, value in settings.items():
        if value is None:
            raise ValueError(
                f"pool_param has no {name!r}; it must be {{'pool_height': int, 'pool_width': int, 'stride': int}}"
            )
    height, width, stride = (as_int(name, value, 1) for name, value in settings.items())
    x = _images("x", x)
    _output_size(x.shape, height, width, 0, stride)
    return _common(x)[0], height, width, stride


def max_pool_forward_naive(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Max pooling.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    pool_param : dict
        ``{'pool_height': int, 'pool_width': int, 'stride': int}``.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        ``(x, pool_param)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_naive
    >>> x = np.array([[[[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])
    >>> max_pool_forward_naive(x, {'pool_height': 2, 'pool_width': 2, 'stride': 2})[0][0, 0]
    array([[6., 8.],
           [3., 4.]])
    """
    images, height, width, stride = _pool_layer(x, pool_param)
    return max_pool_forward(images, kernel_size=(height, width), stride=stride)[0], (x, pool_param)


def max_pool_backward_naive(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_naive`; of equal maxima the first gets it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_naive, max_pool_backward_naive
    >>> out, cache = max_pool_forward_naive(
    ...     np.ones((1, 1, 2, 2)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> max_pool_backward_naive(out, cache)[0, 0]
    array([[1., 0.],
           [0., 0.]])
    """
    x, pool_param = _unpack(cache, 2, "max_pool_forward_naive")
    images, height, width, stride = _pool_layer(x, pool_param)
    return max_pool_backward(dout, max_pool_forward(images, kernel_size=(height, width), stride=stride)[1])


def max_pool_forward_reshape(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Max pooling with square windows that tile the image.

    Parameters
    ----------
    x, pool_param
        As `max_pool_forward_naive`; ``pool_height == pool_width == stride``,
        dividing H and W.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        ``(x, x_reshaped, out)``, `x_reshaped` being
        ``(N, C, OH, pool_height, OW, pool_width)``.

    Raises
    ------
    ValueError
        If the windows do not tile the image; `max_pool_forward_fast` takes any.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_reshape
    >>> out, cache = max_pool_forward_reshape(
    ...     np.ones((1, 1, 4, 4)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> cache[1].shape
    (1, 1, 2, 2, 2, 2)
    """
    images, height, width, stride = _pool_layer(x, pool_param)
    N, C, H, W = images.shape
    if not _tiles(images.shape, height, width, stride):
        raise ValueError(
            f"{height} x {width} windows at stride {stride} do not tile images of {H} x {W}; legal are square windows "
            "as large as the stride that divide H and W: use max_pool_forward_fast"
        )
    x_reshaped = images.reshape(N, C, H // height, height, W // width, width)
    out = max_pool_forward(images, kernel_size=(height, width), stride=stride)[0]
    return out, (x, x_reshaped, out)


def max_pool_backward_reshape(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_reshape`; equal maxima of a window share it evenly.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_reshape, max_pool_backward_reshape
    >>> out, cache = max_pool_forward_reshape(
    ...     np.ones((1, 1, 2, 2)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> max_pool_backward_reshape(out, cache)[0, 0]
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    x, x_reshaped, out = _unpack(cache, 3, "max_pool_forward_reshape")
    dout = _arrays.cast_gradient("dout", dout, out.shape, out.dtype)
    held = out[:, :, :, None, :, None]
    # NaN is the maximum of its window, but equals nothing.
    mask = (x_reshaped == held) | (np.isnan(x_reshaped) & np.isnan(held))
    share = dout[:, :, :, None, :, None] / mask.sum(axis=(3, 5), keepdims=True).astype(out.dtype)
    return np.where(mask, share, out.dtype.type(0)).reshape(np.shape(x))


def max_pool_forward_im2col(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Max pooling by columns.

    Parameters
    ----------
    x, pool_param
        As `max_pool_forward_naive`.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        ``(x, x_cols, x_cols_argmax, pool_param)``: windows as columns in the
        order oh, ow, n, c, and the place of each maximum in its window.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_im2col
    >>> out, cache = max_pool_forward_im2col(
    ...     np.eye(3)[None, None], {'pool_height': 2, 'pool_width': 2, 'stride': 1})
    >>> cache[2]
    array([0, 2, 1, 0])
    """
    images, height, width, stride = _pool_layer(x, pool_param)
    N, C, H, W = images.shape
    x_cols = im2col_indices(images.reshape(N * C, 1, H, W), height, width, padding=0, stride=stride)
    x_cols_argmax = np.argmax(x_cols, axis=0)
    best = np.take_along_axis(x_cols, x_cols_argmax[None], axis=0)
    out = best.reshape(*_output_size(images.shape, height, width, 0, stride), N, C).transpose(2, 3, 0, 1)
    return np.ascontiguousarray(out), (x, x_cols, x_cols_argmax, pool_param)


def max_pool_backward_im2col(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_im2col`; of equal maxima the first gets it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_im2col, max_pool_backward_im2col
    >>> out, cache = max_pool_forward_im2col(
    ...     np.ones((1, 1, 2, 3)), {'pool_height': 2, 'pool_width': 2, 'stride': 1})
    >>> max_pool_backward_im2col(out, cache)[0, 0]
    array([[1., 1., 0.],
           [0., 0., 0.]])
    """
    x, x_cols, x_cols_argmax, pool_param = _unpack(cache, 4, "max_pool_forward_im2col")
    images, height, width, stride = _pool_layer(x, pool_param)
    N, C, H, W = images.shape
    shape = (N, C, *_output_size(images.shape, height, width, 0, stride))
    dout = _arrays.cast_gradient("dout", dout, shape, images.dtype)
    dcols = np.zeros_like(x_cols)
    np.put_along_axis(dcols, x_cols_argmax[None], dout.transpose(2, 3, 0, 1).reshape(1, -1), axis=0)
    return col2im_indices(dcols, (N * C, 1, H, W), height, width, padding=0, stride=stride).reshape(N, C, H, W)


def _tiles(shape: tuple[int, ...], height: int, width: int, stride: int) -> bool:
    return height == width == stride and shape[2] % height == 0 and shape[3] % width == 0


def max_pool_forward_fast(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Max pooling by `max_pool_forward_reshape` where windows tile the image, else `max_pool_forward_im2col`.

    Parameters
    ----------
    x, pool_param
        As `max_pool_forward_naive`.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        ``('reshape', inner)`` or ``('im2col', inner)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_fast
    >>> max_pool_forward_fast(
    ...     np.ones((1, 1, 4, 4)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})[1][0]
    'reshape'
    """
    images, height, width, stride = _pool_layer(x, pool_param)
    if _tiles(images.shape, height, width, stride):
        out, inner = max_pool_forward_reshape(x, pool_param)
        return out, ("reshape", inner)
    out, inner = max_pool_forward_im2col(x, pool_param)
    return out, ("im2col", inner)


def max_pool_backward_fast(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_fast`, by the method that its cache names.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import max_pool_forward_fast, max_pool_backward_fast
    >>> out, cache = max_pool_forward_fast(
    ...     np.arange(4.0).reshape(1, 1, 2, 2), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> max_pool_backward_fast(np.ones_like(out), cache)[0, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    method, inner = _unpack(cache, 2, "max_pool_forward_fast")
    backward = {"reshape": max_pool_backward_reshape, "im2col": max_pool_backward_im2col}.get(method)
    if backward is None:
        raise ValueError(f"cache names the method {method!r}; legal are 'reshape' and 'im2col'")
    return backward(dout, inner)


# --- layer_utils.py ------------------------------------------------------------------------------


def conv_relu_forward(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """`conv_forward_fast`, then `relu_forward`; cache ``(conv_cache, relu_cache)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_relu_forward
    >>> conv_relu_forward(
    ...     np.ones((1, 1, 1, 1)), -np.ones((1, 1, 1, 1)), np.zeros(1), {'stride': 1, 'pad': 0})[0]
    array([[[[0.]]]])
    """
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    out, relu_cache = relu_forward(a)
    return out, (conv_cache, relu_cache)


def conv_relu_backward(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_relu_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_relu_forward, conv_relu_backward
    >>> out, cache = conv_relu_forward(
    ...     np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), np.zeros(1), {'stride': 1, 'pad': 0})
    >>> conv_relu_backward(out, cache)[2]
    array([1.])
    """
    conv_cache, relu_cache = _unpack(cache, 2, "conv_relu_forward")
    return conv_backward_fast(relu_backward(dout, relu_cache), conv_cache)


def conv_relu_pool_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, int], pool_param: Mapping[str, int]
) -> tuple[np.ndarray, tuple]:
    """`conv_forward_fast`, `relu_forward`, `max_pool_forward_fast`; cache of the three in that order.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_relu_pool_forward
    >>> pool_param = {'pool_height': 2, 'pool_width': 2, 'stride': 2}
    >>> conv_relu_pool_forward(
    ...     np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), np.zeros(1), {'stride': 1, 'pad': 0}, pool_param)[0]
    array([[[[1.]]]])
    """
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    s, relu_cache = relu_forward(a)
    out, pool_cache = max_pool_forward_fast(s, pool_param)
    return out, (conv_cache, relu_cache, pool_cache)


def conv_relu_pool_backward(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db)`` of `conv_relu_pool_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_relu_pool_forward, conv_relu_pool_backward
    >>> out, cache = conv_relu_pool_forward(
    ...     np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), np.zeros(1), {'stride': 1, 'pad': 0},
    ...     {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> conv_relu_pool_backward(out, cache)[2]
    array([1.])
    """
    conv_cache, relu_cache, pool_cache = _unpack(cache, 3, "conv_relu_pool_forward")
    return conv_backward_fast(relu_backward(max_pool_backward_fast(dout, pool_cache), relu_cache), conv_cache)
