"""The worker threads of the process, and the handling of signals during calls.

This module is compiled, because Python runs signal handlers only between Python instructions. So a handler that raises
an exception cannot interrupt the functions below in the middle of an update.
"""

from _thread import start_new_thread
from queue import SimpleQueue

from cpython.bytearray cimport PyByteArray_FromStringAndSize


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int PyErr_CheckSignals() noexcept
    void PyErr_SetString(object kind, const char* message) noexcept


#: The indices of two fields, for tests that read a work queue as an array of integers. PERIOD is the time between two
#: checks for signals in milliseconds. STOP is nonzero if a signal handler stopped the call.
PERIOD, STOP = FC_POLL_PERIOD_INDEX, FC_STOP_INDEX


cdef enum:
    MILLISECONDS = 50  # The time between two checks for signals.
    # No call has this many helpers. If the number of finished helpers is LOST, the process was forked during a call.
    LOST = 1 << 24


cdef int poll(fc_work_queue* queue) noexcept nogil:
    """Run the handlers of pending signals if `poll` runs in the calling thread, and if about 50 ms have passed since
    the last check. Return whether a handler raised an exception.
    """
    cdef size_t now
    if <Py_ssize_t> PyThread_get_thread_ident() != queue.calling_thread:
        return 0
    now = fc_milliseconds()
    # The first check only sets the time of the next check, so that a short call never takes the GIL.
    if queue.next_poll == 0:
        queue.next_poll = <Py_ssize_t> now + queue.poll_period
        return 0
    if <Py_ssize_t> (now - <size_t> queue.next_poll) < 0:
        return 0
    queue.next_poll = <Py_ssize_t> now + queue.poll_period
    return run_handlers(queue)


cdef int run_handlers(fc_work_queue* queue) noexcept with gil:
    """Run the handlers of pending signals, and return whether a handler raised an exception. In that case, the
    exception stays set, and `fc_parallel_for` returns -1.
    """
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

    A worker checks the slot `spins` times before it sleeps, or `few_spins` times if there are more threads than
    ``cpus()``. It sleeps at the futex of the slot or, on a system without futexes, at a queue, which wakes the worker
    more slowly.

    Only calls from the thread `main` check for signals. Calls from other threads never take the GIL, because at
    interpreter shutdown taking the GIL would end the thread while its helpers still read its stack.
    """

    cdef fc_broadcast_slot _slot
    cdef Py_ssize_t _most, _spins, _few_spins, _calls
    cdef unsigned long _main
    cdef object _queue, _cpus
    #: The number of worker threads, and the number of workers that are checking the broadcast slot or are about to
    #: start checking it.
    cdef readonly Py_ssize_t threads, active_workers

    def __init__(self, Py_ssize_t most, Py_ssize_t spins, Py_ssize_t few_spins, cpus, unsigned long main):
        self._most, self._spins, self._few_spins, self._cpus, self._main = most, spins, few_spins, cpus, main
        self._queue = SimpleQueue()
        self._slot.joined = FC_CLOSED

    @property
    def caller_waits(self):
        """The number of times that a calling thread slept while its helpers finished."""
        return fc_atomic_load(&self._slot.times_waited)

    def work_queue(self, Py_ssize_t helpers, Py_ssize_t grain):
        """Return the work queue of a call with up to `helpers` helpers (see ``fc_parallel_for``). If too few workers
        are active, start or wake more.
        """
        cdef fc_work_queue queue
        # Before a worker stops watching the broadcast slot, it checks this count. If a new call has started, the worker
        # continues to watch the slot.
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
        # Call cpus() before any state changes, because cpus() runs Python code, and a signal handler may raise there.
        cdef Py_ssize_t spins = self._spins if helpers < self._cpus() else self._few_spins
        while self.threads < helpers:
            try:
                start_new_thread(serve, (self,))
            except RuntimeError:
                # No thread can be started, for example at interpreter shutdown. The calling thread then works alone.
                break
            self.threads += 1
        while self.active_workers < min(helpers, self.threads):
            self._queue.put(spins)
            self.active_workers += 1

    cdef object _run_helper(self, Py_ssize_t spins):
        cdef Py_ssize_t calls = -1
        # The GIL is not released between the last check of the loop and the decrement of `active_workers`. So no new
        # call can count a worker that has already left the loop.
        while calls != self._calls:
            calls = self._calls
            with nogil:
                fc_run_helper(&self._slot, spins)
        self.active_workers -= 1

    def abandon(self):
        """Let a call stop waiting for its helpers. A forked child process calls this function, because it has no worker
        threads. If the parent process forked in a signal handler during a call, the call would otherwise wait forever
        in the child process.
        """
        fc_atomic_exchange(&self._slot.finished, LOST)


def serial_queue():
    """Return the work queue of a call that only the calling thread works on."""
    cdef fc_work_queue queue
    fc_serial_queue(&queue)
    return PyByteArray_FromStringAndSize(<char*> &queue, sizeof(queue))


def serve(ThreadPool team):
    """Run the main loop of a worker thread."""
    while True:
        team._run_helper(team._queue.get())
