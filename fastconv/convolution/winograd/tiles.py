"""Divides the work of `winograd` into blocks, makes the compiled plans, and counts the amounts of work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import numpy as np

from fastconv._ext.gemm import microkernel as _shape
from fastconv._ext.winograd.winograd import MOST_PANELS, GradientPlan, ProductPlan
from fastconv.checks import arrays as _arrays
from fastconv.convolution.blocking import balanced_block, ceil_div
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import NEAR_BYTES, memory, seconds
from fastconv.convolution.plan import Case, Op
from fastconv.convolution.winograd import decomposition as _decomposition
from fastconv.convolution.winograd.decomposition import WinogradProblem
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import is_large, plans
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Tuning:
    """The block sizes of `winograd`."""

    #: The largest number of bytes of the workspace of all threads together.
    space_bytes: int = 28 << 20
    #: The largest number of tiles of a block. With so many tiles, a block takes little time to read the weights,
    #: compared with its products.
    tiles: int = 64
    #: The number of tiles of a block that is enough if the weights fit the second-level cache.
    few_tiles: int = 24
    #: The bytes of the second-level cache that are reserved for the tiles and products of a block. Weights of more than
    #: this number of bytes are assumed not to fit beside them.
    block_bytes: int = 1 << 19
    #: The approximate number of filters whose products are computed in one pass over the tiles of a block. With so few
    #: filters, tiles and products stay in the cache until the products are transformed to outputs.
    pass_rows: int = 32
    #: For dw, the largest number of filters whose gradients a thread sums at a time. The same limit applies to the
    #: number of channels times the number of subkernels.
    sums: int = 128
    #: The bytes of weights that are transposed at a time. The transposed weights have the filters as their last axis,
    #: and stay in the second-level cache.
    transposed_bytes: int = 1 << 17


#: The block sizes of all calls. Tests use smaller blocks.
TUNING = Tuning()


@dataclass(frozen=True)
class Tiles:
    """A division of the work of one call, and its compiled plan.

    The compiled plan is made at its first use, because most divisions are only compared by cost. A plan with large
    tables is not stored, so each use makes it again.
    """

    make: Callable[[], ProductPlan | GradientPlan]
    #: The approximate number of elements of all tables of the compiled plan.
    length: int
    #: The number of partial sums of dw. It is above 1 if tiles are divided among threads.
    parts: int
    #: The number of taps of a subkernel along each of the last two axes.
    taps: tuple[int, int]
    work: dict[str, float]
    #: The factor by which the estimated time is multiplied before candidates are compared.
    penalty: float = 1.0

    @property
    def plan(self) -> ProductPlan | GradientPlan:
        """The compiled plan."""
        if is_large(self.length * np.dtype(np.intp).itemsize):
            return self.make()
        return self._held_plan

    @cached_property
    def _held_plan(self) -> ProductPlan | GradientPlan:
        return self.make()


def cheapest_tiles(case: Case, points: tuple[int, ...], taps: tuple[int, int] | None, tuning: Tuning = TUNING) -> Tiles:
    """Return the division of the work with the smallest estimated time.

    `points` lists the numbers of interpolation points along an axis to try. If `taps` is not None, only subkernels with
    these numbers of taps are tried.
    """
    return plans.find(_find_cheapest, case.op, case.geometry, case.dtype, case.threads, case.isa, points, taps, tuning)


def _find_cheapest(
    op: Op,
    geometry: ConvGeometry,
    dtype: np.dtype,
    threads: int,
    isa: int,
    points: tuple[int, ...],
    taps: tuple[int, int] | None,
    tuning: Tuning,
) -> Tiles:
    make = _weights_tiles if op == "backward_weights" else _product_tiles
    found = [
        make(problem, memory(geometry, dtype, threads), dtype, threads, isa, tuning)
        for problem in _decomposition.problems(op, geometry, points)
        if taps in (None, problem.subkernel)
    ]
    return min(found, key=lambda tiles: tiles.penalty * seconds("winograd", op, tiles.work))


def _planes(count: int, sizes: Iterable[int]) -> np.ndarray:
    """Return the offset, in elements, of each of `count` consecutive arrays of shape `sizes`."""
    return np.arange(count, dtype=np.intp) * math.prod(sizes)


def _pitch(n: int, line: int) -> int:
    """Return the distance, in elements, between the arrays of consecutive interpolation points.

    Each array has n elements. The distance is one cache line more than a multiple of 32 cache lines. So elements with
    the same index in different arrays are in different cache sets.
    """
    return ceil_div(n, 32 * line) * 32 * line + line


def _product_tiles(
    problem: WinogradProblem, moved: Mapping[str, float], dtype: np.dtype, threads: int, isa: int, tuning: Tuning
) -> Tiles:
    tile_rows, vectors, lanes = _shape.shape(_arrays.DTYPES[dtype], isa)
    itemsize = dtype.itemsize
    unit, line = vectors * lanes, 64 // itemsize
    points, k, phases = problem.points, problem.subkernels * problem.channels, problem.phases
    cell = ceil_div(problem.channels, lanes) * lanes
    v_step = ceil_div(k, lanes) * lanes + line
    pass_rows = min(min(ceil_div(tuning.pass_rows, unit), MOST_PANELS) * unit, ceil_div(problem.rows, lanes) * lanes)

    # The workspace of a thread holds the transformed tiles of a block, the transformed weights, and their products.
    share = tuning.space_bytes // itemsize // threads
    fixed = points * (k * pass_rows + line) + tuning.transposed_bytes // itemsize
    per_tile = points * (v_step + pass_rows) + 20 * cell
    few = tuning.tiles if points * k * problem.rows * phases * itemsize > tuning.block_bytes else tuning.few_tiles
    near = max(few, tuning.block_bytes // (points * (v_step + pass_rows) * itemsize))
    count, block = problem.block(max(1, min((share - fixed) // per_tile, tuning.tiles, near)))
    tiles = count * math.prod(block)
    blocks = problem.groups * problem.blocks(block, count)
    split = 1
    if blocks < 4 * threads and blocks % threads:
        widths = ceil_div(problem.rows, lanes)
        split = next((n for n in range(1, min(threads, widths) + 1) if blocks * n % threads == 0), min(threads, widths))
    block_rows = balanced_block(problem.rows, ceil_div(problem.rows, split), lanes)
    all_rows = ceil_div(block_rows, lanes) * lanes
    pass_rows = min(pass_rows, all_rows)
    weights_resident = blocks > threads and points * phases * (k + line) * all_rows <= share - tiles * per_tile
    chunk = min(problem.channels, max(1, tuning.transposed_bytes // (problem.taps * unit * itemsize)))

    cells = problem.cells(block)
    v_pitch, m_pitch = _pitch(tiles * v_step, line), _pitch(tiles * pass_rows, line)
    u_size = k * (all_rows * phases if weights_resident else pass_rows) + line * ceil_div(all_rows, lanes) * phases
    items = blocks * ceil_div(problem.rows, block_rows)
    weighings = min(threads, items) if weights_resident else items
    times = points * blocks * split * phases
    of_tiles, of_rows = _counts.panels(tiles, tile_rows), _counts.tile_vectors(all_rows, lanes, vectors)
    work = {
        "product": times * k * _counts.multiplied(of_tiles, of_rows),
        "tiles": times * sum(n for _, n in of_tiles) * sum(n for _, n in of_rows),
        "copied": blocks * split * count * cells * cell / lanes,
        "transforms": blocks * tiles * split * (problem.subkernels * cell + phases * all_rows) / lanes,
        "image": problem.of_image * blocks * tiles * split * problem.subkernels * cell / lanes,
        "result": problem.of_result * blocks * tiles * all_rows * split * phases / lanes,
        "weights": problem.of_weights * weighings * k * all_rows * phases / lanes,
        "spilled": blocks * split * _beyond((points * (v_pitch + u_size + m_pitch)) * itemsize),
    }
    return Tiles(
        lambda: ProductPlan(
            dtype=_arrays.DTYPES[dtype],
            isa=isa,
            problem=problem,
            block=block,
            block_images=count,
            block_rows=block_rows,
            pass_rows=pass_rows,
            chunk=chunk,
            weights_resident=weights_resident,
            cells=cells,
            lanes=cell,
            v_step=v_step,
            v_pitch=v_pitch,
            u_size=u_size,
            u_padding=line,
            m_pitch=m_pitch,
            offsets=problem.offsets(),
            taps=problem.tap_of(),
            output_offsets=problem.output_offsets(),
            planes=_planes(problem.channels, (tile_axis.size for tile_axis in problem.tile_axes)),
        ),
        problem.table_length + problem.channels,
        parts=1,
        taps=problem.subkernel,
        work=_shared(work, moved, items, threads),
        penalty=problem.penalty,
    )


def _weights_tiles(
    problem: WinogradProblem, moved: Mapping[str, float], dtype: np.dtype, threads: int, isa: int, tuning: Tuning
) -> Tiles:
    tile_rows, vectors, lanes = _shape.shape(_arrays.DTYPES[dtype], isa)
    itemsize = dtype.itemsize
    line = 64 // itemsize
    points, subkernels = problem.points, problem.subkernels
    block_rows = balanced_block(problem.rows, tuning.sums, lanes)
    block_channels = balanced_block(problem.channels, max(tuning.sums // subkernels, 1), lanes)
    cell, rows_cell = ceil_div(block_channels, lanes) * lanes, ceil_div(block_rows, lanes) * lanes
    k = ceil_div(subkernels * block_channels, lanes) * lanes
    v_step, u_step = k + line, rows_cell + line
    share = tuning.space_bytes // itemsize // threads
    fixed = points * block_rows * k
    per_tile = points * (v_step + u_step) + 20 * max(cell, rows_cell)
    count, block = problem.block(max(1, min((share - fixed) // per_tile, tuning.tiles)))
    tiles = count * math.prod(block)
    blocks = problem.blocks(block, count)
    items = problem.groups * ceil_div(problem.rows, block_rows) * ceil_div(problem.channels, block_channels)
    parts = min(threads, blocks) if items < 4 * threads and items % threads else 1

    cells, results = problem.cells(block), problem.results(block)
    v_pitch, u_pitch = _pitch(tiles * v_step, line), _pitch(tiles * u_step, line)
    m_pitch = _pitch(block_rows * k + line, line)
    seen, times = blocks * tiles * items, points * blocks * items
    of_rows, of_columns = _counts.panels(block_rows, tile_rows), _counts.tile_vectors(k, lanes, vectors)
    work = {
        "product": times * tiles * _counts.multiplied(of_rows, of_columns),
        "tiles": times * sum(n for _, n in of_rows) * sum(n for _, n in of_columns),
        "copied": blocks * items * count * (cells * cell + results * rows_cell) / lanes,
        "transforms": seen * (subkernels * cell + rows_cell) / lanes,
        "image": problem.of_image * seen * subkernels * cell / lanes,
        "result": problem.transposed.of_weights * seen * rows_cell / lanes,
        "weights": problem.transposed.of_result * parts * items * k * rows_cell / lanes,
        "spilled": blocks * items * _beyond(points * (v_pitch + u_pitch + 2 * m_pitch) * itemsize),
    }
    return Tiles(
        lambda: GradientPlan(
            dtype=_arrays.DTYPES[dtype],
            isa=isa,
            problem=problem,
            block=block,
            block_images=count,
            block_rows=block_rows,
            block_channels=block_channels,
            parts=parts,
            cells=cells,
            results=results,
            lanes=cell,
            row_lanes=rows_cell,
            v_step=v_step,
            v_pitch=v_pitch,
            u_step=u_step,
            u_pitch=u_pitch,
            m_step=k,
            m_pitch=m_pitch,
            offsets=problem.offsets(),
            taps=problem.tap_of(),
            planes=_planes(block_channels, (tile_axis.size for tile_axis in problem.tile_axes)),
            filter_planes=_planes(block_rows, (tile_axis.output_size for tile_axis in problem.tile_axes)),
        ),
        problem.table_length + block_channels + block_rows,
        parts=parts,
        taps=problem.subkernel,
        work=_shared(work, moved, items * parts, threads),
        penalty=problem.penalty,
    )


def _beyond(nbytes: int) -> int:
    """Return how many of the `nbytes` bytes of a block's workspace do not fit the caches of a core."""
    return max(nbytes - NEAR_BYTES, 0)


def _shared(work: Mapping[str, float], moved: Mapping[str, float], items: int, threads: int) -> dict[str, float]:
    """Return the work of the thread with the most work items.

    `work` is the work of all threads together. `moved` is the work of reading and writing memory, and is included in
    the result.
    """
    part = _counts.largest_share(items, int(work["product"] * _isa.BYTES_PER_OPERATION), threads)
    return {**_counts.total(work, part), "blocks": items * part, **moved, "call": 1.0}
