"""The kernels of pooling, and the choice of a kernel.

There are special kernels for windows of 2 x 2 cells with stride 2, and for windows that cover a whole plane (one
channel of one image). The kernel `rows` computes other small windows tap by tap, in vectors along a row of outputs. The
module `running` has the kernel for all other windows, which works axis by axis. The kernels for the gradient of max
pooling add each element of dout to a single cell of dx.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv._ext.pool import pool as _ext, rows as _ext_rows
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.planes import plane_maxima, plane_sums
from fastconv.layers.pool import plan as _plan, rows as _rows, running as _running
from fastconv.layers.pool.plan import (
    INT32,
    INT64,
    NO_INDICES,
    Array,
    Given,
    PoolCase,
    PoolKernel,
    PoolOp,
    PoolPlan,
    kernel_axes,
)
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
        return "it counts cells in 32 bits" if case.has_int64_indices else None

    def plan(self, case: PoolCase) -> PoolPlan:
        return _WholePlanesPlan(case)


@dataclass(frozen=True)
class _Plan2x2(PoolPlan):
    """The plan of any op for 2 x 2 windows with stride 2.

    For the gradient of max pooling, `run` returns whether the index of every maximum lies in its window.
    """

    case: PoolCase
    kernel: _ext_rows.Forward2x2 | _ext_rows.Backward2x2
    #: The work of a call, in bytes: see `threads.share`.
    work: int
    name = "2x2 stride-2 kernel"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        kernel, work, threads = self.kernel, self.work, self.case.threads
        if isinstance(kernel, _ext_rows.Backward2x2):
            arrays = source, indices, norms, factors, target
            return _threads.share(kernel.run, arrays, items=kernel.items, work=work, threads=threads)
        _threads.share(kernel.run, (source, target, indices), items=kernel.items, work=work, threads=threads)
        return True


class _Kernel2x2(PoolKernel):
    """The kernel for 2 x 2 windows with stride 2 that all lie within the image."""

    name = _Plan2x2.name

    def unsupported(self, case: PoolCase) -> str | None:
        if not case.geometry.is_2x2_stride_2:
            return "windows are not 2 x 2 cells at a stride of 2, or extend beyond the image"
        if case.has_int64_indices:
            return "it counts cells in 32 bits"
        if case.op == "maximum_gradient" and case.geometry.x_shape[-1] < _LEAST_WIDTH_2X2:
            return "rows are short, so the kernel 'scatter' is faster"
        return None

    def plan(self, case: PoolCase) -> PoolPlan:
        plan = _Plan2x2(case, _rows.make_2x2(case), case.x_bytes // 2)
        return _checked(plan) if case.op == "maximum_gradient" else plan


@dataclass(frozen=True)
class _RowsPlan(PoolPlan):
    """The plan of any op for small windows, except the gradient of max pooling."""

    case: PoolCase
    kernel: _ext_rows.ForwardRows | _ext_rows.BackwardRows
    #: The maximum number of threads of a call, and the work of a call, in bytes: see `threads.share`.
    workspaces: int
    work: int
    nbytes: int
    name = "rows"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        kernel, work, threads = self.kernel, self.work, self.case.threads
        workspace = np.empty(self.workspaces * kernel.workspace, self.case.dtype)
        if isinstance(kernel, _ext_rows.BackwardRows):
            arrays = source, norms, factors, target, workspace
            _threads.share(kernel.run, arrays, items=kernel.items, work=work, threads=threads)
        else:
            given = source, target, indices, workspace
            _threads.share(kernel.run, given, items=kernel.items, work=work, threads=threads)
        return True


class _Rows(PoolKernel):
    """The kernel for small windows. It processes them tap by tap, in vectors along a row of outputs."""

    name = _RowsPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        if case.op == "maximum_gradient":
            return "it does not compute gradients of maxima"
        if case.has_int64_indices:
            return "it counts cells in 32 bits"
        if _rows.time(case) > _running.time(case):
            return "windows are large, so the kernel 'axis by axis' is faster"
        if plans.find(_rows.make_rows, case) is None:
            return "windows have too many taps, need too large a workspace, or a gradient has a stride above 2"
        return None

    def plan(self, case: PoolCase) -> PoolPlan:
        rows = plans.find(_rows.make_rows, case)
        assert rows is not None
        items = rows.kernel.items
        work = _ROWS_SLOWNESS * (case.x_bytes + case.out_bytes + case.index_bytes) + _ITEM_BYTES * items
        return _RowsPlan(case, rows.kernel, _threads.most(case.threads, items), work, rows.nbytes)


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
    return _CheckedPlan(plan.case, plan, _scatter(plan.case))


@dataclass(frozen=True)
class _BandsPlan(PoolPlan):
    """A plan of the gradient of max pooling that processes a plane in bands (ranges of rows of dx).

    `run` returns whether the index of every maximum lies in a band that overlaps the window of the maximum.
    """

    case: PoolCase
    kernel: _ext.MaxBackwardBands
    nbytes: int
    name = "bands"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        case, kernel = self.case, self.kernel
        workspace = np.empty(_threads.most(case.threads, kernel.items) * kernel.workspace, np.uint8)
        work = case.x_bytes + _SCATTERED * case.index_bytes
        arrays = source, indices, target, workspace
        return _threads.share(kernel.run, arrays, items=kernel.items, work=work, threads=case.threads)


class _Bands(PoolKernel):
    """The kernel for the gradient of max pooling if many windows overlap. A cell of dx may then be a long sum, so the
    kernel corrects rounding errors.
    """

    name = _BandsPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        if case.op != "maximum_gradient":
            return f"it does not compute a {case.op}"
        few = case.geometry.most_windows <= _rows.MOST_IN_TURN
        return f"at most {_rows.MOST_IN_TURN} windows overlap" if few else None

    def plan(self, case: PoolCase) -> PoolPlan:
        arrays = _bands(case)
        geometry = case.geometry
        kernel = _ext.MaxBackwardBands(
            dtype=case.dtype_index,
            int64_indices=case.has_int64_indices,
            planes=geometry.planes,
            cells=geometry.cells,
            outputs=math.prod(geometry.out_shape[2:]),
            page_bytes=case.tuning.page_bytes,
            **arrays,
        )
        return _checked(_BandsPlan(case, kernel, sum(array.nbytes for array in arrays.values())))


def _bands(case: PoolCase) -> dict[str, np.ndarray]:
    """Divide a plane into bands along its first axis. Return the lists that `MaxBackwardBands` reads.

    A band is at least half as long as a window. Shorter bands would be inefficient, because a thread would read many
    outputs for few cells.
    """
    geometry = case.geometry
    axis = kernel_axes(geometry)[-len(geometry.axes)]
    cells, outputs = geometry.cells // axis.size, math.prod(geometry.out_shape[3:])
    wanted = max(
        -(-geometry.cells * case.dtype.itemsize // case.tuning.band_bytes),
        -(-2 * case.threads // max(geometry.planes, 1)),
    )
    pieces = max(1, min(wanted, 2 * axis.size // axis.extent, axis.size))
    ends = np.arange(pieces + 1) * axis.size // pieces
    begin, end = ends[:-1], ends[1:]
    # Only the outputs from `first` to `last` - 1 along the axis have windows that may overlap the band.
    first = np.clip(-((axis.extent - 1 - begin - axis.lo) // axis.stride), 0, axis.out)
    last = np.clip((end - 1 + axis.lo) // axis.stride + 1, first, axis.out)
    lists = {
        "cell_begin": begin * cells,
        "cell_end": end * cells,
        "output_begin": first * outputs,
        "output_end": last * outputs,
    }
    return {name: np.ascontiguousarray(values, np.intp) for name, values in lists.items()}


@dataclass(frozen=True)
class _ScatterPlan(PoolPlan):
    """A plan of the gradient of max pooling that adds the elements of dout one by one to cells of dx.

    `run` returns whether the index of every maximum lies in its plane.
    """

    case: PoolCase
    kernel: _ext.MaxBackward
    #: The work of a call, in bytes, and the maximum number of threads: see `threads.share`.
    work: int
    threads: int
    name = "scatter"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        kernel = self.kernel
        arrays = source, indices, target
        return _threads.share(kernel.run, arrays, items=kernel.items, work=self.work, threads=self.threads)


def _scatter(case: PoolCase) -> _ScatterPlan:
    geometry = case.geometry
    kernel = _ext.MaxBackward(
        dtype=case.dtype_index,
        int64_indices=case.has_int64_indices,
        planes=geometry.planes,
        cells=geometry.cells,
        outputs=math.prod(geometry.out_shape[2:]),
    )
    return _ScatterPlan(case, kernel, case.x_bytes // 3 + _SCATTERED * case.index_bytes, case.threads)


class _Scatter(PoolKernel):
    """The kernel for the gradient of max pooling if few windows overlap."""

    name = _ScatterPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        return None if case.op == "maximum_gradient" else f"it does not compute a {case.op}"

    def plan(self, case: PoolCase) -> PoolPlan:
        return _scatter(case)


#: The kernels in the order in which `make_plan` tries them. It chooses the first kernel that supports the case.
KERNELS: tuple[PoolKernel, ...] = (
    _Nothing(),
    _WholePlanes(),
    _Kernel2x2(),
    _Bands(),
    _Scatter(),
    _Rows(),
    _running.AxisByAxis(),
)


def index_dtype(geometry: PoolGeometry) -> np.dtype:
    """Return the dtype for the indices of maxima: int32 if it can hold every index of a plane, otherwise int64."""
    return INT32 if geometry.cells <= _plan.TUNING.most_int32_cells else INT64


def plan_for(
    op: PoolOp,
    geometry: PoolGeometry,
    dtype: np.dtype,
    threads: int,
    include_pad: bool = True,
    index_dtype: np.dtype = INT32,
) -> PoolPlan:
    """Return the plan of an op of a pooling. The plan is cached unless its lists are large."""
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
    case = PoolCase(op, geometry.squeezed, dtype, threads, isa, include_pad, index_dtype, _plan.TUNING)
    return next(kernel for kernel in KERNELS if kernel.unsupported(case) is None).plan(case)
