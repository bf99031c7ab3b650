"""Makes the tables that the kernels of `sparse` read: the layout of padded blocks, and the offset of each tap."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastconv._ext.sparse import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.blocking import (
    LO,
    OUTPUT_OFFSET,
    ConvAxis,
    Layout,
    Problem,
    align_up,
    ceil_div,
    kernel_weights,
)
from fastconv.convolution.sparse import tiling as _tiling
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The bytes of a cache line. All arrays in a workspace are aligned to cache lines.
LINE = 64


@dataclass(frozen=True)
class SparseTables:
    """The tables of one product of weights and images. Stride phases of dx with equal sizes share tables.

    A row block is a group of rows of weights that are listed and multiplied together. `list_bytes` is the number of
    bytes of the lists of a row block. `units` is the number of lists of all row blocks. `space` is the number of bytes
    of the workspace of a thread. `product` is the number of multiply-adds of vectors if no weight is zero. `overhead`
    is the number of all other vector operations.
    """

    axes: np.ndarray
    phases: np.ndarray
    sizes: np.ndarray
    #: Three tables: the offsets of the rows that are copied from a padded block to vector lanes, the offsets of the
    #: rows of results, and the tiles that `tiling.tiles_of` returns.
    offsets_and_tiles: tuple[np.ndarray, np.ndarray, np.ndarray]
    #: `tap_offsets` has the offset of each tap. `channel_pitch` is the distance between neighbouring channels. Both are
    #: in elements of a single vector lane.
    tap_offsets: np.ndarray
    channel_pitch: int
    channels: int
    list_bytes: int
    space: int
    row_blocks: int
    row_blocks_at_once: int
    units: int
    blocks: int
    weights: int
    product: float
    overhead: float
    #: `dots` is true if the compiled kernel computes dot products for dw. `parts` is the number of partial sums of dw.
    dots: bool
    parts: int

    @property
    def nbytes(self) -> int:
        """The number of bytes of the tables."""
        return sum(table.nbytes for table in (self.sizes, *self.offsets_and_tiles, self.tap_offsets))

    def of_phase(self, problem: Problem) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return arguments of the compiled kernel for one product: a tuple of tables, and an array `weight_at`.

        For dot products, `weight_at` maps each offset to the index of its weight.
        """
        axes, taps = self.axes.copy(), math.prod(problem.kernel)
        axes[:, [LO, OUTPUT_OFFSET]] = [(line.lo, line.output_offset) for line in problem.conv_axes]
        at = np.full(taps, -1, np.int64)
        at[kernel_weights(problem.conv_axes, problem.kernel)] = self.tap_offsets
        channels = np.arange(self.channels)[:, None]
        # Taps that belong to other stride phases get the offset -1.
        offsets = np.where(at >= 0, channels * self.channel_pitch + at, -1).astype(np.int32)
        weight_at = np.full(self.channels * self.channel_pitch if self.dots else 1, -1, np.int32)
        if self.dots:
            weights = channels * problem.channel_step + np.arange(taps)
            weight_at[offsets[offsets >= 0]] = weights[offsets >= 0]
        return (axes, self.phases, self.sizes, offsets.ravel(), *self.offsets_and_tiles), weight_at


def sizes_of(problem: Problem) -> Problem:
    """Return a copy of the problem in which the offsets of its source, results and weights are zero.

    Stride phases of equal sizes have equal copies, so they can share tables.
    """

    def same(line: ConvAxis) -> ConvAxis:
        return replace(line.kind, lo=0)

    d, h, w = problem.conv_axes
    return replace(problem, conv_axes=(same(d), same(h), same(w)))


def tables_for(sizes: Problem, dtype: np.dtype, threads: int, isa: int, dots: bool = False) -> SparseTables:
    """Return the tables of a product or, if `dots` is true, of dot products. `sizes` comes from `sizes_of`."""
    return plans.find_sized(_nbytes, make_tables, sizes, dtype, threads, isa, dots)


def _nbytes(tables: SparseTables) -> int:
    return tables.nbytes


def make_tables(problem: Problem, dtype: np.dtype, threads: int, isa: int, dots: bool) -> SparseTables:
    """Make the tables that `tables_for` returns and caches."""
    itemsize = dtype.itemsize
    lanes, most = _ext.shape(_arrays.DTYPES[dtype], isa, dots)
    # The bytes of a weight in a list: 4 for its offset, and the bytes of its value. For dot products, the list has one
    # sum for each thread instead of the value.
    entry = 4 + itemsize * (threads if dots else 1)
    tiling = _tiling.best_tiling(problem, itemsize, threads, lanes, most, entry)
    deep, high, wide = tiling.part
    d, h, w = problem.conv_axes
    block = deep * tiling.lanes[1], high * tiling.lanes[2], wide * tiling.lanes[3]
    patch = Layout(problem.conv_axes, tiling.lanes[0], block, block[2] + w.halo)
    inner = Layout(problem.conv_axes, 1, tiling.part, wide + w.halo)
    channel_pitch = inner.image_pitch + 1 - inner.image_pitch % 2
    taps = math.prod(problem.kernel)

    n_phases = [len(line.phases) for line in problem.conv_axes]
    of_inner, of_patch = inner.phase_pitches, patch.phase_pitches
    pitches, deep_patch = inner.pitches, patch.pitches[0]
    copies = [
        (
            lanes * (sd * of_inner[0] + cell * pitches[0] + sh * of_inner[1] + sw * of_inner[2]),
            sd * of_patch[0] + cell * deep_patch + sh * of_patch[1] + sw * of_patch[2],
        )
        for sd in range(n_phases[0])
        for cell in range(deep + d.halo)
        for sh in range(n_phases[1])
        for sw in range(n_phases[2])
    ]
    row_offsets = [lanes * (cell * pitches[0] + row * pitches[1]) for cell in range(deep) for row in range(high)]
    tiles = _tiling.tiles_of(len(row_offsets), wide, tiling.tile)

    listed = tiling.rows * tiling.channels * taps + _ext.spare
    list_offsets_at = align_up(8 * tiling.rows, LINE)
    list_values_at = list_offsets_at + align_up(4 * listed, LINE)
    blocks = ceil_div(problem.images, tiling.lanes[0])
    blocks *= math.prod(ceil_div(line.out, n) for line, n in zip(problem.conv_axes, block, strict=True))
    parts = min(threads, blocks) if dots else 0
    list_pitch = list_values_at + max(parts, 1) * align_up(itemsize * listed, LINE)
    lanes_at = align_up(itemsize * (tiling.lanes[0] * patch.image_pitch + 2 * LINE), LINE)
    sums_at = lanes_at + align_up(itemsize * lanes * tiling.channels * channel_pitch, LINE)
    locations_at = sums_at + align_up(itemsize * lanes * (tiling.rows + dots) * len(row_offsets) * wide, LINE)
    space = locations_at + align_up(16 * lanes * len(row_offsets), LINE)
    sizes = [
        problem.images,
        problem.groups,
        problem.rows,
        problem.row_step,
        tiling.rows,
        problem.channels,
        problem.channel_step,
        tiling.channels,
        taps,
        patch.image_pitch,
        channel_pitch * lanes,
        inner.pitches[1] * lanes,
        high + h.halo,
        len(copies),
        len(row_offsets),
        wide,
        len(tiles),
        *tiling.lanes,
        *tiling.part,
        lanes_at,
        sums_at,
        locations_at,
        list_offsets_at,
        list_values_at,
        list_pitch,
    ]
    lists = ceil_div(problem.channels, tiling.channels)
    row_blocks = problem.groups * ceil_div(problem.rows, tiling.rows)
    used = math.prod(line.taps for line in problem.conv_axes) * problem.channels
    return SparseTables(
        patch.axes(),
        patch.phases(),
        np.array(sizes, np.intp),
        (np.array(copies, np.intp), np.array(row_offsets, np.intp), np.array(tiles, np.intp)),
        inner.taps(),
        channel_pitch,
        tiling.channels,
        list_bytes=lists * list_pitch,
        space=max(space, list_pitch),
        row_blocks=row_blocks,
        row_blocks_at_once=max(1, min(row_blocks, _tiling.LISTS_BYTES // (lists * list_pitch))),
        units=row_blocks * lists,
        blocks=blocks,
        weights=problem.groups * problem.rows * problem.channels * taps,
        product=float(blocks * row_blocks * tiling.rows * used * len(row_offsets) * wide),
        overhead=float(blocks * row_blocks * tiling.overhead),
        dots=dots,
        parts=parts,
    )
