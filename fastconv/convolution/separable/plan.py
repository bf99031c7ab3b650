"""The plan of `separable`, for the forward op and the gradient of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from fastconv._ext.separable import separable as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import per_channel
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.separable.factors import factors_of, lifted_kernel
from fastconv.convolution.separable.tables import SeparableTables, border_of, tables_for
from fastconv.runtime import threads as _threads, workspace as _workspace

#: The time to compute one element of a factor, relative to the time to compare a weight with a product of factors.
_ENTRY = 10


class SeparablePlan(Plan):
    """Computes the factors of the weights, and calls the compiled kernel once."""

    algorithm = "separable"
    uses_transforms = needs_rank_one = True

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.kernel = lifted_kernel(case.geometry)
        # In a forward op, the compiled kernel may support the padding mode. The image is then not padded first.
        self.reads_borders = border_of(case.op, case.geometry) > 0

    @cached_property
    def tables(self) -> SeparableTables | None:
        """The tables of the compiled kernel, or None if every output reads only padding."""
        case = self.case
        return tables_for(case.op, case.geometry, case.dtype, case.threads, case.isa)

    @cached_property
    def order(self) -> np.ndarray:
        """The order in which the compiled kernel reads the factors."""
        return np.empty(0, np.intp) if self.tables is None else self.tables.order

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """The shape of the workspace: the number of threads, and the number of elements for each thread."""
        return (0, 0) if self.tables is None else (min(self.case.threads, self.tables.items), self.tables.space)

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
        tables, case = self.tables, self.case
        if tables is None:
            return {"call": 1}
        part = _counts.largest_share(tables.items, tables.copied, case.threads)
        return {
            "down": tables.down * part / tables.lanes,
            "across": tables.across * part / tables.lanes,
            "rows": tables.rows * part,
            "woven": tables.single_cells * part,
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
        tables = self.tables
        factors = factors_of(second, self.kernel, self.order)
        if tables is None or not tables.covers:  # the compiled kernel does not write all results
            result[...] = 0 if third is None else per_channel(third, self.case.geometry)
        if tables is None:
            return None
        counts = bytearray(8 * len(result))
        with _workspace.workspace("rows of sums", self._shape, result.dtype) as space:
            _threads.share(
                _ext.convolve,
                (
                    *(_arrays.DTYPES[result.dtype], first, factors, third, result),
                    *(*tables.arrays, space, counts, tables.isa),
                ),
                items=tables.items,
                work=tables.copied,
                threads=self.case.threads,
            )
        return np.frombuffer(counts, np.intp) if counts.strip(b"\0") else None
