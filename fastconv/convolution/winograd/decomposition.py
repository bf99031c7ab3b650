"""The geometry of Winograd's minimal filtering: kernels are divided into short filters, and axes into tiles.

F(m, r) computes a tile of m outputs of a filter with r taps from products at m + r - 1 interpolation points. For
example, F(4, 3) computes 4 outputs from 6 products. A kernel with more taps is divided into subkernels of r taps, whose
results are added up. With stride s, a subkernel has every s-th tap, and is a filter of stride 1 on every s-th cell.

The source is the array that the convolution reads: the image or, for dx, dout. The results for dx are its stride
phases: the elements of dx with equal index modulo the stride. ``_ext/winograd/tiles.pxd`` explains the arithmetic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from fastconv.convolution.blocking import balanced_block, ceil_div
from fastconv.convolution.plan import Op
from fastconv.geometry.axis import UNIT_AXIS, AxisRow
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class MinimalFilter:
    """The filter F(m, r) along one axis: `points` is m + r - 1, the number of interpolation points, and `taps` is r."""

    points: int
    taps: int

    @property
    def outputs(self) -> int:
        """The number of outputs of a tile."""
        return self.points - self.taps + 1

    @property
    def pairs(self) -> int:
        """The number of pairs of interpolation points a and -a. The other two points are zero and infinity."""
        return max(self.points // 2 - 1, 0)

    @property
    def transposed(self) -> MinimalFilter:
        """The filter F(r, m) for the gradient of the weights: the numbers of outputs and of taps are exchanged."""
        return MinimalFilter(self.points, self.outputs)

    # The costs of transforms along one axis. A vector operation is a load, a store or an arithmetic operation.
    @property
    def of_image(self) -> int:
        """The number of vector operations to transform a row of an image tile to the interpolation points."""
        return 2 * self.points + (2 * self.pairs * (self.pairs + 1) if self.pairs else 0)

    @property
    def of_weights(self) -> int:
        """The number of vector operations to transform a row of a subkernel to the interpolation points."""
        return self.points + self.taps + (self.pairs * (self.taps + 2) + 2 if self.pairs else 0)

    @property
    def of_result(self) -> int:
        """The number of vector operations to compute a row of outputs from the products at the interpolation points."""
        return self.points + self.outputs + (self.pairs * (self.outputs + 2) + 2 if self.pairs else 0)


NONE = MinimalFilter(1, 1)
#: The numbers of interpolation points for which there are transforms. More points need fewer multiplications, but cause
#: larger rounding errors. Errors with eight points are four to eight times as large as errors with six.
POINTS = (8, 6, 4)
#: For each number of interpolation points: the largest factor by which transforms along one axis enlarge rounding
#: errors. For output i and tap j, the factor is the sum over the points p of ``|A^T[i, p]| * |G[p, j]| *
#: sum(|B^T[p]|)``. A, B and G are the transform matrices. For two axes, the factors of both axes are multiplied.
AMPLIFICATION = {1: 1.0, 4: 4.0, 6: 14.3, 8: 39.6}
#: Eight interpolation points are used only if they are faster than fewer points by this factor.
_PENALTY = 1.1
#: A filter F(m, r) is a candidate if it takes at most `_WORSE` times as many multiplications as the best filter with
#: the same number of points.
_WORSE = 1.2


def ways(taps: int, each: tuple[int, ...]) -> list[MinimalFilter]:
    """Return the filters F(m, r) that need few multiplications for a kernel of `taps` taps at stride 1.

    `each` lists the numbers of interpolation points to try.
    """
    if taps == 1:
        return [NONE]
    found = []
    for points in each:
        costs = {t: points / (points - t + 1) * ceil_div(taps, t) for t in range(2, min(taps, points - 1) + 1)}
        found += [MinimalFilter(points, t) for t, cost in costs.items() if cost <= _WORSE * min(costs.values())]
    return found


@dataclass(frozen=True)
class TileAxis:
    """One axis of a convolution: the array that it reads (the source), its result, and its `k` taps in subkernels.

    The compiled plans read the fields by their names, and ``_ext/winograd/tiles.pxd`` explains them. Tables such as
    `offsets` are made at their first use, because most plans are only compared by cost and never run.
    """

    size: int
    k: int
    stride: int
    lo: int
    out: int
    output_stride: int
    output_size: int
    minimal: MinimalFilter
    #: For dx, the stride of the convolution, which is also the number of stride phases of dx; otherwise 0.
    back: int = 0
    #: For dx, the number of elements of the first tile that lie in the padding and are not stored. It equals the
    #: padding modulo the stride.
    skipped: int = 0

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The offset of each subkernel: the index of its first tap. For dx, taps are counted within a stride phase."""
        taps, stride = self.minimal.taps, self.stride
        if self.back:
            return tuple(range(0, self._last + 1, taps))
        return tuple(
            sorted(begin + p for begin in range(0, self.k, taps * stride) for p in range(min(stride, self.k - begin)))
        )

    @property
    def _last(self) -> int:
        """For dx, the index of the last tap of a stride phase."""
        return ceil_div(self.k, self.back) - 1

    @property
    def subkernels(self) -> int:
        """The number of subkernels along this axis."""
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
        """The number of stride phases of the result along this axis: 1 except for dx."""
        return self.back or 1

    @cached_property
    def output_offsets(self) -> tuple[int, ...]:
        """For each stride phase, the index of its first output in the result; negative if this output is in the
        padding.
        """
        return tuple(phase - self.skipped for phase in range(self.back)) if self.back else (0,)

    @cached_property
    def tap_of(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each stride phase and subkernel, the index of each tap in the kernel. Taps outside the kernel are -1.

        The stride phases of dx are numbered from the beginning of the padding. With stride s and
        padding lo, element ``s * o + p - lo`` of dx is in stride phase p. This element is the sum over j of
        ``dout[o - j]`` times the weight of tap p + s * j.
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
        """The number of tiles into which the outputs are divided along this axis."""
        return ceil_div(self.out, self.minimal.outputs)

    @property
    def step(self) -> int:
        """The distance between neighbouring tiles, in elements of the source (x or, for dx, dout)."""
        return self.minimal.outputs * self.stride

    @property
    def read(self) -> tuple[int, int]:
        """The first index of the source that an output reads, and one more than the last. The source is x or dout.

        A tile may extend beyond the range that outputs read. The kernel takes zeros there, because large values would
        cause large rounding errors in all outputs of the tile.
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
        """The number of elements of the source from the first to the last element that a tile reads."""
        return (self.minimal.points - 1) * self.stride + self.last_offset + 1


def _forward_axis(row: tuple[int, ...], minimal: MinimalFilter) -> TileAxis:
    size, k, stride, lo, _, out = row
    return TileAxis(size, k, stride, lo, out, 1, out, minimal)


def _backward_axis(row: tuple[int, ...], minimal: MinimalFilter) -> TileAxis:
    size, k, stride, lo, _, out = row
    first = lo // stride
    count = (lo + size - 1) // stride - first + 1
    return TileAxis(out, k, 1, ceil_div(k, stride) - 1 - first, count, stride, size, minimal, stride, lo % stride)


def lifted(geometry: ConvGeometry) -> list[AxisRow]:
    """Return the sizes of three axes, as `Axis.row` gives them. If the image has fewer axes, axes of size 1 come first.

    For a volume, height and width are joined into one axis if they have one tap, stride 1 and no padding.
    """
    rows = [axis.row() for axis in geometry.axes]
    plain = [k == stride == 1 and lo == 0 and size == out for size, k, stride, lo, _, out in rows]
    if plain[1:] == [True, True]:
        n = rows[1][0] * rows[2][0]
        rows = [rows[0], AxisRow(n, 1, 1, 0, 1, n)]
    return [UNIT_AXIS.row()] * (3 - len(rows)) + rows


@dataclass(frozen=True)
class WinogradProblem:
    """A convolution by minimal filtering: its three axes, and the sizes of its groups.

    `rows` is the number of filters of a group, and `channels` the number of its channels. For dx, they are exchanged.
    `row_step` and `channel_step` are the distances, in elements, between the weights of neighbouring rows and of
    neighbouring channels.
    """

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
        """The number of taps of the whole kernel."""
        return math.prod(self.kernel)

    @property
    def points(self) -> int:
        """The number of interpolation points of a tile, and so the number of matrix products."""
        return math.prod(tile_axis.minimal.points for tile_axis in self.tile_axes)

    @property
    def subkernel(self) -> tuple[int, int]:
        """The numbers of taps of a subkernel along the last two axes."""
        *_, h, w = self.tile_axes
        return h.minimal.taps, w.minimal.taps

    @property
    def line_points(self) -> int:
        """The number of interpolation points along an axis with several taps."""
        return max(tile_axis.minimal.points for tile_axis in self.tile_axes)

    @property
    def penalty(self) -> float:
        """The factor by which the estimated time is multiplied before candidates are compared.

        The factor is above 1 for eight interpolation points, because their errors are larger.
        """
        return _PENALTY if self.line_points == max(POINTS) else 1.0

    @property
    def subkernels(self) -> int:
        """The number of subkernels of the whole kernel."""
        return math.prod(tile_axis.subkernels for tile_axis in self.tile_axes)

    @property
    def phases(self) -> int:
        """The number of stride phases of the result: 1 except for dx."""
        return math.prod(tile_axis.phases for tile_axis in self.tile_axes)

    @property
    def table_length(self) -> int:
        """The approximate number of elements of the tables that `offsets`, `output_offsets` and `tap_of` return."""
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
        """Return a lower bound for the number of vector operations of all products and transforms of tiles.

        Each lane of a vector holds a channel or a filter.
        """
        k, cell, rows = self.subkernels * self.channels, ceil_div(self.channels, lanes), ceil_div(self.rows, lanes)
        each = (self.points * k + self.of_result) * rows * self.phases + self.of_image * self.subkernels * cell
        return self.images * self.groups * math.prod(self.tiles) * each

    def blocks(self, block: tuple[int, ...], count: int) -> int:
        """Return the number of blocks of all images.

        A block has `count` images, and ``block[i]`` tiles along axis i.
        """
        return ceil_div(self.images, count) * math.prod(map(ceil_div, self.tiles, block))

    def offsets(self) -> np.ndarray:
        """Return an array (subkernels, 3) with the offset of each subkernel along the three axes."""
        return np.array(list(itertools.product(*(tile_axis.offsets for tile_axis in self.tile_axes))), np.intp)

    def output_offsets(self) -> np.ndarray:
        """Return an array (stride phases, 3) with the index of the first output of each stride phase in the result."""
        return np.array(list(itertools.product(*(tile_axis.output_offsets for tile_axis in self.tile_axes))), np.intp)

    def tap_of(self) -> np.ndarray:
        """Return an array (stride phases, subkernels, taps of a subkernel) with the indices of taps in the kernel.

        The index is -1 if a tap of a subkernel is outside the kernel.
        """
        d, h, w = (np.array(tile_axis.tap_of, np.intp) for tile_axis in self.tile_axes)
        _, high, wide = self.kernel
        # d, h and w are broadcast to the array `taps`. Its axes are the stride phases along d, h and w, the subkernels
        # along d, h and w, and the taps of a subkernel along h and w. A subkernel has only one tap along d.
        d = d.reshape(len(d), 1, 1, d.shape[1], 1, 1, 1, 1)
        h = h.reshape(1, len(h), 1, 1, h.shape[1], 1, h.shape[2], 1)
        w = w.reshape(1, 1, len(w), 1, 1, w.shape[1], 1, w.shape[2])
        taps = np.where((d < 0) | (h < 0) | (w < 0), -1, (d * high + h) * wide + w)
        return np.ascontiguousarray(taps.reshape(self.phases, self.subkernels, -1))

    def cells(self, block: tuple[int, ...]) -> int:
        """Return the largest number of source elements that a block reads in one image and one channel."""
        spans = ((n - 1) * tile_axis.step + tile_axis.span for tile_axis, n in zip(self.tile_axes, block, strict=True))
        return math.prod(map(min, spans, (tile_axis.size for tile_axis in self.tile_axes)))

    def results(self, block: tuple[int, ...]) -> int:
        """Return the largest number of outputs that a block computes for one image and one filter."""
        return math.prod(
            min(n * tile_axis.minimal.outputs, tile_axis.out)
            for tile_axis, n in zip(self.tile_axes, block, strict=True)
        )

    def block(self, most: int) -> tuple[int, tuple[int, int, int]]:
        """Return the number of images of a block, and its number of tiles along each axis.

        A block has at most `most` tiles. The block is extended along width first. If it covers the whole width, it is
        extended along height, then along depth, and then to several images.
        """
        d, h, w = self.tiles
        n_w = balanced_block(w, most)
        n_h = balanced_block(h, most // n_w) if n_w == w else 1
        n_d = balanced_block(d, most // (n_w * n_h)) if (n_h, n_w) == (h, w) else 1
        count = balanced_block(self.images, most // (d * h * w)) if (n_d, n_h, n_w) == (d, h, w) else 1
        return count, (n_d, n_h, n_w)

    @property
    def of_image(self) -> int:
        """The number of vector operations to transform a tile of the image to the interpolation points."""
        *_, h, w = (tile_axis.minimal for tile_axis in self.tile_axes)
        return _passes(h.points, w.points, h.of_image, w.of_image)

    @property
    def of_weights(self) -> int:
        """The number of vector operations to transform a subkernel to the interpolation points."""
        *_, h, w = (tile_axis.minimal for tile_axis in self.tile_axes)
        return _passes(h.taps, w.points, h.of_weights, w.of_weights)

    @property
    def of_result(self) -> int:
        """The number of vector operations to compute a tile of outputs from the products at the points."""
        *_, h, w = (tile_axis.minimal for tile_axis in self.tile_axes)
        return _passes(h.outputs, w.points, h.of_result, w.of_result)

    @property
    def transposed(self) -> WinogradProblem:
        """The problem for dw, with the numbers of taps and of outputs of a tile exchanged.

        In this problem, `of_weights` is the cost to transform a tile of dout. `of_result` is the cost to transform
        products to gradients of weights.
        """
        d, h, w = (replace(tile_axis, minimal=tile_axis.minimal.transposed) for tile_axis in self.tile_axes)
        return replace(self, tile_axes=(d, h, w))


def _passes(lines: int, columns: int, of_h: int, of_w: int) -> int:
    """Return the number of vector operations that transform a tile.

    The tile is transformed along width and, if the kernel has several taps along height, also along height.
    """
    return of_w if lines == 1 and of_h == NONE.of_image else lines * of_w + columns * of_h


def problems(op: Op, geometry: ConvGeometry, points: tuple[int, ...] = POINTS) -> Iterator[WinogradProblem]:
    """Yield one problem for each pair of filters F(m, r) that `pairs` returns."""
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
        yield WinogradProblem(geometry.x_shape[0], groups, *sizes, kernel, tile_axes)


def pairs(geometry: ConvGeometry, points: tuple[int, ...] = POINTS) -> list[tuple[MinimalFilter, MinimalFilter]]:
    """Return the candidates: pairs of a filter F(m, r) along height and one along width.

    If the kernel is longer than the stride along both axes, both filters have the same number of interpolation points.
    If the kernel is not longer than the stride along any axis, there are no candidates.
    """
    _, high, wide = lifted(geometry)
    found = [
        (h, w)
        for h in ways(ceil_div(high[1], high[2]), points)
        for w in ways(ceil_div(wide[1], wide[2]), points)
        if h.points == w.points or NONE in (h, w)
    ]
    return [] if found == [(NONE, NONE)] else found
