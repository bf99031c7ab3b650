"""The algorithm `winograd`: minimal filtering, which needs fewer multiplications than sums over kernel taps.

F(m, r) computes m outputs of a filter of r taps from the values of polynomials at m + r - 1 interpolation points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fastconv._ext.gemm import microkernel as _shape
from fastconv._ext.winograd import winograd as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution import space_to_batch as _space_to_batch, wrappers
from fastconv.convolution.base import Algorithm
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.convolution.winograd import decomposition as _decomposition
from fastconv.convolution.winograd.tiles import Tiles, cheapest_tiles
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans

#: The largest number of taps of a kernel, and the largest number of weights of one filter, or of one channel in all
#: filters of its group. They are limited because the tables and the transformed weights take many times the memory of
#: the weights.
_MOST_TAPS, _MOST_WEIGHTS = 1 << 14, 1 << 17
#: A case is refused if it takes more than `_FEW_OPERATIONS` vector operations (some tenths of a second), and also more
#: than `_MOST_TIMES` times the operations of a direct convolution. This happens if there are so few channels that most
#: lanes are empty.
_FEW_OPERATIONS, _MOST_TIMES = 1 << 28, 10
#: The largest number of stride phases of dx. One call of the kernel computes all stride phases.
_PHASES = 64


class Winograd(Algorithm):
    """Minimal filtering F(m, r) along the last one or two axes, with m + r - 1 = 4, 6 or 8 interpolation points.

    F(m, r) computes a tile of m outputs of a filter with r taps. A kernel with more than r taps is divided into
    subkernels of r taps, whose results are added up (see `decomposition`). With stride s, a subkernel has every s-th
    tap, and is a filter of stride 1 on every s-th cell. With dilation d, an image is first split into parts, each with
    every d-th cell.

    Tiles of the input, of the weights and of the output are treated as polynomials, and represented by their values at
    P points. So a convolution is one matrix product for each point. If C is the number of channels times the number of
    subkernels, F the number of filters, and T the number of tiles:

    - forward:          Y = A^T [V @ U] A,  V = B^T d B, U = G g G^T   P times [T x C] @ [C x F]
    - backward_data:    the same with dout as d and with a flipped kernel; with a stride, there is one product for each
      stride phase of dx, and all of them use the same V
    - backward_weights: dg = A^T [D @ V] A, D = G dy G^T               P times [F x T] @ [T x C]

    F(4x4, 3x3) takes 36 multiplications for a tile, and the direct sum 144. F(4x4, 5x5) takes 64, and the direct sum
    400. The points along an axis always include 0 and infinity. The others are +-1 for 4 points, +-3/4 and +-3/2 for 6
    points, and +-1/2, +-1 and +-2 for 8 points. Eight points are used only if they are faster by a tenth.

    Rounding errors are proportional to the inputs of the transforms, even if outputs are much smaller. With 4, 6 or 8
    points, the error of an output is at most

        A * (1 + s) * eps * M * S,    A = 4, 14.3 or 39.6 along one axis, 16, 205 or 1570 along two.

    eps is the machine epsilon of the dtype (1.2e-7 or 2.2e-16). M is the largest |x| of all cells that a tile reads.
    These cells are in all channels, and up to (P - 1) * stride cells beyond the window of the output. S is the sum of
    |w| over a filter. A is the error of the transforms. s is the additional error of a sum of K products, where K is
    the number of channels times the number of subkernels. Because long sums are divided into partial sums,
    s = (min(K, 60) + K / 100) / 2. If K is 1, errors come near this bound. Errors of unrelated channels cancel: with 64
    channels or more, the error stays below 8, 8 or 32 * eps * M * S for 4, 6 or 8 points. Errors of equal channels add
    up: in tests they reached some 3 * A * eps * M * S.

    The same bounds hold for the gradients. For dx, M is the largest |dout|, and S is the sum of |w| over filters and
    taps. For dw, M is the largest |x|, and S is the sum of |dout| over all positions of a filter. If an output is small
    compared with M * S, its relative error may be large. This happens if the weights of a kernel sum to zero, and the
    image is far from zero; use algorithm='exact' for such kernels. The bounds hold only if M, |w| and their product are
    normal numbers (above 1.2e-38 in float32), because smaller numbers lose digits, as in every sum.

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

    def __init__(self, points: tuple[int, ...] = _decomposition.POINTS, taps: tuple[int, int] | None = None) -> None:
        #: The candidates for the number of interpolation points along an axis.
        self.points = points
        #: The numbers of taps of a subkernel along the last two axes. If None, the cheapest numbers are chosen.
        self.taps = taps

    def unsupported(self, case: Case) -> str | None:
        """Refuse very slow cases, a stride together with a dilation, and kernels not longer than the stride."""
        geometry = case.geometry
        strides = tuple(axis.stride for axis in geometry.axes)
        # Each of these rows describes one axis. If an axis has a single output, its row has stride 1.
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
        """Return the plan of the op. If the convolution is dilated, the plan splits images into undilated parts."""
        return wrappers.space_to_batch(case, self._undilated)

    def _undilated(self, case: Case) -> Plan:
        return WinogradPlan(case, self.points, self.taps)


class WinogradPlan(Plan):
    """One call of a kernel for an undilated convolution."""

    algorithm = Winograd.name
    uses_transforms = True

    def __init__(self, case: Case, points: tuple[int, ...], taps: tuple[int, int] | None) -> None:
        super().__init__(case)
        self._candidates = points, taps
        self.kernel = _ext.weights if case.op == "backward_weights" else _ext.product

    @cached_property
    def tiles(self) -> Tiles:
        """The arguments of the cheapest call. Candidates differ in the numbers of points and of taps."""
        return cheapest_tiles(self.case, *self._candidates)

    @cached_property
    def copied(self) -> int:
        """The bytes that a plain copy moves in the time of the call, for `_threads.share`."""
        return int(self.tiles.work["product"] * self.case.threads * _isa.BYTES_PER_OPERATION)

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the workspaces of all threads, and of the partial sums of dw.

        The workspace of a thread holds a block of the image, and the transformed block, the transformed weights and
        their products at all points.
        """
        case, tiles = self.case, self.tiles
        partial = math.prod(case.geometry.w_shape) * (tiles.parts if tiles.parts > 1 else 0)
        return (min(case.threads, tiles.items) * tiles.space + partial) * case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the products, of the transforms, and of reading and writing memory."""
        return self.tiles.work

    def run(
        self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray
    ) -> np.ndarray | None:
        """Run the kernel, which also adds the bias."""
        if self.case.op == "backward_weights":
            return self._sum_weights(first, second, result)
        bias = result.reshape(-1)[:0] if third is None else third
        return self._call(first, second.reshape(-1), bias, result.reshape(-1))

    def _sum_weights(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> np.ndarray | None:
        """Compute dw. If dw is small, tiles are divided among threads, and each thread sums its tiles in its own dw."""
        count = self.tiles.parts
        parts = dw.reshape(1, -1) if count == 1 else _memory.empty((count, dw.size), dw.dtype)
        counts = self._call(x, dout.reshape(-1), parts)
        if count > 1:
            with np.errstate(all="ignore"):
                np.sum(parts, axis=0, out=dw.reshape(-1))
            # The sum of finite partial sums may overflow.
            return None if np.isfinite(dw).all() else np.ones(1, np.intp)
        return counts

    def _call(self, source: np.ndarray, *arrays: np.ndarray) -> np.ndarray | None:
        """Call the kernel. Return None if the result is finite, else the number of infs and NaNs of each image."""
        case, tiles = self.case, self.tiles
        workers, counts = min(case.threads, tiles.items), np.zeros(len(source), np.intp)
        with _workspace.workspace("blocks of the image", (workers, tiles.space), source.dtype) as space:
            found = _threads.share(
                self.kernel,
                (_arrays.DTYPES[case.dtype], source.reshape(-1), *arrays, *tiles.tables, counts, space, case.isa),
                items=tiles.items,
                work=self.copied,
                threads=case.threads,
            )
        return counts if found else None


def _excess(case: Case) -> str | None:
    """Return the reason why a case is refused, or None if it is not.

    A case is refused if its transforms and products take many times as many operations as the direct convolution.
    """
    geometry, lanes = case.geometry, _shape.shape(_arrays.DTYPES[case.dtype], case.isa)[2]
    filters, channels = geometry.w_shape[0] // geometry.groups, geometry.w_shape[1]
    most = max(math.prod(geometry.x_shape) * filters, math.prod(geometry.out_shape) * channels) * geometry.taps
    # A direct convolution takes at most `most` multiply-adds, and winograd at most about ``64 * most / lanes`` vector
    # operations. If this number is small enough, accept the case without counting its operations.
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
