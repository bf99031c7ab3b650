"""The interface of algorithms, and functions that several algorithms use."""

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

    An algorithm defines `name` and `plan`, and `unsupported` if it does not support all cases. The arrays that a plan
    gets are C-contiguous, not empty, in native byte order and of one float dtype. Padding is with zeros unless
    `reads_borders` returns True, and kernels are not flipped.
    """

    name: str
    #: Whether results come from transforms, which have larger rounding errors than sums of products.
    uses_transforms = False
    #: Whether the algorithm runs in fastconv's threads only. BLAS threads spin for a while after a call, on CPUs that
    #: the next call needs.
    own_threads = True
    #: Whether the algorithm is fast only if BLAS multiplies. 'auto' takes such an algorithm only if BLAS is known to
    #: use no more threads than the call may.
    needs_blas = False
    #: Whether the algorithm skips zero weights. 'auto' takes such an algorithm only if many weights are zero.
    exploits_sparsity = False
    #: Whether the algorithm supports only kernels that are outer products. 'auto' takes it only for such kernels.
    needs_rank_one = False

    @abstractmethod
    def plan(self, case: Case) -> Plan:
        """Return the plan of a case that the algorithm supports."""

    def unsupported(self, case: Case) -> str | None:
        """Return the reason why this algorithm does not support the case, or None if it does."""
        return None

    def delegates(self, case: Case, masked: bool) -> bool:
        """Return whether the plan of the cheapest algorithm without transforms replaces the plan of this algorithm.

        With `masked`, only nonzero weights get a gradient.
        """
        return False

    def reads_borders(self, case: Case) -> bool:
        """Return whether the plan handles the `pad_mode` of the case itself.

        Otherwise, wrappers pad the images first, and add the gradient of padding to the cells that were copied there.
        """
        return False

    def variants(self, case: Case) -> dict[str, Algorithm]:
        """Return the variants that support a case, by name. All have the same rates, and `plan` takes the cheapest."""
        return {"": self}

    def variant(self, name: str) -> Algorithm:
        """Return the variant `name`."""
        if name:
            raise ValueError(f"{self.name} has no variant {name!r}")
        return self

    def work(self, case: Case) -> Mapping[str, float]:
        """Return the work of a plan, including the work of a wrapper that pads the image or its gradient."""
        geometry = case.geometry
        if geometry.pad_mode == "zeros" or self.reads_borders(case):
            return self.plan(case).work
        padded = geometry.padded
        border = math.prod(padded.x_shape) * case.dtype.itemsize / case.threads
        return {**self.plan(case.with_geometry(padded)).work, "border": border, "borders": 1.0}

    def cost(self, case: Case) -> float:
        """Return the cost for the ranking: estimated seconds, corrected by the sizes of the case, times the penalty."""
        factor = _rates.measured().correction.factor(self.name, case)
        return self.penalty(case.threads) * factor * seconds(self.name, case.op, self.work(case))

    def penalty(self, threads: int) -> float:
        """Return a factor on the cost, which is above 1 if the algorithm may slow down later calls."""
        return 1.0 if self.own_threads or threads == 1 else _rates.blas_penalty()


def clear_where_zero(w: np.ndarray, dw: np.ndarray, threads: int) -> None:
    """Set dw to 0 where `w` is 0. Only the memory bandwidth limits the speed; NumPy's masks are much slower."""
    pieces = max(1, dw.nbytes >> 14)
    arguments = (_arrays.DTYPES[dw.dtype], w, dw, pieces, _isa.current)
    _threads.share(_ext.clear, arguments, items=pieces, work=2 * dw.nbytes, threads=threads)


def add_bias(b: np.ndarray | None, result: np.ndarray) -> None:
    """Add the bias b, unless it is None, to each channel of `result`, whose shape is (N, C, *spatial)."""
    if b is not None:
        result += b.reshape(-1, *(1,) * (result.ndim - 2))


def per_channel(b: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return a view of b that broadcasts along the channels of an image."""
    return b.reshape(-1, *(1,) * geometry.rank)
