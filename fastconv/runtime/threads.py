"""The number of threads that a call uses.

Kernels release the GIL. A kernel divides its work into chunks, and each thread takes the next chunk when it is free.
So a call does not wait for a worker that starts late, because the other threads do its work. Results do not depend on
which thread computed which chunk.
"""

from __future__ import annotations

import functools
import operator
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from fastconv.runtime import cpus as _cpus, workers as _workers

#: A call with one thread runs pending signal handlers only if its work is at least this number of bytes. `work_queue`
#: explains how work is measured in bytes.
SERIAL_BYTES = 1 << 21
#: A call uses several threads if its work is at least ``SERIAL_BYTES / _NEAR`` bytes. This limit is low, because
#: workers that are not asleep start at once.
_NEAR = 16

#: The largest number of threads of a call. The option `threads` is limited to this number.
MAX_THREADS = _workers.MAX_HELPERS + 1

_override: ContextVar[int | None] = ContextVar("fastconv_threads", default=None)


def cpu_count() -> int:
    """Return the number of CPUs that this process may use: see `fastconv.runtime.cpus`."""
    return _cpus.count()


def resolve(threads: Any) -> int:
    """Convert the option `threads` to a number of threads from 1 to `MAX_THREADS`. None means the default, -1 means all
    CPUs, and -n means all CPUs but n - 1.
    """
    if threads is None:
        return get_threads()
    if isinstance(threads, (bool, np.bool_)):
        raise TypeError(f"threads must be None or an int, got {threads!r}")
    try:
        n = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads must be None or an int, got {threads!r}") from None
    if n == 0:
        raise ValueError("threads is 0; legal are None, a positive int, or a negative one to count back from all CPUs")
    if n > 0:
        return min(n, MAX_THREADS)
    cpus = cpu_count()
    if cpus + 1 + n < 1:
        raise ValueError(f"threads is {n}, which counts back past the first of {cpus} CPUs; legal are {-cpus} to -1")
    return min(cpus + 1 + n, MAX_THREADS)


def _default_count() -> int:
    """Return the number of CPUs or the environment variable ``OMP_NUM_THREADS``, whichever is smaller. joblib's loky,
    Dask, Ray and torchrun set this variable in their worker processes.
    """
    try:
        # OMP_NUM_THREADS may be a comma-separated list. Its first number applies to the outermost parallel region.
        # Ignore an invalid value, because OpenMP itself warns about invalid values.
        limit = int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0])
    except ValueError:
        limit = 0
    return min(limit, cpu_count()) if limit > 0 else cpu_count()


def _from_environment() -> int:
    text, default = os.environ.get("FASTCONV_NUM_THREADS", "").strip(), _default_count()
    if text:
        try:
            return resolve(int(text))
        except ValueError:
            warnings.warn(
                f"FASTCONV_NUM_THREADS is {text!r}, which is not a thread count (a positive int, or a negative "
                f"one to count back from all CPUs); using {default}",
                RuntimeWarning,
                stacklevel=2,
            )
    return default


def get_threads() -> int:
    """Return the number of threads that calls with ``threads=None`` use.

    Returns
    -------
    int
        The first of these that is set: `threads` (innermost first), `set_threads`,
        the environment variable ``FASTCONV_NUM_THREADS``. Otherwise the number of
        CPUs, or ``OMP_NUM_THREADS`` if that is less, because pools of processes
        set it in their workers.

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.threads(1):
    ...     fastconv.get_threads()
    1
    """
    override = _override.get()
    return _default if override is None else override


def default() -> int:
    """Return the number of threads that `get_threads` returns outside of ``with threads(n)`` blocks."""
    return _default


def set_threads(n: int | None) -> None:
    """Set the default number of threads for the whole process.

    Parameters
    ----------
    n : int or None
        A positive int; above 64 it counts as 64. A negative int counts back from
        all CPUs (-1 is all of them). None restores the default of the
        environment: see `get_threads`.

    Raises
    ------
    ValueError
        For 0, or a negative number that leaves no CPU.
    TypeError
        For anything that is not an int.

    Notes
    -----
    Matrix products use these threads, too. NumPy's BLAS has threads of its own, so
    fastconv uses it only if it is known to use no more threads than these.

    fastconv counts the CPUs that this process may run on. In many containers, a CPU quota (Linux cgroups) limits the
    process to fewer CPUs. In that case, fastconv uses the quota, rounded up.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.set_threads(2)
    >>> fastconv.get_threads()
    2
    >>> fastconv.set_threads(None)
    """
    global _default
    _default = resolve(_from_environment() if n is None else n)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use `n` threads inside a ``with`` block, in this thread or asyncio task only.

    Parameters
    ----------
    n : int
        As for `set_threads`.

    Raises
    ------
    ValueError, TypeError
        As `set_threads`.

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.threads(1):
    ...     fastconv.get_threads()
    1
    """
    token = _override.set(resolve(n))
    try:
        yield
    finally:
        _override.reset(token)


def most(threads: int, items: int) -> int:
    """Return the largest number of threads that a call can use: the minimum of `threads`, the number of work items, and
    `MAX_THREADS`.
    """
    return min(threads, items, MAX_THREADS)


# Cached, because every call with several threads needs the result. A lookup takes 0.3 us, and computing it 1.0 us.
@functools.lru_cache(maxsize=1024)
def _grain(items: int, work: int, helpers: int) -> int:
    """Return the number of work items in a chunk. Threads take work one chunk at a time.

    A chunk has about 64 KiB of work. With smaller chunks, threads would often wait for each other when they update the
    shared counter of chunks. There are at least eight chunks for each thread, which balances the load. A call with one
    thread uses chunks of about 1 MiB, and checks for signals between chunks.
    """
    return max(1, min(items * (1 << 16 if helpers else 1 << 20) // max(work, 1), items // (8 * (helpers + 1))))


def is_little(work: int) -> bool:
    """Return whether one thread should do all the work. `work` is an amount in bytes, as in `work_queue`."""
    return _NEAR * work < SERIAL_BYTES


def work_queue(items: int, work: int, threads: int) -> bytearray | None:
    """Return the state that the threads of a call share: the calling thread and up to ``threads - 1`` workers. Return
    None if there is little work. The calling thread then does all the work, and does not check for signals.

    `work` is the time of the kernel, expressed as the number of bytes that a plain copy moves in that time. Several
    threads pay off for calls of about 10 us or more. The state contains the number of work items per chunk. A call
    with this state checks for signals in the calling thread.
    """
    # This test comes first, because for small arrays the rest of this function takes longer than the kernel.
    if _NEAR * work < SERIAL_BYTES:
        return None
    helpers = most(threads, items) - 1
    if helpers < 1:
        if work < SERIAL_BYTES:
            return None
        helpers = 0
    return _workers.work_queue(helpers, _grain(items, work, helpers))


def share(kernel: Callable[..., Any], args: tuple, *, items: int, work: int, threads: int) -> Any:
    """Run a kernel on several threads, and return ``kernel(*args, shared)``.

    The kernel divides its `items` work items among the threads. `work_queue` returns the state `shared`, with which the
    threads take work. The argument `work` has the same meaning as in `work_queue`.
    """
    shared = work_queue(items, work, threads)
    return kernel(*args, _workers.serial_queue() if shared is None else shared)


_default = resolve(_from_environment())
