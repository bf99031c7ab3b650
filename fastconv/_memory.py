"""Memory of results: kept when they are gone, and given to the next.

An allocator hands large arrays back to the system, and takes fresh pages for
the next one: that takes longer than many a convolution. Of those of some
megabytes it does so now and then, as what was freed before happens to lie. What
is kept here of large ones is marked as free for the system to take whenever it
runs short; of smaller ones there is little, and it stays as it is.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import numpy as np

_Memory = TypeVar("_Memory")

#: Results from this size on; what is smaller the allocator clears in no time.
_LEAST_BYTES = 1 << 19
#: From this size on they are large, counted as their mappings are: in whole small pages.
_LARGE_BYTES = 1 << 24
#: Of what is kept at most so much is of smaller ones; where large ones come, 1 / so much of it is left to them.
_KEPT_SMALL, _SHARE_OF_SMALL = 1 << 26, 4
#: Kept at most, unless ``FASTCONV_KEEP_MIB`` says.
_KEPT_MIB = 512
#: Memory may be this much larger than the result that it is given to.
_LOOSE = 1.25
#: A large page, and what memory of smaller results is a multiple of.
_PAGE, _SMALL_PAGE = 1 << 21, 1 << 16

_KEEPS = sys.platform == "linux" and hasattr(mmap, "MADV_FREE")


def _from_environment() -> int:
    text = os.environ.get("FASTCONV_KEEP_MIB", "").strip()
    # Of more digits Python may refuse to make a number.
    if text and not (text.isascii() and text.isdecimal() and len(text) < 100):
        warnings.warn(
            f"FASTCONV_KEEP_MIB is {text[:100]!r}, which is not a number of MiB, such as 0 or 512; using {_KEPT_MIB}",
            RuntimeWarning,
            stacklevel=2,
        )
        text = ""
    return int(text or _KEPT_MIB) << 20


_kept_bytes = _from_environment()
# List methods are atomic, and a lock could be taken twice: a collection runs `__del__` anywhere.
_free: list[mmap.mmap] = []
_free_small: list[mmap.mmap] = []


class _Lease(np.ndarray):
    """Owns memory on behalf of the arrays made on it; when the last of them is gone, it is kept.

    Its own base is the mapping, which nobody else may hold on to.
    """

    __slots__ = ()

    def __del__(self) -> None:
        try:
            memory = self.base
            # A weak reference still finds the lease here, and whoever has one could take it back to life.
            if type(memory) is mmap.mmap and not weakref.getweakrefcount(self):
                _keep(memory)
        except Exception:  # the interpreter may be going down
            return


def _mapped(nbytes: int) -> int:
    """Bytes of the mapping that a result takes."""
    whole = -(-nbytes // _SMALL_PAGE) * _SMALL_PAGE
    return -(-whole // _PAGE) * _PAGE if _is_large(whole) else whole


def _is_large(mapped: int) -> bool:
    return mapped >= _LARGE_BYTES


def _keep(memory: mmap.mmap) -> None:
    nbytes = len(memory)
    large = _is_large(nbytes)
    share = _kept_bytes // _SHARE_OF_SMALL
    most_small = min(_kept_bytes, _KEPT_SMALL)
    if nbytes > (_kept_bytes - min(_size(_free_small), share) if large else most_small):
        return
    if large:
        memory.madvise(mmap.MADV_FREE)
        # Smaller ones make room, but for their share.
        _shorten(_free_small, max(share, _kept_bytes - nbytes))
        _free.append(memory)
    else:
        _free_small.append(memory)
        _shorten(_free_small, most_small)
    _shorten(_free, _kept_bytes - _size(_free_small))


def _size(kept: list[mmap.mmap]) -> int:
    return sum(map(len, list(kept)))


def _shorten(kept: list[mmap.mmap], most: int) -> None:
    """Give back what was kept longest."""
    while kept and _size(kept) > most:
        with suppress(IndexError):
            kept.pop(0)


def _take(nbytes: int, mapped: int) -> mmap.mmap | None:
    kept, page = (_free, _PAGE) if _is_large(mapped) else (_free_small, _SMALL_PAGE)
    # The last that was freed may still be in a cache.
    for memory in reversed(list(kept)):
        if nbytes <= len(memory) <= _LOOSE * nbytes + page:
            with suppress(ValueError):  # another thread took it
                kept.remove(memory)
                return memory
    return None


def _insist(make: Callable[[], _Memory]) -> _Memory:
    """What `make` makes, once more without what is kept, which counts where the addresses of a process are limited."""
    try:
        return make()
    except (OSError, MemoryError):
        release()
        return make()


def _map(mapped: int) -> mmap.mmap:
    memory = mmap.mmap(-1, mapped, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _is_large(mapped):
        with suppress(OSError):  # a system without large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """As `np.empty`; a large array may be where an earlier one was."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _LEAST_BYTES or not (_KEEPS and _kept_bytes):
        return np.empty(shape, dtype)
    mapped = _mapped(nbytes)
    memory = _take(nbytes, mapped)
    if memory is None:
        try:
            memory = _insist(lambda: _map(mapped))
        except (OSError, OverflowError):
            return np.empty(shape, dtype)  # which says it best
    # As many elements as the result has: SciPy copies what is less than half of its base's.
    lease = _Lease((math.prod(shape),), dtype, memory)
    return np.ndarray(shape, dtype, lease)


def scratch(nbytes: int) -> np.ndarray:
    """Bytes for one call; before there are none, what is kept is given back."""
    return _insist(lambda: np.empty(nbytes, np.uint8))


def available() -> int | None:
    """Bytes that the system can still give without running short; None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):  # the second is all there is, which is a bound at least
        with suppress(AttributeError, OSError, ValueError):
            count = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
            if count > 0:
                return count
    return None


def release() -> None:
    """Give back what is kept."""
    _free.clear()
    _free_small.clear()
