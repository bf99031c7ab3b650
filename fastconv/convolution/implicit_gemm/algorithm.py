"""Implicit GEMM: the kernels multiply weights by the columns of an image, but pack them directly from the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fastconv._ext import implicit as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import Algorithm, per_channel
from fastconv.convolution.blocking import covers
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory, traffic
from fastconv.convolution.implicit_gemm import work as _work
from fastconv.convolution.implicit_gemm.calls import are_held, call_kinds, kernel_calls
from fastconv.convolution.implicit_gemm.kernel_call import KernelCall
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.taps import data_by_taps, effective_taps, tap_layers
from fastconv.geometry.conv import ConvGeometry

#: dx is computed tap by tap if the kernel has at most `_FEW_TAPS` taps, and an image has more cells than `_SCATTERED`
#: times the number of its outputs times the product of the strides.
_FEW_TAPS, _SCATTERED = 256, 64


class Implicit(Algorithm):
    """Implicit GEMM: packed panels of weights times tiles of output positions, in registers.

    The image is copied, block by block, into a padded buffer that is split into stride phases. Every tap is one offset
    in the buffer, and a tile of neighbouring outputs reads a few contiguous runs. So no matrix of columns is needed.
    With f filters and c channels in a group, and T taps:

    - forward:          out = w @ image    [f x cT] @ [cT x positions]
    - backward_data:    dx = w' @ dout     [c x fT'] @ [fT' x positions], one product for each stride phase, with
      the T' taps of the flipped kernel that belong to the phase
    - backward_weights: dw = dout @ image' [f x positions] @ [positions x cT]

    The products for dx also multiply weights by zeros beyond the edges of dout, which the definition does not. If a
    weight is inf or NaN, such a product is NaN instead of zero. So dx is then computed again, tap by tap.

    References
    ----------
    K. Goto, R. van de Geijn, "Anatomy of high-performance matrix
    multiplication", ACM TOMS 34(3), 2008 (panels); S. Chetlur et al., "cuDNN:
    efficient primitives for deep learning", arXiv:1410.0759 (no columns).
    """

    name = "implicit"

    def plan(self, case: Case) -> Plan:
        """Return the plan of the op. For a few scattered taps, the plan computes dx tap by tap."""
        if case.op == "forward":
            return ForwardPlan(case)
        if case.op == "backward_weights":
            return WeightsPlan(case)
        return TapByTapPlan(case) if _is_scattered(case.geometry) else DataPlan(case)


def _is_scattered(geometry: ConvGeometry) -> bool:
    """Return whether the taps are so scattered that dx has many more cells than products, and is computed tap by tap.

    Other plans would also multiply zeros between the taps, and copy blocks that span the dilation.
    """
    cells, steps = math.prod(geometry.x_shape[2:]), math.prod(axis.stride for axis in geometry.axes)
    return geometry.taps <= _FEW_TAPS and cells > _SCATTERED * geometry.positions * steps


class ImplicitPlan(Plan):
    """Calls of the kernels. If there are many calls or large tables, the calls are laid out again on each run."""

    _held: tuple[KernelCall, ...] | None = None

    def __str__(self) -> str:
        return Implicit.name

    def calls(self) -> tuple[KernelCall, ...]:
        """Return the calls of a run, in order."""
        if self._held is not None:
            return self._held
        found = kernel_calls(self.case)
        if are_held(found):
            self._held = found
        return found

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the call with the largest workspace.

        The workspace holds a padded block, packed weights and panels for each thread, weights that threads share,
        repacked weights, and partial sums of dw.
        """
        calls = [call for call, _ in call_kinds(self.case)]
        parts = max((call.parts for call in calls if call.parts > 1), default=0)
        repacked = max((call.repack.size for call in calls if call.repack), default=0)
        space = max((call.workspace for call in calls), default=0)
        return (space + repacked + math.prod(self.case.geometry.w_shape) * parts) * self.case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the thread with most items, in the kinds of `work.IMPLICIT`."""
        case = self.case
        work = dict.fromkeys(_work.IMPLICIT, 0.0) | memory(case.geometry, case.dtype, case.threads) | {"call": 0.0}
        for call, count in call_kinds(case):
            part = count * _counts.largest_share(call.items, call.copied, case.threads)
            work["call"] += count
            for kind, amount in call.amounts.items():
                work[kind] += part * amount
        # `memory` counts the source once, but stride phases, and blocks that overlap, copy it several times.
        source = math.prod(case.geometry.out_shape if case.op == "backward_data" else case.geometry.x_shape)
        _, _, lanes = _ext.shape(_arrays.DTYPES[case.dtype], case.isa)
        copies = sum(count * call.amounts["cells"] * lanes for call, count in call_kinds(case)) / source
        for kind, amount in traffic(source * case.dtype.itemsize, case.threads).items():
            work[kind] += max(copies - 1, 0) * amount
        return work


class ForwardPlan(ImplicitPlan):
    """The output as one product."""

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Run the kernel, which adds the bias to finished sums."""
        (call,) = self._held or self.calls()
        call.multiply(first, second, third, result)


class DataPlan(ImplicitPlan):
    """The gradient of the image as one product for each stride phase.

    The kernels write the cells of a phase directly to dx, so no copy is needed as in `wrappers.Phases`.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.covers = covers(case.geometry)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Run the calls of all stride phases. Cells of dx that no output reads are set to the bias."""
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
            data_by_taps(self.case, dout, w, b, dx, DataPlan)


class WeightsPlan(ImplicitPlan):
    """The gradient of the weights as one product. If dw is small, threads share the positions.

    Each thread then sums its positions into a dw of its own.
    """

    masks = True

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute dw, with zeros where the weights `third` are zero, if they are given."""
        (call,) = self._held or self.calls()
        call.contract(first, second, third, result)


class TapByTapPlan(Plan):
    """The gradient of the image for a few scattered taps.

    For each tap and chunk of images, the result of a layer of one tap is added to dx.
    """

    def __str__(self) -> str:
        return Implicit.name

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the product of a tap, of the weights of a tap, and of the workspace of the layer of one tap."""
        layer, *_ = tap_layers(self.case.geometry, self.case.dtype.itemsize)
        products = math.prod(layer.x_shape) + math.prod(layer.w_shape)
        return products * self.case.dtype.itemsize + DataPlan(self.case.with_geometry(layer)).workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of all layers of one tap, and of adding their results to dx."""
        case, geometry = self.case, self.case.geometry
        work = dict.fromkeys(_work.IMPLICIT, 0.0) | memory(geometry, case.dtype, case.threads) | {"call": 0.0}
        taps = sum(1 for _ in effective_taps(geometry))
        *same, last = tap_layers(geometry, case.dtype.itemsize)  # the last one may have fewer images
        for layer, times in (*([(same[0], len(same))] if same else ()), (last, 1)):
            for kind, amount in DataPlan(case.with_geometry(layer)).work.items():
                work[kind] += taps * times * amount
        # In one thread, NumPy adds the products to dx, and copies the weights of each tap to a contiguous array.
        products = geometry.x_shape[0] * geometry.x_shape[1] * geometry.positions
        work["summed"] += taps * (products + math.prod(geometry.w_shape[:2]))
        return work

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute dx by `taps.data_by_taps`."""
        data_by_taps(self.case, first, second, third, result, DataPlan)
