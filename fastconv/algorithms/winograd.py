"""Winograd's minimal filtering: fewer multiplications for small kernels at stride 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import _arrays, _isa, _threads
from fastconv._ext import implicit as _shape
from fastconv._ext import winograd as _ext
from fastconv.algorithms import _apart
from fastconv.algorithms._blocks import Line, backward_lines, even, forward_lines, lift, line_up, pieces
from fastconv.algorithms.base import Algorithm, Op, seconds, share, touched
from fastconv.geometry import ConvGeometry

_PRODUCT = {dtype: _ext.product[name] for dtype, name in _arrays.NAMES.items()}
_WEIGHTS = {dtype: _ext.weights[name] for dtype, name in _arrays.NAMES.items()}

#: Workspace of all threads together, in bytes.
_SPACE_BYTES = 28 << 20
#: Tiles that make transforming the weights cheap beside multiplying by them, and those a block has at most.
_TILES, _MOST_TILES = 112, 192
#: Filters and channels whose gradients a thread sums at a time.
_SUMS = 128
#: Weights that are turned at a time, filters side by side: they stay in the second-level cache.
_TURNED_BYTES = 1 << 17
#: What a byte taken apart costs beside one touched, and each part, in bytes.
_COPY, _PART = 4, 10_000
#: Tables longer than this are not kept with the geometry.
_LONG = 1 << 16


@dataclass(frozen=True)
class Minimal:
    """Along one axis: interpolation points, taps of the kernel, outputs of a tile."""

    points: int
    taps: int
    outputs: int


NONE = Minimal(1, 1, 1)
#: By kernel size; where there are two, the one with fewer multiplications first.
MINIMAL = {1: (NONE,), 3: (Minimal(6, 3, 4), Minimal(4, 3, 2)), 5: (Minimal(6, 5, 2),)}
#: The pairs (height, width) that kernels exist for.
_PAIRS = {
    (6, 3, 6, 3),
    (4, 3, 4, 3),
    (6, 5, 6, 5),
    (1, 1, 6, 3),
    (1, 1, 4, 3),
    (1, 1, 6, 5),
    (6, 3, 1, 1),
    (6, 5, 1, 1),
}


@dataclass(frozen=True)
class Plan:
    """One call of a kernel: its tables, its workspace in elements a thread, and how many items it draws."""

    tables: tuple[np.ndarray, ...]
    space: int
    items: int
    parts: int
    work: dict[str, float]


class Winograd(Algorithm):
    """Minimal filtering F(4, 3), F(2, 3) and F(2, 5), along the last axis or the last two.

    A dilated image is taken apart into images of every so-many-th cell first.

    Tiles of the input, of the weights and of the output are polynomials, known
    by their values at P points; there a convolution is one product per point.
    With C channels, F filters and T tiles:

    - forward:          Y = A^T [V @ U] A,  V = B^T d B, U = G g G^T   P times [T x C] @ [C x F]
    - backward_data:    the same on dout, the kernel turned
    - backward_weights: dg = A^T [D @ V] A, D = G dy G^T               P times [F x T] @ [T x C]

    F(4x4, 3x3) has 36 products where the definition has 144. The points are 0,
    +-3/4, +-3/2 and infinity; 0, +-1 and infinity for F(2, 3). Against float64,
    errors in float32 stay below 5e-5 of the largest output for up to 512
    channels (3e-6 is typical), in float64 below 1e-13.

    References
    ----------
    S. Winograd, "Arithmetic complexity of computations", SIAM, 1980; A. Lavin,
    S. Gray, "Fast algorithms for convolutional neural networks",
    arXiv:1509.09308; B. Barabasz et al., "Error analysis and improving the
    accuracy of Winograd convolution", arXiv:1803.10986 (choice of points).
    """

    name = "winograd"
    sums_products = False

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """Stride 1, padding that goes with the dilation, and kernels that there are transforms for."""
        if any(axis.stride != 1 and axis.out > 1 for axis in geometry.axes):
            return f"the stride is {tuple(axis.stride for axis in geometry.axes)}, and it needs 1"
        if not _minimals(geometry):
            return f"the kernel is {geometry.kernel}; its last axes must be 3, 5, 3x3, 5x5, or 1 beside 3 or 5"
        return _apart.reason(geometry)

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Per thread a block of the image, and it, the weights and the products at every point."""
        apart = _apart.Apart.of(geometry)
        if apart is not None:
            return apart.held(dtype.itemsize) + self.workspace_bytes(op, apart.geometry, dtype, threads)
        plan = _plan(op, geometry, dtype, threads)
        partial = math.prod(geometry.w_shape) * (plan.parts if plan.parts > 1 else 0)
        return (min(threads, plan.items) * plan.space + partial) * dtype.itemsize

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """The products and the three transforms, in vector operations."""
        apart = _apart.Apart.of(geometry)
        if apart is not None:
            work = self.work(op, apart.part(geometry.x_shape[0]), dtype, threads)
            copied = _COPY * apart.copied(dtype.itemsize) + _PART * apart.parts * pieces(
                geometry.x_shape[0], apart.images
            )
            return work | {"touched": work["touched"] + copied}
        return _plan(op, geometry, dtype, threads).work

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Bias is added as tiles are transformed back."""
        apart = _apart.Apart.of(geometry)
        if apart is not None:
            for images, part in apart.chunks():
                parts = np.empty(part.out_shape, out.dtype)
                self.forward(apart.take(x[images], part.x_shape), w, b, part, parts, threads)
                apart.put(parts, out[images])
            return
        bias = out.reshape(-1)[:0] if b is None else b
        plan = _plan("forward", geometry, x.dtype, threads)
        _run(plan, _PRODUCT, geometry, threads, x, w.reshape(-1), bias, out.reshape(-1))

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """The same on dout, with the kernel turned."""
        apart = _apart.Apart.of(geometry)
        if apart is not None:
            for images, part in apart.chunks():
                parts = np.empty(part.x_shape, dx.dtype)
                self.backward_data(apart.take(dout[images], part.out_shape), w, part, parts, threads)
                apart.put(parts, dx[images])
            return
        self.transposed(dout, w, None, geometry, dx, threads)

    def transposed(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Bias as in `forward`."""
        if _apart.Apart.of(geometry) is not None:
            super().transposed(x, w, b, geometry, out, threads)
            return
        bias = out.reshape(-1)[:0] if b is None else b
        plan = _plan("backward_data", geometry, out.dtype, threads)
        _run(plan, _PRODUCT, geometry, threads, x, w.reshape(-1), bias, out.reshape(-1))

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Where dw is small, each thread sums tiles of its own into a dw of its own."""
        apart = _apart.Apart.of(geometry)
        if apart is not None:
            total = dw
            for images, part in apart.chunks():
                of_x, of_dout = apart.take(x[images], part.x_shape), apart.take(dout[images], part.out_shape)
                self.backward_weights(of_x, of_dout, part, total, threads)
                if total is not dw:
                    dw += total
                total = np.empty_like(dw) if total is dw else total
            return
        plan = _plan("backward_weights", geometry, dw.dtype, threads)
        parts = dw.reshape(1, -1) if plan.parts == 1 else np.empty((plan.parts, dw.size), dw.dtype)
        _run(plan, _WEIGHTS, geometry, threads, x, dout.reshape(-1), parts)
        if plan.parts > 1:
            np.sum(parts, axis=0, out=dw.reshape(-1))


def _run(
    plan: Plan, kernels: Mapping[Any, Any], geometry: ConvGeometry, threads: int, x: np.ndarray, *arrays: np.ndarray
) -> None:
    workers = min(threads, plan.items)
    with _arrays.workspace("blocks of the image", (workers, plan.space), x.dtype) as space:
        _threads.share(
            kernels[x.dtype],
            (x.reshape(-1), *arrays, *plan.tables, space, _isa.current),
            items=plan.items,
            work=int(plan.work["product"] * threads * _isa.BYTES_PER_OPERATION),
            threads=threads,
        )


def _minimals(geometry: ConvGeometry) -> list[tuple[Minimal, Minimal]]:
    """What can be done along height and width."""
    *_, high, wide = (1, *geometry.kernel)
    pairs = [(h, w) for h in MINIMAL.get(high, ()) for w in MINIMAL.get(wide, ())]
    return [(h, w) for h, w in pairs if (h.points, h.taps, w.points, w.taps) in _PAIRS]


def _plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Plan:
    kept: dict[Any, Plan] = vars(geometry).setdefault("_winograd", {})
    key = op, dtype.itemsize, threads, _isa.current
    if key in kept:
        return kept[key]
    tile = _shape.shape(_arrays.DTYPES[dtype], _isa.current)
    make = _weights_plan if op == "backward_weights" else _product_plan
    plans = [
        make(_Problem.of(op, geometry, pair), touched(geometry, dtype), dtype.itemsize, threads, tile)
        for pair in _minimals(geometry)
    ]
    plan = min(plans, key=lambda p: seconds(Winograd.name, op, p.work))
    if sum(table.size for table in plan.tables) <= _LONG:
        kept[key] = plan
    return plan


@dataclass(frozen=True)
class _Problem:
    """What both kernels are told: sizes of a group, and the axes in tiles."""

    images: int
    groups: int
    rows: int
    row_step: int
    channels: int
    channel_step: int
    turned: bool
    taps: int
    lines: tuple[Line, Line, Line]
    minimal: tuple[Minimal, Minimal, Minimal]

    @classmethod
    def of(cls, op: Op, geometry: ConvGeometry, pair: tuple[Minimal, Minimal]) -> _Problem:
        groups, taps = geometry.groups, geometry.taps
        rows, channels = geometry.w_shape[0] // groups, geometry.w_shape[1]
        sizes = rows, channels * taps, channels, taps
        lines = forward_lines(geometry)
        if op == "backward_data":
            sizes = channels, taps, rows, channels * taps
            lines = lift([backward_lines(axis.row())[0] for axis in geometry.axes])
        depth = Minimal(1, lines[0].taps, 1)
        return cls(geometry.x_shape[0], groups, *sizes, op == "backward_data", taps, lines, (depth, *pair))

    @property
    def points(self) -> int:
        """Products for each tile."""
        return math.prod(m.points for m in self.minimal)

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Along each axis of the output."""
        d, h, w = (pieces(line.out, m.outputs) for line, m in zip(self.lines, self.minimal, strict=True))
        return d, h, w

    def blocks(self, block: tuple[int, ...], count: int) -> int:
        """How many blocks cover the batch."""
        return pieces(self.images, count) * math.prod(map(pieces, self.tiles, block))

    def axes(self, block: tuple[int, ...]) -> np.ndarray:
        """The table of axes that the kernels read."""
        rows = [
            (line.size, line.lo, line.out, m.points, m.taps, m.outputs, n, b)
            for line, m, n, b in zip(self.lines, self.minimal, self.tiles, block, strict=True)
        ]
        return np.array(rows, np.intp)

    def cells(self, block: tuple[int, ...]) -> int:
        """Cells of the source that a block sees of an image, at most."""
        spans = (
            (b - 1) * m.outputs + (m.points if i else m.taps)
            for i, (b, m) in enumerate(zip(block, self.minimal, strict=True))
        )
        return math.prod(map(min, spans, (line.size for line in self.lines)))

    def block(self, most: int) -> tuple[int, tuple[int, int, int]]:
        """Images and tiles of a block: whole rows, planes, volumes and images while they stay within `most`."""
        d, h, w = self.tiles
        n_w = even(w, most)
        n_h = even(h, most // n_w) if n_w == w else 1
        n_d = even(d, most // (n_w * n_h)) if (n_h, n_w) == (h, w) else 1
        count = even(self.images, most // (d * h * w)) if (n_d, n_h, n_w) == (d, h, w) else 1
        return count, (n_d, n_h, n_w)


def _planes(count: int, line_up_to: tuple[int, ...]) -> np.ndarray:
    """Where each of `count` planes starts."""
    return np.arange(count, dtype=np.intp) * math.prod(line_up_to)


def _pitch(n: int, line: int) -> int:
    """At least n elements, and a cache line more than whole pages: points that meet in no cache set."""
    return pieces(n, 32 * line) * 32 * line + line


def _product_plan(problem: _Problem, moved: int, itemsize: int, threads: int, tile: tuple[int, int, int]) -> Plan:
    _, vectors, lanes = tile
    unit, line = vectors * lanes, 64 // itemsize
    points, deep, k = problem.points, problem.minimal[0].taps, problem.channels
    cell = pieces(k, lanes) * lanes
    v_step = cell + line

    # A thread's share of the workspace holds the image at all points, and what the products need beside it.
    share = _SPACE_BYTES // itemsize // threads
    u_pitch = line
    fixed = points * (deep * k * unit + line) + _TURNED_BYTES // itemsize
    per_tile = points * (deep * v_step + unit) + 20 * cell
    count, block = problem.block(max(1, min((share - fixed) // per_tile, _TILES)))
    tiles = count * math.prod(block)
    blocks = problem.groups * problem.blocks(block, count)
    split = 1
    if blocks < 4 * threads and blocks % threads:
        widths = pieces(problem.rows, lanes)
        split = next((n for n in range(1, min(threads, widths) + 1) if blocks * n % threads == 0), min(threads, widths))
    block_rows = even(problem.rows, pieces(problem.rows, split), lanes)
    all_rows = pieces(block_rows, lanes) * lanes
    kept = blocks > threads and points * (deep * k + line) * all_rows <= share - tiles * per_tile
    chunk = min(k, max(1, _TURNED_BYTES // (problem.taps * unit * itemsize)))

    zero_at = line_up(count * problem.cells(block) * cell)
    v_at = line_up(zero_at + cell)
    v_pitch = _pitch(deep * tiles * v_step, line)
    u_at = line_up(v_at + points * v_pitch)
    weights = deep * k * (all_rows if kept else min(unit, all_rows)) + u_pitch * pieces(all_rows, lanes)
    m_at = line_up(u_at + points * weights)
    m_pitch = _pitch(tiles * unit, line)
    g_at = line_up(m_at + points * m_pitch)
    bias_at = line_up(g_at + (chunk * problem.taps + 1) * unit)
    sizes = [
        *(problem.images, count, problem.groups, problem.rows, problem.row_step, block_rows),
        *(k, problem.channel_step, k, problem.turned, kept, 1, chunk, cell, all_rows),
        *(zero_at, v_at, u_at, m_at, g_at, bias_at, v_step, 0, v_pitch, u_pitch, m_pitch),
    ]
    lines = np.concatenate([np.arange(k) * (n * lanes) for n in range(1, vectors + 1)])
    items = blocks * pieces(problem.rows, block_rows)
    weighings = min(threads, items) if kept else items
    work = {
        "product": points * blocks * tiles * all_rows * split * deep * k,
        "image": points * blocks * tiles * split * deep * cell,
        "result": points * blocks * tiles * all_rows * split,
        "weights": points * weighings * deep * k * all_rows,
    }
    return Plan(
        (
            problem.axes(block),
            np.array(sizes, np.intp),
            _planes(k, tuple(side.size for side in problem.lines)),
            lines.astype(np.intp),
        ),
        space=line_up(bias_at + unit),
        items=items,
        parts=1,
        work=_shared(work, moved, items, threads, lanes),
    )


def _weights_plan(problem: _Problem, moved: int, itemsize: int, threads: int, tile: tuple[int, int, int]) -> Plan:
    _, _, lanes = tile
    line = 64 // itemsize
    points, deep = problem.points, problem.minimal[0].taps
    block_rows = even(problem.rows, _SUMS, lanes)
    block_channels = even(problem.channels, _SUMS, lanes)
    cell, rows_cell = pieces(block_channels, lanes) * lanes, pieces(block_rows, lanes) * lanes
    v_step, u_step = cell + line, rows_cell + line
    share = _SPACE_BYTES // itemsize // threads
    fixed = points * deep * block_rows * cell
    per_tile = points * (deep * v_step + u_step) + 20 * max(cell, rows_cell)
    count, block = problem.block(max(1, min((share - fixed) // per_tile, _TILES)))
    tiles = count * math.prod(block)
    blocks = problem.blocks(block, count)
    items = problem.groups * pieces(problem.rows, block_rows) * pieces(problem.channels, block_channels)
    parts = min(threads, blocks) if items < 4 * threads and items % threads else 1

    cells = max(
        problem.cells(block) * cell,
        math.prod(
            min(b * m.outputs, line_.out) for b, m, line_ in zip(block, problem.minimal, problem.lines, strict=True)
        )
        * rows_cell,
    )
    zero_at = line_up(count * cells)
    v_at = line_up(zero_at + max(cell, rows_cell))
    v_pitch = _pitch(deep * tiles * v_step, line)
    u_at = line_up(v_at + points * v_pitch)
    u_pitch = _pitch(tiles * u_step, line)
    m_at = line_up(u_at + points * u_pitch)
    m_pitch = _pitch(deep * block_rows * cell, line)
    end = line_up(m_at + points * m_pitch)
    sizes = [
        *(problem.images, count, problem.groups, problem.rows, problem.row_step, block_rows),
        *(problem.channels, problem.channel_step, block_channels, False, False, parts, 0, cell, rows_cell),
        *(zero_at, v_at, u_at, m_at, end, end, v_step, u_step, v_pitch, u_pitch, m_pitch),
    ]
    seen = blocks * tiles * items
    work = {
        "product": points * seen * block_rows * deep * cell,
        "image": points * seen * deep * cell,
        "result": points * seen * rows_cell,
        "weights": points * parts * items * deep * cell * rows_cell,
    }
    return Plan(
        (
            problem.axes(block),
            np.array(sizes, np.intp),
            _planes(block_channels, tuple(side.size for side in problem.lines)),
            _planes(block_rows, tuple(side.out for side in problem.lines)),
            np.arange(tiles, dtype=np.intp) * v_step,
        ),
        space=end,
        items=items * parts,
        parts=parts,
        work=_shared(work, moved, items * parts, threads, lanes),
    )


def _shared(work: Mapping[str, float], moved: int, items: int, threads: int, lanes: int) -> dict[str, float]:
    """The part of the thread that does most, in operations on vectors."""
    part = share(items, threads) * _isa.relative() / lanes
    return {kind: amount * part for kind, amount in work.items()} | {"touched": moved / threads, "call": 1}
