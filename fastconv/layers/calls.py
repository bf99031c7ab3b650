"""Resolved calls, by the shapes and dtype of their arrays and by their options, ready to run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from fastconv._ext.call_cache import CallCache
from fastconv.checks import arrays as _arrays
from fastconv.runtime import threads as _threads

_Geometry = TypeVar("_Geometry")
#: Writes a result, its last argument.
Run = Callable[..., Any]

#: Calls of a layer, by the default number of threads and the instruction set that they were planned for.
Calls = dict[tuple[int, int], CallCache]


def call_table() -> Calls:
    """An empty table."""
    return defaultdict(lambda: CallCache(np.ndarray, (*_arrays.DTYPES,), 512))


class Call(Generic[_Geometry]):
    """A resolved call: its geometry and options, and after the first run what runs it."""

    __slots__ = "_make", "algorithm", "geometry", "run", "threads"

    def __init__(
        self,
        geometry: _Geometry,
        algorithm: str,
        threads: int | None,
        make: Callable[[_Geometry, np.dtype, str, int], Run],
    ) -> None:
        self.geometry, self.algorithm, self.threads, self._make = geometry, algorithm, threads, make
        self.run: Run | None = None

    def resolve_run(self, dtype: np.dtype) -> Run:
        """`run`; not kept if the number of threads depends on the CPUs that there are now."""
        if self.run is not None:
            return self.run
        run = self._make(self.geometry, dtype, self.algorithm, _threads.resolve(self.threads))
        if self.threads is None or self.threads > 0:
            self.run = run
        return run
