"""The threads of the process: a pool that sleeps, some of whose threads wait awake for the next call.

A thread that sleeps takes some 50 us to wake, as long as a small layer takes in
all. So helpers stay awake for a moment after a call, at the gate of the next;
kernels open it (``_ext/team.h``) and need no interpreter to be helped.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

import numpy as np

from fastconv._ext import team as _ext

#: Helpers the pool may ever hold; a call for more threads is served by these.
MAX_HELPERS = 63
#: Looks at the gate before a helper sleeps: about 300 us, or a few where there are more helpers than CPUs.
_TURNS, _FEW_TURNS = 10_000, 100


class _State:
    """All that threads share; made anew in the child of a fork, which has none of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: ThreadPoolExecutor | None = None
        self.hired = 0
        self.gate = np.zeros(_ext.WORDS, np.intp)
        self.gate[_ext.OPEN] = _ext.SHUT
        self.address: int = self.gate.ctypes.data


def submit(futures: list[Future], helpers: int, work: Callable[..., None], *args: object) -> None:
    """`work` in up to so many threads of the pool; `futures` has them, even where this is interrupted."""
    state = _state
    if state.pool is None:
        with state.lock:
            state.pool = state.pool or ThreadPoolExecutor(MAX_HELPERS, thread_name_prefix="fastconv")
    # At interpreter shutdown, or where no thread can be started, the caller does it all.
    with suppress(RuntimeError):
        for _ in range(helpers):
            futures.append(state.pool.submit(work, *args))


def gather(futures: list[Future]) -> None:
    """Take back who never started; wait for the others, which may still write, whatever interrupts that."""
    interrupt: BaseException | None = None
    for future in futures:
        while not (future.cancel() or future.done()):
            try:
                wait([future])
            except BaseException as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt
    for future in futures:
        if not future.cancelled():
            future.result()


def words(helpers: int) -> np.ndarray:
    """What a kernel shares its work by, with so many helpers: see ``fc_share``. They are seen to, too."""
    state = _state
    if helpers > state.hired:
        with state.lock:
            missing = max(0, helpers - state.hired)
            state.hired += missing
        started: list[Future] = []
        try:
            submit(started, missing, _help, state, _TURNS if helpers < _cpu_count() else _FEW_TURNS)
        finally:
            if len(started) < missing:
                with state.lock:
                    state.hired -= missing - len(started)
    return np.array([0, 0, helpers, state.address], np.intp)


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _help(state: _State, turns: int) -> None:
    try:
        _ext.help(state.gate, turns)
    finally:
        with state.lock:
            state.hired -= 1


def _forget() -> None:
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

_state = _State()
