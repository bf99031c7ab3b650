"""The start of a call of a layer: find an equal earlier call, or check the arguments and make a plan.

All layers with plans start here, so that the steps and their order are the same everywhere: read the arrays, and look
up the call. If the call is not stored, check shapes and options, make the plan, and convert the arrays.
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

#: The largest number of calls that a table stores.
_MOST_CALLS = 512
_tables: list[dict[tuple[int, int], CallCache]] = []


class Runnable(Protocol):
    """The methods and attributes of a plan that a call needs. ``str(plan)`` is the name of the kernel.

    If the tables of a plan grow with the image, the attribute `nbytes` is the size of the tables in bytes.
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
        """If `dtype` is given, make the plan for arrays of this dtype now. Otherwise it is made when it is needed."""
        self.geometry, self.option, self.threads, self._make_plan = geometry, option, threads, make_plan
        self.plan: Any = None
        self.run: Callable[..., Any] | None = None
        if dtype is not None:
            self.plan = make_plan(geometry, dtype, option, _threads.resolve(threads))
            self.run = self.plan.run

    def find_plan(self, dtype: np.dtype) -> Any:
        """Return the plan of the call. If the call has no plan, make one."""
        if self.plan is not None:
            return self.plan
        call = Call(self.geometry, self.option, self.threads, self._make_plan, dtype)
        if call.may_store_plan():
            self.plan, self.run = call.plan, call.run
        return call.plan

    def may_store_plan(self) -> bool:
        """Return whether later calls may use the plan.

        A plan must not be used again if its number of threads depends on the number of CPUs at the time of the call. A
        plan with large tables must not be stored, because hundreds of calls are stored.
        """
        return (self.threads is None or self.threads > 0) and not is_large(getattr(self.plan, "nbytes", 0))

    def to_store(self) -> Call[_Geometry]:
        """Return the call itself, or a copy without its plan if the plan may not be stored."""
        if self.may_store_plan():
            return self
        return Call(self.geometry, self.option, self.threads, self._make_plan)


class Calls(Generic[_Call]):
    """The stored calls of one function, and the way to find or make one.

    A call is stored under the shapes and the dtype of its arrays and under its options: see `CallCache`.

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
        """Return the call, its arrays converted for the kernels, and its arrays before this conversion.

        `key` has the options that the call depends on, or is None if the call is not to be stored. If a call with equal
        options is stored, `settings` is not read.
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
    """Return the options if all are in `param` or all are in `options`. Return None if they must be merged."""
    if param is None:
        return options
    return param if type(param) is dict and not options else None


def clear() -> None:
    """Forget the stored calls of all layers, and all geometries and plans. Tests need this after they changed block
    sizes or rates.
    """
    for tables in _tables:
        tables.clear()
    plans.clear()
