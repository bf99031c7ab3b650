"""What is on a tape, and what comes back from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastconv.graph._tape import Tape


class Node:
    """A value on a tape: an input, a parameter, or what a layer gave.

    Nodes of one shape are added by ``+``, and multiplied by a number by ``*``.

    Attributes
    ----------
    value : ndarray or float
        The value itself. The tape does not hold it: it is gone when the node is
        and no cache needs it.
    shape : tuple of int
        Of the value, ``()`` for a loss.
    name : str or None
        As given to `Tape.param` or `Tape.input`.
    requires_grad : bool
        Whether gradients go back through it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.graph import Tape
    >>> tape = Tape()
    >>> w = tape.param(np.ones((2, 3)), 'w')
    >>> (w + 2 * w).value[0]
    array([3., 3., 3.])
    >>> w
    Node('w', shape (2, 3), requires_grad)
    """

    __slots__ = ("_index", "_tape", "name", "requires_grad", "shape", "value")
    #: So that `array + node` asks the node.
    __array_ufunc__ = None

    def __init__(self, tape: Tape, index: int, value: Any, name: str | None, requires_grad: bool) -> None:
        self._tape, self._index = tape, index
        self.value, self.name, self.requires_grad = value, name, requires_grad
        self.shape: tuple[int, ...] = np.asarray(value).shape

    @property
    def dtype(self) -> np.dtype:
        """Of the value."""
        return np.asarray(self.value).dtype

    def __add__(self, other: Any) -> Node:
        return self._tape.add(self, other)

    def __radd__(self, other: Any) -> Node:
        return self._tape.add(other, self)

    def __mul__(self, factor: Any) -> Node:
        return self._tape.scale(self, factor)

    __rmul__ = __mul__

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name else ""
        value = f"value {self.value}" if self.shape == () else f"shape {self.shape}"
        return f"Node({name}{value}{', requires_grad' if self.requires_grad else ''})"


class Gradients(Mapping[str, np.ndarray]):
    """What `Tape.backward` returns: gradients by the names of parameters, or by the nodes themselves.

    As a mapping it has the names. Every gradient has the shape of its node, and
    memory of its own.
    """

    def __init__(self, tape: Tape, names: dict[str, int], arrays: dict[int, np.ndarray]) -> None:
        self._tape, self._names, self._arrays = tape, names, arrays

    def __getitem__(self, key: str | Node) -> np.ndarray:
        index = self._names.get(key) if isinstance(key, str) else None
        if isinstance(key, Node) and key._tape is self._tape:
            index = key._index
        if index not in self._arrays:
            raise KeyError(
                f"there is no gradient of {key!r}; there are those of {', '.join(self._names) or 'no names'}, and of "
                "nodes made by param, by input with requires_grad=True, or given to backward as keep"
            )
        return self._arrays[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Gradients({', '.join(f'{name} {self[name].shape}' for name in self)})"
