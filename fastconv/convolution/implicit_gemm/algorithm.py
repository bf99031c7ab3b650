"""The product without the matrix: weights times an image that the kernel packs directly from where it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fastconv.convolution.base import Algorithm, per_channel
from fastconv.convolution.blocking import covers
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory
from fastconv.convolution.implicit_gemm import work as _work
from fastconv.convolution.implicit_gemm.calls import are_held, call_kinds, kernel_calls
from fastconv.convolution.implicit_gemm.kernel_call import KernelCall
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.taps import data_by_taps, effective_taps, tap_layers
from fastconv.geometry.conv import ConvGeometry

#: dx is computed tap by tap for at most so many taps, if there are so many cells for each output.
_FEW_TAPS, _SCATTERED = 256, 64


class Implicit(Algorithm):
    """Implicit GEMM: packed panels of weights times tiles of positions, in registers.

    The image is copied, block by block, into a padded buffer split into stride
    phases. There every tap is one offset, and a tile of neighbouring outputs
    is a few runs of memory: no matrix of columns exists. With f filters and c
    channels a group and T taps:

    - forward:          out = w @ image    [f x cT] @ [cT x positions]
    - backward_data:    dx = w' @ dout     [c x fT'] @ [fT' x positions], one product per stride phase,
      whose T' taps are every stride-th of the flipped kernel
    - backward_weights: dw = dout @ image' [f x positions] @ [positions x cT]

    dx also multiplies weights by zeros beyond the edges of dout, and the sums of the definition have no such products.
    If a weight is inf or NaN, these products are NaN instead of zero, so dx is then computed again, one tap at a time.

    References
    ----------
    K. Goto, R. van de Geijn, "Anatomy of high-performance matrix
    multiplication", ACM TOMS 34(3), 2008 (panels); S. Chetlur et al., "cuDNN:
    efficient primitives for deep learning", arXiv:1410.0759 (no columns).
    """

    name = "implicit"

    def plan(self, case: Case) -> Plan:
        """By the op; dx of a few scattered taps is computed tap by tap."""
        if case.op == "forward":
            return ForwardPlan(case)
        if case.op == "backward_weights":
            return WeightsPlan(case)
        return TapByTapPlan(case) if _is_scattered(case.geometry) else DataPlan(case)


def _is_scattered(geometry: ConvGeometry) -> bool:
    """Whether dx has so many more cells than products that it is computed tap by tap.

    A kernel that runs over all cells would multiply zeros between the taps, and copy blocks as wide as the dilation.
    """
    cells, steps = math.prod(geometry.x_shape[2:]), math.prod(axis.stride for axis in geometry.axes)
    return geometry.taps <= _FEW_TAPS and cells > _SCATTERED * geometry.positions * steps


class ImplicitPlan(Plan):
    """Calls of the kernels; many calls, or calls with large tables, are laid out again on each run."""

    _held: tuple[KernelCall, ...] | None = None

    def __str__(self) -> str:
        return Implicit.name

    def calls(self) -> tuple[KernelCall, ...]:
        """The calls of a run, in order."""
        if self._held is not None:
            return self._held
        found = kernel_calls(self.case)
        if are_held(found):
            self._held = found
        return found

    @cached_property
    def workspace_bytes(self) -> int:
        """Of the call that takes most: a padded block, weights and panels for each thread, weights that threads share,
        repacked weights, and partial sums of dw.
        """
        calls = [call for call, _ in call_kinds(self.case)]
        parts = max((call.parts for call in calls if call.parts > 1), default=0)
        repacked = max((call.repack.size for call in calls if call.repack), default=0)
        space = max((call.workspace for call in calls), default=0)
        return (space + repacked + math.prod(self.case.geometry.w_shape) * parts) * self.case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """Multiply-adds in registers, tiles of them, and what is copied and packed for them."""
        case = self.case
        work = dict.fromkeys(_work.IMPLICIT, 0.0) | memory(case.geometry, case.dtype, case.threads) | {"call": 0.0}
        for call, count in call_kinds(case):
            part = count * _counts.largest_share(call.items, call.copied, case.threads)
            work["call"] += count
            for kind, amount in call.amounts.items():
                work[kind] += part * amount
        return work


class ForwardPlan(ImplicitPlan):
    """One product."""

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """The kernel adds the bias to finished sums."""
        (call,) = self._held or self.calls()
        call.multiply(first, second, third, result)


class DataPlan(ImplicitPlan):
    """One product for each stride phase.

    `wrappers.Phases` would copy each phase of dx. These kernels write the cells of a phase in place, at the stride.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.covers = covers(case.geometry)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Cells that no tap meets are bias alone."""
        if not self.covers:
            result[...] = 0 if third is None else per_channel(third, self.case.geometry)
        finite = True
        for call in self._held or self.calls():
            finite &= call.multiply(first, second, third, result)
        if not finite:
            self.check_weights(first, second, third, result)

    def check_weights(self, dout: np.ndarray, w: np.ndarray, b: np.ndarray | None, dx: np.ndarray) -> None:
        """If a weight is inf or NaN, compute dx again without products by padding."""
        if not np.isfinite(w).all():
            data_by_taps(self.case, dout, w, b, dx, DataPlan)


class WeightsPlan(ImplicitPlan):
    """One product; if dw is small, each thread sums positions of its own into a dw of its own."""

    masks = True

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """dw, with zeros where the third array is zero."""
        (call,) = self._held or self.calls()
        call.contract(first, second, third, result)


class TapByTapPlan(Plan):
    """dx of a few taps far apart: for each tap and chunk of images a layer of one tap, whose result is added to dx."""

    def __str__(self) -> str:
        return Implicit.name

    @cached_property
    def workspace_bytes(self) -> int:
        """The product of a tap, the weights of a tap, and the workspace of its layer."""
        layer, *_ = tap_layers(self.case.geometry, self.case.dtype.itemsize)
        products = math.prod(layer.x_shape) + math.prod(layer.w_shape)
        return products * self.case.dtype.itemsize + DataPlan(self.case.with_geometry(layer)).workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """That of all layers, and of adding their results."""
        case, geometry = self.case, self.case.geometry
        work = dict.fromkeys(_work.IMPLICIT, 0.0) | memory(geometry, case.dtype, case.threads) | {"call": 0.0}
        taps = sum(1 for _ in effective_taps(geometry))
        *same, last = tap_layers(geometry, case.dtype.itemsize)  # the last one may have fewer images
        for layer, times in (*([(same[0], len(same))] if same else ()), (last, 1)):
            for kind, amount in DataPlan(case.with_geometry(layer)).work.items():
                work[kind] += taps * times * amount
        # NumPy adds the products, and copies the weights of a tap out of all, in one thread.
        products = geometry.x_shape[0] * geometry.x_shape[1] * geometry.positions
        work["summed"] += taps * (products + math.prod(geometry.w_shape[:2]))
        return work

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """As `taps.data_by_taps`."""
        data_by_taps(self.case, first, second, third, result, DataPlan)
