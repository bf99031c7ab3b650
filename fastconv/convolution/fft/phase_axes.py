"""The axes of a convolution for `fft`. An axis is divided into phases, each of which has stride and dilation 1.

A plain correlation has stride and dilation 1. A convolution with a stride or a dilation is computed as several plain
correlations. For example, with stride 2, even taps read only even cells, and odd taps only odd cells. So the result is
the sum of two plain correlations.

In general, let stride s and dilation d have no common divisor. Phase phi of the outputs has every d-th output:
``o = d * q + phi``. Phase tau of the taps has every s-th tap: ``t = s * u + tau``. At tap t, output o reads the padded
cell ``o * s + t * d = d * s * (q + u) + d * tau + s * phi``. So for each pair of phases phi and tau, output q is the
sum over u of weight u times cell q + u, among cells at distance d * s. This is a plain correlation.

The correlations of all phases of the taps are added up, like channels. The phases of the outputs are computed
separately, like images. If stride and dilation have a common divisor g, only every g-th padded cell is read.
"""

from __future__ import annotations

import math

from fastconv.convolution.fft.lengths import is_fast
from fastconv.convolution.plan import Op
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class PhaseAxis:
    """One axis of a convolution, divided into phases of the outputs and phases of the taps. For each pair of such
    phases, the kernel computes a correlation with stride 1 and dilation 1.
    """

    size: int
    k: int
    out: int
    lo: int
    common: int  # the greatest common divisor of stride and dilation
    s: int  # the stride, divided by `common`
    d: int  # the dilation, divided by `common`
    first: int  # for dx, the position of the first result, otherwise 0
    whole: int  # the number of results of a phase
    margin: int  # the number of taps of a phase, minus one
    covers: bool  # whether the kernel computes every element of dx
    border: str = "zeros"  # the padding mode; an axis without padding has "zeros"
    ring: int = 0  # the length of the cyclic transform of a circular image, or 0 if there is no such transform

    @property
    def step(self) -> int:
        """The distance, in padded cells, between the cells that neighbouring outputs of a phase read."""
        return self.common * self.s * self.d

    @property
    def taus(self) -> int:
        """The number of phases of the taps."""
        return min(self.s, self.k)

    @property
    def phis(self) -> int:
        """The number of phases of the outputs."""
        return min(self.d, self.out)


def _border(axis: Axis, geometry: ConvGeometry) -> str:
    """Return the padding mode of an axis. An axis without padding has the mode "zeros"."""
    return geometry.pad_mode if axis.lo or axis.hi else "zeros"


def wraps_back(geometry: ConvGeometry) -> bool:
    """Return whether dx of an image with circular padding is a correlation of dout with circular padding.

    This requires that, along each padded axis, the number of outputs times the stride equals the size of the image.
    With a dilation, the number of outputs must also be a multiple of ``dilation // gcd(stride, dilation)``. If the
    function returns true, the gradient of the padding need not be added to dx.
    """
    return geometry.pad_mode == "circular" and all(
        _border(axis, geometry) == "zeros" or _goes_round(axis.row()) for axis in geometry.axes
    )


def _goes_round(row: tuple[int, ...]) -> bool:
    size, _, stride, _, dilation, out = row
    return stride * out == size and out % (dilation // math.gcd(stride, dilation)) == 0


def axis_of(axis: Axis, geometry: ConvGeometry, op: Op) -> PhaseAxis:
    """Return the phases of an axis, and the size of the plain correlation of each pair of phases."""
    size, k, stride, lo, dilation, out = axis.row()
    border = _border(axis, geometry)
    common = math.gcd(stride, dilation)
    s, d = stride // common, dilation // common
    step = common * s * d
    margin, first, whole, covers = -(-k // s) - 1, 0, -(-out // d), True
    circular = border == "circular"
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
