"""The pairs that make a graph of layers: sums, concatenations, and losses as layers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import count_axes
from fastconv.checks.options import as_int, as_number

if TYPE_CHECKING:
    from fastconv.graph.node import Node


def as_gradient(name: str, value: Any) -> np.ndarray:
    """The gradient in a float dtype, because masks, signs and counts may be gradients, but cannot be added or
    scaled in their dtype.
    """
    array = _arrays.as_array(name, value)
    return array.astype(_arrays.result_dtype(array), copy=False)


def loss_backward(dloss: np.ndarray, gradients: Any) -> tuple:
    """The gradients that a loss has computed, scaled by dout if the loss is not the end."""
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
        raise ValueError(f"axis is {axis}, but the nodes have {count_axes(rank)}; legal are {-rank} to {rank - 1}")
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
    # Not -1, because the size of an empty batch does not determine it.
    return array.reshape(array.shape[0], int(np.prod(array.shape[1:]))), array.shape


def flatten_backward(dout: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return dout.reshape(shape)


def scale_forward(value: Any, factor: float) -> tuple[Any, float]:
    array = _arrays.as_array("node", value)
    return array * _arrays.result_dtype(array).type(factor), factor


def scale_backward(dout: np.ndarray, factor: float) -> np.ndarray:
    return dout * dout.dtype.type(factor)


class Joins:
    """The methods of a tape that join values."""

    #: Defined by the tape: it runs a pair and records it.
    __call__: Callable[..., Any]

    def add(self, *nodes: Any) -> Node:
        """The sum of values, as of a skip connection and what it skips; also ``a + b``.

        Parameters
        ----------
        *nodes : Node or array_like
            Of one shape; there is no broadcasting.

        Returns
        -------
        Node

        Raises
        ------
        ValueError
            If there are none, or their shapes differ.

        References
        ----------
        K. He et al., "Deep residual learning for image recognition",
        arXiv:1512.03385.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.add(tape.input(np.ones(2)), tape.input(np.arange(2.0))).value
        array([1., 2.])
        """
        return self((add_forward, add_backward), *nodes)

    def concat(self, nodes: Sequence[Any], axis: int = 1) -> Node:
        """Values side by side, as the branches of an inception module.

        Parameters
        ----------
        nodes : sequence of Node or array_like
            Equal in all axes but one.
        axis : int, default 1
            That axis; channels by default.

        Returns
        -------
        Node

        Raises
        ------
        ValueError
            If there are none, or shapes do not fit.
        TypeError
            If `nodes` is a single node.

        References
        ----------
        C. Szegedy et al., "Going deeper with convolutions", arXiv:1409.4842.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.concat([tape.input(np.ones((1, 2, 5, 5))), tape.input(np.ones((1, 3, 5, 5)))]).shape
        (1, 5, 5, 5)
        """
        if not isinstance(nodes, (list, tuple)):
            raise TypeError(f"nodes must be a list of nodes, got {type(nodes).__name__}")
        return self((concat_forward, concat_backward), *nodes, axis=axis)

    def flatten(self, node: Any) -> Node:
        """Each row as one line, ``(N, C, *spatial)`` to ``(N, D)``.

        Parameters
        ----------
        node : Node
            Of at least one axis.

        Returns
        -------
        Node
            Its value is a view of that of `node` where it can be.

        Raises
        ------
        ValueError
            For a node without axes.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.flatten(tape.input(np.ones((2, 3, 4, 4)))).shape
        (2, 48)
        """
        return self((flatten_forward, flatten_backward), node)

    def scale(self, node: Any, factor: float) -> Node:
        """A value times a number, as the weight of an auxiliary loss; also ``factor * node``.

        Parameters
        ----------
        node : Node
        factor : float

        Returns
        -------
        Node

        Raises
        ------
        TypeError
            If `factor` is not a number.
        ValueError
            If it is not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv.graph import Tape
        >>> tape = Tape()
        >>> tape.scale(tape.input(np.ones(2)), 0.5).value
        array([0.5, 0.5])
        """
        return self((scale_forward, scale_backward), node, as_number("factor", factor))
