"""Chooses how `sparse` divides a product into vector lanes, tiles, lists and work items at the smallest cost.

A block of results is divided into equal parts, one for each vector lane. A line is a row of results of a part.
"""

from __future__ import annotations

import itertools
import math

from fastconv.convolution.blocking import Problem, balanced_block, ceil_div
from fastconv.runtime.records import dataclass

#: Tilings are compared by their costs for weights of this density. The chosen tiling is used for weights of any
#: density.
USUAL_DENSITY = 0.1
#: Costs in vector operations. `_TO_LANES`: copy one vector into lanes. `_TO_LANES_LINE`: begin a row of such copies.
#: `_FROM_LANES`: copy a vector of sums from lanes to the result. `_CACHE_LINE`: read or write a cache line.
_TO_LANES, _TO_LANES_LINE, _FROM_LANES, _CACHE_LINE = 3.0, 16.0, 5.0, 6.0
#: Costs in vector operations. `_FILL`: begin to copy a channel to a padded block. `_FILL_ROW`: begin a row of the copy.
_FILL, _FILL_ROW = 150.0, 12.0
#: Costs in vector operations. `_LOAD_STORE`: load and store a vector of sums. `_BEGIN_LIST`: begin a list of weights.
#: `_READ`: read one weight of a list.
_LOAD_STORE, _BEGIN_LIST, _READ = 3.0, 8.0, 1.5
#: The average time that threads wait at the end of a call, relative to the time of one work item.
_WAIT = 0.2
#: The bytes of a cache line.
_LINE = 64


@dataclass(frozen=True)
class Tuning:
    """The limits of the sizes of blocks, tiles and lists."""

    #: The largest size, in bytes, of the image elements that a tile reads for one list of weights. These elements and
    #: the sums of the tile fit the first-level cache.
    cells_bytes: int = 28 << 10
    #: The largest size, in bytes, of the sums of a block. The sums stay in the second-level cache.
    sums_bytes: int = 1 << 19
    #: The largest size, in bytes, of the copy of a padded block in vector lanes. Only kernels of a large extent reach
    #: this limit.
    block_bytes: int = 1 << 20
    #: The lists of weights take at most this number of bytes, even if no weight is zero.
    lists_bytes: int = 3 << 23
    #: The largest number of rows of a tile, and the largest number of results in a row of a tile. The C code is
    #: compiled for tiles of up to 4 rows of 7 results.
    high: int = 4
    wide: int = 7
    #: Each vector lane computes one part of a block of results. A plane of a part has at most `most_high` rows of at
    #: most `most_wide` results.
    most_high: int = 16
    most_wide: int = 21


#: The limits that `Sparse` uses by default.
DEFAULT_TUNING = Tuning()


@dataclass(frozen=True)
class SparseTiling:
    """The sizes of blocks, tiles and lists.

    A block of results is divided into equal parts, one for each vector lane. `lanes` has the number of parts along the
    images and along each axis. `part` has the number of results of a part along each axis. `tile` has the number of
    rows of a tile, and the number of results in each row. `rows` and `channels` are the numbers of rows of weights and
    of channels that are listed together. `items` is the number of work items. `overhead` is the number of vector
    operations of a work item besides its multiply-adds.
    """

    lanes: tuple[int, int, int, int]
    part: tuple[int, int, int]
    tile: tuple[int, int]
    rows: int
    channels: int
    items: int
    overhead: float


def _lane_boxes(lanes: int, problem: Problem) -> list[tuple[int, int, int, int]]:
    """Return all ways to divide the lanes of a vector among images and axes that leave few lanes empty."""
    powers = [1 << i for i in range(lanes.bit_length())]
    limits = (problem.images, *(line.out for line in problem.conv_axes))
    boxes = [(n, d, h, lanes // (n * d * h)) for n, d, h in itertools.product(powers, repeat=3) if n * d * h <= lanes]
    useful = [box for box in boxes if all(n == 1 or n < 2 * most for n, most in zip(box, limits, strict=True))]
    return useful or [min(boxes, key=lambda box: sum(n / most for n, most in zip(box, limits, strict=True)))]


def _tile(lines: int, wide: int, most: int, tuning: Tuning) -> tuple[int, int]:
    """Return the number of lines of a tile, and the number of results in a line. A line is a row of the tile.

    All tiles have about equal sizes. A tile has at most `most` vectors of sums.
    """
    across = balanced_block(wide, min(tuning.wide, most))
    # A tile has about sixteen vectors of sums, which hide the latency of a multiply-add. With a larger tile, the image
    # elements of fewer channels fit the first-level cache.
    high = max(1, min(tuning.high, lines, most // across, max(1, round(18 / across))))
    return balanced_block(lines, high), across


def best_tiling(
    problem: Problem, itemsize: int, threads: int, lanes: int, most: int, entry: int, tuning: Tuning
) -> SparseTiling:
    """Return the cheapest tiling.

    A tile has at most `most` vectors of sums. A weight takes `entry` bytes in a list.
    """
    d, h, w = problem.conv_axes
    taps = math.prod(line.taps for line in problem.conv_axes)
    n_phases = math.prod(len(line.phases) for line in problem.conv_axes)
    halo_d, halo_h, halo_w = (line.halo for line in problem.conv_axes)
    vector = lanes * itemsize
    best, least = None, math.inf
    for box in _lane_boxes(lanes, problem):
        for wide in sorted(n for n in _sizes(w.out, box[3], tuning.most_wide) if n <= tuning.most_wide):
            for high in sorted(n for n in _sizes(h.out, box[2], tuning.most_wide) if n <= tuning.most_high):
                deep = 1 if high * box[2] < h.out else min(ceil_div(d.out, box[1]), max(1, 4 // high))
                lines = deep * high
                tile = _tile(lines, wide, most, tuning)
                tiles = ceil_div(lines, tile[0]) * ceil_div(wide, tile[1])
                sums = lines * wide
                block = n_phases * (deep + halo_d) * (high + halo_h) * (wide + halo_w)
                # The number of vectors that a tile reads in each channel of the image.
                cells = n_phases * (1 + halo_d) * (tile[0] + halo_h) * (tile[1] + halo_w)
                cells = min(cells, taps * tile[0] * tile[1])
                channels = max(1, min(tuning.cells_bytes // (cells * vector), tuning.block_bytes // (block * vector)))
                channels = balanced_block(problem.channels, channels)
                rows = max(1, min(problem.rows, tuning.sums_bytes // (sums * vector)))
                rows = min(rows, max(1, tuning.lists_bytes // (problem.channels * taps * entry)))
                blocks = ceil_div(problem.images, box[0]) * problem.groups
                for line, parts, part in zip(problem.conv_axes, box[1:], (deep, high, wide), strict=True):
                    blocks *= ceil_div(line.out, parts * part)
                copied = n_phases * (deep + halo_d) * (high + halo_h) * (_TO_LANES_LINE + (wide + halo_w) * _TO_LANES)
                # Rows of the image are read in whole cache lines, and rows of results are written in whole cache lines.
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
                    # At the end, all threads wait for the slowest thread.
                    cost = (ceil_div(items, threads) + _WAIT * (threads > 1)) * (used + overhead)
                    if cost < least:
                        least = cost
                        best = SparseTiling(box, (deep, high, wide), tile, here, channels, items, overhead)
    assert best is not None
    return best


def _sizes(out: int, lanes: int, most_wide: int) -> set[int]:
    """Return the sizes of parts to try along an axis whose `out` outputs are divided among `lanes` lanes.

    If a lane gets at most 64 outputs, only sizes that divide these outputs into about equal parts are tried. Otherwise,
    all sizes up to `most_wide` are tried.
    """
    most = ceil_div(out, lanes)
    return {ceil_div(most, n) for n in range(1, most + 1)} if most <= 64 else {*range(1, most_wide + 1)}
