# The workers that count the entries of the matrix, and that compute its row pointers from the counts.

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.threads.team cimport fc_new_worker, fc_next_chunk, fc_worker
from fastconv._ext.toeplitz.lists cimport Maker, Task, begin_line, begin_lists, begin_row, end_lists, is_few, list_row
from fastconv._ext.toeplitz.matrix cimport (
    Matrix, Segment, fc_count_elements, fc_count_nonzeros_t, fc_row, fc_toeplitz_for, row_of, span_of, weights_of,
)


ctypedef fused number:
    int32_t
    int64_t


cdef inline void numbers_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.m.total), row
    cdef fc_count_nonzeros_t count_nonzeros = fc_toeplitz_for(1 if t.m.itemsize == 8 else 0).count_nonzeros
    while begin < t.m.total:
        for row in range(begin, min(begin + grain, t.m.total)):
            t.counts[row] = count_nonzeros(t.m.weights + weights_of(&t.m, row) * t.m.itemsize, &t.m.weight)
        begin = fc_next_chunk(t.queue, &worker, t.m.total)


cdef inline void counts_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.m.total), row
    cdef Maker maker = begin_lists(t, worker.id)
    while begin < t.m.total:
        for row in range(begin, min(begin + grain, t.m.total)):
            count_row(t, row, &maker)
        begin = fc_next_chunk(t.queue, &worker, t.m.total)
    end_lists(t, worker.id, &maker)


cdef inline void count_row(const Task* t, Py_ssize_t row, Maker* maker) noexcept nogil:
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t i, j, k, per, total = 0, line
    cdef Py_ssize_t* counts = t.counts + row * m.d.segments * m.h.segments * m.w.segments
    cdef const Segment* d
    cdef const Segment* h
    cdef const Segment* w = m.w.segment
    cdef bint dense = t.numbers[row] == m.cols * m.d.n_keys * m.h.n_keys * m.w.n_keys
    begin_row(m, row, is_few(t, row), maker)
    for i in range(m.d.segments):
        d = m.d.segment + i
        for j in range(m.h.segments):
            h = m.h.segment + j
            if dense:
                per = m.cols * (d.end - d.begin) * (h.end - h.begin)
                for k in range(m.w.segments):
                    counts[k] = per * (w[k].end - w[k].begin)
            elif maker.few and m.mirrored:
                count_line(m, row, d, h, counts, maker)
            else:
                for k in range(m.w.segments):
                    counts[k] = list_row(m, row, d, h, w + k, maker)
            line = 0
            for k in range(m.w.segments):
                line += w[k].count * counts[k]
            total += d.count * h.count * line
            counts = counts + m.w.segments
    t.starts[row + 1] = total


cdef inline void count_line(
    const Matrix* m, Py_ssize_t row, const Segment* d, const Segment* h, Py_ssize_t* counts, Maker* maker
) noexcept nogil:
    """Count the entries for the segments d and h and each segment of the last axis. This function is
    for rows of weights with few nonzero weights, if an axis has mirrored positions. It counts the entries of most
    segments without making a list.
    """
    cdef Py_ssize_t k
    cdef fc_row r = row_of(m, d, h, m.w.segment)
    begin_line(m, d, h, maker, &r)
    for k in range(m.w.segments):
        counts[k] = maker.nonzeros.n_sorted
        if maker.nonzeros.n_groups:
            r.axis[2] = span_of(&m.w, m.w.segment + k, 1, 1)
            counts[k] = fc_count_elements(&maker.nonzeros, &r.axis[2])
            if counts[k] < 0:
                counts[k] = m.list_nonzeros(&maker.nonzeros, &r, maker.values, maker.columns)


cdef inline void indptr_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.m.total), row
    while begin < t.m.total:
        for row in range(begin, min(begin + grain, t.m.total)):
            if t.wide:
                write_indptr(t, row, <int64_t*> t.indptr)
            else:
                write_indptr(t, row, <int32_t*> t.indptr)
        begin = fc_next_chunk(t.queue, &worker, t.m.total)


cdef inline void write_indptr(const Task* t, Py_ssize_t row, number* indptr) noexcept nogil:
    """Write indptr for the matrix rows of one row of weights. The length of each matrix row is written to indptr in the
    order of the segments. The lengths are then replaced by their running sums.
    """
    cdef const Matrix* m = &t.m
    cdef const Py_ssize_t* counts = t.counts + row * m.d.segments * m.h.segments * m.w.segments
    cdef number* plane = indptr + row * m.plane
    cdef number* line
    cdef number total, length
    cdef Py_ssize_t i, j, k, a, b, c
    cdef const Segment* d
    cdef const Segment* h
    cdef const Segment* s
    if row == 0:
        indptr[0] = 0
    plane = plane + 1
    for i in range(m.d.segments):
        d = m.d.segment + i
        for j in range(m.h.segments):
            h = m.h.segment + j
            for a in range(d.count):
                for b in range(h.count):
                    line = plane + (
                        (d.start + a * d.step) * m.h.positions + h.start + b * h.step
                    ) * m.w.positions
                    for k in range(m.w.segments):
                        s, length = m.w.segment + k, <number> counts[k]
                        for c in range(s.count):
                            line[s.start + c * s.step] = length
            counts = counts + m.w.segments
    total = <number> t.starts[row]
    for i in range(m.plane):
        total += plane[i]
        plane[i] = total
