"""Losses over class scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.checks.arrays import prepare_inputs


def _scores_and_labels(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return x in float32 or float64, and a copy of the labels y. Raise an error if a shape or a label is illegal."""

    def resolve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, None]:
        if x.ndim != 2 or x.shape[1] < 1:
            raise ValueError(f"x must be (N, C) scores of at least one class, got shape {x.shape}")
        labels = np.array(y)  # a copy, because the caller may change y after the checks
        if labels.shape != (x.shape[0],):
            raise ValueError(
                f"y has shape {labels.shape}, but x {x.shape} has {x.shape[0]} rows; y must be ({x.shape[0]},)"
            )
        if len(labels):
            if labels.dtype.kind not in "iu":
                raise TypeError(f"y must be integer labels, got dtype {labels.dtype}")
            if labels.min() < 0 or labels.max() >= x.shape[1]:
                raise ValueError(f"y must have labels from 0 to {x.shape[1] - 1}, got {labels.min()} to {labels.max()}")
        return labels, None

    labels, (x, _), _ = prepare_inputs(resolve, integer="y", x=x, y=y)
    return (x if len(labels) else np.empty(x.shape, x.dtype)), labels


def softmax_loss(x: Any, y: Any) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of softmax scores, and its gradient.

    Parameters
    ----------
    x : array_like, (N, C)
        Scores, finite or -inf. A score of -inf excludes its class.
    y : array_like of int, (N,)
        The right class of each row, from 0 to C - 1.

    Returns
    -------
    loss : float
        0.0 for an empty batch.
    dx : ndarray, (N, C)
        The gradient of the loss with respect to `x`.

    Raises
    ------
    ValueError
        If shapes do not fit, or a label lies outside the classes.
    TypeError
        If `y` does not have an integer dtype. See also docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import softmax_loss
    >>> loss, dx = softmax_loss(np.array([[0.0, 0.0]]), np.array([1]))
    >>> round(loss, 4), dx
    (0.6931, array([[ 0.5, -0.5]]))
    """
    # Import SciPy only here, because an import at the top of the file would double the import time of fastconv.
    from scipy.special import log_softmax

    x, y = _scores_and_labels(x, y)
    if not len(y):
        return 0.0, x
    log_probs = log_softmax(x, axis=1)
    rows = np.arange(len(y))
    dx = np.exp(log_probs)
    dx[rows, y] -= 1
    dx /= len(y)
    return float(-log_probs[rows, y].mean()), dx


def svm_loss(x: Any, y: Any) -> tuple[float, np.ndarray]:
    """Mean multiclass hinge loss, and its gradient.

    Every wrong class adds ``max(0, score - right + 1)`` to the loss of its row, where `right` is
    the score of the right class.

    Parameters
    ----------
    x : array_like, (N, C)
        Scores.
    y : array_like of int, (N,)
        The right class of each row, from 0 to C - 1.

    Returns
    -------
    loss : float
        0.0 for an empty batch.
    dx : ndarray, (N, C)
        The gradient of the loss with respect to `x`. It is 0 if a score is exactly 1 below the right one.

    Raises
    ------
    ValueError
        If shapes do not fit, or a label lies outside the classes.
    TypeError
        If `y` does not have an integer dtype. See also docs/conventions.md.

    References
    ----------
    J. Weston, C. Watkins, "Support vector machines for multi-class pattern
    recognition", ESANN 1999.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.layers import svm_loss
    >>> svm_loss(np.array([[1.0, 1.5, -3.0]]), np.array([0]))
    (1.5, array([[-1.,  1.,  0.]]))
    """
    x, y = _scores_and_labels(x, y)
    if not len(y):
        return 0.0, x
    rows = np.arange(len(y))
    margins = np.maximum(0, x - x[rows, y, None] + 1)
    margins[rows, y] = 0
    dx = (margins > 0).astype(x.dtype)
    dx[rows, y] = -dx.sum(axis=1)
    dx /= len(y)
    return float(margins.sum(dtype=np.float64) / len(y)), dx
