"""A `PoolCase` describes one computation of a pooling. A `PoolKernel` makes a `PoolPlan` that runs this computation.

`TUNING` has the block sizes and thresholds of pooling.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.geometry.axis import UNIT_AXIS, Axis
from fastconv.geometry.pool import PoolGeometry
from fastconv.runtime.records import dataclass

Array: TypeAlias = np.ndarray
Given: TypeAlias = np.ndarray | None
PoolOp = Literal["maximum", "mean", "norm", "maximum_gradient", "mean_gradient", "norm_gradient"]

#: The dtypes of the indices of maxima. int32 takes half the memory of int64, and suffices for most planes.
INDEX_DTYPES = INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)
#: The value of the argument `indices` for ops that neither write nor read indices.
NO_INDICES = np.empty(0, np.int32)


_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Tuning:
    """The sizes by which poolings divide their work, and the limits of the kernels.

    Tests use small values, so that small images have many blocks.
    """

    #: The approximate number of elements of a block of the kernel 'rows'. Such a block fits into the L1 cache.
    block_elements: int = 3072
    #: The maximum workspace of a thread of the kernel 'rows', in elements. Other windows need another kernel.
    most_rows_workspace: int = 1 << 16
    #: The maximum number of taps of a window for the kernel 'rows'. Larger windows would have long lists of taps.
    most_taps: int = 1024
    #: The approximate size of a band, in bytes. A band is a range of rows of dx. A thread adds gradients to one band at
    #: a time.
    band_bytes: int = 1 << 19
    #: The maximum size of all pages of a thread together, in bytes. A page holds rounding errors of cells of dx.
    page_bytes: int = 1 << 23
    #: This many bytes of workspace of the kernel 'axis by axis' fit into the L2 cache. A plan may use up to four times
    #: as many bytes if that saves time.
    ring_bytes: int = 1 << 20
    #: The minimum width of a piece (a part of a plane) of the kernel 'axis by axis', in elements. Only a narrower plane
    #: has narrower pieces.
    least_width: int = 64
    #: The approximate maximum workspace of a thread of the kernel 'axis by axis', in bytes. A pooling that needs a
    #: larger workspace raises an error.
    most_bytes: int = 1 << 30
    #: For maxima in float32, the maximum number of cells from the first to the last cell of a piece of the kernel 'axis
    #: by axis'. The kernel then stores the indices of the cells in 32 bits.
    most_float32_cells: int = _INT32_MAX
    #: The maximum number of cells of a plane for which the indices of maxima are int32.
    most_int32_cells: int = _INT32_MAX
    #: About this many bytes of computed powers are in memory at a time.
    power_bytes: int = 1 << 20
    #: A row of powers (all values at one index of the first spatial axis) is divided into parts if it has more bytes
    #: than this. If windows are long, even the parts may have more bytes.
    line_bytes: int = 1 << 16
    #: The approximate number of bytes of windows that are copied at a time for a Python function.
    window_bytes: int = 1 << 23


#: The values in use.
TUNING = Tuning()


def kernel_axes(geometry: PoolGeometry) -> tuple[Axis, Axis, Axis]:
    """Return the axes D, H and W of a pooling as kernels need them. Missing axes have size 1.

    Huge values that have no effect are replaced by small ones: see `Axis.row`.
    """
    d, h, w = (UNIT_AXIS,) * (3 - len(geometry.axes)) + tuple(map(_kernel_axis, geometry.axes))
    return d, h, w


def _kernel_axis(axis: Axis) -> Axis:
    size, k, stride, lo, dilation, out = axis.row()
    return Axis(size=size, k=k, stride=stride, lo=lo, hi=axis.hi, dilation=dilation, out=out)


@dataclass(frozen=True)
class PoolCase:
    """All values that a plan depends on: op, shapes and options, dtypes, number of threads and instruction set."""

    op: PoolOp
    geometry: PoolGeometry
    dtype: np.dtype
    threads: int
    isa: int
    include_pad: bool = True
    #: The dtype of the indices of maxima.
    index_dtype: np.dtype = INT32
    tuning: Tuning = Tuning()

    @cached_property
    def dtype_index(self) -> int:
        """The index of the dtype for the kernels: 0 for float32, 1 for float64."""
        return _arrays.DTYPES[self.dtype]

    @cached_property
    def is_gradient(self) -> bool:
        """Whether the op computes dx from dout."""
        return self.op.endswith("_gradient")

    @cached_property
    def finds_maxima(self) -> bool:
        """Whether the op is 'maximum' or 'maximum_gradient'. Only these two ops use indices of maxima."""
        return self.op.startswith("maximum")

    @cached_property
    def has_int64_indices(self) -> bool:
        """Whether the indices of maxima are int64."""
        return self.index_dtype is INT64

    @cached_property
    def x_bytes(self) -> int:
        """The number of bytes of x, which is also the number of bytes of dx."""
        return math.prod(self.geometry.x_shape) * self.dtype.itemsize

    @cached_property
    def out_bytes(self) -> int:
        """The number of bytes of the output, which is also the number of bytes of dout."""
        return math.prod(self.geometry.out_shape) * self.dtype.itemsize

    @cached_property
    def index_bytes(self) -> int:
        """The number of bytes of the indices of maxima, or 0 for an op without indices."""
        return math.prod(self.geometry.out_shape) * self.index_dtype.itemsize if self.finds_maxima else 0


class PoolPlan:
    """The plan of one `PoolCase`. `run` does the computation.

    Attributes
    ----------
    case : PoolCase
    name : str
        The name of the kernel.
    nbytes : int
        The number of bytes of the lists in the plan.
    """

    name = ""
    nbytes = 0
    case: PoolCase

    def __str__(self) -> str:
        return self.name

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        """Compute `target` from `source`: out from x, or dx from dout. `target` may be uninitialised.

        The op 'maximum' also writes `indices`, the index of each maximum in its plane. The op 'maximum_gradient' reads
        `indices`, and returns whether every index lies in its plane. All other ops return True. For the op
        'norm_gradient', `norms` is the output of the forward pass, and `factors` is x.
        """
        raise NotImplementedError


class PoolKernel:
    """A kernel of pooling, which makes plans for the cases that it supports."""

    name = ""

    def unsupported(self, case: PoolCase) -> str | None:
        """Return the reason why the kernel cannot or should not compute the case. Return None if the kernel supports
        the case.
        """
        raise NotImplementedError

    def plan(self, case: PoolCase) -> PoolPlan:
        """Return the plan of a case that the kernel supports."""
        raise NotImplementedError
