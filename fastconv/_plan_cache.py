"""Plans and tables that many calls share, in one cache of bounded size: the least recently used are dropped first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar

_T = TypeVar("_T")

#: A layer plans some ten algorithms for each of three ops, so this is enough for networks of a hundred layers.
_MOST = 4096
#: Results of more bytes are few, and those of still more are made anew on every call.
_SMALL_BYTES, _MOST_LARGE, _MOST_BYTES = 1 << 14, 128, 1 << 19


def is_large(nbytes: int) -> bool:
    """Whether a result of so many bytes is made anew on every call."""
    return nbytes > _MOST_BYTES


class PlanCache:
    """What functions made of immutable arguments: geometries, dtypes, threads, the index of an instruction set.

    No lock is needed, because every step is one operation of a dictionary. Threads that miss at the same time make the
    same result twice.
    """

    def __init__(self, most: int = _MOST, most_large: int = _MOST_LARGE) -> None:
        self._most, self._most_large = most, most_large
        self._small: OrderedDict[tuple[Hashable, ...], Any] = OrderedDict()
        self._large: OrderedDict[tuple[Hashable, ...], Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    def find(self, make: Callable[..., _T], *arguments: Hashable, nbytes: Callable[[_T], int] | None = None) -> _T:
        """``make(*arguments)``, made once; on every call where `nbytes` of it are too many: see `is_large`."""
        key = make, *arguments
        among = self._small
        try:
            found: _T = among[key]
        except KeyError:
            among = self._large
            if nbytes is None or key not in among:
                return self._make(key, nbytes)
            found = among[key]
        with suppress(KeyError):  # another thread may just have dropped it
            among.move_to_end(key)
        return found

    def _make(self, key: tuple[Any, ...], nbytes: Callable[[_T], int] | None) -> _T:
        make, *arguments = key
        found: _T = make(*arguments)
        size = 0 if nbytes is None else nbytes(found)
        if not is_large(size):
            into, most = (self._small, self._most) if size <= _SMALL_BYTES else (self._large, self._most_large)
            into[key] = found
            while len(into) > most:
                with suppress(KeyError):  # another thread may just have cleared it
                    into.popitem(last=False)
        return found

    def made_by(self, make: Callable[..., _T]) -> dict[tuple[Hashable, ...], _T]:
        """All results of one function, by its arguments."""
        return {
            key[1:]: value for made in (self._small, self._large) for key, value in [*made.items()] if key[0] is make
        }

    def clear(self) -> None:
        """Forget all, because sizes of blocks, or rates, are others now."""
        self._small.clear()
        self._large.clear()


#: The one that fastconv uses.
plans = PlanCache()
