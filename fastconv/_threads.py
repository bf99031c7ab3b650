"""The one pool of threads, and how many of them a call uses.

Kernels release the GIL and draw their work from a counter they share, so a
helper that comes late or never finds nothing left to do and no result depends
on who did what.
"""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np

#: Below this much work, in bytes copied, waking a helper costs more than it saves.
SERIAL_BYTES = 1 << 21
#: Helpers the pool may ever hold; a call for more threads is served by these.
_MAX_HELPERS = 63

_override: ContextVar[int | None] = ContextVar("fastconv_threads", default=None)


def cpu_count() -> int:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve(threads: Any) -> int:
    """The `threads` option as a count: None is the default, a negative counts back from all CPUs."""
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
        return n
    cpus = cpu_count()
    if cpus + 1 + n < 1:
        raise ValueError(f"threads is {n}, which counts back past the {cpus} CPUs there are; legal are {-cpus} to -1")
    return cpus + 1 + n


def _from_environment() -> int:
    text = os.environ.get("FASTCONV_NUM_THREADS", "").strip()
    if text:
        try:
            return resolve(int(text))
        except ValueError:
            warnings.warn(
                f"FASTCONV_NUM_THREADS is {text!r}, which is not a thread count (a positive int, or a negative "
                f"one to count back from all CPUs); using {cpu_count()}",
                RuntimeWarning,
                stacklevel=2,
            )
    return cpu_count()


def get_threads() -> int:
    """The number of threads that calls with ``threads=None`` use.

    Returns
    -------
    int
        Set by `threads` (innermost first), else `set_threads`, else the
        environment variable ``FASTCONV_NUM_THREADS``, else the CPU count.

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.threads(1):
    ...     fastconv.get_threads()
    1
    """
    override = _override.get()
    return _default if override is None else override


def set_threads(n: int | None) -> None:
    """Set the default number of threads for the whole process.

    Parameters
    ----------
    n : int or None
        A positive int; a negative one counts back from all CPUs (-1 is all of
        them); None restores ``FASTCONV_NUM_THREADS`` or the CPU count.

    Raises
    ------
    ValueError
        For 0, or a negative number that leaves no CPU.
    TypeError
        For anything that is not an int.

    Notes
    -----
    Matrix products run in NumPy's BLAS, which has threads of its own.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.set_threads(2)
    >>> fastconv.get_threads()
    2
    >>> fastconv.set_threads(None)
    """
    global _default
    _default = _from_environment() if n is None else resolve(n)


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
    """How many threads a call for so many of them, on so many pieces, has at most."""
    return min(threads, items, _MAX_HELPERS + 1)


def run(
    kernel: Callable[..., None],
    args: tuple,
    *,
    items: int,
    work: int,
    threads: int,
    tail: tuple = (),
    grain: int = 0,
) -> None:
    """Call ``kernel(*args, counter, grain, *tail)`` in up to `threads` threads, this one included.

    `items` is the number of pieces the kernel counts, `work` how many bytes a
    plain copy would move in the time the kernel takes; together they set how
    many pieces a draw takes, unless `grain` says. ``counter[1]`` counts the threads, for kernels
    whose threads each have a workspace.
    """
    counter = np.zeros(2, np.intp)
    helpers = most(threads, items) - 1
    if helpers < 1 or work < SERIAL_BYTES:
        kernel(*args, counter, max(items, 1), *tail)
        return
    # Some 64 KiB a draw keeps the counter quiet; eight draws a thread keep the threads even.
    grain = grain or max(1, min(items * (1 << 16) // work, items // (8 * (helpers + 1))))
    futures = _submit(helpers, kernel, (*args, counter, grain, *tail))
    try:
        kernel(*args, counter, grain, *tail)
    finally:
        # A helper that never started is taken back; one that runs may still write, so it is waited for.
        for future in futures:
            if not future.cancel():
                future.result()


def _submit(helpers: int, kernel: Callable[..., None], args: tuple) -> list[Future]:
    global _pool
    pool = _pool
    if pool is None:
        pool = _pool = ThreadPoolExecutor(_MAX_HELPERS, thread_name_prefix="fastconv")
    futures: list[Future] = []
    # At interpreter shutdown, or where no thread can be started, the caller does it all.
    with suppress(RuntimeError):
        for _ in range(helpers):
            futures.append(pool.submit(kernel, *args))
    return futures


def _forget_pool() -> None:
    global _pool
    _pool = None


# The child of a fork has the pool object but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)

_pool: ThreadPoolExecutor | None = None
_default = _from_environment()
