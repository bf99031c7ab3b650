"""Winograd's minimal filtering: fewer multiplications for small kernels at stride 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import _arrays, _isa, _threads
from fastconv._ext import implicit as _shape
from fastconv._ext import winograd as _ext
from fastconv.algorithms._blocks import Layout, Line, backward_lines, even, forward_lines, lift, line_up, pieces
from fastconv.algorithms.base import MULTIPLY_ADDS, Algorithm, Op, multiply_adds
from fastconv.geometry import ConvGeometry

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_PRODUCT = {_DTYPES[0]: _ext.product["float"], _DTYPES[1]: _ext.product["double"]}

#: Workspace of all threads together, in bytes.
_SPACE_BYTES = 28 << 20
#: Tiles that make transforming the weights cheap beside multiplying by them, and those a block has at most.
_TILES, _MOST_TILES = 96, 192
#: Tables of products longer than this are not kept with the geometry.
_LONG_K = 1 << 16


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
    """One call of the kernel: its tables, its workspace in elements a thread, and how many items it draws."""

    tables: tuple[np.ndarray, ...]
    space: int
    items: int
    cost: float


class Winograd(Algorithm):
    """Minimal filtering F(4, 3), F(2, 3) and F(2, 5), along the last axis or the last two.

    Tiles of the input, of the weights and of the output are polynomials, known
    by their values at 6 or 4 points; there a convolution is one product per
    point. With P points, C channels, F filters and T tiles:

        U = G g G^T,  V = B^T d B,  M = V @ U  [T x C] @ [C x F] P times,  Y = A^T M A

    F(4x4, 3x3) has 36 products where the definition has 144. The points are 0,
    +-3/4, +-3/2 and infinity, whose float32 error is at most 5e-5 of the largest output for up
    to 512 channels of unit variance (3e-6 is typical); 0, +-1 and infinity for F(2, 3).

    References
    ----------
    S. Winograd, "Arithmetic complexity of computations", SIAM, 1980; A. Lavin,
    S. Gray, "Fast algorithms for convolutional neural networks",
    arXiv:1509.09308; B. Barabasz et al., "Error analysis and improving the
    accuracy of Winograd convolution", arXiv:1803.10986 (choice of points).
    """

    name = "winograd"

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """Stride and dilation 1, and kernels that there are transforms for."""
        if op == "backward_weights":
            return "it computes forward and backward_data only"
        if any(axis.stride != 1 and axis.out > 1 for axis in geometry.axes):
            return f"the stride is {tuple(axis.stride for axis in geometry.axes)}, and it needs 1"
        if any(axis.dilation != 1 and axis.k > 1 for axis in geometry.axes):
            return f"the dilation is {tuple(axis.dilation for axis in geometry.axes)}, and it needs 1"
        if not _minimals(geometry):
            return f"the kernel is {geometry.kernel}; its last axes must be 3, 3x3, 5, 5x5, or 1 beside 3 or 5"
        return None

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Per thread a block of the image, and it, the weights and the products at every point."""
        plan = _plan(op, geometry, dtype, threads)
        return min(threads, plan.items) * plan.space * dtype.itemsize

    def cost(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> float:
        """Products and transforms."""
        return multiply_adds(geometry) / (MULTIPLY_ADDS * 4 / dtype.itemsize)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """Bias is added as tiles are transformed back."""
        _run(_plan("forward", geometry, x.dtype, threads), geometry, threads, x, w, out if b is None else b, out)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """The same on dout, with the kernel flipped."""
        _run(_plan("backward_data", geometry, dx.dtype, threads), geometry, threads, dout, w, dx, dx)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Never reached: `unsupported` says so."""
        raise NotImplementedError(self.unsupported("backward_weights", geometry, dw.dtype))


def _run(
    plan: Plan,
    geometry: ConvGeometry,
    threads: int,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray,
    result: np.ndarray,
) -> None:
    workers = min(threads, plan.items)
    with _arrays.workspace("blocks of the image", (workers, plan.space), result.dtype) as space:
        _threads.run(
            _PRODUCT[result.dtype],
            (
                source.reshape(-1),
                w.reshape(-1),
                bias.reshape(-1)[: 0 if bias is result else None],
                result.reshape(-1),
                *plan.tables,
                space,
                _isa.current,
            ),
            items=plan.items,
            work=multiply_adds(geometry) // 10,
            threads=threads,
            grain=1,
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
    tile = _shape.shape(_DTYPES.index(dtype), _isa.current)
    plans = [_plan_of(op, geometry, dtype.itemsize, threads, tile, *pair) for pair in _minimals(geometry)]
    plan = min(plans, key=lambda p: p.cost)
    if len(plan.tables[-1]) <= _LONG_K:
        kept[key] = plan
    return plan


@dataclass(frozen=True)
class _TileLine(Line):
    """An axis in tiles: windows of `points` cells. Spread, each cell of a window is a phase of its own."""

    spread: bool = False

    @property
    def phases(self) -> list[int]:
        """All cells of a window where spread."""
        return list(range(self.taps)) if self.spread else super().phases

    @property
    def reach(self) -> int:
        """None where spread."""
        return 0 if self.spread else super().reach

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """A phase for each cell of a window where spread."""
        return (np.arange(self.taps), np.zeros(self.taps, np.intp)) if self.spread else super().cells()


def _tiled(line: Line, minimal: Minimal, spread: bool) -> _TileLine:
    fields = dict(vars(line), stride=minimal.outputs, out=pieces(line.out, minimal.outputs))
    return _TileLine(**dict(fields, weights=tuple(range(minimal.points))), spread=spread)


@dataclass(frozen=True)
class _Spread(Layout):
    """Blocks whose tiles follow each other at every point, those of all depths and, where `joined`, all images."""

    joined: bool = False

    @property
    def slot_pitches(self) -> tuple[int, int, int]:
        """A slot holds a cell of every tile."""
        size = self._cells(0) * self.block[1] * self.row * (self.images if self.joined else 1)
        return 0, size * len(self.lines[2].phases), size

    @property
    def pitches(self) -> tuple[int, int, int]:
        """Within a slot planes are dense."""
        return self.block[1] * self.row, self.row, 1

    @property
    def image_pitch(self) -> int:
        """Where joined, images lie within a slot."""
        if self.joined:
            return self._cells(0) * self.block[1] * self.row
        return len(self.lines[1].phases) * self.slot_pitches[1]

    @property
    def size(self) -> int:
        """Elements of a channel."""
        return len(self.lines[1].phases) * self.slot_pitches[1] * (1 if self.joined else self.images)


def _plan_of(
    op: Op,
    geometry: ConvGeometry,
    itemsize: int,
    threads: int,
    tile: tuple[int, int, int],
    high: Minimal,
    wide: Minimal,
) -> Plan:
    tile_rows, vectors, lanes = tile
    unit = vectors * lanes
    groups, images, taps = geometry.groups, geometry.x_shape[0], geometry.taps
    rows, channels = geometry.w_shape[0] // groups, geometry.w_shape[1]
    row_step, channel_step = channels * taps, taps
    lines = forward_lines(geometry)
    if op == "backward_data":
        rows, channels, row_step, channel_step = channels, rows, channel_step, row_step
        lines = lift([backward_lines(axis.row())[0] for axis in geometry.axes])
    depth, points = lines[0], high.points * wide.points
    k = channels * depth.taps

    # A thread's share of the workspace holds the image at all points, and what the products need beside it.
    share = _SPACE_BYTES // itemsize // threads
    fixed = points * k * unit + 2 * unit * 16 * taps
    per_tile = points * (k + unit) + 36 * channels
    most = max(1, min((share - fixed) // per_tile, _MOST_TILES))
    count, block = _blocks_of_tiles(lines, high, wide, images, min(_TILES, most))
    tiles = count * math.prod(block)
    spread = block[2] < lanes and block[1:] == (pieces(lines[1].out, high.outputs), pieces(lines[2].out, wide.outputs))
    joined = (2 if depth.reach == 0 else 1) if spread else 0
    tiled = (depth, _tiled(lines[1], high, spread), _tiled(lines[2], wide, spread))
    row = block[2] + tiled[2].reach
    layout: Layout = (
        _Spread(tiled, count, block, row, joined=joined == 2) if spread else Layout(tiled, count, block, row)
    )
    channel_pitch = layout.channel_pitch(itemsize)

    blocks = groups * pieces(images, count) * math.prod(pieces(t.out, n) for t, n in zip(tiled, block, strict=True))
    split = 1
    if blocks < 4 * threads and blocks % threads:
        widths = pieces(rows, lanes)
        split = next((n for n in range(1, min(threads, widths) + 1) if blocks * n % threads == 0), min(threads, widths))
    block_rows = even(rows, pieces(rows, split), lanes)
    all_rows = pieces(block_rows, lanes) * lanes
    kept = points * k * all_rows <= share - tiles * per_tile
    v_pitch = k * tiles + lanes
    v_at = line_up(channels * channel_pitch + 2 * unit)
    u_at = line_up(v_at + points * v_pitch)
    m_at = line_up(u_at + points * k * (all_rows if kept else min(unit, all_rows)))
    g_at = line_up(m_at + points * tiles * unit)
    chunk = min(channels, 16)
    bias_at = line_up(g_at + (chunk * taps + 1) * unit)
    sizes = [
        *(images, count, groups, rows, row_step, block_rows, channels, channel_step),
        *(channel_pitch, layout.image_pitch, joined, int(op == "backward_data"), int(kept), tiles, depth.taps),
        *(high.points, high.taps, high.outputs, wide.points, wide.taps, wide.outputs),
        *(chunk, v_at, u_at, m_at, g_at, bias_at, v_pitch),
    ]
    at = layout.taps()[:points]
    offsets = np.concatenate([np.arange(k) * (n * lanes) for n in range(1, vectors + 1)])
    items = blocks * pieces(rows, block_rows)
    weighings = threads if kept else items
    cost = _cycles(points, blocks * tiles * k, blocks * tiles * all_rows, weighings * k * all_rows, k, lanes)
    return Plan(
        (layout.axes(), layout.phases(), np.array(sizes, np.intp), at.astype(np.intp), offsets.astype(np.intp)),
        space=line_up(bias_at + unit),
        items=items,
        cost=cost,
    )


def _cycles(points: int, inputs: int, outputs: int, weights: int, k: int, lanes: int) -> float:
    """Vector operations: of the products, and of the three transforms, per element that they make."""
    return points / lanes * (outputs * k + 6 * inputs + 5 * outputs + 4 * weights)


def _blocks_of_tiles(
    lines: tuple[Line, Line, Line], high: Minimal, wide: Minimal, images: int, most: int
) -> tuple[int, tuple[int, int, int]]:
    """Images and tiles of a block: whole rows, planes, volumes and images while they stay within `most`."""
    tiles_w, tiles_h = pieces(lines[2].out, wide.outputs), pieces(lines[1].out, high.outputs)
    n_w = even(tiles_w, most)
    n_h = even(tiles_h, most // n_w) if n_w == tiles_w else 1
    n_d = even(lines[0].out, most // (n_w * n_h)) if (n_h, n_w) == (tiles_h, tiles_w) else 1
    volume = n_w * n_h * n_d
    count = even(images, most // volume) if volume == tiles_w * tiles_h * lines[0].out else 1
    return count, (n_d, n_h, n_w)
