"""Memory for result arrays. A pool reuses the memory of deleted results for new results.

Without the pool, the allocator returns the memory of a deleted large array to the system, and takes new pages for the
next array. The system clears new pages, which takes longer than many convolutions.

The pool has one list of free memory and one limit. If the free memory exceeds the limit, the pool returns to the system
the memory that has been free longest. While a block of 16 MiB or more is free, the system may take its pages when
memory runs short. The pool is compiled code (``buffers.pyx``), because a signal handler cannot interrupt compiled code.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv._ext.buffers import buffers as _ext

#: Arrays of at most this many bytes are allocated without a check of the free memory, because the check takes time.
_ALWAYS_FREE = 1 << 26
#: The smallest size, in bytes, of a result whose memory comes from the pool. NumPy allocates smaller results, because
#: they need few new pages.
_LEAST_BYTES = 1 << 19
#: The default of ``FASTCONV_KEEP_MIB``: the largest amount of memory that the pool keeps, in MiB.
_KEPT_MIB = 512

#: The end of the error message if the workspace of an algorithm needs more memory than is free.
BOUNDED = "algorithm='im2col' needs only a few MiB, whatever the size"

limited, trim = _ext.limited, _ext.trim


class TooLargeError(MemoryError, ValueError):
    """An array needs more memory than is free. This error is also a ValueError, because the arguments determine the
    size.
    """


def _from_environment() -> int:
    text = os.environ.get("FASTCONV_KEEP_MIB", "").strip()
    # Limit the length, because Python raises an error if it converts several thousand digits to an int.
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
        return np.empty(shape, dtype)  # If memory is short, NumPy raises a clear error.
    # The pool may return more memory than the result needs. SciPy would copy the result if it had less than half of the
    # elements of its `base`. So `base` is an array of exactly the size of the result.
    return np.ndarray(shape, dtype, np.ndarray((size,), dtype, memory))


def scratch(nbytes: int, what: str, instead: str) -> np.ndarray:
    """Return an uninitialised array of `nbytes` bytes. If memory is short, return the memory of the pool to the system
    first.

    If there is still too little memory, `check_free` raises an error with the texts `what` and `instead`.
    """
    check_free(nbytes, what, instead)
    try:
        return np.empty(nbytes, np.uint8)
    except MemoryError:
        _pool.release()
    return np.empty(nbytes, np.uint8)


def available() -> int | None:
    """Return the number of bytes of free memory, or None if the number is unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except TimeoutError:  # a signal handler raised this error, so pass it on
        raise
    except (OSError, ValueError):
        pass
    # SC_PHYS_PAGES counts all physical memory, which is an upper bound of the free memory.
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
    """Raise an error if `nbytes` is more than the free memory. Without this check, the allocation would succeed, and
    the system would run out of memory when the array is written.

    The memory of the pool is returned to the system before an array is refused, because the array may take its place.
    In the error message, `what` is the name of the array, and `instead` is the advice to the user.
    """
    free = available() if nbytes > _ALWAYS_FREE else None
    if free is not None and nbytes > free:
        _pool.release()
        free = available()
    if free is not None and nbytes > free:
        raise TooLargeError(f"{what} takes {nbytes} bytes; {free} bytes are free. {instead}")


def at_release(forget: Callable[[], None]) -> None:
    """Register the function `forget`, which frees memory that a module keeps for later calls. `release` calls it."""
    _forgotten.append(forget)


def release() -> None:
    """Return the memory of the pool to the system, and call the functions registered with `at_release`."""
    for forget in _forgotten:
        forget()
    _pool.release()


def check_bytes(what: str, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Return the number of bytes of an array. Raise an error if the array is larger than the address space."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > sys.maxsize:
        raise ValueError(
            f"{what} of shape {shape} and dtype {dtype} would take {nbytes} bytes, more than can be addressed"
        )
    return nbytes


def check_array(what: str, shape: tuple[int, ...], dtype: np.dtype, instead: str) -> int:
    """Return the number of bytes of an array. Raise an error if the array is larger than the address space or than the
    free memory.

    A call checks its output with this function before it converts an input or makes a plan, because both take memory.
    See `check_free` for the texts `what` and `instead`.
    """
    nbytes = check_bytes(what, shape, dtype)
    if nbytes > _ALWAYS_FREE:  # Make the text for large arrays only, because it takes half as long as a small call.
        check_free(nbytes, f"{what} of shape {shape} and dtype {dtype}", instead)
    return nbytes
