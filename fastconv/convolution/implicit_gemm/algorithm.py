"""The product without the matrix: weights times an image that packing reads where it lies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from fastconv._ext import implicit as _ext, implicit_weights as _ext_weights
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import MethodAlgorithm, clear_where_zero, per_channel
from fastconv.convolution.blocking import (
    Layout,
    Line,
    Problem,
    forward_lines,
    kernel_weights,
    line_up,
    pieces,
    problem_count,
    problem_kinds,
    problems,
)
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory
from fastconv.convolution.implicit_gemm import work as _work
from fastconv.convolution.implicit_gemm.plan import Gather, Plan
from fastconv.convolution.implicit_gemm.tiling import PANEL_BYTES, TURNED, WHOLE, Parts, block_of, cut_product
from fastconv.convolution.ops import Op
from fastconv.convolution.taps import data_by_taps, met_taps, tap_layers
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import is_large, plans

#: Positions at a time of which dw is summed.
_SUMMED, _LEAST_SUMMED = 320, 128
#: Panels of taps in the second-level cache, for which a few rows of dw at a time are written where weights are pruned;
#: at most MOST_HELD of implicit_weights.pyx.
_HELD, _HELD_BYTES = 64, 1 << 17
#: Of a tile, in any instruction set.
_MOST_LANES = 64
#: Weights of a gradient by the image are put side by side first, where as many blocks use them, and they take no more.
_GATHERED_BLOCKS, _GATHERED_BYTES = 3, 1 << 24
#: Packed weights that threads share take no more than this, with weights gathered before.
_SHARED_BYTES = 1 << 24
#: What packing a weight takes whose taps do not follow each other, against one whose do.
_APART = 3
#: A gradient by the image is computed tap by tap for no more taps than this, where there are so many cells an output.
_FEW_TAPS, _SCATTERED = 256, 64
#: Stride phases of which a plan each is made before any is run.
_FEW_PHASES = 16


class Implicit(MethodAlgorithm):
    """Implicit GEMM: packed panels of weights times tiles of positions, in registers.

    The image is copied, block by block, into a padded buffer split into stride
    phases. There every tap is one offset, and a tile of neighbouring outputs
    is a few runs of memory: no matrix of columns exists. With f filters and c
    channels a group and T taps:

    - forward:          out = w @ image    [f x cT] @ [cT x positions]
    - backward_data:    dx = w' @ dout     [c x fT'] @ [fT' x positions], one product per stride phase,
      whose T' taps are every stride-th of the flipped kernel
    - backward_weights: dw = dout @ image' [f x positions] @ [positions x cT]

    dx also multiplies weights by zeros beyond the edges of dout, and the sums of the definition have no such products.
    If a weight is inf or NaN, these products are NaN instead of zero, so dx is then computed again, one tap at a time.

    References
    ----------
    K. Goto, R. van de Geijn, "Anatomy of high-performance matrix
    multiplication", ACM TOMS 34(3), 2008 (panels); S. Chetlur et al., "cuDNN:
    efficient primitives for deep learning", arXiv:1410.0759 (no columns).
    """

    name = "implicit"

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Per thread a padded block, weights and panels, for small dw one more of it; and weights that all share."""
        if op == "backward_data" and _is_scattered(geometry):
            layer, *_ = tap_layers(geometry, dtype.itemsize)
            products = math.prod(layer.x_shape) + math.prod(layer.w_shape)
            return products * dtype.itemsize + self.workspace_bytes(op, layer, dtype, threads)
        # There are no plans where no output meets the image.
        found = [plan for plan, _ in _kinds(op, geometry, dtype, threads)]
        parts = max((plan.parts for plan in found), default=0)
        partial = math.prod(geometry.w_shape) * (parts if parts > 1 else 0)
        gathered = max((plan.gather.size for plan in found if plan.gather), default=0)
        space = max((min(threads, plan.items) * plan.space + plan.shared for plan in found), default=0)
        return (space + partial + gathered) * dtype.itemsize

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """Multiply-adds in registers, tiles of them, and what is copied and packed for them."""
        work = dict.fromkeys(_work.IMPLICIT, 0.0) | memory(geometry, dtype, threads) | {"call": 0.0}
        if op == "backward_data" and _is_scattered(geometry):
            return self._work_by_taps(work, geometry, dtype, threads)
        for plan, count in _kinds(op, geometry, dtype, threads):
            part = count * _counts.busiest(plan.items, plan.copied, threads)
            work["call"] += count
            for kind, amount in plan.amounts.items():
                work[kind] += part * amount
        return work

    def _work_by_taps(
        self, work: dict[str, float], geometry: ConvGeometry, dtype: np.dtype, threads: int
    ) -> dict[str, float]:
        """That of a layer of one tap for each tap and each chunk of images, whose results are added to dx."""
        taps = sum(1 for _ in met_taps(geometry))
        *same, last = tap_layers(geometry, dtype.itemsize)
        for layer, times in (*([(same[0], len(same))] if same else ()), (last, 1)):
            for kind, amount in self.work("backward_data", layer, dtype, threads).items():
                work[kind] += taps * times * amount
        # NumPy adds the products up, and takes the weights of a tap out of all, in one thread.
        products = geometry.x_shape[0] * geometry.x_shape[1] * geometry.positions
        work["summed"] += taps * (products + math.prod(geometry.w_shape[:2]))
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
        if _is_scattered(geometry):
            data_by_taps(x, w, b, geometry, out, threads, self.backward_data)
            return
        found = _plans("backward_data", geometry, out.dtype, threads)
        if _leaves_cells(found, geometry):
            out[...] = 0 if b is None else per_channel(b, geometry)
        finite = [_run(plan, threads, x, w, b, out) for plan in found]
        if not all(finite):
            self._check_weights(x, w, b, geometry, out, threads)

    def _check_weights(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """If some weight is inf or NaN, compute `transposed` again without products by padding."""
        if not np.isfinite(w).all():
            data_by_taps(x, w, b, geometry, out, threads, self.backward_data)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Where dw is small, each thread sums positions of its own into a dw of its own."""
        (plan,) = _plans("backward_weights", geometry, dw.dtype, threads)
        _contract(plan, threads, x, dout, dw)

    def backward_kept_weights(
        self, x: np.ndarray, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Weights are looked at as dw is written: to read both again takes as long as few positions' sums."""
        (plan,) = _plans("backward_weights", geometry, dw.dtype, threads)
        _contract(plan, threads, x, dout, dw, w)

    def bind(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Callable[..., Any]:
        """With the plan of the op, where that is one and is kept."""
        if problem_count(op, geometry) > _FEW_PHASES or (op == "backward_data" and _is_scattered(geometry)):
            return super().bind(op, geometry, dtype, threads)
        found = _plans(op, geometry, dtype, threads)
        if len(found) > 1 or is_large(_nbytes(found)) or (op == "backward_data" and _leaves_cells(found, geometry)):
            return super().bind(op, geometry, dtype, threads)
        plan = found[0]
        if op == "backward_data":

            def backward_data(dout: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
                if not _run(plan, threads, dout, w, None, dx):
                    self._check_weights(dout, w, None, geometry, dx, threads)

            return backward_data
        return partial(_run if op == "forward" else _contract, plan, threads)


def _is_scattered(geometry: ConvGeometry) -> bool:
    """Whether few taps of few outputs are spread over so many cells that dx is computed tap by tap.

    A kernel that runs over all cells would multiply zeros between the taps, and copy blocks as wide as the dilation.
    """
    cells, steps = math.prod(geometry.x_shape[2:]), math.prod(axis.stride for axis in geometry.axes)
    return geometry.taps <= _FEW_TAPS and cells > _SCATTERED * geometry.positions * steps


def _leaves_cells(found: tuple[Plan, ...], geometry: ConvGeometry) -> bool:
    """Whether gradients of the image have cells that no tap meets."""
    return sum(plan.outs for plan in found) < math.prod(geometry.x_shape[2:])


def _run(
    plan: Plan, threads: int, source: np.ndarray, w: np.ndarray, bias: np.ndarray | None, result: np.ndarray
) -> bool:
    """Run a plan. Returns False if it is a plan of dx that finds a weight which may be inf or NaN."""
    words = _threads.words(plan.items, plan.copied, threads)
    w = w if plan.gather is None else plan.gather(w)
    size = min(threads, plan.items) * plan.space + plan.shared
    with _workspace.workspace("blocks of the image", (size,), result.dtype) as space:
        return plan.kernel.run(source, w, bias, result, space, words)


def _contract(
    plan: Plan, threads: int, x: np.ndarray, dout: np.ndarray, dw: np.ndarray, kept: np.ndarray | None = None
) -> None:
    words = _threads.words(plan.items, plan.copied, threads)
    parts = dw if plan.parts == 1 else _memory.empty((plan.parts, dw.size), dw.dtype)
    with _workspace.workspace("blocks of the image", (min(threads, plan.items), plan.space), dw.dtype) as space:
        plan.kernel.run(x, dout, parts, space, words, kept if plan.parts == 1 else None)
    if plan.parts > 1:
        np.sum(parts, axis=0, out=dw.reshape(-1))
        if kept is not None:
            clear_where_zero(kept, dw, threads)


def _plans(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> tuple[Plan, ...]:
    return plans.find_sized(_nbytes, _make_plans, op, geometry, dtype, threads, _isa.current)


def _make_plans(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int) -> tuple[Plan, ...]:
    tile = _ext.shape(_arrays.DTYPES[dtype], isa)
    if op == "backward_weights":
        return (_weights_plan(geometry, dtype.itemsize, threads, tile),)
    cuts: dict[Any, Parts] = {}
    return tuple(
        _product_plan(p, dtype.itemsize, threads, tile, op == "backward_data", cuts) for p in problems(op, geometry)
    )


def _nbytes(found: tuple[Plan, ...]) -> int:
    return sum(table.nbytes for plan in found for table in plan.tables)


#: Plans with how often they are run.
_Kinds: TypeAlias = tuple[tuple[Plan, int], ...]


def _kinds(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> _Kinds:
    """The plans with how often they are run; of many stride phases one of each kind, because plans are compared by the
    work in them, and most are never run."""
    if problem_count(op, geometry) <= _FEW_PHASES:
        return tuple((plan, 1) for plan in _plans(op, geometry, dtype, threads))
    return plans.find_sized(_nbytes_of_kinds, _make_kinds, op, geometry, dtype, threads, _isa.current)


def _make_kinds(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int) -> _Kinds:
    tile = _ext.shape(_arrays.DTYPES[dtype], isa)
    return tuple(
        (_product_plan(problem, dtype.itemsize, threads, tile, True, {}), count)
        for problem, count in problem_kinds(op, geometry)
    )


def _nbytes_of_kinds(found: _Kinds) -> int:
    return _nbytes(tuple(plan for plan, _ in found))


def _cut_of(problem: Problem, itemsize: int, threads: int, tile: tuple[int, int, int], cuts: dict[Any, Parts]) -> Parts:
    """`cut_product`; `cuts` are those of the stride phases before, for others of their kind."""
    if problem.pointwise:
        return cut_product(problem, itemsize, threads, tile)
    key = tuple(line.kind for line in problem.lines)
    if key not in cuts:
        cuts[key] = cut_product(problem, itemsize, threads, tile)
    parts = cuts[key]
    d, h, w = (
        replace(line, spread=True) if like.spread else line
        for line, like in zip(problem.lines, parts.cut.lines, strict=True)
    )
    return replace(parts, cut=replace(parts.cut, lines=(d, h, w)))


def _product_plan(
    problem: Problem,
    itemsize: int,
    threads: int,
    tile: tuple[int, int, int],
    gradient: bool,
    cuts: dict[Any, Parts],
) -> Plan:
    tile_rows, vectors, lanes = tile
    unit = vectors * lanes
    parts = _cut_of(problem, itemsize, threads, tile, cuts)
    cut, block_rows, block_channels, block_k = parts.cut, parts.block_rows, parts.block_channels, parts.block_k
    lines, count, block, mode = cut.lines, cut.count, cut.block, cut.mode
    taps = math.prod(line.taps for line in lines)
    k = problem.channels * taps
    blocks, split = cut.blocks(problem), pieces(problem.rows, block_rows)

    layout = Layout(lines, count, block, cut.row)
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
    panel_pitch, panels = line_up(block_rows * block_k + unit), 0
    if parts.shared:
        panels = (
            problem.groups * split * pieces(problem.channels, block_channels) * pieces(block_channels * taps, block_k)
        )
    positions = (parts.tiles * block_k + 1) * unit + tile_rows * unit
    if mode == TURNED:
        positions = (count * math.prod(block) + tile_rows) * block_k + (2 * tile_rows + 1) * unit + 2 * _MOST_LANES
    space = line_up(positions_at + positions)
    common, own = panels * panel_pitch, min(threads, blocks * split) * space
    # A workspace that is kept for the next call stays so.
    if (common + (gather.size if gather else 0)) * itemsize > _SHARED_BYTES or (
        own * itemsize <= _workspace.KEPT_BYTES < (own + common) * itemsize
    ):
        panels = 0
    # Weights that are shared are packed by each thread once at most.
    packings = problem.groups * threads if panels else blocks
    sizes = {
        "images": problem.images,
        "block_images": count,
        "groups": problem.groups,
        "rows": problem.rows,
        "row_step": row_step,
        "block_rows": block_rows,
        "channels": problem.channels,
        "channel_step": channel_step,
        "taps": taps,
        "block_k": block_k,
        "channel_pitch": channel_pitch,
        "image_pitch": layout.image_pitch,
        "mode": mode,
        "dense": dense,
        "block_channels": block_channels,
        "packing": cut.packing,
        "tiles": parts.tiles,
        "panel_pitch": panel_pitch,
        "panels": panels,
        "panel_at": panel_at,
        "positions_at": positions_at,
    }
    tables = (
        layout.axes(),
        layout.phases(),
        np.array(list(sizes.values()), np.intp),
        at.astype(np.intp),
        tap_of.astype(np.intp),
    )
    return Plan(
        _ext.Multiply(int(itemsize == 8), *tables, space, _isa.current, gradient and problem.leaves_source),
        tables,
        space,
        items=blocks * split,
        product=(cut.product + split * cut.copied) * k * blocks,
        amounts=_work.of_product(problem, parts, tile, block_rows, (_APART if not dense else 1) * packings),
        outs=math.prod(line.out for line in problem.lines),
        sizes=sizes,
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
    positions = min(max(PANEL_BYTES // (filters * itemsize), _LEAST_SUMMED), _SUMMED)
    columns = pieces(channels * taps, unit)
    items = groups
    block_channels = channels
    if groups < 4 * threads and columns >= 4 * threads:
        split = pieces(2 * threads, groups) if columns >= 8 * threads else threads
        n = pieces(channels, min(split, channels))
        # Channels are split where that gives every thread as many.
        if pieces(groups * pieces(channels, n), threads) * threads * n <= 1.1 * groups * channels:
            block_channels, items = n, groups * pieces(channels, n)
    count, block = block_of(lines, images, block_channels, itemsize, positions, unit)
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
    held_pitch = line_up((length + 1) * unit)
    held = max(1, min(_HELD, _HELD_BYTES // (held_pitch * itemsize), pieces(block_channels * taps, unit)))
    spill_at = line_up(positions_at + held * held_pitch)
    lists_at = line_up(spill_at + 2 * tile_rows * unit)
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
        whole,
        held,
        held_pitch,
    ]
    tables = layout.axes(), layout.phases(), np.array(sizes, np.intp), at.astype(np.intp)
    space = line_up(lists_at + pieces(vectors * whole * np.dtype(np.intp).itemsize, itemsize))
    return Plan(
        _ext_weights.Contract(int(itemsize == 8), *tables, space, _isa.current),
        tables,
        space,
        items=items * parts,
        product=float(whole * blocks * filters * items * pieces(block_channels * taps, lanes)),
        amounts=_work.of_weights(
            lines,
            tile,
            blocks * items,
            count,
            block,
            filters,
            block_channels,
            taps,
            parts * math.prod(geometry.w_shape) if parts > 1 else 0,
        ),
        parts=parts,
    )
