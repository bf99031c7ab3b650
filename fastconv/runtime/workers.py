"""The worker threads of the process, and how a call uses them.

Waking a thread by a queue takes about 50 us, as long as a small layer takes. So workers watch a shared slot in memory,
the broadcast slot (``_ext/team.h``). A kernel publishes its work there, and workers join it without the interpreter.
After each call they spin for a moment, and then sleep until a call wakes them.

A kernel is one call into compiled code, which returns when the last worker has finished. A signal handler runs before
that call, after it, or within it (``fc_parallel_for``). If the handler raises, all threads stop first. So no worker
still writes when the exception arrives in Python code.
"""

from __future__ import annotations

import os
import threading

from fastconv._ext import team as _ext
from fastconv.runtime import cpus as _cpus

#: The largest number of workers of the process.
MAX_HELPERS = 63
#: The number of times that a worker checks the broadcast slot before it sleeps there (or leaves it, on systems without
#: futexes). The first number takes about 300 us. The second takes a few us, and is used if there are more threads than
#: CPUs.
_SPINS, _FEW_SPINS = 10_000, 100


def serial_queue() -> bytearray:
    """Return the shared state of a call that has one thread and does not check for signals, because it is short."""
    return _SERIAL.copy()


def work_queue(helpers: int, grain: int) -> bytearray:
    """Return the shared state of a call that up to `helpers` workers may join, and start workers if there are fewer.

    `grain` is the number of items per chunk: see ``fc_parallel_for`` in ``_ext/team.h``.
    """
    return _pool.work_queue(helpers, grain)


def _new_pool() -> _ext.ThreadPool:
    return _ext.ThreadPool(MAX_HELPERS, _SPINS, _FEW_SPINS, _cpus.count, threading.main_thread().ident or 0)


def _forget() -> None:
    global _pool
    _pool.abandon()
    _forgotten.append(_pool)
    _pool = _new_pool()


_pool = _new_pool()
#: The pools of parent processes. They are kept in the child because, if a signal handler forks during a call, the call
#: still reads the old broadcast slot in the child.
_forgotten: list[_ext.ThreadPool] = []
# In this state, a chunk has all items, or nearly all if their number exceeds 32 bits.
_SERIAL = _ext.serial_queue()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
