"""Stored calls of layers. A later call with equal shapes, dtype and options skips the checks, and reuses the plan.

A plan holds all that a kernel needs besides the arrays, such as block sizes and tables. Every layer that has plans
first looks up the call. If the call is not stored, the layer checks the shapes and the options, makes the plan, and
converts the arrays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from fastconv._ext.buffers.call_cache import CallCache
from fastconv.checks import arrays as _arrays
from fastconv.runtime import isa as _isa, threads as _threads
from fastconv.runtime.plan_cache import is_large, plans

_Geometry = TypeVar("_Geometry")
_Call = TypeVar("_Call", bound="Call[Any]")

#: The maximum number of stored calls of one function, for each default number of threads and each instruction set.
_MOST_CALLS = 512
_tables: list[dict[tuple[int, int], CallCache]] = []


class Runnable(Protocol):
    """The interface of a plan: its method `run`. ``str(plan)`` is the name of the kernel.

    A plan whose tables grow with the image also has the attribute `nbytes`, the size of the tables in bytes.
    """

    @property
    def run(self) -> Callable[..., Any]: ...


class Call(Generic[_Geometry]):
    """A call whose arguments have been checked: its geometry, its options and its plan.

    Attributes
    ----------
    geometry
    option
        A further value for the cache of the layer: the algorithm of a convolution, or an option of a pooling.
    threads : int or None
        The number of threads as the caller gave it.
    plan, run
        The plan of the forward pass and its method `run`. Both are None if the call is stored without a plan: see
        `may_store_plan`.
    """

    __slots__ = "_make_plan", "geometry", "option", "plan", "run", "threads"

    def __init__(
        self,
        geometry: _Geometry,
        option: Any,
        threads: int | None,
        make_plan: Callable[[_Geometry, np.dtype, Any, int], Runnable],
        dtype: np.dtype | None = None,
    ) -> None:
        """If `dtype` is given, make the plan now, for arrays of this dtype. Otherwise `find_plan` makes it later."""
        self.geometry, self.option, self.threads, self._make_plan = geometry, option, threads, make_plan
        self.plan: Any = None
        self.run: Callable[..., Any] | None = None
        if dtype is not None:
            self.plan = make_plan(geometry, dtype, option, _threads.resolve(threads))
            self.run = self.plan.run

    def find_plan(self, dtype: np.dtype) -> Any:
        """Return the plan of the call. If the call has no plan yet, make one."""
        if self.plan is not None:
            return self.plan
        call = Call(self.geometry, self.option, self.threads, self._make_plan, dtype)
        if call.may_store_plan():
            self.plan, self.run = call.plan, call.run
        return call.plan

    def may_store_plan(self) -> bool:
        """Return whether the plan may be stored for later calls.

        A plan is not stored if `threads` is negative. The number of threads then depends on the number of CPUs, which
        may change between calls. A plan with large tables is not stored, because there are hundreds of stored calls.
        """
        return (self.threads is None or self.threads > 0) and not is_large(getattr(self.plan, "nbytes", 0))

    def to_store(self) -> Call[_Geometry]:
        """Return the call itself, or a copy without the plan if the plan may not be stored."""
        if self.may_store_plan():
            return self
        return Call(self.geometry, self.option, self.threads, self._make_plan)


class Calls(Generic[_Call]):
    """The stored calls of one function. `find` returns a stored call, or makes a new one.

    The key of a stored call consists of its options, and of the shapes and the dtype of its arrays: see `CallCache`.

    Attributes
    ----------
    tables : dict
        The stored calls for each default number of threads and each instruction set.
    """

    __slots__ = "_hint", "_names", "_optional", "_resolve", "tables"

    def __init__(self, names: Sequence[str], resolve: Callable[..., _Call], *, optional: str = "", hint: str = ""):
        """Describe the function.

        Parameters
        ----------
        names : sequence of str
            The names of its arrays, for messages.
        resolve : callable
            ``resolve(dtype, *arrays, *settings)`` checks the shapes of the arrays and the settings of a call, and
            returns a `Call`. `dtype` is the dtype of the computation. The arrays have not been converted to it yet.
        optional, hint : str
            See `prepare_inputs`.
        """
        self._names, self._resolve, self._optional, self._hint = tuple(names), resolve, optional, hint
        self.tables: dict[tuple[int, int], CallCache]
        self.tables = defaultdict(lambda: CallCache(np.ndarray, (*_arrays.DTYPES,), _MOST_CALLS))
        _tables.append(self.tables)

    def find(
        self, arrays: tuple[Any, ...], key: dict[str, Any] | None, *settings: Any
    ) -> tuple[_Call, Sequence[Any], Sequence[Any]]:
        """Return the call, the arrays in the form that kernels read, and the arrays before this conversion.

        `key` is a dict of the options that the call depends on. If `key` is None, the call is neither looked up nor
        stored. `settings` are further arguments for `resolve`, which is called only if no stored call is found.
        """
        table = self.tables[_threads.get_threads(), _isa.current]
        if key is not None:
            call = table.get(arrays, key)
            if call is not None:
                return call, arrays, arrays

        def resolve(*arrays: Any) -> tuple[_Call, int | None]:
            call = self._resolve(_arrays.result_dtype(*arrays), *arrays, *settings)
            return call, call.threads

        given = dict(zip(self._names, arrays, strict=True))
        call, prepared, read = _arrays.prepare_inputs(resolve, self._hint, optional=self._optional, **given)
        if key is not None:
            table.put(tuple(read), key, call.to_store())
        return call, prepared, read


def plain_options(param: Any, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options of a call if all are in the dict `param`, or all are in `options`, the keyword arguments.
    Return None if the two must be merged.
    """
    if param is None:
        return options
    return param if type(param) is dict and not options else None


def clear() -> None:
    """Delete the stored calls of all layers, and all cached geometries and plans. Tests call this function after they
    change a constant that plans depend on, such as a block size.
    """
    for tables in _tables:
        tables.clear()
    plans.clear()
