"""The kernels of pooling, and the choice of a kernel.

There are special kernels for windows of 2 x 2 cells with stride 2, and for windows that cover a whole plane (one
channel of one image). The kernel `rows` computes other small windows tap by tap, in vectors along a row of outputs. The
module `running` has the kernel for all other windows, which works axis by axis. The kernels for the gradient of max
pooling add each element of dout to a single cell of dx.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from fastconv._ext.pool import pool as _ext, rows as _ext_rows
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.planes import plane_maxima, plane_sums
from fastconv.layers.pool import running as _pool_running, tables as _pool_tables
from fastconv.layers.pool.plan import INT32, INT64, NO_INDICES, Array, Given, PoolCase, PoolKernel, PoolOp, PoolPlan
from fastconv.runtime import isa as _isa, threads as _threads
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The kernel `rows` takes about this many times as long as a copy of the same number of bytes.
_ROWS_SLOWNESS = 1
#: The time to start a block of rows, as the number of bytes that a copy moves in the same time.
_ITEM_BYTES = 500
#: Adding an element of dout to a cell of dx takes about this many times as long as copying the index of the cell.
_SCATTERED = 5
#: The minimum width of an image for which the 2x2 kernel computes the gradient of max pooling. For narrower images, the
#: kernel `scatter` is faster.
_LEAST_WIDTH_2X2 = 24
#: The maximum number of cells of a plane for which the indices of maxima are int32.
_INT32_CELLS = np.iinfo(np.int32).max


def planes(array: np.ndarray) -> np.ndarray:
    """Return an array (N, C, *spatial) reshaped to (N * C, cells), where `cells` is the product of the spatial axes."""
    return array.reshape(math.prod(array.shape[:2]), -1)


@dataclass(frozen=True)
class _NothingPlan(PoolPlan):
    """The plan of a pooling whose result is empty."""

    case: PoolCase
    name = "nothing"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        return True


class _Nothing(PoolKernel):
    """The kernel for poolings whose result is empty."""

    name = _NothingPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        return "the result is not empty" if (case.x_bytes if case.is_gradient else case.out_bytes) else None

    def plan(self, case: PoolCase) -> PoolPlan:
        return _NothingPlan(case)


@dataclass(frozen=True)
class _WholePlanesPlan(PoolPlan):
    """The plan of the maximum or the mean of whole planes, or of the gradient of the mean."""

    case: PoolCase
    name = "whole planes"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        case = self.case
        cells = case.geometry.cells
        if case.op == "maximum":
            plane_maxima(source, target, indices, case.threads)
        elif case.op == "mean":
            target[...] = (plane_sums(source, case.threads) / cells).reshape(target.shape)
        else:
            planes(target)[...] = planes(source / target.dtype.type(cells))
        return True


class _WholePlanes(PoolKernel):
    """The kernel for poolings with a single window, which is as large as the plane."""

    name = _WholePlanesPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        if case.op not in ("maximum", "mean", "mean_gradient"):
            return f"it does not compute a {case.op}"
        if not case.geometry.is_global:
            return "there are several windows, or padding"
        return "it counts cells in 32 bits" if case.index_dtype is INT64 else None

    def plan(self, case: PoolCase) -> PoolPlan:
        return _WholePlanesPlan(case)


@dataclass(frozen=True)
class _Plan2x2(PoolPlan):
    """The plan of any op for 2 x 2 windows with stride 2.

    For the gradient of max pooling, `run` returns whether the index of every maximum lies in its window.
    """

    case: PoolCase
    sizes: _pool_tables.Sizes2x2
    isa: int
    name = "2x2 stride-2 kernel"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        height, width, rows, items = self.sizes
        dtype, is_gradient, is_norm, work, threads = self._numbers
        if is_gradient:
            arguments = dtype, source, indices, norms, factors, target, height, width, rows, self.isa
            return _threads.share(_ext_rows.backward_2x2, arguments, items=items, work=work, threads=threads)
        given = dtype, source, target, indices, is_norm, height, width, rows, self.isa
        _threads.share(_ext_rows.forward_2x2, given, items=items, work=work, threads=threads)
        return True

    @cached_property
    def _numbers(self) -> tuple[int, bool, bool, int, int]:
        case = self.case
        return case.dtype_index, case.is_gradient, case.op == "norm", case.x_bytes // 2, case.threads


class _Kernel2x2(PoolKernel):
    """The kernel for 2 x 2 windows with stride 2 that all lie within the image."""

    name = _Plan2x2.name

    def unsupported(self, case: PoolCase) -> str | None:
        if not case.geometry.is_2x2_stride_2:
            return "windows are not 2 x 2 cells at a stride of 2, or extend beyond the image"
        if case.index_dtype is INT64:
            return "it counts cells in 32 bits"
        if case.op == "maximum_gradient" and case.geometry.x_shape[-1] < _LEAST_WIDTH_2X2:
            return "rows are short, so the kernel 'scatter' is faster"
        return None

    def plan(self, case: PoolCase) -> PoolPlan:
        sizes = _pool_tables.sizes_2x2(case.geometry)
        assert sizes is not None
        plan = _Plan2x2(case, sizes, _isa.narrow(sizes.width // 2 * case.dtype.itemsize))
        return _checked(plan) if case.op == "maximum_gradient" else plan


@dataclass(frozen=True)
class _RowsPlan(PoolPlan):
    """The plan of any op for small windows, except the gradient of max pooling."""

    case: PoolCase
    rows: _pool_tables.RowsTable
    workspaces: int
    isa: int
    name = "rows"

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.rows.table.nbytes

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        case, rows, dtype = self.case, self.rows, self.case.dtype_index
        space = np.empty(self.workspaces * rows.space, case.dtype)
        work = _ROWS_SLOWNESS * (case.x_bytes + case.out_bytes + case.index_bytes) + _ITEM_BYTES * rows.items
        workspace = rows.table, space, self.workspaces, self.isa
        if case.is_gradient:
            arguments = dtype, source, norms, factors, target, *workspace
            _threads.share(_ext_rows.backward_rows, arguments, items=rows.items, work=work, threads=case.threads)
        else:
            given = dtype, source, target, indices, case.op == "norm", *workspace
            _threads.share(_ext_rows.forward_rows, given, items=rows.items, work=work, threads=case.threads)
        return True


class _Rows(PoolKernel):
    """The kernel for small windows. It processes them tap by tap, in vectors along a row of outputs."""

    name = _RowsPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        geometry, itemsize = case.geometry, case.dtype.itemsize
        if case.op == "maximum_gradient":
            return "it does not compute gradients of maxima"
        if case.index_dtype is INT64:
            return "it counts cells in 32 bits"
        if self._rows(case) is None:
            return "windows have too many taps, need too large a workspace, or a gradient has a stride above 2"
        by_rows = _pool_tables.time(geometry, _direction(case), not case.finds_maxima, itemsize)
        if by_rows > _pool_running.time(geometry, case.finds_maxima, case.is_gradient, itemsize):
            return "windows are large, so the kernel 'axis by axis' is faster"
        return None

    def plan(self, case: PoolCase) -> PoolPlan:
        rows = self._rows(case)
        assert rows is not None
        isa = _isa.narrow(rows.width * case.dtype.itemsize)
        return _RowsPlan(case, rows, _threads.most(case.threads, rows.items), isa)

    def _rows(self, case: PoolCase) -> _pool_tables.RowsTable | None:
        return _pool_tables.plan(case.geometry, _direction(case), case.include_pad)


def _direction(case: PoolCase) -> str:
    return "backward" if case.is_gradient else "forward"


@dataclass(frozen=True)
class _CheckedPlan(PoolPlan):
    """A plan of the gradient of max pooling that runs `plan`. If `plan` finds the index of a maximum outside its
    window, the slower plan `otherwise` computes dx again.

    The index of a maximum is outside its window only if the caller has changed the cache.
    """

    case: PoolCase
    plan: PoolPlan
    otherwise: PoolPlan
    name = "checked"

    def __str__(self) -> str:
        return f"{self.name}({self.plan}, else {self.otherwise})"

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.plan.nbytes

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        return self.plan.run(source, target, indices) or self.otherwise.run(source, target, indices)


def _checked(plan: PoolPlan) -> PoolPlan:
    return _CheckedPlan(plan.case, plan, _ScatterPlan(plan.case))


@dataclass(frozen=True)
class _BandsPlan(PoolPlan):
    """A plan of the gradient of max pooling that processes a plane in bands (ranges of rows).

    `run` returns whether the index of every maximum lies in a band that overlaps the window of the maximum.
    """

    case: PoolCase
    table: np.ndarray
    workspaces: int
    blocks: int
    pages: int
    name = "bands"

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.table.nbytes

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        case, table, workspaces = self.case, self.table, self.workspaces
        space = np.empty(workspaces * self.pages * _pool_tables.PAGE, case.dtype)
        marks = np.empty(workspaces * (self.blocks + self.pages), np.int32)
        return _threads.share(
            _ext.max_backward_bands,
            (
                *(case.dtype_index, source, indices, target, case.index_dtype is INT64),
                *(case.geometry.planes, table, len(table), space, marks, self.pages, workspaces),
            ),
            items=case.geometry.planes * len(table),
            work=case.x_bytes + _SCATTERED * case.index_bytes,
            threads=case.threads,
        )


class _Bands(PoolKernel):
    """The kernel for the gradient of max pooling if many windows overlap. A cell of dx may then be a long sum, so the
    kernel corrects rounding errors.
    """

    name = _BandsPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        if case.op != "maximum_gradient":
            return f"it does not compute a {case.op}"
        few = case.geometry.most_windows <= _pool_tables.MOST_IN_TURN
        return f"at most {_pool_tables.MOST_IN_TURN} windows overlap" if few else None

    def plan(self, case: PoolCase) -> PoolPlan:
        table, longest = _pool_tables.bands(case.geometry, case.dtype.itemsize, case.threads)
        workspaces = _threads.most(case.threads, case.geometry.planes * len(table))
        return _checked(_BandsPlan(case, table, workspaces, *_pool_tables.pages(longest, case.dtype.itemsize)))


@dataclass(frozen=True)
class _ScatterPlan(PoolPlan):
    """A plan of the gradient of max pooling that adds the elements of dout one by one to cells of dx.

    `run` returns whether the index of every maximum lies in its plane.
    """

    case: PoolCase
    name = "scatter"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        dtype, wide, n, work, threads = self._numbers
        arguments = dtype, source, indices, target, wide, n
        return _threads.share(_ext.max_backward, arguments, items=n, work=work, threads=threads)

    @cached_property
    def _numbers(self) -> tuple[int, bool, int, int, int]:
        case = self.case
        work = case.x_bytes // 3 + _SCATTERED * case.index_bytes
        return case.dtype_index, case.index_dtype is INT64, case.geometry.planes, work, case.threads


class _Scatter(PoolKernel):
    """The kernel for the gradient of max pooling if few windows overlap."""

    name = _ScatterPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        return None if case.op == "maximum_gradient" else f"it does not compute a {case.op}"

    def plan(self, case: PoolCase) -> PoolPlan:
        return _ScatterPlan(case)


#: The kernels in the order in which `make_plan` tries them. It chooses the first kernel that supports the case.
KERNELS: tuple[PoolKernel, ...] = (
    _Nothing(),
    _WholePlanes(),
    _Kernel2x2(),
    _Bands(),
    _Scatter(),
    _Rows(),
    _pool_running.AxisByAxis(),
)


def index_dtype(geometry: PoolGeometry) -> np.dtype:
    """Return the dtype for the indices of maxima: int32 if it can hold every index of a plane, otherwise int64."""
    return INT32 if geometry.cells <= _INT32_CELLS else INT64


def plan_for(
    op: PoolOp,
    geometry: PoolGeometry,
    dtype: np.dtype,
    threads: int,
    include_pad: bool = True,
    index_dtype: np.dtype = INT32,
) -> PoolPlan:
    """Return the plan of an op of a pooling. The plan is cached unless its tables are large."""
    return plans.find_sized(_nbytes, make_plan, op, geometry, dtype, threads, include_pad, index_dtype, _isa.current)


def _nbytes(plan: PoolPlan) -> int:
    return plan.nbytes


def make_plan(
    op: PoolOp,
    geometry: PoolGeometry,
    dtype: np.dtype,
    threads: int,
    include_pad: bool,
    index_dtype: np.dtype,
    isa: int,
) -> PoolPlan:
    """Make the plan that `plan_for` returns. `isa` is the instruction set in use."""
    case = PoolCase(op, geometry.squeezed, dtype, threads, isa, include_pad, index_dtype)
    return next(kernel for kernel in KERNELS if kernel.unsupported(case) is None).plan(case)
