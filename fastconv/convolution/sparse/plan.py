"""The plans of `sparse`: a product, the stride phases of a gradient of the image, and a gradient of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv._ext import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import add_bias
from fastconv.convolution.blocking import Problem, ceil_div, covers, problem_kinds, problems
from fastconv.convolution.cost.model import memory
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.sparse.tables import LINE, Tables, sizes_of, tables_for
from fastconv.convolution.sparse.tiling import USUAL_DENSITY
from fastconv.convolution.taps import data_by_taps
from fastconv.convolution.wrappers import Phase, Phases, Wrapper
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import is_large

#: The steps of a call: list the nonzero weights, multiply, compute dot products, and copy the dot products to dw.
_LIST, _MULTIPLY, _DOT, _SCATTER = range(4)


def _whole_work(case: Case, amounts: Mapping[str, float]) -> dict[str, float]:
    """Return the work of an op: `amounts`, and access to memory.

    The amount of products is multiplied by the density, because only nonzero weights take time.
    """
    total_bytes = memory(case.geometry, case.dtype, case.threads)
    return {**total_bytes, **amounts, "product": case.density * amounts.get("product", 0.0)}


class SparseProduct(Plan):
    """The product of a problem: a stride phase of dx, or the base of the plans of the other ops.

    A row block is a number of rows of weights. Their nonzero weights are listed together, and multiplied together.
    """

    steps: tuple[int, ...] = _LIST, _MULTIPLY

    def __init__(self, case: Case, problem: Problem, tables: Tables, keep: bool = True) -> None:
        super().__init__(case)
        self.problem, self.tables, self._keep = problem, tables, keep
        self._phase: tuple[tuple[np.ndarray, ...], np.ndarray] | None = None
        self._workers = max(1, min(case.threads, max(tables.units, tables.blocks * tables.row_blocks)))
        self._lists = tables.row_blocks_at_once * tables.list_bytes
        self._shape = (self._lists + self._workers * tables.space + LINE,)
        self._calls = list(self._planned_calls())

    def __str__(self) -> str:
        return "sparse"

    def _planned_calls(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield for each call of the kernel the step, the first row block, and the numbers of row blocks, items and
        bytes of work.

        The lists of the row blocks of one call fit `LISTS_BYTES`, if the call has more than one row block.
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
        """The bytes of the lists, and for each thread of a padded block, its copy in lanes, and its sums."""
        return self._lists + self.case.threads * self.tables.space + LINE

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the product, without access to memory."""
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
        """Compute the result. The sums start with the bias."""
        self._run(first, second, third, {_LIST: result, _MULTIPLY: result})

    def _run(self, source: np.ndarray, w: np.ndarray, bias: np.ndarray | None, results: dict[int, np.ndarray]) -> None:
        """Call the kernel for each step. A step reads or writes the array ``results[step]``."""
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
        """Return the tables of the stride phase. They are made in the first run, because most plans are only compared.

        Large tables are not kept, so each run makes them again.
        """
        made = self.tables.of_phase(self.problem)
        if self._keep and not is_large(_phase_bytes(self.problem, self.tables)):
            self._phase = made
        return made


def _phase_bytes(problem: Problem, tables: Tables) -> int:
    """Return the bytes of the tables of a stride phase."""
    return 4 * tables.channels * (math.prod(problem.kernel) + tables.channel_pitch * tables.dots)


class SparseForward(SparseProduct):
    """The forward op: one product."""

    def __init__(self, case: Case) -> None:
        (problem,) = problems(case.op, case.geometry)
        super().__init__(case, problem, tables_for(sizes_of(problem), case.dtype, case.threads, case.isa))

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the product, and access to memory."""
        return _whole_work(self.case, self._amounts())


class SparseWeightGradient(SparseProduct):
    """The gradient of the nonzero weights: dot products of a tile of dout in registers with the cells of each tap.

    The blocks are divided into parts, each with its own sums, so the result does not depend on which thread computes
    a part.
    """

    masks = True
    steps = _LIST, _DOT, _SCATTER

    def __init__(self, case: Case) -> None:
        (problem,) = problems(case.op, case.geometry)
        super().__init__(case, problem, tables_for(sizes_of(problem), case.dtype, case.threads, case.isa, dots=True))

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the dot products, and access to memory."""
        return _whole_work(self.case, self._amounts())

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the gradients of nonzero weights, and set the gradients of zero weights to zero."""
        if third is None:
            raise NotImplementedError("sparse computes the gradient of nonzero weights only")
        result.fill(0)
        self._run(first, third, None, {_LIST: second, _DOT: second, _SCATTER: result})


class SparseGradient(Wrapper):
    """The gradient of the image: one product for each stride phase.

    A product also multiplies weights by zeros beyond the edges of dout. An infinity or NaN times zero is NaN, so if a
    weight is not finite, dx is computed again, one tap at a time.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(case, _stride_phases(case))
        geometry = case.geometry
        self._checks = not geometry.pointwise
        # A weight that is not finite makes the first result of its channel and stride phase not finite.
        self._first: Any = (0, slice(None), *(slice(axis.row()[2]) for axis in geometry.axes))

    def __str__(self) -> str:
        return str(self.plan)

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the products, and access to memory."""
        return _whole_work(self.case, {"call": 0.0, **self.plan.work})

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute dx. The bias is added last."""
        self.plan.run(first, second, None, result)
        if self._checks and not np.isfinite(result[self._first]).all() and not np.isfinite(second).all():
            data_by_taps(self.case, first, second, None, result, SparseGradient)
        add_bias(third, result)


def _stride_phases(case: Case) -> Plan:
    """Return a plan with a product for each stride phase.

    There may be one stride phase for each tap. Phases of the same sizes share their tables, and there are few sizes.
    """
    found: dict[Problem, tuple[SparseProduct, int]] = {}
    for problem, count in problem_kinds(case.op, case.geometry):
        sizes = sizes_of(problem)
        if sizes not in found:
            tables = tables_for(sizes, case.dtype, case.threads, case.isa)
            found[sizes] = SparseProduct(case, problem, tables), 0
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
    """All stride phases. They are made in the first run, because most plans are only compared.

    If their tables are large, each run makes the phases again, one after the other.
    """

    def __init__(self, case: Case, tables: Mapping[Problem, Tables], keep: bool) -> None:
        self._case, self._tables, self._keep = case, tables, keep
        self._made: list[Phase] | None = None

    def __iter__(self) -> Iterator[Phase]:
        if self._made is None and self._keep:
            self._made = list(self._make())
        return self._make() if self._made is None else iter(self._made)

    def _make(self) -> Iterator[Phase]:
        case = self._case
        for problem in problems(case.op, case.geometry):
            yield Phase(SparseProduct(case, problem, self._tables[sizes_of(problem)], self._keep))
