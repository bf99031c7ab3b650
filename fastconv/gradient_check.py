"""Numerical gradients by central differences, for checks of analytic gradients.

The functions change the input in place, one element at a time, and restore each element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import randrange
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.options import as_int


def _check(name: str, x: Any, h: float) -> None:
    if not isinstance(h, (int, float, np.number)) or not 0 < h < np.inf:
        raise ValueError(f"h must be a positive number, got {h!r}")
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, because it is changed in place, got {type(x).__name__}")
    if x.dtype.kind != "f":
        raise TypeError(f"{name} must have a float dtype, got {x.dtype}; pass {name}.astype(float)")
    if not x.flags.writeable:
        raise ValueError(f"{name} must be writeable, because it is changed in place; pass a copy")


def _upstream(change: np.ndarray, df: Any) -> float:
    """Return the change of the loss if the output of f changes by `change`: the sum of ``change * df``."""
    df = _arrays.as_array("df", df)
    if df.ndim and df.shape != change.shape:
        raise ValueError(f"df must have the shape of f(x), {change.shape}, got {df.shape}")
    return float(np.sum(change * df))


def _steps(f: Callable[[], Any], x: np.ndarray, h: float) -> Iterator[tuple[tuple[int, ...], Any, Any]]:
    """Yield the index of each element of x, and the results of f after a change of this element by h and by -h."""
    for ix in np.ndindex(*x.shape):
        yield (ix, *_step(f, x, ix, h))


def _step(f: Callable[[], Any], x: np.ndarray, ix: tuple[int, ...], h: float) -> tuple[Any, Any]:
    old = x[ix]
    try:
        x[ix] = old + h
        # Copy, because f may return the same array on every call.
        above = np.copy(f())
        x[ix] = old - h
        return above, np.copy(f())
    finally:
        x[ix] = old


def eval_numerical_gradient(
    f: Callable[[np.ndarray], float], x: np.ndarray, verbose: bool = True, h: float = 1e-5
) -> np.ndarray:
    """Compute the numerical gradient of `f`, a function that takes an array and returns a number.

    Parameters
    ----------
    f : callable
        Takes `x`, returns a number.
    x : ndarray
        The point at which to compute the gradient. With the default step, it should be float64.
    verbose : bool, default True
        Whether to print each element of the gradient.
    h : float, default 1e-5
        The step: ``(f(x + h) - f(x - h)) / (2 * h)``.

    Returns
    -------
    ndarray, of the shape and dtype of `x`

    Raises
    ------
    TypeError
        If `x` is not an array of floats.
    ValueError
        If `x` is read-only.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.gradient_check import eval_numerical_gradient
    >>> eval_numerical_gradient(lambda x: (x**2).sum(), np.array([1.0, 3.0]), verbose=False).round(6)
    array([2., 6.])
    """
    _check("x", x, h)
    grad = np.zeros_like(x)
    for ix, above, below in _steps(lambda: f(x), x, h):
        grad[ix] = (above - below) / (2 * h)
        if verbose:
            print(ix, grad[ix])
    return grad


def eval_numerical_gradient_array(
    f: Callable[[np.ndarray], Any], x: np.ndarray, df: Any, h: float = 1e-5
) -> np.ndarray:
    """Compute the numerical gradient of ``sum(f(x) * df)`` with respect to `x`, for an `f` that returns an array.

    Parameters
    ----------
    f : callable
        Takes `x`, returns an array.
    x : ndarray
        The point at which to compute the gradient.
    df : array_like
        The upstream gradient, of the shape of ``f(x)``.
    h : float, default 1e-5
        The step.

    Returns
    -------
    ndarray, of the shape and dtype of `x`

    Raises
    ------
    TypeError, ValueError
        As `eval_numerical_gradient`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.gradient_check import eval_numerical_gradient_array
    >>> x, df = np.array([1.0, 3.0]), np.array([1.0, 10.0])
    >>> eval_numerical_gradient_array(lambda x: x**2, x, df).round(6)
    array([ 2., 60.])
    """
    _check("x", x, h)
    grad = np.zeros_like(x)
    for ix, above, below in _steps(lambda: f(x), x, h):
        grad[ix] = _upstream(above - below, df) / (2 * h)
    return grad


def eval_numerical_gradient_blobs(
    f: Callable[..., Any], inputs: tuple, output: Any, h: float = 1e-5
) -> list[np.ndarray]:
    """Compute numerical gradients with respect to several blobs: objects with the arrays ``vals`` and ``diffs``.

    Parameters
    ----------
    f : callable
        Takes the inputs and the output; writes ``output.vals``.
    inputs : tuple of blobs
    output : blob
        ``output.diffs`` is the upstream gradient.
    h : float, default 1e-5
        The step.

    Returns
    -------
    list of ndarray
        One per input, of the shape of its ``diffs``.

    Raises
    ------
    TypeError, ValueError
        As `eval_numerical_gradient`.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace as Blob
    >>> from fastconv.gradient_check import eval_numerical_gradient_blobs
    >>> x = Blob(vals=np.array([3.0]), diffs=np.zeros(1))
    >>> y = Blob(vals=np.zeros(1), diffs=np.ones(1))
    >>> def square(x, out):
    ...     out.vals[...] = x.vals ** 2
    >>> eval_numerical_gradient_blobs(square, (x,), y)[0].round(6)
    array([6.])
    """

    def run() -> np.ndarray:
        f(*inputs, output)
        return output.vals

    grads = []
    for i, blob in enumerate(inputs):
        _check(f"inputs[{i}].vals", blob.vals, h)
        grad = np.zeros_like(blob.diffs)
        for ix, above, below in _steps(run, blob.vals, h):
            grad[ix] = _upstream(above - below, output.diffs) / (2 * h)
        grads.append(grad)
    return grads


def eval_numerical_gradient_net(net: Any, inputs: tuple, output: Any, h: float = 1e-5) -> list[np.ndarray]:
    """Compute numerical gradients of ``net.forward()``, which reads the blobs `inputs` and writes the blob `output`.

    Parameters
    ----------
    net : object
        Its ``forward()`` writes ``output.vals`` from the inputs' ``vals``.
    inputs, output, h
        As `eval_numerical_gradient_blobs`.

    Returns
    -------
    list of ndarray
        One per input.

    Raises
    ------
    TypeError, ValueError
        As `eval_numerical_gradient`.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace as Blob
    >>> from fastconv.gradient_check import eval_numerical_gradient_net
    >>> x = Blob(vals=np.array([3.0]), diffs=np.zeros(1))
    >>> y = Blob(vals=np.zeros(1), diffs=np.ones(1))
    >>> net = Blob(forward=lambda: np.multiply(x.vals, 2, out=y.vals))
    >>> eval_numerical_gradient_net(net, (x,), y)[0].round(6)
    array([2.])
    """
    return eval_numerical_gradient_blobs(lambda *_: net.forward(), inputs, output, h)


def grad_check_sparse(
    f: Callable[[np.ndarray], float], x: np.ndarray, analytic_grad: np.ndarray, num_checks: int = 10, h: float = 1e-5
) -> None:
    """Print the numerical and the analytic gradient for a few random elements.

    Parameters
    ----------
    f : callable
        Takes `x`, returns a number.
    x : ndarray
    analytic_grad : ndarray, of the shape of `x`
    num_checks : int, default 10
        The number of elements, drawn by Python's `random`.
    h : float, default 1e-5
        The step.

    Raises
    ------
    TypeError, ValueError
        As `eval_numerical_gradient`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.gradient_check import grad_check_sparse
    >>> x = np.array([3.0])
    >>> grad_check_sparse(lambda x: (x**2).sum(), x, 2 * x, num_checks=1)
    numerical: 6.000000 analytic: 6.000000, relative error: ...
    """
    _check("x", x, h)
    if np.shape(analytic_grad) != x.shape:
        raise ValueError(f"analytic_grad must have the shape of x, {x.shape}, got {np.shape(analytic_grad)}")
    if not x.size:
        raise ValueError(f"x must not be empty, got shape {x.shape}")
    for _ in range(as_int("num_checks", num_checks, 0)):
        ix = tuple(randrange(size) for size in x.shape)
        above, below = _step(lambda: f(x), x, ix, h)
        numerical, analytic = float((above - below) / (2 * h)), float(analytic_grad[ix])
        scale = abs(numerical) + abs(analytic)
        error = abs(numerical - analytic) / scale if scale else 0.0
        print(f"numerical: {numerical:f} analytic: {analytic:f}, relative error: {error:e}")


def rel_error(x: Any, y: Any) -> float:
    """Return the largest relative difference, ``max(|x - y| / max(1e-8, |x| + |y|))``.

    Parameters
    ----------
    x, y : array_like
        Arrays whose shapes broadcast.

    Returns
    -------
    float
        The largest relative difference; 0.0 for empty arrays.

    Raises
    ------
    TypeError
        For complex or object input.

    Examples
    --------
    >>> from fastconv.gradient_check import rel_error
    >>> rel_error([1.0, 2.0], [1.0, 2.0])
    0.0
    """
    # Convert to floats, because the difference of unsigned integers would wrap around.
    x, y = (_arrays.as_array(name, value) for name, value in (("x", x), ("y", y)))
    x, y = (a if a.dtype.kind == "f" else a.astype(np.float64) for a in (x, y))
    error = np.abs(x - y) / np.maximum(1e-8, np.abs(x) + np.abs(y))
    return float(np.max(error, initial=0.0))
