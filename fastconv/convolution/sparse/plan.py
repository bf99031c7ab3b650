"""The plans of `sparse`: one for each op, and one for the product of a stride phase of dx."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv._ext.sparse import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import add_bias
from fastconv.convolution.blocking import Problem, ceil_div, covers, problem_kinds, problems
from fastconv.convolution.cost.model import memory
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.sparse.tables import LINE, SparseTables, sizes_of, tables_for
from fastconv.convolution.sparse.tiling import USUAL_DENSITY
from fastconv.convolution.taps import data_by_taps
from fastconv.convolution.wrappers import Phase, Phases
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import is_large

#: The step that a call of the compiled kernel takes: list the nonzero weights, multiply by them, compute dot products,
#: or copy the dot products to dw.
_LIST, _MULTIPLY, _DOT, _SCATTER = range(4)


def _whole_work(case: Case, amounts: Mapping[str, float]) -> dict[str, float]:
    """Return the work of an op: `amounts`, and the work of reading and writing memory.

    The amount "product" is multiplied by the density, because only nonzero weights are multiplied.
    """
    total_bytes = memory(case.geometry, case.dtype, case.threads)
    return {**total_bytes, **amounts, "product": case.density * amounts.get("product", 0.0)}


class SparsePlan(Plan):
    """The base class of all plans of `sparse`."""

    algorithm = "sparse"
    exploits_sparsity = True


class SparseProduct(SparsePlan):
    """Computes one product of weights and images: the forward op, dw, or one stride phase of dx.

    The rows of weights are divided into row blocks. The compiled kernel processes a few row blocks at a time: it first
    lists their nonzero weights, and then multiplies by them.
    """

    steps: tuple[int, ...] = _LIST, _MULTIPLY

    def __init__(self, case: Case, phase: tuple[Problem, SparseTables] | None = None, keep: bool = True) -> None:
        super().__init__(case)
        self._of_phase, self._keep = phase, keep
        self._phase: tuple[tuple[np.ndarray, ...], np.ndarray] | None = None

    @cached_property
    def problem(self) -> Problem:
        """The sizes and offsets of the product, which is one stride phase of dx or the whole op."""
        if self._of_phase is not None:
            return self._of_phase[0]
        (problem,) = problems(self.case.op, self.case.geometry)
        return problem

    @cached_property
    def tables(self) -> SparseTables:
        """The tables of the product, which include the sizes of blocks and lists."""
        if self._of_phase is not None:
            return self._of_phase[1]
        case = self.case
        return tables_for(sizes_of(self.problem), case.dtype, case.threads, case.isa, dots=_DOT in self.steps)

    @cached_property
    def _workers(self) -> int:
        tables = self.tables
        return max(1, min(self.case.threads, max(tables.units, tables.blocks * tables.row_blocks)))

    @cached_property
    def _lists(self) -> int:
        return self.tables.row_blocks_at_once * self.tables.list_bytes

    @cached_property
    def _shape(self) -> tuple[int]:
        return (self._lists + self._workers * self.tables.space + LINE,)

    @cached_property
    def _calls(self) -> list[tuple[int, int, int, int, int]]:
        return list(self._planned_calls())

    def _planned_calls(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield five arguments of each call of the compiled kernel.

        The arguments are the step (such as `_LIST`), the first row block, the number of row blocks, the number of work
        items, and the estimated time. The time is given as the number of bytes that a plain copy moves in that time.

        The lists of weights of one call take at most `LISTS_BYTES` bytes, unless the call has only one row block.
        """
        tables = self.tables
        product = (tables.product * USUAL_DENSITY + tables.overhead) * _isa.BYTES_PER_OPERATION
        for first in range(0, tables.row_blocks, tables.row_blocks_at_once):
            row_blocks = min(tables.row_blocks_at_once, tables.row_blocks - first)
            for step in self.steps:
                items, work = (tables.parts or tables.blocks) * row_blocks, product
                if step in (_LIST, _SCATTER):
                    items, work = (
                        tables.units * row_blocks // tables.row_blocks,
                        tables.weights * self.case.dtype.itemsize,
                    )
                yield step, first, row_blocks, items, int(work * row_blocks / tables.row_blocks)

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the lists of weights, and of the workspaces of all threads.

        The workspace of a thread holds a padded block, a copy of the block that is arranged in vector lanes, and sums.
        """
        return self._lists + self.case.threads * self.tables.space + LINE

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the product, without the work of reading and writing memory."""
        return self._amounts()

    def _amounts(self) -> dict[str, float]:
        """Return the work of the product.

        `product` is the number of vector operations of the products if no weight is zero. `overhead` is the number of
        all other vector operations. `weights` is the number of weights that are compared with zero.
        """
        tables, threads = self.tables, self.case.threads
        items = tables.row_blocks * (tables.parts or tables.blocks)
        part = ceil_div(items, threads) / items
        return {
            "call": 1.0,
            "product": part * tables.product,
            "overhead": part * tables.overhead,
            "weights": tables.weights / threads,
        }

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the result, including the bias."""
        self._run(first, second, third, {_LIST: result, _MULTIPLY: result})

    def _run(self, source: np.ndarray, w: np.ndarray, bias: np.ndarray | None, results: dict[int, np.ndarray]) -> None:
        """Make all calls of the compiled kernel. For step `step`, such as `_LIST`, the kernel gets the array
        ``results[step]``.
        """
        arrays, weight_at = self._phase or self._tables_of_phase()
        tables, dtype, isa = self.tables, _arrays.DTYPES[self.case.dtype], self.case.isa
        with _workspace.workspace("lists of weights", self._shape, np.dtype(np.uint8)) as space:
            for step, first, row_blocks, items, work in self._calls:
                _threads.share(
                    _ext.product,
                    (
                        *(dtype, source, w, bias, results[step], *arrays, space, self._lists, tables.space),
                        *(first, row_blocks, weight_at, tables.parts, step, isa),
                    ),
                    items=items,
                    work=work,
                    threads=self._workers,
                )

    def _tables_of_phase(self) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Make the tables of the product, and store them if they are small.

        The first run makes the tables, because most plans are only compared by cost and never run. Large tables are not
        stored, and each run makes them again.
        """
        made = self.tables.of_phase(self.problem)
        if self._keep and not is_large(_phase_bytes(self.problem, self.tables)):
            self._phase = made
        return made


def _phase_bytes(problem: Problem, tables: SparseTables) -> int:
    """Return the number of bytes of the tables that `SparseProduct` makes for one product."""
    return 4 * tables.channels * (math.prod(problem.kernel) + tables.channel_pitch * tables.dots)


class SparseForward(SparseProduct):
    """Computes the forward op as one product."""

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the product, and of reading and writing memory."""
        return _whole_work(self.case, self._amounts())


class SparseWeightGradient(SparseProduct):
    """Computes the gradients of the nonzero weights. Each gradient is a dot product of dout with the image elements
    that the tap of the weight reads.

    The blocks of outputs are divided into parts, and each part has its own partial sums. So the result does not depend
    on which thread computes a part.
    """

    masks = True
    steps = _LIST, _DOT, _SCATTER

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the dot products, and of reading and writing memory."""
        return _whole_work(self.case, self._amounts())

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the gradients of nonzero weights, and set the gradients of zero weights to zero."""
        if third is None:
            raise ValueError("backward_weights by 'sparse' needs the weights as a mask in argument third, got None")
        result.fill(0)
        self._run(first, third, None, {_LIST: second, _DOT: second, _SCATTER: result})


class SparseGradient(SparsePlan):
    """Computes the gradient of the image, with one product for each stride phase.

    The products also multiply weights by the padding of dout. If a weight is an infinity or NaN, its product with zero
    is NaN. dx is then computed again, one tap at a time, without padding.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        geometry = case.geometry
        self._checks = not geometry.pointwise
        # The index of the first element of each stride phase of dx, in all channels of image 0. If a weight is not
        # finite, at least one of these elements is inf or NaN.
        self._first: Any = (0, slice(None), *(slice(axis.row()[2]) for axis in geometry.axes))

    def __str__(self) -> str:
        return str(self.plan)

    @cached_property
    def plan(self) -> Plan:
        """The plan that computes the products of all stride phases."""
        return _stride_phases(self.case)

    @cached_property
    def workspace_bytes(self) -> int:
        """The largest workspace, in bytes, of the products."""
        return self.plan.workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the products, and of reading and writing memory."""
        return _whole_work(self.case, {"call": 0.0, **self.plan.work})

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute dx. The bias is added last."""
        self.plan.run(first, second, None, result)
        if self._checks and not np.isfinite(result[self._first]).all() and not np.isfinite(second).all():
            data_by_taps(self.case, first, second, None, result, SparseGradient)
        add_bias(third, result)


def _stride_phases(case: Case) -> Plan:
    """Return a plan that computes one product for each stride phase of dx.

    There may be as many stride phases as taps, but only a few different sizes. Stride phases of equal sizes share
    tables.
    """
    found: dict[Problem, tuple[SparseProduct, int]] = {}
    for problem, count in problem_kinds(case.op, case.geometry):
        sizes = sizes_of(problem)
        if sizes not in found:
            tables = tables_for(sizes, case.dtype, case.threads, case.isa)
            found[sizes] = SparseProduct(case, (problem, tables)), 0
        plan, before = found[sizes]
        found[sizes] = plan, before + count
    covered = covers(case.geometry)
    kinds = [Phase(plan, times=count) for plan, count in found.values()]
    if covered and [phase.times for phase in kinds] == [1]:
        return kinds[0].plan
    nbytes = sum(count * _phase_bytes(plan.problem, plan.tables) for plan, count in found.values())
    each = _EachPhase(case, {sizes: plan.tables for sizes, (plan, _) in found.items()}, not is_large(nbytes))
    return Phases(case, kinds, gaps=not covered, each=each)


class _EachPhase:
    """An iterable of the plans of all stride phases.

    The first run makes the plans, because most plans are only compared by cost and never run. If their tables are
    large, each run makes the plans again, one at a time.
    """

    def __init__(self, case: Case, tables: Mapping[Problem, SparseTables], keep: bool) -> None:
        self._case, self._tables, self._keep = case, tables, keep
        self._made: list[Phase] | None = None

    def __iter__(self) -> Iterator[Phase]:
        if self._made is None and self._keep:
            self._made = list(self._make())
        return self._make() if self._made is None else iter(self._made)

    def _make(self) -> Iterator[Phase]:
        case = self._case
        for problem in problems(case.op, case.geometry):
            yield Phase(SparseProduct(case, (problem, self._tables[sizes_of(problem)]), self._keep))
