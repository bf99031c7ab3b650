"""What a pooling computes, as a value, and what is ready to compute it: `PoolCase` and `PoolPlan`."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.geometry.pool import PoolGeometry
from fastconv.runtime.records import dataclass

Array: TypeAlias = np.ndarray
Given: TypeAlias = np.ndarray | None
PoolOp = Literal["maximum", "mean", "norm", "maximum_gradient", "mean_gradient", "norm_gradient"]

#: The dtypes of the places of maxima. 32 bits take half the memory, and serve planes whose cells they can count.
INDEX_DTYPES = INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)
#: The indices of ops that have none.
NO_INDICES = np.empty(0, np.int32)


@dataclass(frozen=True)
class PoolCase:
    """All that a plan depends on: shapes and options, dtypes, threads, instruction set."""

    op: PoolOp
    geometry: PoolGeometry
    dtype: np.dtype
    threads: int
    isa: int
    include_pad: bool = True
    #: Of the places of maxima.
    index_dtype: np.dtype = INT32

    @cached_property
    def dtype_index(self) -> int:
        """The number of the dtype in the kernels."""
        return _arrays.DTYPES[self.dtype]

    @cached_property
    def is_gradient(self) -> bool:
        """Whether the op goes from the outputs back to the image."""
        return self.op.endswith("_gradient")

    @cached_property
    def finds_maxima(self) -> bool:
        """Whether the op is about maxima and their places, not about sums."""
        return self.op.startswith("maximum")

    @cached_property
    def x_bytes(self) -> int:
        """Bytes of the image."""
        return math.prod(self.geometry.x_shape) * self.dtype.itemsize

    @cached_property
    def out_bytes(self) -> int:
        """Bytes of the outputs."""
        return math.prod(self.geometry.out_shape) * self.dtype.itemsize

    @cached_property
    def index_bytes(self) -> int:
        """Bytes of the places of maxima; 0 for sums."""
        return math.prod(self.geometry.out_shape) * self.index_dtype.itemsize if self.finds_maxima else 0


class PoolPlan:
    """One op of one case, ready to run.

    Attributes
    ----------
    case : PoolCase
    name : str
        The kernel.
    nbytes : int
        Bytes of the tables that it holds.
    """

    name = ""
    nbytes = 0
    case: PoolCase

    def __str__(self) -> str:
        return self.name

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        """Write `target`, which holds nothing before, from `source`.

        These are x and out, or dout and dx. 'maximum' also writes `indices`, and its gradient reads them; the result
        is then whether all of them are in their planes, else True. 'norm_gradient' reads the norms, and x as `factors`.
        """
        raise NotImplementedError


class PoolKernel:
    """A kernel of pooling: what it does not support, and its plans."""

    name = ""

    def unsupported(self, case: PoolCase) -> str | None:
        """Why it cannot or should not compute the case; None if it does."""
        raise NotImplementedError

    def plan(self, case: PoolCase) -> PoolPlan:
        """The plan of a case that is not unsupported."""
        raise NotImplementedError
