"""Lists the integers that describe a tiling to the compiled kernel of `fft`, in the order of ``_ext/fft/read.h``."""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext.fft import fft as _ext
from fastconv.convolution.fft.lengths import factor_count, radices
from fastconv.convolution.fft.tiling import FftTiling
from fastconv.geometry.conv import ConvGeometry


def numbers(tiling: FftTiling, geometry: ConvGeometry) -> np.ndarray:
    """Return the integers that describe a tiling to the kernel."""
    p, back = tiling.problem, tiling.problem.op == "backward_data"
    tau, phi = (
        tuple(phase_axis.taus for phase_axis in p.phase_axes),
        tuple(phase_axis.phis for phase_axis in p.phase_axes),
    )
    volume_at = tiling.strip + tiling.flat
    shared_at = p.threads * tiling.per_thread
    spectra_at = shared_at + tiling.common
    axes, at = [], 0
    for length in tiling.lengths:
        of = radices(length)
        axes += [length, len(of), at, *of, *(0,) * (_ext.PASSES - len(of))]
        at += factor_count(length)
    found = [
        p.line, tiling.gradient, back, p.groups, p.images, p.rows, p.columns, math.prod(tau), math.prod(phi),
        math.prod(tiling.tiles), tiling.row_block, tiling.column_block, tiling.pair_block, tiling.group_block,
        tiling.shared, tiling.fused, tiling.parts, tiling.per_thread, tiling.strip, volume_at, shared_at, spectra_at,
        tiling.pitch, at if p.line else -1, *tau, *phi, *tiling.tile, *tiling.tiles,
    ]  # fmt: skip
    x, w, out = _x_like(tiling, geometry), _weights(tiling, geometry), _out_like(tiling, geometry)
    for array in (out, w, x) if back else (x, w, out):
        found += array
    return np.array(found + axes, np.intp)


#: A number that stands for an unlimited number of positions.
_MOST = 1 << 62

#: Five integers for each axis of an array: the distance between neighbouring positions, the index of position 0, the
#: distance between neighbouring phases of the outputs, the distance between neighbouring phases of the taps, and the
#: number of positions of a tile. Distances are numbers of elements. `phase_axes` explains phases.
_Axes = list[tuple[int, int, int, int, int]]


def _array(
    outer: int,
    group: int,
    inner: int,
    tiled: bool,
    sizes: tuple[int, ...],
    axes: _Axes,
    borders: tuple[int, ...] = (0, 0, 0),
    positions: tuple[int, ...] = (_MOST,) * 3,
) -> list[int]:
    """Return the integers that describe one array to the kernel.

    The distances are numbers of elements: `outer` between neighbouring images (or filters), `group` between groups, and
    `inner` between channels. `positions` is the number of positions of all tiles along each axis.
    """
    pitches = [math.prod(sizes[i + 1 :]) for i in range(3)]
    columns = [number for column in zip(*axes, strict=True) for number in column]
    return [outer, group, inner, tiled, *sizes, *pitches, *columns, *borders, *positions]


def _x_like(tiling: FftTiling, geometry: ConvGeometry) -> list[int]:
    """Return the integers that describe x or dx to the kernel. A tile of x includes a margin."""
    phase_axes = tiling.problem.phase_axes
    sizes = tuple(phase_axis.size for phase_axis in phase_axes)
    cells, channels = math.prod(sizes), geometry.w_shape[1]
    axes: _Axes = []
    for phase_axis, tile, length in zip(phase_axes, tiling.tile, tiling.axis_lengths, strict=True):
        # A tile of x includes a margin, unless one cyclic transform serves a whole circular image.
        count = tile if tiling.problem.op == "backward_data" else min(tile + phase_axis.margin, length)
        origin = phase_axis.step * phase_axis.first - phase_axis.lo
        axes.append(
            (phase_axis.step, origin, phase_axis.common * phase_axis.s, phase_axis.common * phase_axis.d, count)
        )
    borders = tuple(phase_axis.border for phase_axis in phase_axes)
    positions = tuple(phase_axis.whole if tiling.problem.op == "backward_data" else _MOST for phase_axis in phase_axes)
    return _array(geometry.x_shape[1] * cells, channels * cells, cells, True, sizes, axes, borders, positions)


def _out_like(tiling: FftTiling, geometry: ConvGeometry) -> list[int]:
    """Return the integers that describe out or dout to the kernel. For dx, a tile of dout includes a margin."""
    phase_axes, back = tiling.problem.phase_axes, tiling.problem.op == "backward_data"
    sizes = tuple(phase_axis.out for phase_axis in phase_axes)
    cells, filters = math.prod(sizes), geometry.w_shape[0] // geometry.groups
    axes: _Axes = []
    for phase_axis, tile, length in zip(phase_axes, tiling.tile, tiling.axis_lengths, strict=True):
        origin = phase_axis.d * (phase_axis.first - phase_axis.margin) if back else 0
        axes.append((phase_axis.d, origin, 1, 0, min(tile + phase_axis.margin, length) if back else tile))
    borders = tuple(phase_axis.border if back else 0 for phase_axis in phase_axes)
    return _array(geometry.w_shape[0] * cells, filters * cells, cells, True, sizes, axes, borders)


def _weights(tiling: FftTiling, geometry: ConvGeometry) -> list[int]:
    """Return the integers that describe the weights to the kernel. The weights are flipped for dx."""
    phase_axes, flip = tiling.problem.phase_axes, tiling.problem.op == "backward_data"
    sizes = tuple(phase_axis.k for phase_axis in phase_axes)
    cells, (filters, channels) = math.prod(sizes), geometry.w_shape[:2]
    axes: _Axes = [
        (
            -phase_axis.s if flip else phase_axis.s,
            phase_axis.margin * phase_axis.s if flip else 0,
            0,
            1,
            phase_axis.margin + 1,
        )
        for phase_axis in phase_axes
    ]
    return _array(channels * cells, filters // geometry.groups * channels * cells, cells, False, sizes, axes)
