"""The fully connected layer, and its conversion to a convolution and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.arrays import prepare_inputs
from fastconv.checks.messages import TupleCache, count
from fastconv.checks.options import as_cache, as_shape
from fastconv.convolution.gemm import matmul


def _resolve(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> tuple[None, None]:
    """Raise an error if the shapes of x, w and b do not fit each other."""
    if x.ndim < 1 or w.ndim != 2:
        raise ValueError(f"x must be (N, d_1, ..., d_k) and w must be (D, M), got shapes {x.shape} and {w.shape}")
    if math.prod(x.shape[1:]) != w.shape[0]:
        raise ValueError(
            f"x {x.shape} has {count(math.prod(x.shape[1:]), 'value')} per row, but w {w.shape} takes {w.shape[0]}"
        )
    if b is not None and b.shape != (w.shape[1],):
        raise ValueError(
            f"b has shape {b.shape}, but w {w.shape} gives {count(w.shape[1], 'output')}; b must be ({w.shape[1]},)"
        )
    return None, None


def affine_forward(x: Any, w: Any, b: Any) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """A fully connected layer, ``x.reshape(N, D) @ w + b``.

    Parameters
    ----------
    x : array_like, (N, d_1, ..., d_k)
        Each row is flattened to ``D = d_1 * ... * d_k`` values.
    w : array_like, (D, M)
    b : array_like, (M,), or None

    Returns
    -------
    out : ndarray, (N, M)
    cache : tuple
        ``(x, w, b)``, for `affine_backward`.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import affine_forward
    >>> affine_forward(np.ones((1, 2, 2)), np.ones((4, 3)), np.arange(3.0))[0]
    array([[4., 5., 6.]])
    """
    _, (x, w, b), _ = prepare_inputs(_resolve, x=x, w=w, b=b)
    # [N x D] @ [D x M]
    out = matmul(x.reshape(x.shape[0], w.shape[0]), w)
    if b is not None:
        out += b
    return out, TupleCache((x, w, b))


def affine_backward(
    dout: Any, cache: tuple[np.ndarray, np.ndarray, np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Gradients of a fully connected layer.

    Parameters
    ----------
    dout : array_like, (N, M)
    cache : tuple
        From `affine_forward`.

    Returns
    -------
    dx : ndarray, of the shape of x
    dw : ndarray, (D, M)
    db : ndarray, (M,), or None if b was None

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import affine_forward, affine_backward
    >>> out, cache = affine_forward(np.array([[1.0, 2.0]]), np.ones((2, 1)), np.zeros(1))
    >>> affine_backward(np.array([[3.0]]), cache)
    (array([[3., 3.]]), array([[3.],
           [6.]]), array([3.]))
    """
    x, w, b = as_cache(cache, "affine_forward", length=3)
    held: dict[str, Any] = {"x in cache": x, "w in cache": w, "b in cache": b}

    def resolve(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> tuple[np.ndarray, None]:
        _resolve(x, w, b)
        return _arrays.cast_gradient("dout", dout, (x.shape[0], w.shape[1]), _arrays.result_dtype(x, w, b)), None

    dout, (x, w, b), _ = prepare_inputs(resolve, optional="b in cache", **held)
    # [N x M] @ [M x D], [D x N] @ [N x M]
    dx = matmul(dout, w.T).reshape(x.shape)
    dw = matmul(x.reshape(x.shape[0], w.shape[0]).T, dout)
    return dx, dw, None if b is None else dout.sum(axis=0)


def affine_to_conv(w: Any, x_shape: Sequence[int]) -> np.ndarray:
    """Return the weights of a fully connected layer as filters that cover its whole input.

    A convolution with these filters and the same bias computes the outputs of the layer as 1x1
    planes. For a larger image, it computes these outputs for every window of shape `x_shape`. So a
    net that ends in fully connected layers can run on images larger than those of its training.

    If no earlier layer pads, each output equals the output for its window alone. If a layer pads,
    the outputs differ. The reason is that zeros surround a window that is convolved alone, but
    other cells surround the same window in a larger image.

    Parameters
    ----------
    w : array_like, (D, M)
        The weights as in `affine_forward`.
    x_shape : tuple of int, (C, *spatial)
        The shape of the input of the layer before it is flattened, with one to
        three spatial axes and ``D = C * prod(spatial)``. For later fully connected
        layers it is ``(D, 1, 1)``, because their inputs are 1x1 planes.

    Returns
    -------
    ndarray, (M, C, *spatial)
        The filters for `conv`, in float32 or float64. They are never a view of `w`.

    Raises
    ------
    ValueError
        If `w` is not (D, M), or an input of `x_shape` does not have D values.
    TypeError
        If the shape is not a tuple of ints. See also docs/conventions.md.

    See Also
    --------
    conv_to_affine : the inverse.

    References
    ----------
    P. Sermanet et al., "OverFeat: integrated recognition, localization and
    detection using convolutional networks", arXiv:1312.6229.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import affine_forward, affine_to_conv, conv
    >>> rng = np.random.default_rng(0)
    >>> x, w, b = rng.standard_normal((2, 3, 4, 4)), rng.standard_normal((48, 10)), np.arange(10.0)
    >>> filters = affine_to_conv(w, x.shape[1:])
    >>> np.allclose(conv(x, filters, b)[:, :, 0, 0], affine_forward(x, w, b)[0])
    True
    >>> conv(rng.standard_normal((2, 3, 9, 6)), filters, b).shape
    (2, 10, 6, 3)
    """

    def resolve(w: np.ndarray) -> tuple[tuple[int, ...], None]:
        shape = as_shape("x_shape", x_shape, 1)
        if w.ndim != 2:
            raise ValueError(f"w must be (D, M), got shape {w.shape}")
        if not 2 <= len(shape) <= 4 or math.prod(shape) != w.shape[0]:
            raise ValueError(
                f"x_shape is {shape}, with the product {math.prod(shape)}; legal are (C, *spatial) with one to three "
                f"spatial axes and the product {w.shape[0]}, which is the number of rows of w {w.shape}"
            )
        return shape, None

    shape, (w,), _ = prepare_inputs(resolve, convert=None, w=w)
    return np.array(w.T, _arrays.result_dtype(w), order="C").reshape(w.shape[1], *shape)


def conv_to_affine(w: Any) -> np.ndarray:
    """Return filters as the weights of a fully connected layer whose input has the size of one filter.

    Parameters
    ----------
    w : array_like, (F, C, *kernel)
        The filters as in `conv`, without groups.

    Returns
    -------
    ndarray, (D, F)
        The weights for `affine_forward`, with ``D = C * prod(kernel)``, in float32
        or float64. They are never a view of `w`.

    Raises
    ------
    ValueError
        If `w` does not have one to three kernel axes.
    TypeError
        See docs/conventions.md.

    See Also
    --------
    affine_to_conv : the inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import affine_to_conv, conv_to_affine
    >>> w = np.arange(24.0).reshape(12, 2)
    >>> np.array_equal(conv_to_affine(affine_to_conv(w, (3, 2, 2))), w)
    True
    """

    def resolve(w: np.ndarray) -> tuple[int, None]:
        if not 3 <= w.ndim <= 5:
            raise ValueError(f"w must be (F, C, *kernel) with one to three kernel axes, got shape {w.shape}")
        return math.prod(w.shape[1:]), None

    depth, (w,), _ = prepare_inputs(resolve, convert=None, w=w)
    return np.array(w.reshape(w.shape[0], depth).T, _arrays.result_dtype(w), order="C")
