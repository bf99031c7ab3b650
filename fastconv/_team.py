"""The threads of the process, and how they are called.

A thread takes some 50 us to be woken by a queue, as long as a small layer takes
in all; so helpers stay at a gate, which kernels open (``_ext/team.h``) and need
no interpreter to be helped: awake for a moment after each call, then asleep
there until the next one's bell.

A kernel is one call into compiled code, which returns when the last helper has
left it. So nothing that a signal handler raises can leave a helper behind that
still writes: it is heard before that call, after it, or within it (``fc_share``).
"""

from __future__ import annotations

import os
import threading

from fastconv import _cpus
from fastconv._ext import team as _ext

#: Helpers there may ever be; a call for more threads is served by these.
MAX_HELPERS = 63
#: Looks at the gate before a helper sleeps there, or leaves where no bell would wake it: about 300 us, or a few
#: where there are more helpers than CPUs.
_TURNS, _FEW_TURNS = 10_000, 100


def alone() -> bytearray:
    """What a kernel that nobody helps draws its work by, where it is too little for signals to be looked at."""
    return _NOBODY.copy()


def words(helpers: int, grain: int) -> bytearray:
    """What a kernel shares its work by, with so many helpers, or none: see ``fc_share``. They are seen to, too."""
    return _state.words(helpers, grain)


def _fresh() -> _ext.Team:
    return _ext.Team(MAX_HELPERS, _TURNS, _FEW_TURNS, _cpus.count, threading.main_thread().ident or 0)


def _forget() -> None:
    global _state
    _state.lose()
    _forgotten.append(_state)
    _state = _fresh()


_state = _fresh()
#: A call that forked, from a signal handler, still reads the gate that it had.
_forgotten: list[_ext.Team] = []
# As many pieces at a time as there are, or nearly so: what kernels make of this number has to fit 32 bits.
_NOBODY = _ext.alone()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
