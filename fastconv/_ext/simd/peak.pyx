"""The peak rate of multiply-adds of this machine, for benchmarks, measured with a loop that uses registers only."""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "simd/peak.h":
    ctypedef int (*fc_peak_width_t)() noexcept nogil
    ctypedef double (*fc_peak_t)(Py_ssize_t rounds, double factor) noexcept nogil

    ctypedef struct fc_peak_kernels:
        fc_peak_width_t width
        fc_peak_t peak

    const fc_peak_kernels* fc_peak_for(int dtype, int isa) noexcept nogil


cdef enum:
    ROUNDS = 10_000   # the number of iterations of the loop for one work item, which takes about 50 us


def operations(int dtype, int isa):
    """Return the number of floating-point operations of one work item. `dtype` is 0 (float32) or 1 (float64)."""
    return 2 * ROUNDS * fc_peak_for(dtype, isa).width()


# The arguments of a call, which all threads of the call read.
cdef struct Loop:
    fc_peak_t kernel
    Py_ssize_t items
    double* sums
    Py_ssize_t workspaces
    fc_work_queue* queue


def multiply_add(Py_ssize_t items, int dtype, int isa, sums, queue):
    """Run the loop for `items` work items. `queue` is the shared state of the call, which distributes the items among
    threads: see threads/team.h. `sums` is a float64 array that has one element for each thread.
    """
    cdef Loop loop
    cdef Buffer of_threads = contiguous_buffer(sums, sizeof(double), True)
    loop.kernel, loop.items, loop.queue = fc_peak_for(dtype, isa).peak, items, work_queue(queue)
    loop.sums, loop.workspaces = <double*> of_threads.at, of_threads.n
    with nogil:
        fc_parallel_for(loop.queue, items_worker, &loop)


cdef void items_worker(void* task) noexcept nogil:
    cdef const Loop* loop = <const Loop*> task
    cdef fc_worker worker = fc_new_worker(loop.queue)
    cdef Py_ssize_t grain = loop.queue.grain, begin = fc_next_chunk(loop.queue, &worker, loop.items)
    cdef double total = 0
    while begin < loop.items:
        # The factor 1e-30 is so small that adding a product does not change a sum. No product is denormal.
        total += loop.kernel(min(grain, loop.items - begin) * ROUNDS, 1e-30)
        begin = fc_next_chunk(loop.queue, &worker, loop.items)
    loop.sums[worker.id % loop.workspaces] = total
