"""The nodes of a tape, and the mapping of gradients that a tape returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, Protocol

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.graph import pairs as _pairs


class Operations(Protocol):
    """The methods of a tape that the operators of nodes call, such as ``a + b``. They return nodes of the same tape."""

    def __call__(self, forward: Any, /, *args: Any) -> Any:
        """Run a forward/backward pair and record it."""

    def scale(self, node: Any, factor: Any) -> Node:
        """Return a node whose value is `factor` times the value of `node`."""


class Node:
    """A value on a tape: an input, a parameter, or the result of a layer.

    The operators ``+``, ``-``, ``*``, ``/`` and ``**``, and the functions
    ``np.maximum`` and ``np.minimum``, combine nodes with nodes, arrays and
    numbers, and broadcast as NumPy does. These functions take one node:
    ``np.exp``, ``np.log``, ``np.sqrt``, ``np.square``, ``np.tanh``, ``np.sin``,
    ``np.cos``, ``np.absolute``, ``np.reciprocal``. For any other operation
    give the tape a forward/backward pair.

    Attributes
    ----------
    value : ndarray or float
        The value itself. The tape does not refer to the value, so its memory is
        freed when you drop the node, unless a cache needs it.
    shape : tuple of int
        Shape of the value, ``()`` for a loss.
    dtype : dtype
        Dtype of the value.
    name : str or None
        The name given to `Tape.param` or `Tape.input`.
    requires_grad : bool
        Whether the backward pass computes a gradient of this node.

    Raises
    ------
    TypeError
        If an operator or a NumPy function has no forward/backward pair (``@``,
        ``%``, ``<``, ``np.dot``), or if the node is indexed, iterated over or
        converted to an array. The message says what to write instead.
    AttributeError
        If an attribute of arrays is read, such as ``node.sum``.
    ValueError
        If the shapes of two operands cannot be broadcast.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.graph import Tape
    >>> tape = Tape()
    >>> w = tape.param(np.ones((2, 3)), 'w')
    >>> (w + 2 * w).value[0]
    array([3., 3., 3.])
    >>> (1 - w / 4).value[0]
    array([0.75, 0.75, 0.75])
    >>> w
    Node('w', shape (2, 3), requires_grad)
    >>> w[0]
    Traceback (most recent call last):
        ...
    TypeError: a tape cannot record an index of a Node: pass a forward and a backward function, as in
    tape((forward, backward), node), or use node.value[...]
    """

    __slots__ = ("_index", "_tape", "name", "requires_grad", "shape", "value")

    def __init__(self, tape: Operations, index: int, value: Any, name: str | None, requires_grad: bool) -> None:
        self._tape, self._index = tape, index
        self.value, self.name, self.requires_grad = value, name, requires_grad
        self.shape: tuple[int, ...] = np.asarray(value).shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the value."""
        return np.asarray(self.value).dtype

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Node:
        if method != "__call__" or options or ufunc not in _pairs.PAIRS:
            raise _pairs.refuse(ufunc, method, options)
        return _apply(ufunc, *operands)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "a Node is not an array: call the function through the tape, as in tape((forward, backward), node), or "
            "take node.value"
        )

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a Node cannot be unpacked; write h = tape(...), because the tape keeps the cache")

    def __add__(self, other: Any) -> Node:
        # If the shapes are equal, do the same as `tape.add`, which keeps no array for the backward pass.
        if isinstance(other, (Node, np.ndarray)) and other.shape == self.shape:
            return self._tape(_pairs.ADD, self, other)
        return _apply(np.add, self, other)

    def __radd__(self, other: Any) -> Node:
        return _apply(np.add, other, self)

    def __sub__(self, other: Any) -> Node:
        return _apply(np.subtract, self, other)

    def __rsub__(self, other: Any) -> Node:
        return _apply(np.subtract, other, self)

    def __mul__(self, other: Any) -> Node:
        if isinstance(other, (Node, np.ndarray, list, tuple, bool, np.bool_)):
            return _apply(np.multiply, self, other)
        return self._tape.scale(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Node:
        return _apply(np.true_divide, self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return _apply(np.true_divide, other, self)

    def __pow__(self, other: Any) -> Node:
        return _apply(np.power, self, other)

    def __rpow__(self, other: Any) -> Node:
        return _apply(np.power, other, self)

    def __neg__(self) -> Node:
        return _apply(np.negative, self)

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return _apply(np.absolute, self)

    def __matmul__(self, other: Any) -> Node:
        raise _pairs.refuse(np.matmul)

    __rmatmul__ = __matmul__

    def __floordiv__(self, other: Any) -> Node:
        raise _pairs.refuse(np.floor_divide)

    __rfloordiv__ = __floordiv__

    def __mod__(self, other: Any) -> Node:
        raise _pairs.refuse(np.remainder)

    __rmod__ = __mod__

    def __divmod__(self, other: Any) -> Node:
        raise _pairs.refuse(np.divmod)

    __rdivmod__ = __divmod__

    def __invert__(self) -> Node:
        raise _pairs.refuse(np.invert)

    def __and__(self, other: Any) -> Node:
        raise _pairs.refuse(np.bitwise_and)

    __rand__ = __and__

    def __or__(self, other: Any) -> Node:
        raise _pairs.refuse(np.bitwise_or)

    __ror__ = __or__

    def __xor__(self, other: Any) -> Node:
        raise _pairs.refuse(np.bitwise_xor)

    __rxor__ = __xor__

    def __getitem__(self, index: Any) -> Node:
        raise TypeError(_pairs.off_tape("an index of a Node", "[...]"))

    def __getattr__(self, name: str) -> Any:
        """Raise an error for a missing attribute. If arrays have this attribute, the message says what to write."""
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        called = "(...)" if callable(getattr(np.ndarray, name)) else ""
        raise AttributeError(_pairs.off_tape(f"{name} of a Node", f".{name}{called}"))

    # Comparisons of nodes raise an error. Only == and != are allowed, because `node in list` uses ==.
    def __lt__(self, other: Any) -> bool:
        raise _pairs.refuse(np.less)

    __le__ = __gt__ = __ge__ = __lt__

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name else ""
        value = f"value {self.value}" if self.shape == () else f"shape {self.shape}"
        return f"Node({name}{value}{', requires_grad' if self.requires_grad else ''})"


class Gradients(Mapping[str, np.ndarray]):
    """The gradients that `Tape.backward` returns. A key is a name or a node.

    `Gradients` is a `Mapping`, so it has ``items()``, ``get()`` and ``len()``. Iteration
    yields only the names of parameters. Every gradient is a new array with the
    shape of its node.

    Raises
    ------
    KeyError
        If the backward pass computed no gradient for a key.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.graph import Tape
    >>> tape = Tape()
    >>> w = tape.param(np.array([1.0, 2.0]), 'w')
    >>> x = tape.input(np.array([3.0, 4.0]), requires_grad=True)
    >>> gradients = tape.backward(w * x, np.ones(2))
    >>> gradients
    Gradients(w (2,))
    >>> gradients['w'], gradients[x]
    (array([3., 4.]), array([1., 2.]))
    >>> gradients.get('b') is None
    True
    """

    def __init__(self, tape: Operations, names: dict[str, int], arrays: dict[int, np.ndarray]) -> None:
        self._tape, self._names, self._arrays = tape, names, arrays

    def __getitem__(self, key: str | Node) -> np.ndarray:
        index = self._names.get(key) if isinstance(key, str) else None
        if isinstance(key, Node) and key._tape is self._tape:
            index = key._index
        if index not in self._arrays:
            raise KeyError(
                f"there is no gradient of {key!r}; there are gradients of {', '.join(self._names) or 'no names'}, of "
                "nodes made by param or by input with requires_grad=True, and of the nodes in keep"
            )
        return self._arrays[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Gradients({', '.join(f'{name} {self[name].shape}' for name in self)})"


def _apply(ufunc: np.ufunc, *operands: Any) -> Node:
    """Apply `ufunc` to operands of which at least one is a node, and return a node."""
    nodes = [operand for operand in operands if isinstance(operand, Node)]
    # Numbers are converted to the dtype of the nodes.
    dtype = _arrays.result_dtype(*(np.asarray(node.value) for node in nodes))
    given = [
        operand if isinstance(operand, Node) else _constant(ufunc, i, operand, dtype)
        for i, operand in enumerate(operands)
    ]
    return nodes[0]._tape(_pairs.PAIRS[ufunc], *given)


def _constant(ufunc: np.ufunc, i: int, value: Any, dtype: np.dtype) -> np.ndarray:
    array = _pairs.as_gradient(f"operand {i} of {ufunc.__name__}", value)
    return array if array.ndim else array.astype(dtype)


def needs_of(forward: Callable[..., Any], backward: Callable[..., Any], args: tuple) -> dict[str, bool]:
    """Return the keywords to pass to `backward`, such as ``need_dx=False``.

    A keyword is returned only if `backward` has a parameter of this name. ``need_dx`` is True if the gradient with
    respect to the argument ``x`` is needed.
    """
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
