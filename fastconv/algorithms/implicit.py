"""The product without the matrix: weights times an image that packing reads where it lies."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import _arrays, _isa, _threads
from fastconv._ext import implicit as _ext
from fastconv.algorithms._blocks import (
    Layout,
    Line,
    backward_lines,
    forward_lines,
    kernel_weights,
    lift,
    shared_row,
)
from fastconv.algorithms.base import MULTIPLY_ADDS, Algorithm, Op, multiply_adds
from fastconv.geometry import ConvGeometry

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_PRODUCT = {_DTYPES[0]: _ext.product["float"], _DTYPES[1]: _ext.product["double"]}
_WEIGHTS = {_DTYPES[0]: _ext.weights["float"], _DTYPES[1]: _ext.weights["double"]}

WHOLE, GRID, ROWS, PACKED = range(4)

#: Of a block's padded image, and of packed weights: each shares the second-level cache with the other.
_BLOCK_BYTES, _PANEL_BYTES = 1 << 19, 3 << 17
#: Positions that make packing the weights cheap beside multiplying by them.
_POSITIONS = 480
#: Tables of products longer than this are not kept with the geometry.
_LONG_K = 1 << 16
#: Multiply-adds a thread does in the time a copy moves a byte: what `_threads.run` weighs work by.
_MULTIPLY_ADDS_PER_BYTE = 5


@dataclass(frozen=True)
class Plan:
    """One call of a kernel: its tables, its workspace in elements a thread, and how many items it draws."""

    tables: tuple[np.ndarray, ...]
    lists: int
    space: int
    items: int
    parts: int = 1


@dataclass(frozen=True)
class Problem:
    """A product, as the kernel sees it: rows of weights against channels of a source."""

    lines: tuple[Line, Line, Line]
    images: int
    groups: int
    rows: int
    row_step: int
    channels: int
    channel_step: int
    kernel: tuple[int, ...]
    pointwise: bool


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
        plans = _plans(op, geometry, dtype, threads)
        parts = max(plan.parts for plan in plans)
        partial = math.prod(geometry.w_shape) * (parts if parts > 1 else 0)
        return (threads * max(plan.space for plan in plans) + partial) * dtype.itemsize

    def cost(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> float:
        """The product."""
        return multiply_adds(geometry) / (MULTIPLY_ADDS * 4 / dtype.itemsize)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Bias is what the sums start with."""
        (plan,) = _plans("forward", geometry, x.dtype, threads)
        _run(plan, _PRODUCT, geometry, threads, x, w, out if b is None else b, out, b is not None)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """One forward product per stride phase; cells that no tap meets are zero."""
        plans = _plans("backward_data", geometry, dx.dtype, threads)
        if sum(math.prod(line.out for line in plan_lines) for plan_lines in _phases(geometry)) < math.prod(
            geometry.x_shape[2:]
        ):
            dx.fill(0)
        for plan in plans:
            _run(plan, _PRODUCT, geometry, threads, dout, w, dx, dx, False)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Where dw is small, each thread sums positions of its own into a dw of its own."""
        (plan,) = _plans("backward_weights", geometry, x.dtype, threads)
        parts = dw.reshape(1, -1) if plan.parts == 1 else np.empty((plan.parts, dw.size), dw.dtype)
        workers = min(threads, plan.items)
        lists = np.empty((workers, plan.lists), np.intp)
        with _arrays.workspace("blocks of the image", (workers, plan.space), dw.dtype) as space:
            _threads.run(
                _WEIGHTS[dw.dtype],
                (x.reshape(-1), dout.reshape(-1), parts, *plan.tables, space, lists, _isa.current),
                items=plan.items,
                work=multiply_adds(geometry) // _MULTIPLY_ADDS_PER_BYTE,
                threads=threads,
                grain=1,
            )
        if plan.parts > 1:
            np.sum(parts, axis=0, out=dw.reshape(-1))


def _run(
    plan: Plan,
    kernels: dict[np.dtype, Any],
    geometry: ConvGeometry,
    threads: int,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    result: np.ndarray,
    biased: bool,
) -> None:
    workers = min(threads, plan.items)
    with _arrays.workspace("blocks of the image", (workers, plan.space), result.dtype) as space:
        _threads.run(
            kernels[result.dtype],
            (
                source.reshape(-1),
                w.reshape(-1),
                bias.reshape(-1)[: None if biased else 0],
                result.reshape(-1),
                *plan.tables,
                space,
                _isa.current,
            ),
            items=plan.items,
            work=multiply_adds(geometry) // _MULTIPLY_ADDS_PER_BYTE,
            threads=threads,
            grain=1,
        )


def _plans(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> tuple[Plan, ...]:
    kept: dict[Any, tuple[Plan, ...]] = vars(geometry).setdefault("_implicit", {})
    key = op, dtype.itemsize, threads, _isa.current
    if key in kept:
        return kept[key]
    tile = _ext.shape(_DTYPES.index(dtype), _isa.current)
    if op == "backward_weights":
        plans: tuple[Plan, ...] = (_weights_plan(geometry, dtype.itemsize, threads, tile),)
    else:
        plans = tuple(_product_plan(p, dtype.itemsize, threads, tile) for p in _problems(op, geometry))
    if sum(len(table) for plan in plans for table in plan.tables) <= _LONG_K:
        kept[key] = plans
    return plans


def _phases(geometry: ConvGeometry) -> list[tuple[Line, Line, Line]]:
    """The convolutions of dout that make up dx."""
    per_axis = [backward_lines(axis.row()) for axis in geometry.axes]
    return [lift(lines) for lines in itertools.product(*per_axis)]


def _problems(op: Op, geometry: ConvGeometry) -> list[Problem]:
    groups = geometry.groups
    filters, channels = geometry.w_shape[0] // groups, geometry.w_shape[1]
    taps = geometry.taps
    if op == "forward":
        sizes = filters, channels * taps, channels, taps
        lines = [forward_lines(geometry)]
    else:
        sizes = channels, taps, filters, channels * taps
        lines = _phases(geometry)
    return [
        Problem(part, geometry.x_shape[0], groups, *sizes, geometry.kernel, geometry.pointwise) for part in lines
    ]


def _flat(lines: tuple[Line, Line, Line]) -> tuple[Line, Line, Line]:
    """The axes of a pointwise layer as one."""
    n = math.prod(line.out for line in lines)
    return lift([Line(n, 1, 0, 1, n, 0, 1, n, (0,))])


def _even(n: int, most: int, unit: int = 1) -> int:
    """Pieces of at most `most`, a multiple of `unit`, as even as can be."""
    pieces = -(-n // max(most, 1))
    return min(-(-n // (pieces * unit)) * unit, n)


def _block(
    lines: tuple[Line, Line, Line], images: int, channels: int, itemsize: int, positions: int, unit: int
) -> tuple[int, tuple[int, int, int]]:
    """Images and outputs of a block: some `positions`, more where the margin around them would be most of it."""
    budget = _BLOCK_BYTES // itemsize // channels
    d, h, w = lines
    slots = math.prod(len(line.phases) for line in lines)
    least = slots * (1 + d.reach) * (1 + h.reach)
    wide = w.out if least * (w.out + w.reach) <= 2 * budget else max(unit * 2, budget // least - w.reach)
    wide = _even(w.out, wide, unit)

    def fits(images: int, deep: int, high: int) -> bool:
        return images * slots * (deep + d.reach) * (high + h.reach) * (wide + w.reach) <= budget

    high = 1
    while high < h.out and (high * wide < positions or high < 2 * h.reach) and (
        high * wide < 32 or fits(1, 1, high + 1)
    ):
        high += 1
    high = _even(h.out, high)
    deep = 1
    if high == h.out:
        while deep < d.out and (deep * high * wide < positions or deep < 2 * d.reach) and fits(1, deep + 1, high):
            deep += 1
        deep = _even(d.out, deep)
    count = 1
    if (deep, high, wide) == (d.out, h.out, w.out):
        volume = deep * high * wide
        while count < images and count * volume < positions and fits(count + 1, deep, high):
            count += 1
        count = _even(images, count)
    return count, (deep, high, wide)


def _pieces(n: int, block: int) -> int:
    return -(-n // block)


def _mode(
    problem: Problem, count: int, block: tuple[int, int, int], row: int, lanes: int
) -> int:
    """How positions become tiles: the cheapest count of vectors times rows, and what gathering them adds."""
    deep, high, wide = block
    planes = count * deep
    grid = planes * _pieces((high - 1) * row + wide, lanes)
    rows = planes * high * _pieces(wide, lanes)
    packed = _pieces(planes * high * wide, lanes)
    runs = packed + planes * high
    k = problem.channels * math.prod(line.taps for line in problem.lines)
    spilled = (grid + 2 * planes * high) * problem.rows * 2 / min(k, 512)
    costs = {
        GRID: grid * problem.rows + spilled,
        ROWS: rows * problem.rows + (spilled if wide % lanes else 0),
        PACKED: packed * problem.rows + 2 * runs,
    }
    return min(costs, key=costs.__getitem__)


def _product_plan(problem: Problem, itemsize: int, threads: int, tile: tuple[int, int, int]) -> Plan:
    tile_rows, vectors, lanes = tile
    unit = vectors * lanes
    lines = _flat(problem.lines) if problem.pointwise else problem.lines
    taps = math.prod(line.taps for line in lines)
    k = problem.channels * taps
    count, block = _block(lines, problem.images, problem.channels, itemsize, _POSITIONS, unit)
    if problem.pointwise and not (lines[2].out < _POSITIONS and problem.images > 1):
        block = (1, 1, _even(lines[2].out, 4 * _POSITIONS, unit))
        count = 1
    # Rows are split where there are too few blocks to keep all threads busy to the end.
    blocks = problem.groups * _pieces(problem.images, count)
    blocks *= math.prod(_pieces(line.out, n) for line, n in zip(lines, block, strict=True))
    split = 1
    if blocks < 4 * threads and blocks % threads:
        most = _pieces(problem.rows, tile_rows)
        split = next((n for n in range(1, min(threads, most) + 1) if blocks * n % threads == 0), min(threads, most))
    block_rows = _even(problem.rows, _pieces(problem.rows, split), tile_rows)
    block_k = k
    if k * block_rows * itemsize > 2 * _PANEL_BYTES:
        block_k = _even(k, max(128, _PANEL_BYTES // (block_rows * itemsize)))

    row = block[2] + lines[2].reach
    if block[2] == lines[2].out:
        row = min(row, shared_row(lines[2]))
    if problem.pointwise and count == 1:
        mode, row = WHOLE, block[2]
    else:
        mode = _mode(problem, count, block, row, lanes)
        if mode != GRID:
            row = block[2] + lines[2].reach
    layout = Layout(lines, count, block, row)
    channel_pitch = layout.channel_pitch(itemsize) if mode != WHOLE else lines[2].out
    kernel = problem.kernel
    order = kernel_weights(problem.lines, kernel) if not problem.pointwise else np.zeros(1, np.intp)
    by_weight = np.argsort(order, kind="stable")
    tap_of, tap_at = order[by_weight], layout.taps()[by_weight]
    neighbours = bool(np.all(np.diff(tap_of) == 1))
    dense = 1 if neighbours and problem.channel_step == taps else 2 if neighbours and taps > 1 else 0

    at = (np.arange(problem.channels)[:, None] * channel_pitch + tap_at).ravel()
    panels = [np.arange(block_k) * (n * lanes) for n in range(1, vectors + 1)]
    patch = 0 if mode == WHOLE else problem.channels * channel_pitch + 2 * unit + lines[2].reach
    panel_at = _line_up(patch)
    positions_at = _line_up(panel_at + block_rows * block_k + unit)
    sizes = [
        problem.images,
        count,
        problem.groups,
        problem.rows,
        problem.row_step,
        block_rows,
        problem.channels,
        problem.channel_step,
        taps,
        block_k,
        channel_pitch,
        layout.image_pitch,
        mode,
        dense,
        panel_at,
        positions_at,
    ]
    return Plan(
        (
            layout.axes(),
            layout.phases(),
            np.array(sizes, np.intp),
            np.concatenate([at, *panels]).astype(np.intp),
            tap_of.astype(np.intp),
        ),
        lists=0,
        space=_line_up(positions_at + (block_k + 1) * unit + tile_rows * unit),
        items=blocks * _pieces(problem.rows, block_rows),
    )


def _line_up(n: int) -> int:
    return -(-n // 16) * 16


def _weights_plan(geometry: ConvGeometry, itemsize: int, threads: int, tile: tuple[int, int, int]) -> Plan:
    tile_rows, vectors, lanes = tile
    unit = vectors * lanes
    lines = forward_lines(geometry)
    groups, images = geometry.groups, geometry.x_shape[0]
    filters, channels, taps = geometry.w_shape[0] // groups, geometry.w_shape[1], geometry.taps
    positions = min(max(_PANEL_BYTES // (filters * itemsize), 128), 512)
    columns = _pieces(channels * taps, unit)
    items = groups
    block_channels = channels
    if groups < 4 * threads and columns >= 4 * threads:
        split = _pieces(2 * threads, groups) if columns >= 8 * threads else threads
        block_channels = _pieces(channels, min(split, channels))
        items = groups * _pieces(channels, block_channels)
    count, block = _block(lines, images, block_channels, itemsize, positions, unit)
    blocks = _pieces(images, count) * math.prod(_pieces(line.out, n) for line, n in zip(lines, block, strict=True))
    parts = 1
    if items % threads and items < 4 * threads:
        parts = min(threads, blocks)
    row = block[2] + lines[2].reach
    layout = Layout(lines, count, block, row)
    channel_pitch = layout.channel_pitch(itemsize)
    at = (np.arange(block_channels)[:, None] * channel_pitch + layout.taps()).ravel()
    whole = count * math.prod(block)
    length = count * block[0] * ((block[1] - 1) * row + block[2])
    panel_at = _line_up(block_channels * channel_pitch + 2 * unit)
    positions_at = _line_up(panel_at + filters * whole + unit)
    spill_at = _line_up(positions_at + (length + 1) * unit)
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
        length,
    ]
    return Plan(
        (layout.axes(), layout.phases(), np.array(sizes, np.intp), at.astype(np.intp)),
        lists=whole,
        space=_line_up(spill_at + tile_rows * unit),
        items=items * parts,
        parts=parts,
    )
