"""The number of threads that NumPy's BLAS uses. fastconv reads this number, and never sets it."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator

#: Names of the functions that return it. OpenBLAS's names vary: builds by SciPy have a prefix, and builds with 64-bit
#: integers a suffix.
_OPENBLAS = [f"{prefix}openblas_%s{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "", "_64")]
_OTHERS = ["MKL_Get_Max_Threads", "bli_thread_get_num_threads", "flexiblas_get_num_threads"]
#: The value of OpenBLAS's get_parallel if OpenBLAS runs on OpenMP's threads; OpenMP then knows their number.
_OPENMP = 2


def _unknown() -> int:
    return 0


def _counters() -> Iterator[Callable[[], int]]:
    """Functions of NumPy's BLAS that return its number of threads."""
    try:
        umath = importlib.import_module("numpy._core._multiarray_umath")
        # This handle finds symbols only in NumPy's module and in the libraries it is linked with, so no other BLAS.
        library = ctypes.CDLL(umath.__file__)
    except (ImportError, OSError, TypeError, AttributeError):
        return
    for name in _OPENBLAS:
        count, parallel = (getattr(library, name % part, None) for part in ("get_num_threads", "get_parallel"))
        if count is not None and parallel is not None:
            yield count if parallel() != _OPENMP else getattr(library, "omp_get_max_threads", _unknown)
    for name in _OTHERS:
        if hasattr(library, name):
            yield getattr(library, name)


def _find_counter() -> int:
    """The first call finds the function; later calls go to it directly."""
    global _count
    _count = next(_counters(), _unknown)
    return _count()


_count: Callable[[], int] = _find_counter


def threads() -> int | None:
    """How many threads a product by NumPy's BLAS may use if this thread calls it now, or None if that is unknown."""
    return _count() or None


def within(threads: int) -> bool:
    """Whether NumPy's BLAS is known to use no more than `threads`."""
    return 0 < _count() <= threads
