"""Winograd's minimal filtering: fewer multiplications, by products of polynomials at points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv._ext import implicit as _shape, winograd as _ext, winograd_weights as _ext_weights
from fastconv.checks import arrays as _arrays
from fastconv.convolution import space_to_batch as _space_to_batch, wrappers
from fastconv.convolution.base import Algorithm, MethodAlgorithm
from fastconv.convolution.blocking import even, line_up, pieces
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import NEAR_BYTES, memory, multiply_adds, seconds
from fastconv.convolution.ops import Op
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.winograd import decomposition as _decomposition
from fastconv.convolution.winograd.decomposition import Problem
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import is_large, plans
from fastconv.runtime.records import dataclass

_PRODUCT = {dtype: _ext.product[name] for dtype, name in _arrays.NAMES.items()}
_WEIGHTS = {dtype: _ext_weights.weights[name] for dtype, name in _arrays.NAMES.items()}

#: Workspace of all threads together, in bytes.
_SPACE_BYTES = 28 << 20
#: Tiles that make reading the weights cheap beside multiplying by them, and where there are few weights.
_TILES, _FEW_TILES = 64, 24
#: Of a second-level cache: what a block's tiles and products take, and weights that count as few.
_BLOCK_BYTES = 1 << 19
#: Filters whose products are made before any is transformed back: while they are, tiles stay near.
_PASS = 32
#: Panels of weights in a pass, at most: as in the kernel.
_MOST_PANELS = 64
#: Filters and channels whose gradients a thread sums at a time.
_SUMS = 128
#: Taps of a kernel, and of all channels or filters of a group: tables and transformed weights are many times as long.
_MOST_TAPS, _MOST_WEIGHTS = 1 << 14, 1 << 17
#: Operations on vectors that are few in any case: some tenths of a second. With more, transforms and products may take
#: so many times those of the sums of products: they take more where few channels leave lanes of the transforms empty.
_FEW_OPERATIONS, _MOST_TIMES = 1 << 28, 10
#: Stride phases of a gradient that are computed together, at most.
_PHASES = 64
#: Weights that are turned at a time, filters side by side: they stay in the second-level cache.
_TURNED_BYTES = 1 << 17
#: What a byte taken apart costs beside one touched, and each part, in bytes.
_COPY, _PART = 4, 10_000


@dataclass(frozen=True)
class Tiles:
    """One call of a kernel: its tables, its workspace in elements a thread, and how many items it draws.

    Tables are made when they are first asked for, because most plans are only compared; long ones are not kept.
    """

    make: Callable[[], tuple[np.ndarray, ...]]
    length: int
    space: int
    items: int
    parts: int
    points: int
    taps: tuple[int, int]
    work: dict[str, float]
    #: By what it counts as slower than it is, beside other plans.
    dearer: float = 1.0

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """What the kernel reads."""
        if is_large(self.length * np.dtype(np.intp).itemsize):
            return self.make()
        return self._kept_tables

    @cached_property
    def _kept_tables(self) -> tuple[np.ndarray, ...]:
        return self.make()


class Winograd(MethodAlgorithm):
    """Minimal filtering F(m, t), m + t - 1 of 4, 6 or 8, along the last axis or the last two.

    Kernels of other sizes and strides are sums of subkernels of t taps (`_decomposition`): with stride s of every s-th
    tap each, which is a filter of stride 1 on every s-th cell. A dilated image is taken apart into images of every
    so-many-th cell first.

    Tiles of the input, of the weights and of the output are polynomials, known
    by their values at P points; there a convolution is one product per point.
    With C channels in all subkernels together, F filters and T tiles:

    - forward:          Y = A^T [V @ U] A,  V = B^T d B, U = G g G^T   P times [T x C] @ [C x F]
    - backward_data:    the same on dout, the kernel turned; strided, one product for each phase of dx, whose
      kernels share V
    - backward_weights: dg = A^T [D @ V] A, D = G dy G^T               P times [F x T] @ [T x C]

    F(4x4, 3x3) has 36 products where the definition has 144, F(4x4, 5x5) 64 in the place of 400. Along an axis the
    points are 0, infinity and +-1; or +-3/4, +-3/2; or +-1/2, +-1, +-2. Eight are taken only where they are faster by
    a tenth.

    Rounding errors grow with the inputs of the transforms, not with the outputs. The error of an output is at most

        A * (1 + s) * eps * M * S,    A = 4, 14.3 or 39.6 along one axis, 16, 205 or 1570 along two,

    for 4, 6 or 8 points. eps belongs to the dtype (1.2e-7 or 2.2e-16). M is the largest |x| that a tile reads, over all
    channels and up to (P - 1) * stride cells beyond the output's own window. S is the sum of a filter's |w|. The
    transforms err by A. A sum of K products, K the channels of all subkernels, errs by s more because at most 60
    products are added one after the other, and then the sums of each 100: s = (min(K, 60) + K / 100) / 2. Single
    products come near this bound. Errors of unrelated channels cancel: over 64 channels or more, the error stays below
    8, 8 or 32 * eps * M * S. Errors of channels that repeat each other add up, to some 3 * A * eps * M * S in tests.

    The same bounds hold for the gradients. For dx, M is the largest |dout|, and S sums |w| over filters and taps. For
    dw, M is the largest |x|, and S sums the |dout| of a filter over all positions. If an output is small beside M * S,
    the error may be a large part of it. An example is taps that sum to zero on an image far from zero; use 'exact'
    there. M, |w| and their product have to be normal numbers, above 1.2e-38 in float32, because smaller numbers lose
    digits, as in every sum.

    A transform may overflow although the sum of products is finite. An inf or NaN spreads to all outputs of the tiles
    that read it, and is never hidden. 'auto' computes images in which that happened again, by an algorithm that sums
    products. If 'winograd' is selected by name, nothing is computed again.

    References
    ----------
    S. Winograd, "Arithmetic complexity of computations", SIAM, 1980; A. Lavin,
    S. Gray, "Fast algorithms for convolutional neural networks",
    arXiv:1509.09308; B. Barabasz et al., "Error analysis and improving the
    accuracy of Winograd convolution", arXiv:1803.10986 (choice of points).
    """

    name = "winograd"
    sums_products = False

    def __init__(self, points: tuple[int, ...] = _decomposition.POINTS, taps: tuple[int, int] | None = None) -> None:
        #: Of interpolation along an axis: the plan of least cost is taken of those with as many.
        self.points = points
        #: Of subkernels along the last two axes, where they are given.
        self.taps = taps

    def ways(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, Algorithm]:
        """The best with each number of points: '6 3x3' takes six, and three taps of each axis at a time."""
        apart = _space_to_batch.Apart.of(geometry)
        part = geometry if apart is None else apart.geometry
        found: dict[str, Algorithm] = {}
        for points in self.points:
            if _decomposition.pairs(part, (points,)):
                high, wide = Winograd((points,))._plan(op, part, dtype, threads).taps
                found[f"{points} {high}x{wide}"] = Winograd((points,), (high, wide))
        return found

    def way(self, name: str) -> Algorithm:
        """As `ways` names it."""
        if not name:
            return self
        points, _, taps = name.partition(" ")
        high, _, wide = taps.partition("x")
        return Winograd((int(points),), (int(high), int(wide)))

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """Two taps or more to a stride phase, no dilation of what has strides, and padding that goes with it."""
        strides = tuple(axis.stride for axis in geometry.axes)
        # Those of a single output are as good as one.
        rows = _decomposition.lifted(geometry)
        phases = math.prod(stride for _, _, stride, *_ in rows)
        if phases > 1 and _space_to_batch.Apart.of(geometry) is not None:
            dilation = tuple(axis.dilation for axis in geometry.axes)
            return f"the stride is {strides} and the dilation {dilation}, and one of them must be 1"
        if not _decomposition.pairs(geometry, self.points):
            return (
                f"the kernel is {geometry.kernel} and the stride {strides}; "
                "along one of the last two axes it has to be longer than the stride"
            )
        filters, channels, *_ = geometry.w_shape
        if geometry.taps > _MOST_TAPS:
            return f"the kernel has {geometry.taps} taps, and it takes at most {_MOST_TAPS}"
        if (weights := geometry.taps * max(filters // geometry.groups, channels)) > _MOST_WEIGHTS:
            return f"{weights} weights meet an output or a cell, and it takes at most {_MOST_WEIGHTS}"
        if op == "backward_data" and phases > _PHASES:
            return f"the stride is {strides}, and this gradient needs a product of at most {_PHASES}"
        return _space_to_batch.reason(geometry) or _excess(op, geometry, dtype)

    def plan(self, case: Case) -> Plan:
        """Of a dilated image, plans of its parts."""
        found = wrappers.space_to_batch(case, super().plan)
        if isinstance(found, wrappers.Wrapper | wrappers.Batched):
            # The estimate is of all parts at once, as it was fitted.
            found.work = self.work(case.op, case.geometry, case.dtype, case.threads)
            found.workspace_bytes = self.workspace_bytes(case.op, case.geometry, case.dtype, case.threads)
        return found

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Per thread a block of the image, and it, the weights and the products at every point."""
        apart = _space_to_batch.Apart.of(geometry)
        if apart is not None:
            return apart.held(dtype.itemsize) + self.workspace_bytes(op, apart.geometry, dtype, threads)
        plan = self._plan(op, geometry, dtype, threads)
        partial = math.prod(geometry.w_shape) * (plan.parts if plan.parts > 1 else 0)
        return (min(threads, plan.items) * plan.space + partial) * dtype.itemsize

    def points_of(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """How many it takes along an axis."""
        apart = _space_to_batch.Apart.of(geometry)
        return self._plan(op, geometry if apart is None else apart.geometry, dtype, threads).points

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """The products and the three transforms, in vector operations."""
        apart = _space_to_batch.Apart.of(geometry)
        if apart is not None:
            work = self.work(op, apart.part(geometry.x_shape[0]), dtype, threads)
            copied = _COPY * apart.copied(dtype.itemsize) + _PART * apart.parts * pieces(
                geometry.x_shape[0], apart.images
            )
            return work | {"touched": work["touched"] + copied}
        return self._plan(op, geometry, dtype, threads).work

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Bias is added as tiles are transformed back."""
        bias = out.reshape(-1)[:0] if b is None else b
        plan = self._plan("forward", geometry, x.dtype, threads)
        return _run(plan, _PRODUCT, geometry, threads, x, w.reshape(-1), bias, out.reshape(-1))

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """The same on dout, with the kernel turned."""
        return self.transposed(dout, w, None, geometry, dx, threads)

    def transposed(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Bias as in `forward`."""
        bias = out.reshape(-1)[:0] if b is None else b
        plan = self._plan("backward_data", geometry, out.dtype, threads)
        return _run(plan, _PRODUCT, geometry, threads, x, w.reshape(-1), bias, out.reshape(-1))

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Where dw is small, each thread sums tiles of its own into a dw of its own."""
        plan = self._plan("backward_weights", geometry, dw.dtype, threads)
        parts = dw.reshape(1, -1) if plan.parts == 1 else _memory.empty((plan.parts, dw.size), dw.dtype)
        counts = _run(plan, _WEIGHTS, geometry, threads, x, dout.reshape(-1), parts)
        if plan.parts > 1:
            with np.errstate(all="ignore"):
                np.sum(parts, axis=0, out=dw.reshape(-1))
            # The sum of finite gradients may overflow.
            return None if np.isfinite(dw).all() else np.ones(1, np.intp)
        return counts

    def _plan(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Tiles:
        return plans.find(_cheapest, op, geometry, dtype, threads, _isa.current, self.points, self.taps)


def _cheapest(
    op: Op,
    geometry: ConvGeometry,
    dtype: np.dtype,
    threads: int,
    isa: int,
    points: tuple[int, ...],
    taps: tuple[int, int] | None,
) -> Tiles:
    tile = _shape.shape(_arrays.DTYPES[dtype], isa)
    make = _weights_plan if op == "backward_weights" else _product_plan
    found = [
        make(problem, memory(geometry, dtype, threads), dtype.itemsize, threads, tile)
        for problem in _decomposition.problems(op, geometry, points)
        if taps in (None, problem.subkernel)
    ]
    return min(found, key=lambda plan: plan.dearer * seconds(Winograd.name, op, plan.work))


def _run(
    plan: Tiles, kernels: Mapping[Any, Any], geometry: ConvGeometry, threads: int, x: np.ndarray, *arrays: np.ndarray
) -> np.ndarray | None:
    """Call a kernel. Returns None if all of the result is finite, else counts: above 0 for images with inf or NaN."""
    workers, counts = min(threads, plan.items), np.zeros(len(x), np.intp)
    with _workspace.workspace("blocks of the image", (workers, plan.space), x.dtype) as space:
        found = _threads.share(
            kernels[x.dtype],
            (x.reshape(-1), *arrays, *plan.tables, counts, space, _isa.current),
            items=plan.items,
            work=int(plan.work["product"] * threads * _isa.BYTES_PER_OPERATION),
            threads=threads,
        )
    return counts if found else None


def _excess(op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
    """That transforms and products take many times the operations of the sums of products, or None."""
    lanes = _shape.shape(_arrays.DTYPES[dtype], _isa.current)[2]
    filters, channels = geometry.w_shape[0] // geometry.groups, geometry.w_shape[1]
    most = max(math.prod(geometry.x_shape) * filters, math.prod(geometry.out_shape) * channels) * geometry.taps
    # In each tap of a lane a transform has some 64 operations at most.
    if 64 * most <= _FEW_OPERATIONS * lanes or not math.prod(geometry.out_shape):
        return None
    return plans.find(_counted_excess, op, geometry, lanes)


def _counted_excess(op: Op, geometry: ConvGeometry, lanes: int) -> str | None:
    apart = _space_to_batch.Apart.of(geometry)
    part = geometry if apart is None else apart.part(geometry.x_shape[0])
    operations = min(problem.operations(lanes) for problem in _decomposition.problems(op, part))
    direct = multiply_adds(geometry) // lanes
    if operations <= max(_FEW_OPERATIONS, _MOST_TIMES * direct):
        return None
    return (
        f"its transforms and products take {operations} operations on vectors, and sums of products {direct}; "
        "with so few channels or filters ask for 'implicit', 'fft' or 'auto'"
    )


def _planes(count: int, sizes: Iterable[int]) -> np.ndarray:
    """Where each of `count` planes of such sizes starts."""
    return np.arange(count, dtype=np.intp) * math.prod(sizes)


def _pitch(n: int, line: int) -> int:
    """At least n elements, and a cache line more than whole pages: points that meet in no cache set."""
    return pieces(n, 32 * line) * 32 * line + line


def _product_plan(
    problem: Problem, moved: Mapping[str, float], itemsize: int, threads: int, tile: tuple[int, int, int]
) -> Tiles:
    tile_rows, vectors, lanes = tile
    unit, line = vectors * lanes, 64 // itemsize
    points, k, phases = problem.points, problem.subkernels * problem.channels, problem.phases
    cell = pieces(problem.channels, lanes) * lanes
    v_step = pieces(k, lanes) * lanes + line
    pass_rows = min(min(pieces(_PASS, unit), _MOST_PANELS) * unit, pieces(problem.rows, lanes) * lanes)

    # A thread's share of the workspace holds the image at all points, and what the products need beside it.
    share = _SPACE_BYTES // itemsize // threads
    u_pitch = line
    fixed = points * (k * pass_rows + line) + _TURNED_BYTES // itemsize
    per_tile = points * (v_step + pass_rows) + 20 * cell
    few = _TILES if points * k * problem.rows * phases * itemsize > _BLOCK_BYTES else _FEW_TILES
    near = max(few, _BLOCK_BYTES // (points * (v_step + pass_rows) * itemsize))
    count, block = problem.block(max(1, min((share - fixed) // per_tile, _TILES, near)))
    tiles = count * math.prod(block)
    blocks = problem.groups * problem.blocks(block, count)
    split = 1
    if blocks < 4 * threads and blocks % threads:
        widths = pieces(problem.rows, lanes)
        split = next((n for n in range(1, min(threads, widths) + 1) if blocks * n % threads == 0), min(threads, widths))
    block_rows = even(problem.rows, pieces(problem.rows, split), lanes)
    all_rows = pieces(block_rows, lanes) * lanes
    pass_rows = min(pass_rows, all_rows)
    kept = blocks > threads and points * phases * (k + line) * all_rows <= share - tiles * per_tile
    chunk = min(problem.channels, max(1, _TURNED_BYTES // (problem.taps * unit * itemsize)))

    zero_at = line_up(count * problem.cells(block) * cell)
    v_at = line_up(zero_at + cell)
    v_pitch = _pitch(tiles * v_step, line)
    u_at = line_up(v_at + points * v_pitch)
    weights = k * (all_rows * phases if kept else pass_rows) + u_pitch * pieces(all_rows, lanes) * phases
    m_at = line_up(u_at + points * weights)
    m_pitch = _pitch(tiles * pass_rows, line)
    g_at = line_up(m_at + points * m_pitch)
    bias_at = line_up(g_at + (chunk * problem.taps + 2) * unit)
    check_at = line_up(bias_at + pass_rows + unit)
    sizes = [
        *(problem.images, count, problem.groups, problem.rows, problem.row_step, block_rows, pass_rows),
        *(problem.channels, problem.channel_step, problem.channels, problem.taps, problem.subkernels, phases),
        *(kept, 1, chunk, cell, all_rows, zero_at, v_at, u_at, m_at, g_at, bias_at, check_at),
        *(v_step, 0, 0, v_pitch, u_pitch, m_pitch),
    ]
    items = blocks * pieces(problem.rows, block_rows)
    weighings = min(threads, items) if kept else items
    times = points * blocks * split * phases
    of_tiles, of_rows = _counts.panels(tiles, tile_rows), _counts.tile_vectors(all_rows, lanes, vectors)
    work = {
        "product": times * k * _counts.multiplied(of_tiles, of_rows),
        "tiles": times * sum(n for _, n in of_tiles) * sum(n for _, n in of_rows),
        "copied": blocks * split * count * problem.cells(block) * cell / lanes,
        "transforms": blocks * tiles * split * (problem.subkernels * cell + phases * all_rows) / lanes,
        "image": problem.of_image * blocks * tiles * split * problem.subkernels * cell / lanes,
        "result": problem.of_result * blocks * tiles * all_rows * split * phases / lanes,
        "weights": problem.of_weights * weighings * k * all_rows * phases / lanes,
        "spilled": blocks * split * _beyond((points * (v_pitch + weights + m_pitch)) * itemsize),
    }
    return Tiles(
        lambda: (
            problem.axes(block),
            np.array(sizes, np.intp),
            problem.offsets(),
            problem.tap_of(),
            problem.starts(),
            _planes(problem.channels, (side.size for side in problem.sides)),
        ),
        problem.table_length + problem.channels,
        space=line_up(check_at + pass_rows + unit),
        items=items,
        parts=1,
        points=problem.line_points,
        taps=problem.subkernel,
        work=_shared(work, moved, items, threads),
        dearer=problem.dearer,
    )


def _weights_plan(
    problem: Problem, moved: Mapping[str, float], itemsize: int, threads: int, tile: tuple[int, int, int]
) -> Tiles:
    tile_rows, vectors, lanes = tile
    line = 64 // itemsize
    points, subkernels = problem.points, problem.subkernels
    block_rows = even(problem.rows, _SUMS, lanes)
    block_channels = even(problem.channels, max(_SUMS // subkernels, 1), lanes)
    cell, rows_cell = pieces(block_channels, lanes) * lanes, pieces(block_rows, lanes) * lanes
    k = pieces(subkernels * block_channels, lanes) * lanes
    v_step, u_step = k + line, rows_cell + line
    share = _SPACE_BYTES // itemsize // threads
    fixed = points * block_rows * k
    per_tile = points * (v_step + u_step) + 20 * max(cell, rows_cell)
    count, block = problem.block(max(1, min((share - fixed) // per_tile, _TILES)))
    tiles = count * math.prod(block)
    blocks = problem.blocks(block, count)
    items = problem.groups * pieces(problem.rows, block_rows) * pieces(problem.channels, block_channels)
    parts = min(threads, blocks) if items < 4 * threads and items % threads else 1

    zero_at = line_up(count * max(problem.cells(block) * cell, problem.results(block) * rows_cell))
    v_at = line_up(zero_at + max(cell, rows_cell))
    v_pitch = _pitch(tiles * v_step, line)
    u_at = line_up(v_at + points * v_pitch)
    u_pitch = _pitch(tiles * u_step, line)
    m_at = line_up(u_at + points * u_pitch)
    m_pitch = _pitch(block_rows * k + line, line)
    check_at = line_up(m_at + points * m_pitch)
    sizes = [
        *(problem.images, count, problem.groups, problem.rows, problem.row_step, block_rows, block_rows),
        *(problem.channels, problem.channel_step, block_channels, problem.taps, subkernels, 1),
        *(False, parts, 0, cell, rows_cell, zero_at, v_at, u_at, m_at, check_at, check_at, check_at),
        *(v_step, u_step, k, v_pitch, u_pitch, m_pitch),
    ]
    seen, times = blocks * tiles * items, points * blocks * items
    of_rows, of_columns = _counts.panels(block_rows, tile_rows), _counts.tile_vectors(k, lanes, vectors)
    work = {
        "product": times * tiles * _counts.multiplied(of_rows, of_columns),
        "tiles": times * sum(n for _, n in of_rows) * sum(n for _, n in of_columns),
        "copied": blocks * items * count * (problem.cells(block) * cell + problem.results(block) * rows_cell) / lanes,
        "transforms": seen * (subkernels * cell + rows_cell) / lanes,
        "image": problem.of_image * seen * subkernels * cell / lanes,
        "result": problem.turned.of_weights * seen * rows_cell / lanes,
        "weights": problem.turned.of_result * parts * items * k * rows_cell / lanes,
        "spilled": blocks * items * _beyond(points * (v_pitch + u_pitch + 2 * m_pitch) * itemsize),
    }
    return Tiles(
        lambda: (
            problem.axes(block),
            np.array(sizes, np.intp),
            problem.offsets(),
            problem.tap_of(),
            _planes(block_channels, (side.size for side in problem.sides)),
            _planes(block_rows, (side.whole for side in problem.sides)),
        ),
        problem.table_length + block_channels + block_rows,
        space=line_up(check_at + cell),
        items=items * parts,
        parts=parts,
        points=problem.line_points,
        taps=problem.subkernel,
        work=_shared(work, moved, items * parts, threads),
        dearer=problem.dearer,
    )


def _beyond(nbytes: int) -> int:
    """What each block moves between a core's cache and the next one, because its workspace of `nbytes` is larger."""
    return max(nbytes - NEAR_BYTES, 0)


def _shared(work: Mapping[str, float], moved: Mapping[str, float], items: int, threads: int) -> dict[str, float]:
    """The part of the thread that does most."""
    part = _counts.busiest(items, int(work["product"] * _isa.BYTES_PER_OPERATION), threads)
    return {**_counts.total(work, part), "blocks": items * part, **moved, "call": 1.0}
