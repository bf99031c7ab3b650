"""The helper threads of the process, and how a call uses them.

A queue takes about 50 us to wake a thread, as long as a small layer takes. So
helpers watch a shared slot in memory, the gate (``_ext/team.h``), where a kernel
publishes its work and helpers join it without the interpreter. They spin for a
moment after each call, and then sleep until the next call wakes them.

A kernel is one call into compiled code, which returns when the last helper has
finished. A signal handler runs before that call, after it, or within it
(``fc_share``); an exception then first stops all threads. So no helper still
writes when an exception arrives in Python code.
"""

from __future__ import annotations

import os
import threading

from fastconv._ext import team as _ext
from fastconv.runtime import cpus as _cpus

#: The most helpers of the process. A call for more threads uses these.
MAX_HELPERS = 63
#: How often a helper looks at the gate before it sleeps there (or leaves it, without a futex): about 300 us, or only a
#: few us if there are more helpers than CPUs.
_TURNS, _FEW_TURNS = 10_000, 100


def alone() -> bytearray:
    """The shared state of a call without helpers, whose work is too little to look for signals."""
    return _NOBODY.copy()


def words(helpers: int, grain: int) -> bytearray:
    """The shared state of a call with at most so many helpers (see ``fc_share``). Missing helpers are started."""
    return _state.words(helpers, grain)


def _fresh() -> _ext.Team:
    return _ext.Team(MAX_HELPERS, _TURNS, _FEW_TURNS, _cpus.count, threading.main_thread().ident or 0)


def _forget() -> None:
    global _state
    _state.lose()
    _forgotten.append(_state)
    _state = _fresh()


_state = _fresh()
#: Kept because a call whose signal handler forked still reads its old gate in the child.
_forgotten: list[_ext.Team] = []
# One draw takes all pieces, or nearly all, because the number of pieces of a draw has 32 bits.
_NOBODY = _ext.alone()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
