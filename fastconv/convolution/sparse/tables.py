"""Makes the tables of `sparse`: the sizes of blocks, the layout of padded blocks, and the offset of each tap."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np

from fastconv._ext.sparse import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.blocking import ConvAxis, Layout, Problem, ceil_div, kernel_weights
from fastconv.convolution.sparse import tiling as _tiling
from fastconv.convolution.sparse.tiling import DEFAULT_TUNING, SparseTiling, Tuning
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class SparseTables:
    """The tables of one product of weights and images. Stride phases of dx with equal sizes share tables."""

    #: The sizes of the product, as `sizes_of` returns them.
    problem: Problem
    tiling: SparseTiling
    tuning: Tuning
    itemsize: int
    #: The number of elements of a vector.
    lanes: int
    #: The largest number of threads of a call.
    workers: int
    #: The layout of a padded block, and the result of its method `phases`.
    patch: Layout
    phases: np.ndarray
    #: The kernel copies rows of a padded block to vector lanes, `copy_rows` rows in one call. For each call, `copy_to`
    #: has the offset of its first vector, and `copy_from` the offset of its first row in the padded block. For each row
    #: of results, `row_offsets` has the offset of the first vector that the row reads.
    copy_rows: int
    copy_to: np.ndarray
    copy_from: np.ndarray
    row_offsets: np.ndarray
    #: `tap_offsets` has the offset of each tap. `channel_pitch` is the distance between neighbouring channels, and
    #: `row_pitch` between neighbouring rows. All three are in elements of a single vector lane.
    tap_offsets: np.ndarray
    channel_pitch: int
    row_pitch: int
    taps: int
    #: The number of row blocks. A row block is a group of rows of weights that are listed and multiplied together.
    row_blocks: int
    #: The number of lists of nonzero weights of all row blocks.
    units: int
    #: The number of blocks of results.
    blocks: int
    #: The number of weights that are compared with zero.
    weights: int
    #: The number of multiply-adds of vectors if no weight is zero, and the number of all other vector operations.
    product: float
    overhead: float
    #: The number of partial sums of dw; 0 if the product is not dw.
    parts: int

    @property
    def nbytes(self) -> int:
        """The number of bytes of the tables."""
        return sum(table.nbytes for table in (self.copy_to, self.copy_from, self.row_offsets, self.tap_offsets))

    @cached_property
    def workspace(self) -> int:
        """The number of bytes of the workspace of a call."""
        return _ext.workspace(self)

    def plan_of(self, problem: Problem, isa: int) -> _ext.ProductPlan:
        """Return the compiled plan of a product whose sizes, as `sizes_of` returns them, are those of the tables."""
        at = np.full(self.taps, -1, np.int64)
        at[kernel_weights(problem.conv_axes, problem.kernel)] = self.tap_offsets
        channels = np.arange(self.tiling.channels)[:, None]
        # Taps that belong to other stride phases get the offset -1.
        offsets = np.where(at >= 0, channels * self.channel_pitch + at, -1).astype(np.int32)
        # For dw, `weight_at` maps each offset to the index of its weight.
        weight_at = np.full(self.tiling.channels * self.channel_pitch if self.parts else 1, -1, np.int32)
        if self.parts:
            weights = channels * problem.channel_step + np.arange(self.taps)
            weight_at[offsets[offsets >= 0]] = weights[offsets >= 0]
        return _ext.ProductPlan(
            dtype=0 if self.itemsize == 4 else 1,
            isa=isa,
            tables=self,
            layout=replace(self.patch, conv_axes=problem.conv_axes),
            tap_offsets=offsets.ravel(),
            weight_at=weight_at,
        )

    def plan_bytes(self, problem: Problem) -> int:
        """Return the number of bytes of the arrays that `plan_of` makes."""
        return 4 * self.tiling.channels * (math.prod(problem.kernel) + self.channel_pitch * (self.parts > 0))


def sizes_of(problem: Problem) -> Problem:
    """Return a copy of the problem in which the offsets of its source, results and weights are zero.

    Stride phases of equal sizes have equal copies, so they can share tables.
    """

    def same(line: ConvAxis) -> ConvAxis:
        return replace(line.kind, lo=0)

    d, h, w = problem.conv_axes
    return replace(problem, conv_axes=(same(d), same(h), same(w)))


def tables_for(
    sizes: Problem, dtype: np.dtype, threads: int, isa: int, dots: bool = False, tuning: Tuning = DEFAULT_TUNING
) -> SparseTables:
    """Return the tables of a product or, if `dots` is true, of dot products. `sizes` comes from `sizes_of`."""
    return plans.find_sized(_nbytes, make_tables, sizes, dtype, threads, isa, dots, tuning)


def _nbytes(tables: SparseTables) -> int:
    return tables.nbytes


def make_tables(problem: Problem, dtype: np.dtype, threads: int, isa: int, dots: bool, tuning: Tuning) -> SparseTables:
    """Make the tables that `tables_for` returns and caches."""
    itemsize = dtype.itemsize
    lanes = _ext.lanes(dtype=_arrays.DTYPES[dtype], isa=isa)
    # The bytes that a list stores for a weight: 4 for the offset, and the value. For dot products, it stores one sum
    # for each thread in place of the value.
    entry = 4 + itemsize * (threads if dots else 1)
    most = _ext.most_vectors(isa=isa, dots=dots)
    tiling = _tiling.best_tiling(problem, itemsize, threads, lanes, most, entry, tuning)
    deep, high, wide = tiling.part
    d, h, w = problem.conv_axes
    block = deep * tiling.lanes[1], high * tiling.lanes[2], wide * tiling.lanes[3]
    patch = Layout(problem.conv_axes, tiling.lanes[0], block, block[2] + w.halo)
    inner = Layout(problem.conv_axes, 1, tiling.part, wide + w.halo)
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
    copy_to, copy_from = np.array(copies, np.intp).T.copy()
    row_offsets = [lanes * (cell * pitches[0] + row * pitches[1]) for cell in range(deep) for row in range(high)]

    blocks = ceil_div(problem.images, tiling.lanes[0])
    blocks *= math.prod(ceil_div(line.out, n) for line, n in zip(problem.conv_axes, block, strict=True))
    row_blocks = problem.groups * ceil_div(problem.rows, tiling.rows)
    units = row_blocks * ceil_div(problem.channels, tiling.channels)
    used = math.prod(line.taps for line in problem.conv_axes) * problem.channels
    return SparseTables(
        problem=problem,
        tiling=tiling,
        tuning=tuning,
        itemsize=itemsize,
        lanes=lanes,
        workers=max(1, min(threads, max(units, blocks * row_blocks))),
        patch=patch,
        phases=patch.phases(),
        copy_rows=high + h.halo,
        copy_to=copy_to,
        copy_from=copy_from,
        row_offsets=np.array(row_offsets, np.intp),
        tap_offsets=inner.taps(),
        channel_pitch=inner.image_pitch + 1 - inner.image_pitch % 2,
        row_pitch=pitches[1],
        taps=taps,
        row_blocks=row_blocks,
        units=units,
        blocks=blocks,
        weights=problem.groups * problem.rows * problem.channels * taps,
        product=float(blocks * row_blocks * tiling.rows * used * len(row_offsets) * wide),
        overhead=float(blocks * row_blocks * tiling.overhead),
        parts=min(threads, blocks) if dots else 0,
    )
