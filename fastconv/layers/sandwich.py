"""Sequences of layers that are often used together, each as one forward/backward pair."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from fastconv.checks.messages import TupleCache
from fastconv.checks.options import as_cache
from fastconv.layers.activation import relu_backward, relu_forward
from fastconv.layers.convolution.conv import conv_backward, conv_forward
from fastconv.layers.dense import affine_backward, affine_forward
from fastconv.layers.norm.batchnorm import spatial_batchnorm_backward, spatial_batchnorm_forward
from fastconv.layers.pool.pooling import max_pool_backward, max_pool_forward


def affine_relu_forward(x: Any, w: Any, b: Any) -> tuple[np.ndarray, tuple]:
    """Compute `affine_forward`, then `relu_forward`.

    Parameters
    ----------
    x, w, b : array_like
        See `affine_forward`.

    Returns
    -------
    out : ndarray, (N, M)
    cache : tuple
        ``(affine_cache, relu_cache)``.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import affine_relu_forward
    >>> affine_relu_forward(np.ones((1, 2)), np.array([[1.0, -1.0]] * 2), np.zeros(2))[0]
    array([[2., 0.]])
    """
    a, affine_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(a)
    return out, TupleCache((affine_cache, relu_cache))


def affine_relu_backward(dout: Any, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Gradients ``(dx, dw, db)`` of `affine_relu_forward`.

    Parameters
    ----------
    dout : array_like, of the output's shape
    cache : tuple
        From `affine_relu_forward`.

    Returns
    -------
    dx, dw, db : ndarray
        The shapes are those of `x`, `w` and `b`. `db` is None if `b` was None.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import affine_relu_forward, affine_relu_backward
    >>> out, cache = affine_relu_forward(np.ones((1, 2)), np.array([[1.0, -1.0]] * 2), np.zeros(2))
    >>> affine_relu_backward(np.ones((1, 2)), cache)[2]
    array([1., 0.])
    """
    affine_cache, relu_cache = as_cache(cache, "affine_relu_forward", length=2)
    return affine_backward(relu_backward(dout, relu_cache), affine_cache)


def conv_relu_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, Any] | None = None, **options: Any
) -> tuple[np.ndarray, tuple]:
    """Compute `conv_forward`, then `relu_forward`.

    Parameters
    ----------
    x, w, b, conv_param, **options
        See `conv_forward`.

    Returns
    -------
    out : ndarray, (N, F, *out_spatial)
    cache : tuple
        ``(conv_cache, relu_cache)``.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import conv_relu_forward
    >>> conv_relu_forward(np.ones((1, 1, 3)), -np.ones((1, 1, 2)), None)[0]
    array([[[0., 0.]]])
    """
    a, conv_cache = conv_forward(x, w, b, conv_param, **options)
    out, relu_cache = relu_forward(a)
    return out, TupleCache((conv_cache, relu_cache))


def conv_relu_backward(dout: Any, cache: tuple) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients ``(dx, dw, db)`` of `conv_relu_forward`.

    Parameters
    ----------
    dout : array_like, of the output's shape
    cache : tuple
        From `conv_relu_forward`.

    Returns
    -------
    dx, dw, db : ndarray
        The shapes are those of `x`, `w` and `b`. `db` is None if `b` was None.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import conv_relu_forward, conv_relu_backward
    >>> out, cache = conv_relu_forward(np.ones((1, 1, 3)), np.ones((1, 1, 2)), None)
    >>> conv_relu_backward(np.ones((1, 1, 2)), cache)[0]
    array([[[1., 2., 1.]]])
    """
    conv_cache, relu_cache = as_cache(cache, "conv_relu_forward", length=2)
    return conv_backward(relu_backward(dout, relu_cache), conv_cache)


def conv_bn_relu_forward(
    x: Any,
    w: Any,
    b: Any,
    gamma: Any,
    beta: Any,
    conv_param: Mapping[str, Any] | None,
    bn_param: MutableMapping[str, Any],
) -> tuple[np.ndarray, tuple]:
    """Compute `conv_forward`, `spatial_batchnorm_forward` and `relu_forward`, in this order.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward`.
    gamma, beta, bn_param
        See `spatial_batchnorm_forward`. It writes the running averages to `bn_param`.

    Returns
    -------
    out : ndarray, (N, F, *out_spatial)
    cache : tuple
        ``(conv_cache, bn_cache, relu_cache)``.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import conv_bn_relu_forward
    >>> x, w, bn_param = np.array([[[1.0, 2.0, 3.0]]]), np.ones((1, 1, 2)), {'mode': 'train', 'eps': 0}
    >>> conv_bn_relu_forward(x, w, None, np.ones(1), np.zeros(1), None, bn_param)[0]
    array([[[0., 1.]]])
    """
    a, conv_cache = conv_forward(x, w, b, conv_param)
    s, bn_cache = spatial_batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = relu_forward(s)
    return out, TupleCache((conv_cache, bn_cache, relu_cache))


def conv_bn_relu_backward(
    dout: Any, cache: tuple
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray, np.ndarray]:
    """Gradients ``(dx, dw, db, dgamma, dbeta)`` of `conv_bn_relu_forward`.

    Parameters
    ----------
    dout : array_like, of the output's shape
    cache : tuple
        From `conv_bn_relu_forward`.

    Returns
    -------
    dx, dw, db, dgamma, dbeta : ndarray
        The shapes are those of `x`, `w`, `b`, `gamma` and `beta`. `db` is None if `b` was None.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import conv_bn_relu_forward, conv_bn_relu_backward
    >>> x, w, bn_param = np.array([[[1.0, 2.0, 3.0]]]), np.ones((1, 1, 2)), {'mode': 'train', 'eps': 0}
    >>> out, cache = conv_bn_relu_forward(x, w, None, np.ones(1), np.zeros(1), None, bn_param)
    >>> conv_bn_relu_backward(np.array([[[5.0, 7.0]]]), cache)[3:]
    (array([7.]), array([7.]))
    """
    conv_cache, bn_cache, relu_cache = as_cache(cache, "conv_bn_relu_forward", length=3)
    da, dgamma, dbeta = spatial_batchnorm_backward(relu_backward(dout, relu_cache), bn_cache)
    return *conv_backward(da, conv_cache), dgamma, dbeta


def conv_relu_pool_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, Any] | None, pool_param: Mapping[str, Any]
) -> tuple[np.ndarray, tuple]:
    """Compute `conv_forward`, `relu_forward` and `max_pool_forward`, in this order.

    Parameters
    ----------
    x, w, b, conv_param
        See `conv_forward`.
    pool_param : dict
        See `max_pool_forward` and docs/conventions.md.

    Returns
    -------
    out : ndarray, (N, F, *pooled)
    cache : tuple
        ``(conv_cache, relu_cache, pool_cache)``.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import conv_relu_pool_forward
    >>> x = np.arange(5.0).reshape(1, 1, 5)
    >>> conv_relu_pool_forward(x, np.ones((1, 1, 2)), None, None, {'kernel_size': 2})[0]
    array([[[3., 7.]]])
    """
    a, conv_cache = conv_forward(x, w, b, conv_param)
    s, relu_cache = relu_forward(a)
    out, pool_cache = max_pool_forward(s, pool_param)
    return out, TupleCache((conv_cache, relu_cache, pool_cache))


def conv_relu_pool_backward(dout: Any, cache: tuple) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients ``(dx, dw, db)`` of `conv_relu_pool_forward`.

    Parameters
    ----------
    dout : array_like, of the output's shape
    cache : tuple
        From `conv_relu_pool_forward`.

    Returns
    -------
    dx, dw, db : ndarray
        The shapes are those of `x`, `w` and `b`. `db` is None if `b` was None.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import conv_relu_pool_forward, conv_relu_pool_backward
    >>> x = np.arange(5.0).reshape(1, 1, 5)
    >>> out, cache = conv_relu_pool_forward(x, np.ones((1, 1, 2)), None, None, {'kernel_size': 2})
    >>> conv_relu_pool_backward(np.ones((1, 1, 2)), cache)[0]
    array([[[0., 1., 1., 1., 1.]]])
    """
    conv_cache, relu_cache, pool_cache = as_cache(cache, "conv_relu_pool_forward", length=3)
    return conv_backward(relu_backward(max_pool_backward(dout, pool_cache), relu_cache), conv_cache)
