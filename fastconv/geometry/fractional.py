"""Convolution of an upsampled image. It is decomposed into ordinary convolutions of the original image, which never
read the inserted zeros.

Take one axis with upsampling factor b, stride a, dilation d and padding lo before the image. Upsampling inserts b - 1
zeros after each cell. Tap t of output o reads cell ``o a + t d - lo`` of the upsampled image. If b divides this index,
the cell is a cell of the original image. Otherwise it is an inserted zero.

With p = ``b / gcd(a, b)``, the outputs o, o + p, o + 2 p and so on form a phase. For all outputs of a phase, the same
taps read the original image: every ``b / gcd(b, d)``-th tap of the kernel. All other taps read inserted zeros. So each
phase is an ordinary convolution of the original image with these taps. Its stride is ``a / gcd(a, b)``, and its
dilation is ``d / gcd(b, d)``.

A tap belongs to at most one phase. If gcd(a, b) does not divide ``t d - lo``, tap t belongs to no phase, because it
reads only inserted zeros. The phases are polyphase filters: see P. P. Vaidyanathan, "Multirate systems and filter
banks", 1993.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from fastconv.geometry.axis import Axis, CheckedFields, check_shape
from fastconv.geometry.conv import ConvGeometry, resolve_conv, resolve_upsampled
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class _Phase:
    """One phase along one axis: its outputs, the taps that read the image, and the cells that these taps read."""

    out: slice
    taps: slice
    cells: slice
    axis: Axis


@dataclass(frozen=True)
class Part:
    """One of the ordinary convolutions that replace the convolution of the upsampled image. It reads the part `cells`
    of the original image and the part `taps` of the kernel, and writes the part `out` of the output. All three are
    tuples of slices.
    """

    out: tuple[Any, ...]
    taps: tuple[Any, ...]
    cells: tuple[Any, ...]
    geometry: ConvGeometry


@dataclass(frozen=True)
class FractionalGeometry(CheckedFields):
    """All sizes of a convolution of an upsampled image, and the ordinary convolutions that replace it."""

    x_shape: tuple[int, ...]
    up: tuple[int, ...]
    upsampled: ConvGeometry

    def _fault(self) -> str | None:
        fault = check_shape("x_shape", self.x_shape)
        if fault is not None:
            return fault
        if type(self.up) is not tuple or any(type(factor) is not int or factor < 1 for factor in self.up):
            return f"up is {self.up!r}"
        if type(self.upsampled) is not ConvGeometry or len(self.up) != len(self.x_shape) - 2:
            return "upsampled must be a ConvGeometry, and up of as many axes"
        sizes = tuple(n * factor for n, factor in zip(self.x_shape[2:], self.up, strict=True))
        if self.upsampled.x_shape != (*self.x_shape[:2], *sizes):
            return f"x_shape is {self.x_shape}, up {self.up}, but upsampled is of images {self.upsampled.x_shape}"
        return None

    @property
    def w_shape(self) -> tuple[int, ...]:
        """``(F, C // groups, *kernel)``."""
        return self.upsampled.w_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """``(N, F, *out_spatial)``."""
        return self.upsampled.out_shape

    @property
    def parts(self) -> tuple[Part, ...] | None:
        """The ordinary convolutions that replace the convolution of the upsampled image.

        If no part computes an output, this output reads only zeros. `parts` is None if the padding copies cells of the
        upsampled image. Then the upsampled image must be built.
        """
        return plans.find(_parts, self)

    @property
    def covered(self) -> int:
        """The number of outputs per channel that `parts` compute. All other outputs read only zeros."""
        return sum(part.geometry.positions for part in self.parts or ())

    @property
    def flops(self) -> int:
        """The number of floating-point operations of the forward pass, two for each multiply-add. Products with
        inserted zeros do not count.
        """
        if self._mirrors:
            return self.upsampled.flops
        meetings = math.prod(sum(phase.axis.out * phase.axis.k for phase in phases) for phases in self._by_axis)
        return 2 * self.x_shape[0] * math.prod(self.w_shape[:2]) * meetings

    @property
    def _mirrors(self) -> bool:
        """Whether the padding copies cells of the upsampled image, so that this image must be built."""
        return self.upsampled.pad_mode != "zeros" and any(axis.lo or axis.hi for axis in self.upsampled.axes)

    @property
    def _by_axis(self) -> tuple[list[_Phase], ...]:
        return tuple(map(_phases, self.x_shape[2:], self.up, self.upsampled.axes))


def _parts(geometry: FractionalGeometry) -> tuple[Part, ...] | None:
    if geometry._mirrors:
        return None
    return tuple(_part(geometry, phases) for phases in itertools.product(*geometry._by_axis))


def _part(geometry: FractionalGeometry, phases: tuple[_Phase, ...]) -> Part:
    whole, every = geometry.upsampled, (slice(None), slice(None))
    sizes, kernel = (phase.axis.size for phase in phases), (phase.axis.k for phase in phases)
    ordinary = resolve_conv(
        (*geometry.x_shape[:2], *sizes),
        (*whole.w_shape[:2], *kernel),
        stride=tuple(phase.axis.stride for phase in phases),
        pad=[(phase.axis.lo, phase.axis.hi) for phase in phases],
        dilation=tuple(phase.axis.dilation for phase in phases),
        groups=whole.groups,
        pad_mode="zeros",
        flip=False,
        strict=False,
    )
    out, taps, cells = ((*every, *(getattr(p, name) for p in phases)) for name in ("out", "taps", "cells"))
    return Part(out, taps, cells, ordinary)


def _phases(size: int, factor: int, axis: Axis) -> list[_Phase]:
    """Return the phases along one axis. A phase is left out if its outputs read only inserted zeros and padding."""
    shared, common = math.gcd(factor, axis.dilation), math.gcd(factor, axis.stride)
    step, dilation = factor // shared, axis.dilation // shared
    period, stride = factor // common, axis.stride // common
    found = []
    # For each tap t, find the phase in which tap t reads the original image. It is the solution of the congruence
    # phase * axis.stride = axis.lo - t * axis.dilation (mod factor). There is a solution if `common` divides the right
    # side.
    back = pow(stride, -1, period)
    behind = ((axis.lo - t * axis.dilation, t) for t in range(min(step, axis.k)))
    for phase, tap in sorted((b // common * back % period, t) for b, t in behind if b % common == 0):
        if phase >= axis.out:
            break
        at = phase * axis.stride - axis.lo
        first, taps = (at + tap * axis.dilation) // factor, (axis.k - 1 - tap) // step + 1
        outs = (axis.out - 1 - phase) // period + 1
        end = first + (outs - 1) * stride + (taps - 1) * dilation + 1
        cells = slice(max(first, 0), max(min(end, size), 0))
        if cells.stop <= cells.start:
            continue
        pads = max(-first, 0), max(end - size, 0)
        found.append(
            _Phase(
                slice(phase, None, period),
                slice(tap, None, step),
                cells,
                Axis(cells.stop - cells.start, taps, stride if outs > 1 else 1, *pads, dilation, outs),
            )
        )
    return found


def resolve_sampled(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], settings: dict[str, Any]
) -> ConvGeometry | FractionalGeometry:
    """Return the geometry of a convolution with the options `settings`: a `FractionalGeometry` if the image is
    upsampled, and a `ConvGeometry` otherwise.
    """
    geometry, factors = resolve_upsampled(x_shape, w_shape, **settings)
    return plans.find(FractionalGeometry, x_shape, factors, geometry) if factors else geometry
