"""Plans and tables that many calls share, in one cache of bounded size: the least recently used are dropped first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")

#: A layer plans some ten algorithms for each of three ops, so this is enough for networks of a hundred layers.
_MOST, _MOST_SIZED = 4096, 1024
#: Larger results are made anew on every call, because hundreds of them may be in the cache.
_MOST_BYTES = 1 << 19


def is_large(nbytes: int) -> bool:
    """Whether a result of so many bytes is made anew on every call."""
    return nbytes > _MOST_BYTES


class _LargeError(Exception):
    """Carries a result past the cache, which keeps nothing that raises."""

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
    """What functions made of immutable arguments: geometries, dtypes, threads, the index of an instruction set.

    ``find(make, *arguments)`` is ``make(*arguments)``, made once.
    """

    def __init__(self, most: int = _MOST, most_sized: int = _MOST_SIZED) -> None:
        self.find: _Find = functools.lru_cache(most)(_call)
        self._sized = functools.lru_cache(most_sized)(_call_sized)

    def find_sized(self, nbytes: Callable[[_T], int], make: Callable[..., _T], *arguments: Hashable) -> _T:
        """The same; on every call anew if the bytes of the result, which `nbytes` tells, are too many."""
        try:
            found: _T = self._sized(nbytes, make, *arguments)
        except _LargeError as large:
            found = large.found
        return found

    def clear(self) -> None:
        """Forget all, because sizes of blocks, or rates, are others now."""
        self.find.cache_clear()
        self._sized.cache_clear()


#: The one that fastconv uses.
plans = PlanCache()
