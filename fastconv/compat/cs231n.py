"""The convolution names of Stanford's CS231n, second assignment: ``from fastconv.compat.cs231n import *``.

Names, argument orders, column orders and cache tuples are the course's;
its limits are not: filters need not be square, strides need not tile, and any
dtype and memory order does. Images are ``(N, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv._options import as_cache
from fastconv.compat._cs231n_columns import (
    col2im_6d_cython,
    col2im_cython,
    col2im_indices,
    get_im2col_indices,
    im2col_cython,
    im2col_indices,
)
from fastconv.compat._cs231n_conv import (
    conv_backward_fast,
    conv_backward_im2col,
    conv_backward_naive,
    conv_backward_strides,
    conv_forward_fast,
    conv_forward_im2col,
    conv_forward_naive,
    conv_forward_strides,
)
from fastconv.compat._cs231n_pool import (
    max_pool_backward_fast,
    max_pool_backward_im2col,
    max_pool_backward_naive,
    max_pool_backward_reshape,
    max_pool_forward_fast,
    max_pool_forward_im2col,
    max_pool_forward_naive,
    max_pool_forward_reshape,
)
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
    relu_backward,
    relu_forward,
    softmax_loss,
)

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


def conv_relu_forward(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """`conv_forward_fast`, then `relu_forward`; cache ``(conv_cache, relu_cache)``.

    Parameters
    ----------
    x, w, b, conv_param
        As `conv_forward_fast`.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

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

    Parameters
    ----------
    dout : array_like, of the output's shape
        Gradient of the loss by the output; cast to the dtype of the forward pass.
    cache : tuple
        From `conv_relu_forward`.

    Returns
    -------
    dx, dw, db : ndarray
        Of the shapes of `x`, `w` and `b`.

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n import conv_relu_forward, conv_relu_backward
    >>> out, cache = conv_relu_forward(
    ...     np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), np.zeros(1), {'stride': 1, 'pad': 0})
    >>> conv_relu_backward(out, cache)[2]
    array([1.])
    """
    conv_cache, relu_cache = as_cache(cache, "conv_relu_forward", length=2)
    return conv_backward_fast(relu_backward(dout, relu_cache), conv_cache)


def conv_relu_pool_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, int], pool_param: Mapping[str, int]
) -> tuple[np.ndarray, tuple]:
    """`conv_forward_fast`, `relu_forward`, `max_pool_forward_fast`; cache of the three in that order.

    Parameters
    ----------
    x, w, b, conv_param
        As `conv_forward_fast`.
    pool_param : dict
        As `max_pool_forward_fast`.

    Returns
    -------
    out : ndarray, (N, F, OH, OW)
    cache : tuple

    Raises
    ------
    ValueError
        If shapes or parameters do not fit each other.
    TypeError
        For complex or object input, or a parameter of the wrong type or name.

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

    Parameters
    ----------
    dout : array_like, of the output's shape
        Gradient of the loss by the output; cast to the dtype of the forward pass.
    cache : tuple
        From `conv_relu_pool_forward`.

    Returns
    -------
    dx, dw, db : ndarray
        Of the shapes of `x`, `w` and `b`.

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

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
    conv_cache, relu_cache, pool_cache = as_cache(cache, "conv_relu_pool_forward", length=3)
    return conv_backward_fast(relu_backward(max_pool_backward_fast(dout, pool_cache), relu_cache), conv_cache)
