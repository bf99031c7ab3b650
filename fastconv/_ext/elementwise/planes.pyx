"""Sums and maxima of whole planes, computed with vectors at the speed of memory. A plane is one channel of one image.

`queue` is the shared state of the call, which distributes the work among threads: see threads/team.h. `dtype` is 0
(float32) or 1 (float64).
"""

from libc.stdint cimport int32_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_serial_queue, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "elementwise/planes.h" nogil:
    ctypedef double (*fc_total_t)(const void* source, Py_ssize_t n) noexcept nogil
    ctypedef Py_ssize_t (*fc_highest_t)(const void* source, Py_ssize_t n) noexcept nogil

    ctypedef struct fc_planes_kernels:
        fc_total_t total
        fc_highest_t highest

    const fc_planes_kernels* fc_planes_for(int dtype, int isa)


# The arguments of a call, which all threads of the call read. A plane is one channel of one image.
cdef struct Reduction:
    fc_total_t total
    fc_highest_t highest
    const void* x
    void* out            # the result: doubles for the function `totals`, otherwise elements of the dtype of x
    int32_t* indices
    Py_ssize_t planes    # the number of planes or, for the function `channels`, of channels
    Py_ssize_t images    # the number of images; used by the function `channels` only
    Py_ssize_t cells     # the number of elements of a plane
    fc_work_queue* queue


def totals(int dtype, x, sums, int isa, queue):
    """Compute the sum of each row of x (P, n), and write it to sums (P,), in float64. `dtype` is the dtype of x."""
    cdef Reduction r
    cdef Buffer source = contiguous_buffer(x, 8 if dtype else 4, False)
    cdef Buffer result = contiguous_buffer(sums, sizeof(double), True)
    r.total = fc_planes_for(dtype, isa).total
    r.x, r.out, r.planes, r.cells = source.at, result.at, result.n, source.n // result.n
    r.queue = work_queue(queue)
    with nogil:
        fc_check(source.n == r.planes * r.cells)
        fc_parallel_for(r.queue, totals_of_double if dtype else totals_of_float, &r)


cdef void totals_of_float(void* task) noexcept nogil:
    totals_worker(<const Reduction*> task, <float*> NULL)


cdef void totals_of_double(void* task) noexcept nogil:
    totals_worker(<const Reduction*> task, <double*> NULL)


cdef void totals_worker(const Reduction* r, floating* dtype) noexcept nogil:
    cdef const floating* x = <const floating*> r.x
    cdef double* sums = <double*> r.out
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.planes), p
    while begin < r.planes:
        for p in range(begin, min(begin + grain, r.planes)):
            sums[p] = r.total(x + p * r.cells, r.cells)
        begin = fc_next_chunk(r.queue, &worker, r.planes)


def channels(int dtype, x, out, Py_ssize_t images, int isa, queue):
    """Compute the sum of each channel of x (N, C, ...) over all images, and write it to out (C,). The terms are added
    up in double precision.

    x and out are of `dtype`, 0 (float32) or 1 (float64).
    """
    cdef Reduction r
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef fc_work_queue own
    cdef Buffer source = contiguous_buffer(x, itemsize, False), sums = contiguous_buffer(out, itemsize, True)
    r.queue = &own
    if queue is None:
        fc_serial_queue(&own)
    else:
        r.queue = work_queue(queue)
    with nogil:
        r.total = fc_planes_for(dtype, isa).total
        r.x, r.out, r.planes, r.images = source.at, sums.at, sums.n, images
        r.cells = source.n // (images * sums.n)
        fc_parallel_for(r.queue, channels_of_double if dtype else channels_of_float, &r)


cdef void channels_of_float(void* task) noexcept nogil:
    channels_worker(<const Reduction*> task, <float*> NULL)


cdef void channels_of_double(void* task) noexcept nogil:
    channels_worker(<const Reduction*> task, <double*> NULL)


cdef void channels_worker(const Reduction* r, floating* dtype) noexcept nogil:
    cdef const floating* x = <const floating*> r.x
    cdef floating* sums = <floating*> r.out
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.planes), p, n
    cdef double total
    while begin < r.planes:
        for p in range(begin, min(begin + grain, r.planes)):
            total = 0
            for n in range(r.images):
                total += r.total(x + (n * r.planes + p) * r.cells, r.cells)
            sums[p] = <floating> total
        begin = fc_next_chunk(r.queue, &worker, r.planes)


def highest(int dtype, x, out, indices, int isa, queue):
    """Write the maximum of each row of x (P, n) to out (P,), and its index to indices (P,), which is of int32.

    The first of equal maxima is chosen. In a row with NaN, the first NaN is the maximum.
    """
    cdef Reduction r
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Buffer source = contiguous_buffer(x, itemsize, False), result = contiguous_buffer(out, itemsize, True)
    cdef Buffer of_indices = contiguous_buffer(indices, sizeof(int32_t), True)
    r.highest = fc_planes_for(dtype, isa).highest
    r.x, r.out, r.indices, r.planes = source.at, result.at, <int32_t*> of_indices.at, result.n
    r.cells, r.queue = source.n // result.n, work_queue(queue)
    with nogil:
        fc_check(of_indices.n == r.planes and source.n == r.planes * r.cells)
        fc_parallel_for(r.queue, highest_of_double if dtype else highest_of_float, &r)


cdef void highest_of_float(void* task) noexcept nogil:
    highest_worker(<const Reduction*> task, <float*> NULL)


cdef void highest_of_double(void* task) noexcept nogil:
    highest_worker(<const Reduction*> task, <double*> NULL)


cdef void highest_worker(const Reduction* r, floating* dtype) noexcept nogil:
    cdef const floating* x = <const floating*> r.x
    cdef floating* out = <floating*> r.out
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.planes), p, at
    while begin < r.planes:
        for p in range(begin, min(begin + grain, r.planes)):
            at = r.highest(x + p * r.cells, r.cells)
            out[p] = x[p * r.cells + at]
            r.indices[p] = <int32_t> at
        begin = fc_next_chunk(r.queue, &worker, r.planes)
