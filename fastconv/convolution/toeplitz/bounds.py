"""Upper bounds of the memory for the pattern of a Toeplitz matrix, computed before the pattern is made."""

from __future__ import annotations

import math
import operator

from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Needs:
    """Upper bounds of the memory and the number of segments of a pattern, computed as if no weight were zero."""

    #: The number of bytes in use while the pattern is made, and the number of bytes of the pattern itself.
    making: int
    held: int
    #: The product of the numbers of segments along the axes. `csr.build` makes an array of counts with this number of
    #: elements for each row of weights.
    segments: int


#: The memory for each tap, each segment and each stride phase of an axis, as a number of 8-byte integers. `_MAKING` is
#: the memory in use while the pattern is made, as measured in the worst case. `_HELD` is the memory in use afterwards.
_MAKING, _HELD = (13, 30, 40), (3, 12, 0)


def needs(geometry: ConvGeometry, of: str) -> Needs:
    """Return the bounds for a pattern with zero padding.

    The pattern is that of `csr.of_outputs` if `of` is "outputs", and that of `csr.of_cells` if it is "cells".
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
    """Return the largest number of segments of outputs along an axis, and the number of stride phases, which is 1.

    A segment is a run of outputs at which the same taps read the image and not the padding.
    """
    _, k, stride, lo, dilation, out = axis.row()
    behind = (out - 1) * stride + (k - 1) * dilation - lo - (axis.size - 1)
    changes = sum(min(k, -(-cells // dilation)) for cells in (lo, behind) if cells > 0)
    return max(1, min(out, 1 + changes)), 1


def _segments_of_cells(axis: Axis) -> tuple[int, int]:
    """Return the largest number of segments of input cells along an axis, and the number of stride phases.

    The cells of a segment are equally spaced, and the same taps read each of them. Cells that no tap reads are in
    segments, too.
    """
    size, k, stride, _, dilation, _ = axis.row()
    period = stride // math.gcd(stride, dilation)
    phases = min(period, k, size)
    periods = -(-size // stride)
    idle = min(stride, size) - phases
    return phases * min(periods, 2 * -(-k // period) + 1) + max(min(idle, (phases + 1) * periods), 0), phases
