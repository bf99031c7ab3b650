"""The product without the matrix: weights times an image that packing reads where it lies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastconv import _arrays, _isa, _threads
from fastconv._ext import implicit as _ext
from fastconv._ext import implicit_weights as _ext_weights
from fastconv.algorithms._blocks import (
    Layout,
    Line,
    Problem,
    even,
    forward_lines,
    kernel_weights,
    lift,
    line_up,
    pieces,
    problems,
    shared_row,
)
from fastconv.algorithms.base import Algorithm, Op, per_channel, share, touched
from fastconv.geometry import ConvGeometry

WHOLE, GRID, ROWS, PACKED, TURNED = range(5)

#: Of a block's padded image, and of packed weights: each shares the second-level cache with the other.
_BLOCK_BYTES, _PANEL_BYTES = 1 << 19, 3 << 17
import os
#: Of k at a time, between which results are stored: of tiles of three vectors, of narrower ones, and at least.
_STRETCH, _SHORT_STRETCH, _LEAST_STRETCH = 240, int(os.environ.get("FCX_S",160)), 64
#: Positions at a time of which dw is summed.
_SUMMED, _LEAST_SUMMED = 320, 128
#: Rows of a tile are put side by side for so many tiles of rows, where that panel stays in the first-level cache.
_PACKING_ROWS, _NEAR_BYTES = int(os.environ.get("FCX_R",6)), int(os.environ.get("FCX_N",20000))
#: Positions that make packing the weights cheap beside multiplying by them.
_POSITIONS = int(os.environ.get("FCX_P",480))
#: Blocks are some parts smaller where that shares them out evenly.
_POSITION_PARTS = 1, 0.82, 0.67, 0.5
#: Halves of the rows take more than half as long.
_SPLIT_COST = 1.06
#: What each tile takes beside its vectors, for a row and k.
_NARROW = 0.5
#: Taps that each have cells to themselves fill the first-level cache, unless they are put side by side.
_SPREAD_COST = 1.06
#: What packing one of the weights takes, in vector operations.
_PACKED_COST = 0.8
#: What copying a vector into a block takes, in vector operations, and how many vectors a row counts beside its own.
_COPIED, _ROW_COPIED = 2, 3
#: Measured: tiles of filters by positions, which are turned back one by one, beside their count of operations.
_TURNED_COST = 1.15
#: Of a tile, in any instruction set.
_MOST_LANES = 64
#: Weights of a gradient by the image are put side by side first, where as many blocks use them, and they take no more.
_GATHERED_BLOCKS, _GATHERED_BYTES = 3, 1 << 24
#: Packed weights are shared where every thread has as many blocks that use them, and they take no more.
_SHARED_BLOCKS, _SHARED_BYTES = int(os.environ.get("FCX_SB",2)), 1 << 24
#: Tables of products longer than this are not kept with the geometry.
_LONG_K = 1 << 16


@dataclass(frozen=True)
class Gather:
    """Of weights (groups * channels, rows, *kernel) the taps of a product, with the rows of each side by side.

    As they lie, a panel of rows is gathered cell by cell from all over the
    memory, and that anew for every block.
    """

    shape: tuple[int, ...]
    taps: tuple[slice, slice, slice]

    @property
    def size(self) -> int:
        """Elements of the result."""
        *lead, d, h, w = self.shape
        return math.prod(lead) * math.prod(len(range(n)[t]) for n, t in zip((d, h, w), self.taps, strict=True))

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(w.reshape(self.shape)[(..., *self.taps)].transpose(0, 2, 3, 4, 1))


@dataclass(frozen=True)
class Plan:
    """One call of a kernel: its tables, its workspace in elements a thread, its items and the outputs it has."""

    #: With all of this in it: an `implicit.Multiply`, or for dw an `implicit_weights.Contract`.
    kernel: Any
    tables: tuple[np.ndarray, ...]
    space: int
    items: int
    product: float
    packed: float
    #: Outputs of an image's channel; of a product only.
    outs: int = 0
    parts: int = 1
    gather: Gather | None = None
    #: Elements of packed weights that all threads share.
    shared: int = 0

    @cached_property
    def copied(self) -> int:
        """Bytes a plain copy moves in the time it takes, for `_threads.share`."""
        return int(self.product * _isa.BYTES_PER_OPERATION)


class Implicit(Algorithm):
    """Implicit GEMM: packed panels of weights times tiles of positions, in registers.

    The image is copied, block by block, into a padded buffer split into stride
    phases. There every tap is one offset, and a tile of neighbouring outputs
    is a few runs of memory: no matrix of columns exists. With f filters and c
    channels a group and T taps:

    - forward:          out = w @ image    [f x cT] @ [cT x positions]
    - backward_data:    dx = w' @ dout     [c x fT'] @ [fT' x positions], one product per stride phase,
      whose T' taps are every stride-th of the flipped kernel
    - backward_weights: dw = dout @ image' [f x positions] @ [positions x cT]

    References
    ----------
    K. Goto, R. van de Geijn, "Anatomy of high-performance matrix
    multiplication", ACM TOMS 34(3), 2008 (panels); S. Chetlur et al., "cuDNN:
    efficient primitives for deep learning", arXiv:1410.0759 (no columns).
    """

    name = "implicit"

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Per thread a padded block, packed weights and a panel; for dw, where it is small, one more dw each."""
        # There are no plans where no output meets the image.
        plans = _plans(op, geometry, dtype, threads)
        parts = max((plan.parts for plan in plans), default=0)
        partial = math.prod(geometry.w_shape) * (parts if parts > 1 else 0)
        gathered = max((plan.gather.size for plan in plans if plan.gather), default=0)
        space = max((threads * plan.space + plan.shared for plan in plans), default=0)
        return (space + partial + gathered) * dtype.itemsize

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """The products in vector operations, and what is packed for them in elements."""
        plans = _plans(op, geometry, dtype, threads)
        work = {"touched": touched(geometry, dtype) / threads, "call": float(len(plans))}
        for plan in plans:
            part = share(plan.items, threads)
            work["product"] = work.get("product", 0) + part * plan.product * _isa.relative()
            work["packed"] = work.get("packed", 0) + part * plan.packed
        return work

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Bias is added to the finished sums."""
        (plan,) = _plans("forward", geometry, out.dtype, threads)
        _run(plan, threads, x, w, b, out)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """One forward product per stride phase; cells that no tap meets are zero."""
        self.transposed(dout, w, None, geometry, dx, threads)

    def transposed(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Bias as in `forward`; cells that no tap meets are bias alone."""
        plans = _plans("backward_data", geometry, out.dtype, threads)
        if _leaves_cells(plans, geometry):
            out[...] = 0 if b is None else per_channel(b, geometry)
        for plan in plans:
            _run(plan, threads, x, w, b, out)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Where dw is small, each thread sums positions of its own into a dw of its own."""
        (plan,) = _plans("backward_weights", geometry, dw.dtype, threads)
        _contract(plan, threads, x, dout, dw)

    def bind(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Callable[..., None]:
        """With the plan of the op, where that is one and is kept."""
        plans = _plans(op, geometry, dtype, threads)
        if len(plans) > 1 or _length(plans) > _LONG_K or (op == "backward_data" and _leaves_cells(plans, geometry)):
            return super().bind(op, geometry, dtype, threads)
        plan = plans[0]
        if op == "backward_data":
            return lambda dout, w, dx: _run(plan, threads, dout, w, None, dx)
        return partial(_run if op == "forward" else _contract, plan, threads)


def _leaves_cells(plans: tuple[Plan, ...], geometry: ConvGeometry) -> bool:
    """Whether gradients of the image have cells that no tap meets."""
    return sum(plan.outs for plan in plans) < math.prod(geometry.x_shape[2:])


def _run(
    plan: Plan, threads: int, source: np.ndarray, w: np.ndarray, bias: np.ndarray | None, result: np.ndarray
) -> None:
    words = _threads.words(plan.items, plan.copied, threads)
    w = w if plan.gather is None else plan.gather(w)
    size = min(threads, plan.items) * plan.space + plan.shared
    with _arrays.workspace("blocks of the image", (size,), result.dtype) as space:
        plan.kernel.run(source, w, bias, result, space, words)


def _contract(plan: Plan, threads: int, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
    words = _threads.words(plan.items, plan.copied, threads)
    parts = dw if plan.parts == 1 else np.empty((plan.parts, dw.size), dw.dtype)
    with _arrays.workspace("blocks of the image", (min(threads, plan.items), plan.space), dw.dtype) as space:
        plan.kernel.run(x, dout, parts, space, words)
    if plan.parts > 1:
        np.sum(parts, axis=0, out=dw.reshape(-1))


def _plans(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> tuple[Plan, ...]:
    kept: dict[Any, tuple[Plan, ...]] = vars(geometry).setdefault("_implicit", {})
    key = op, dtype.itemsize, threads, _isa.current
    found = kept.get(key)
    if found is not None:
        return found
    tile = _ext.shape(_arrays.DTYPES[dtype], _isa.current)
    if op == "backward_weights":
        plans: tuple[Plan, ...] = (_weights_plan(geometry, dtype.itemsize, threads, tile),)
    else:
        plans = tuple(_product_plan(p, dtype.itemsize, threads, tile) for p in problems(op, geometry))
    if _length(plans) <= _LONG_K:
        kept[key] = plans
    return plans


def _length(plans: tuple[Plan, ...]) -> int:
    return sum(len(table) for plan in plans for table in plan.tables)


def _flat(lines: tuple[Line, Line, Line]) -> tuple[Line, Line, Line]:
    """The axes of a pointwise layer as one."""
    n = math.prod(line.out for line in lines)
    return lift([Line(n, 1, 0, 1, n, 0, 1, n, (0,))])


def _block(
    lines: tuple[Line, Line, Line], images: int, channels: int, itemsize: int, positions: int, unit: int
) -> tuple[int, tuple[int, int, int]]:
    """Images and outputs of a block: some `positions`, more where the margin around them would be most of it."""
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
    """Blocks of a product, and the way of making tiles of them; what one takes is in vector operations."""

    lines: tuple[Line, Line, Line]
    count: int
    block: tuple[int, int, int]
    row: int
    mode: int
    #: For each k: all rows, and putting positions side by side.
    product: float
    copied: float
    #: To copy the source into it.
    filled: float

    @property
    def blocks(self) -> int:
        """Of one image, or of `count`."""
        return math.prod(pieces(line.out, n) for line, n in zip(self.lines, self.block, strict=True))


def _tiles(positions: int, vectors: int, lanes: int) -> float:
    """What tiles of so many positions take for each k and row, in vector operations: more where they are narrow."""
    n = pieces(positions, lanes)
    return (n + _NARROW * pieces(n, vectors)) * vectors / (vectors + _NARROW)


def _modes(
    problem: Problem,
    lines: tuple[Line, Line, Line],
    count: int,
    block: tuple[int, int, int],
    row: int,
    vectors: int,
    lanes: int,
    packing: bool,
) -> dict[int, tuple[float, float]]:
    """What a block takes for each k in each way of making tiles of it, in vector operations: its rows, and to copy it."""
    deep, high, wide = block
    planes, rows = count * deep, problem.rows
    # Rows that follow each other in block and result are one run.
    joined = row == wide == lines[2].whole
    stretches = planes * high
    runs = planes if joined else stretches
    positions = stretches * wide
    packed = _tiles(positions, vectors, lanes)
    k = problem.channels * math.prod(line.taps for line in lines)
    by_row = stretches * _tiles(wide, vectors, lanes)
    grid = planes * _tiles((high - 1) * row + wide, vectors, lanes)
    # Tiles that are not whole go through a buffer, once for every stretch of k.
    spilled = 2 * rows / min(k, _STRETCH)
    loose = (planes if high * wide % lanes else 0) if joined else grid
    # Rows of tiles are put side by side, or read where they lie.
    copy = 2 if packing else 0
    turned = positions * (pieces(rows, lanes) + rows / k) + 6 * pieces(rows, lanes)
    costs = {
        GRID: (grid * rows + (loose + 2 * runs) * spilled, grid * copy),
        ROWS: (by_row * rows + (by_row * spilled if wide % lanes else 0), by_row * copy),
        PACKED: (packed * rows, 1.2 * packed + 3.5 * (runs + pieces(positions, vectors * lanes))),
        TURNED: (_TURNED_COST * turned, 1.5 * _TURNED_COST * positions),
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
    count, block = _block(lines, problem.images, channels, itemsize, positions, unit)
    if problem.pointwise and not (lines[2].out < positions and problem.images > 1):
        block = (1, 1, even(lines[2].out, 4 * positions, unit))
        count = 1
    whole_row = block[2] + lines[2].reach
    row = min(whole_row, shared_row(lines[2])) if block[2] == lines[2].out else whole_row
    modes = _modes(problem, lines, count, block, row, vectors, lanes, packing)
    mode = min(modes, key=lambda mode: sum(modes[mode]))
    if mode not in (WHOLE, GRID):
        row = whole_row
    rows = count * math.prod((n + line.reach) * len(line.phases) for line, n in zip(lines[:2], block[:2], strict=True))
    copied = _COPIED * rows * len(lines[2].phases) * (pieces(row, lanes) + _ROW_COPIED) if mode != WHOLE else 0
    product, copied_tiles = modes[mode]
    if lines[2].spread and not packing:
        product *= _SPREAD_COST
    return Cut(lines, count, block, row, mode, product, copied_tiles, copied * problem.channels)


def _product_plan(problem: Problem, itemsize: int, threads: int, tile: tuple[int, int, int]) -> Plan:
    tile_rows, vectors, lanes = tile
    unit = vectors * lanes
    lines = _flat(problem.lines) if problem.pointwise else problem.lines
    taps = math.prod(line.taps for line in lines)
    k = problem.channels * taps
    ways = [lines]
    if lines[2].taps > 1 and math.prod(line.out for line in lines) > lines[2].out:
        ways.append((*lines[:2], replace(lines[2], spread=True)))
    # Results that lie apart are added to one by one, so less often.
    stretch = (_STRETCH if unit * itemsize > 128 else _SHORT_STRETCH) * (1 if lines[2].jump == 1 else 2)
    block_channels = even(problem.channels, max(1, round(stretch / taps)))
    near = stretch * unit * itemsize <= _NEAR_BYTES
    shared = _SHARED_BLOCKS * threads * problem.groups

    def most(cut: Cut, split: int) -> float:
        """What the thread with most to do has to do, where rows are split."""
        blocks = problem.groups * pieces(problem.images, cut.count) * cut.blocks
        items = pieces(blocks * split, threads)
        packed = problem.rows / split * min(items, problem.groups if blocks >= shared else items)
        work = items * ((cut.product / split + cut.copied) * k + cut.filled) + packed * k * _PACKED_COST
        return work if split == 1 else _SPLIT_COST * work

    candidates = []
    for split in sorted({1, min(threads, pieces(problem.rows, tile_rows))}):
        packing = near and problem.rows >= _PACKING_ROWS * tile_rows * split
        for part, way in itertools.product(_POSITION_PARTS, ways):
            positions = round(_POSITIONS * part)
            cut = _cut(problem, way, block_channels, itemsize, vectors, lanes, packing, positions)
            candidates.append((most(cut, split), len(candidates), cut, split, packing))
    _, _, cut, split, packing = min(candidates)
    lines, count, block, row, mode = cut.lines, cut.count, cut.block, cut.row, cut.mode
    blocks = problem.groups * pieces(problem.images, count) * cut.blocks
    block_rows = even(problem.rows, pieces(problem.rows, split), tile_rows)
    block_k = even(block_channels * taps, min(round(1.25 * stretch), max(_LEAST_STRETCH, _PANEL_BYTES // (block_rows * itemsize))))

    layout = Layout(lines, count, block, row)
    channel_pitch = layout.channel_pitch(itemsize) if mode != WHOLE else lines[2].out
    kernel = problem.kernel
    order = kernel_weights(lines, kernel) if not problem.pointwise else np.zeros(1, np.intp)
    by_weight = np.argsort(order, kind="stable")
    tap_of, tap_at = order[by_weight], layout.taps()[by_weight]
    neighbours = bool(np.all(np.diff(tap_of) == 1))
    dense = 1 if neighbours and problem.channel_step == taps else 2 if neighbours and taps > 1 else 0
    row_step, channel_step, gather = problem.row_step, problem.channel_step, None
    if row_step == 1 and taps == 1:
        dense = 3
    elif (
        not dense
        and blocks >= _GATHERED_BLOCKS * problem.groups
        and problem.groups * problem.rows * k * itemsize <= _GATHERED_BYTES
    ):
        shape = problem.groups * problem.channels, problem.rows, *(1,) * (3 - len(kernel)), *kernel
        d, h, w = (_slice(line.weights) for line in lines)
        gather = Gather(shape, (d, h, w))
        dense, row_step, channel_step = 3, 1, problem.rows

    at = (np.arange(block_channels)[:, None] * channel_pitch + tap_at).ravel()
    patch = 0 if mode == WHOLE else block_channels * channel_pitch + 2 * unit + lines[2].reach
    panel_at = line_up(patch)
    positions_at = line_up(panel_at + (unit if mode == TURNED else block_rows) * block_k + unit)
    panel_pitch = line_up(block_rows * block_k + unit)
    panels = problem.groups * pieces(problem.rows, block_rows) * pieces(problem.channels, block_channels)
    panels *= pieces(block_channels * taps, block_k)
    if (
        mode == TURNED
        or blocks < shared
        or panels * panel_pitch * itemsize + (gather.size * itemsize if gather else 0) > _SHARED_BYTES
    ):
        panels = 0
    positions = (block_k + 1) * unit + tile_rows * unit
    if mode == TURNED:
        positions = (count * math.prod(block) + tile_rows) * block_k + (2 * tile_rows + 1) * unit + 2 * _MOST_LANES
    sizes = [
        problem.images,
        count,
        problem.groups,
        problem.rows,
        row_step,
        block_rows,
        problem.channels,
        channel_step,
        taps,
        block_k,
        channel_pitch,
        layout.image_pitch,
        mode,
        dense,
        block_channels,
        packing,
        panel_pitch,
        panels,
        panel_at,
        positions_at,
    ]
    tables = (
        layout.axes(),
        layout.phases(),
        np.array(sizes, np.intp),
        at.astype(np.intp),
        tap_of.astype(np.intp),
    )
    space = line_up(positions_at + positions)
    return Plan(
        _ext.Multiply(int(itemsize == 8), *tables, space, _isa.current),
        tables,
        space,
        items=blocks * pieces(problem.rows, block_rows),
        product=(cut.product + split * cut.copied) * k * blocks,
        packed=blocks * (problem.rows * k + math.prod(block) * count * problem.channels * split),
        outs=math.prod(line.out for line in problem.lines),
        gather=gather,
        shared=panels * (panel_pitch + 2 * np.dtype(np.intp).itemsize // itemsize),
    )


def _slice(weights: tuple[int, ...]) -> slice:
    """Taps of a phase, in the order of the kernel."""
    return slice(min(weights), max(weights) + 1, abs(weights[0] - weights[-1]) // max(len(weights) - 1, 1) or 1)


def _shared_out(
    lines: tuple[Line, Line, Line], images: int, count: int, block: tuple[int, int, int], threads: int
) -> tuple[int, tuple[int, int, int]]:
    """Blocks not much smaller, of which every thread gets as much: with every so many-th, none waits for another."""
    deep, high, wide = block

    def most(n: int, size: int) -> float:
        """Of n in blocks of `size`, the part of the thread that gets most; a block costs something by itself."""
        whole, rest = divmod(n, size)
        rounds, extra = divmod(whole, threads)
        last = rest + 0.1 * size if rest else 0.0
        return max((rounds + (extra > 0)) * 1.1 * size, rounds * 1.1 * size + last)

    if count > 1 or (deep, high, wide) == tuple(line.out for line in lines):
        return min(range(count, count // 2, -1), key=lambda c: most(images, c)), block
    if high < lines[1].out:
        best = min(range(high, (high - 1) // 2, -1), key=lambda h: most(lines[1].out, h))
        return count, (deep, best, wide)
    return count, block


def _weights_plan(geometry: ConvGeometry, itemsize: int, threads: int, tile: tuple[int, int, int]) -> Plan:
    tile_rows, vectors, lanes = tile
    unit = vectors * lanes
    lines = forward_lines(geometry)
    groups, images = geometry.groups, geometry.x_shape[0]
    filters, channels, taps = geometry.w_shape[0] // groups, geometry.w_shape[1], geometry.taps
    positions = min(max(_PANEL_BYTES // (filters * itemsize), _LEAST_SUMMED), _SUMMED)
    columns = pieces(channels * taps, unit)
    items = groups
    block_channels = channels
    if groups < 4 * threads and columns >= 4 * threads:
        split = pieces(2 * threads, groups) if columns >= 8 * threads else threads
        n = pieces(channels, min(split, channels))
        # Channels are split where that gives every thread as many.
        if pieces(groups * pieces(channels, n), threads) * threads * n <= 1.1 * groups * channels:
            block_channels, items = n, groups * pieces(channels, n)
    count, block = _block(lines, images, block_channels, itemsize, positions, unit)
    shared = items % threads != 0 and items < 4 * threads
    if shared:
        count, block = _shared_out(lines, images, count, block, threads)
    blocks = pieces(images, count) * math.prod(pieces(line.out, n) for line, n in zip(lines, block, strict=True))
    parts = min(threads, blocks) if shared else 1
    row = block[2] + lines[2].reach
    layout = Layout(lines, count, block, row)
    channel_pitch = layout.channel_pitch(itemsize)
    at = (np.arange(block_channels)[:, None] * channel_pitch + layout.taps()).ravel()
    whole = count * math.prod(block)
    length = count * block[0] * ((block[1] - 1) * row + block[2])
    panel_at = line_up(block_channels * channel_pitch + 2 * unit)
    positions_at = line_up(panel_at + filters * whole + unit)
    spill_at = line_up(positions_at + (length + 1) * unit)
    lists_at = line_up(spill_at + tile_rows * unit)
    sizes = [
        images,
        count,
        groups,
        filters,
        channels,
        block_channels,
        taps,
        channel_pitch,
        layout.image_pitch,
        parts,
        panel_at,
        positions_at,
        spill_at,
        lists_at,
        length,
    ]
    tables = layout.axes(), layout.phases(), np.array(sizes, np.intp), at.astype(np.intp)
    space = line_up(lists_at + whole * np.dtype(np.intp).itemsize // itemsize)
    return Plan(
        _ext_weights.Contract(int(itemsize == 8), *tables, space, _isa.current),
        tables,
        space,
        items=items * parts,
        product=float(whole * blocks * filters * items * pieces(block_channels * taps, lanes)),
        packed=float(whole * blocks * items * (filters + block_channels * taps)),
        parts=parts,
    )
