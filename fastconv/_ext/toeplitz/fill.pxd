# The worker that writes the indices and the data of the matrix.

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport fc_new_worker, fc_next_chunk, fc_worker
from fastconv._ext.toeplitz.lists cimport (
    LISTS, Maker, Task, begin_line, begin_lists, begin_row, end_lists, is_few, list_row,
)
from fastconv._ext.toeplitz.matrix cimport Matrix, Segment, fc_row, row_of


cdef enum:
    # If a row of weights has at most this number of nonzero weights, matrix rows are written directly, because copying
    # a shared list takes longer.
    SHORT = 16


cdef inline Py_ssize_t start_of(const Task* t, Py_ssize_t row) noexcept nogil:
    return (<const int64_t*> t.indptr)[row] if t.wide else (<const int32_t*> t.indptr)[row]


cdef inline void fills_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t total = t.m.total * t.parts, grain = t.queue.grain, lines = t.m.d.positions * t.m.h.positions
    cdef Py_ssize_t begin = fc_next_chunk(t.queue, &worker, total), item, part
    cdef Maker maker = begin_lists(t, worker.id)
    while begin < total:
        for item in range(begin, min(begin + grain, total)):
            part = item % t.parts
            fill_lines(
                t, item // t.parts, part * lines // t.parts, (part + 1) * lines // t.parts, &maker
            )
        begin = fc_next_chunk(t.queue, &worker, total)
    end_lists(t, worker.id, &maker)


cdef inline void fill_lines(
    const Task* t, Py_ssize_t row, Py_ssize_t low, Py_ssize_t high, Maker* maker
) noexcept nogil:
    """Write the matrix rows of the lines [low, high) of positions. Lines that belong to the same segments d and h are
    processed together, because they use the same lists.
    """
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t i, j, k, a, b, line, first, last, lists, cell, one
    cdef const Segment* d
    cdef const Segment* h
    begin_row(m, row, is_few(t, row), maker)
    for i in range(m.d.segments):
        d = m.d.segment + i
        if d.start * m.h.positions >= high or (d.start + (d.count - 1) * d.step + 1) * m.h.positions <= low:
            continue
        for j in range(m.h.segments):
            h = m.h.segment + j
            first = d.start * m.h.positions + h.start
            last = first + (d.count - 1) * d.step * m.h.positions + (h.count - 1) * h.step
            if first >= high or last < low:
                continue
            k = 0
            if m.mirrored and maker.few:
                k = write_mirrored_lines(t, row, low, high, d, h, maker)
            while k < m.w.segments:
                lists = 0
                for a in range(d.count):
                    line = (d.start + a * d.step) * m.h.positions + h.start
                    if line >= high or line + (h.count - 1) * h.step < low:
                        continue
                    for b in range(h.count):
                        if low <= line and line < high:
                            if lists == 0:
                                lists = make_lists(t, row, d, h, k, maker)
                            cell = (d.base + a * d.base_step) * m.h.limit + h.base + b * h.base_step
                            for one in range(lists):
                                fill_run(t, row, line, m.w.segment + k + one, cell, one, maker)
                        line += h.step
                if lists == 0:
                    break
                k += lists


cdef inline Py_ssize_t write_mirrored_lines(
    const Task* t, Py_ssize_t row, Py_ssize_t low, Py_ssize_t high, const Segment* d, const Segment* h, Maker* maker
) noexcept nogil:
    """On each line of the segments d and h, write the matrix rows of the first positions directly, without lists. These
    positions are mirrored, and each has a segment of its own. Return the number of these positions on a line.

    If several lines can share long lists, write nothing and return 0, because copying a shared list is faster than
    writing each row directly.
    """
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t width = 8 if t.wide else 4, n = 0, a, b, line, cell
    cdef const char* indptr
    cdef fc_row r
    while n < m.w.segments and m.w.segment[n].count == 1 and m.w.segment[n].key < 0:
        n += 1
    if n == 0:
        return 0
    r = row_of(m, d, h, m.w.segment)
    begin_line(m, d, h, maker, &r)
    if maker.nonzeros.n_groups and maker.nonzeros.n_sorted > SHORT and d.count * h.count > 1:
        return 0
    for a in range(d.count):
        line = (d.start + a * d.step) * m.h.positions + h.start
        for b in range(h.count):
            if low <= line and line < high:
                indptr = <const char*> t.indptr + (row * m.plane + line * m.w.positions) * width
                cell = (d.base + a * d.base_step) * m.h.limit + h.base + b * h.base_step
                m.write_mirrored_rows(
                    &maker.nonzeros, &r, m.w.segment, n, m.w.element_of_key, indptr,
                    row // m.rows * m.cols * m.cells + cell * m.w.limit, t.data, t.indices, maker.values,
                    maker.columns,
                )
            line += h.step
    return n


cdef inline Py_ssize_t make_lists(
    const Task* t, Py_ssize_t row, const Segment* d, const Segment* h, Py_ssize_t k, Maker* maker
) noexcept nogil:
    """Make the lists of segments k, k + 1, ... of the last axis, until the memory for lists is full. Return the number
    of lists.

    With several lists at a time, the matrix rows of a line can be written in order, from the first position of the line
    to its last position.
    """
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t used = 0, lists = 0
    cdef char* values = maker.values
    cdef char* columns = maker.columns
    while lists < LISTS and k + lists < m.w.segments and (lists == 0 or used + t.longest <= t.capacity):
        maker.at[lists] = used
        maker.n[lists] = list_row(m, row, d, h, m.w.segment + k + lists, maker)
        used += maker.n[lists]
        lists += 1
        maker.values = values + used * m.itemsize
        maker.columns = columns + used * (8 if t.wide else 4)
    maker.values, maker.columns = values, columns
    return lists


cdef inline void fill_run(
    const Task* t, Py_ssize_t row, Py_ssize_t line, const Segment* s, Py_ssize_t cell, Py_ssize_t one,
    const Maker* maker,
) noexcept nogil:
    """Write the matrix rows of segment `s` of a line. Each matrix row is a shifted copy of list number `one`."""
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t n = maker.n[one], width = 8 if t.wide else 4, start, i
    cdef Py_ssize_t at = row * m.plane + line * m.w.positions + s.start
    cdef Py_ssize_t first = row // m.rows * m.cols * m.cells + cell * m.w.limit + s.base
    cdef const char* values = maker.values + maker.at[one] * m.itemsize
    cdef const char* columns = maker.columns + maker.at[one] * width
    if n == 0:
        return
    if s.step == 1:
        start = start_of(t, at)
        fc_check(start_of(t, at + s.count) == start + s.count * n)
        m.repeat(values, columns, n, t.data + start * m.itemsize, t.indices + start * width, s.count, first,
                 s.base_step)
        return
    for i in range(s.count):
        start = start_of(t, at + i * s.step)
        fc_check(start_of(t, at + i * s.step + 1) == start + n)
        m.repeat(
            values, columns, n, t.data + start * m.itemsize, t.indices + start * width, 1, first + i * s.base_step, 0
        )
