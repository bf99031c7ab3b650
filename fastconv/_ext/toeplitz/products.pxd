# The workers that multiply by the matrix, and that sum the gradient of its weights.

from libc.stdint cimport int64_t

from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport fc_new_worker, fc_next_chunk, fc_work_queue, fc_worker
from fastconv._ext.toeplitz.lists cimport Maker, list_row
from fastconv._ext.toeplitz.matrix cimport (
    FC_CHUNK, Matrix, Segment, fc_collect_t, fc_contract_t, fc_contraction, fc_spmm, fc_spmm_t,
)


# The arguments of a product, which all of its threads read.
cdef struct Product:
    fc_spmm p
    fc_spmm_t kernel
    Py_ssize_t rows
    fc_work_queue* queue


cdef inline void products_worker(void* task) noexcept nogil:
    cdef const Product* t = <const Product*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.rows)
    while begin < t.rows:
        t.kernel(&t.p, begin, min(begin + grain, t.rows))
        begin = fc_next_chunk(t.queue, &worker, t.rows)


cdef enum:
    SUMMED = 256   # the number of products that a lane adds up before the sum is added to a double


# The arguments of a call of `gradient`, which all of its threads read.
cdef struct Gradient:
    Matrix m               # the matrix; an entry is the number of a weight instead of the weight itself
    fc_contract_t contract
    fc_collect_t collect
    const char* x
    const char* dy
    char* dw
    Py_ssize_t width
    Py_ssize_t lanes
    Py_ssize_t block       # the number of channels of a work item
    Py_ssize_t blocks
    Py_ssize_t itemsize
    # The workspaces. Each has a vector of sums and a total for each weight. It also has the value, the column and the
    # weight number of each entry of a list.
    char* space
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    fc_work_queue* queue


cdef inline Py_ssize_t slots_space(Py_ssize_t slots) noexcept nogil:
    return slots * 64 + (slots + FC_CHUNK) * 32


cdef inline void gradients_worker(void* task) noexcept nogil:
    cdef const Gradient* t = <const Gradient*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t total = t.m.total * t.blocks, grain = t.queue.grain
    cdef Py_ssize_t begin = fc_next_chunk(t.queue, &worker, total), item
    while begin < total:
        fc_check(worker.id < t.workspaces)
        for item in range(begin, min(begin + grain, total)):
            gradient_of(t, item // t.blocks, item % t.blocks * t.block, t.space + worker.id * t.space_pitch)
        begin = fc_next_chunk(t.queue, &worker, total)


cdef inline void gradient_of(const Gradient* t, Py_ssize_t row, Py_ssize_t channel, char* space) noexcept nogil:
    """Compute the gradient of one row of weights for up to `block` channels, starting with channel `channel`."""
    cdef Matrix m = t.m
    cdef Py_ssize_t i, j, k, a, b, line, cell, n, done = 0
    cdef Py_ssize_t slots = min(t.block, m.cols - channel) * m.taps, most = t.block * m.taps
    cdef double* totals = <double*> (space + most * 64)
    cdef double* counted = totals + most + FC_CHUNK
    cdef int64_t* columns = <int64_t*> (counted + most + FC_CHUNK)
    cdef int64_t* slots_of_entries = columns + most + FC_CHUNK
    cdef Py_ssize_t cells = (row // m.rows * m.cols + channel) * m.cells, at = (row * m.cols + channel) * m.taps
    cdef const Segment* d
    cdef const Segment* h
    cdef const Segment* s
    cdef fc_contraction c
    cdef Maker maker
    maker.few, maker.visits, maker.values, maker.columns = False, 0, <char*> counted, <char*> columns
    m.cols = min(t.block, m.cols - channel)
    c.columns, c.slots, c.width, c.sums = columns, slots_of_entries, t.width, <void*> space
    for i in range(slots):
        totals[i] = 0
    for i in range(slots * 64):
        space[i] = 0
    for i in range(m.d.segments):
        d = m.d.segment + i
        for j in range(m.h.segments):
            h = m.h.segment + j
            for k in range(m.w.segments):
                s = m.w.segment + k
                n = list_row(&m, 0, d, h, s, &maker)
                if not n:
                    continue
                for a in range(n):
                    slots_of_entries[a] = <int64_t> counted[a] - 1
                c.n, c.x_step, c.dy_step, c.count = n, s.base_step, s.step, s.count
                for a in range(d.count):
                    for b in range(h.count):
                        line = (d.start + a * d.step) * m.h.positions + h.start + b * h.step
                        cell = ((d.base + a * d.base_step) * m.h.limit + h.base + b * h.base_step) * m.w.limit + s.base
                        c.x = t.x + (cells + cell) * t.width * t.itemsize
                        c.dy = t.dy + (row * m.plane + line * m.w.positions + s.start) * t.width * t.itemsize
                        t.contract(&c)
                        done += s.count * t.width // t.lanes
                        if done >= SUMMED:
                            t.collect(space, totals, slots)
                            done = 0
    t.collect(space, totals, slots)
    fc_check(at + slots <= t.m.total * t.m.cols * m.taps)
    for i in range(slots):
        if t.itemsize == 8:
            (<double*> t.dw)[at + i] = totals[i]
        else:
            (<float*> t.dw)[at + i] = <float> totals[i]
