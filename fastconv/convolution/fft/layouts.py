"""How tiles lie in the arrays of a convolution by `fft`: images, weights and outputs."""

from __future__ import annotations

import math

from fastconv.convolution.fft.phase_axes import PhaseAxis
from fastconv.convolution.fft.tiling import FftTiling
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass

#: A number of positions that stands for no limit.
_UNLIMITED = 1 << 62


@dataclass(frozen=True)
class ArrayAxis:
    """How the positions of tiles lie along one axis of an array. A position is one element of a tile.

    Position p of the first tile is array element ``origin + p * step``. Phases (see `phase_axes`) add to the origin:
    `phi_step` for each phase of the outputs, and `tau_step` for each phase of the taps.
    """

    size: int  # the number of array elements along the axis
    pitch: int  # the distance in memory between two neighbouring array elements along the axis, in elements
    step: int  # the distance between two neighbouring positions, in array elements along the axis
    origin: int
    phi_step: int
    tau_step: int
    count: int  # the number of positions of a tile that are inside the array or its border
    border: str = "zeros"  # the padding mode, which determines the values outside the array
    positions: int = _UNLIMITED  # the number of positions of all tiles together


@dataclass(frozen=True)
class ArrayLayout:
    """How tiles lie in an array. All distances are numbers of elements in memory."""

    outer: int  # the distance between two images (or filters)
    group: int  # the distance between two groups
    inner: int  # the distance between two channels
    tiled: bool  # whether the array is divided into tiles
    axes: tuple[ArrayAxis, ...]


def layouts(tiling: FftTiling, geometry: ConvGeometry) -> tuple[ArrayLayout, ArrayLayout, ArrayLayout]:
    """Return the layouts of the arrays that a plan calls `source`, `weights` and `result`.

    For dx, the source is dout, and the result is dx. For dw, the source is x, and the result is dout.
    """
    x, w, out = _x_like(tiling, geometry), _weights(tiling, geometry), _out_like(tiling, geometry)
    return (out, w, x) if tiling.problem.op == "backward_data" else (x, w, out)


def _pitches(sizes: tuple[int, ...]) -> list[int]:
    """Return the distances in memory between neighbours along each axis."""
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def _x_like(tiling: FftTiling, geometry: ConvGeometry) -> ArrayLayout:
    """Return the layout of x or dx. A tile of x includes a margin."""
    phase_axes, back = tiling.problem.phase_axes, tiling.problem.op == "backward_data"
    sizes = tuple(phase_axis.size for phase_axis in phase_axes)

    def axis_of(phase_axis: PhaseAxis, pitch: int, tile: int, length: int) -> ArrayAxis:
        return ArrayAxis(
            size=phase_axis.size,
            pitch=pitch,
            step=phase_axis.step,
            origin=phase_axis.step * phase_axis.first - phase_axis.lo,
            phi_step=phase_axis.common * phase_axis.s,
            tau_step=phase_axis.common * phase_axis.d,
            # A tile of x includes a margin, unless one cyclic transform serves a whole circular image.
            count=tile if back else min(tile + phase_axis.margin, length),
            border=phase_axis.border,
            positions=phase_axis.whole if back else _UNLIMITED,
        )

    axes = tuple(map(axis_of, phase_axes, _pitches(sizes), tiling.tile, tiling.axis_lengths))
    cells, channels = math.prod(sizes), geometry.w_shape[1]
    return ArrayLayout(outer=geometry.x_shape[1] * cells, group=channels * cells, inner=cells, tiled=True, axes=axes)


def _out_like(tiling: FftTiling, geometry: ConvGeometry) -> ArrayLayout:
    """Return the layout of out or dout. For dx, a tile of dout includes a margin."""
    phase_axes, back = tiling.problem.phase_axes, tiling.problem.op == "backward_data"
    sizes = tuple(phase_axis.out for phase_axis in phase_axes)

    def axis_of(phase_axis: PhaseAxis, pitch: int, tile: int, length: int) -> ArrayAxis:
        return ArrayAxis(
            size=phase_axis.out,
            pitch=pitch,
            step=phase_axis.d,
            origin=phase_axis.d * (phase_axis.first - phase_axis.margin) if back else 0,
            phi_step=1,
            tau_step=0,
            count=min(tile + phase_axis.margin, length) if back else tile,
            border=phase_axis.border if back else "zeros",
        )

    axes = tuple(map(axis_of, phase_axes, _pitches(sizes), tiling.tile, tiling.axis_lengths))
    cells, filters = math.prod(sizes), geometry.w_shape[0] // geometry.groups
    return ArrayLayout(outer=geometry.w_shape[0] * cells, group=filters * cells, inner=cells, tiled=True, axes=axes)


def _weights(tiling: FftTiling, geometry: ConvGeometry) -> ArrayLayout:
    """Return the layout of the weights or dw. For dx, the weights are flipped."""
    phase_axes, flip = tiling.problem.phase_axes, tiling.problem.op == "backward_data"
    sizes = tuple(phase_axis.k for phase_axis in phase_axes)

    def axis_of(phase_axis: PhaseAxis, pitch: int) -> ArrayAxis:
        return ArrayAxis(
            size=phase_axis.k,
            pitch=pitch,
            step=-phase_axis.s if flip else phase_axis.s,
            origin=phase_axis.margin * phase_axis.s if flip else 0,
            phi_step=0,
            tau_step=1,
            count=phase_axis.margin + 1,
        )

    axes = tuple(map(axis_of, phase_axes, _pitches(sizes)))
    cells, (filters, channels) = math.prod(sizes), geometry.w_shape[:2]
    outer = channels * cells
    return ArrayLayout(outer=outer, group=filters // geometry.groups * outer, inner=cells, tiled=False, axes=axes)
