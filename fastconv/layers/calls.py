"""Resolved calls, which are stored so that later calls with equal shapes, dtype and options need no checks.

A resolved call has the geometry, the options and the plan of a call of a layer. Tables of resolved calls are keyed by
the shapes and the dtype of the arrays, and by the options.
"""

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
    """The interface of the plans that a `Call` stores. ``str(plan)`` is the name of the kernel."""

    @property
    def run(self) -> Callable[..., Any]: ...


#: The resolved calls of a function. There is a table for each pair of default number of threads and instruction set.
Calls = dict[tuple[int, int], CallCache]


def call_table() -> Calls:
    """Return an empty `Calls`."""
    return defaultdict(lambda: CallCache(np.ndarray, (*_arrays.DTYPES,), 512))


def current(calls: Calls) -> CallCache:
    """Return the table for the current default number of threads and the instruction set in use."""
    return calls[_threads.get_threads(), _isa.current]


def plain_options(param: Any, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options if all are in `param` or all are in `options`. Return None if both have to be merged."""
    if param is None:
        return options
    return param if type(param) is dict and not options else None


class Call(Generic[_Geometry]):
    """A resolved call: its geometry, its options, and its plan, which `resolve_plan` makes in the first run.

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
        """Return the plan, and store it if later calls may use it."""
        if self.plan is not None:
            return self.plan
        plan = self._make_plan(self.geometry, dtype, self.option, _threads.resolve(self.threads))
        if self.may_store(plan):
            self.plan, self.run = plan, plan.run
        return plan

    def may_store(self, plan: Any) -> bool:
        """Return whether later calls may use the plan.

        They may not if `threads` is negative, because the number of threads then depends on the number of CPUs.
        """
        return self.threads is None or self.threads > 0
