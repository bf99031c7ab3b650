"""The records of a tape: its leaves (inputs and parameters), and the calls whose gradients it will compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import kind_of
from fastconv.graph.backward import Leaf, Record, last_user
from fastconv.graph.node import Node, Operations


class Recorder(Operations):
    """The base class of `Tape`, which records one forward pass."""

    def __init__(self) -> None:
        self._nodes = 0
        self._leaves: list[Leaf] = []
        #: Maps the name of a leaf to the number of its node, or to None if the leaf requires no gradient.
        self._names: dict[str, int | None] = {}
        self._records: list[Record] = []
        #: Maps `id(array)` of the array of a leaf to the number of the leaf's node. With this dict, the tape detects
        #: that a call got the array of a leaf instead of its node.
        self._arrays: dict[int, int] = {}
        self._given_as_arrays: dict[int, str] = {}
        self._spent = False

    def __len__(self) -> int:
        """The number of calls whose caches the tape holds."""
        return len(self._records)

    def _wanted(self, node: Node, others: list[Node]) -> dict[int, Leaf | Node]:
        """Return the nodes whose gradients `backward` has to return. The keys are the numbers of the nodes."""
        wanted: dict[int, Leaf | Node] = {other._index: other for other in others}
        wanted.update((leaf.node, leaf) for leaf in self._leaves if leaf.requires_grad)
        if not wanted and not node.requires_grad:
            what = str(node)
        elif not all(other.requires_grad for other in others):
            what = "a node in keep"
        else:
            return wanted
        raise ValueError(
            f"{what} does not depend on a parameter; put parameters on the tape with tape.param(...), or with "
            "tape.input(..., requires_grad=True)"
        )

    def _check_open(self) -> None:
        if self._spent:
            raise RuntimeError(
                "backward has run on this tape already and freed its caches; record the forward pass on a new Tape"
            )

    def _own(self, node: Any, name: str) -> Node:
        if not isinstance(node, Node):
            raise TypeError(f"{name} must be a Node, got {type(node).__name__}")
        if node._tape is not self:
            raise ValueError(f"{name} must be a Node of this tape, got {node} of another tape")
        return node

    def _leaf(self, value: Any, name: str | None, requires_grad: bool) -> Node:
        self._check_open()
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"name must be a str or None, got {name!r}")
        if name in self._names:
            raise ValueError(f"name {name!r} is used on this tape already; choose another name")
        node = self._node(_arrays.as_array("value" if name is None else name, value), requires_grad, name)
        self._leaves.append(Leaf(node._index, node.value, requires_grad, name))
        self._arrays[id(node.value)] = node._index
        if name is not None:
            self._names[name] = node._index if requires_grad else None
        return node

    def _node(self, value: Any, requires_grad: bool, name: str | None = None) -> Node:
        self._nodes += 1
        return Node(self, self._nodes - 1, value, name, requires_grad)

    def _values(self, name: str, args: tuple, options: dict[str, Any]) -> list[Any]:
        """Return the arguments, with each node replaced by its value. Raise an error for a node in a list or tuple."""
        self._check_open()
        for key, option in options.items():
            if isinstance(option, Node):
                raise TypeError(f"{name} got {option} as the keyword {key}; pass nodes as positional arguments")
            if id(option) in self._arrays:
                self._given_as_arrays.setdefault(self._arrays[id(option)], f"{key}= of {name}")
        values = []
        for i, arg in enumerate(args):
            if isinstance(arg, Node):
                arg = self._own(arg, f"argument {i} of {name}").value
            elif isinstance(arg, (list, tuple)) and any(isinstance(part, Node) for part in arg):
                raise TypeError(f"argument {i} of {name} is {kind_of(arg)} of nodes; pass each node by itself")
            elif id(arg) in self._arrays:
                self._given_as_arrays.setdefault(self._arrays[id(arg)], f"argument {i} of {name}")
            values.append(arg)
        return values

    def _why_unused(self, index: int) -> str:
        """Return the most likely reason why the result does not depend on the node with number `index`."""
        if index in self._given_as_arrays:
            return f"{self._given_as_arrays[index]} got its array, not its node"
        last = last_user(index, self._records)
        return "no call got its node" if last is None else f"its path ends with the result of {last}"

    def _record(
        self, name: str, backward: Callable[..., Any], args: tuple, outs: tuple, cache: Any, needs: dict[str, bool]
    ) -> tuple[Node, ...]:
        inputs = tuple((a._index, a.shape) if isinstance(a, Node) and a.requires_grad else None for a in args)
        wanted = any(inputs)
        nodes = tuple(self._node(out, wanted) for out in outs)
        if wanted:
            outputs = tuple((n._index, n.shape, getattr(n.value, "dtype", float)) for n in nodes)
            self._records.append(Record(name, backward, cache, needs, inputs, outputs))
        return nodes
