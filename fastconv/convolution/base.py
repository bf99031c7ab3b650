"""The interface of algorithms, and what they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from fastconv._ext import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.cost.model import seconds
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, threads as _threads


class Algorithm(ABC):
    """One way to compute the three ops of a convolution.

    An algorithm defines its name, `plan`, and `unsupported` if it cannot serve all cases. Its plans get arrays that
    are checked: C-contiguous, native, of one float dtype and not empty. Padding is with zeros unless the algorithm
    `reads_borders`, and kernels are not flipped.
    """

    name: str
    #: Whether results come from transforms, which have larger rounding errors than sums of products.
    uses_transforms = False
    #: Whether it runs in fastconv's threads. Threads of BLAS spin for a while after a call, on CPUs that the next call
    #: needs.
    own_threads = True
    #: Whether it is fast only if BLAS multiplies. 'auto' takes it only if BLAS is known to use no more threads than the
    #: call may.
    needs_blas = False
    #: Whether it skips zero weights. 'auto' takes it only if many weights are zero.
    exploits_sparsity = False
    #: Whether it serves only kernels that are outer products. 'auto' takes it only for such kernels.
    needs_rank_one = False

    @abstractmethod
    def plan(self, case: Case) -> Plan:
        """The plan of a supported case."""

    def unsupported(self, case: Case) -> str | None:
        """The reason why this algorithm cannot serve the case, or None if it can."""
        return None

    def delegates(self, case: Case, masked: bool) -> bool:
        """Whether the dispatcher takes the plan of the cheapest algorithm without transforms instead.

        With `masked`, the op is the gradient of nonzero weights only.
        """
        return False

    def reads_borders(self, case: Case) -> bool:
        """Whether its plan handles the `pad_mode` of the case itself.

        Otherwise wrappers pad images first, and fold the padding of gradients back.
        """
        return False

    def variants(self, case: Case) -> dict[str, Algorithm]:
        """The variants that serve a case, by name. All have the same rates, and `plan` takes the cheapest."""
        return {"": self}

    def variant(self, name: str) -> Algorithm:
        """The variant of that name."""
        if name:
            raise ValueError(f"{self.name} has no variant {name!r}")
        return self

    def work(self, case: Case) -> Mapping[str, float]:
        """The work of a plan, and of the wrapper that pads an image or folds a gradient if there is one."""
        geometry = case.geometry
        if geometry.pad_mode == "zeros" or self.reads_borders(case):
            return self.plan(case).work
        padded = geometry.padded
        border = math.prod(padded.x_shape) * case.dtype.itemsize / case.threads
        return {**self.plan(case.with_geometry(padded)).work, "border": border, "borders": 1.0}

    def cost(self, case: Case) -> float:
        """Estimated seconds, corrected by the sizes of the case, times the penalty, for ranking."""
        factor = _rates.measured().correction.factor(self.name, case.op, case.geometry, case.dtype, case.threads)
        return self.penalty(case.threads) * factor * seconds(self.name, case.op, self.work(case))

    def penalty(self, threads: int) -> float:
        """The factor on the cost of an algorithm that may slow down later calls."""
        return 1.0 if self.own_threads or threads == 1 else _rates.blas_penalty()


def clear_where_zero(w: np.ndarray, dw: np.ndarray, threads: int) -> None:
    """Set dw to 0 where `w` is 0, at the speed of memory; NumPy's masks are much slower."""
    pieces = max(1, dw.nbytes >> 14)
    arguments = (_arrays.DTYPES[dw.dtype], w, dw, pieces, _isa.current)
    _threads.share(_ext.clear, arguments, items=pieces, work=2 * dw.nbytes, threads=threads)


def add_bias(b: np.ndarray | None, result: np.ndarray) -> None:
    """Add a bias, if any, to each channel of (N, C, *spatial)."""
    if b is not None:
        result += b.reshape(-1, *(1,) * (result.ndim - 2))


def per_channel(b: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """A view of b that broadcasts along the channels of an image."""
    return b.reshape(-1, *(1,) * geometry.rank)
