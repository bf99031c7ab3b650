"""`Case`, the description of a computation as a value, and `Plan`, which is ready to run it."""

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
    """Everything that a plan depends on; `density` is the share of nonzero weights."""

    op: Op
    geometry: ConvGeometry
    dtype: np.dtype
    threads: int
    isa: int
    density: float = 1.0

    @classmethod
    def of(cls, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int = 1, density: float = 1.0) -> Case:
        """Return a case for the instruction set in use."""
        return cls(op, geometry, dtype, threads, _isa.current, density)

    @property
    def dense(self) -> Case:
        """The same case with density 1, where all weights are nonzero."""
        return self if self.density == 1.0 else replace(self, density=1.0)

    def with_geometry(self, geometry: ConvGeometry) -> Case:
        """Return the same case with another geometry."""
        return replace(self, geometry=geometry)

    def for_batch(self, n: int) -> Case:
        """Return the same case with `n` images."""
        return self.with_geometry(self.geometry.for_batch(n))


class Plan:
    """One op of one case, ready to run.

    Attributes
    ----------
    case : Case
    uses_transforms : bool
        Whether results come from transforms. If so, `run` returns None if the result is finite, and otherwise an array
        of counts: the number of infs and NaNs of each image, or one number for the gradient of the weights.
    masks : bool
        Whether `run` accepts the weights as a mask, and then computes the gradient of nonzero weights only.
    workspace_bytes : int
        The bytes of memory that `run` uses in addition to its arguments.
    work : mapping of str to float
        The amount of each kind of work that the cost model has rates for, counted for the thread with most work.
    """

    uses_transforms = False
    masks = False

    def __init__(self, case: Case) -> None:
        self.case = case

    def __str__(self) -> str:
        """Return the plan and the plans inside it as text, which `explain` prints."""
        raise NotImplementedError

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of memory that `run` uses in addition to its arguments."""
        raise NotImplementedError

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amount of each kind of work."""
        raise NotImplementedError

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Compute `result`; its previous contents have no effect.

        ====================  =====  ======  ===============================================  ======
        op                    first  second  third                                            result
        ====================  =====  ======  ===============================================  ======
        `forward`             x      w       b or None                                        out
        `backward_data`       dout   w       b of a transposed convolution, or None           dx
        `backward_weights`    x      dout    w as a mask if only nonzero weights need a       dw
                                             gradient, or None
        ====================  =====  ======  ===============================================  ======
        """
        raise NotImplementedError
