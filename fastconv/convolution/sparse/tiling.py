"""How `sparse` divides a product among lanes, tiles, lists and threads: the cheapest of all ways to do so."""

from __future__ import annotations

import itertools
import math

from fastconv.convolution.blocking import Problem, balanced_block, ceil_div
from fastconv.runtime.records import dataclass

#: Bytes of the cells that a tile reads in some channels. They share the first-level cache with the sums.
_CELLS_BYTES = 28 << 10
#: Bytes of the sums of a block, which stay in the second-level cache.
_SUMS_BYTES = 1 << 19
#: Bytes of a block in lanes, a limit that matters for kernels of a large extent.
_BLOCK_BYTES = 1 << 20
#: Bytes of the lists of nonzero weights, if no weight is zero.
LISTS_BYTES = 3 << 23
#: The most lines of a tile, and the most results of a line, that a kernel is compiled for.
_HIGH, _WIDE = 4, 7
#: The most lines of a lane's part of a block, and the most results of a line.
_MOST_HIGH, _MOST_WIDE = 16, 21
#: The share of nonzero weights that costs are compared for, because a plan serves weights of any density.
USUAL_DENSITY = 0.1
#: Overhead in vector operations: to put a vector into lanes, to begin a line of vectors, to take a vector of sums out
#: of lanes, and to read or write a cache line.
_TO_LANES, _TO_LANES_LINE, _FROM_LANES, _CACHE_LINE = 3.0, 16.0, 5.0, 6.0
#: To begin the padded block of a channel, and a row of it.
_FILL, _FILL_ROW = 150.0, 12.0
#: To load and store a vector of sums of a tile, to begin a list, and to read an element of a list.
_LOAD_STORE, _BEGIN_LIST, _READ = 3.0, 8.0, 1.5
#: The part of an item for which the other threads usually wait at the end.
_WAIT = 0.2
#: Bytes of a cache line.
_LINE = 64


@dataclass(frozen=True)
class Tiling:
    """The sizes of the parts of a product.

    `lanes` has the parts of a block in the lanes of a vector, along images and axes; `part` the results of one lane
    along the axes; `tile` the lines and the results of a line that are in registers. A list has the weights of `rows`
    rows and `channels` channels. There are `items` for threads, each with `overhead` in vector operations.
    """

    lanes: tuple[int, int, int, int]
    part: tuple[int, int, int]
    tile: tuple[int, int]
    rows: int
    channels: int
    items: int
    overhead: float


def _lane_boxes(lanes: int, problem: Problem) -> list[tuple[int, int, int, int]]:
    """Every way to divide the lanes of a vector among images and axes that leaves as few empty as possible."""
    powers = [1 << i for i in range(lanes.bit_length())]
    limits = (problem.images, *(line.out for line in problem.conv_axes))
    boxes = [(n, d, h, lanes // (n * d * h)) for n, d, h in itertools.product(powers, repeat=3) if n * d * h <= lanes]
    useful = [box for box in boxes if all(n == 1 or n < 2 * most for n, most in zip(box, limits, strict=True))]
    return useful or [min(boxes, key=lambda box: sum(n / most for n, most in zip(box, limits, strict=True)))]


def _tile(lines: int, wide: int, most: int) -> tuple[int, int]:
    """Lines and width of tiles of about equal size, with at most `most` sums."""
    across = balanced_block(wide, min(_WIDE, most))
    # About sixteen sums hide the latency of a multiply-add. With more, fewer channels fit the first-level cache.
    high = max(1, min(_HIGH, lines, most // across, max(1, round(18 / across))))
    return balanced_block(lines, high), across


def best_tiling(problem: Problem, itemsize: int, threads: int, lanes: int, most: int, entry: int) -> Tiling:
    """The tiling with the least overhead and idle time.

    A tile has at most `most` sums, and a weight takes `entry` bytes of a list.
    """
    d, h, w = problem.conv_axes
    taps = math.prod(line.taps for line in problem.conv_axes)
    n_phases = math.prod(len(line.phases) for line in problem.conv_axes)
    halo_d, halo_h, halo_w = (line.halo for line in problem.conv_axes)
    vector = lanes * itemsize
    best, least = None, math.inf
    for box in _lane_boxes(lanes, problem):
        for wide in sorted(n for n in _sizes(w.out, box[3]) if n <= _MOST_WIDE):
            for high in sorted(n for n in _sizes(h.out, box[2]) if n <= _MOST_HIGH):
                deep = 1 if high * box[2] < h.out else min(ceil_div(d.out, box[1]), max(1, 4 // high))
                lines = deep * high
                tile = _tile(lines, wide, most)
                tiles = ceil_div(lines, tile[0]) * ceil_div(wide, tile[1])
                sums = lines * wide
                block = n_phases * (deep + halo_d) * (high + halo_h) * (wide + halo_w)
                # Cells of a channel that a tile reads.
                cells = n_phases * (1 + halo_d) * (tile[0] + halo_h) * (tile[1] + halo_w)
                cells = min(cells, taps * tile[0] * tile[1])
                channels = max(1, min(_CELLS_BYTES // (cells * vector), _BLOCK_BYTES // (block * vector)))
                channels = balanced_block(problem.channels, channels)
                rows = max(1, min(problem.rows, _SUMS_BYTES // (sums * vector)))
                rows = min(rows, max(1, LISTS_BYTES // (problem.channels * taps * entry)))
                blocks = ceil_div(problem.images, box[0]) * problem.groups
                for line, parts, part in zip(problem.conv_axes, box[1:], (deep, high, wide), strict=True):
                    blocks *= ceil_div(line.out, parts * part)
                copied = n_phases * (deep + halo_d) * (high + halo_h) * (_TO_LANES_LINE + (wide + halo_w) * _TO_LANES)
                # Rows are read from memory, and results written to it, in whole cache lines.
                planes, down, across = box[0] * deep * box[1], high * box[2], wide * box[3]
                row = _FILL_ROW + _CACHE_LINE * (1 + (across + halo_w) * w.stride * itemsize / _LINE)
                copied += _FILL + planes * min((down + halo_h) * h.stride, h.size) * row
                written = planes * down * _CACHE_LINE * (1 + across * w.output_stride * itemsize / _LINE)
                for split in sorted({ceil_div(problem.rows, rows), threads, 2 * threads}):
                    if split > problem.rows or ceil_div(problem.rows, split) > rows:
                        continue
                    here = ceil_div(problem.rows, split)
                    lists = ceil_div(problem.channels, channels) * tiles * here
                    loaded = lists * (_BEGIN_LIST + _LOAD_STORE * sums / tiles)
                    overhead = problem.channels * copied + loaded + here * (sums * _FROM_LANES + written)
                    used = USUAL_DENSITY * problem.channels * taps * here * (sums * 1.1 + tiles * _READ)
                    items = blocks * split
                    # All threads wait for the one that starts late, or has the last item.
                    cost = (ceil_div(items, threads) + _WAIT * (threads > 1)) * (used + overhead)
                    if cost < least:
                        least = cost
                        best = Tiling(box, (deep, high, wide), tile, here, channels, items, overhead)
    assert best is not None
    return best


def _sizes(out: int, lanes: int) -> set[int]:
    """Sizes of parts that divide an axis evenly."""
    most = ceil_div(out, lanes)
    return {ceil_div(most, n) for n in range(1, most + 1)} if most <= 64 else {*range(1, _MOST_WIDE + 1)}


def tiles_of(lines: int, wide: int, tile: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Lines, width, first line and first result of each tile."""
    return [
        (min(tile[0], lines - line), min(tile[1], wide - first), line, first)
        for first in range(0, wide, tile[1])
        for line in range(0, lines, tile[0])
    ]
