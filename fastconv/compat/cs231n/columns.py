"""The functions of CS231n's im2col.py and im2col_cython.pyx, and the output size of the layers of this package.

The course has one im2col matrix for the whole batch, with its columns in one of two orders. `fastconv.im2col` makes
this matrix if the batch is passed as one volume, and the kernel has length 1 along the axis N. With the volume
(H, W, N), the columns are in the order oh, ow, n. With the volume (N, H, W), they are in the order n, oh, ow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.options import as_int, as_shape
from fastconv.compat.shared import images
from fastconv.geometry.conv import conv_output_shape
from fastconv.lowering.columns import col2im, im2col


def output_size(x_shape: tuple[int, ...], height: int, width: int, pad: int, stride: int) -> tuple[int, int]:
    """Check all arguments, and return the output size OH and OW, rounded down."""
    shape = as_shape("x_shape", x_shape)
    if len(shape) != 4 or shape[1] < 1:
        raise ValueError(f"x_shape must be (N, C, H, W) with at least one channel, got {x_shape!r}")
    field = as_int("field_height", height, 1), as_int("field_width", width, 1)
    pad, stride = as_int("padding", pad, 0), as_int("stride", stride, 1)
    out = conv_output_shape((shape[0], 1, *shape[2:]), (1, 1, *field), stride=stride, pad=pad)
    return out[2], out[3]


def get_im2col_indices(
    x_shape: tuple[int, int, int, int], field_height: int, field_width: int, padding: int = 1, stride: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the index arrays ``(k, i, j)`` that select im2col columns from padded images.

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

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> from fastconv.compat.cs231n.columns import get_im2col_indices
    >>> k, i, j = get_im2col_indices((1, 1, 2, 2), 2, 1, padding=0)
    >>> i
    array([[0, 0],
           [1, 1]])
    """
    out_height, out_width = output_size(x_shape, field_height, field_width, padding, stride)
    k, kh, kw = np.indices((x_shape[1], field_height, field_width)).reshape(3, -1, 1)
    oh, ow = np.indices((out_height, out_width)).reshape(2, 1, -1)
    # If the stride is larger than the padded image, the only output is at index 0. So a smaller step gives the same
    # indices, and does not overflow.
    step = min(stride, max(x_shape[2:]) + 2 * padding)
    return k, kh + step * oh, kw + step * ow


def im2col_indices(x: Any, field_height: int, field_width: int, padding: int = 1, stride: int = 1) -> np.ndarray:
    """Return the im2col matrix of all images. Its columns are in the order oh, ow, n.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    field_height, field_width, padding, stride : int

    Returns
    -------
    ndarray, (C * field_height * field_width, OH * OW * N)

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.columns import im2col_indices
    >>> x = np.arange(8).reshape(2, 1, 2, 2)
    >>> im2col_indices(x, 1, 1, padding=0)
    array([[0., 4., 1., 5., 2., 6., 3., 7.]])
    """
    x = images("x", x)
    output_size(x.shape, field_height, field_width, padding, stride)
    volume = x.transpose(1, 2, 3, 0)[None]
    if not len(x):  # An empty batch is legal here, but im2col raises an error for it.
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
    """Add columns to the images: the adjoint of `im2col_indices`.

    Each cell of the result is the sum of the elements of `cols` to which `im2col_indices` copies this cell.

    Parameters
    ----------
    cols : array_like, (C * field_height * field_width, OH * OW * N)
    x_shape : (N, C, H, W)
    field_height, field_width, padding, stride : int

    Returns
    -------
    ndarray, `x_shape`

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.columns import col2im_indices
    >>> col2im_indices(np.ones((9, 4)), (1, 1, 2, 2))[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    cols = _arrays.as_array("cols", cols)
    out_height, out_width = output_size(x_shape, field_height, field_width, padding, stride)
    N, C, H, W = x_shape
    expected = (C * field_height * field_width, out_height * out_width * N)
    if cols.shape != expected:
        raise ValueError(f"cols must have shape {expected} for x_shape {tuple(x_shape)}, got {cols.shape}")
    if not N:
        return np.empty(x_shape, _arrays.result_dtype(cols))
    kernel, strides, pads = (field_height, field_width, 1), (stride, stride, 1), (padding, padding, 0)
    volume = col2im(cols[None], (1, C, H, W, N), kernel, stride=strides, pad=pads)
    return np.ascontiguousarray(volume[0].transpose(3, 0, 1, 2))


def im2col_cython(x: Any, field_height: int, field_width: int, padding: int, stride: int) -> np.ndarray:
    """Do the same as `im2col_indices`, but without defaults for `padding` and `stride`.

    Parameters
    ----------
    x : array_like, (N, C, H, W)
    field_height, field_width, padding, stride : int
        If a stride does not fit, cells that are left over at the end are not read.

    Returns
    -------
    ndarray, (C * field_height * field_width, OH * OW * N)

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.columns import im2col_cython
    >>> im2col_cython(np.ones((2, 3, 8, 8)), 3, 3, 1, 1).shape
    (27, 128)
    """
    return im2col_indices(x, field_height, field_width, padding, stride)


def col2im_cython(
    cols: Any, N: int, C: int, H: int, W: int, field_height: int, field_width: int, padding: int, stride: int
) -> np.ndarray:
    """Do the same as `col2im_indices`, but take the shape of the images as four numbers.

    Parameters
    ----------
    cols : array_like, (C * field_height * field_width, OH * OW * N)
    N, C, H, W : int
        Shape of the images.
    field_height, field_width, padding, stride : int
        If a stride does not fit, cells that are left over at the end are not read.

    Returns
    -------
    ndarray, (N, C, H, W)

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.columns import col2im_cython
    >>> col2im_cython(np.ones((27, 128)), 2, 3, 8, 8, 3, 3, 1, 1).shape
    (2, 3, 8, 8)
    """
    return col2im_indices(cols, (N, C, H, W), field_height, field_width, padding, stride)


def col2im_6d_cython(cols: Any, N: int, C: int, H: int, W: int, HH: int, WW: int, pad: int, stride: int) -> np.ndarray:
    """Add columns to the images, where `cols` is an array with six axes.

    Parameters
    ----------
    cols : array_like, (C, HH, WW, N, OH, OW)
    N, C, H, W, HH, WW, pad, stride : int

    Returns
    -------
    ndarray, (N, C, H, W)

    Raises
    ------
    ValueError
        If sizes do not fit each other.
    TypeError
        For complex or object input, or a size that is not an int.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.columns import col2im_6d_cython
    >>> col2im_6d_cython(np.ones((1, 3, 3, 1, 2, 2)), 1, 1, 2, 2, 3, 3, 1, 1)[0, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    cols = _arrays.as_array("cols", cols)
    out_height, out_width = output_size((N, C, H, W), HH, WW, pad, stride)
    expected = (C, HH, WW, N, out_height, out_width)
    if cols.shape != expected:
        raise ValueError(f"cols must be (C, HH, WW, N, OH, OW), which is {expected}, got shape {cols.shape}")
    if not N:
        return np.empty((N, C, H, W), _arrays.result_dtype(cols))
    matrix = cols.reshape(1, C * HH * WW, -1)
    volume = col2im(matrix, (1, C, N, H, W), (1, HH, WW), stride=(1, stride, stride), pad=(0, pad, pad))
    return np.ascontiguousarray(volume[0].transpose(1, 0, 2, 3))
