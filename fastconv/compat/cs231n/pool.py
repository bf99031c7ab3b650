"""The max pooling of CS231n's layers.py and fast_layers.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.options import as_cache, as_int, merge_options
from fastconv.compat.cs231n.columns import col2im_indices, im2col_indices, output_size
from fastconv.compat.shared import common, images
from fastconv.layers import max_pool_backward, max_pool_forward


def _pool_layer(caller: str, x: Any, pool_param: Any) -> tuple[np.ndarray, int, int, int]:
    """Check all arguments, and return x in a float dtype, the height and width of the window, and the stride."""
    known = {"pool_height": None, "pool_width": None, "stride": None}
    legal = "{'pool_height': int, 'pool_width': int, 'stride': int}"
    settings = merge_options(caller, known, {}, pool_param, "pool_param", legal=f"a dict {legal}")
    for name, value in settings.items():
        if value is None:
            raise ValueError(f"pool_param has no {name!r}; it must be {legal}")
    height, width, stride = (as_int(name, value, 1) for name, value in settings.items())
    x = images("x", x)
    output_size(x.shape, height, width, 0, stride)
    return common(x)[0], height, width, stride


def max_pool_forward_naive(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Compute the maximum of every window.

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

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_naive
    >>> x = np.array([[[[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])
    >>> max_pool_forward_naive(x, {'pool_height': 2, 'pool_width': 2, 'stride': 2})[0][0, 0]
    array([[6., 8.],
           [3., 4.]])
    """
    images, height, width, stride = _pool_layer("max_pool_forward_naive", x, pool_param)
    return max_pool_forward(images, kernel_size=(height, width), stride=stride)[0], (x, pool_param)


def max_pool_backward_naive(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_naive`. If several cells are the maximum, the first one gets the gradient.

    Parameters
    ----------
    dout : array_like, (N, C, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `max_pool_forward_naive`.

    Returns
    -------
    dx : ndarray, (N, C, H, W)

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_naive, max_pool_backward_naive
    >>> out, cache = max_pool_forward_naive(
    ...     np.ones((1, 1, 2, 2)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> max_pool_backward_naive(out, cache)[0, 0]
    array([[1., 0.],
           [0., 0.]])
    """
    x, pool_param = as_cache(cache, "max_pool_forward_naive", length=2)
    images, height, width, stride = _pool_layer("max_pool_backward_naive", x, pool_param)
    return max_pool_backward(dout, max_pool_forward(images, kernel_size=(height, width), stride=stride)[1])


def max_pool_forward_reshape(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Compute the maximum of every window. The windows must be square, and must tile the image without a gap.

    Parameters
    ----------
    x, pool_param
        See `max_pool_forward_naive`. `pool_height`, `pool_width` and `stride` must
        be equal, and divide H and W.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        ``(x, x_reshaped, out)``. The shape of `x_reshaped` is
        ``(N, C, OH, pool_height, OW, pool_width)``.

    Raises
    ------
    ValueError
        If the windows do not tile the image. `max_pool_forward_fast` takes any windows.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_reshape
    >>> out, cache = max_pool_forward_reshape(
    ...     np.ones((1, 1, 4, 4)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> cache[1].shape
    (1, 1, 2, 2, 2, 2)
    """
    images, height, width, stride = _pool_layer("max_pool_forward_reshape", x, pool_param)
    N, C, H, W = images.shape
    if not _tiles(images.shape, height, width, stride):
        raise ValueError(
            f"pool_height, pool_width and stride must be equal and divide H and W, got {height}, {width} and {stride} "
            f"for images of {H} x {W}; use max_pool_forward_fast for any other windows"
        )
    x_reshaped = images.reshape(N, C, H // height, height, W // width, width)
    out = max_pool_forward(images, kernel_size=(height, width), stride=stride)[0]
    return out, (x, x_reshaped, out)


def max_pool_backward_reshape(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_reshape`. If several cells are the maximum, they share the gradient evenly.

    Parameters
    ----------
    dout : array_like, (N, C, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `max_pool_forward_reshape`.

    Returns
    -------
    dx : ndarray, (N, C, H, W)

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_reshape, max_pool_backward_reshape
    >>> out, cache = max_pool_forward_reshape(
    ...     np.ones((1, 1, 2, 2)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> max_pool_backward_reshape(out, cache)[0, 0]
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    x, x_reshaped, out = as_cache(cache, "max_pool_forward_reshape", length=3)
    x, x_reshaped, out = (
        _arrays.as_array(f"{name} in cache", array)
        for name, array in (("x", x), ("x_reshaped", x_reshaped), ("out", out))
    )
    N, C, H, W = x.shape if x.ndim == 4 else (0, 0, 0, 0)
    OH, OW = out.shape[2:] if out.ndim == 4 else (0, 0)
    height, width = H // max(OH, 1), W // max(OW, 1)
    if (out.shape, x_reshaped.shape, x.shape) != (
        (N, C, OH, OW),
        (N, C, OH, height, OW, width),
        (N, C, OH * height, OW * width),
    ):
        raise ValueError(
            f"cache holds x {x.shape}, x_reshaped {x_reshaped.shape} and out {out.shape}, which do not fit each other"
        )
    # If the caller has cast one of these arrays, the maximum of a window may differ from all cells of the window.
    if x_reshaped.dtype != out.dtype:
        raise ValueError(f"x_reshaped and out in cache must have one dtype, got {x_reshaped.dtype} and {out.dtype}")
    out = _arrays.prepare(out, _arrays.result_dtype(out))
    dout = _arrays.cast_gradient("dout", dout, out.shape, out.dtype)
    held = out[:, :, :, None, :, None]
    # NaN is the maximum of its window, but does not equal itself.
    mask = (x_reshaped == held) | (np.isnan(x_reshaped) & np.isnan(held))
    # If x was changed after the forward pass, a window may have no cell that equals its maximum. Avoid a division by 0.
    count = np.maximum(mask.sum(axis=(3, 5), keepdims=True), 1)
    share = dout[:, :, :, None, :, None] / count.astype(out.dtype)
    return np.where(mask, share, out.dtype.type(0)).reshape(x.shape)


def max_pool_forward_im2col(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Compute the maximum of every window, from a matrix whose columns are the windows.

    Parameters
    ----------
    x, pool_param
        See `max_pool_forward_naive`.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        ``(x, x_cols, x_cols_argmax, pool_param)``. The columns of `x_cols` are the
        windows in the order oh, ow, n, c, and `x_cols_argmax` has the index of each
        maximum in its window.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_im2col
    >>> out, cache = max_pool_forward_im2col(
    ...     np.eye(3)[None, None], {'pool_height': 2, 'pool_width': 2, 'stride': 1})
    >>> cache[2]
    array([0, 2, 1, 0])
    """
    images, height, width, stride = _pool_layer("max_pool_forward_im2col", x, pool_param)
    N, C, H, W = images.shape
    x_cols = im2col_indices(images.reshape(N * C, 1, H, W), height, width, padding=0, stride=stride)
    x_cols_argmax = np.argmax(x_cols, axis=0)
    best = np.take_along_axis(x_cols, x_cols_argmax[None], axis=0)
    out = best.reshape(*output_size(images.shape, height, width, 0, stride), N, C).transpose(2, 3, 0, 1)
    return np.ascontiguousarray(out), (x, x_cols, x_cols_argmax, pool_param)


def max_pool_backward_im2col(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_im2col`. If several cells are the maximum, the first one gets the gradient.

    Parameters
    ----------
    dout : array_like, (N, C, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `max_pool_forward_im2col`.

    Returns
    -------
    dx : ndarray, (N, C, H, W)

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_im2col, max_pool_backward_im2col
    >>> out, cache = max_pool_forward_im2col(
    ...     np.ones((1, 1, 2, 3)), {'pool_height': 2, 'pool_width': 2, 'stride': 1})
    >>> max_pool_backward_im2col(out, cache)[0, 0]
    array([[1., 1., 0.],
           [0., 0., 0.]])
    """
    x, x_cols, x_cols_argmax, pool_param = as_cache(cache, "max_pool_forward_im2col", length=4)
    images, height, width, stride = _pool_layer("max_pool_backward_im2col", x, pool_param)
    N, C, H, W = images.shape
    shape = (N, C, *output_size(images.shape, height, width, 0, stride))
    dout = _arrays.cast_gradient("dout", dout, shape, images.dtype)
    expected = (height * width, dout.size)
    x_cols, x_cols_argmax = (
        _arrays.as_array(f"{name} in cache", array)
        for name, array in (("x_cols", x_cols), ("x_cols_argmax", x_cols_argmax))
    )
    if x_cols.shape != expected or x_cols_argmax.shape != expected[1:]:
        raise ValueError(
            f"x_cols and x_cols_argmax in cache must have shapes {expected} and {expected[1:]}, got {x_cols.shape} "
            f"and {x_cols_argmax.shape}"
        )
    if x_cols_argmax.dtype.kind not in "iu":
        raise TypeError(f"x_cols_argmax in cache must be integers, got dtype {x_cols_argmax.dtype}")
    if dout.size and not 0 <= x_cols_argmax.min() <= x_cols_argmax.max() < len(x_cols):
        raise ValueError(
            f"x_cols_argmax in cache must have indices from 0 to {len(x_cols) - 1}, got {x_cols_argmax.min()} to "
            f"{x_cols_argmax.max()}"
        )
    x_cols_argmax = x_cols_argmax.astype(np.intp, copy=False)
    dcols = np.zeros(expected, dout.dtype)
    np.put_along_axis(dcols, x_cols_argmax[None], dout.transpose(2, 3, 0, 1).reshape(1, -1), axis=0)
    return col2im_indices(dcols, (N * C, 1, H, W), height, width, padding=0, stride=stride).reshape(N, C, H, W)


def _tiles(shape: tuple[int, ...], height: int, width: int, stride: int) -> bool:
    return height == width == stride and shape[2] % height == 0 and shape[3] % width == 0


def max_pool_forward_fast(x: Any, pool_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Call `max_pool_forward_reshape` if square windows tile the image, otherwise `max_pool_forward_im2col`.

    Parameters
    ----------
    x, pool_param
        See `max_pool_forward_naive`.

    Returns
    -------
    out : ndarray, (N, C, OH, OW)
    cache : tuple
        ``('reshape', inner)`` or ``('im2col', inner)``.

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_fast
    >>> max_pool_forward_fast(
    ...     np.ones((1, 1, 4, 4)), {'pool_height': 2, 'pool_width': 2, 'stride': 2})[1][0]
    'reshape'
    """
    images, height, width, stride = _pool_layer("max_pool_forward_fast", x, pool_param)
    if _tiles(images.shape, height, width, stride):
        out, inner = max_pool_forward_reshape(x, pool_param)
        return out, ("reshape", inner)
    out, inner = max_pool_forward_im2col(x, pool_param)
    return out, ("im2col", inner)


def max_pool_backward_fast(dout: Any, cache: tuple) -> np.ndarray:
    """Gradient of `max_pool_forward_fast`. It uses the same method as the forward pass.

    Parameters
    ----------
    dout : array_like, (N, C, OH, OW)
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `max_pool_forward_fast`.

    Returns
    -------
    dx : ndarray, (N, C, H, W)

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.pool import max_pool_forward_fast, max_pool_backward_fast
    >>> out, cache = max_pool_forward_fast(
    ...     np.arange(4.0).reshape(1, 1, 2, 2), {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> max_pool_backward_fast(np.ones_like(out), cache)[0, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    method, inner = as_cache(cache, "max_pool_forward_fast", length=2)
    if method not in ("reshape", "im2col"):
        raise ValueError(f"the first item of cache must be 'reshape' or 'im2col', got {method!r}")
    try:
        return (max_pool_backward_reshape if method == "reshape" else max_pool_backward_im2col)(dout, inner)
    except TypeError as error:
        if type(error) is not TypeError:  # raised by a signal handler
            raise
        raise TypeError(str(error).replace(f"_forward_{method}", "_forward_fast")) from None
