"""Implicit GEMM: the matrix product of im2col, whose kernels pack columns directly from the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property, partial

import numpy as np

from fastconv._ext.gemm import microkernel as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import Algorithm, per_channel
from fastconv.convolution.blocking import covers
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory, traffic
from fastconv.convolution.implicit_gemm import work as _work
from fastconv.convolution.implicit_gemm.calls import are_held, call_kinds, kernel_calls
from fastconv.convolution.implicit_gemm.kernel_call import KernelCall
from fastconv.convolution.implicit_gemm.tuning import DEFAULT, Tuning
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.taps import data_by_taps, plan_by_taps
from fastconv.geometry.conv import ConvGeometry

#: dx is computed tap by tap if the kernel has at most `_FEW_TAPS` taps, and if the image is much larger than the
#: output. More exactly, a channel must have more than ``_SCATTERED * outputs * strides`` cells. Here, `outputs` is the
#: number of outputs of a filter, and `strides` is the product of the strides.
_FEW_TAPS, _SCATTERED = 256, 64


class Implicit(Algorithm):
    """Implicit GEMM: multiplies packed weights by the image cells that a tile of outputs reads. The sums of the tile
    stay in registers.

    The image is copied, one block at a time, into a padded buffer. In this buffer, neighbouring outputs read
    neighbouring elements at every tap, even with a stride. So a tile of outputs reads a few contiguous runs, and no
    im2col matrix is needed. The products for each group are:

    - forward: ``out = w @ image``, [filters x k] @ [k x positions], where k is channels * taps
    - backward_data: ``dx = w' @ dout``, [channels x k] @ [k x positions], where k is filters * taps. There is one
      product for each stride phase of dx, with the taps of the flipped kernel that belong to this stride phase.
    - backward_weights: ``dw = dout @ image'``, [filters x positions] @ [positions x k], where k is channels * taps

    The products for dx also multiply weights by zeros beyond the edges of dout. The definition of dx has no such
    products. If a weight is inf or NaN, these products are NaN instead of zero. Then dx is computed again, one tap at a
    time.

    References
    ----------
    K. Goto, R. van de Geijn, "Anatomy of high-performance matrix
    multiplication", ACM TOMS 34(3), 2008 (panels); S. Chetlur et al., "cuDNN:
    efficient primitives for deep learning", arXiv:1410.0759 (no columns).
    """

    name = "implicit"

    def __init__(self, tuning: Tuning = DEFAULT) -> None:
        self.tuning = tuning

    def plan(self, case: Case) -> Plan:
        """Return the plan for a case. If the kernel has few taps, far apart, the plan computes dx tap by tap."""
        if case.op == "forward":
            return ForwardPlan(case, self.tuning)
        if case.op == "backward_weights":
            return WeightsPlan(case, self.tuning)
        if _is_scattered(case.geometry):
            return plan_by_taps(case, partial(DataPlan, tuning=self.tuning))
        return DataPlan(case, self.tuning)


def _is_scattered(geometry: ConvGeometry) -> bool:
    """Return whether the taps are so far apart that each tap reads only a small part of the image.

    `DataPlan` is slow for such taps, because it multiplies zeros beyond the edges of dout, and copies blocks with wide
    margins.
    """
    cells, steps = math.prod(geometry.x_shape[2:]), math.prod(axis.stride for axis in geometry.axes)
    return geometry.taps <= _FEW_TAPS and cells > _SCATTERED * geometry.positions * steps


class ImplicitPlan(Plan):
    """A sequence of calls of a compiled kernel. The calls are stored for the next run if they are few and small."""

    algorithm = Implicit.name
    _held: tuple[KernelCall, ...] | None = None

    def __init__(self, case: Case, tuning: Tuning) -> None:
        super().__init__(case)
        self.tuning = tuning

    def calls(self) -> tuple[KernelCall, ...]:
        """Return the kernel calls of a run, in order."""
        if self._held is not None:
            return self._held
        found = kernel_calls(self.case, self.tuning)
        if are_held(found, self.tuning):
            self._held = found
        return found

    @cached_property
    def workspace_bytes(self) -> int:
        """The number of bytes of the largest workspace that a kernel call needs.

        A workspace holds packed weights that threads share, repacked weights, and partial sums of dw. For each thread,
        it also holds a padded block of the image, packed weights and packed image cells.
        """
        calls = [call for call, _ in call_kinds(self.case, self.tuning)]
        parts = max((call.parts for call in calls if call.parts > 1), default=0)
        repacked = max((call.repack.size for call in calls if call.repack), default=0)
        space = max((call.workspace for call in calls), default=0)
        return (space + repacked + math.prod(self.case.geometry.w_shape) * parts) * self.case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the thread with the most work items, for each kind of work in `work.IMPLICIT`."""
        case, kinds = self.case, call_kinds(self.case, self.tuning)
        work = dict.fromkeys(_work.IMPLICIT, 0.0) | memory(case.geometry, case.dtype, case.threads) | {"call": 0.0}
        for call, count in kinds:
            part = count * _counts.largest_share(call.items, call.copied, case.threads)
            work["call"] += count
            for kind, amount in call.amounts.items():
                work[kind] += part * amount
        # `memory` assumes that the source (the image or, for dx, dout) is read once. But it is copied several times if
        # there are several stride phases, or if blocks overlap.
        source = math.prod(case.geometry.out_shape if case.op == "backward_data" else case.geometry.x_shape)
        _, _, lanes = _ext.shape(_arrays.DTYPES[case.dtype], case.isa)
        copies = sum(count * call.amounts["cells"] * lanes for call, count in kinds) / source
        for kind, amount in traffic(source * case.dtype.itemsize, case.threads).items():
            work[kind] += max(copies - 1, 0) * amount
        return work


class ForwardPlan(ImplicitPlan):
    """Computes the output as one product for each group."""

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the output. The compiled kernel also adds the bias."""
        (call,) = self._held or self.calls()
        call.multiply(first, second, third, result)


class DataPlan(ImplicitPlan):
    """Computes dx as one product for each stride phase of dx.

    The kernel writes the elements of a stride phase directly to dx. The wrapper `wrappers.Phases` would need a copy.
    """

    def __init__(self, case: Case, tuning: Tuning) -> None:
        super().__init__(case, tuning)
        self.covers = covers(case.geometry)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute all stride phases of dx. Elements of dx that no output reads are set to the bias, or to 0."""
        if not self.covers:
            result[...] = 0 if third is None else per_channel(third, self.case.geometry)
        finite = True
        for call in self._held or self.calls():
            finite &= call.multiply(first, second, third, result)
        if not finite:
            self.check_weights(first, second, third, result)

    def check_weights(self, dout: np.ndarray, w: np.ndarray, b: np.ndarray | None, dx: np.ndarray) -> None:
        """If a weight is inf or NaN, compute dx again without products of weights and padding."""
        if not np.isfinite(w).all():
            data_by_taps(self.case, dout, w, b, dx, partial(DataPlan, tuning=self.tuning))


class WeightsPlan(ImplicitPlan):
    """Computes dw as one product for each group.

    If dw is small, output positions are divided among threads. Each thread adds up the products for its positions in
    its own copy of dw.
    """

    masks = True

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute dw. If the weights are given as `third`, dw is zero where they are zero."""
        (call,) = self._held or self.calls()
        call.contract(first, second, third, result)
