"""Padding of images by copies of their own cells (mirrored, replicated, circular), and the adjoint of this padding.

`tables` comes from fastconv.lowering.padding. `queue` is the shared state of the call, which distributes the rows among
threads: see threads/team.h.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "lowering/borders.h" nogil:
    ctypedef struct fc_borders:
        Py_ssize_t[3] size
        Py_ssize_t[3] padded
        Py_ssize_t lo
        const Py_ssize_t* cell[3]
        const Py_ssize_t* at[2]
        const Py_ssize_t* shows[2]

    ctypedef void (*fc_extend_t)(const void* x, void* padded, Py_ssize_t row, const fc_borders* borders) noexcept nogil
    ctypedef void (*fc_fold_t)(const void* padded, void* x, Py_ssize_t row, const fc_borders* borders,
                               fc_work_queue* queue) noexcept nogil
    ctypedef struct fc_borders_kernels:
        fc_extend_t extend
        fc_fold_t fold

    const fc_borders_kernels* fc_borders_for(int dtype, int isa)


cdef enum:
    HEADER = 7    # the number of sizes at the start of `tables`; the lists of indices follow the sizes


# The arguments of a call, which all threads of the call read.
cdef struct Call:
    fc_borders borders
    const void* source
    void* to
    fc_extend_t extend
    fc_fold_t fold
    Py_ssize_t rows
    fc_work_queue* queue


cdef int read_call(Call* c, source, to, tables, int dtype, bint extends, queue) except -1:
    """Set the pointers to the arrays and tables, and check their lengths, because the kernels do not check them."""
    cdef Py_ssize_t itemsize = 8 if dtype else 4, i, cells = 1, padded = 1, length = HEADER
    cdef Buffer table = contiguous_buffer(tables, sizeof(Py_ssize_t), False)
    cdef Buffer read = contiguous_buffer(source, itemsize, False), written = contiguous_buffer(to, itemsize, True)
    cdef Buffer small = read if extends else written, large = written if extends else read
    cdef const Py_ssize_t* numbers = <const Py_ssize_t*> table.at
    for i in range(3):
        c.borders.size[i], c.borders.padded[i] = numbers[i], numbers[3 + i]
        cells *= numbers[i]
        padded *= numbers[3 + i]
    c.borders.lo = numbers[6]
    for i in range(3):
        c.borders.cell[i] = numbers + length
        length += c.borders.padded[i] if i < 2 else c.borders.padded[i] - c.borders.size[i]
    for i in range(2):
        c.borders.at[i] = numbers + length
        length += c.borders.size[i] + 1
        c.borders.shows[i] = numbers + length
        length += c.borders.padded[i]
    if length != table.n or cells == 0 or small.n % cells or large.n % padded or small.n // cells != large.n // padded:
        raise ValueError(
            f"the tables of borders do not fit the arrays: a plane of x has {cells} elements, and x has {small.n}; a "
            f"padded plane has {padded} elements, and the padded array has {large.n}"
        )
    c.source, c.to, c.queue = read.at, written.at, work_queue(queue)
    c.rows = written.n // (c.borders.padded[2] if extends else c.borders.size[2])
    return 0


def extend(x, padded, tables, int dtype, int isa, queue):
    """Write the padded copies of the P planes of x (P, D, H, W) to `padded`. Both arrays are C-contiguous and of
    `dtype`, 0 (float32) or 1 (float64).
    """
    cdef Call c
    read_call(&c, x, padded, tables, dtype, True, queue)
    with nogil:
        c.extend = fc_borders_for(dtype, isa).extend
        fc_parallel_for(c.queue, extended_worker, &c)


def fold(padded, x, tables, int dtype, int isa, queue):
    """Compute the adjoint of `extend`: set each element of x to the sum of the elements of `padded` to which `extend`
    copies the element.
    """
    cdef Call c
    read_call(&c, padded, x, tables, dtype, False, queue)
    with nogil:
        c.fold = fc_borders_for(dtype, isa).fold
        fc_parallel_for(c.queue, folded_worker, &c)


cdef void extended_worker(void* task) noexcept nogil:
    cdef const Call* c = <const Call*> task
    cdef fc_worker worker = fc_new_worker(c.queue)
    cdef Py_ssize_t grain = c.queue.grain, begin = fc_next_chunk(c.queue, &worker, c.rows), row
    while begin < c.rows:
        for row in range(begin, min(begin + grain, c.rows)):
            c.extend(c.source, c.to, row, &c.borders)
        begin = fc_next_chunk(c.queue, &worker, c.rows)


cdef void folded_worker(void* task) noexcept nogil:
    cdef const Call* c = <const Call*> task
    cdef fc_worker worker = fc_new_worker(c.queue)
    cdef Py_ssize_t grain = c.queue.grain, begin = fc_next_chunk(c.queue, &worker, c.rows), row
    while begin < c.rows:
        for row in range(begin, min(begin + grain, c.rows)):
            c.fold(c.source, c.to, row, &c.borders, c.queue)
        begin = fc_next_chunk(c.queue, &worker, c.rows)
