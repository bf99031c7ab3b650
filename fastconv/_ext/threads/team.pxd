# The functions by which the threads of a call share its work: see team.h.

from fastconv._ext.buffers.arrays cimport index_pointer


cdef extern from "threads/team.h" nogil:
    enum:
        FC_CLOSED
        FC_STOP_INDEX
        FC_POLL_PERIOD_INDEX

    ctypedef struct fc_broadcast_slot:
        Py_ssize_t joined
        Py_ssize_t finished
        Py_ssize_t times_waited

    ctypedef struct fc_work_queue:
        Py_ssize_t chunks_taken
        Py_ssize_t workers
        Py_ssize_t helpers_wanted
        fc_broadcast_slot* slot
        Py_ssize_t grain
        int (*poll)(fc_work_queue* queue) noexcept nogil
        Py_ssize_t next_poll
        Py_ssize_t calling_thread
        Py_ssize_t stop
        Py_ssize_t poll_period

    ctypedef struct fc_worker:
        Py_ssize_t id

    ctypedef void (*fc_task_function)(void* task) noexcept nogil
    void fc_serial_queue(fc_work_queue* queue) noexcept
    int fc_parallel_for(fc_work_queue* queue, fc_task_function work, void* task) except -1
    bint fc_stopped(fc_work_queue* queue) noexcept
    Py_ssize_t fc_worker_id(fc_work_queue* queue) noexcept
    fc_worker fc_new_worker(fc_work_queue* queue) noexcept
    Py_ssize_t fc_next_chunk(fc_work_queue* queue, fc_worker* worker, Py_ssize_t total) noexcept
    Py_ssize_t fc_next_item(fc_work_queue* queue, Py_ssize_t total) noexcept
    Py_ssize_t fc_atomic_load(const Py_ssize_t* word) noexcept
    Py_ssize_t fc_atomic_exchange(Py_ssize_t* word, Py_ssize_t n) noexcept
    void fc_run_helper(fc_broadcast_slot* slot, Py_ssize_t spins) noexcept
    size_t fc_milliseconds() noexcept


cdef inline fc_work_queue* work_queue(object state) except NULL:
    """Return a pointer to the work queue in `state`, a bytearray from `ThreadPool.work_queue` or `serial_queue`."""
    return <fc_work_queue*> index_pointer(state)
