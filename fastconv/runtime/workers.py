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

#: The largest number of workers of the process. A call that asks for more threads uses these.
MAX_HELPERS = 63
#: How often a worker checks the broadcast slot before it sleeps there (or leaves it, on systems without futexes): about
#: 300 us, or only a few us if there are more threads than CPUs.
_SPINS, _FEW_SPINS = 10_000, 100


def serial_queue() -> bytearray:
    """Return the shared state of a call with one thread and so little work that it does not check for signals."""
    return _SERIAL.copy()


def work_queue(helpers: int, grain: int) -> bytearray:
    """Start missing workers, and return the shared state of a call with at most `helpers` of them: see
    ``fc_parallel_for``.
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
#: Teams of parent processes. They are kept because a call whose signal handler forked still reads its old broadcast
#: slot in the child.
_forgotten: list[_ext.ThreadPool] = []
# A chunk of this state holds all items, or nearly all, because the number of items per chunk has 32 bits.
_SERIAL = _ext.serial_queue()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
