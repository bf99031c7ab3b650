"""Bounds of what the tables of a matrix take, known before any of them is made."""

from __future__ import annotations

import math
import operator

from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Needs:
    """Bytes at most that a structure without zeros among its weights takes, none of which is made to know it."""

    #: While it is made, and of the tables that are left.
    making: int
    held: int
    #: Products of segments, in one channel: of each row of weights their entries are counted.
    segments: int


#: Numbers that are held at a time for each tap of an axis, each segment and each stride phase while spans are made, as
#: measured at their worst; and of those that are left.
_MAKING, _HELD = (13, 30, 40), (3, 12, 0)


def needs(geometry: ConvGeometry, of: str) -> Needs:
    """Of `of_outputs`, or of 'cells' of `of_cells`, under zero padding."""
    making = held = 0
    segments = 1
    for axis in geometry.axes:
        counts = axis.k, *(_segments_of_outputs if of == "outputs" else _segments_of_cells)(axis)
        making += 8 * sum(map(operator.mul, _MAKING, counts))
        held += 8 * sum(map(operator.mul, _HELD, counts))
        segments *= counts[1]
    return Needs(making, held, segments)


def _segments_of_outputs(axis: Axis) -> tuple[int, int]:
    """Segments at most, and phases: outputs are alike between those where a tap enters the image, or leaves it."""
    _, k, stride, lo, dilation, out = axis.row()
    behind = (out - 1) * stride + (k - 1) * dilation - lo - (axis.size - 1)
    changes = sum(min(k, -(-cells // dilation)) for cells in (lo, behind) if cells > 0)
    return max(1, min(out, 1 + changes)), 1


def _segments_of_cells(axis: Axis) -> tuple[int, int]:
    """The same of cells of one stride phase; and cells that no tap meets, as phases or as stretches between them."""
    size, k, stride, _, dilation, _ = axis.row()
    period = stride // math.gcd(stride, dilation)
    phases = min(period, k, size)
    periods = -(-size // stride)
    idle = min(stride, size) - phases
    return phases * min(periods, 2 * -(-k // period) + 1) + max(min(idle, (phases + 1) * periods), 0), phases
