"""Forward and backward functions that are not layers: add, concat, flatten, scale, losses, and NumPy's ufuncs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import count_axes
from fastconv.checks.options import as_int


def as_gradient(name: str, value: Any) -> np.ndarray:
    """Return a gradient as an array of a float dtype.

    Backward functions may return bools or ints. Convert them, because NumPy's sum of two bools is a bool.
    """
    array = _arrays.as_array(name, value)
    return array.astype(_arrays.result_dtype(array), copy=False)


def loss_backward(dloss: np.ndarray, gradients: Any) -> tuple:
    """Multiply `gradients`, which the forward function of a loss has computed, by `dloss`."""
    parts = gradients if isinstance(gradients, tuple) else (gradients,)
    if dloss == 1:
        return parts
    scaled = []
    for i, part in enumerate(parts):
        array = None if part is None else as_gradient(f"gradient {i} of the loss", part)
        scaled.append(None if array is None else array * array.dtype.type(dloss))
    return tuple(scaled)


def add_forward(*values: Any) -> tuple[np.ndarray, int]:
    arrays = [_arrays.as_array(f"nodes[{i}]", value) for i, value in enumerate(values)]
    if not arrays:
        raise ValueError("add needs at least one node")
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"nodes must have equal shapes to be added, but nodes[{i}] has shape {array.shape} and nodes[0] has "
                f"shape {arrays[0].shape}"
            )
    return functools.reduce(np.add, arrays), len(arrays)


def add_backward(dout: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    return (dout,) * count


def concat_forward(*values: Any, axis: Any) -> tuple[np.ndarray, tuple[int, np.ndarray]]:
    arrays = [_arrays.as_array(f"nodes[{i}]", value) for i, value in enumerate(values)]
    if not arrays:
        raise ValueError("concat needs at least one node")
    rank = arrays[0].ndim
    axis = as_int("axis", axis, -rank)
    if axis >= rank:
        raise ValueError(f"axis must be from {-rank} to {rank - 1} for nodes with {count_axes(rank)}, got {axis}")
    axis %= rank
    for i, array in enumerate(arrays):
        if array.ndim != rank or any(
            a != b for j, (a, b) in enumerate(zip(array.shape, arrays[0].shape, strict=True)) if j != axis
        ):
            raise ValueError(
                f"the shapes of nodes may differ only along axis {axis}, but nodes[{i}] has {array.shape} and nodes[0] "
                f"{arrays[0].shape}"
            )
    cuts = np.cumsum([array.shape[axis] for array in arrays[:-1]], dtype=np.intp)
    return np.concatenate(arrays, axis), (axis, cuts)


def concat_backward(dout: np.ndarray, cache: tuple[int, np.ndarray]) -> tuple[np.ndarray, ...]:
    axis, cuts = cache
    return tuple(np.split(dout, cuts, axis))


def flatten_forward(value: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    array = _arrays.as_array("node", value)
    if not array.ndim:
        raise ValueError("node must have at least one axis, because flatten keeps the first axis and joins the others")
    # Compute the length of a row instead of passing -1, because NumPy cannot infer the length for an empty batch.
    return array.reshape(array.shape[0], int(np.prod(array.shape[1:]))), array.shape


def flatten_backward(dout: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return dout.reshape(shape)


def scale_forward(value: Any, factor: float) -> tuple[Any, float]:
    array = _arrays.as_array("node", value)
    return array * _arrays.result_dtype(array).type(factor), factor


def scale_backward(dout: np.ndarray, factor: float) -> np.ndarray:
    return dout * dout.dtype.type(factor)


ADD = add_forward, add_backward
CONCAT = concat_forward, concat_backward
FLATTEN = flatten_forward, flatten_backward
SCALE = scale_forward, scale_backward

Rule = Callable[..., Any]


def _larger(dout: Any, a: Any, b: Any) -> Any:
    """Return the gradient of max(a, b) with respect to a. Where a equals b, the gradient is half of dout."""
    return dout * np.where(a == b, 0.5, np.where(a < b, 0, 1)).astype(dout.dtype)


def _power_base(dout: Any, a: Any, b: Any, out: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return dout * np.where(b == 0, 0, b * np.power(a, b - 1))


def _power_exponent(dout: Any, a: Any, b: Any, out: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return dout * out * np.where(a == 0, 0, np.log(a))


#: For each ufunc and each of its operands, a function that returns the gradient with respect to the operand. The
#: arguments of the function are dout, the operands and the result.
RULES: dict[np.ufunc, tuple[Rule, ...]] = {
    np.add: (lambda dout, a, b, out: dout, lambda dout, a, b, out: dout),
    np.subtract: (lambda dout, a, b, out: dout, lambda dout, a, b, out: -dout),
    np.multiply: (lambda dout, a, b, out: dout * b, lambda dout, a, b, out: dout * a),
    np.true_divide: (lambda dout, a, b, out: dout / b, lambda dout, a, b, out: -dout * out / b),
    np.power: (_power_base, _power_exponent),
    np.maximum: (lambda dout, a, b, out: _larger(dout, a, b), lambda dout, a, b, out: _larger(dout, b, a)),
    np.minimum: (lambda dout, a, b, out: _larger(dout, b, a), lambda dout, a, b, out: _larger(dout, a, b)),
    np.negative: (lambda dout, a, out: -dout,),
    np.positive: (lambda dout, a, out: dout,),
    np.absolute: (lambda dout, a, out: dout * np.sign(a),),
    np.square: (lambda dout, a, out: dout * 2 * a,),
    np.sqrt: (lambda dout, a, out: dout / (2 * out),),
    np.reciprocal: (lambda dout, a, out: -dout * out * out,),
    np.exp: (lambda dout, a, out: dout * out,),
    np.log: (lambda dout, a, out: dout / a,),
    np.tanh: (lambda dout, a, out: dout * (1 - out * out),),
    np.sin: (lambda dout, a, out: dout * np.cos(a),),
    np.cos: (lambda dout, a, out: -dout * np.sin(a),),
}
#: The ufuncs whose gradients do not depend on the values of the operands. So their caches do not hold the operands.
_LINEAR = frozenset((np.add, np.subtract, np.negative, np.positive))


def _forward(ufunc: np.ufunc, *values: Any) -> tuple[Any, tuple]:
    arrays = [_arrays.as_array(f"operand {i} of {ufunc.__name__}", value) for i, value in enumerate(values)]
    dtype, shapes = _arrays.result_dtype(*arrays), tuple(array.shape for array in arrays)
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"the operands of {ufunc.__name__} must have shapes that broadcast, got {' and '.join(map(str, shapes))}"
        ) from None
    arrays = [array.astype(dtype, copy=False) for array in arrays]
    out = ufunc(*arrays)
    return out, (shapes, None if ufunc in _LINEAR else (*arrays, out))


def _gradient(ufunc: np.ufunc, i: int, dout: np.ndarray, cache: tuple) -> Any:
    shapes, values = cache
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = RULES[ufunc][i](dout, *(values or (None,) * (len(shapes) + 1)))
    return _sum_to(np.asarray(whole), shapes[i])


def _sum_to(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sum of `gradient` over the axes along which an operand of shape `shape` was broadcast.

    This sum is the adjoint of broadcasting.
    """
    if gradient.shape == shape:
        return gradient
    lead = gradient.ndim - len(shape)
    repeated = tuple(i for i, n in enumerate(gradient.shape) if i < lead or shape[i - lead] != n)
    return gradient.sum(axis=repeated, keepdims=True, dtype=np.float64).astype(gradient.dtype).reshape(shape)


def _pair(ufunc: np.ufunc) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the forward and the backward function of `ufunc`.

    If `ufunc` has two operands a and b, the tape passes `need_da` and `need_db` to the backward function. They say
    whether the gradients with respect to a and b are needed.
    """
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    if len(RULES[ufunc]) == 1:

        def forward(a: Any) -> Any:
            return _forward(ufunc, a)

        def backward(dout: np.ndarray, cache: tuple) -> Any:
            return _gradient(ufunc, 0, dout, cache)

    else:

        def forward(a: Any, b: Any) -> Any:
            return _forward(ufunc, a, b)

        def backward(dout: np.ndarray, cache: tuple, need_da: bool = True, need_db: bool = True) -> Any:
            return tuple(
                _gradient(ufunc, i, dout, cache) if need else None for i, need in enumerate((need_da, need_db))
            )

    forward.__name__ = ufunc.__name__
    return forward, backward


PAIRS = {ufunc: _pair(ufunc) for ufunc in RULES}

_COMPARISONS = frozenset((np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal))
_STEPS = frozenset((np.floor_divide, np.remainder, np.divmod, np.fmod, np.floor, np.ceil, np.trunc, np.rint, np.sign))


def refuse(ufunc: np.ufunc, method: str = "__call__", options: Any = ()) -> TypeError:
    """Return an error that says why `ufunc` does not work on a node, and what to write instead."""
    name = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
    if ufunc is np.matmul:
        return TypeError("nodes do not support a @ b: write tape(affine_forward, a, b, None)")
    if method == "__call__" and ufunc in RULES and options:
        return TypeError(f"{name} of a Node does not accept {', '.join(options)}, because it returns a new node")
    if ufunc in _COMPARISONS:
        return TypeError("a comparison of nodes has no gradient: compare their values, as in a.value > b.value")
    if ufunc in _STEPS:
        return TypeError(f"{name} has no gradient, because it is piecewise constant: apply it to node.value")
    return TypeError(
        f"a tape cannot record {name} of a Node: pass a forward and a backward function, as in "
        f"tape((forward, backward), node), or apply {name} to node.value"
    )


#: Maps methods of arrays to the forward and backward functions that error messages suggest in place of the methods.
_BY_HAND = {
    ".sum(...)": "(lambda v: (v.sum(), v.shape), lambda d, shape: np.full(shape, d))",
    ".mean(...)": "(lambda v: (v.mean(), v.shape), lambda d, shape: np.full(shape, d / np.prod(shape)))",
}


def off_tape(what: str, part: str) -> str:
    """Return the error message for an operation that a tape cannot record. `what` describes the operation, for example
    "sum of a Node", and `part` is its code for an array, for example ".sum(...)".
    """
    if part in (".flatten(...)", ".ravel(...)"):
        return f"a tape cannot record {what}: write tape.flatten(node), or use node.value{part}"
    pair = _BY_HAND.get(part, "(forward, backward)")
    return (
        f"a tape cannot record {what}: pass a forward and a backward function, as in tape({pair}, node), or use "
        f"node.value{part}"
    )
