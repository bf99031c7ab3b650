"""The threads of the process, and how a call hears signals.

All of it is compiled, because Python runs signal handlers, which may raise, only between instructions of Python code:
nothing here is left half done.
"""

from _thread import start_new_thread
from queue import SimpleQueue

from cpython.bytearray cimport PyByteArray_FromStringAndSize


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int PyErr_CheckSignals() noexcept
    void PyErr_SetString(object kind, const char* message) noexcept


#: Words of a call, for tests: the milliseconds between looks, and whether a signal handler stopped it.
PERIOD, STOP = FC_PERIOD, FC_STOP


cdef enum:
    MILLISECONDS = 50  # from a look at signals to the next
    LOST = 1 << 24  # more helpers than can have joined a call


cdef int poll(Py_ssize_t* words) noexcept nogil:
    """Every so often the thread that called looks whether there are signals, whose handlers it then runs."""
    cdef size_t now
    if <Py_ssize_t> PyThread_get_thread_ident() != words[FC_CALLER]:
        return 0
    now = fc_milliseconds()
    # A call that ends before long does not ask for the interpreter's lock.
    if words[FC_DUE] == 0:
        words[FC_DUE] = <Py_ssize_t> now + words[FC_PERIOD]
        return 0
    if <Py_ssize_t> (now - <size_t> words[FC_DUE]) < 0:
        return 0
    words[FC_DUE] = <Py_ssize_t> now + words[FC_PERIOD]
    return run_handlers(words)


cdef int run_handlers(Py_ssize_t* words) noexcept with gil:
    """Whether one of them raised; the exception stays set, and `fc_share` tells the call that it is."""
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
    """Up to `most` helpers: threads that wait, awake for a moment, to share the next call.

    A helper looks at the gate `turns` times, or `few_turns` where there are more threads than ``cpus()``, before it
    sleeps there; where the system has no futex, it leaves the gate for a queue, which wakes it more slowly.
    `main` is the thread that hears signals. No other asks for the interpreter's lock within a call: at shutdown that
    would end it there, while helpers still read what lies on its stack.
    """

    cdef Py_ssize_t[FC_GATE_WORDS] _gate
    cdef Py_ssize_t _most, _turns, _few_turns, _calls
    cdef unsigned long _main
    cdef object _queue, _cpus
    #: Threads there are, and how many of them are at the gate or about to go there.
    cdef readonly Py_ssize_t threads, hired

    def __init__(self, Py_ssize_t most, Py_ssize_t turns, Py_ssize_t few_turns, cpus, unsigned long main):
        self._most, self._turns, self._few_turns, self._cpus, self._main = most, turns, few_turns, cpus, main
        self._queue = SimpleQueue()
        self._gate[FC_OPEN] = FC_SHUT

    @property
    def naps(self):
        """How often a call slept until its helpers had finished."""
        return fc_peek(&self._gate[FC_NAPS])

    def words(self, Py_ssize_t helpers, Py_ssize_t grain):
        """What a kernel shares its work by, with so many helpers, who are seen to: see ``fc_share``."""
        cdef Py_ssize_t[FC_WORDS] words
        # A helper that is about to leave sees that there is another call.
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
        # Handlers may raise in what is called here, before anything is changed.
        cdef Py_ssize_t turns = self._turns if helpers < self._cpus() else self._few_turns
        while self.threads < helpers:
            try:
                start_new_thread(serve, (self,))
            except RuntimeError:
                pass  # no thread can be had, as at interpreter shutdown: callers do the work themselves
            self.threads += 1
        while self.hired < helpers:
            self._queue.put(turns)
            self.hired += 1

    cdef object _help(self, Py_ssize_t turns):
        cdef Py_ssize_t calls = -1
        # The last look and leaving are one step under the interpreter's lock: no caller counts on who has left.
        while calls != self._calls:
            calls = self._calls
            with nogil:
                fc_help(&self._gate[0], turns)
        self.hired -= 1

    def lose(self):
        """In the child of a fork, which has no helpers: a call that a signal handler interrupted waits for none."""
        fc_swap(&self._gate[FC_FINISHED], LOST)


def alone():
    """The words of a call that nobody helps."""
    cdef Py_ssize_t[FC_WORDS] words
    fc_alone(words)
    return PyByteArray_FromStringAndSize(<char*> words, sizeof(words))


def serve(Team team):
    """What a helper does."""
    while True:
        team._help(team._queue.get())
