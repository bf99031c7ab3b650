"""The plan of `separable`, for the forward op and the gradient of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fastconv.convolution.base import per_channel
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.separable.factors import factors_of, lifted_kernel
from fastconv.convolution.separable.tables import TUNING, Prepared, Tuning, border_of, prepare
from fastconv.runtime import threads as _threads, workspace as _workspace

#: The time to compute one element of a factor, relative to the time to compare a weight with a product of factors.
_ENTRY = 10
#: The number of bytes of an index.
_INDEX_BYTES = np.dtype(np.intp).itemsize


class SeparablePlan(Plan):
    """Computes the factors of the weights, and runs one compiled plan."""

    algorithm = "separable"
    uses_transforms = needs_rank_one = True

    def __init__(self, case: Case, tuning: Tuning = TUNING) -> None:
        super().__init__(case)
        self.tuning = tuning
        self.kernel = lifted_kernel(case.geometry)
        # In a forward op, the compiled plan may support the padding mode. The image is then not padded first.
        self.reads_borders = border_of(case.op, case.geometry) != "zeros"

    @cached_property
    def prepared(self) -> Prepared | None:
        """The compiled plan, or None if every output reads only padding."""
        case = self.case
        return prepare(case.op, case.geometry, case.dtype, case.threads, case.isa, self.tuning)

    @cached_property
    def order(self) -> np.ndarray:
        """The order in which the compiled plan reads the factors."""
        return np.empty(0, np.intp) if self.prepared is None else self.prepared.order

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """The shape of the workspace: the number of threads, and the number of elements for each thread."""
        if self.prepared is None:
            return 0, 0
        compiled = self.prepared.compiled
        return min(self.case.threads, compiled.items), compiled.workspace

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the factors and of the workspaces of all threads.

        The workspace of a thread holds sums of a block: rows of sums along all axes but the last and, for volumes,
        planes of sums along depth.
        """
        filters = self.case.geometry.w_shape[0]
        return (math.prod(self._shape) + filters * len(self.order)) * self.case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amounts of work of the thread with the most work items.

        `down` is the number of vector multiply-adds along all axes but the last, and `across` the number along the last
        axis. `woven` is the number of elements that are copied one by one because of a stride. `weights` is the work to
        compute the factors.
        """
        prepared, case = self.prepared, self.case
        if prepared is None:
            return {"call": 1}
        part = _counts.largest_share(prepared.compiled.items, prepared.copied, case.threads)
        return {
            "down": prepared.down * part / prepared.lanes,
            "across": prepared.across * part / prepared.lanes,
            "rows": prepared.rows * part,
            "woven": prepared.single_cells * part,
            "weights": case.geometry.w_shape[0] * (math.prod(self.kernel) + _ENTRY * len(self.order)),
            **memory(case.geometry, case.dtype, case.threads),
            "call": 1,
        }

    def run(
        self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray
    ) -> np.ndarray | None:
        """Compute the result, including the bias. If the result is finite, return None. Otherwise, return the number of
        infs and NaNs of each image.

        Raises ValueError, before anything is written, if some kernel is not an outer product.
        """
        prepared = self.prepared
        factors = factors_of(second, self.kernel, self.order)
        if prepared is None or not prepared.covers:  # the compiled plan does not write all results
            result[...] = 0 if third is None else per_channel(third, self.case.geometry)
        if prepared is None:
            return None
        not_finite = bytearray(len(result) * _INDEX_BYTES)
        with _workspace.workspace("rows of sums", self._shape, result.dtype) as space:
            _threads.share(
                prepared.compiled.run,
                (first, factors, third, result, not_finite, space),
                items=prepared.compiled.items,
                work=prepared.copied,
                threads=self.case.threads,
            )
        return np.frombuffer(not_finite, np.intp) if not_finite.strip(b"\0") else None
