"""The threads of the process, and how they are called.

Their tasks come from a queue. A thread takes some 50 us to be woken by it, as long
as a small layer takes in all; so one task is to stay at a gate, which kernels open
(``_ext/team.h``) and need no interpreter to be helped: awake for a moment after
each call, then asleep there until the next one's bell.

Queue and locks are those that C implements: a Ctrl-C never leaves one of them
half taken, as it may with what Python implements (a thread pool's semaphore, for one).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

import numpy as np

from fastconv._ext import team as _ext

#: Helpers there may ever be; a call for more threads is served by these.
MAX_HELPERS = 63
#: Looks at the gate before a helper sleeps there, or leaves where no bell would wake it: about 300 us, or a few
#: where there are more helpers than CPUs.
_TURNS, _FEW_TURNS = 10_000, 100


class Task:
    """A call that a helper makes, unless its caller takes it back before."""

    __slots__ = ("_args", "_call", "_done", "_error", "_owned")

    def __init__(self, call: Callable[..., None], *args: object) -> None:
        self._call, self._args = call, args
        self._error: BaseException | None = None
        self._owned, self._done = threading.Lock(), threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """In a helper; what it raises is for the caller to hear."""
        if not self._owned.acquire(blocking=False):
            return
        try:
            self._call(*self._args)
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()

    def take_back(self) -> bool:
        """Whether no helper has begun it; now none will."""
        return self._owned.acquire(blocking=False)

    def wait(self) -> BaseException | None:
        """Until the helper that began it has ended; what it raised."""
        with self._done:
            return self._error


class _State:
    """All that threads share; made anew in the child of a fork, which has none of them."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Task] = SimpleQueue()
        self.lock = threading.Lock()
        self.threads = 0
        self.hired = 0
        self.calls = 0
        self.gate = np.zeros(_ext.GATE_WORDS, np.intp)
        self.gate[_ext.OPEN] = _ext.SHUT
        self.address: int = self.gate.ctypes.data


def submit(tasks: list[Task]) -> None:
    """Hand tasks to as many helpers, who leave the gate for them."""
    state = _state
    _enlist(state, len(tasks))
    for task in tasks:
        state.tasks.put(task)
    _ext.call_away(state.gate, MAX_HELPERS)


def gather(tasks: list[Task]) -> None:
    """Take back what no helper has begun; wait for the rest, which may still write, whatever interrupts that."""
    begun = [task for task in tasks if not task.take_back()]
    raised: BaseException | None = None
    while begun:
        try:
            raised = begun[-1].wait() or raised
            begun.pop()
        except KeyboardInterrupt as error:
            raised = error
    if raised is not None:
        raise raised


def alone() -> bytearray:
    """What a kernel that nobody helps draws its work by; made and read in a quarter of the time of an array."""
    return _NOBODY.copy()


def words(helpers: int, grain: int) -> np.ndarray:
    """What a kernel shares its work by, with so many helpers: see ``fc_share``. They are seen to, too."""
    state = _state
    state.calls += 1
    if helpers > state.hired:
        _enlist(state, helpers)
        turns = _TURNS if helpers < _cpu_count() else _FEW_TURNS
        for _ in range(helpers - state.hired):
            state.tasks.put(Task(_help, state, turns))
            with state.lock:
                state.hired += 1
    words = np.zeros(_ext.WORDS, np.intp)
    words[_ext.WANTED], words[_ext.GATE], words[_ext.GRAIN] = helpers, state.address, grain
    return words


def _help(state: _State, turns: int) -> None:
    # Two callers at once may hire one helper too many, who finds nothing to do.
    try:
        called, away = -1, state.gate[_ext.AWAY]
        # Who is about to leave waits for the interpreter's lock while a caller that counts on him goes ahead.
        while called != state.calls and away == state.gate[_ext.AWAY]:
            called = state.calls
            _ext.help(state.gate, turns)
    finally:
        with state.lock:
            state.hired -= 1


def _enlist(state: _State, helpers: int) -> None:
    """See to it that there are so many threads; at interpreter shutdown the caller does it all."""
    while state.threads < min(helpers, MAX_HELPERS):
        with suppress(RuntimeError):
            threading.Thread(target=_serve, args=(state,), name="fastconv", daemon=True).start()
        state.threads += 1


def _serve(state: _State) -> None:
    while True:
        state.tasks.get().run()


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _forget() -> None:
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

# As many pieces at a time as there are, or nearly so: what kernels make of this number has to fit 32 bits.
_NOBODY = bytearray(np.array([1 << 16 if word == _ext.GRAIN else 0 for word in range(_ext.WORDS)], np.intp).tobytes())
_state = _State()
