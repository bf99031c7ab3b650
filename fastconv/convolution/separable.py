"""Kernels that are outer products, as boxes, Gaussians and Sobel's are: one axis after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv._ext import separable as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import Algorithm, MethodAlgorithm, per_channel
from fastconv.convolution.blocking import UNIT_LINE, Line, backward_lines, even, forward_lines, line_up, pieces
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory
from fastconv.convolution.ops import Op
from fastconv.convolution.plan import Case
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: Rows of sums that wait for their last axis, which share the first-level cache with rows of the image; where a kernel
#: is so high that neighbouring blocks read many rows again, they may take more, in the second-level cache.
_ROWS_BYTES, _MOST_ROWS_BYTES = 24 << 10, 160 << 10
#: Planes of sums along the first of three axes, in the second-level cache.
_PLANES_BYTES = 1 << 18
#: Results of a row that are computed at a time, and planes.
_WIDE, _DEEP = 4096, 4
#: Rows of images with a border, padding and all, are not cut up to here.
_WIDEST = 1 << 14
_BORDERS = ("zeros", "reflect", "replicate", "circular")
#: Rows that share what they read.
_HIGH = 4
#: What it takes to find an entry of a factor, in weights that are compared.
_ENTRY = 10
#: Workspace of a thread; kernels that reach over more cells are refused.
_MOST_BYTES = 1 << 24

#: Chooses the algorithm for the gradient of the weights.
Choose = Callable[[Op, ConvGeometry, np.dtype, int], Algorithm]


@dataclass(frozen=True)
class Plan:
    """One call of the kernel: its tables, the elements of a thread's workspace, its items, and how much there is to do:
    multiply-adds down the columns and across the rows, rows, and cells that are moved one by one."""

    tables: tuple[np.ndarray, np.ndarray, np.ndarray]
    kernel: tuple[int, int, int]
    order: np.ndarray
    filters: int
    space: int
    items: int
    isa: int
    lanes: int
    covers: bool
    down: int
    across: int
    rows: int
    woven: int


class Separable(MethodAlgorithm):
    """A sum over a box of taps as sums along one axis after the other, where every kernel is an outer product.

    For w[i, j] = u[i] * v[j], and the same with three factors in 3-D:

    - forward:          out[y, x] = sum over j of v[j] * (sum over i of u[i] * x[y + i, x + j])
    - backward_data:    dx likewise from dout, with factors flipped, per stride phase
    - backward_weights: that of the full kernel, by the cheapest algorithm that sums all products

    So 31 x 31 taps take 62 products an output instead of 961. Rows of sums along all axes but the last stay in the
    cache, so an image is read once and a result written once.

    The factors are a row and a column of the kernel. Where the kernel holds whole numbers times a power of two the
    factors are such numbers, too, and as exact as the sums of all products. Any other entry w may differ from the
    product of its factors by (r * r + 2 * log(m / abs(w))) * eps * abs(w), where r is the number of axes with more than
    one tap, m the largest entry, and eps 2**-23 or 2**-52. An outer product of rounded numbers may differ by the first
    term, and a Gaussian that is exp of a rounded sum of squares by the second (see ``_ext/rank_one_template.h``). Else
    the kernel is refused. Results then are as near to those of exact sums as

        (sum of kernel_size + 2 * r * r + 2 * r + 4 * log(m / abs(w))) * eps / 2 * abs(w) * abs(x), summed

    which is less than the bound of a sum of all products, kernel_size multiplied in place of added, but for the
    smallest kernels. What is below the dtype's least normal number may lose digits, as in any sum.

    Sums along an axis may overflow where the sum of all products does not; such results are inf or NaN, never finite.

    References
    ----------
    S. Treitel, J. L. Shanks, "The design of multistage separable planar filters", IEEE Transactions on Geoscience
    Electronics 9(1), 1971.
    """

    name = "separable"
    sums_products = False
    needs_rank_one = True

    def __init__(self, exact: Choose) -> None:
        self.exact = exact

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """It is for groups of one channel, and needs two axes."""
        if geometry.rank == 1:
            return "a kernel of one axis has nothing to separate"
        if geometry.w_shape[1] > 1:
            return f"it serves groups of one channel, and these have {geometry.w_shape[1]}"
        if op != "backward_weights":
            plan = _plan(op, geometry, dtype, 1)
            nbytes = plan.space * dtype.itemsize if plan is not None else 0
            if nbytes > _MOST_BYTES:
                return f"its kernel reaches so far that a block takes {nbytes} bytes, and at most are {_MOST_BYTES}"
        return None

    def leaves(self, op: Op, masked: bool) -> bool:
        """A gradient of the weights is that of the full kernel."""
        return op == "backward_weights"

    def reads_borders(self, op: Op, geometry: ConvGeometry) -> bool:
        """In images, forward: rows past an end are rows of the image, and sums past an end of a row are its sums."""
        return _border(op, geometry) > 0

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Per thread the rows and planes of sums of a block."""
        if op == "backward_weights":
            return self.exact(op, geometry, dtype, threads).workspace_bytes(op, geometry, dtype, threads)
        plan = _plan(op, geometry, dtype, threads)
        if plan is None:
            return 0
        return (min(threads, plan.items) * plan.space + plan.filters * len(plan.order)) * dtype.itemsize

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """Vectors of multiply-adds down the columns, where rows share what they read, and across rows; the rows; cells
        that are taken out of rows, or put into them, one by one; and to find the factors."""
        plan = None if op == "backward_weights" else _plan(op, geometry, dtype, threads)
        if plan is None:
            return {"call": 1}
        part = _counts.busiest(plan.items, _work(plan), threads)
        return {
            "down": plan.down * part / plan.lanes,
            "across": plan.across * part / plan.lanes,
            "rows": plan.rows * part,
            "woven": plan.woven * part,
            "weights": plan.filters * (math.prod(plan.kernel) + _ENTRY * len(plan.order)),
            **memory(geometry, dtype, threads),
            "call": 1,
        }

    def cost(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float = 1.0) -> float:
        """For the gradient of the weights that of the algorithm which computes it."""
        if op == "backward_weights":
            return self.exact(op, geometry, dtype, threads).cost(op, geometry, dtype, threads)
        return super().cost(op, geometry, dtype, threads)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Bias is what the last sums start with; a ValueError, and nothing written, if a kernel has another rank."""
        return self._run("forward", x, w, b, geometry, out, threads)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """The adjoint of each axis in turn."""
        return self._run("backward_data", dout, w, None, geometry, dx, threads)

    def transposed(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """As `forward`, bias is what the last sums start with."""
        return self._run("backward_data", x, w, b, geometry, out, threads)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """A gradient of rank one in general has none of its own: that of all entries of the kernel."""
        case = Case.of("backward_weights", geometry, dw.dtype, threads)
        found: np.ndarray | None = self.exact(case.op, geometry, dw.dtype, threads).plan(case).run(x, dout, None, dw)
        return found

    def _run(
        self,
        op: Op,
        source: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None,
        geometry: ConvGeometry,
        result: np.ndarray,
        threads: int,
    ) -> np.ndarray | None:
        dtype = result.dtype
        plan = _plan(op, geometry, dtype, threads)
        kernel = _lifted(geometry)
        order = _NONE if plan is None else plan.order
        factors = np.empty((len(w), len(order)), dtype)
        which = _arrays.DTYPES[dtype]
        if _ext.factors(which, w, kernel, order, factors, False) is not None:
            raise ValueError(_reason(which, w, kernel, order, factors))
        if plan is None or not plan.covers:
            result[...] = 0 if b is None else per_channel(b, geometry)
        if plan is None:
            return None
        counts = bytearray(8 * len(result))
        with _workspace.workspace("rows of sums", (min(threads, plan.items), plan.space), dtype) as space:
            _threads.share(
                _ext.convolve,
                (which, source, factors, b, result, *plan.tables, space, counts, plan.isa),
                items=plan.items,
                work=_work(plan),
                threads=threads,
            )
        return np.frombuffer(counts, np.intp) if counts.strip(b"\0") else None


_NONE = np.empty(0, np.intp)


def is_rank_one(w: np.ndarray, geometry: ConvGeometry) -> bool:
    """Whether each kernel is an outer product, to the last bits of its dtype."""
    none = np.empty((len(w), 0), w.dtype)
    return _ext.factors(_arrays.DTYPES[w.dtype], w, _lifted(geometry), _NONE, none, False) is None


def _reason(which: int, w: np.ndarray, kernel: tuple[int, int, int], order: np.ndarray, factors: np.ndarray) -> str:
    """Which kernel is no outer product, and how far it is off."""
    found: Any = _ext.factors(which, w, kernel, order, factors, True)
    assert found is not None
    if len(found) == 1:
        return f"algorithm 'separable' needs kernels of rank one, and that of filter {found[0]} has an inf or NaN in it"
    filter_, place, value, product = found
    at = tuple(int(i) for i in np.unravel_index(place, w.shape[2:]))
    most = np.abs(w[filter_]).max()
    return (
        f"algorithm 'separable' needs kernels of rank one, and that of filter {filter_} is not: its entry {at} is "
        f"{value:.9g}, where the product of its row and column is {product:.9g}; they differ by "
        f"{abs(value - product) / most:.1e} of the largest entry"
    )


def _work(plan: Plan) -> int:
    """Bytes that a copy moves in the time of the sums."""
    return _isa.BYTES_PER_OPERATION * ((plan.down + plan.across) // plan.lanes)


def _plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Plan | None:
    return plans.find(_make_plan, op, geometry, dtype, threads, _isa.current)


@dataclass(frozen=True)
class Side:
    """One axis: its lines, one per stride phase."""

    lines: tuple[Line, ...]

    @property
    def out(self) -> int:
        """Outputs of the longest line."""
        return max(line.out for line in self.lines)

    @property
    def pad(self) -> int:
        """Cells from the first that any line's first output meets to cell 0."""
        return max(line.lo for line in self.lines)

    @property
    def reach(self) -> int:
        """Cells from that to the last one that any line's first output meets."""
        return max((line.taps - 1) * line.dilation + self.pad - line.lo for line in self.lines)

    @property
    def products(self) -> int:
        """Multiply-adds of all outputs."""
        return sum(line.out * line.taps for line in self.lines)

    def span(self, block: int) -> int:
        """Cells, padding and all, that so many outputs of each line meet."""
        return (block - 1) * self.lines[0].stride + self.reach + 1


def _sides(op: Op, geometry: ConvGeometry) -> tuple[Side, Side, Side] | None:
    """Three axes; None where no output meets an image."""
    if op == "forward":
        d, h, w = (Side((line,)) for line in forward_lines(geometry))
        return d, h, w
    axes = [sorted(backward_lines(axis.row()), key=lambda line: line.start) for axis in geometry.axes]
    if not all(axes):
        return None
    d, h, w = (Side(tuple(lines)) for lines in [[UNIT_LINE]] * (3 - len(axes)) + axes)
    return d, h, w


def _border(op: Op, geometry: ConvGeometry) -> int:
    """The border that the kernel reads, of separable.h; 0 for zeros, and where images have to be extended before."""
    widest = geometry.axes[-1].padded
    if op != "forward" or geometry.rank != 2 or widest > _WIDEST:
        return 0
    return _BORDERS.index(geometry.pad_mode)


def _blocks(d: Side, h: Side, w: Side, flat: bool, whole: bool, itemsize: int, threads: int) -> tuple[int, int, int]:
    """Outputs of a block along each axis, such that its sums stay in a cache; `whole` rows of results."""
    wide = even(w.out, max(_WIDE, 2 * w.reach) if flat else max(_WIDE // 8, 2 * w.reach))
    if whole:
        wide = w.out
    row = w.span(wide) * itemsize
    high = max(_HIGH, _ROWS_BYTES // row, min(h.reach // 4, _MOST_ROWS_BYTES // row))
    deep = 1
    if not flat:
        deep = min(d.out, _DEEP)
        cells = min(w.span(wide), w.lines[0].size) * itemsize * deep
        fit = (_PLANES_BYTES // cells - h.reach) // h.lines[0].stride
        high = max(_HIGH, min(max(fit, h.reach), _MOST_ROWS_BYTES // row))
    # Each thread has some blocks, and blocks are whole tiles.
    high = min(high, max(_HIGH, pieces(h.out, 2 * threads)))
    return deep, even(h.out, high, _HIGH), wide


def _make_plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int) -> Plan | None:
    sides, kernel = _sides(op, geometry), _lifted(geometry)
    if sides is None:
        return None
    d, h, w = sides
    itemsize, images, channels = dtype.itemsize, geometry.x_shape[0], geometry.groups
    filters = geometry.w_shape[0]
    isa = _isa.narrow(w.out * itemsize)
    lanes = _ext.lanes(_arrays.DTYPES[dtype], isa)
    flat, border = geometry.rank == 2, _border(op, geometry)
    blocks = _blocks(d, h, w, flat, border > 0, itemsize, threads)
    deep, high, wide = blocks
    stride, whole = w.lines[0].stride, (w.lines[0].whole, h.lines[0].whole, d.lines[0].whole)
    pitch = line_up(max(w.span(wide), w.pad + w.lines[0].size if border else 0) + lanes)
    if pitch * itemsize % 4096 == 0:
        pitch += 64 // itemsize
    slot_pitch = pieces(w.span(wide), stride) + lanes if stride > 1 else 0
    split_at = line_up(high * pitch)
    row_at = split_at + line_up(stride * slot_pitch)
    planes_at = row_at + (line_up(wide + lanes) if any(line.jump > 1 for line in w.lines) else 0)
    met = 0 if flat else min(h.span(high), h.lines[0].size) * min(w.span(wide), w.lines[0].size)
    space = planes_at + line_up(deep * met)
    if op == "forward":
        results, shared, sources = filters, filters // channels, 1
    else:
        results, shared, sources = channels, 1, filters // channels

    table, lines = [], []
    order: list[int] = []
    for side, block, taps in zip(sides, blocks, (0, *itertools.accumulate(kernel[:2])), strict=True):
        one = side.lines[0]
        table.append([one.size, one.whole, one.stride, len(side.lines), side.out, block, side.pad, side.reach])
        for line in side.lines:
            lines.append([line.out, line.start, line.jump, line.lo, line.dilation, line.taps, len(order)])
            order += [taps + weight for weight in line.weights]
    sizes = [images, results, shared, sources, len(order), flat]
    sizes += [pitch, split_at, slot_pitch, row_at, planes_at, space, border]

    planes = images * results * sources
    columns = min(w.span(w.out), w.lines[0].size)
    of_rows = sum(line.out for line in h.lines)
    of_planes = sum(line.out for line in d.lines)
    # Neighbouring blocks of rows both sum the planes of the cells between them.
    rows = 0 if flat else pieces(h.out, high) * min(h.span(high), h.lines[0].size)
    down = planes * columns * (d.products * rows + of_planes * h.products)
    places = [pieces(side.out, block) * len(side.lines) for side, block in zip((d, h), blocks[:2], strict=True)]
    return Plan(
        (np.array(table, np.intp), np.array(lines, np.intp), np.array(sizes, np.intp)),
        kernel=kernel,
        order=np.array(order, np.intp),
        filters=filters,
        space=space,
        items=images * results * math.prod(places) * pieces(w.out, wide),
        isa=isa,
        lanes=lanes,
        covers=all(sum(line.out for line in side.lines) == n for side, n in zip((w, h, d), whole, strict=True)),
        down=down,
        across=planes * of_planes * of_rows * w.products,
        rows=planes * of_planes * of_rows * pieces(w.out, wide) * len(w.lines),
        woven=planes
        * of_planes
        * of_rows
        * (w.span(w.out) if stride > 1 else len(w.lines) * w.out * (len(w.lines) > 1)),
    )


def _lifted(geometry: ConvGeometry) -> tuple[int, int, int]:
    """The kernel's size along three axes."""
    d, h, w = (*(1,) * (3 - geometry.rank), *geometry.kernel)
    return d, h, w
