"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import _arrays
from fastconv._options import as_cache


def _check(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> None:
    if x.ndim < 1 or w.ndim != 2:
        raise ValueError(f"x {x.shape} must be (N, d_1, ..., d_k) and w {w.shape} must be (D, M)")
    if math.prod(x.shape[1:]) != w.shape[0]:
        raise ValueError(f"x {x.shape} has {math.prod(x.shape[1:])} values a row, but w {w.shape} takes {w.shape[0]}")
    if b is not None and b.shape != (w.shape[1],):
        raise ValueError(
            f"b has shape {b.shape}, but w {w.shape} gives {w.shape[1]} outputs; b must be ({w.shape[1]},)"
        )


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
    ValueError
        If shapes do not fit each other.
    TypeError
        For complex or object input.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import affine_forward
    >>> affine_forward(np.ones((1, 2, 2)), np.ones((4, 3)), np.arange(3.0))[0]
    array([[4., 5., 6.]])
    """
    x, w = _arrays.as_array("x", x), _arrays.as_array("w", w)
    b = None if b is None else _arrays.as_array("b", b)
    _check(x, w, b)
    dtype = _arrays.result_dtype(x, w, b)
    x, w = _arrays.prepare(x, dtype), _arrays.prepare(w, dtype)
    b = None if b is None else _arrays.prepare(b, dtype)
    # [N x D] @ [D x M]
    out = x.reshape(x.shape[0], w.shape[0]) @ w
    if b is not None:
        out += b
    return out, (x, w, b)


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
    db : ndarray, (M,), or None where b was None

    Raises
    ------
    ValueError
        If `dout` is not of the output's shape.
    TypeError
        If `cache` is of another layer, or `dout` is complex or object.

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
    x, w = _arrays.as_array("x in cache", x), _arrays.as_array("w in cache", w)
    b = None if b is None else _arrays.as_array("b in cache", b)
    _check(x, w, b)
    dtype = _arrays.result_dtype(x, w, b)
    dout = _arrays.cast_gradient("dout", dout, (x.shape[0], w.shape[1]), dtype)
    # [N x M] @ [M x D], [D x N] @ [N x M]
    dx = (dout @ w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], w.shape[0]).T @ dout
    return dx, dw, None if b is None else dout.sum(axis=0)
