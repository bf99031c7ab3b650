"""Winograd's minimal filtering, which needs fewer multiplications because it multiplies the values of polynomials.

F(m, r) computes m outputs of a filter of r taps from the values of polynomials at m + r - 1 interpolation points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv._ext import microkernel as _shape, winograd as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution import space_to_batch as _space_to_batch, wrappers
from fastconv.convolution.base import Algorithm
from fastconv.convolution.blocking import ceil_div
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.ops import Op
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.winograd import decomposition as _decomposition
from fastconv.convolution.winograd.tiles import cheapest_tiles
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans

#: The largest number of taps of a kernel, and of the taps of all channels or all filters of a group. They are limited
#: because tables and transformed weights are many times longer.
_MOST_TAPS, _MOST_WEIGHTS = 1 << 14, 1 << 17
#: A case of more than `_FEW_OPERATIONS` vector operations, some tenths of a second, is refused if it needs more than
#: `_MOST_TIMES` times as many operations as a direct convolution. This happens if few channels leave lanes empty.
_FEW_OPERATIONS, _MOST_TIMES = 1 << 28, 10
#: The largest number of stride phases of dx. One call computes all of them.
_PHASES = 64
#: The cost of a dilation in the kind of work `bytes`: `_COPY` for each byte that is copied, and `_PART` for each part.
_COPY, _PART = 4, 10_000


class Winograd(Algorithm):
    """Minimal filtering F(m, r) with 4, 6 or 8 interpolation points, m + r - 1, along the last one or two axes.

    A kernel of another size is the sum of subkernels of r taps (`_decomposition`). With stride s, a subkernel has every
    s-th tap, and is a filter of stride 1 on every s-th cell. The images of a dilated convolution are first split into
    parts, each of which has every d-th cell for dilation d.

    Tiles of the input, of the weights and of the output are polynomials, represented by their values at P points. So a
    convolution is one product for each point. With C channels in all subkernels together, F filters and T tiles:

    - forward:          Y = A^T [V @ U] A,  V = B^T d B, U = G g G^T   P times [T x C] @ [C x F]
    - backward_data:    the same on dout with a flipped kernel; with a stride, one product for each stride phase of
      dx, all of which use the same V
    - backward_weights: dg = A^T [D @ V] A, D = G dy G^T               P times [F x T] @ [T x C]

    F(4x4, 3x3) has 36 products, and the definition has 144. F(4x4, 5x5) has 64, and the definition has 400. The points
    along an axis are 0 and infinity, with +-1 for 4 points, +-3/4 and +-3/2 for 6, and +-1/2, +-1 and +-2 for 8. Eight
    points are used only if they are faster by a tenth.

    Rounding errors grow with the inputs of the transforms, not with the outputs. The error of an output is at most

        A * (1 + s) * eps * M * S,    A = 4, 14.3 or 39.6 along one axis, 16, 205 or 1570 along two,

    for 4, 6 or 8 points. eps is the machine epsilon of the dtype (1.2e-7 or 2.2e-16). M is the largest |x| that a tile
    reads, over all channels and up to (P - 1) * stride cells beyond the window of the output. S is the sum of |w| over
    a filter. A is the error of the transforms, and s the additional error of a sum of K products, where K is the number
    of channels of all subkernels. At most 60 products are added one after the other, and then the sums of each 100, so
    s = (min(K, 60) + K / 100) / 2. Single products come near this bound. Errors of unrelated channels cancel: over 64
    channels or more, the error stays below 8, 8 or 32 * eps * M * S. Errors of channels that repeat each other add up,
    to some 3 * A * eps * M * S in tests.

    The same bounds hold for the gradients. For dx, M is the largest |dout|, and S sums |w| over filters and taps. For
    dw, M is the largest |x|, and S sums the |dout| of a filter over all positions. If an output is small compared with
    M * S, its relative error may be large. This happens if the taps of a kernel sum to zero, and the image is far from
    zero; use 'exact' for such kernels. M, |w| and their product have to be normal numbers, above 1.2e-38 in float32,
    because smaller numbers lose digits, as in every sum.

    A transform may overflow although the sum of products is finite. An inf or NaN spreads to all outputs of the tiles
    that read it, and is never hidden. 'auto' computes the results of such images again, by an algorithm that sums
    products. If 'winograd' is selected by name, nothing is computed again.

    References
    ----------
    S. Winograd, "Arithmetic complexity of computations", SIAM, 1980; A. Lavin,
    S. Gray, "Fast algorithms for convolutional neural networks",
    arXiv:1509.09308; B. Barabasz et al., "Error analysis and improving the
    accuracy of Winograd convolution", arXiv:1803.10986 (choice of points).
    """

    name = "winograd"
    uses_transforms = True

    def __init__(self, points: tuple[int, ...] = _decomposition.POINTS, taps: tuple[int, int] | None = None) -> None:
        #: The numbers of interpolation points along an axis that are candidates.
        self.points = points
        #: The number of taps of a subkernel along each of the last two axes; None to take the cheapest candidate.
        self.taps = taps

    def variants(self, case: Case) -> dict[str, Algorithm]:
        """Return the cheapest variant for each number of points. '6 3x3' has 6 points and subkernels of 3 x 3 taps."""
        batching = _space_to_batch.SpaceToBatchGeometry.of(case.geometry)
        part = case if batching is None else case.with_geometry(batching.geometry)
        found: dict[str, Algorithm] = {}
        for points in self.points:
            if _decomposition.pairs(part.geometry, (points,)):
                high, wide = cheapest_tiles(part, (points,), None).taps
                found[f"{points} {high}x{wide}"] = Winograd((points,), (high, wide))
        return found

    def variant(self, name: str) -> Algorithm:
        """Return the variant that has this name in `variants`."""
        if not name:
            return self
        points, _, taps = name.partition(" ")
        high, _, wide = taps.partition("x")
        return Winograd((int(points),), (int(high), int(wide)))

    def unsupported(self, case: Case) -> str | None:
        """Refuse kernels that are not longer than the stride, strides with a dilation, and cases of too much work."""
        geometry = case.geometry
        strides = tuple(axis.stride for axis in geometry.axes)
        # `lifted` sets the stride of an axis with a single output to one.
        rows = _decomposition.lifted(geometry)
        phases = math.prod(stride for _, _, stride, *_ in rows)
        if phases > 1 and _space_to_batch.SpaceToBatchGeometry.of(geometry) is not None:
            dilation = tuple(axis.dilation for axis in geometry.axes)
            return f"the stride is {strides} and the dilation {dilation}, and one of them must be 1"
        if not _decomposition.pairs(geometry, self.points):
            return (
                f"the kernel is {geometry.kernel} and the stride {strides}; "
                "along one of the last two axes it has to be longer than the stride"
            )
        filters, channels, *_ = geometry.w_shape
        if geometry.taps > _MOST_TAPS:
            return f"the kernel has {geometry.taps} taps, and it takes at most {_MOST_TAPS}"
        if (weights := geometry.taps * max(filters // geometry.groups, channels)) > _MOST_WEIGHTS:
            return f"{weights} weights meet an output or a cell, and it takes at most {_MOST_WEIGHTS}"
        if case.op == "backward_data" and phases > _PHASES:
            return f"the stride is {strides}, and this gradient needs a product of at most {_PHASES}"
        return _space_to_batch.reason(geometry) or _excess(case)

    def plan(self, case: Case) -> Plan:
        """Return a plan for tiles of the image, or of the parts of a dilated image."""
        batching = _space_to_batch.SpaceToBatchGeometry.of(case.geometry)
        return self._undilated(case) if batching is None else DilatedPlan(case, batching, self._undilated)

    def _undilated(self, case: Case) -> Plan:
        return WinogradPlan(case, self.points, self.taps)


class WinogradPlan(Plan):
    """One call of a kernel for an undilated image."""

    uses_transforms = True

    def __init__(self, case: Case, points: tuple[int, ...], taps: tuple[int, int] | None) -> None:
        super().__init__(case)
        self.tiles = cheapest_tiles(case, points, taps)
        #: The bytes that a plain copy moves in the time of the call, for `_threads.share`.
        self.copied = int(self.tiles.work["product"] * case.threads * _isa.BYTES_PER_OPERATION)
        self.kernel = _ext.weights if case.op == "backward_weights" else _ext.product

    def __str__(self) -> str:
        return Winograd.name

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the workspaces of all threads, and of the partial sums of dw.

        The workspace of a thread holds a block of the image, and at each point the block, the weights and the products.
        """
        case, tiles = self.case, self.tiles
        partial = math.prod(case.geometry.w_shape) * (tiles.parts if tiles.parts > 1 else 0)
        return (min(case.threads, tiles.items) * tiles.space + partial) * case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the products, of the transforms, and of memory."""
        return self.tiles.work

    def run(
        self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray
    ) -> np.ndarray | None:
        """Run the kernel, which adds the bias as it transforms tiles back."""
        if self.case.op == "backward_weights":
            return self._sum_weights(first, second, result)
        bias = result.reshape(-1)[:0] if third is None else third
        return self._call(first, second.reshape(-1), bias, result.reshape(-1))

    def _sum_weights(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> np.ndarray | None:
        """Compute dw. If dw is small, threads share the tiles, and each thread sums its tiles into a dw of its own."""
        count = self.tiles.parts
        parts = dw.reshape(1, -1) if count == 1 else _memory.empty((count, dw.size), dw.dtype)
        counts = self._call(x, dout.reshape(-1), parts)
        if count > 1:
            with np.errstate(all="ignore"):
                np.sum(parts, axis=0, out=dw.reshape(-1))
            # The sum of finite gradients may overflow.
            return None if np.isfinite(dw).all() else np.ones(1, np.intp)
        return counts

    def _call(self, source: np.ndarray, *arrays: np.ndarray) -> np.ndarray | None:
        """Call the kernel. Returns None if the result is finite, else the number of infs and NaNs of each image."""
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


class DilatedPlan(Plan):
    """A dilated convolution by `wrappers.SpaceToBatch`, whose plans are made at the first run.

    `work` counts all images at once, because the rates were fitted to such counts.
    """

    uses_transforms = True

    def __init__(self, case: Case, batching: _space_to_batch.SpaceToBatchGeometry, make: wrappers.Make) -> None:
        super().__init__(case)
        self.batching, self.make = batching, make

    @cached_property
    def plan(self) -> Plan:
        """The plan that splits and convolves some images at a time."""
        return wrappers.space_to_batch(self.case, self.make)

    def __str__(self) -> str:
        return str(self.plan)

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the parts of the images that are split at a time, and the workspace of their plan."""
        inner = self.make(self.case.with_geometry(self.batching.geometry))
        return self.batching.held(self.case.dtype.itemsize) + inner.workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of convolving the parts of all images at once, and of copying the parts."""
        batching, images = self.batching, self.case.geometry.x_shape[0]
        work = self.make(self.case.with_geometry(batching.part(images))).work
        copied = _COPY * batching.copied(self.case.dtype.itemsize) + _PART * batching.parts * ceil_div(
            images, batching.images
        )
        return {**work, "bytes": work["bytes"] + copied}

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the plan that splits the images."""
        return self.plan.run(first, second, third, result)


def _excess(case: Case) -> str | None:
    """Return why a case is refused, or None if it is not.

    A case is refused if transforms and products take many times the operations of sums of products.
    """
    geometry, lanes = case.geometry, _shape.shape(_arrays.DTYPES[case.dtype], case.isa)[2]
    filters, channels = geometry.w_shape[0] // geometry.groups, geometry.w_shape[1]
    most = max(math.prod(geometry.x_shape) * filters, math.prod(geometry.out_shape) * channels) * geometry.taps
    # A transform takes at most some 64 operations for each tap and lane.
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
        f"its transforms and products take {operations} operations on vectors, and sums of products {direct}; "
        "with so few channels or filters ask for 'implicit', 'fft' or 'auto'"
    )
