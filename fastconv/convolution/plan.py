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
        """A case for the instruction set in use."""
        return cls(op, geometry, dtype, threads, _isa.current, density)

    @property
    def dense(self) -> Case:
        """The same with weights that are all nonzero."""
        return self if self.density == 1.0 else replace(self, density=1.0)

    def with_geometry(self, geometry: ConvGeometry) -> Case:
        """The same with another geometry."""
        return replace(self, geometry=geometry)

    def for_batch(self, n: int) -> Case:
        """The same with `n` images."""
        return self.with_geometry(self.geometry.for_batch(n))


class Plan:
    """One op of one case, ready to run.

    Attributes
    ----------
    case : Case
    uses_transforms : bool
        Whether results come from transforms. If so, `run` returns None for a result that is finite, and otherwise an
        array: for each image the number of infs and NaNs in it, or one number for the whole gradient of the weights.
    masks : bool
        Whether `run` takes the weights as a mask, and computes the gradient of nonzero weights only.
    workspace_bytes : int
        Memory that `run` takes in addition to its arguments.
    work : mapping of str to float
        The amount of each kind of work that the cost model has rates for, of the thread with most work.
    """

    uses_transforms = False
    masks = False

    def __init__(self, case: Case) -> None:
        self.case = case

    def __str__(self) -> str:
        """The composition, as `explain` prints it."""
        raise NotImplementedError

    @cached_property
    def workspace_bytes(self) -> int:
        """Memory in addition to the arguments."""
        raise NotImplementedError

    @cached_property
    def work(self) -> Mapping[str, float]:
        """Amounts by kind of work."""
        raise NotImplementedError

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Write `result`, whatever it holds before.

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
