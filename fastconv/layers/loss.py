"""Losses over class scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _arrays


def softmax_loss(x: Any, y: Any) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of softmax scores, and its gradient.

    Parameters
    ----------
    x : array_like, (N, C)
        Scores; any size, also infinite differences between them.
    y : array_like of int, (N,)
        The right class of each row, from 0 to C - 1.

    Returns
    -------
    loss : float
        0.0 for an empty batch.
    dx : ndarray, (N, C)
        Gradient of the loss by `x`.

    Raises
    ------
    ValueError
        If shapes do not fit, or a label lies outside the classes.
    TypeError
        If `y` are not integers, or `x` is complex or object.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import softmax_loss
    >>> loss, dx = softmax_loss(np.array([[0.0, 0.0]]), np.array([1]))
    >>> round(loss, 4), dx
    (0.6931, array([[ 0.5, -0.5]]))
    """
    # Imported where used: it would double the time that importing fastconv takes.
    from scipy.special import log_softmax

    x = _arrays.as_array("x", x)
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"x must be (N, C) scores of at least one class, got shape {x.shape}")
    y = np.asarray(y)
    if y.shape != (x.shape[0],):
        raise ValueError(f"y has shape {y.shape}, but x {x.shape} has {x.shape[0]} rows; y must be ({x.shape[0]},)")
    if not len(y):
        return 0.0, np.empty(x.shape, _arrays.result_dtype(x))
    if y.dtype.kind not in "iu":
        raise TypeError(f"y must be integer labels, got dtype {y.dtype}")
    if y.min() < 0 or y.max() >= x.shape[1]:
        raise ValueError(f"y has labels from {y.min()} to {y.max()}; legal are 0 to {x.shape[1] - 1}")
    log_probs = log_softmax(_arrays.prepare(x, _arrays.result_dtype(x)), axis=1)
    rows = np.arange(len(y))
    dx = np.exp(log_probs)
    dx[rows, y] -= 1
    dx /= len(y)
    return float(-log_probs[rows, y].mean()), dx
