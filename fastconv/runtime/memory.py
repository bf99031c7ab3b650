"""Memory of results: a pool keeps it when a result is gone, for the next one.

An allocator returns large arrays to the system, and takes new pages for the
next array, which takes longer than many convolutions. For arrays of some
megabytes this depends on what the process freed before. The pool marks the
memory of large results as free, so that the system can take it when it runs
short. It keeps little memory of smaller results. The pool itself is compiled
code (``_ext/buffers.pyx``), because no signal handler can interrupt it there.
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

#: For fewer bytes the system is not asked whether they are free, because asking takes longer than writing them.
_ALWAYS_FREE = 1 << 26
#: The pool serves results of at least so many bytes; smaller ones take little time to clear.
_LEAST_BYTES = 1 << 19
#: The default of ``FASTCONV_KEEP_MIB``, the most memory that the pool keeps.
_KEPT_MIB = 512

#: What to do where an algorithm takes more than is free.
BOUNDED = "algorithm='im2col' takes some MiB, whatever the size"

limited, trim = _ext.limited, _ext.trim


class TooLargeError(MemoryError, ValueError):
    """An array needs more memory than is free. It is a ValueError, too, because the arguments ask for it."""


def _from_environment() -> int:
    text = os.environ.get("FASTCONV_KEEP_MIB", "").strip()
    # Python may refuse to convert more digits.
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
    """As `np.empty`; a large array may reuse the memory of an earlier one."""
    size = math.prod(shape)
    nbytes = size * dtype.itemsize
    if nbytes < _LEAST_BYTES:
        return np.empty(shape, dtype)
    memory: Any = _pool.take(nbytes) if nbytes <= sys.maxsize else None
    if memory is None:
        return np.empty(shape, dtype)  # NumPy's error is the best one if there is no memory
    # The base has as many elements as the result, because SciPy copies an array with less than half of its base's.
    return np.ndarray(shape, dtype, np.ndarray((size,), dtype, memory))


def scratch(nbytes: int, what: str, instead: str) -> np.ndarray:
    """Bytes for one call; if there is no memory, the pool is emptied and the allocation is tried again.

    What is not free even then is refused before any of it is taken: see `check_free`.
    """
    try:
        check_free(nbytes, what, instead)
        return np.empty(nbytes, np.uint8)
    except MemoryError:
        _pool.release()
    check_free(nbytes, what, instead)
    return np.empty(nbytes, np.uint8)


def available() -> int | None:
    """The bytes that the system can still give without running short; None if it does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except TimeoutError:  # an OSError, but from a signal handler and not about the file
        raise
    except (OSError, ValueError):
        pass
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):  # the second is all there is, which is a bound at least
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
    """Refuse an array of more bytes than are free, before it is allocated; otherwise the system would give its pages
    one by one until none is left.

    `instead` says what to do.
    """
    free = available() if nbytes > _ALWAYS_FREE else None
    if free is not None and nbytes > free:
        raise TooLargeError(f"{what} takes {nbytes} bytes; {free} bytes are free. {instead}")


def at_release(forget: Callable[[], None]) -> None:
    """Call `forget` in `release`, too: it drops what a module keeps that takes as much memory as a result."""
    _forgotten.append(forget)


def release() -> None:
    """Return the memory of the pool to the system, and drop what modules keep: see `at_release`."""
    for forget in _forgotten:
        forget()
    _pool.release()


def check_bytes(what: str, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The bytes of an array of that shape, refused where they overflow the address space."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > sys.maxsize:
        raise ValueError(
            f"{what} of shape {shape} and dtype {dtype} would take {nbytes} bytes, more than can be addressed"
        )
    return nbytes
