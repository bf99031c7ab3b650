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
PERIOD, STOP = FC_POLL_PERIOD_INDEX, FC_STOP_INDEX


cdef enum:
    MILLISECONDS = 50  # The time between two checks for signals.
    LOST = 1 << 24  # A count that is larger than any number of workers of a call.


cdef int poll(fc_work_queue* queue) noexcept nogil:
    """About every 50 ms, run the handlers of pending signals in the calling thread. Returns whether a handler raised.
    """
    cdef size_t now
    if <Py_ssize_t> PyThread_get_thread_ident() != queue.calling_thread:
        return 0
    now = fc_milliseconds()
    # The first check only sets the time of the next, so a short call never takes the GIL.
    if queue.next_poll == 0:
        queue.next_poll = <Py_ssize_t> now + queue.poll_period
        return 0
    if <Py_ssize_t> (now - <size_t> queue.next_poll) < 0:
        return 0
    queue.next_poll = <Py_ssize_t> now + queue.poll_period
    return run_handlers(queue)


cdef int run_handlers(fc_work_queue* queue) noexcept with gil:
    """Return whether a handler raised. The exception stays set, and `fc_parallel_for` returns -1."""
    cdef fc_broadcast_slot* slot = queue.slot
    if PyErr_CheckSignals() != 0:
        return 1
    if slot != NULL and slot.finished >= LOST:
        lost()
        return 1
    return 0


cdef void lost() noexcept:
    PyErr_SetString(
        RuntimeError, "a signal handler forked during a call of fastconv: its threads are not in the child process"
    )


cdef class ThreadPool:
    """A pool of up to `most` worker threads, which join calls at the broadcast slot (see team.h).

    A worker checks the slot `spins` times, or `few_spins` times if there are more threads than ``cpus()``, before it
    sleeps there. On a system without futexes it waits at a queue instead, which wakes it more slowly. `main` is the
    thread that checks for signals. No other thread takes the GIL within a call, because at interpreter shutdown taking
    the GIL would end that thread while workers still read its stack.
    """

    cdef fc_broadcast_slot _slot
    cdef Py_ssize_t _most, _spins, _few_spins, _calls
    cdef unsigned long _main
    cdef object _queue, _cpus
    #: The number of worker threads, and the number of active workers, which are at the broadcast slot or about to go
    #: there.
    cdef readonly Py_ssize_t threads, active_workers

    def __init__(self, Py_ssize_t most, Py_ssize_t spins, Py_ssize_t few_spins, cpus, unsigned long main):
        self._most, self._spins, self._few_spins, self._cpus, self._main = most, spins, few_spins, cpus, main
        self._queue = SimpleQueue()
        self._slot.joined = FC_CLOSED

    @property
    def caller_waits(self):
        """How often a caller slept until its workers had finished."""
        return fc_atomic_load(&self._slot.times_waited)

    def work_queue(self, Py_ssize_t helpers, Py_ssize_t grain):
        """Return the shared state of a call with `helpers` workers (see ``fc_parallel_for``), and start missing
        workers.
        """
        cdef fc_work_queue queue
        # A worker that is about to leave the broadcast slot sees by this count that there is another call.
        self._calls += 1
        if helpers > self.active_workers:
            self._spawn_workers(min(helpers, self._most))
        fc_serial_queue(&queue)
        queue.grain = grain
        if helpers > 0:
            queue.helpers_wanted, queue.slot = helpers, &self._slot
        if PyThread_get_thread_ident() == self._main:
            queue.poll, queue.calling_thread = poll, <Py_ssize_t> self._main
            queue.poll_period = MILLISECONDS
        return PyByteArray_FromStringAndSize(<char*> &queue, sizeof(queue))

    cdef object _spawn_workers(self, Py_ssize_t helpers):
        # cpus() runs Python code, in which a signal handler may raise, so it is called before any state changes.
        cdef Py_ssize_t spins = self._spins if helpers < self._cpus() else self._few_spins
        while self.threads < helpers:
            try:
                start_new_thread(serve, (self,))
            except RuntimeError:
                # No thread can be started, for example at interpreter shutdown; callers then do the work themselves.
                break
            self.threads += 1
        while self.active_workers < min(helpers, self.threads):
            self._queue.put(spins)
            self.active_workers += 1

    cdef object _run_helper(self, Py_ssize_t spins):
        cdef Py_ssize_t calls = -1
        # The last check and the decrement run without releasing the GIL, so no caller counts a worker that has left.
        while calls != self._calls:
            calls = self._calls
            with nogil:
                fc_run_helper(&self._slot, spins)
        self.active_workers -= 1

    def abandon(self):
        """Make a call whose signal handler forked wait for no workers. Called in the child, which has none."""
        fc_atomic_exchange(&self._slot.finished, LOST)


def serial_queue():
    """Return the shared state of a call without workers."""
    cdef fc_work_queue queue
    fc_serial_queue(&queue)
    return PyByteArray_FromStringAndSize(<char*> &queue, sizeof(queue))


def serve(ThreadPool team):
    """Run the main loop of a worker thread."""
    while True:
        team._run_helper(team._queue.get())
