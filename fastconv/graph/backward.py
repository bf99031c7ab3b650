"""The backward pass of a tape: the records of calls, and the sums of gradients.

A node is a value on the tape. Nodes are numbered in the order in which they are created.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from inspect import unwrap
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import count
from fastconv.graph.node import Node
from fastconv.graph.pairs import as_gradient


class Leaf(NamedTuple):
    """A value that was put on the tape by `Tape.input` or `Tape.param`.

    `node` is the number of the node, not the node itself. A node refers to its tape. A reference from the tape to the
    node would complete a reference cycle, and all caches would stay alive until the garbage collector runs.
    """

    node: int
    value: np.ndarray
    requires_grad: bool
    name: str | None


class Record(NamedTuple):
    """A recorded call of a forward function, with the backward function that computes its gradients."""

    name: str
    backward: Callable[..., Any]
    cache: Any
    needs: dict[str, bool]
    #: For each argument, the number of its node and its shape, or None if its gradient is not needed.
    inputs: tuple[tuple[int, tuple[int, ...]] | None, ...]
    #: For each output, the number of its node, its shape and its dtype.
    outputs: tuple[tuple[int, tuple[int, ...], Any], ...]


def name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def find_backward(forward: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the backward function of `forward`, or None.

    For example, the backward function of `conv_forward` is the function `conv_backward` in the module of
    `conv_forward`. The backward function of a method is a method of the same object.
    """
    name = name_of(forward)
    if "forward" not in name:
        return None
    backward_name = name.replace("forward", "backward")
    plain: Any = forward
    if not isinstance(forward, FunctionType) or hasattr(forward, "__wrapped__"):
        plain = unwrap(forward, stop=lambda function: hasattr(function, "__self__"))
    # A method has `__globals__`, too, so look for `__self__` first.
    owner = getattr(plain, "__self__", None)
    found = (
        getattr(plain, "__globals__", {}).get(backward_name) if owner is None else getattr(owner, backward_name, None)
    )
    return found if callable(found) else None


def _home(function: Any) -> str:
    """Return the name of the module that defines a function. `function.__module__` may name another module."""
    return str(getattr(function, "__globals__", {}).get("__name__", ""))


class GradientSums:
    """The sums of gradients during the backward pass, one for each node."""

    def __init__(self, kept: Iterable[int]) -> None:
        self.arrays: dict[int, np.ndarray] = {}
        self._kept = frozenset(kept)
        #: The nodes whose gradients may be changed in place, because nothing else refers to their arrays. Any other
        #: gradient may be part of a cache, a view, the gradient of another node, or an array of the user.
        self._own: set[int] = set()
        #: Maps the number of a node to the name of a call whose backward function returned None as the gradient of the
        #: node.
        self.none_from: dict[int, str] = {}

    def add(self, index: int, gradient: np.ndarray, own: bool) -> None:
        before = self.arrays.get(index)
        if before is None:
            self.arrays[index] = gradient
            if own:
                self._own.add(index)
        elif index in self._own and np.result_type(before, gradient) == before.dtype:
            np.add(before, gradient, out=before)
        else:
            self.arrays[index] = np.asarray(before + gradient)
            self._own.add(index)

    def why_none(self, index: int) -> str:
        """Return the reason why a node has no gradient, although the result depends on the node."""
        names = [self.none_from[index]] if index in self.none_from else dict.fromkeys(self.none_from.values())
        return f"the backward of {' or '.join(names)} returned None"

    def pop(self, index: int, to_write: bool) -> np.ndarray | None:
        """Return a node's gradient, or None. If `to_write` is true, the caller may write to the returned array."""
        gradient = self.arrays.get(index) if index in self._kept else self.arrays.pop(index, None)
        if to_write and gradient is not None and (index in self._kept or index not in self._own):
            return gradient.copy()
        return gradient

    def result(self, index: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return the gradient of a node in `dtype`, as an array that nothing else refers to."""
        gradient = self.arrays.get(index)
        if gradient is None:
            return np.zeros(shape, dtype)
        return _arrays.prepare(gradient, dtype) if index in self._own else np.array(gradient, dtype, order="C")


def backward_step(record: Record, sums: GradientSums) -> None:
    """Compute the gradients of the arguments of one call from the gradients of its outputs, and add them to `sums`."""
    # A backward function of the user may write to dout, as in dout[x < 0] = 0. So pass a copy if another branch of the
    # graph uses the same array. The functions of fastconv never write to dout, so they need no copy.
    home = _home(record.backward)
    foreign = not home.startswith("fastconv.")
    # The layers of fastconv return a new array for each gradient. The pairs in fastconv.graph, such as `pairs.ADD`, may
    # return dout itself.
    own = not foreign and not home.startswith("fastconv.graph.")
    douts = [sums.pop(index, foreign) for index, _, _ in record.outputs]
    if all(dout is None for dout in douts):
        return
    for i, (_, shape, kind) in enumerate(record.outputs):
        if douts[i] is None:
            douts[i] = np.zeros(shape, _arrays.float_dtype(f"output {i} of {record.name}", kind))
    try:
        result = record.backward(*douts, record.cache, **record.needs)
    except Exception as error:
        error.add_note(f"raised by the backward function of {record.name}")
        raise
    if result is None:
        raise TypeError(
            f"{name_of(record.backward)}, the backward function of {record.name}, returned None; it must return the "
            "gradients, or (None,) if there is no gradient"
        )
    # If a backward function returns a list of arrays, each array is a gradient. A list of numbers is one gradient.
    several = isinstance(result, tuple) or (isinstance(result, list) and any(isinstance(g, np.ndarray) for g in result))
    gradients = tuple(result) if several else (result,)
    if len(gradients) > len(record.inputs):
        raise ValueError(
            f"the backward function of {record.name} returned {count(len(gradients), 'gradient')}, but {record.name} "
            f"got {count(len(record.inputs), 'argument')}"
        )
    if any(wanted is not None for wanted in record.inputs[len(gradients) :]):
        whose = "for the first argument" if len(gradients) == 1 else "for the first arguments"
        raise TypeError(
            f"the backward function of {record.name} returned {count(len(gradients), 'gradient')} {whose}, but "
            f"{record.name} got {count(len(record.inputs), 'argument')}, and a later one also requires a gradient"
        )
    for i, (gradient, wanted) in enumerate(zip(gradients, record.inputs, strict=False)):
        if wanted is None:
            continue
        index, shape = wanted
        if gradient is None:
            sums.none_from[index] = record.name
            continue
        array = as_gradient(f"gradient {i} that the backward of {record.name} returned", gradient)
        if array.shape != shape:
            raise ValueError(
                f"the backward function of {record.name} returned a gradient of shape {array.shape} for argument {i}, "
                f"which has shape {shape}"
            )
        # Copy an array that a function of the user returned, because the function may overwrite it in a later call.
        sums.add(index, array.copy() if foreign else array, own or foreign)


def reached(end: int, records: Iterable[Record]) -> set[int]:
    """Return the nodes on which node `end` depends, including `end`. `records` begins with the last call."""
    found = {end}
    for record in records:
        if any(index in found for index, _, _ in record.outputs):
            found.update(wanted[0] for wanted in record.inputs if wanted is not None)
    return found


def last_user(start: int, records: Iterable[Record]) -> str | None:
    """Return the name of the last call whose result depends on the node `start`, or None.

    `records` begins with the first call.
    """
    found, name = {start}, None
    for record in records:
        if any(wanted is not None and wanted[0] in found for wanted in record.inputs):
            found.update(index for index, _, _ in record.outputs)
            name = record.name
    return name


def _label(wanted: Leaf | Node) -> str:
    if isinstance(wanted, Node):
        return f"{wanted} in keep"
    return f"an unnamed parameter of shape {wanted.value.shape}" if wanted.name is None else repr(wanted.name)


def refuse_unused(
    end: Node, wanted: Mapping[int, Leaf | Node], found: Container[int], why: Callable[[int], str]
) -> None:
    """Raise an error if node `end` does not depend on all nodes in `wanted`. The message lists the missing nodes."""
    unused = [f"{_label(one)} ({why(index)})" for index, one in wanted.items() if index not in found]
    if unused:
        raise ValueError(
            f"no gradient of {end} reaches {', '.join(unused)}; pass the nodes of parameters to calls, not arrays and "
            "not .value, or call backward with unused='zero' to get zeros"
        )


def finish(leaves: list[Leaf], kept: dict[int, Any], sums: GradientSums) -> dict[int, np.ndarray]:
    """Return the gradients of all parameters and of the nodes in `kept`. The keys are the numbers of the nodes."""
    values = {**{leaf.node: leaf.value for leaf in leaves if leaf.requires_grad}, **kept}
    return {
        index: sums.result(index, np.asarray(value).shape, _arrays.result_dtype(np.asarray(value)))
        for index, value in values.items()
    }
