"""The combined layers of CS231n's layer_utils.py that contain a convolution."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from fastconv.checks.options import as_cache
from fastconv.compat.cs231n.conv import conv_backward_fast, conv_forward_fast
from fastconv.compat.cs231n.pool import max_pool_backward_fast, max_pool_forward_fast
from fastconv.layers import relu_backward, relu_forward, spatial_batchnorm_backward, spatial_batchnorm_forward


def conv_relu_forward(x: Any, w: Any, b: Any, conv_param: Mapping[str, int]) -> tuple[np.ndarray, tuple]:
    """Compute `conv_forward_fast`, then `relu_forward`. The cache is ``(conv_cache, relu_cache)``.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward_fast`.

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
    >>> from fastconv.compat.cs231n.utils import conv_relu_forward
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
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_relu_forward`.

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
    >>> from fastconv.compat.cs231n.utils import conv_relu_forward, conv_relu_backward
    >>> out, cache = conv_relu_forward(
    ...     np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), np.zeros(1), {'stride': 1, 'pad': 0})
    >>> conv_relu_backward(out, cache)[2]
    array([1.])
    """
    conv_cache, relu_cache = as_cache(cache, "conv_relu_forward", length=2)
    return conv_backward_fast(relu_backward(dout, relu_cache), conv_cache)


def conv_bn_relu_forward(
    x: Any,
    w: Any,
    b: Any,
    gamma: Any,
    beta: Any,
    conv_param: Mapping[str, int],
    bn_param: MutableMapping[str, Any],
) -> tuple[np.ndarray, tuple]:
    """Compute `conv_forward_fast`, then `spatial_batchnorm_forward`, then `relu_forward`.

    The cache is the tuple of the caches of these three functions, in this order.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward_fast`.
    gamma, beta, bn_param
        See `spatial_batchnorm_forward`.

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
    >>> from fastconv.compat.cs231n.utils import conv_bn_relu_forward
    >>> conv_bn_relu_forward(
    ...     np.array([[[[1.0, 3.0]]]]), np.ones((1, 1, 1, 1)), np.zeros(1), np.ones(1), np.zeros(1),
    ...     {'stride': 1, 'pad': 0}, {'mode': 'train', 'eps': 0})[0]
    array([[[[0., 1.]]]])
    """
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    s, bn_cache = spatial_batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = relu_forward(s)
    return out, (conv_cache, bn_cache, relu_cache)


def conv_bn_relu_backward(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db, dgamma, dbeta)`` of `conv_bn_relu_forward`.

    Parameters
    ----------
    dout : array_like, of the output's shape
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_bn_relu_forward`.

    Returns
    -------
    dx, dw, db, dgamma, dbeta : ndarray
        Arrays of the shapes of `x`, `w`, `b`, `gamma` and `beta`.

    Raises
    ------
    ValueError
        If `dout` does not have the shape of the output.
    TypeError
        If `cache` comes from another layer, or `dout` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.compat.cs231n.utils import conv_bn_relu_forward, conv_bn_relu_backward
    >>> out, cache = conv_bn_relu_forward(
    ...     np.array([[[[1.0, 3.0]]]]), np.ones((1, 1, 1, 1)), np.zeros(1), np.ones(1), np.zeros(1),
    ...     {'stride': 1, 'pad': 0}, {'mode': 'train', 'eps': 0})
    >>> conv_bn_relu_backward(np.full_like(out, 5), cache)[3:]
    (array([5.]), array([5.]))
    """
    conv_cache, bn_cache, relu_cache = as_cache(cache, "conv_bn_relu_forward", length=3)
    da, dgamma, dbeta = spatial_batchnorm_backward(relu_backward(dout, relu_cache), bn_cache)
    return *conv_backward_fast(da, conv_cache), dgamma, dbeta


def conv_relu_pool_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, int], pool_param: Mapping[str, int]
) -> tuple[np.ndarray, tuple]:
    """Compute `conv_forward_fast`, then `relu_forward`, then `max_pool_forward_fast`.

    The cache is the tuple of the caches of these three functions, in this order.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward_fast`.
    pool_param : dict
        See `max_pool_forward_fast`.

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
    >>> from fastconv.compat.cs231n.utils import conv_relu_pool_forward
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
        The gradient of the loss with respect to the output. It is cast to the dtype of the forward pass.
    cache : tuple
        From `conv_relu_pool_forward`.

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
    >>> from fastconv.compat.cs231n.utils import conv_relu_pool_forward, conv_relu_pool_backward
    >>> out, cache = conv_relu_pool_forward(
    ...     np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), np.zeros(1), {'stride': 1, 'pad': 0},
    ...     {'pool_height': 2, 'pool_width': 2, 'stride': 2})
    >>> conv_relu_pool_backward(out, cache)[2]
    array([1.])
    """
    conv_cache, relu_cache, pool_cache = as_cache(cache, "conv_relu_pool_forward", length=3)
    return conv_backward_fast(relu_backward(max_pool_backward_fast(dout, pool_cache), relu_cache), conv_cache)
