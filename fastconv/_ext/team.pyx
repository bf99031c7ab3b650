"""The worker threads of the process, and how a call reacts to signals.

All of this is compiled code. Python runs signal handlers, which may raise, between Python instructions only, so no
exception can interrupt this code in the middle of a change.
"""

from _thread import start_new_thread
from queue import SimpleQueue

from cpython.bytearray cimport PyByteArray_FromStringAndSize


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int PyErr_CheckSignals() noexcept
    void PyErr_SetString(object kind, const char* message) noexcept


#: Indices into the shared state of a call, for tests: the milliseconds between checks for signals, and whether a signal
#: handler stopped the call.
PERIOD, STOP = FC_PERIOD, FC_STOP


cdef enum:
    MILLISECONDS = 50  # The time between two checks for signals.
    LOST = 1 << 24  # A count that is larger than any number of workers of a call.


cdef int poll(Py_ssize_t* words) noexcept nogil:
    """About every 50 ms, run the handlers of pending signals in the calling thread. Returns whether a handler raised.
    """
    cdef size_t now
    if <Py_ssize_t> PyThread_get_thread_ident() != words[FC_CALLER]:
        return 0
    now = fc_milliseconds()
    # The first check only sets the time of the next, so a short call never takes the GIL.
    if words[FC_DUE] == 0:
        words[FC_DUE] = <Py_ssize_t> now + words[FC_PERIOD]
        return 0
    if <Py_ssize_t> (now - <size_t> words[FC_DUE]) < 0:
        return 0
    words[FC_DUE] = <Py_ssize_t> now + words[FC_PERIOD]
    return run_handlers(words)


cdef int run_handlers(Py_ssize_t* words) noexcept with gil:
    """Return whether a handler raised. The exception stays set, and `fc_share` returns -1."""
    cdef Py_ssize_t* gate = <Py_ssize_t*> words[FC_GATE]
    if PyErr_CheckSignals() != 0:
        return 1
    if gate != NULL and gate[FC_FINISHED] >= LOST:
        lost()
        return 1
    return 0


cdef void lost() noexcept:
    PyErr_SetString(
        RuntimeError, "a signal handler forked during a call of fastconv: its threads are not in the child process"
    )


cdef class Team:
    """A pool of up to `most` worker threads, which join calls at the broadcast slot (see team.h).

    A worker checks the slot `turns` times, or `few_turns` times if there are more threads than ``cpus()``, before it
    sleeps there. On a system without futexes it waits at a queue instead, which wakes it more slowly. `main` is the
    thread that checks for signals. No other thread takes the GIL within a call, because at interpreter shutdown taking
    the GIL would end that thread while workers still read its stack.
    """

    cdef Py_ssize_t[FC_GATE_WORDS] _gate
    cdef Py_ssize_t _most, _turns, _few_turns, _calls
    cdef unsigned long _main
    cdef object _queue, _cpus
    #: The number of worker threads, and the number of active workers, which are at the broadcast slot or about to go
    #: there.
    cdef readonly Py_ssize_t threads, hired

    def __init__(self, Py_ssize_t most, Py_ssize_t turns, Py_ssize_t few_turns, cpus, unsigned long main):
        self._most, self._turns, self._few_turns, self._cpus, self._main = most, turns, few_turns, cpus, main
        self._queue = SimpleQueue()
        self._gate[FC_OPEN] = FC_SHUT

    @property
    def naps(self):
        """How often a caller slept until its workers had finished."""
        return fc_peek(&self._gate[FC_NAPS])

    def words(self, Py_ssize_t helpers, Py_ssize_t grain):
        """Return the shared state of a call with `helpers` workers (see ``fc_share``), and start missing workers."""
        cdef Py_ssize_t[FC_WORDS] words
        # A worker that is about to leave the broadcast slot sees by this count that there is another call.
        self._calls += 1
        if helpers > self.hired:
            self._hire(min(helpers, self._most))
        fc_alone(words)
        words[FC_GRAIN] = grain
        if helpers > 0:
            words[FC_WANTED], words[FC_GATE] = helpers, <Py_ssize_t> &self._gate[0]
        if PyThread_get_thread_ident() == self._main:
            words[FC_POLL], words[FC_CALLER] = <Py_ssize_t> <void*> poll, <Py_ssize_t> self._main
            words[FC_PERIOD] = MILLISECONDS
        return PyByteArray_FromStringAndSize(<char*> words, sizeof(words))

    cdef object _hire(self, Py_ssize_t helpers):
        # cpus() runs Python code, in which a signal handler may raise, so it is called before any state changes.
        cdef Py_ssize_t turns = self._turns if helpers < self._cpus() else self._few_turns
        while self.threads < helpers:
            try:
                start_new_thread(serve, (self,))
            except RuntimeError:
                # No thread can be started, for example at interpreter shutdown; callers then do the work themselves.
                break
            self.threads += 1
        while self.hired < min(helpers, self.threads):
            self._queue.put(turns)
            self.hired += 1

    cdef object _help(self, Py_ssize_t turns):
        cdef Py_ssize_t calls = -1
        # The last check and the decrement run without releasing the GIL, so no caller counts a worker that has left.
        while calls != self._calls:
            calls = self._calls
            with nogil:
                fc_help(&self._gate[0], turns)
        self.hired -= 1

    def lose(self):
        """Make a call whose signal handler forked wait for no workers. Called in the child, which has none."""
        fc_swap(&self._gate[FC_FINISHED], LOST)


def alone():
    """Return the shared state of a call without workers."""
    cdef Py_ssize_t[FC_WORDS] words
    fc_alone(words)
    return PyByteArray_FromStringAndSize(<char*> words, sizeof(words))


def serve(Team team):
    """Run the main loop of a worker thread."""
    while True:
        team._help(team._queue.get())
