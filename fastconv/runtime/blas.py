"""The number of threads that NumPy's BLAS uses. fastconv reads this number, and never sets it."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator

#: Patterns of the names of OpenBLAS's functions. The builds in the wheels of NumPy and SciPy add a prefix, and builds
#: with 64-bit integers add a suffix.
_OPENBLAS = [f"{prefix}openblas_%s{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "", "_64")]
_OTHERS = ["MKL_Get_Max_Threads", "bli_thread_get_num_threads", "flexiblas_get_num_threads"]
#: The value of `openblas_get_parallel` if OpenBLAS uses OpenMP. In that case OpenMP determines the number of threads.
_OPENMP = 2


def _unknown() -> int:
    return 0


def _counters() -> Iterator[Callable[[], int]]:
    """Yield the functions of NumPy's BLAS that return its number of threads."""
    try:
        umath = importlib.import_module("numpy._core._multiarray_umath")
        # A lookup in this library searches only NumPy's own module and the libraries that this module links to. So it
        # finds NumPy's BLAS, even if the process has loaded another BLAS.
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
    """Return the number of threads of NumPy's BLAS. In `_count`, store the BLAS function that returns this number, for
    later calls.
    """
    global _count
    _count = next(_counters(), _unknown)
    return _count()


_count: Callable[[], int] = _find_counter


def threads() -> int | None:
    """Return the number of threads that NumPy's BLAS uses at most for a matrix product, or None if it is unknown."""
    return _count() or None


def within(threads: int) -> bool:
    """Return whether NumPy's BLAS is known to use at most `threads` threads."""
    return 0 < _count() <= threads
