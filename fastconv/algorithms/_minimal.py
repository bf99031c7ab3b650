"""Minimal filtering as geometry: kernels in pieces that there are transforms for, and axes cut into tiles.

The arithmetic is told in ``_ext/winograd_tiles.pxd``: a kernel is a sum of
subkernels, of every stride-th tap each and so of stride 1 on every stride-th
cell. Whatever a kernel's size and stride, short filters serve it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from fastconv._records import dataclass
from fastconv.algorithms._blocks import even, pieces
from fastconv.algorithms.base import Op
from fastconv.geometry import ConvGeometry


@dataclass(frozen=True)
class Minimal:
    """Along one axis: interpolation points, taps of a subkernel, outputs of a tile."""

    points: int
    taps: int

    @property
    def outputs(self) -> int:
        """Of a tile."""
        return self.points - self.taps + 1

    @property
    def pairs(self) -> int:
        """Points but for zero and infinity, two by two."""
        return max(self.points // 2 - 1, 0)

    @property
    def turned(self) -> Minimal:
        """Taps and outputs in each other's place."""
        return Minimal(self.points, self.outputs)

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


NONE = Minimal(1, 1)
#: Those that there are transforms for. More points take fewer multiplications and err more: eight four to eight times
#: as much as six.
POINTS = (8, 6, 4)
#: The factor by which transforms along one axis may enlarge rounding errors, by the number of points: the largest sum
#: over points of |A^T| times |G| times a row of |B^T|, for an output and a tap. For two axes, multiply both factors.
AMPLIFICATION = {1: 1.0, 4: 4.0, 6: 14.3, 8: 39.6}
#: Eight have to be faster by so much to be taken.
_DEARER = 1.1
#: Ways with so many times the multiplications of the best are not looked at.
_WORSE = 1.2


def ways(taps: int, each: tuple[int, ...]) -> list[Minimal]:
    """For so many taps, stride 1, what takes few multiplications by each number of points."""
    if taps == 1:
        return [NONE]
    found = []
    for points in each:
        costs = {t: points / (points - t + 1) * pieces(taps, t) for t in range(2, min(taps, points - 1) + 1)}
        found += [Minimal(points, t) for t, cost in costs.items() if cost <= _WORSE * min(costs.values())]
    return found


@dataclass(frozen=True)
class Side:
    """One axis, as the kernels see it: ``_ext/winograd_tiles.pxd`` has what the numbers mean.

    `k` taps are cut into subkernels. What has a row for each of them is made when it is first asked for, because most
    plans are only compared.
    """

    size: int
    k: int
    stride: int
    lo: int
    out: int
    jump: int
    whole: int
    minimal: Minimal
    #: Of a gradient: the stride of the convolution, whose phases are those of the result; else 0.
    back: int = 0
    #: Of a gradient: cells of the padding in front that belong to the first output of each phase.
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
        """Of a gradient: the tap of a phase that meets the first cell of dout."""
        return pieces(self.k, self.back) - 1

    @property
    def subkernels(self) -> int:
        """How many there are."""
        if self.back:
            return self._last // self.minimal.taps + 1
        whole, rest = divmod(self.k, self.minimal.taps * self.stride)
        return whole * self.stride + min(rest, self.stride)

    @property
    def last_offset(self) -> int:
        """Where the last of them starts."""
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
    def starts(self) -> tuple[int, ...]:
        """Of the phases of the result, the cell of the first output: with stride s, cell ``s * o + p - lo``."""
        return tuple(phase - self.skipped for phase in range(self.back)) if self.back else (0,)

    @cached_property
    def tap_of(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each phase and subkernel the taps of the kernel that it has, -1 where it has none.

        dx is made by stride phases that share dout: cell ``s * o + p - lo`` sums ``dout[o - j]`` at taps p + s * j.
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
        return pieces(self.out, self.minimal.outputs)

    @property
    def step(self) -> int:
        """Source cells from a tile to the next."""
        return self.minimal.outputs * self.stride

    @property
    def read(self) -> tuple[int, int]:
        """Source cells that some output meets, from the first to one past the last; tiles hold others, too.

        Those are left out: they would cancel but for rounding, which is little only beside the cells that count.
        """
        cells = [
            (out * self.stride + offset + j * self.stride - self.lo, tap)
            for start, phase in zip(self.starts, self.tap_of, strict=True)
            for offset, taps in zip(self.offsets, phase, strict=True)
            for j, tap in enumerate(taps)
            for out in (pieces(-start, self.jump) if start < 0 else 0, (self.whole - 1 - start) // self.jump)
        ]
        met = [cell for cell, tap in cells if tap >= 0]
        first, last = max(min(met, default=0), 0), min(max(met, default=-1) + 1, self.size)
        return first, max(first, last)

    @property
    def span(self) -> int:
        """Source cells that a tile meets, from the first to the last."""
        return (self.minimal.points - 1) * self.stride + self.last_offset + 1


def _forward_side(row: tuple[int, ...], minimal: Minimal) -> Side:
    size, k, stride, lo, _, out = row
    return Side(size, k, stride, lo, out, 1, out, minimal)


def _backward_side(row: tuple[int, ...], minimal: Minimal) -> Side:
    size, k, stride, lo, _, out = row
    first = lo // stride
    count = (lo + size - 1) // stride - first + 1
    return Side(out, k, 1, pieces(k, stride) - 1 - first, count, stride, size, minimal, stride, lo % stride)


def lifted(geometry: ConvGeometry) -> list[tuple[int, ...]]:
    """Three axes as kernels read them, unit ones first; the last two of a volume in one where both are plain."""
    rows = [axis.row() for axis in geometry.axes]
    plain = [k == stride == 1 and lo == 0 and size == out for size, k, stride, lo, _, out in rows]
    if plain[1:] == [True, True]:
        n = rows[1][0] * rows[2][0]
        rows = [rows[0], (n, 1, 1, 0, 1, n)]
    return [(1, 1, 1, 0, 1, 1)] * (3 - len(rows)) + rows


@dataclass(frozen=True)
class Problem:
    """What kernels are told: sizes of a group, and the axes in tiles."""

    images: int
    groups: int
    rows: int
    row_step: int
    channels: int
    channel_step: int
    kernel: tuple[int, int, int]
    sides: tuple[Side, Side, Side]

    @property
    def taps(self) -> int:
        """Of the whole kernel."""
        return math.prod(self.kernel)

    @property
    def points(self) -> int:
        """Products for each tile."""
        return math.prod(side.minimal.points for side in self.sides)

    @property
    def subkernel(self) -> tuple[int, int]:
        """Taps of a subkernel along the last two axes."""
        *_, h, w = self.sides
        return h.minimal.taps, w.minimal.taps

    @property
    def line_points(self) -> int:
        """Along an axis."""
        return max(side.minimal.points for side in self.sides)

    @property
    def dearer(self) -> float:
        """What it counts as slower by than it is, beside others: for its errors."""
        return _DEARER if self.line_points == max(POINTS) else 1.0

    @property
    def subkernels(self) -> int:
        """That make up the kernel."""
        return math.prod(side.subkernels for side in self.sides)

    @property
    def phases(self) -> int:
        """Of the result."""
        return math.prod(side.phases for side in self.sides)

    @property
    def table_length(self) -> int:
        """Entries of the tables below, about."""
        return self.phases * self.subkernels * math.prod(side.minimal.taps for side in self.sides) + 3 * self.subkernels

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Along each axis of the output."""
        d, h, w = (side.tiles for side in self.sides)
        return d, h, w

    def operations(self, lanes: int) -> int:
        """On vectors, at least, of all products and transforms of tiles; channels and filters are in the lanes."""
        k, cell, rows = self.subkernels * self.channels, pieces(self.channels, lanes), pieces(self.rows, lanes)
        each = (self.points * k + self.of_result) * rows * self.phases + self.of_image * self.subkernels * cell
        return self.images * self.groups * math.prod(self.tiles) * each

    def blocks(self, block: tuple[int, ...], count: int) -> int:
        """How many blocks cover the batch."""
        return pieces(self.images, count) * math.prod(map(pieces, self.tiles, block))

    def axes(self, block: tuple[int, ...]) -> np.ndarray:
        """The table of axes that the kernels read."""
        rows = [
            (
                *(side.size, side.stride, side.lo),
                *(side.minimal.points, side.minimal.taps, side.minimal.outputs),
                *(side.tiles, n, side.span, side.jump, side.whole, *side.read),
            )
            for side, n in zip(self.sides, block, strict=True)
        ]
        return np.array(rows, np.intp)

    def offsets(self) -> np.ndarray:
        """Of each subkernel along the three axes."""
        return np.array(list(itertools.product(*(side.offsets for side in self.sides))), np.intp)

    def starts(self) -> np.ndarray:
        """Of each phase along the three axes."""
        return np.array(list(itertools.product(*(side.starts for side in self.sides))), np.intp)

    def tap_of(self) -> np.ndarray:
        """For each phase, subkernel and tap of that the tap of the kernel, -1 where it has none."""
        d, h, w = (np.array(side.tap_of, np.intp) for side in self.sides)
        _, high, wide = self.kernel
        # Phases along d, h and w, subkernels along d, h and w, taps along h and w; along d a subkernel has one.
        d = d.reshape(len(d), 1, 1, d.shape[1], 1, 1, 1, 1)
        h = h.reshape(1, len(h), 1, 1, h.shape[1], 1, h.shape[2], 1)
        w = w.reshape(1, 1, len(w), 1, 1, w.shape[1], 1, w.shape[2])
        taps = np.where((d < 0) | (h < 0) | (w < 0), -1, (d * high + h) * wide + w)
        return np.ascontiguousarray(taps.reshape(self.phases, self.subkernels, -1))

    def cells(self, block: tuple[int, ...]) -> int:
        """Cells of the source that a block sees of an image, at most."""
        spans = ((n - 1) * side.step + side.span for side, n in zip(self.sides, block, strict=True))
        return math.prod(map(min, spans, (side.size for side in self.sides)))

    def results(self, block: tuple[int, ...]) -> int:
        """Cells of dout that a block sees of an image, at most."""
        return math.prod(min(n * side.minimal.outputs, side.out) for side, n in zip(self.sides, block, strict=True))

    def block(self, most: int) -> tuple[int, tuple[int, int, int]]:
        """Images and tiles of a block: whole rows, planes, volumes and images while they stay within `most`."""
        d, h, w = self.tiles
        n_w = even(w, most)
        n_h = even(h, most // n_w) if n_w == w else 1
        n_d = even(d, most // (n_w * n_h)) if (n_h, n_w) == (h, w) else 1
        count = even(self.images, most // (d * h * w)) if (n_d, n_h, n_w) == (d, h, w) else 1
        return count, (n_d, n_h, n_w)

    @property
    def of_image(self) -> int:
        """Vector operations to transform a tile."""
        *_, h, w = (side.minimal for side in self.sides)
        return _passes(h.points, w.points, h.of_image, w.of_image)

    @property
    def of_weights(self) -> int:
        """To transform a subkernel."""
        *_, h, w = (side.minimal for side in self.sides)
        return _passes(h.taps, w.points, h.of_weights, w.of_weights)

    @property
    def of_result(self) -> int:
        """To transform the products of a tile back."""
        *_, h, w = (side.minimal for side in self.sides)
        return _passes(h.outputs, w.points, h.of_result, w.of_result)

    @property
    def turned(self) -> Problem:
        """That of dw, whose kernels are tiles of outputs, and whose outputs are kernels; for the counts above."""
        d, h, w = (replace(side, minimal=side.minimal.turned) for side in self.sides)
        return replace(self, sides=(d, h, w))


def _passes(lines: int, columns: int, of_h: int, of_w: int) -> int:
    """Operations along the last axis, then across; of one pass where height has one point."""
    return of_w if lines == 1 and of_h == NONE.of_image else lines * of_w + columns * of_h


def problems(op: Op, geometry: ConvGeometry, points: tuple[int, ...] = POINTS) -> Iterator[Problem]:
    """Every way to do an op that is worth a look."""
    groups, taps = geometry.groups, geometry.taps
    rows, channels = geometry.w_shape[0] // groups, geometry.w_shape[1]
    sizes = (rows, channels * taps, channels, taps)
    side = _forward_side
    if op == "backward_data":
        sizes, side = (channels, taps, rows, channels * taps), _backward_side
    depth, high, wide = lifted(geometry)
    kernel = depth[1], high[1], wide[1]
    for h, w in pairs(geometry, points):
        sides = side(depth, NONE), side(high, h), side(wide, w)
        yield Problem(geometry.x_shape[0], groups, *sizes, kernel, sides)


def pairs(geometry: ConvGeometry, points: tuple[int, ...] = POINTS) -> list[tuple[Minimal, Minimal]]:
    """Ways along height and width, of as many points each where both are filtered; none where neither is."""
    _, high, wide = lifted(geometry)
    found = [
        (h, w)
        for h in ways(pieces(high[1], high[2]), points)
        for w in ways(pieces(wide[1], wide[2]), points)
        if h.points == w.points or NONE in (h, w)
    ]
    return [] if found == [(NONE, NONE)] else found
