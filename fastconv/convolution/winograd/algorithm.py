"""The algorithm `winograd`: Winograd's minimal filtering, which needs fewer multiplications than a direct sum.

F(m, r) computes m outputs of a filter with r taps. It takes m + r - 1 multiplications, one for each interpolation
point. A direct sum takes m * r multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fastconv._ext.gemm import microkernel as _shape
from fastconv.checks import arrays as _arrays
from fastconv.convolution import space_to_batch as _space_to_batch, wrappers
from fastconv.convolution.base import Algorithm
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.convolution.winograd import decomposition as _decomposition
from fastconv.convolution.winograd.tiles import TUNING, Tiles, Tuning, cheapest_tiles
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans

#: A kernel may have at most `_MOST_TAPS` taps. `_MOST_WEIGHTS` is the limit for the weights of one filter, and also for
#: the weights by which a group multiplies one channel. The limits exist because the tables and the transformed weights
#: take many times the memory of the weights.
_MOST_TAPS, _MOST_WEIGHTS = 1 << 14, 1 << 17
#: A convolution is refused if it takes more than `_FEW_OPERATIONS` vector operations (some tenths of a second), and
#: also more than `_MOST_TIMES` times the operations of a direct convolution. Such convolutions have few channels or
#: filters, so most lanes of the vectors are empty.
_FEW_OPERATIONS, _MOST_TIMES = 1 << 28, 10
#: For dx, the largest product of the strides. The product is the number of stride phases of dx, which one call of the
#: compiled kernel computes together.
_PHASES = 64


class Winograd(Algorithm):
    """Minimal filtering F(m, r) along the last one or two axes, with m + r - 1 = 4, 6 or 8 interpolation points.

    F(m, r) computes a tile of m outputs of a filter with r taps. A kernel with more than r taps is divided into
    subkernels of r taps, whose results are added up. With stride s, a subkernel has every s-th tap. It reads every s-th
    cell of the image, so it is a filter with stride 1. With dilation d, an image is first split into parts, each with
    every d-th cell.

    Tiles of the image and subkernels are treated as polynomials, and transformed to their values at P interpolation
    points. The values at one point are matrices, and the convolution is one matrix product for each point. In these
    matrices, each subkernel counts as additional channels. A, B and G are the transform matrices:

    - forward: ``Y = A^T [V @ U] A``, where ``V = B^T d B`` for each tile d of the image, and ``U = G g G^T`` for each
      subkernel g. At each point, V is [tiles x channels] and U is [channels x filters].
    - backward_data: the same, with tiles of dout as d, and with a flipped kernel. With a stride, there is one product
      for each stride phase of dx. All stride phases use the same V.
    - backward_weights: ``dg = A^T [D @ V] A``, where ``D = G dy G^T`` for each tile dy of dout. At each point, D is
      [filters x tiles] and V is [tiles x channels].

    F(4x4, 3x3) takes 36 multiplications for a tile, and the direct sum 144. F(4x4, 5x5) takes 64, and the direct sum
    400. The interpolation points along an axis always include 0 and infinity. The others are +-1 for 4 points, +-3/4
    and +-3/2 for 6 points, and +-1/2, +-1 and +-2 for 8 points. Eight points are used only if they are faster by a
    tenth.

    Rounding errors are proportional to the inputs of the transforms, even if outputs are much smaller:

    - The error of an output is at most ``a * (1 + s) * eps * M * S``.
    - M is the largest |x| that the tile of the output reads, in all channels. S is the sum of |w| over the filter.
    - eps is the machine epsilon of the dtype: 1.2e-7 for float32, and 2.2e-16 for float64.
    - a is the factor of the transforms. With 4, 6 or 8 interpolation points along one axis, it is 4, 14.3 or 39.6.
      Along two axes, it is 16, 205 or 1570.
    - s is the additional error of a sum over K channels: ``s = (min(K, 60) + K / 100) / 2``. Each subkernel counts as
      additional channels. For large K, s grows slowly, because long sums are divided into partial sums.

    With P points, a tile reads up to (P - 1) * stride cells beyond the window of an output. With a single channel,
    errors come near the bound ``a * (1 + s) * eps * M * S``. Errors of unrelated channels cancel: with 64 channels or
    more, the error stays below 8, 8 or 32 * eps * M * S for 4, 6 or 8 points. Errors of equal channels add up: in tests
    they reached some 3 * a * eps * M * S.

    The bound ``a * (1 + s) * eps * M * S`` also holds for the gradients. For dx, M is the largest |dout|, and S is the
    sum of |w| over filters and taps. For dw, M is the largest |x|, and S is the sum of |dout| over all positions of a
    filter. The bound holds only if M, |w| and their product are normal numbers (above 1.2e-38 in float32), because
    smaller numbers have fewer digits.

    If an output is small compared with the products that it sums, its relative error may be large. This happens if the
    weights of a kernel sum to zero, and the image is far from zero. Use algorithm='exact' for such kernels.

    A transform may overflow although the sum of products is finite. An inf or NaN in an image makes all outputs of the
    tiles that read it inf or NaN. 'auto' computes the results of such images again, by an algorithm without transforms.
    If 'winograd' is selected by name, nothing is computed again.

    References
    ----------
    S. Winograd, "Arithmetic complexity of computations", SIAM, 1980; A. Lavin,
    S. Gray, "Fast algorithms for convolutional neural networks",
    arXiv:1509.09308; B. Barabasz et al., "Error analysis and improving the
    accuracy of Winograd convolution", arXiv:1803.10986 (choice of points).
    """

    name = "winograd"

    def __init__(
        self,
        points: tuple[int, ...] = _decomposition.POINTS,
        taps: tuple[int, int] | None = None,
        tuning: Tuning = TUNING,
    ) -> None:
        #: The numbers of interpolation points along an axis that are tried.
        self.points = points
        #: The numbers of taps of a subkernel along the last two axes. If None, the cheapest numbers are chosen.
        self.taps = taps
        #: The block sizes.
        self.tuning = tuning

    def unsupported(self, case: Case) -> str | None:
        """Refuse strides combined with dilation, kernels no larger than the stride, and very large or slow cases."""
        geometry = case.geometry
        strides = tuple(axis.stride for axis in geometry.axes)
        # `lifted` returns stride 1 for an axis with a single output.
        rows = _decomposition.lifted(geometry)
        phases = math.prod(stride for _, _, stride, *_ in rows)
        if phases > 1 and _space_to_batch.SpaceToBatchGeometry.of(geometry) is not None:
            dilation = tuple(axis.dilation for axis in geometry.axes)
            return f"the stride is {strides} and the dilation {dilation}, but one of them must be 1"
        if not _decomposition.pairs(geometry, self.points):
            return (
                f"the kernel {geometry.kernel} must be longer than the stride {strides} along one of the last two axes"
            )
        filters, channels, *_ = geometry.w_shape
        if geometry.taps > _MOST_TAPS:
            return f"the kernel has {geometry.taps} taps; at most {_MOST_TAPS} are legal"
        if (weights := geometry.taps * max(filters // geometry.groups, channels)) > _MOST_WEIGHTS:
            return f"a filter, or a channel in all filters, has {weights} weights; at most {_MOST_WEIGHTS} are legal"
        if case.op == "backward_data" and phases > _PHASES:
            return f"the product of the strides {strides} must be at most {_PHASES} for this gradient"
        return _space_to_batch.reason(geometry) or _excess(case)

    def plan(self, case: Case) -> Plan:
        """Return the plan. If the convolution is dilated, the plan splits images into parts without dilation."""
        return wrappers.space_to_batch(case, self._undilated)

    def _undilated(self, case: Case) -> Plan:
        return WinogradPlan(case, self.points, self.taps, self.tuning)


class WinogradPlan(Plan):
    """Runs a convolution without dilation by one call of a compiled kernel."""

    algorithm = Winograd.name
    uses_transforms = True

    def __init__(self, case: Case, points: tuple[int, ...], taps: tuple[int, int] | None, tuning: Tuning) -> None:
        super().__init__(case)
        self._candidates = points, taps, tuning

    @cached_property
    def tiles(self) -> Tiles:
        """The division of the work with the smallest estimated time."""
        return cheapest_tiles(self.case, *self._candidates)

    @cached_property
    def copied(self) -> int:
        """The estimated time of the kernel, as the number of bytes that a plain copy moves in that time."""
        return int(self.tiles.work["product"] * self.case.threads * _isa.BYTES_PER_OPERATION)

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the workspaces of all threads, and of the partial sums of dw.

        The workspace of a thread holds a block of the image. At all interpolation points, it also holds the transformed
        block, the transformed weights and their products.
        """
        case, parts, plan = self.case, self.tiles.parts, self.tiles.plan
        partial = math.prod(case.geometry.w_shape) * (parts if parts > 1 else 0)
        return (min(case.threads, plan.items) * plan.workspace + partial) * case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amounts of work: products, transforms, and reading and writing memory."""
        return self.tiles.work

    def run(
        self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray
    ) -> np.ndarray | None:
        """Compute the result. The compiled kernel also adds the bias."""
        if self.case.op == "backward_weights":
            return self._sum_weights(first, second, result)
        return self._call(first, second, third, result)

    def _sum_weights(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> np.ndarray | None:
        """Compute dw. If dw is small, threads share the tiles, and each thread sums its tiles in its own copy of dw."""
        count = self.tiles.parts
        parts = dw.reshape(1, -1) if count == 1 else _memory.empty((count, dw.size), dw.dtype)
        counts = self._call(x, dout, parts)
        if count > 1:
            with np.errstate(all="ignore"):
                np.sum(parts, axis=0, out=dw.reshape(-1))
            # Partial sums may be finite although their sum overflows.
            return None if np.isfinite(dw).all() else np.ones(1, np.intp)
        return counts

    def _call(self, source: np.ndarray, *arrays: np.ndarray | None) -> np.ndarray | None:
        """Run the compiled plan. Return None if the result is finite. Otherwise return a count for each image.

        The count is above 0 if the result of the image has an inf or NaN. For dw, only the first count is used.
        """
        case, plan, counts = self.case, self.tiles.plan, np.zeros(len(source), np.intp)
        workspaces = min(case.threads, plan.items), plan.workspace
        with _workspace.workspace("blocks of the image", workspaces, source.dtype) as workspace:
            found = _threads.share(
                plan.run,
                (source, *arrays, counts, workspace),
                items=plan.items,
                work=self.copied,
                threads=case.threads,
            )
        return counts if found else None


def _excess(case: Case) -> str | None:
    """Return the reason why a convolution would be too slow, or None if it is fast enough.

    A convolution is too slow if its transforms and products take far more operations than a direct convolution.
    """
    geometry, lanes = case.geometry, _shape.shape(_arrays.DTYPES[case.dtype], case.isa)[2]
    filters, channels = geometry.w_shape[0] // geometry.groups, geometry.w_shape[1]
    most = max(math.prod(geometry.x_shape) * filters, math.prod(geometry.out_shape) * channels) * geometry.taps
    # A direct convolution takes at most `most` multiply-adds. Winograd takes at most about ``64 * most / lanes`` vector
    # operations. If this number is at most `_FEW_OPERATIONS`, the operations need not be counted.
    if 64 * most <= _FEW_OPERATIONS * lanes or not math.prod(geometry.out_shape):
        return None
    return plans.find(_counted_excess, case.op, geometry, lanes)


def _counted_excess(op: Op, geometry: ConvGeometry, lanes: int) -> str | None:
    batching = _space_to_batch.SpaceToBatchGeometry.of(geometry)
    part = geometry if batching is None else batching.part(geometry.x_shape[0])
    operations = min(problem.operations(lanes) for problem in _decomposition.problems(op, part))
    direct = multiply_adds(geometry) // lanes
    if operations <= max(_FEW_OPERATIONS, _MOST_TIMES * direct):
        return None
    return (
        f"its transforms and products take {operations} vector operations, but a direct convolution only {direct}; "
        "with so few channels or filters use 'implicit', 'fft' or 'auto'"
    )
