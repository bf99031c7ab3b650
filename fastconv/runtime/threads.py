"""How many threads a call uses.

Kernels release the GIL and draw their work from a shared counter. So a helper
may come late or never, and no result depends on which thread did what.
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

#: A call without helpers does not look for signals if its work is less than this, in bytes copied.
SERIAL_BYTES = 1 << 21
#: With helpers at the gate, threads pay for this many times less work.
_NEAR = 16

#: The most threads of a call; a larger count means this one.
MAX_THREADS = _workers.MAX_HELPERS + 1

_override: ContextVar[int | None] = ContextVar("fastconv_threads", default=None)


def cpu_count() -> int:
    """CPUs that this process may use: see `_cpus`."""
    return _cpus.count()


def resolve(threads: Any) -> int:
    """The option `threads` as a count up to `MAX_THREADS`. None is the default, negative counts back from all CPUs."""
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
        raise ValueError(f"threads is {n}, which counts back past the {cpus} CPUs there are; legal are {-cpus} to -1")
    return min(cpus + 1 + n, MAX_THREADS)


def _default_count() -> int:
    """The number of CPUs, or OMP_NUM_THREADS if less: joblib's loky, Dask, Ray and torchrun set it in workers."""
    try:
        # Counts for nested levels follow a comma. A text that is not a count is ignored; OpenMP warns about it.
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
    """The number of threads that calls with ``threads=None`` use.

    Returns
    -------
    int
        The first that is set of: `threads` (innermost first), `set_threads`, the
        environment variable ``FASTCONV_NUM_THREADS``. Otherwise the CPU count,
        or ``OMP_NUM_THREADS`` if that is less, because pools of workers set it.

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
    """What `get_threads` returns outside of `threads` blocks."""
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
    Matrix products run in these threads, too. NumPy's BLAS, which has threads of
    its own, is used only if it is known to use no more threads than these.

    The number of CPUs counts those that this process may run on. The quota of
    its control groups, rounded up, limits it; containers have such quotas.

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
    """Use `n` threads inside a ``with`` block, in this thread or task only.

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
    """The number of threads that a call with `items` items uses, if it may use `threads`."""
    return min(threads, items, MAX_THREADS)


@functools.lru_cache(maxsize=1024)
def _grain(items: int, work: int, helpers: int) -> int:
    """Items of a draw: about 64 KiB of work, because draws contend for the counter, but eight draws for each
    thread.

    Eight draws balance the threads. A call without helpers draws about 1 MiB, and looks for signals between draws.
    """
    return max(1, min(items * (1 << 16 if helpers else 1 << 20) // max(work, 1), items // (8 * (helpers + 1))))


def is_little(work: int) -> bool:
    """Whether one thread does all of so much work: see `words`."""
    return _NEAR * work < SERIAL_BYTES


def words(items: int, work: int, threads: int) -> bytearray | None:
    """The shared state of a call with up to ``threads - 1`` helpers; None for little work, which one thread does.

    `work` is the number of bytes that a plain copy would move in the time of the
    kernel. Helpers that are awake join at once, and sleeping ones soon, so threads
    pay for calls of about 10 us. The state also has the number of items of a draw,
    for kernels with small items, and makes the call look for signals.
    """
    # The most frequent answer comes first, because for small arrays these lines take longer than the kernel.
    if _NEAR * work < SERIAL_BYTES:
        return None
    helpers = most(threads, items) - 1
    if helpers < 1:
        if work < SERIAL_BYTES:
            return None
        helpers = 0
    return _workers.words(helpers, _grain(items, work, helpers))


def share(kernel: Callable[..., Any], args: tuple, *, items: int, work: int, threads: int) -> Any:
    """Call ``kernel(*args, words)`` once; the kernel shares its `items` among threads: see `words`."""
    shared = words(items, work, threads)
    return kernel(*args, _workers.alone() if shared is None else shared)


_default = resolve(_from_environment())
