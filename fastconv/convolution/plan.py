"""What a call computes, as a value, and what is ready to compute it: `Case` and `Plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.convolution.ops import Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Case:
    """All that a plan depends on: shapes and options, dtype, threads, instruction set, share of weights not zero."""

    op: Op
    geometry: ConvGeometry
    dtype: np.dtype
    threads: int
    isa: int
    density: float = 1.0

    @classmethod
    def of(cls, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float = 1.0) -> Case:
        """With the instruction set in use."""
        return cls(op, geometry, dtype, threads, _isa.current, density)

    def with_geometry(self, geometry: ConvGeometry) -> Case:
        """The same of another geometry."""
        return replace(self, geometry=geometry)

    def for_batch(self, n: int) -> Case:
        """The same of `n` images."""
        return self.with_geometry(self.geometry.for_batch(n))


class Plan:
    """One op of one case, ready to run.

    Attributes
    ----------
    case : Case
    sums_products : bool
        Whether results are sums of products. Otherwise `run` returns how often an inf or NaN was found in each image
        of the result, in the gradient of the weights in all of it, and None where all is finite.
    masks : bool
        Whether a gradient of the weights may be computed only where weights are not zero.
    workspace_bytes : int
        Memory that `run` takes beside its arguments.
    work : mapping of str to float
        How much there is to do of each kind that the cost model has rates for, by the thread that does most.
    """

    sums_products = True
    masks = False

    def __init__(self, case: Case) -> None:
        self.case = case

    def __str__(self) -> str:
        """The composition, as `explain` prints it."""
        raise NotImplementedError

    @cached_property
    def workspace_bytes(self) -> int:
        """Memory beside the arguments."""
        raise NotImplementedError

    @cached_property
    def work(self) -> Mapping[str, float]:
        """Amounts by kind of work."""
        raise NotImplementedError

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Write `result`, which holds nothing before.

        The arrays are x, w, b and out; for 'backward_data' dout, w, b and dx, where b is the bias of a transposed
        convolution; for 'backward_weights' x, dout, None or the weights where dw is wanted, and dw.
        """
        raise NotImplementedError
