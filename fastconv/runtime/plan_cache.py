"""A cache of bounded size for the geometries, plans and tables that calls share. It drops the least recently used
entries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")

#: The largest numbers of entries of the two caches. A layer plans about ten algorithms for each of three ops, so these
#: numbers suffice for networks of a hundred layers.
_MOST, _MOST_SIZED = 4096, 1024
#: The largest size of a cached result, in bytes. Larger results are made on every call, because hundreds of them would
#: take too much memory.
_MOST_BYTES = 1 << 19


def is_large(nbytes: int) -> bool:
    """Return whether a result of `nbytes` bytes is too large for the cache."""
    return nbytes > _MOST_BYTES


class _LargeError(Exception):
    """Carries a result that is too large out of `lru_cache`, which stores nothing if the function raises."""

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
    """A cache of functions of immutable arguments, such as geometries, dtypes and numbers of threads.

    ``find(make, *arguments)`` returns ``make(*arguments)``, which it computes once. ``find_typed`` does the same for
    arguments that have not been checked. There, equal arguments of different types, such as 1 and True, have different
    entries, because `make` may refuse one of them.
    """

    def __init__(self, most: int = _MOST, most_sized: int = _MOST_SIZED) -> None:
        self.find: _Find = functools.lru_cache(most)(_call)
        self.find_typed: _Find = functools.lru_cache(most, typed=True)(_call)
        self._sized = functools.lru_cache(most_sized)(_call_sized)

    def find_sized(self, nbytes: Callable[[_T], int], make: Callable[..., _T], *arguments: Hashable) -> _T:
        """Return ``make(*arguments)``. The result is cached unless ``nbytes(result)`` is too large."""
        try:
            found: _T = self._sized(nbytes, make, *arguments)
        except _LargeError as large:
            found = large.found
        return found

    def clear(self) -> None:
        """Drop all entries. This is needed after block sizes or rates have changed."""
        self.find.cache_clear()
        self.find_typed.cache_clear()
        self._sized.cache_clear()


#: The cache that all of fastconv uses.
plans = PlanCache()
