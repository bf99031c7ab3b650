"""The tiling of `implicit`: the sizes of blocks along outputs, channels, k and rows, and the mode in which tiles read
the image.

A product is [rows x k] @ [k x positions], where k is channels * taps, and positions are output positions. A tile is the
part of the result whose sums stay in registers. It has at most `mr` rows and `nr` positions: `vectors` vectors of
`lanes` lanes. A block is a part of the outputs. The cells that its outputs read are copied to a padded buffer. A panel
is an array of packed weights or of packed cells.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from fastconv.convolution.blocking import ConvAxis, Layout, Problem, balanced_block, ceil_div, lift, shared_row
from fastconv.convolution.implicit_gemm.tuning import CONTIGUOUS, PACKED, PADDED_GRID, ROW_WISE, SWAPPED, Tuning
from fastconv.runtime.records import dataclass

#: Tiles wider than this number of bytes take `Tuning.kc` steps along k, and other tiles `Tuning.kc_narrow` steps.
_WIDE = 128
#: The factors on `Tuning.nc` that are tried. With smaller blocks, threads may get more equal numbers of blocks.
_NC_SHARES = 1, 0.82, 0.67, 0.5
#: The factor on the cost if the rows of a product are divided into several blocks.
_SPLIT_COST = 1.06
#: The overhead of a tile, in vector operations, for each of its rows and each step along k.
_NARROW = 0.5
#: The number of vector operations to pack one weight.
_PACKED_COST = 0.8
#: The number of vector operations to copy a vector into a block, and the overhead of a row, counted as copied vectors.
_COPIED, _ROW_COPIED = 2, 3
#: Two costs of tiles with swapped operands: the factor on their vector operations, and the number of vector operations
#: to transpose each result back.
_SWAPPED_COST, _TRANSPOSE_BACK = 1.2, 2


def flat(conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]) -> tuple[ConvAxis, ConvAxis, ConvAxis]:
    """Return the axes of a pointwise (1x1) layer, with all spatial axes joined into one."""
    n = math.prod(conv_axis.out for conv_axis in conv_axes)
    return lift([ConvAxis(n, 1, 0, 1, n, 0, 1, n, (0,))])


def block_of(
    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis],
    images: int,
    channels: int,
    itemsize: int,
    positions: int,
    nr: int,
    tuning: Tuning,
) -> tuple[int, tuple[int, int, int]]:
    """Return the number of images of a block, and its number of outputs along each axis.

    A block has about `positions` outputs in all. It has more if its margins would otherwise be larger than the block.
    """
    budget = tuning.block_bytes // itemsize // channels
    d, h, w = conv_axes
    n_phases = math.prod(len(conv_axis.phases) for conv_axis in conv_axes)
    least = n_phases * (1 + d.halo) * (1 + h.halo)
    wide = w.out if least * (w.out + w.halo) <= 2 * budget else max(nr * 2, budget // least - w.halo)
    wide = balanced_block(w.out, wide, nr)

    def fits(images: int, deep: int, high: int) -> bool:
        return images * n_phases * (deep + d.halo) * (high + h.halo) * (wide + w.halo) <= budget

    high = 1
    while (
        high < h.out and (high * wide < positions or high < 2 * h.halo) and (high * wide < 32 or fits(1, 1, high + 1))
    ):
        high += 1
    high = balanced_block(h.out, high)
    deep = 1
    if high == h.out:
        while deep < d.out and (deep * high * wide < positions or deep < 2 * d.halo) and fits(1, deep + 1, high):
            deep += 1
        deep = balanced_block(d.out, deep)
    count = 1
    if (deep, high, wide) == (d.out, h.out, w.out):
        volume = deep * high * wide
        while count < images and count * volume < positions and fits(count + 1, deep, high):
            count += 1
        count = balanced_block(images, count)
    return count, (deep, high, wide)


@dataclass(frozen=True)
class Blocking:
    """The blocks into which the outputs of a product are divided, the mode in which tiles read the image, and the cost
    of a block.

    A block has `count` images and ``block[i]`` outputs along axis i. Its padded rows are `row` elements apart.
    """

    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]
    count: int
    block: tuple[int, int, int]
    row: int
    mode: int
    #: Whether the image cells of a tile are packed into a panel before they are multiplied.
    packing: bool
    #: The numbers of vector operations of a block for each step along k. `product` is the number to multiply all rows
    #: of weights by all positions of the block. `copied` is the number to pack the image cells.
    product: float
    copied: float
    #: The number of vector operations to copy the image into the padded buffer of a block.
    filled: float

    def blocks(self, problem: Problem) -> int:
        """Return the number of blocks in all groups and images."""
        of_image = math.prod(
            ceil_div(conv_axis.out, n) for conv_axis, n in zip(self.conv_axes, self.block, strict=True)
        )
        return problem.groups * ceil_div(problem.images, self.count) * of_image


def _tiles(positions: int, vectors: int, lanes: int) -> float:
    """Return the cost of tiles with `positions` positions in all: the vector operations for each row and step along k.

    The cost per position is higher in narrow tiles.
    """
    n = ceil_div(positions, lanes)
    return (n + _NARROW * ceil_div(n, vectors)) * vectors / (vectors + _NARROW)


def _kc_swapped(count: int, block: tuple[int, int, int], itemsize: int, tuning: Tuning) -> int:
    """Return the number of steps of a block along k, in the mode SWAPPED."""
    return max(tuning.kc, min(tuning.kc_swapped, tuning.swapped_bytes // (count * math.prod(block) * itemsize)))


def _modes(
    problem: Problem,
    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis],
    count: int,
    block: tuple[int, int, int],
    row: int,
    itemsize: int,
    vectors: int,
    lanes: int,
    packing: bool,
    tuning: Tuning,
) -> dict[int, tuple[float, float]]:
    """Return `Blocking.product` and `Blocking.copied` for each mode that the product can use."""
    deep, high, wide = block
    planes, rows = count * deep, problem.rows
    # If the rows of a plane are contiguous both in the block and in the result, the outputs of the whole plane are
    # contiguous.
    joined = row == wide == conv_axes[2].output_size
    stretches = planes * high
    runs = planes if joined else stretches
    positions = stretches * wide
    packed = _tiles(positions, vectors, lanes)
    k = problem.channels * math.prod(conv_axis.taps for conv_axis in conv_axes)
    by_row = stretches * _tiles(wide, vectors, lanes)
    grid = planes * _tiles((high - 1) * row + wide, vectors, lanes)
    # Tiles at the edge of the result are first stored to a buffer, and then copied, once for each block of k.
    edge_cost = 2 * rows / min(k, tuning.kc)
    edge_tiles = (planes if high * wide % lanes else 0) if joined else grid
    # Without packing, tiles read the padded block directly, and nothing is copied.
    copy = 2 if packing else 0
    swapped = _SWAPPED_COST * positions * ceil_div(rows, lanes) + 6 * ceil_div(rows, lanes)
    swapped += _TRANSPOSE_BACK * positions * rows / min(k, _kc_swapped(count, block, itemsize, tuning))
    costs = {
        PADDED_GRID: (grid * rows + (edge_tiles + 2 * runs) * edge_cost, grid * copy),
        ROW_WISE: (by_row * rows + (by_row * edge_cost if wide % lanes else 0), by_row * copy),
        PACKED: (packed * rows, 1.2 * packed + 3.5 * (runs + ceil_div(positions, vectors * lanes))),
        SWAPPED: (swapped, 1.5 * _SWAPPED_COST * positions),
    }
    if problem.pointwise and count == 1:
        costs = {CONTIGUOUS: (packed * rows, packed * copy), **costs}
    return {mode: cost for mode, cost in costs.items() if mode in tuning.modes}


def _blocking(
    problem: Problem,
    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis],
    channels: int,
    itemsize: int,
    vectors: int,
    lanes: int,
    packing: bool,
    positions: int,
    tuning: Tuning,
) -> Blocking:
    nr = vectors * lanes
    count, block = block_of(conv_axes, problem.images, channels, itemsize, positions, nr, tuning)
    if problem.pointwise and not (conv_axes[2].out < positions and problem.images > 1):
        block = (1, 1, balanced_block(conv_axes[2].out, 4 * positions, nr))
        count = 1
    whole_row = block[2] + conv_axes[2].halo
    row = min(whole_row, shared_row(conv_axes[2])) if block[2] == conv_axes[2].out else whole_row
    modes = _modes(problem, conv_axes, count, block, row, itemsize, vectors, lanes, packing, tuning)
    mode = min(modes, key=lambda mode: sum(modes[mode]))
    if mode not in (CONTIGUOUS, PADDED_GRID):
        row = whole_row
    rows = count * math.prod(
        (n + conv_axis.halo) * len(conv_axis.phases) for conv_axis, n in zip(conv_axes[:2], block[:2], strict=True)
    )
    copied = (
        _COPIED * rows * len(conv_axes[2].phases) * (ceil_div(row, lanes) + _ROW_COPIED) if mode != CONTIGUOUS else 0
    )
    product, copied_tiles = modes[mode]
    return Blocking(conv_axes, count, block, row, mode, packing, product, copied_tiles, copied * problem.channels)


@dataclass(frozen=True)
class ImplicitTiling:
    """The sizes of the blocks of a product: `mc` rows, `block_channels` channels, and `kc` steps along k."""

    blocking: Blocking
    mc: int
    block_channels: int
    kc: int
    #: The number of tiles that are multiplied by the same rows of weights before the kernel goes on to the next rows.
    #: The image cells of these tiles stay in the first-level cache.
    tiles: int
    #: Whether threads share packed weights. Sharing saves time if each thread has several blocks.
    shared: bool


def tile_product(
    problem: Problem, itemsize: int, threads: int, tile: tuple[int, int, int], tuning: Tuning
) -> ImplicitTiling:
    """Return the tiling for which the thread with the most work needs the least time.

    `tile` has three numbers: the rows of a tile, the vectors of a row, and the lanes of a vector.
    """
    mr, vectors, lanes = tile
    nr = vectors * lanes
    conv_axes = flat(problem.conv_axes) if problem.pointwise else problem.conv_axes
    taps = math.prod(conv_axis.taps for conv_axis in conv_axes)
    k = problem.channels * taps
    ways = [conv_axes]
    lines = math.prod(conv_axis.out for conv_axis in conv_axes[:2])
    if tuning.unrolls_taps and conv_axes[2].taps > 1 and lines > 1:
        ways.append((*conv_axes[:2], replace(conv_axes[2], unrolled=True)))
    # If results have a stride, they are stored element by element, which is slow. With more steps along k in each
    # block, results are stored less often.
    target_kc = (tuning.kc if nr * itemsize > _WIDE else tuning.kc_narrow) * (
        1 if conv_axes[2].output_stride == 1 else 2
    )
    block_channels = balanced_block(problem.channels, max(1, round(target_kc / taps)))
    near = target_kc * nr * itemsize <= tuning.near_bytes

    def shares(blocking: Blocking) -> bool:
        least = tuning.shared_blocks * threads * problem.groups
        return blocking.mode != SWAPPED and blocking.blocks(problem) >= least

    def most(blocking: Blocking, mc: int) -> float:
        """Return the number of vector operations of the thread with the most work, for blocks of `mc` rows."""
        part = mc / problem.rows
        items = ceil_div(blocking.blocks(problem) * ceil_div(problem.rows, mc), threads)
        packed = problem.rows * part * min(items, problem.groups if shares(blocking) else items)
        work = items * ((blocking.product * part + blocking.copied) * k + blocking.filled) + packed * k * _PACKED_COST
        return work if part == 1 else _SPLIT_COST * work

    candidates: list[tuple[float, int, Blocking, int]] = []
    most_split = min(threads, ceil_div(problem.rows, mr))
    for split in sorted({1, most_split} | {n for n in range(2, most_split) if threads % n == 0}):
        mc = balanced_block(problem.rows, ceil_div(problem.rows, split), mr)
        packing = near and problem.rows >= tuning.packing_rows * mr * split
        for part, way in itertools.product(_NC_SHARES, ways):
            positions = round(tuning.nc * part)
            blocking = _blocking(problem, way, block_channels, itemsize, vectors, lanes, packing, positions, tuning)
            candidates.append((most(blocking, mc), len(candidates), blocking, mc))
    _, _, blocking, mc = min(candidates)
    # A block along k has all taps of its channels, unless a channel has too many taps. The size of the packed weights
    # limits the block. This limit does not apply in the mode SWAPPED, which packs the weights of one tile at a time.
    if blocking.mode == SWAPPED:
        target_kc = _kc_swapped(blocking.count, blocking.block, itemsize, tuning)
        of_channel = Layout(blocking.conv_axes, blocking.count, blocking.block, blocking.row).channel_pitch(itemsize)
        held = max(block_channels, tuning.swapped_bytes // (of_channel * itemsize))
        block_channels = balanced_block(problem.channels, max(1, min(round(target_kc / taps), held)))
        most_k = round(1.25 * target_kc)
    else:
        most_k = min(round(1.25 * target_kc), max(tuning.kc_min, tuning.panel_bytes // (mc * itemsize)))
    kc = balanced_block(block_channels * taps, most_k)
    tiles = max(1, min(tuning.most_tiles, tuning.near_bytes // (kc * nr * itemsize)))
    return ImplicitTiling(blocking, mc, block_channels, kc, tiles, shares(blocking))
