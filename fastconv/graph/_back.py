"""The way back: calls as they were recorded, and the sums of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import unwrap
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from fastconv import _arrays
from fastconv.graph._node import Node


class Leaf(NamedTuple):
    """A value that was put on the tape. Not its node, which holds the tape: a cycle would keep all caches."""

    node: int
    value: np.ndarray
    requires_grad: bool


class Record(NamedTuple):
    """A call that gradients go back through."""

    name: str
    backward: Callable[..., Any]
    cache: Any
    needs: dict[str, bool]
    #: Of each argument its node, None where no gradient is wanted, and its shape.
    inputs: tuple[tuple[int, tuple[int, ...]] | None, ...]
    #: Of each output its node, shape and type.
    outputs: tuple[tuple[int, tuple[int, ...], Any], ...]


def name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def find_backward(forward: Callable[..., Any]) -> Callable[..., Any] | None:
    """What stands beside `forward` in its module under the name of its backward."""
    name = name_of(forward)
    if "forward" not in name:
        return None
    plain = forward if isinstance(forward, FunctionType) and not hasattr(forward, "__wrapped__") else unwrap(forward)
    found = getattr(plain, "__globals__", {}).get(name.replace("forward", "backward"))
    return found if callable(found) else None


def needs_of(forward: Callable[..., Any], backward: Callable[..., Any], args: tuple) -> dict[str, bool]:
    """The arguments of `backward` such as need_dx: whether the gradient of the forward's argument x is wanted."""
    if not (isinstance(forward, FunctionType) and isinstance(backward, FunctionType)):
        return {}
    code = backward.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    names = forward.__code__.co_varnames[: forward.__code__.co_argcount]
    return {
        f"need_d{name}": isinstance(arg, Node) and arg.requires_grad
        for name, arg in zip(names, args, strict=False)
        if f"need_d{name}" in known
    }


class Sums:
    """Gradients on their way back, by node."""

    def __init__(self, kept: Iterable[int]) -> None:
        self.arrays: dict[int, np.ndarray] = {}
        self._kept = frozenset(kept)
        #: Those made here, which may be added to in place. Others may be a cache, a view, or another's gradient.
        self._made: set[int] = set()

    def put(self, index: int, gradient: np.ndarray) -> None:
        before = self.arrays.get(index)
        if before is None:
            self.arrays[index] = gradient
        elif index in self._made and np.result_type(before, gradient) == before.dtype:
            np.add(before, gradient, out=before)
        else:
            self.arrays[index] = np.asarray(before + gradient)
            self._made.add(index)

    def take(self, index: int, to_write: bool) -> np.ndarray | None:
        """The gradient by a node, whose sum is complete; one that may be written to is nobody else's."""
        gradient = self.arrays.get(index) if index in self._kept else self.arrays.pop(index, None)
        if to_write and gradient is not None and (index in self._kept or index not in self._made):
            return gradient.copy()
        return gradient


def go_back(record: Record, sums: Sums) -> None:
    """The gradients of one call's arguments from those of its outputs."""
    # Homework writes to dout (dout[x < 0] = 0), which may be another branch's, too; nothing of fastconv does.
    foreign = not str(getattr(record.backward, "__module__", "")).startswith("fastconv.")
    douts = [sums.take(index, foreign) for index, _, _ in record.outputs]
    if all(dout is None for dout in douts):
        return
    for i, (_, shape, kind) in enumerate(record.outputs):
        if douts[i] is None:
            douts[i] = np.zeros(shape, _arrays.float_dtype(f"output {i} of {record.name}", kind))
    try:
        result = record.backward(*douts, record.cache, **record.needs)
    except Exception as error:
        error.add_note(f"on the way back through {record.name}")
        raise
    gradients = result if isinstance(result, tuple) else (result,)
    if len(gradients) > len(record.inputs):
        raise ValueError(
            f"the backward of {record.name} returned {len(gradients)} gradients, but {record.name} had "
            f"{len(record.inputs)} arguments"
        )
    if any(wanted is not None for wanted in record.inputs[len(gradients) :]):
        raise TypeError(
            f"the backward of {record.name} returned {len(gradients)} gradients, one for each of the first arguments, "
            f"but there is a node that requires one among the {len(record.inputs) - len(gradients)} after them"
        )
    for i, (gradient, wanted) in enumerate(zip(gradients, record.inputs, strict=False)):
        if wanted is None or gradient is None:
            continue
        index, shape = wanted
        array = np.asarray(gradient)
        if array.shape != shape:
            raise ValueError(
                f"the backward of {record.name} returned a gradient of shape {array.shape} for argument {i}, "
                f"which has shape {shape}"
            )
        sums.put(index, array)


def finish(leaves: list[Leaf], kept: dict[int, Any], sums: Sums, given: np.ndarray) -> dict[int, np.ndarray]:
    """Every gradient asked for, in the float dtype of its node's value and memory of its own."""
    owners = {id(_root(given)), *(id(_root(leaf.value)) for leaf in leaves)}
    found = {}
    for index, value in {**{leaf.node: leaf.value for leaf in leaves if leaf.requires_grad}, **kept}.items():
        dtype = _arrays.result_dtype(np.asarray(value))
        gradient = sums.arrays.get(index)
        if gradient is None:
            gradient = np.zeros(np.shape(value), dtype)
        elif id(_root(gradient)) in owners or not gradient.flags.writeable:
            gradient = np.array(gradient, dtype, order="C")
        else:
            gradient = _arrays.prepare(gradient, dtype)
        owners.add(id(_root(gradient)))
        found[index] = gradient
    return found


def _root(array: np.ndarray) -> Any:
    """The object whose memory an array is in."""
    root: Any = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    return root
