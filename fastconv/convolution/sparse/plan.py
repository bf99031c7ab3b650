"""The plans of `sparse`: one for each op, and one for the product of a stride phase of dx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastconv._ext.sparse import sparse as _ext
from fastconv.convolution.base import add_bias
from fastconv.convolution.blocking import Problem, ceil_div, covers, problem_kinds, problems
from fastconv.convolution.cost.model import memory
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.sparse.tables import SparseTables, sizes_of, tables_for
from fastconv.convolution.sparse.tiling import USUAL_DENSITY, Tuning
from fastconv.convolution.taps import data_by_taps
from fastconv.convolution.wrappers import Phase, Phases
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import is_large

_BYTE = np.dtype(np.uint8)


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


class SparseCall(NamedTuple):
    """What a run of `SparseProduct` needs besides the arrays of the caller.

    Threads first list nonzero weights, and then multiply by them. Each of these two steps has a number of work items
    and an estimated time. The time is given as the number of bytes that a plain copy moves in that time.
    """

    plan: _ext.ProductPlan
    list_items: int
    list_work: int
    items: int
    work: int


class SparseProduct(SparsePlan):
    """Computes one product of weights and images: the forward op, dw, or one stride phase of dx.

    The rows of weights are divided into row blocks. The compiled plan processes a few row blocks at a time: it first
    lists their nonzero weights, and then multiplies by them.
    """

    #: Whether the product is dw, which consists of dot products.
    dots = False

    def __init__(
        self, case: Case, tuning: Tuning, phase: tuple[Problem, SparseTables] | None = None, keep: bool = True
    ) -> None:
        super().__init__(case)
        self._tuning, self._of_phase, self._keep = tuning, phase, keep
        self._call: SparseCall | None = None

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
        return tables_for(sizes_of(self.problem), case.dtype, case.threads, case.isa, self.dots, self._tuning)

    @property
    def workspace_bytes(self) -> int:
        """The bytes of the lists of weights, and of the scratchpads of all threads.

        The scratchpad of a thread holds a padded block, a copy of the block that is arranged in vector lanes, and sums.
        """
        return self.tables.workspace

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
        call = self._call or self._make_call()
        with _workspace.workspace("lists of weights", (self.tables.workspace,), _BYTE) as space:
            call.plan.run(first, second, third, result, space, *self._queues(call))

    def _queues(self, call: SparseCall) -> tuple[bytearray | None, bytearray | None]:
        """Return the queues from which threads take work while they list weights, and while they multiply."""
        workers = self.tables.workers
        return (
            _threads.work_queue(call.list_items, call.list_work, workers),
            _threads.work_queue(call.items, call.work, workers),
        )

    def _make_call(self) -> SparseCall:
        """Make the compiled plan, and store it if its arrays are small.

        The first run makes the plan, because most plans are only compared by cost and never run. A plan with large
        arrays is not stored, and each run makes it again.
        """
        tables, problem = self.tables, self.problem
        plan = tables.plan_of(problem, self.case.isa)
        product = (tables.product * USUAL_DENSITY + tables.overhead) * _isa.BYTES_PER_OPERATION
        call = SparseCall(
            plan,
            list_items=tables.units * plan.row_blocks_at_once // tables.row_blocks,
            list_work=tables.weights * self.case.dtype.itemsize,
            items=(tables.parts or tables.blocks) * plan.row_blocks_at_once,
            work=int(product),
        )
        if self._keep and not is_large(tables.plan_bytes(problem)):
            self._call = call
        return call


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
    dots = True

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the dot products, and of reading and writing memory."""
        return _whole_work(self.case, self._amounts())

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the gradients of nonzero weights, and set the gradients of zero weights to zero."""
        if third is None:
            raise ValueError("backward_weights by 'sparse' needs the weights as a mask in argument third, got None")
        result.fill(0)
        call = self._call or self._make_call()
        with _workspace.workspace("lists of weights", (self.tables.workspace,), _BYTE) as space:
            call.plan.run_gradient(first, second, third, result, space, *self._queues(call))


class SparseGradient(SparsePlan):
    """Computes the gradient of the image, with one product for each stride phase.

    The products also multiply weights by the padding of dout. If a weight is an infinity or NaN, its product with zero
    is NaN. dx is then computed again, one tap at a time, without padding.
    """

    def __init__(self, case: Case, tuning: Tuning) -> None:
        super().__init__(case)
        self._tuning = tuning
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
        return _stride_phases(self.case, self._tuning)

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
            data_by_taps(self.case, first, second, None, result, lambda case: SparseGradient(case, self._tuning))
        add_bias(third, result)


def _stride_phases(case: Case, tuning: Tuning) -> Plan:
    """Return a plan that computes one product for each stride phase of dx.

    There may be as many stride phases as taps, but only a few different sizes. Stride phases of equal sizes share
    tables.
    """
    found: dict[Problem, tuple[SparseProduct, int]] = {}
    for problem, count in problem_kinds(case.op, case.geometry):
        sizes = sizes_of(problem)
        if sizes not in found:
            tables = tables_for(sizes, case.dtype, case.threads, case.isa, tuning=tuning)
            found[sizes] = SparseProduct(case, tuning, (problem, tables)), 0
        plan, before = found[sizes]
        found[sizes] = plan, before + count
    covered = covers(case.geometry)
    kinds = [Phase(plan, times=count) for plan, count in found.values()]
    if covered and [phase.times for phase in kinds] == [1]:
        return kinds[0].plan
    nbytes = sum(count * plan.tables.plan_bytes(plan.problem) for plan, count in found.values())
    each = _EachPhase(case, tuning, {sizes: plan.tables for sizes, (plan, _) in found.items()}, not is_large(nbytes))
    return Phases(case, kinds, gaps=not covered, each=each)


class _EachPhase:
    """An iterable of the plans of all stride phases.

    The first run makes the plans, because most plans are only compared by cost and never run. If their tables are
    large, each run makes the plans again, one at a time.
    """

    def __init__(self, case: Case, tuning: Tuning, tables: Mapping[Problem, SparseTables], keep: bool) -> None:
        self._case, self._tuning, self._tables, self._keep = case, tuning, tables, keep
        self._made: list[Phase] | None = None

    def __iter__(self) -> Iterator[Phase]:
        if self._made is None and self._keep:
            self._made = list(self._make())
        return self._make() if self._made is None else iter(self._made)

    def _make(self) -> Iterator[Phase]:
        case = self._case
        for problem in problems(case.op, case.geometry):
            phase = problem, self._tables[sizes_of(problem)]
            yield Phase(SparseProduct(case, self._tuning, phase, self._keep))
