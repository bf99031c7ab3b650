"""Copies of arrays that transpose axes, block by block, on several threads.

`plan` comes from fastconv.checks.copies. `queue` is the shared state of the call, which distributes the work among
threads: see threads/team.h.
"""

from cpython.buffer cimport PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "packing/copies.h" nogil:
    ctypedef struct fc_plane:
        Py_ssize_t step
        Py_ssize_t pitch
        Py_ssize_t to_pitch
        Py_ssize_t rows
        Py_ssize_t columns
        Py_ssize_t nontemporal

    ctypedef void (*fc_copy_t)(const void* source, void* to, const fc_plane* plane) noexcept nogil
    ctypedef struct fc_copies_kernels:
        fc_copy_t copy

    const fc_copies_kernels* fc_copies_for(int dtype, int isa)


cdef enum:
    HEADER = 9       # the number of integers at the start of a plan, before the integers of the outer axes
    AXIS = 3         # the number of integers that describe one outer axis


# The arguments of a copy, which all threads of the call read.
cdef struct Copy:
    const char* source
    char* to
    fc_plane plane            # the sizes and strides of the two axes that the copy transposes
    Py_ssize_t block_rows     # the number of rows of a block of a plane
    Py_ssize_t block_columns  # the number of columns of a block of a plane
    # The number of outer axes. Each outer axis has three integers: its size, its stride in the source, and its stride
    # in the copy.
    Py_ssize_t axes
    const Py_ssize_t* axis
    Py_ssize_t items
    Py_ssize_t itemsize
    fc_copy_t copy
    fc_work_queue* queue


def copy(source, to, plan, int dtype, int isa, queue):
    """Copy `source` to `to`. Both are of `dtype`, 0 (float32) or 1 (float64). `to` is C-contiguous; `source` is aligned
    and has the strides of the plan.
    """
    cdef Copy c
    cdef Py_buffer buffer
    cdef const Py_ssize_t* numbers = index_pointer(plan)
    cdef Buffer copied
    c.itemsize = 8 if dtype else 4
    copied = contiguous_buffer(to, c.itemsize, True)
    PyObject_GetBuffer(source, &buffer, PyBUF_STRIDED_RO)
    c.source, c.to = <const char*> buffer.buf, <char*> copied.at
    PyBuffer_Release(&buffer)    # The pointer stays valid, because the caller keeps the array alive.
    c.plane.step, c.plane.pitch, c.plane.to_pitch = numbers[0], numbers[1], numbers[2]
    c.plane.rows, c.plane.columns, c.block_rows, c.block_columns = numbers[3], numbers[4], numbers[5], numbers[6]
    c.axes, c.plane.nontemporal, c.axis = numbers[7], numbers[8], numbers + HEADER
    c.copy, c.queue = fc_copies_for(dtype, isa).copy, work_queue(queue)
    if elements_of(&c) != copied.n:
        raise ValueError(f"the plan copies {elements_of(&c)} elements, but the array `to` has {copied.n}")
    with nogil:
        c.items = items_of(&c)
        fc_parallel_for(c.queue, blocks_worker, &c)


cdef inline Py_ssize_t parts(Py_ssize_t size, Py_ssize_t block) noexcept nogil:
    return (size + block - 1) // block


cdef Py_ssize_t items_of(const Copy* c) noexcept nogil:
    cdef Py_ssize_t items = parts(c.plane.rows, c.block_rows) * parts(c.plane.columns, c.block_columns), i
    for i in range(c.axes):
        items *= c.axis[AXIS * i]
    return items


cdef Py_ssize_t elements_of(const Copy* c) noexcept nogil:
    cdef Py_ssize_t elements = c.plane.rows * c.plane.columns, i
    for i in range(c.axes):
        elements *= c.axis[AXIS * i]
    return elements


cdef void blocks_worker(void* task) noexcept nogil:
    cdef const Copy* c = <const Copy*> task
    cdef fc_worker worker = fc_new_worker(c.queue)
    cdef Py_ssize_t grain = c.queue.grain, begin = fc_next_chunk(c.queue, &worker, c.items), item
    while begin < c.items:
        for item in range(begin, min(begin + grain, c.items)):
            copy_block(c, item)
        begin = fc_next_chunk(c.queue, &worker, c.items)


cdef void copy_block(const Copy* c, Py_ssize_t item) noexcept nogil:
    """Copy one block of a plane. `item` is the index of the block among the blocks of all planes.

    The blocks of a plane are numbered down the first column of blocks, then down the next column, and so on. If columns
    of the source are contiguous, a block and the block below it share cache lines of the source.
    """
    cdef fc_plane plane = c.plane
    cdef Py_ssize_t across = parts(plane.columns, c.block_columns), down = parts(plane.rows, c.block_rows), i, at
    cdef Py_ssize_t first = item // down % across * c.block_columns, top = item % down * c.block_rows
    cdef Py_ssize_t source = top * plane.step + first * plane.pitch, to = top * plane.to_pitch + first
    item //= across * down
    for i in range(c.axes - 1, -1, -1):
        at = item % c.axis[AXIS * i]
        item //= c.axis[AXIS * i]
        source += at * c.axis[AXIS * i + 1]
        to += at * c.axis[AXIS * i + 2]
    plane.rows, plane.columns = min(c.block_rows, plane.rows - top), min(c.block_columns, plane.columns - first)
    c.copy(c.source + source * c.itemsize, c.to + to * c.itemsize, &plane)
