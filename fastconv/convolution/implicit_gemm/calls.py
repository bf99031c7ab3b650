"""Computes the arguments of the kernel calls of `implicit`: one call for each stride phase of dx, or one call for other
ops.

Two calls are of the same kind if they differ only in the offsets of their results and weights.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from fastconv._ext.gemm import implicit as _ext, microkernel as _shape, weights as _ext_weights
from fastconv.checks import arrays as _arrays
from fastconv.convolution.blocking import (
    ConvAxis,
    Layout,
    Problem,
    ceil_div,
    forward_axes,
    kernel_weights,
    problem_count,
    problem_kinds,
    problems,
)
from fastconv.convolution.implicit_gemm import work as _work
from fastconv.convolution.implicit_gemm.kernel_call import KernelCall, RepackWeights, table_bytes
from fastconv.convolution.implicit_gemm.tiling import ImplicitTiling, block_of, tile_product
from fastconv.convolution.implicit_gemm.tuning import CONTIGUOUS, DEFAULT, Tuning
from fastconv.convolution.plan import Case, Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import workspace as _workspace
from fastconv.runtime.plan_cache import is_large, plans

#: For dw with pruned weights, the largest number of bytes of panels that are packed at a time. These panels stay in the
#: second-level cache, and serve a few rows of dw at a time.
_PANELS_BYTES = 1 << 17
#: Threads share packed weights only if the shared and the repacked weights together take at most this number of bytes.
_SHARED_BYTES = 1 << 24
#: The cost to pack a weight if the taps of a kernel are not contiguous in memory, relative to the cost if they are.
_STRIDED_COST = 3
#: Pairs of a call and the number of calls of its kind. Calls of a kind differ only in the offsets of results and
#: weights.
Kinds: TypeAlias = tuple[tuple[KernelCall, int], ...]


def kernel_calls(case: Case, tuning: Tuning = DEFAULT) -> tuple[KernelCall, ...]:
    """Return the kernel calls for a case. The calls are cached unless their tables are large.

    If the outputs read only padding, dx needs no calls, and the tuple is empty.
    """
    return plans.find_sized(
        table_bytes, _make_calls, case.op, case.geometry, case.dtype, case.threads, case.isa, tuning
    )


def are_held(calls: tuple[KernelCall, ...], tuning: Tuning) -> bool:
    """Return whether a plan may store these calls.

    A plan may store only a few calls with small tables, because thousands of plans are cached.
    """
    return len(calls) <= tuning.few_phases and not is_large(table_bytes(calls))


def _make_calls(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int, tuning: Tuning
) -> tuple[KernelCall, ...]:
    if op == "backward_weights":
        return (_weights_call(geometry, dtype, threads, isa, tuning),)
    tilings: dict[Any, ImplicitTiling] = {}
    return tuple(
        _product_call(problem, dtype, threads, isa, tuning, op == "backward_data", tilings)
        for problem in problems(op, geometry)
    )


def call_kinds(case: Case, tuning: Tuning) -> Kinds:
    """Return pairs of a call and the number of calls of its kind, from which the work of a case is computed.

    If there are more than `Tuning.few_phases` stride phases, the result has only one call of each kind. Otherwise it
    has all calls, and the number in each pair is 1.
    """
    if problem_count(case.op, case.geometry) <= tuning.few_phases:
        return tuple((call, 1) for call in kernel_calls(case, tuning))
    return plans.find_sized(
        _table_bytes_of_kinds, _make_kinds, case.op, case.geometry, case.dtype, case.threads, case.isa, tuning
    )


def _make_kinds(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int, tuning: Tuning) -> Kinds:
    return tuple(
        (_product_call(problem, dtype, threads, isa, tuning, True, {}), count)
        for problem, count in problem_kinds(op, geometry)
    )


def _table_bytes_of_kinds(kinds: Kinds) -> int:
    return table_bytes(call for call, _ in kinds)


def _tiling_of(
    problem: Problem,
    itemsize: int,
    threads: int,
    tile: tuple[int, int, int],
    tuning: Tuning,
    tilings: dict[Any, ImplicitTiling],
) -> ImplicitTiling:
    """Return the tiling of a product. `tilings` caches one tiling for stride phases of equal sizes."""
    if problem.pointwise:
        return tile_product(problem, itemsize, threads, tile, tuning)
    key = tuple(conv_axis.kind for conv_axis in problem.conv_axes)
    if key not in tilings:
        tilings[key] = tile_product(problem, itemsize, threads, tile, tuning)
    tiling = tilings[key]
    d, h, w = (
        replace(conv_axis, unrolled=True) if like.unrolled else conv_axis
        for conv_axis, like in zip(problem.conv_axes, tiling.blocking.conv_axes, strict=True)
    )
    return replace(tiling, blocking=replace(tiling.blocking, conv_axes=(d, h, w)))


def _product_call(
    problem: Problem,
    dtype: np.dtype,
    threads: int,
    isa: int,
    tuning: Tuning,
    gradient: bool,
    tilings: dict[Any, ImplicitTiling],
) -> KernelCall:
    number, itemsize = _arrays.DTYPES[dtype], dtype.itemsize
    tile = _shape.shape(number, isa)
    tiling = _tiling_of(problem, itemsize, threads, tile, tuning, tilings)
    blocking = tiling.blocking
    conv_axes = blocking.conv_axes
    taps = math.prod(conv_axis.taps for conv_axis in conv_axes)
    k = problem.channels * taps
    blocks, split = blocking.blocks(problem), ceil_div(problem.rows, tiling.mc)

    layout = Layout(conv_axes, blocking.count, blocking.block, blocking.row)
    channel_pitch = layout.channel_pitch(itemsize) if blocking.mode != CONTIGUOUS else conv_axes[2].out
    kernel = problem.kernel
    order = kernel_weights(conv_axes, kernel) if not problem.pointwise else np.zeros(1, np.intp)
    by_weight = np.argsort(order, kind="stable")
    weight_offsets = order[by_weight]
    neighbours = bool(np.all(np.diff(weight_offsets) == 1))
    weight_layout, row_step, channel_step, repack = _ext.LAYOUT_GENERIC, problem.row_step, problem.channel_step, None
    repacked_bytes = problem.groups * problem.rows * k * itemsize
    if not tuning.knows_layouts:
        weight_layout = _ext.LAYOUT_GENERIC
    elif row_step == 1 and taps == 1:
        weight_layout = _ext.LAYOUT_COLUMNS
    elif neighbours and problem.channel_step == taps:
        weight_layout = _ext.LAYOUT_ROWS
    elif neighbours and taps > 1:
        weight_layout = _ext.LAYOUT_TAPS
    elif blocks >= tuning.repacked_blocks * problem.groups and repacked_bytes <= tuning.repacked_bytes:
        shape = problem.groups * problem.channels, problem.rows, *(1,) * (3 - len(kernel)), *kernel
        d, h, w = (_slice(conv_axis.weights) for conv_axis in conv_axes)
        repack = RepackWeights(shape, (d, h, w))
        weight_layout, row_step, channel_step = _ext.LAYOUT_COLUMNS, 1, problem.rows

    offsets = _cell_offsets(tiling.block_channels, channel_pitch, layout.taps()[by_weight])

    def plan(shared: bool) -> _ext.ProductPlan:
        return _ext.ProductPlan(
            dtype=number,
            isa=isa,
            problem=problem,
            tiling=tiling,
            layout=layout,
            channel_pitch=channel_pitch,
            cell_offsets=offsets,
            weight_layout=weight_layout,
            row_step=row_step,
            channel_step=channel_step,
            weight_offsets=weight_offsets,
            shared=shared,
            probing=gradient and problem.leaves_source,
        )

    found = plan(tiling.shared)
    # Threads do not share packed weights if the workspace would then be so large that it is freed after the call.
    common, own = found.shared, min(threads, found.items) * found.workspace
    if common and (
        (common + (repack.size if repack else 0)) * itemsize > _SHARED_BYTES
        or own * itemsize <= _workspace.KEPT_BYTES < (own + common) * itemsize
    ):
        found = plan(False)
    # If threads share packed weights, a thread packs a weight at most once. Otherwise, each block packs the weight.
    packings = problem.groups * threads if found.shared else blocks
    packing_cost = _STRIDED_COST if weight_layout == _ext.LAYOUT_GENERIC else 1
    return KernelCall(
        found,
        threads,
        product=(blocking.product + split * blocking.copied) * k * blocks,
        amounts=_work.of_product(problem, tiling, tile, packing_cost * packings, itemsize),
        tiling=tiling,
        repack=repack,
    )


def _cell_offsets(channels: int, channel_pitch: int, tap_offsets: np.ndarray) -> np.ndarray:
    """Return, for each channel of a block and each tap, the offset of the cell that output 0 reads.

    `tap_offsets` has these offsets for the first channel.
    """
    return (np.arange(channels)[:, None] * channel_pitch + tap_offsets).ravel().astype(np.intp, copy=False)


def _slice(weights: tuple[int, ...]) -> slice:
    """Return the slice of the kernel, along one axis, that has the taps of a stride phase."""
    return slice(min(weights), max(weights) + 1, abs(weights[0] - weights[-1]) // max(len(weights) - 1, 1) or 1)


def _shared_out(
    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis], images: int, count: int, block: tuple[int, int, int], threads: int
) -> tuple[int, tuple[int, int, int]]:
    """Return the number of images and the shape of a smaller block, so that threads have about equal work.

    The smaller block has at least half the size of `block`. Each thread computes every `threads`-th block.
    """
    deep, high, wide = block

    def most(n: int, size: int) -> float:
        """Return the work of the busiest thread if n outputs are divided into blocks of `size` outputs.

        Each block also has an overhead, which equals a tenth of the work of `size` outputs.
        """
        whole, rest = divmod(n, size)
        rounds, extra = divmod(whole, threads)
        last = rest + 0.1 * size if rest else 0.0
        return max((rounds + (extra > 0)) * 1.1 * size, rounds * 1.1 * size + last)

    if count > 1 or (deep, high, wide) == tuple(conv_axis.out for conv_axis in conv_axes):
        return min(range(count, count // 2, -1), key=lambda c: most(images, c)), block
    if high < conv_axes[1].out:
        best = min(range(high, (high - 1) // 2, -1), key=lambda h: most(conv_axes[1].out, h))
        return count, (deep, best, wide)
    return count, block


def _weights_call(geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int, tuning: Tuning) -> KernelCall:
    number, itemsize = _arrays.DTYPES[dtype], dtype.itemsize
    tile = _shape.shape(number, isa)
    _, vectors, lanes = tile
    nr = vectors * lanes
    conv_axes = forward_axes(geometry)
    groups, images = geometry.groups, geometry.x_shape[0]
    filters, channels, taps = geometry.w_shape[0] // groups, geometry.w_shape[1], geometry.taps
    positions = min(max(tuning.panel_bytes // (filters * itemsize), tuning.least_summed), tuning.summed)
    columns = ceil_div(channels * taps, nr)
    items = groups
    block_channels = channels
    if groups < 4 * threads and columns >= 4 * threads:
        split = ceil_div(2 * threads, groups) if columns >= 8 * threads else threads
        n = ceil_div(channels, min(split, channels))
        # Channels are divided only if all threads then have about equal numbers of channels.
        if ceil_div(groups * ceil_div(channels, n), threads) * threads * n <= 1.1 * groups * channels:
            block_channels, items = n, groups * ceil_div(channels, n)
    count, block = block_of(conv_axes, images, block_channels, itemsize, positions, nr, tuning)
    shared = items % threads != 0 and items < 4 * threads
    if shared:
        count, block = _shared_out(conv_axes, images, count, block, threads)
    blocks = ceil_div(images, count) * math.prod(
        ceil_div(conv_axis.out, n) for conv_axis, n in zip(conv_axes, block, strict=True)
    )
    parts = min(threads, blocks) if shared else 1
    layout = Layout(conv_axes, count, block, block[2] + conv_axes[2].halo)
    channel_pitch = layout.channel_pitch(itemsize)
    return KernelCall(
        _ext_weights.GradientPlan(
            dtype=number,
            isa=isa,
            images=images,
            groups=groups,
            filters=filters,
            channels=channels,
            block_channels=block_channels,
            parts=parts,
            layout=layout,
            channel_pitch=channel_pitch,
            cell_offsets=_cell_offsets(block_channels, channel_pitch, layout.taps()),
            panel_bytes=_PANELS_BYTES,
        ),
        threads,
        product=float(count * math.prod(block) * blocks * filters * items * ceil_div(block_channels * taps, lanes)),
        amounts=_work.of_weights(
            conv_axes,
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
