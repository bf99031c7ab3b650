"""The worker threads of the process, and how a call uses them.

Waking a thread through a Python queue takes about 50 us, as long as a small layer. So workers poll a slot in shared
memory, the broadcast slot (``threads/team.h``). A kernel publishes its work in this slot, and workers start on the work
without the GIL. After each call the workers poll for about 300 us, and then sleep until the next call wakes them.

A kernel is one compiled function, which returns when the last worker has finished. ``fc_parallel_for`` runs pending
signal handlers during the kernel. If a handler raises an exception, the kernel stops all threads before it returns. So
no worker still writes to an array when Python code sees the exception.
"""

from __future__ import annotations

import os
import threading

from fastconv._ext.threads import team as _ext
from fastconv.runtime import cpus as _cpus

#: The largest number of workers of the process.
MAX_HELPERS = 63
#: The number of times that a worker without work polls the broadcast slot before it sleeps. `_SPINS` polls take about
#: 300 us. `_FEW_SPINS` polls take a few us, and are used if there are more threads than CPUs.
_SPINS, _FEW_SPINS = 10_000, 100


def serial_queue() -> bytearray:
    """Return the state of a short call, which has one thread and does not check for signals."""
    return _SERIAL.copy()


def work_queue(helpers: int, grain: int) -> bytearray:
    """Return the state that a call shares with up to `helpers` workers. Start workers if there are too few.

    `grain` is the number of work items per chunk, as in ``fc_parallel_for`` (``_ext/threads/team.h``).
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
#: The thread pools of parent processes. A forked child must not free them. If a signal handler forks during a call, the
#: call continues in the child, and still reads the broadcast slot of the parent's pool.
_forgotten: list[_ext.ThreadPool] = []
# The state of short calls, which have one thread. Its chunk size is so large that one chunk has all work items of a
# usual call.
_SERIAL = _ext.serial_queue()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
