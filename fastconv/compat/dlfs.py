"""Convolution as in the book "Deep Learning from Scratch": ``from fastconv.compat.dlfs import *``.

The module has `im2col` and `col2im` of the book's ``common/util.py``, and the classes `Convolution` and `Pooling` of
the book's ``common/layers.py``. Images are ``(N, C, H, W)``. Each row of the im2col matrix is one patch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import layers
from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import channels_last_hint, count
from fastconv.checks.options import as_int, as_shape
from fastconv.compat.shared import cropped, images, ran_forward, zero_padded
from fastconv.geometry.conv import conv_output_shape
from fastconv.layers.convolution.conv import prepare_cache
from fastconv.layers.pool.pooling import MaxPoolCache
from fastconv.lowering import columns as lowering

__all__ = ["Convolution", "Pooling", "col2im", "im2col"]


def _output_size(shape: tuple[int, ...], filter_h: Any, filter_w: Any, stride: Any, pad: Any) -> tuple[int, ...]:
    """Check all arguments, and return the output size OH and OW, rounded down."""
    window = as_int("filter_h", filter_h, 1), as_int("filter_w", filter_w, 1)
    stride, pad = as_int("stride", stride, 1), as_int("pad", pad, 0)
    return conv_output_shape((shape[0], 1, *shape[2:]), (1, 1, *window), stride=stride, pad=pad)[2:]


def im2col(input_data: Any, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> np.ndarray:
    """Return the im2col matrix of all images, with one row per patch.

    Parameters
    ----------
    input_data : array_like, (N, C, H, W)
    filter_h, filter_w : int
        Size of a patch.
    stride, pad : int
        If a stride does not fit, cells that are left over at the end are not read.

    Returns
    -------
    ndarray, (N * OH * OW, C * filter_h * filter_w)
        The rows are in the order n, oh, ow, and the columns in the order c, fh, fw,
        with the last index fastest. The dtype is float32 or float64.

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.dlfs import im2col
    >>> im2col(np.arange(9).reshape(1, 1, 3, 3), 2, 2)
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    x = images("input_data", input_data)
    OH, OW = _output_size(x.shape, filter_h, filter_w, stride, pad)
    N, C = x.shape[:2]
    dtype = _arrays.result_dtype(x)
    if pad:
        x = zero_padded(x, (pad, pad), 2, dtype)
    # `lowering.im2col` returns patches as columns, but this function returns patches as rows. So exchange the roles of
    # outputs and taps: the kernel of `lowering.im2col` is the grid of output positions, and the stride is its dilation.
    swept = x[:, None, :, : stride * (OH - 1) + filter_h, : stride * (OW - 1) + filter_w]
    if not N:
        return np.empty((0, C * filter_h * filter_w), dtype)
    return lowering.im2col(swept, (1, OH, OW), dilation=(1, stride, stride)).reshape(N * OH * OW, -1)


def col2im(
    col: Any, input_shape: tuple[int, int, int, int], filter_h: int, filter_w: int, stride: int = 1, pad: int = 0
) -> np.ndarray:
    """Add patches to the images: the adjoint of `im2col`.

    Each cell of the result is the sum of the elements of `col` to which `im2col` copies this cell.

    Parameters
    ----------
    col : array_like, (N * OH * OW, C * filter_h * filter_w)
    input_shape : (N, C, H, W)
    filter_h, filter_w, stride, pad : int
        The arguments of `im2col`.

    Returns
    -------
    ndarray, `input_shape`

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    How often 2 x 2 windows read each cell:

    >>> import numpy as np
    >>> from fastconv.compat.dlfs import col2im
    >>> col2im(np.ones((4, 4)), (1, 1, 3, 3), 2, 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    col = _arrays.as_array("col", col)
    shape = as_shape("input_shape", input_shape)
    if len(shape) != 4 or shape[1] < 1:
        raise ValueError(f"input_shape must be (N, C, H, W) with at least one channel, got {input_shape!r}")
    OH, OW = _output_size(shape, filter_h, filter_w, stride, pad)
    N, C = shape[:2]
    expected = (N * OH * OW, C * filter_h * filter_w)
    if col.shape != expected:
        raise ValueError(f"col must have shape {expected} for input_shape {shape}, got {col.shape}")
    cols = col.reshape(N, OH * OW, expected[1]).transpose(0, 2, 1)
    return lowering.col2im(cols, shape, (filter_h, filter_w), stride=stride, pad=pad)


class Convolution:
    """A convolution layer.

    Parameters
    ----------
    W : array_like, (FN, C, FH, FW)
        Filters; they need not be square.
    b : array_like, (FN,)
        Bias; a number works as well.
    stride, pad : int
        If a stride does not fit, cells that are left over at the end are not read.

    Attributes
    ----------
    W, b, stride, pad
        The arguments. They may be reassigned or changed in place, because
        every call reads them anew.
    dW : ndarray, (FN, C, FH, FW)
    db : ndarray, (FN,)
        Gradients that `backward` sets; None before the first call.
    x : array_like
        The input of the last `forward`.
    col : ndarray, (N * OH * OW, C * FH * FW)
    col_W : ndarray, (C * FH * FW, FN)
        The factors of the matrix product of the last `forward`. They are computed
        when they are read, because the layer itself does not need them.

    Raises
    ------
    ValueError
        If shapes or sizes do not fit each other.
    TypeError
        For complex or object input, or a stride or pad that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.dlfs import Convolution
    >>> layer = Convolution(np.ones((2, 1, 3, 3)), np.zeros(2), pad=1)
    >>> out = layer.forward(np.ones((1, 1, 3, 3)))
    >>> out[0, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]])
    >>> layer.backward(np.ones_like(out)).shape, layer.dW.shape, layer.db
    ((1, 1, 3, 3), (2, 1, 3, 3), array([9., 9.]))
    """

    def __init__(self, W: Any, b: Any, stride: int = 1, pad: int = 0) -> None:
        self.W, self.b, self.stride, self.pad = W, b, stride, pad
        self._options()
        self.x: Any = None
        self.dW: np.ndarray | None = None
        self.db: np.ndarray | None = None
        self._kept: tuple[np.ndarray, Any, np.ndarray, dict[str, int]] | None = None

    def _options(self) -> dict[str, int]:
        return {"stride": as_int("stride", self.stride, 1), "pad": as_int("pad", self.pad, 0)}

    def forward(self, x: Any) -> np.ndarray:
        """Convolve `x` (N, C, H, W); the result is (N, FN, OH, OW)."""
        options = self._options()
        images_, W = images("x", x), images("W", self.W, "(FN, C, FH, FW)")
        if not len(W):
            raise ValueError(f"W must be (FN, C, FH, FW) with at least one filter, got shape {W.shape}")
        if W.shape[1] != images_.shape[1]:
            hint = channels_last_hint("x", images_.shape, W.shape[1])
            raise ValueError(
                f"x {images_.shape} has {count(images_.shape[1], 'channel')}, but W {W.shape} takes {W.shape[1]}{hint}"
            )
        # Copy x, because x may change before `backward`. The book's layer stores the im2col matrix, also a copy.
        bias, dtype = _bias(self.b, W, images_)
        kept = np.array(images_, dtype, order="C")
        out = layers.conv(kept, W, bias, stride=options["stride"], pad=options["pad"])
        self.x, self._kept = x, (kept, self.W, bias, options)
        return out

    def backward(self, dout: Any) -> np.ndarray:
        """Return the gradient with respect to `x`, and set `dW` and `db`. `dout` is cast to the dtype of the output."""
        x, W, bias, options = ran_forward(self, self._kept)
        W = _arrays.prepare(images("W", W, "(FN, C, FH, FW)"), x.dtype)
        layer = prepare_cache("conv_backward", x, W, bias, None, options)
        dout = _arrays.cast_gradient("dout", dout, layer.geometry.out_shape, x.dtype)
        dx, self.dW, self.db = layers.conv_backward(dout, layer)
        assert dx is not None
        return dx

    @property
    def col(self) -> np.ndarray | None:
        """The patches of the last input, one patch in each row."""
        if self._kept is None:
            return None
        x, W, _, options = self._kept
        return im2col(x, *_arrays.as_array("W", W).shape[2:], **options)

    @property
    def col_W(self) -> np.ndarray | None:
        """The filters as columns."""
        if self._kept is None:
            return None
        W = np.asarray(self._kept[1])
        return W.reshape(len(W), -1).T


def _bias(b: Any, W: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.dtype]:
    """Return `b` as an array of one number per filter, and the dtype of the output.

    If `b` is a Python number, it does not change the dtype.
    """
    bias = _arrays.as_array("b", b)
    dtype = _arrays.result_dtype(x, W, bias if isinstance(b, (np.ndarray, np.generic, list, tuple)) else None)
    if bias.size not in (1, len(W)) or bias.size != max(bias.shape, default=1):
        raise ValueError(
            f"b has shape {bias.shape}, but W {W.shape} has {count(len(W), 'filter')}; "
            f"b must be ({len(W)},) or a number"
        )
    return np.array(np.broadcast_to(bias.reshape(-1), len(W)), dtype), dtype


class Pooling:
    """Max pooling.

    As in the book, a zero of the padding is the maximum of a window whose other cells are negative.
    The gradient of this maximum is dropped. With `fastconv.max_pool_forward`, the padding is never
    the maximum.

    Parameters
    ----------
    pool_h, pool_w : int
        The window.
    stride, pad : int
        If a stride does not fit, cells that are left over at the end are not read.

    Attributes
    ----------
    pool_h, pool_w, stride, pad
        The arguments; they may be reassigned.
    x : array_like
        The input of the last `forward`.
    arg_max : ndarray of int, (N * OH * OW * C,)
        The index of each maximum in its window; the first if several cells are equal.

    Raises
    ------
    ValueError
        If shapes or sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.dlfs import Pooling
    >>> layer = Pooling(2, 2)
    >>> layer.forward(np.array([[[[1, 3, 5, 5], [2, 0, 5, 5]]]]))
    array([[[[3., 5.]]]])
    >>> layer.backward(np.array([[[[10.0, 20.0]]]]))[0, 0]
    array([[ 0., 10., 20.,  0.],
           [ 0.,  0.,  0.,  0.]])
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 2, pad: int = 0) -> None:
        self.pool_h, self.pool_w, self.stride, self.pad = pool_h, pool_w, stride, pad
        self._options()
        self.x: Any = None
        self._kept: tuple[MaxPoolCache, int] | None = None

    def _options(self) -> tuple[tuple[int, int], int, int]:
        window = as_int("pool_h", self.pool_h, 1), as_int("pool_w", self.pool_w, 1)
        return window, as_int("stride", self.stride, 1), as_int("pad", self.pad, 0)

    def forward(self, x: Any) -> np.ndarray:
        """Return the maximum of every window of `x` (N, C, H, W), as an array (N, C, OH, OW)."""
        window, stride, pad = self._options()
        array = images("x", x)
        dtype = _arrays.result_dtype(array)
        array = zero_padded(array, (pad, pad), 2, dtype) if pad else _arrays.prepare(array, dtype)
        out, cache = layers.max_pool_forward(array, kernel_size=window, stride=stride)
        self.x, self._kept = x, (cache, pad)
        return out

    def backward(self, dout: Any) -> np.ndarray:
        """Return the gradient with respect to `x`. `dout` is cast to the dtype of the output."""
        cache, pad = ran_forward(self, self._kept)
        dx = layers.max_pool_backward(dout, cache)
        return np.ascontiguousarray(cropped(dx, (pad, pad), 2))

    @property
    def arg_max(self) -> np.ndarray | None:
        """The index of each maximum within its window, in the order n, oh, ow, c."""
        if self._kept is None:
            return None
        cache, _ = self._kept
        height, width = cache.geometry.axes
        h, w = np.divmod(layers.max_pool_indices(cache), width.size)
        # `row()[2]` is the stride of an axis. If the axis has only one output, `row()[2]` is 1, because the stride may
        # be too large for an array of ints.
        h -= np.arange(height.out)[:, None] * height.row()[2]
        w -= np.arange(width.out) * width.row()[2]
        return (h * width.k + w).transpose(0, 2, 3, 1).ravel()
