"""Memory of results: a pool keeps the memory of a deleted result for the next result.

An allocator returns the memory of a large array to the system when the array is deleted, and takes new pages for the
next array. This takes longer than many convolutions. For arrays of a few megabytes, it depends on what the process
freed before. The pool marks the free memory of large results, so that the system can take it back when memory runs
short; of smaller results, the pool keeps little memory. The pool is compiled code (``_ext/buffers.pyx``), because a
signal handler cannot interrupt compiled code.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv._ext import buffers as _ext

#: The largest size, in bytes, for which `check_free` does not ask the system for its free memory, because asking takes
#: longer than writing the array.
_ALWAYS_FREE = 1 << 26
#: The smallest size of a result from the pool, in bytes. For smaller results, the system clears new pages fast.
_LEAST_BYTES = 1 << 19
#: The default of ``FASTCONV_KEEP_MIB``: the largest amount of memory that the pool keeps, in MiB.
_KEPT_MIB = 512

#: The advice for an algorithm that needs more memory than is free.
BOUNDED = "algorithm='im2col' needs only a few MiB, whatever the size"

limited, trim = _ext.limited, _ext.trim


class TooLargeError(MemoryError, ValueError):
    """Raised if an array needs more memory than is free. It is a ValueError, too, because it follows from the
    arguments.
    """


def _from_environment() -> int:
    text = os.environ.get("FASTCONV_KEEP_MIB", "").strip()
    # The length is limited because Python may refuse to convert more digits.
    if text and not (text.isascii() and text.isdecimal() and len(text) < 100):
        warnings.warn(
            f"FASTCONV_KEEP_MIB is {text[:100]!r}, which is not a number of MiB, such as 0 or 512; using {_KEPT_MIB}",
            RuntimeWarning,
            stacklevel=2,
        )
        text = ""
    return min(int(text or _KEPT_MIB) << 20, sys.maxsize)


_kept_bytes = _from_environment()
_forgotten: list[Callable[[], None]] = []
_pool = _ext.Pool(_kept_bytes)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array like `np.empty`. A large array may reuse the memory of a deleted array."""
    size = math.prod(shape)
    nbytes = size * dtype.itemsize
    if nbytes < _LEAST_BYTES:
        return np.empty(shape, dtype)
    memory: Any = _pool.take(nbytes) if nbytes <= sys.maxsize else None
    if memory is None:
        return np.empty(shape, dtype)  # If there is no memory, NumPy raises the best error.
    # The memory may be larger than the result, so make a base array of the same size as the result, because SciPy
    # copies an array that has less than half of the elements of its base.
    return np.ndarray(shape, dtype, np.ndarray((size,), dtype, memory))


def scratch(nbytes: int, what: str, instead: str) -> np.ndarray:
    """Return an array of `nbytes` bytes for one call. If memory is short, the pool is emptied first.

    `check_free` raises an error before the allocation if the bytes are still not free. `what` and `instead` are for its
    message.
    """
    try:
        check_free(nbytes, what, instead)
        return np.empty(nbytes, np.uint8)
    except MemoryError:
        _pool.release()
    check_free(nbytes, what, instead)
    return np.empty(nbytes, np.uint8)


def available() -> int | None:
    """Return the number of bytes that the system can still provide. None means that the number is unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except TimeoutError:  # A TimeoutError is an OSError, but a signal handler raised it.
        raise
    except (OSError, ValueError):
        pass
    # SC_PHYS_PAGES counts all memory, which at least is an upper bound.
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        try:
            count = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
        except TimeoutError:
            raise
        except (AttributeError, OSError, ValueError):
            continue
        if count > 0:
            return count
    return None


def check_free(nbytes: int, what: str, instead: str) -> None:
    """Raise an error if an array needs more bytes than are free. Without this check the system would grant the
    allocation, and run out of memory when the pages are written.

    `instead` is a text that says what the caller can do.
    """
    free = available() if nbytes > _ALWAYS_FREE else None
    if free is not None and nbytes > free:
        raise TooLargeError(f"{what} takes {nbytes} bytes; {free} bytes are free. {instead}")


def at_release(forget: Callable[[], None]) -> None:
    """Register a function that drops the memory that a module keeps for later calls. `release` calls the function."""
    _forgotten.append(forget)


def release() -> None:
    """Return the memory of the pool to the system, and call the functions registered with `at_release`."""
    for forget in _forgotten:
        forget()
    _pool.release()


def check_bytes(what: str, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Return the number of bytes of an array of this shape. More bytes than can be addressed are an error."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > sys.maxsize:
        raise ValueError(
            f"{what} of shape {shape} and dtype {dtype} would take {nbytes} bytes, more than can be addressed"
        )
    return nbytes
