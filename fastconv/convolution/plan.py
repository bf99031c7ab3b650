"""`Case` describes a computation, and `Plan` is ready to run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np

from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.records import dataclass

#: The three ops of a convolution.
Op: TypeAlias = Literal["forward", "backward_data", "backward_weights"]
OPS: tuple[Op, ...] = ("forward", "backward_data", "backward_weights")


@dataclass(frozen=True)
class Case:
    """Everything that a plan depends on.

    `isa` is the instruction set. `density` is the share of nonzero weights. If `masked` is true, only nonzero weights
    need a gradient.
    """

    op: Op
    geometry: ConvGeometry
    dtype: np.dtype
    threads: int
    isa: int
    density: float = 1.0
    masked: bool = False

    @classmethod
    def of(
        cls,
        op: Op,
        geometry: ConvGeometry,
        dtype: np.dtype,
        threads: int = 1,
        density: float = 1.0,
        masked: bool = False,
    ) -> Case:
        """Return a case for the instruction set in use."""
        return cls(op, geometry, dtype, threads, _isa.current, density, masked)

    @property
    def dense(self) -> Case:
        """The same case with density 1, in which all weights need a gradient."""
        return self if self.density == 1.0 and not self.masked else replace(self, density=1.0, masked=False)

    def with_geometry(self, geometry: ConvGeometry) -> Case:
        """Return the same case with another geometry."""
        return replace(self, geometry=geometry)

    def for_batch(self, n: int) -> Case:
        """Return the same case with `n` images."""
        return self.with_geometry(self.geometry.for_batch(n))


class Plan(ABC):
    """One op of one case, ready to run.

    The constructor is fast, because most plans are only compared by cost and never run. Tables and block sizes that
    take time are computed when `work`, `workspace_bytes` or `run` first needs them.
    """

    #: The name of the algorithm. The cost model has rates for this name.
    algorithm: str
    #: Whether results come from transforms such as FFT, which have larger rounding errors than sums of products. If so,
    #: `run` counts infs and NaNs. It returns None if the result is finite. Otherwise it returns an array with the count
    #: of each image or, for backward_weights, with a single count.
    uses_transforms: bool = False
    #: Whether the plan runs in fastconv's threads only. BLAS threads spin for a while after a call, and occupy CPUs
    #: that the next call needs.
    own_threads: bool = True
    #: Whether the plan is fast only if BLAS computes its products. 'auto' takes such a plan only if BLAS is
    #: known to use no more threads than the call may.
    needs_blas: bool = False
    #: Whether the plan skips zero weights. 'auto' takes such a plan only if many weights are zero.
    exploits_sparsity: bool = False
    #: Whether the plan supports only kernels of rank one, which are outer products. 'auto' checks the kernels on each
    #: call.
    needs_rank_one: bool = False
    #: Whether the plan handles the `pad_mode` of its case. Otherwise, the wrapper `Padded` pads the images first.
    reads_borders: bool = False
    #: Whether `run` accepts the weights as a mask, and then computes the gradient of nonzero weights only. If not, the
    #: wrapper `Masked` clears the gradients of zero weights.
    masks: bool = False

    def __init__(self, case: Case) -> None:
        self.case = case

    def __str__(self) -> str:
        """Return the plan and the plans inside it as text, which `explain` prints."""
        return self.algorithm

    def copy_properties(self, plan: Plan) -> None:
        """Copy properties such as `uses_transforms` from an inner plan to this plan."""
        for name in _PROPERTIES:
            setattr(self, name, getattr(plan, name))

    @property
    @abstractmethod
    def workspace_bytes(self) -> int:
        """The bytes of memory that `run` uses in addition to its arguments."""

    @property
    @abstractmethod
    def work(self) -> Mapping[str, float]:
        """The amount of each kind of work, such as multiply-adds or bytes, of the thread with the most work. The cost
        model multiplies each amount by a measured rate.
        """

    @abstractmethod
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


#: The names of the properties of a plan, which are class attributes of `Plan`.
_PROPERTIES = (
    *("algorithm", "uses_transforms", "own_threads", "needs_blas", "exploits_sparsity", "needs_rank_one"),
    *("reads_borders", "masks"),
)
