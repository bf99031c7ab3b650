"""Copies of arrays that transpose axes, block by block, on several threads.

fastconv.checks.copies makes one plan for each layout. `queue` distributes the blocks of a call among threads: see
threads/team.h.
"""

from cpython.buffer cimport PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
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
    MOST_AXES = 64    # The largest number of axes of an array of NumPy.


# An axis other than the two axes that the copy transposes. Strides are numbers of elements.
cdef struct OuterAxis:
    Py_ssize_t size
    Py_ssize_t stride      # the stride in the source
    Py_ssize_t to_stride   # the stride in the copy


# The sizes of a copy.
cdef struct Sizes:
    fc_plane plane            # the sizes and strides of the two axes that the copy transposes
    Py_ssize_t block_rows     # the number of rows of a block of a plane
    Py_ssize_t block_columns  # the number of columns of a block of a plane
    Py_ssize_t n_outer
    OuterAxis[MOST_AXES] outer


# The arguments of a call, which all threads of the call read.
cdef struct Call:
    const Sizes* sizes
    const char* source
    char* to
    Py_ssize_t items
    Py_ssize_t itemsize
    fc_copy_t copy
    fc_work_queue* queue


cdef class CopyPlan:
    """The copy of an array of one shape with some strides to a C-contiguous array.

    The copy transposes planes of two axes. The rows of a plane are along the axis with the smallest stride in the
    source, and the columns along the last axis. `outer` has (size, stride, stride of the copy) for each other axis. All
    strides are numbers of elements. A work item is a block of a plane.
    """

    cdef Sizes _sizes
    cdef readonly Py_ssize_t items, elements
    cdef readonly bint nontemporal
    cdef readonly tuple block

    def __init__(
        self, *, Py_ssize_t rows, Py_ssize_t row_stride, Py_ssize_t to_row_stride, Py_ssize_t columns,
        Py_ssize_t column_stride, outer, Py_ssize_t block_rows, Py_ssize_t block_columns, bint nontemporal,
    ):
        cdef Sizes* s = &self._sizes
        cdef Py_ssize_t i
        s.plane.rows, s.plane.columns, s.plane.nontemporal = rows, columns, nontemporal
        s.plane.step, s.plane.pitch, s.plane.to_pitch = row_stride, column_stride, to_row_stride
        s.block_rows, s.block_columns, s.n_outer = block_rows, block_columns, len(outer)
        self.items = parts(rows, block_rows) * parts(columns, block_columns)
        self.elements, self.nontemporal, self.block = rows * columns, nontemporal, (block_rows, block_columns)
        for i in range(s.n_outer):
            s.outer[i].size, s.outer[i].stride, s.outer[i].to_stride = outer[i]
            self.items *= s.outer[i].size
            self.elements *= s.outer[i].size

    def run(self, source, to, int dtype, int isa, queue):
        """Copy `source` to `to`. Both are of `dtype`, 0 (float32) or 1 (float64). `source` is aligned."""
        cdef Call c
        cdef Py_buffer buffer
        cdef Buffer copied
        c.itemsize = 8 if dtype else 4
        copied = contiguous_buffer(to, c.itemsize, True)
        if self.elements != copied.n:
            raise ValueError(f"the plan copies {self.elements} elements, but the array `to` has {copied.n}")
        PyObject_GetBuffer(source, &buffer, PyBUF_STRIDED_RO)
        c.source, c.to = <const char*> buffer.buf, <char*> copied.at
        PyBuffer_Release(&buffer)    # The pointer stays valid, because the caller keeps the array alive.
        c.sizes, c.items = &self._sizes, self.items
        c.copy, c.queue = fc_copies_for(dtype, isa).copy, work_queue(queue)
        with nogil:
            fc_parallel_for(c.queue, blocks_worker, &c)


cdef inline Py_ssize_t parts(Py_ssize_t size, Py_ssize_t block) noexcept nogil:
    return (size + block - 1) // block


cdef void blocks_worker(void* task) noexcept nogil:
    cdef const Call* c = <const Call*> task
    cdef fc_worker worker = fc_new_worker(c.queue)
    cdef Py_ssize_t grain = c.queue.grain, begin = fc_next_chunk(c.queue, &worker, c.items), item
    while begin < c.items:
        for item in range(begin, min(begin + grain, c.items)):
            copy_block(c, item)
        begin = fc_next_chunk(c.queue, &worker, c.items)


cdef void copy_block(const Call* c, Py_ssize_t item) noexcept nogil:
    """Copy one block of a plane. `item` is the index of the block among the blocks of all planes.

    The blocks of a plane are numbered down the first column of blocks, then down the next column, and so on. If columns
    of the source are contiguous, a block and the block below it share cache lines of the source.
    """
    cdef const Sizes* s = c.sizes
    cdef fc_plane plane = s.plane
    cdef Py_ssize_t across = parts(plane.columns, s.block_columns), down = parts(plane.rows, s.block_rows), i, at
    cdef Py_ssize_t first = item // down % across * s.block_columns, top = item % down * s.block_rows
    cdef Py_ssize_t source = top * plane.step + first * plane.pitch, to = top * plane.to_pitch + first
    item //= across * down
    for i in range(s.n_outer - 1, -1, -1):
        at = item % s.outer[i].size
        item //= s.outer[i].size
        source += at * s.outer[i].stride
        to += at * s.outer[i].to_stride
    plane.rows, plane.columns = min(s.block_rows, plane.rows - top), min(s.block_columns, plane.columns - first)
    c.copy(c.source + source * c.itemsize, c.to + to * c.itemsize, &plane)
