"""Receptive fields. The receptive field of a unit of a layer is the range of input cells that affect the unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastconv.checks.options import as_int, for_one_axis


class ReceptiveField(NamedTuple):
    """The receptive field of the units of a layer, along one axis.

    Attributes
    ----------
    size : int
        The number of cells from the first to the last that one unit reads,
        including both.
    jump : int
        The distance in cells between the fields of neighbouring units.
    start : float
        The centre of the field of the first unit, where cell i of the input
        spans i to i + 1. It is 0.5 for the input itself.
    """

    size: int = 1
    jump: int = 1
    start: float = 0.5

    def cells(self, unit: int = 0) -> tuple[int, int]:
        """Return the range of cells in the receptive field of unit number `unit`: the first cell, and the last cell
        plus 1. The range includes cells of the padding.
        """
        first = round(self.start - self.size / 2) + unit * self.jump
        return first, first + self.size

    def through(self, k: int, stride: int, lo: int, dilation: int) -> ReceptiveField:
        """Return the receptive field of the units of the next layer. The arguments are the kernel size and the options
        of the next layer.
        """
        reach = dilation * (k - 1)
        return ReceptiveField(
            self.size + reach * self.jump, self.jump * stride, self.start + (reach / 2 - lo) * self.jump
        )

    def joined(self, other: ReceptiveField) -> ReceptiveField:
        """Return the smallest receptive field that covers this field and `other`. Both fields must have the same `jump`
        (the distance between the fields of neighbouring units).
        """
        first = min(self.start - self.size / 2, other.start - other.size / 2)
        end = max(self.start + self.size / 2, other.start + other.size / 2)
        return ReceptiveField(int(end - first), self.jump, (first + end) / 2)


_LEGAL = "legal is (k, stride, pad) or (k, stride, pad, dilation)"


def receptive_field(layers: Sequence[Sequence[Any]]) -> ReceptiveField:
    """Compute the receptive field of the units of the last layer, along one axis.

    Parameters
    ----------
    layers : sequence of (k, stride, pad) or (k, stride, pad, dilation)
        Convolutions and poolings from first to last, all ints; `pad` may be a
        ``(lo, hi)`` pair. Leave out layers that work cell by cell (activations,
        norms). An empty sequence describes the input itself. If the axes differ,
        call this function for each axis; `summarize` does so for a whole net.

    Returns
    -------
    ReceptiveField
        A tuple ``(size, jump, start)``: the number of cells that a unit reads,
        the distance between the fields of neighbouring units, and the centre of
        the first unit's field, where cell i spans i to i + 1. Its
        ``cells(unit)`` returns the first cell and the end of the range.

    Raises
    ------
    ValueError
        If a size, stride or dilation is below 1, a pad below 0, or a layer has
        not three or four entries.
    TypeError
        If one of them is not an int, or `layers` is not a sequence of layers.

    References
    ----------
    A. Araujo, W. Norris, J. Sim, "Computing receptive fields of convolutional
    neural networks", Distill, 2019.

    Examples
    --------
    >>> from fastconv import receptive_field
    >>> receptive_field([(3, 1, 0), (3, 1, 0)])               # two 3x3 read the same cells as one 5x5
    ReceptiveField(size=5, jump=1, start=2.5)
    >>> receptive_field([(7, 2, 3), (3, 2, 1)]).cells(10)     # the stem of ResNet
    (35, 46)
    """
    if not isinstance(layers, (list, tuple)):
        raise TypeError(f"layers must be a sequence of (k, stride, pad), got {type(layers).__name__}")
    field = ReceptiveField()
    for i, layer in enumerate(layers):
        if not isinstance(layer, (list, tuple)):
            raise TypeError(f"layers[{i}] is {layer!r}; {_LEGAL}")
        if len(layer) not in (3, 4):
            raise ValueError(f"layers[{i}] has {len(layer)} entries, {layer!r}; {_LEGAL}")
        k, stride, pad, dilation = map(for_one_axis, (*layer, 1)[:4])
        if isinstance(pad, (list, tuple)):
            if len(pad) != 2:
                raise ValueError(f"layers[{i}] has pad {pad!r}; legal are an int or one (lo, hi) pair")
            lo, _ = (as_int(f"layers[{i}] pad[{j}]", p, 0) for j, p in enumerate(pad))
        else:
            lo = as_int(f"layers[{i}] pad", pad, 0)
        field = field.through(
            as_int(f"layers[{i}] k", k, 1),
            as_int(f"layers[{i}] stride", stride, 1),
            lo,
            as_int(f"layers[{i}] dilation", dilation, 1),
        )
    return field
