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
from contextlib import suppress

import numpy as np

#: Results from this size on; what is smaller the allocator clears in no time.
_LEAST_BYTES = 1 << 19
#: From this size on they are large.
_LARGE_BYTES = 1 << 24
#: Of what is kept at most so much is of smaller ones.
_KEPT_SMALL = 1 << 26
#: Kept at most, unless ``FASTCONV_KEEP_MIB`` says.
_KEPT_MIB = 512
#: Memory may be this much larger than the result that it is given to.
_LOOSE = 1.25
#: A large page, and what memory of smaller results is a multiple of.
_PAGE, _SMALL_PAGE = 1 << 21, 1 << 16

_KEEPS = sys.platform == "linux" and hasattr(mmap, "MADV_FREE")


def _from_environment() -> int:
    text = os.environ.get("FASTCONV_KEEP_MIB", "").strip()
    if text and not (text.isascii() and text.isdecimal()):
        warnings.warn(
            f"FASTCONV_KEEP_MIB is {text!r}, which is not a number of MiB, such as 0 or 512; using {_KEPT_MIB}",
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

    def __del__(self) -> None:
        try:
            memory = self.base
            if type(memory) is mmap.mmap:
                _keep(memory)
        except Exception:  # the interpreter may be going down
            return


def _keep(memory: mmap.mmap) -> None:
    large = len(memory) >= _LARGE_BYTES
    kept, most = (_free, _kept_bytes) if large else (_free_small, min(_kept_bytes, _KEPT_SMALL))
    if len(memory) > most:
        return
    if large:
        memory.madvise(mmap.MADV_FREE)
    kept.append(memory)
    _shorten(_free_small, min(_kept_bytes, _KEPT_SMALL))
    _shorten(_free, _kept_bytes - _size(_free_small))


def _size(kept: list[mmap.mmap]) -> int:
    return sum(map(len, list(kept)))


def _shorten(kept: list[mmap.mmap], most: int) -> None:
    """Give back what was kept longest."""
    while kept and _size(kept) > most:
        with suppress(IndexError):
            kept.pop(0)


def _take(nbytes: int, page: int) -> mmap.mmap | None:
    kept = _free if nbytes >= _LARGE_BYTES else _free_small
    # The last that was freed may still be in a cache.
    for memory in reversed(list(kept)):
        if nbytes <= len(memory) <= _LOOSE * nbytes + page:
            with suppress(ValueError):  # another thread took it
                kept.remove(memory)
                return memory
    return None


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """As `np.empty`; a large array may be where an earlier one was."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _LEAST_BYTES or not (_KEEPS and _kept_bytes):
        return np.empty(shape, dtype)
    page = _PAGE if nbytes >= _LARGE_BYTES else _SMALL_PAGE
    memory = _take(nbytes, page)
    if memory is None:
        try:
            memory = mmap.mmap(-1, -(-nbytes // page) * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError):
            return np.empty(shape, dtype)  # which says it best
        if page == _PAGE:
            with suppress(OSError):  # a system without large pages
                memory.madvise(mmap.MADV_HUGEPAGE)
    # As many elements as the result has: SciPy copies what is less than half of its base's.
    lease = _Lease((math.prod(shape),), dtype, memory)
    return np.ndarray(shape, dtype, lease)


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
