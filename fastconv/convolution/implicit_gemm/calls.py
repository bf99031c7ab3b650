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
    align_up,
    ceil_div,
    forward_axes,
    kernel_weights,
    problem_count,
    problem_kinds,
    problems,
)
from fastconv.convolution.implicit_gemm import work as _work
from fastconv.convolution.implicit_gemm.kernel_call import KernelCall, RepackWeights, table_bytes
from fastconv.convolution.implicit_gemm.tiling import (
    CONTIGUOUS,
    PANEL_BYTES,
    SWAPPED,
    ImplicitTiling,
    block_of,
    tile_product,
)
from fastconv.convolution.plan import Case, Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, workspace as _workspace
from fastconv.runtime.plan_cache import is_large, plans

#: For dw, the approximate largest and smallest number of output positions of a block. A panel of dout holds the
#: positions of one block.
_SUMMED, _LEAST_SUMMED = 320, 128
#: For dw, the largest number of panels of image cells that are packed at a time, and the largest number of their bytes.
#: These panels stay in the second-level cache. With pruned weights, they serve a few rows of dw at a time.
#: `_PANELS_AT_A_TIME` must not exceed MOST_PANELS_AT_A_TIME of implicit_weights.pyx.
_PANELS_AT_A_TIME, _PANELS_BYTES = 64, 1 << 17
#: The largest number of lanes of a vector in any instruction set.
_MOST_LANES = 64
#: For dx, weights are repacked before the product if each group has at least `_REPACKED_BLOCKS` blocks, and the
#: repacked weights take at most `_REPACKED_BYTES` bytes.
_REPACKED_BLOCKS, _REPACKED_BYTES = 3, 1 << 24
#: Threads share packed weights only if the packed and the repacked weights together take at most this number of bytes.
_SHARED_BYTES = 1 << 24
#: The cost to pack a weight if the taps of a kernel are not contiguous in memory, relative to the cost if they are.
_STRIDED_COST = 3
#: The largest number of calls that a plan stores. If dx has more stride phases, `call_kinds` computes the arguments of
#: one call of each kind.
_FEW_PHASES = 16

#: Pairs of a call and the number of calls of its kind. Calls of a kind differ only in the offsets of results and
#: weights.
Kinds: TypeAlias = tuple[tuple[KernelCall, int], ...]


def kernel_calls(case: Case) -> tuple[KernelCall, ...]:
    """Return the kernel calls for a case. The calls are cached unless their tables are large.

    If the outputs read only padding, dx needs no calls, and the tuple is empty.
    """
    return plans.find_sized(table_bytes, _make_calls, case.op, case.geometry, case.dtype, case.threads, case.isa)


def are_held(calls: tuple[KernelCall, ...]) -> bool:
    """Return whether a plan may store these calls.

    A plan may store only a few calls with small tables, because thousands of plans are cached.
    """
    return len(calls) <= _FEW_PHASES and not is_large(table_bytes(calls))


def _make_calls(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int) -> tuple[KernelCall, ...]:
    tile = _shape.shape(_arrays.DTYPES[dtype], isa)
    if op == "backward_weights":
        return (_weights_call(geometry, dtype.itemsize, threads, tile),)
    tilings: dict[Any, ImplicitTiling] = {}
    return tuple(
        _product_call(problem, dtype.itemsize, threads, tile, op == "backward_data", tilings)
        for problem in problems(op, geometry)
    )


def call_kinds(case: Case) -> Kinds:
    """Return pairs of a call and the number of calls of its kind, from which the work of a case is computed.

    If there are more than `_FEW_PHASES` stride phases, the result has only one call of each kind. Otherwise it has all
    calls, and the number in each pair is 1.
    """
    if problem_count(case.op, case.geometry) <= _FEW_PHASES:
        return tuple((call, 1) for call in kernel_calls(case))
    return plans.find_sized(
        _table_bytes_of_kinds, _make_kinds, case.op, case.geometry, case.dtype, case.threads, case.isa
    )


def _make_kinds(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int) -> Kinds:
    tile = _shape.shape(_arrays.DTYPES[dtype], isa)
    return tuple(
        (_product_call(problem, dtype.itemsize, threads, tile, True, {}), count)
        for problem, count in problem_kinds(op, geometry)
    )


def _table_bytes_of_kinds(kinds: Kinds) -> int:
    return table_bytes(call for call, _ in kinds)


def _tiling_of(
    problem: Problem, itemsize: int, threads: int, tile: tuple[int, int, int], tilings: dict[Any, ImplicitTiling]
) -> ImplicitTiling:
    """Return the tiling of a product. `tilings` caches one tiling for stride phases of equal sizes."""
    if problem.pointwise:
        return tile_product(problem, itemsize, threads, tile)
    key = tuple(conv_axis.kind for conv_axis in problem.conv_axes)
    if key not in tilings:
        tilings[key] = tile_product(problem, itemsize, threads, tile)
    tiling = tilings[key]
    d, h, w = (
        replace(conv_axis, unrolled=True) if like.unrolled else conv_axis
        for conv_axis, like in zip(problem.conv_axes, tiling.blocking.conv_axes, strict=True)
    )
    return replace(tiling, blocking=replace(tiling.blocking, conv_axes=(d, h, w)))


def _product_call(
    problem: Problem,
    itemsize: int,
    threads: int,
    tile: tuple[int, int, int],
    gradient: bool,
    tilings: dict[Any, ImplicitTiling],
) -> KernelCall:
    mr, vectors, lanes = tile
    nr = vectors * lanes
    parts = _tiling_of(problem, itemsize, threads, tile, tilings)
    blocking, mc, block_channels, kc = parts.blocking, parts.mc, parts.block_channels, parts.kc
    conv_axes, count, block, mode = blocking.conv_axes, blocking.count, blocking.block, blocking.mode
    taps = math.prod(conv_axis.taps for conv_axis in conv_axes)
    k = problem.channels * taps
    blocks, split = blocking.blocks(problem), ceil_div(problem.rows, mc)

    layout = Layout(conv_axes, count, block, blocking.row)
    channel_pitch = layout.channel_pitch(itemsize) if mode != CONTIGUOUS else conv_axes[2].out
    kernel = problem.kernel
    order = kernel_weights(conv_axes, kernel) if not problem.pointwise else np.zeros(1, np.intp)
    by_weight = np.argsort(order, kind="stable")
    tap_of, tap_at = order[by_weight], layout.taps()[by_weight]
    neighbours = bool(np.all(np.diff(tap_of) == 1))
    weight_layout = 1 if neighbours and problem.channel_step == taps else 2 if neighbours and taps > 1 else 0
    row_step, channel_step, repack = problem.row_step, problem.channel_step, None
    if row_step == 1 and taps == 1:
        weight_layout = 3
    elif (
        not weight_layout
        and blocks >= _REPACKED_BLOCKS * problem.groups
        and problem.groups * problem.rows * k * itemsize <= _REPACKED_BYTES
    ):
        shape = problem.groups * problem.channels, problem.rows, *(1,) * (3 - len(kernel)), *kernel
        d, h, w = (_slice(conv_axis.weights) for conv_axis in conv_axes)
        repack = RepackWeights(shape, (d, h, w))
        weight_layout, row_step, channel_step = 3, 1, problem.rows

    at = (np.arange(block_channels)[:, None] * channel_pitch + tap_at).ravel()
    patch = 0 if mode == CONTIGUOUS else block_channels * channel_pitch + 2 * nr + conv_axes[2].halo
    panel_at = align_up(patch)
    positions_at = align_up(panel_at + (nr if mode == SWAPPED else mc) * kc + nr)
    panel_pitch, panels = align_up(mc * kc + nr), 0
    if parts.shared:
        panels = (
            problem.groups * split * ceil_div(problem.channels, block_channels) * ceil_div(block_channels * taps, kc)
        )
    positions = (parts.tiles * kc + 1) * nr + mr * nr
    if mode == SWAPPED:
        positions = (count * math.prod(block) + mr) * kc + (2 * mr + 1) * nr + 2 * _MOST_LANES
    space = align_up(positions_at + positions)
    common, own = panels * panel_pitch, min(threads, blocks * split) * space
    # Threads do not share packed weights if the workspace would then be so large that it is freed after the call.
    if (common + (repack.size if repack else 0)) * itemsize > _SHARED_BYTES or (
        own * itemsize <= _workspace.KEPT_BYTES < (own + common) * itemsize
    ):
        panels = 0
    # If threads share packed weights, a thread packs a weight at most once. Otherwise, each block packs the weight.
    packings = problem.groups * threads if panels else blocks
    sizes = {
        "images": problem.images,
        "block_images": count,
        "groups": problem.groups,
        "rows": problem.rows,
        "row_step": row_step,
        "mc": mc,
        "channels": problem.channels,
        "channel_step": channel_step,
        "taps": taps,
        "kc": kc,
        "channel_pitch": channel_pitch,
        "image_pitch": layout.image_pitch,
        "mode": mode,
        "weight_layout": weight_layout,
        "block_channels": block_channels,
        "packing": blocking.packing,
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
    return KernelCall(
        _ext.Multiply(int(itemsize == 8), *tables, space, _isa.current, gradient and problem.leaves_source),
        tables,
        threads,
        space,
        items=blocks * split,
        product=(blocking.product + split * blocking.copied) * k * blocks,
        amounts=_work.of_product(
            problem, parts, tile, mc, (_STRIDED_COST if not weight_layout else 1) * packings, itemsize
        ),
        sizes=sizes,
        repack=repack,
        shared=panels * (panel_pitch + 2 * np.dtype(np.intp).itemsize // itemsize),
    )


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


def _weights_call(geometry: ConvGeometry, itemsize: int, threads: int, tile: tuple[int, int, int]) -> KernelCall:
    mr, vectors, lanes = tile
    nr = vectors * lanes
    conv_axes = forward_axes(geometry)
    groups, images = geometry.groups, geometry.x_shape[0]
    filters, channels, taps = geometry.w_shape[0] // groups, geometry.w_shape[1], geometry.taps
    positions = min(max(PANEL_BYTES // (filters * itemsize), _LEAST_SUMMED), _SUMMED)
    columns = ceil_div(channels * taps, nr)
    items = groups
    block_channels = channels
    if groups < 4 * threads and columns >= 4 * threads:
        split = ceil_div(2 * threads, groups) if columns >= 8 * threads else threads
        n = ceil_div(channels, min(split, channels))
        # Channels are divided only if all threads then have about equal numbers of channels.
        if ceil_div(groups * ceil_div(channels, n), threads) * threads * n <= 1.1 * groups * channels:
            block_channels, items = n, groups * ceil_div(channels, n)
    count, block = block_of(conv_axes, images, block_channels, itemsize, positions, nr)
    shared = items % threads != 0 and items < 4 * threads
    if shared:
        count, block = _shared_out(conv_axes, images, count, block, threads)
    blocks = ceil_div(images, count) * math.prod(
        ceil_div(conv_axis.out, n) for conv_axis, n in zip(conv_axes, block, strict=True)
    )
    parts = min(threads, blocks) if shared else 1
    row = block[2] + conv_axes[2].halo
    layout = Layout(conv_axes, count, block, row)
    channel_pitch = layout.channel_pitch(itemsize)
    at = (np.arange(block_channels)[:, None] * channel_pitch + layout.taps()).ravel()
    whole = count * math.prod(block)
    length = count * block[0] * ((block[1] - 1) * row + block[2])
    panel_at = align_up(block_channels * channel_pitch + 2 * nr)
    positions_at = align_up(panel_at + filters * whole + nr)
    panel_pitch = align_up((length + 1) * nr)
    panels_at_a_time = max(
        1, min(_PANELS_AT_A_TIME, _PANELS_BYTES // (panel_pitch * itemsize), ceil_div(block_channels * taps, nr))
    )
    edge_at = align_up(positions_at + panels_at_a_time * panel_pitch)
    lists_at = align_up(edge_at + 2 * mr * nr)
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
        edge_at,
        lists_at,
        whole,
        panels_at_a_time,
        panel_pitch,
    ]
    tables = layout.axes(), layout.phases(), np.array(sizes, np.intp), at.astype(np.intp)
    space = align_up(lists_at + ceil_div(vectors * whole * np.dtype(np.intp).itemsize, itemsize))
    return KernelCall(
        _ext_weights.Contract(int(itemsize == 8), *tables, space, _isa.current),
        tables,
        threads,
        space,
        items=items * parts,
        product=float(whole * blocks * filters * items * ceil_div(block_channels * taps, lanes)),
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
