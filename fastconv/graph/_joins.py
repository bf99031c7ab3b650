"""The pairs that make a graph of layers: sums, concatenations, and losses as layers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastconv import _arrays
from fastconv._options import as_int


def loss_backward(dloss: np.ndarray, gradients: Any) -> tuple:
    """A loss has its gradients ready; they are scaled where it is not the end."""
    parts = gradients if isinstance(gradients, tuple) else (gradients,)
    if dloss == 1:
        return parts
    return tuple(None if part is None else part * np.asarray(part).dtype.type(dloss) for part in parts)


def add_forward(*values: Any) -> tuple[np.ndarray, int]:
    arrays = [_arrays.as_array(f"nodes[{i}]", value) for i, value in enumerate(values)]
    if not arrays:
        raise ValueError("add needs at least one node")
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ValueError(f"nodes[{i}] has shape {array.shape}, but nodes[0] has {arrays[0].shape}; they are added")
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
        raise ValueError(f"axis is {axis}, but the nodes have {rank} axes; legal are {-rank} to {rank - 1}")
    axis %= rank
    for i, array in enumerate(arrays):
        if array.ndim != rank or any(
            a != b for j, (a, b) in enumerate(zip(array.shape, arrays[0].shape, strict=True)) if j != axis
        ):
            raise ValueError(
                f"nodes[{i}] has shape {array.shape}, but nodes[0] has {arrays[0].shape}; they may differ in axis "
                f"{axis} only"
            )
    cuts = np.cumsum([array.shape[axis] for array in arrays[:-1]], dtype=np.intp)
    return np.concatenate(arrays, axis), (axis, cuts)


def concat_backward(dout: np.ndarray, cache: tuple[int, np.ndarray]) -> tuple[np.ndarray, ...]:
    axis, cuts = cache
    return tuple(np.split(dout, cuts, axis))


def flatten_forward(value: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    array = _arrays.as_array("node", value)
    if not array.ndim:
        raise ValueError("node has no axes; flatten keeps the first and joins the others")
    # Not -1, which says nothing where a batch is empty.
    return array.reshape(array.shape[0], int(np.prod(array.shape[1:]))), array.shape


def flatten_backward(dout: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return dout.reshape(shape)


def scale_forward(value: Any, factor: float) -> tuple[Any, float]:
    array = _arrays.as_array("node", value)
    return array * _arrays.result_dtype(array).type(factor), factor


def scale_backward(dout: np.ndarray, factor: float) -> np.ndarray:
    return dout * dout.dtype.type(factor)
