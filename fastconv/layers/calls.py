"""Resolved calls and their tables. The key of a call is the shapes and the dtype of its arrays, and its options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from fastconv._ext.call_cache import CallCache
from fastconv.checks import arrays as _arrays
from fastconv.runtime import isa as _isa, threads as _threads

_Geometry = TypeVar("_Geometry")


class Plan(Protocol):
    """The part of a plan that a call needs. ``str(plan)`` is the name of the kernel."""

    @property
    def run(self) -> Callable[..., Any]: ...


#: The tables of the resolved calls of a function: one table for each default number of threads and instruction set.
Calls = dict[tuple[int, int], CallCache]


def call_table() -> Calls:
    """Return an empty table."""
    return defaultdict(lambda: CallCache(np.ndarray, (*_arrays.DTYPES,), 512))


def current(calls: Calls) -> CallCache:
    """Return the calls that were planned for the default number of threads and the instruction set in use."""
    return calls[_threads.get_threads(), _isa.current]


def plain_options(param: Any, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options if they are all in `param` or all in `options`, else None, because they must be merged."""
    if param is None:
        return options
    return param if type(param) is dict and not options else None


class Call(Generic[_Geometry]):
    """A resolved call: its geometry and options, and its plan, which is made in the first run.

    Attributes
    ----------
    geometry
    option
        A further value for the cache of the layer: the algorithm of a convolution, or an option of a pooling.
    threads : int or None
        The number of threads as the caller gave it.
    plan, run
        The plan and its method `run`, or None before the first run.
    """

    __slots__ = "_make_plan", "geometry", "option", "plan", "run", "threads"

    def __init__(
        self,
        geometry: _Geometry,
        option: Any,
        threads: int | None,
        make_plan: Callable[[_Geometry, np.dtype, Any, int], Plan],
    ) -> None:
        self.geometry, self.option, self.threads, self._make_plan = geometry, option, threads, make_plan
        self.plan: Any = None
        self.run: Callable[..., Any] | None = None

    def resolve_plan(self, dtype: np.dtype) -> Any:
        """Return the plan. It is stored only if later calls may use it."""
        if self.plan is not None:
            return self.plan
        plan = self._make_plan(self.geometry, dtype, self.option, _threads.resolve(self.threads))
        if self.may_store(plan):
            self.plan, self.run = plan, plan.run
        return plan

    def may_store(self, plan: Any) -> bool:
        """Return whether later calls may use the plan. They may not if the number of threads depends on the CPUs."""
        return self.threads is None or self.threads > 0
