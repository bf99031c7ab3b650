"""How many threads the BLAS behind NumPy uses, which no option of ours sets."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator

#: Names under which libraries tell it. OpenBLAS's have affixes: SciPy's builds begin with one, and those with 64-bit
#: integers end with one.
_OPENBLAS = [f"{prefix}openblas_%s{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "", "_64")]
_OTHERS = ["MKL_Get_Max_Threads", "bli_thread_get_num_threads", "flexiblas_get_num_threads"]
#: What OpenBLAS answers where OpenMP's threads do its work, as many as OpenMP says.
_OPENMP = 2


def _unknown() -> int:
    return 0


def _counters() -> Iterator[Callable[[], int]]:
    """Functions that count, of the library by which NumPy multiplies."""
    try:
        umath = importlib.import_module("numpy._core._multiarray_umath")
        # The handle of a library that is loaded finds what it was linked with, and so no other BLAS of the process.
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
    """The first call looks the function up, and later ones are that function."""
    global _count
    _count = next(_counters(), _unknown)
    return _count()


_count: Callable[[], int] = _find_counter


def threads() -> int | None:
    """The threads that a product of NumPy's BLAS may use now, in this thread; None where that is not known."""
    return _count() or None


def within(threads: int) -> bool:
    """Whether NumPy's BLAS is known to use no more than `threads`."""
    return 0 < _count() <= threads
