"""Upper bounds of the memory that the tables of a matrix need, computed before any table is made."""

from __future__ import annotations

import math
import operator

from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Needs:
    """Upper bounds for the pattern of a matrix whose weights have no zeros."""

    #: The bytes in use while the tables are made, and the bytes of the tables.
    making: int
    held: int
    #: The number of products of segments in one channel. For each row of weights, the entries of each are counted.
    segments: int


#: The numbers of 8 bytes in memory for each tap, each segment and each stride phase of an axis: while its tables are
#: made, as measured in the worst case, and afterwards.
_MAKING, _HELD = (13, 30, 40), (3, 12, 0)


def needs(geometry: ConvGeometry, of: str) -> Needs:
    """Return the bounds for the pattern that `csr.of_outputs` or `csr.of_cells` makes, with zero padding.

    `of` is "outputs" or "cells".
    """
    making = held = 0
    segments = 1
    for axis in geometry.axes:
        counts = axis.k, *(_segments_of_outputs if of == "outputs" else _segments_of_cells)(axis)
        making += 8 * sum(map(operator.mul, _MAKING, counts))
        held += 8 * sum(map(operator.mul, _HELD, counts))
        segments *= counts[1]
    return Needs(making, held, segments)


def _segments_of_outputs(axis: Axis) -> tuple[int, int]:
    """Return the largest number of segments of the outputs along an axis, and the number of phases, which is 1.

    A segment ends where a tap enters the image or leaves it.
    """
    _, k, stride, lo, dilation, out = axis.row()
    behind = (out - 1) * stride + (k - 1) * dilation - lo - (axis.size - 1)
    changes = sum(min(k, -(-cells // dilation)) for cells in (lo, behind) if cells > 0)
    return max(1, min(out, 1 + changes)), 1


def _segments_of_cells(axis: Axis) -> tuple[int, int]:
    """Return the largest number of segments of the input cells along an axis, and the number of stride phases.

    The cells that no tap reads are segments, too: one for each phase, or one for each gap between phases.
    """
    size, k, stride, _, dilation, _ = axis.row()
    period = stride // math.gcd(stride, dilation)
    phases = min(period, k, size)
    periods = -(-size // stride)
    idle = min(stride, size) - phases
    return phases * min(periods, 2 * -(-k // period) + 1) + max(min(idle, (phases + 1) * periods), 0), phases
