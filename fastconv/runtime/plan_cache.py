"""An LRU cache of bounded size. It stores what calls with the same shapes and options have in common: checked sizes,
block sizes and tables of indices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")

#: The largest numbers of entries: `_MOST` for `PlanCache.find`, `_MOST_SIZED` for `PlanCache.find_sized`. A layer makes
#: about 30 entries: one for each of ten algorithms, in the forward pass and for the gradients dx and dw. So these
#: numbers suffice for networks of a hundred layers.
_MOST, _MOST_SIZED = 4096, 1024
#: The largest table that is cached, in bytes. Larger tables are computed in every call, because hundreds of large
#: tables would take too much memory.
_MOST_BYTES = 1 << 19


def is_large(nbytes: int) -> bool:
    """Return whether a table of `nbytes` bytes is too large for the cache."""
    return nbytes > _MOST_BYTES


class _LargeError(Exception):
    """Carries a result that is too large for the cache, because `lru_cache` stores nothing if a function raises."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found


def _call(make: Callable[..., Any], *arguments: Hashable) -> Any:
    return make(*arguments)


def _call_sized(nbytes: Callable[[Any], int], make: Callable[..., Any], *arguments: Hashable) -> Any:
    found = make(*arguments)
    if is_large(nbytes(found)):
        raise _LargeError(found)
    return found


class _Find(Protocol):
    def __call__(self, make: Callable[..., _T], /, *arguments: Hashable) -> _T: ...

    def cache_clear(self) -> None: ...


class PlanCache:
    """A cache of the results of functions whose arguments are hashable, such as shapes and dtypes.

    ``find(make, *arguments)`` computes ``make(*arguments)`` once, and returns the stored result in later calls.
    ``find_typed`` does the same for arguments that have not been checked. In `find_typed`, equal arguments of different
    types, such as 1 and True, have separate entries, because `make` may accept 1 and refuse True.
    """

    def __init__(self, most: int = _MOST, most_sized: int = _MOST_SIZED) -> None:
        self.find: _Find = functools.lru_cache(most)(_call)
        self.find_typed: _Find = functools.lru_cache(most, typed=True)(_call)
        self._sized = functools.lru_cache(most_sized)(_call_sized)

    def find_sized(self, nbytes: Callable[[_T], int], make: Callable[..., _T], *arguments: Hashable) -> _T:
        """Return ``make(*arguments)``. Store the result only if it is small. ``nbytes(result)`` is the size of the
        result in bytes.
        """
        try:
            found: _T = self._sized(nbytes, make, *arguments)
        except _LargeError as large:
            found = large.found
        return found

    def clear(self) -> None:
        """Drop all entries. Call this after a change of block sizes or measured times, because entries depend on
        them.
        """
        self.find.cache_clear()
        self.find_typed.cache_clear()
        self._sized.cache_clear()


#: The plan cache of the process.
plans = PlanCache()
