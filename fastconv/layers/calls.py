"""Resolved calls, by the shapes and dtype of their arrays and by their options, ready to run."""

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
    """What runs a call; its text names the kernel."""

    @property
    def run(self) -> Callable[..., Any]: ...


#: Calls of a function, by the default number of threads and the instruction set that they were planned for.
Calls = dict[tuple[int, int], CallCache]


def call_table() -> Calls:
    """An empty table."""
    return defaultdict(lambda: CallCache(np.ndarray, (*_arrays.DTYPES,), 512))


def current(calls: Calls) -> CallCache:
    """The calls that were planned for the default number of threads and the instruction set in use."""
    return calls[_threads.get_threads(), _isa.current]


def plain_options(param: Any, options: dict[str, Any]) -> dict[str, Any] | None:
    """The options, if they are given in one way; None if they have to be merged, or refused."""
    if param is None:
        return options
    return param if type(param) is dict and not options else None


class Call(Generic[_Geometry]):
    """A resolved call: its geometry and options, and the plan that runs it, made when it first runs.

    Attributes
    ----------
    geometry
    option
        What the cache of the layer holds beside: the algorithm of a convolution, or an option of a pooling.
    threads : int or None
        As given.
    plan, run
        The plan and its method; None until the first run.
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
        """`plan`; made on each call if it may be another on the next."""
        if self.plan is not None:
            return self.plan
        plan = self._make_plan(self.geometry, dtype, self.option, _threads.resolve(self.threads))
        if self.may_store(plan):
            self.plan, self.run = plan, plan.run
        return plan

    def may_store(self, plan: Any) -> bool:
        """Whether later calls may use the plan: not if the number of threads depends on the CPUs that there are."""
        return self.threads is None or self.threads > 0
