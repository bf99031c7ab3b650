"""The blocking of `implicit`: blocks of outputs, of channels and k, and of rows, and the mode of making tiles."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from fastconv.convolution.blocking import Layout, Line, Problem, even, lift, pieces, shared_row
from fastconv.runtime.records import dataclass

#: Modes of making tiles: see implicit.pyx.
WHOLE, GRID, ROWS, PACKED, TURNED = range(5)

#: Bytes of the padded image of a block, and of packed weights, which together stay in the second-level cache.
_BLOCK_BYTES, PANEL_BYTES = 1 << 19, 3 << 17
#: The depth of one block of k, after which results are stored: for tiles wider than `_WIDE` bytes, for narrower ones,
#: and its minimum.
_STRETCH, _SHORT_STRETCH, _LEAST_STRETCH, _WIDE = 240, 180, 64, 128
#: Positions are packed into a panel if at least so many tiles of rows use it, and the panel stays in the first-level
#: cache. So many bytes of the cache are for panels, or for tiles that are multiplied by the same weights.
_PACKING_ROWS, _NEAR_BYTES = 6, 20000
#: The most tiles that are multiplied by the same weights: MOST_TILES of the kernel.
_MOST_TILES = 16
#: Positions of a block, about: so many that packing the weights is cheap compared with the products.
_POSITIONS = 480
#: Shares of `_POSITIONS` that are tried, to give all threads equally many blocks.
_POSITION_PARTS = 1, 0.82, 0.67, 0.5
#: The overhead of dividing the rows.
_SPLIT_COST = 1.06
#: The overhead of a tile, in vector operations for each row and k.
_NARROW = 0.5
#: Vector operations to pack one weight.
_PACKED_COST = 0.8
#: Vector operations to copy a vector into a block, and the overhead of a row, in vectors.
_COPIED, _ROW_COPIED = 2, 3
#: The factor on the operations of tiles with swapped operands, and the operations to transpose each result back.
_TURNED_COST, _TURNED_BACK = 1.2, 2
#: The largest depth of a block of k with swapped operands, and the bytes of packed positions or of the block: each is
#: read only once for a panel of weights.
_TURNED_STRETCH, _TURNED_BYTES = 1024, 1 << 20
#: Threads share packed weights if each thread has at least so many blocks that use them.
_SHARED_BLOCKS = 2


def flat(lines: tuple[Line, Line, Line]) -> tuple[Line, Line, Line]:
    """The axes of a pointwise layer, joined into one."""
    n = math.prod(line.out for line in lines)
    return lift([Line(n, 1, 0, 1, n, 0, 1, n, (0,))])


def block_of(
    lines: tuple[Line, Line, Line], images: int, channels: int, itemsize: int, positions: int, unit: int
) -> tuple[int, tuple[int, int, int]]:
    """Images and outputs of a block: about `positions` outputs, or more if its margin would be larger than it."""
    budget = _BLOCK_BYTES // itemsize // channels
    d, h, w = lines
    slots = math.prod(len(line.phases) for line in lines)
    least = slots * (1 + d.reach) * (1 + h.reach)
    wide = w.out if least * (w.out + w.reach) <= 2 * budget else max(unit * 2, budget // least - w.reach)
    wide = even(w.out, wide, unit)

    def fits(images: int, deep: int, high: int) -> bool:
        return images * slots * (deep + d.reach) * (high + h.reach) * (wide + w.reach) <= budget

    high = 1
    while (
        high < h.out and (high * wide < positions or high < 2 * h.reach) and (high * wide < 32 or fits(1, 1, high + 1))
    ):
        high += 1
    high = even(h.out, high)
    deep = 1
    if high == h.out:
        while deep < d.out and (deep * high * wide < positions or deep < 2 * d.reach) and fits(1, deep + 1, high):
            deep += 1
        deep = even(d.out, deep)
    count = 1
    if (deep, high, wide) == (d.out, h.out, w.out):
        volume = deep * high * wide
        while count < images and count * volume < positions and fits(count + 1, deep, high):
            count += 1
        count = even(images, count)
    return count, (deep, high, wide)


@dataclass(frozen=True)
class Cut:
    """The blocks of a product, the mode of making tiles, and the vector operations of a block."""

    lines: tuple[Line, Line, Line]
    count: int
    block: tuple[int, int, int]
    row: int
    mode: int
    #: Whether positions of a tile are packed into a panel.
    packing: bool
    #: Vector operations for each k: of the products with all rows, and of packing positions.
    product: float
    copied: float
    #: Vector operations to copy the source into the block.
    filled: float

    def blocks(self, problem: Problem) -> int:
        """The number of blocks of all groups and images."""
        of_image = math.prod(pieces(line.out, n) for line, n in zip(self.lines, self.block, strict=True))
        return problem.groups * pieces(problem.images, self.count) * of_image


def _tiles(positions: int, vectors: int, lanes: int) -> float:
    """Vector operations of tiles of so many positions for each k and row. Narrow tiles take more."""
    n = pieces(positions, lanes)
    return (n + _NARROW * pieces(n, vectors)) * vectors / (vectors + _NARROW)


def _turned_stretch(count: int, block: tuple[int, int, int], itemsize: int) -> int:
    """The depth of one block of k with swapped operands."""
    return max(_STRETCH, min(_TURNED_STRETCH, _TURNED_BYTES // (count * math.prod(block) * itemsize)))


def _modes(
    problem: Problem,
    lines: tuple[Line, Line, Line],
    count: int,
    block: tuple[int, int, int],
    row: int,
    itemsize: int,
    vectors: int,
    lanes: int,
    packing: bool,
) -> dict[int, tuple[float, float]]:
    """For each mode the vector operations for each k: of the products with all rows, and of packing positions."""
    deep, high, wide = block
    planes, rows = count * deep, problem.rows
    # Rows that are contiguous in block and result are one run.
    joined = row == wide == lines[2].whole
    stretches = planes * high
    runs = planes if joined else stretches
    positions = stretches * wide
    packed = _tiles(positions, vectors, lanes)
    k = problem.channels * math.prod(line.taps for line in lines)
    by_row = stretches * _tiles(wide, vectors, lanes)
    grid = planes * _tiles((high - 1) * row + wide, vectors, lanes)
    # Edge tiles go through a buffer, once for each block of k.
    spilled = 2 * rows / min(k, _STRETCH)
    loose = (planes if high * wide % lanes else 0) if joined else grid
    # Positions of tiles are packed, or read in place.
    copy = 2 if packing else 0
    turned = _TURNED_COST * positions * pieces(rows, lanes) + 6 * pieces(rows, lanes)
    turned += _TURNED_BACK * positions * rows / min(k, _turned_stretch(count, block, itemsize))
    costs = {
        GRID: (grid * rows + (loose + 2 * runs) * spilled, grid * copy),
        ROWS: (by_row * rows + (by_row * spilled if wide % lanes else 0), by_row * copy),
        PACKED: (packed * rows, 1.2 * packed + 3.5 * (runs + pieces(positions, vectors * lanes))),
        TURNED: (turned, 1.5 * _TURNED_COST * positions),
    }
    if problem.pointwise and count == 1:
        costs = {WHOLE: (packed * rows, packed * copy), **costs}
    return costs


def _cut(
    problem: Problem,
    lines: tuple[Line, Line, Line],
    channels: int,
    itemsize: int,
    vectors: int,
    lanes: int,
    packing: bool,
    positions: int,
) -> Cut:
    unit = vectors * lanes
    count, block = block_of(lines, problem.images, channels, itemsize, positions, unit)
    if problem.pointwise and not (lines[2].out < positions and problem.images > 1):
        block = (1, 1, even(lines[2].out, 4 * positions, unit))
        count = 1
    whole_row = block[2] + lines[2].reach
    row = min(whole_row, shared_row(lines[2])) if block[2] == lines[2].out else whole_row
    modes = _modes(problem, lines, count, block, row, itemsize, vectors, lanes, packing)
    mode = min(modes, key=lambda mode: sum(modes[mode]))
    if mode not in (WHOLE, GRID):
        row = whole_row
    rows = count * math.prod((n + line.reach) * len(line.phases) for line, n in zip(lines[:2], block[:2], strict=True))
    copied = _COPIED * rows * len(lines[2].phases) * (pieces(row, lanes) + _ROW_COPIED) if mode != WHOLE else 0
    product, copied_tiles = modes[mode]
    return Cut(lines, count, block, row, mode, packing, product, copied_tiles, copied * problem.channels)


@dataclass(frozen=True)
class Parts:
    """The blocks of a product, and the block sizes of rows and k."""

    cut: Cut
    block_rows: int
    block_channels: int
    block_k: int
    #: Tiles that are multiplied by a row of weights before the next row: as many as stay in the first-level cache.
    tiles: int
    #: Whether threads share packed weights, because each has several blocks.
    shared: bool


def cut_product(problem: Problem, itemsize: int, threads: int, tile: tuple[int, int, int]) -> Parts:
    """The cheapest blocking for the thread with most work; `tile` is the rows, vectors and lanes of a tile."""
    tile_rows, vectors, lanes = tile
    unit = vectors * lanes
    lines = flat(problem.lines) if problem.pointwise else problem.lines
    taps = math.prod(line.taps for line in lines)
    k = problem.channels * taps
    ways = [lines]
    if lines[2].taps > 1 and math.prod(line.out for line in lines) > lines[2].out:
        ways.append((*lines[:2], replace(lines[2], spread=True)))
    # Strided results are added to one by one, so k has fewer and deeper blocks.
    stretch = (_STRETCH if unit * itemsize > _WIDE else _SHORT_STRETCH) * (1 if lines[2].jump == 1 else 2)
    block_channels = even(problem.channels, max(1, round(stretch / taps)))
    near = stretch * unit * itemsize <= _NEAR_BYTES

    def shares(cut: Cut) -> bool:
        return cut.mode != TURNED and cut.blocks(problem) >= _SHARED_BLOCKS * threads * problem.groups

    def most(cut: Cut, block_rows: int) -> float:
        """The vector operations of the thread with most work, for blocks of so many rows."""
        part = block_rows / problem.rows
        items = pieces(cut.blocks(problem) * pieces(problem.rows, block_rows), threads)
        packed = problem.rows * part * min(items, problem.groups if shares(cut) else items)
        work = items * ((cut.product * part + cut.copied) * k + cut.filled) + packed * k * _PACKED_COST
        return work if part == 1 else _SPLIT_COST * work

    candidates: list[tuple[float, int, Cut, int]] = []
    most_split = min(threads, pieces(problem.rows, tile_rows))
    for split in sorted({1, most_split} | {n for n in range(2, most_split) if threads % n == 0}):
        block_rows = even(problem.rows, pieces(problem.rows, split), tile_rows)
        packing = near and problem.rows >= _PACKING_ROWS * tile_rows * split
        for part, way in itertools.product(_POSITION_PARTS, ways):
            positions = round(_POSITIONS * part)
            cut = _cut(problem, way, block_channels, itemsize, vectors, lanes, packing, positions)
            candidates.append((most(cut, block_rows), len(candidates), cut, block_rows))
    _, _, cut, block_rows = min(candidates)
    # A block of k has whole channels, if these are not much more than its depth. The packed weights of all rows limit
    # it, except with swapped operands, where only the weights of one tile are packed at a time.
    if cut.mode == TURNED:
        stretch = _turned_stretch(cut.count, cut.block, itemsize)
        of_channel = Layout(cut.lines, cut.count, cut.block, cut.row).channel_pitch(itemsize)
        held = max(block_channels, _TURNED_BYTES // (of_channel * itemsize))
        block_channels = even(problem.channels, max(1, min(round(stretch / taps), held)))
        most_k = round(1.25 * stretch)
    else:
        most_k = min(round(1.25 * stretch), max(_LEAST_STRETCH, PANEL_BYTES // (block_rows * itemsize)))
    block_k = even(block_channels * taps, most_k)
    tiles = max(1, min(_MOST_TILES, _NEAR_BYTES // (block_k * unit * itemsize)))
    return Parts(cut, block_rows, block_channels, block_k, tiles, shares(cut))
