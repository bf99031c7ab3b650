"""The geometry of Winograd's minimal filtering: kernels are decomposed into short filters, and axes into tiles.

``_ext/winograd_tiles.pxd`` explains the arithmetic: a kernel is a sum of
subkernels, each of which has every stride-th tap, and so stride 1 on every
stride-th cell. So short filters serve kernels of any size and stride.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from fastconv.convolution.blocking import balanced_block, ceil_div
from fastconv.convolution.ops import Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class MinimalFilter:
    """F(m, r) along one axis: the numbers of interpolation points, of taps of a subkernel, and of outputs of a tile."""

    points: int
    taps: int

    @property
    def outputs(self) -> int:
        """Of a tile."""
        return self.points - self.taps + 1

    @property
    def pairs(self) -> int:
        """The number of pairs of points +-a; the other points are zero and infinity."""
        return max(self.points // 2 - 1, 0)

    @property
    def transposed(self) -> MinimalFilter:
        """The same with taps and outputs exchanged."""
        return MinimalFilter(self.points, self.outputs)

    # Loads, stores and operations on vectors of the transforms of one line of a tile.
    @property
    def of_image(self) -> int:
        """A tile to its points."""
        return 2 * self.points + (2 * self.pairs * (self.pairs + 1) if self.pairs else 0)

    @property
    def of_weights(self) -> int:
        """Taps to points."""
        return self.points + self.taps + (self.pairs * (self.taps + 2) + 2 if self.pairs else 0)

    @property
    def of_result(self) -> int:
        """Points to outputs."""
        return self.points + self.outputs + (self.pairs * (self.outputs + 2) + 2 if self.pairs else 0)


NONE = MinimalFilter(1, 1)
#: The numbers of points that have transforms. More points take fewer multiplications, but have larger errors: eight
#: points four to eight times those of six.
POINTS = (8, 6, 4)
#: The factor by which transforms along one axis may enlarge rounding errors, by the number of points: the largest sum
#: over points of |A^T| times |G| times a row of |B^T|, for an output and a tap. For two axes, multiply both factors.
AMPLIFICATION = {1: 1.0, 4: 4.0, 6: 14.3, 8: 39.6}
#: Eight points are taken only if they are faster by this factor.
_PENALTY = 1.1
#: Filters with so many times the multiplications of the best one are not candidates.
_WORSE = 1.2


def ways(taps: int, each: tuple[int, ...]) -> list[MinimalFilter]:
    """The filters that need few multiplications for so many taps at stride 1, for each number of points."""
    if taps == 1:
        return [NONE]
    found = []
    for points in each:
        costs = {t: points / (points - t + 1) * ceil_div(taps, t) for t in range(2, min(taps, points - 1) + 1)}
        found += [MinimalFilter(points, t) for t, cost in costs.items() if cost <= _WORSE * min(costs.values())]
    return found


@dataclass(frozen=True)
class TileAxis:
    """One axis; ``_ext/winograd_tiles.pxd`` explains the numbers.

    `k` taps are decomposed into subkernels. Tables are made at their first use, because most plans are only compared.
    """

    size: int
    k: int
    stride: int
    lo: int
    out: int
    output_stride: int
    output_size: int
    minimal: MinimalFilter
    #: For a gradient the stride of the convolution, which is the number of phases of the result; else 0.
    back: int = 0
    #: For a gradient how many cells of the padding in front belong to the first output of each phase.
    skipped: int = 0

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each subkernel starts."""
        taps, stride = self.minimal.taps, self.stride
        if self.back:
            return tuple(range(0, self._last + 1, taps))
        return tuple(
            sorted(begin + p for begin in range(0, self.k, taps * stride) for p in range(min(stride, self.k - begin)))
        )

    @property
    def _last(self) -> int:
        """For a gradient the tap of a phase that reads the first cell of dout."""
        return ceil_div(self.k, self.back) - 1

    @property
    def subkernels(self) -> int:
        """How many there are."""
        if self.back:
            return self._last // self.minimal.taps + 1
        whole, rest = divmod(self.k, self.minimal.taps * self.stride)
        return whole * self.stride + min(rest, self.stride)

    @property
    def last_offset(self) -> int:
        """The offset of the last subkernel."""
        if self.back:
            return (self.subkernels - 1) * self.minimal.taps
        whole, rest = divmod(self.k, self.minimal.taps * self.stride)
        if rest:
            return whole * self.minimal.taps * self.stride + min(rest, self.stride) - 1
        return ((whole - 1) * self.minimal.taps + 1) * self.stride - 1

    @property
    def phases(self) -> int:
        """Of the result."""
        return self.back or 1

    @cached_property
    def output_offsets(self) -> tuple[int, ...]:
        """The cell of the first output of each phase p of the result: with stride s, cell ``s * o + p - lo``."""
        return tuple(phase - self.skipped for phase in range(self.back)) if self.back else (0,)

    @cached_property
    def tap_of(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each phase and subkernel its taps in the kernel, or -1 where there is none.

        The stride phases of dx share dout: cell ``s * o + p - lo`` sums ``dout[o - j]`` times taps p + s * j.
        """
        taps, stride = self.minimal.taps, self.stride
        if not self.back:
            return (
                tuple(
                    tuple(tap if tap < self.k else -1 for tap in range(offset, offset + taps * stride, stride))
                    for offset in self.offsets
                ),
            )
        last = self._last

        def tap(phase: int, at: int) -> int:
            found = phase + self.back * (last - at)
            return found if at <= last and found < self.k else -1

        return tuple(
            tuple(tuple(tap(phase, offset + j) for j in range(taps)) for offset in self.offsets)
            for phase in range(self.back)
        )

    @property
    def tiles(self) -> int:
        """That cover its outputs."""
        return ceil_div(self.out, self.minimal.outputs)

    @property
    def step(self) -> int:
        """The step from a tile to the next, in source cells."""
        return self.minimal.outputs * self.stride

    @property
    def read(self) -> tuple[int, int]:
        """The range of source cells that outputs read; tiles contain other cells, too.

        The others are set to zero. They would cancel except for rounding errors, which may be large compared
        with the cells that count.
        """
        cells = [
            (out * self.stride + offset + j * self.stride - self.lo, tap)
            for start, phase in zip(self.output_offsets, self.tap_of, strict=True)
            for offset, taps in zip(self.offsets, phase, strict=True)
            for j, tap in enumerate(taps)
            for out in (
                ceil_div(-start, self.output_stride) if start < 0 else 0,
                (self.output_size - 1 - start) // self.output_stride,
            )
        ]
        read_cells = [cell for cell, tap in cells if tap >= 0]
        first, last = max(min(read_cells, default=0), 0), min(max(read_cells, default=-1) + 1, self.size)
        return first, max(first, last)

    @property
    def span(self) -> int:
        """The number of source cells from the first to the last that a tile reads."""
        return (self.minimal.points - 1) * self.stride + self.last_offset + 1


def _forward_axis(row: tuple[int, ...], minimal: MinimalFilter) -> TileAxis:
    size, k, stride, lo, _, out = row
    return TileAxis(size, k, stride, lo, out, 1, out, minimal)


def _backward_axis(row: tuple[int, ...], minimal: MinimalFilter) -> TileAxis:
    size, k, stride, lo, _, out = row
    first = lo // stride
    count = (lo + size - 1) // stride - first + 1
    return TileAxis(out, k, 1, ceil_div(k, stride) - 1 - first, count, stride, size, minimal, stride, lo % stride)


def lifted(geometry: ConvGeometry) -> list[tuple[int, ...]]:
    """Three axes for the kernels, unit axes first. The last two axes of a volume are joined if neither is filtered."""
    rows = [axis.row() for axis in geometry.axes]
    plain = [k == stride == 1 and lo == 0 and size == out for size, k, stride, lo, _, out in rows]
    if plain[1:] == [True, True]:
        n = rows[1][0] * rows[2][0]
        rows = [rows[0], (n, 1, 1, 0, 1, n)]
    return [(1, 1, 1, 0, 1, 1)] * (3 - len(rows)) + rows


@dataclass(frozen=True)
class Problem:
    """The problem of the kernels: sizes of a group, and the axes."""

    images: int
    groups: int
    rows: int
    row_step: int
    channels: int
    channel_step: int
    kernel: tuple[int, int, int]
    tile_axes: tuple[TileAxis, TileAxis, TileAxis]

    @property
    def taps(self) -> int:
        """Of the whole kernel."""
        return math.prod(self.kernel)

    @property
    def points(self) -> int:
        """Products for each tile."""
        return math.prod(tile_axis.minimal.points for tile_axis in self.tile_axes)

    @property
    def subkernel(self) -> tuple[int, int]:
        """Taps of a subkernel along the last two axes."""
        *_, h, w = self.tile_axes
        return h.minimal.taps, w.minimal.taps

    @property
    def line_points(self) -> int:
        """Along an axis."""
        return max(tile_axis.minimal.points for tile_axis in self.tile_axes)

    @property
    def penalty(self) -> float:
        """The factor on its time in comparisons, because of its errors."""
        return _PENALTY if self.line_points == max(POINTS) else 1.0

    @property
    def subkernels(self) -> int:
        """The number of subkernels of the kernel."""
        return math.prod(tile_axis.subkernels for tile_axis in self.tile_axes)

    @property
    def phases(self) -> int:
        """Of the result."""
        return math.prod(tile_axis.phases for tile_axis in self.tile_axes)

    @property
    def table_length(self) -> int:
        """The number of entries of the tables below, about."""
        return (
            self.phases * self.subkernels * math.prod(tile_axis.minimal.taps for tile_axis in self.tile_axes)
            + 3 * self.subkernels
        )

    @property
    def tiles(self) -> tuple[int, int, int]:
        """The number of tiles along each axis of the output."""
        d, h, w = (tile_axis.tiles for tile_axis in self.tile_axes)
        return d, h, w

    def operations(self, lanes: int) -> int:
        """The least number of vector operations of all products and transforms of tiles; channels and filters are
        in the lanes.
        """
        k, cell, rows = self.subkernels * self.channels, ceil_div(self.channels, lanes), ceil_div(self.rows, lanes)
        each = (self.points * k + self.of_result) * rows * self.phases + self.of_image * self.subkernels * cell
        return self.images * self.groups * math.prod(self.tiles) * each

    def blocks(self, block: tuple[int, ...], count: int) -> int:
        """The number of blocks of the batch."""
        return ceil_div(self.images, count) * math.prod(map(ceil_div, self.tiles, block))

    def axes(self, block: tuple[int, ...]) -> np.ndarray:
        """The table of axes that the kernels read."""
        rows = [
            (
                *(tile_axis.size, tile_axis.stride, tile_axis.lo),
                *(tile_axis.minimal.points, tile_axis.minimal.taps, tile_axis.minimal.outputs),
                *(tile_axis.tiles, n, tile_axis.span, tile_axis.output_stride, tile_axis.output_size, *tile_axis.read),
            )
            for tile_axis, n in zip(self.tile_axes, block, strict=True)
        ]
        return np.array(rows, np.intp)

    def offsets(self) -> np.ndarray:
        """The offset of each subkernel along the three axes."""
        return np.array(list(itertools.product(*(tile_axis.offsets for tile_axis in self.tile_axes))), np.intp)

    def output_offsets(self) -> np.ndarray:
        """The first cell of each phase along the three axes."""
        return np.array(list(itertools.product(*(tile_axis.output_offsets for tile_axis in self.tile_axes))), np.intp)

    def tap_of(self) -> np.ndarray:
        """The tap of the kernel for each phase, subkernel and tap of the subkernel, or -1."""
        d, h, w = (np.array(tile_axis.tap_of, np.intp) for tile_axis in self.tile_axes)
        _, high, wide = self.kernel
        # Phases along d, h and w, subkernels along d, h and w, taps along h and w; along d a subkernel has one.
        d = d.reshape(len(d), 1, 1, d.shape[1], 1, 1, 1, 1)
        h = h.reshape(1, len(h), 1, 1, h.shape[1], 1, h.shape[2], 1)
        w = w.reshape(1, 1, len(w), 1, 1, w.shape[1], 1, w.shape[2])
        taps = np.where((d < 0) | (h < 0) | (w < 0), -1, (d * high + h) * wide + w)
        return np.ascontiguousarray(taps.reshape(self.phases, self.subkernels, -1))

    def cells(self, block: tuple[int, ...]) -> int:
        """The most cells of the source of an image that a block reads."""
        spans = ((n - 1) * tile_axis.step + tile_axis.span for tile_axis, n in zip(self.tile_axes, block, strict=True))
        return math.prod(map(min, spans, (tile_axis.size for tile_axis in self.tile_axes)))

    def results(self, block: tuple[int, ...]) -> int:
        """The most cells of dout of an image that a block reads."""
        return math.prod(
            min(n * tile_axis.minimal.outputs, tile_axis.out)
            for tile_axis, n in zip(self.tile_axes, block, strict=True)
        )

    def block(self, most: int) -> tuple[int, tuple[int, int, int]]:
        """Images and tiles of a block: whole rows, planes, volumes and images while they stay within `most`."""
        d, h, w = self.tiles
        n_w = balanced_block(w, most)
        n_h = balanced_block(h, most // n_w) if n_w == w else 1
        n_d = balanced_block(d, most // (n_w * n_h)) if (n_h, n_w) == (h, w) else 1
        count = balanced_block(self.images, most // (d * h * w)) if (n_d, n_h, n_w) == (d, h, w) else 1
        return count, (n_d, n_h, n_w)

    @property
    def of_image(self) -> int:
        """Vector operations to transform a tile."""
        *_, h, w = (tile_axis.minimal for tile_axis in self.tile_axes)
        return _passes(h.points, w.points, h.of_image, w.of_image)

    @property
    def of_weights(self) -> int:
        """To transform a subkernel."""
        *_, h, w = (tile_axis.minimal for tile_axis in self.tile_axes)
        return _passes(h.taps, w.points, h.of_weights, w.of_weights)

    @property
    def of_result(self) -> int:
        """Vector operations to transform the products of a tile back."""
        *_, h, w = (tile_axis.minimal for tile_axis in self.tile_axes)
        return _passes(h.outputs, w.points, h.of_result, w.of_result)

    @property
    def transposed(self) -> Problem:
        """The problem of dw for the counts above: its kernels are tiles of outputs, and its outputs are kernels."""
        d, h, w = (replace(tile_axis, minimal=tile_axis.minimal.transposed) for tile_axis in self.tile_axes)
        return replace(self, tile_axes=(d, h, w))


def _passes(lines: int, columns: int, of_h: int, of_w: int) -> int:
    """Operations along the last axis and then along height; only one pass if height has one point."""
    return of_w if lines == 1 and of_h == NONE.of_image else lines * of_w + columns * of_h


def problems(op: Op, geometry: ConvGeometry, points: tuple[int, ...] = POINTS) -> Iterator[Problem]:
    """All decompositions of an op that are candidates."""
    groups, taps = geometry.groups, geometry.taps
    rows, channels = geometry.w_shape[0] // groups, geometry.w_shape[1]
    sizes = (rows, channels * taps, channels, taps)
    make_axis = _forward_axis
    if op == "backward_data":
        sizes, make_axis = (channels, taps, rows, channels * taps), _backward_axis
    depth, high, wide = lifted(geometry)
    kernel = depth[1], high[1], wide[1]
    for h, w in pairs(geometry, points):
        tile_axes = make_axis(depth, NONE), make_axis(high, h), make_axis(wide, w)
        yield Problem(geometry.x_shape[0], groups, *sizes, kernel, tile_axes)


def pairs(geometry: ConvGeometry, points: tuple[int, ...] = POINTS) -> list[tuple[MinimalFilter, MinimalFilter]]:
    """Filters along height and width.

    Both have the same number of points if both axes are filtered; none if neither is.
    """
    _, high, wide = lifted(geometry)
    found = [
        (h, w)
        for h in ways(ceil_div(high[1], high[2]), points)
        for w in ways(ceil_div(wide[1], wide[2]), points)
        if h.points == w.points or NONE in (h, w)
    ]
    return [] if found == [(NONE, NONE)] else found
