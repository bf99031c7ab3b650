"""The axes of a convolution as `fft` sees them: phases, each of which is a plain correlation, and borders.

Along an axis of stride s and dilation d without a common divisor, output o = d * q + phi meets at tap
t = s * u + tau the padded cell d * s * (q + u) + d * tau + s * phi. So for each phase phi of the outputs and tau of the
taps there is a plain correlation, of stride and dilation 1, of cells d * s apart: position q + u of the image, u of the
weights and q of the result. Sums over tau are sums over more channels; phi makes more images. With a common
divisor only every so many-th cell of the image takes part at all.
"""

from __future__ import annotations

import math

from fastconv.convolution.fft.lengths import is_fast
from fastconv.convolution.ops import Op
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class PhaseAxis:
    """One axis: its phases, and the plain correlation that each of them is."""

    size: int
    k: int
    out: int
    lo: int
    common: int  # divisor of stride and dilation
    s: int
    d: int
    first: int  # position of the first result, for dx
    whole: int  # results
    margin: int  # taps less one
    covers: bool  # every cell of dx is the result of some phase
    border: int = 0  # what is beyond the image, as ``_ext/fft.h`` counts them
    ring: int = 0  # positions around a circular image, where a transform of so many is cyclic itself

    @property
    def step(self) -> int:
        """Cells of the image from a position to the next."""
        return self.common * self.s * self.d

    @property
    def taus(self) -> int:
        """Phases of the taps."""
        return min(self.s, self.k)

    @property
    def phis(self) -> int:
        """Phases of the outputs."""
        return min(self.d, self.out)


#: As the enum in ``_ext/fft.h``.
_BORDERS = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}


def _border(axis: Axis, geometry: ConvGeometry) -> int:
    """Of an axis; where nothing is padded, nothing beyond the image is read."""
    return _BORDERS[geometry.pad_mode] if axis.lo or axis.hi else 0


def wraps_back(geometry: ConvGeometry) -> bool:
    """Whether the gradient of the image is a correlation, too: outputs go round the image a whole number of times.

    Then dx is that of dout with a circular border, and nothing has to be folded.
    """
    return geometry.pad_mode == "circular" and all(
        _border(axis, geometry) == 0 or _goes_round(axis.row()) for axis in geometry.axes
    )


def _goes_round(row: tuple[int, ...]) -> bool:
    size, _, stride, _, dilation, out = row
    return stride * out == size and out % (dilation // math.gcd(stride, dilation)) == 0


def axis_of(axis: Axis, geometry: ConvGeometry, op: Op) -> PhaseAxis:
    """The phases of an axis, and the plain correlation that each of them is."""
    size, k, stride, lo, dilation, out = axis.row()
    border = _border(axis, geometry)
    common = math.gcd(stride, dilation)
    s, d = stride // common, dilation // common
    step = common * s * d
    margin, first, whole, covers = -(-k // s) - 1, 0, -(-out // d), True
    circular = border == _BORDERS["circular"]
    if op == "backward_data" and circular:
        whole, covers = size // step, common == 1 and k >= s
    elif op == "backward_data":
        last_offset = common * (d * (min(s, k) - 1) + s * (min(d, out) - 1)) - lo
        first = max(0, -(last_offset // step))
        whole = min(whole + margin, (size - 1 + lo) // step + 1) - first
        covers = step == 1 and first <= lo and first + whole - lo >= size
    ring = size // step if circular and size % step == 0 else 0
    if not (max(margin + 1, whole) <= ring and is_fast(ring)):
        ring = 0
    return PhaseAxis(size, k, out, lo, common, s, d, first, whole, margin, covers, border, ring)


UNIT_AXIS = PhaseAxis(1, 1, 1, 0, 1, 1, 1, 0, 1, 0, True)
