"""Upper bounds for the memory of the sparsity pattern of a Toeplitz matrix, computed before the pattern is made."""

from __future__ import annotations

import math
import operator

from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Needs:
    """Upper bounds for a sparsity pattern, computed as if no weight were zero."""

    #: The number of bytes in use while the pattern is made, and the number of bytes of the finished pattern.
    making: int
    held: int
    #: The product of the numbers of segments along the axes. A segment is a set of matrix rows with entries for the
    #: same taps. For each filter (or channel), `csr.build` makes an array of counts with this number of elements.
    segments: int


#: The memory for each tap, for each segment and for each stride phase of an axis, counted in 8-byte integers. `_MAKING`
#: is the memory in use while the pattern is made, as measured in the worst case. `_HELD` is the memory of the finished
#: pattern.
_MAKING, _HELD = (13, 30, 40), (3, 12, 0)


def needs(geometry: ConvGeometry, of: str) -> Needs:
    """Return the bounds for the pattern of a convolution with zero padding.

    If `of` is "outputs", the pattern is that of `csr.of_outputs`. If `of` is "cells", it is that of `csr.of_cells`.
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
    """Return an upper bound for the number of segments along an axis, and the number of stride phases, which is 1.

    A segment is a run of outputs at which the same taps read the image and not the padding.
    """
    _, k, stride, lo, dilation, out = axis.row()
    behind = (out - 1) * stride + (k - 1) * dilation - lo - (axis.size - 1)
    changes = sum(min(k, -(-cells // dilation)) for cells in (lo, behind) if cells > 0)
    return max(1, min(out, 1 + changes)), 1


def _segments_of_cells(axis: Axis) -> tuple[int, int]:
    """Return an upper bound for the number of segments of input cells along an axis, and the number of stride phases.

    The cells of a segment are equally spaced, and the same taps read each of them. Cells that no tap reads also form
    segments.
    """
    size, k, stride, _, dilation, _ = axis.row()
    period = stride // math.gcd(stride, dilation)
    phases = min(period, k, size)
    periods = -(-size // stride)
    idle = min(stride, size) - phases
    return phases * min(periods, 2 * -(-k // period) + 1) + max(min(idle, (phases + 1) * periods), 0), phases
