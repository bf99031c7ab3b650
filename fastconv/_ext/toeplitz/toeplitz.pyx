"""Convolution as a sparse matrix in CSR format: counting entries, and filling rows.

A row of weights has the weights of one filter or, for the transposed matrix, of one channel. The matrix has a row for
each row of weights and each position. toeplitz.h explains segments, keys, lists and mirrored positions. A line is all
positions along the last axis, for one position along each other axis. `queue` distributes the work of a call among
threads: see threads/team.h. Indices have 64 bits if `wide` is set, else 32 bits. `dtype` is 0 (float32) or 1 (float64).
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport fc_parallel_for, work_queue
from fastconv._ext.toeplitz.counts cimport counts_worker, indptr_worker, numbers_worker
from fastconv._ext.toeplitz.fill cimport fills_worker, start_of
from fastconv._ext.toeplitz.lists cimport Maker, Task, give_space, maker_of
from fastconv._ext.toeplitz.matrix cimport Axis, Matrix, Segment, begin_matrix, give_weights
from fastconv._ext.toeplitz.segments cimport merge_positions


def space_of(int dtype, Py_ssize_t longest, Py_ssize_t most, Py_ssize_t cols):
    """Return the bytes of workspace that a thread needs. `longest` is the largest number of entries of a list. `most`
    is the largest number of nonzero weights among the rows of weights that are stored as trees: see toeplitz.h.
    """
    cdef Maker maker
    return maker_of(&maker, NULL, 8 if dtype else 4, longest, most, cols)


def merge(cells, order, taps, starts, segments, entries, lists, element_of_key):
    """Group positions into segments, and write the arrays `segments`, `entries`, `lists` and `element_of_key`: see
    toeplitz/pattern.py.

    `cells` (positions, taps) has the cell that each tap of each position reads, and `order` (positions, taps) sorts the
    cells of each position. `starts` has four numbers. The first is the index of the first position. The other
    numbers tell how much earlier calls wrote: the number of entries, the length of `lists`, and the length of
    `element_of_key`. The arrays have room for one segment for each position. Return how many segments, entries,
    integers in `lists` and integers in `element_of_key` this call wrote.
    """
    cdef Py_ssize_t k = taps.shape[0], n = cells.shape[0]
    cdef const Py_ssize_t* first = index_pointer(starts)
    cdef Py_ssize_t[4] made = [0, 0, 0, 0]
    cdef Buffer at = contiguous_buffer(cells, sizeof(Py_ssize_t), False)
    cdef Buffer by = contiguous_buffer(order, sizeof(Py_ssize_t), False)
    cdef Buffer segment = contiguous_buffer(segments, sizeof(Segment), True)
    cdef Buffer entry = contiguous_buffer(entries, sizeof(Py_ssize_t), True)
    cdef Buffer several = contiguous_buffer(lists, sizeof(Py_ssize_t), True)
    cdef Buffer element = contiguous_buffer(element_of_key, sizeof(Py_ssize_t), True)
    cdef const Py_ssize_t* tap = index_pointer(taps)
    with nogil:
        fc_check(at.n == n * k)
        fc_check(by.n == n * k)
        fc_check(segment.n >= n)
        fc_check(entry.n >= 2 * n * k)
        fc_check(several.n >= 3 * n * k // 2)
        fc_check(element.n >= n * k)
        merge_positions(
            n, k, <const Py_ssize_t*> at.at, <const Py_ssize_t*> by.at, tap, first, <Segment*> segment.at,
            <Py_ssize_t*> entry.at, <Py_ssize_t*> several.at, <Py_ssize_t*> element.at, made,
        )
    return made[0], made[1], made[2], made[3]


cdef class MatrixPattern:
    """The positions of the entries of a matrix.

    `axes` has three objects with the attributes `positions` and `limit`, and `axis_arrays` has the arrays of each axis:
    see `AxisPattern.arrays` of fastconv.convolution.toeplitz.pattern. A group has `rows` rows of weights, and each row
    of weights has `cols` channels of `taps` weights. The steps are distances in elements: between the weights of two
    groups, of two rows of weights, and of two channels. The pitches are distances between two kernel planes and between
    two kernel rows.
    """

    cdef Matrix _m
    cdef tuple _arrays    # keeps the arrays alive, because `_m` has pointers into them
    cdef readonly Py_ssize_t nbytes

    def __init__(
        self, *, axes, axis_arrays, Py_ssize_t groups, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t group_step,
        Py_ssize_t row_step, Py_ssize_t col_step, Py_ssize_t pitch_d, Py_ssize_t pitch_h, Py_ssize_t taps,
    ):
        cdef Matrix* m = &self._m
        self._arrays = tuple([array for arrays in axis_arrays for array in arrays])
        self.nbytes = sum([array.nbytes for array in self._arrays])
        m.d = axis_of(axes[0], axis_arrays[0])
        m.h = axis_of(axes[1], axis_arrays[1])
        m.w = axis_of(axes[2], axis_arrays[2])
        m.rows, m.cols, m.taps, m.total = rows, cols, taps, groups * rows
        m.group_step, m.row_step, m.col_step = group_step, row_step, col_step
        m.pitch_d, m.pitch_h = pitch_d, pitch_h
        begin_matrix(m)


cdef Axis axis_of(axis, arrays) except *:
    cdef Axis a
    segments, entries, lists, element_of_key, keys = arrays
    a.positions, a.limit, a.segments, a.n_keys = axis.positions, axis.limit, len(segments), len(keys)
    a.segment = <const Segment*> contiguous_buffer(segments, sizeof(Py_ssize_t), False).at
    a.entry, a.lists = index_pointer(entries), <const Py_ssize_t*> contiguous_buffer(
        lists, sizeof(Py_ssize_t), False
    ).at
    a.keys = <const Py_ssize_t*> contiguous_buffer(keys, sizeof(Py_ssize_t), False).at
    # Without mirrored positions, an element has the number of its key.
    a.element_of_key = a.keys
    if len(element_of_key):
        a.element_of_key = index_pointer(element_of_key)
    return a


cdef Task begin_task(MatrixPattern pattern, w, int dtype, bint wide, queue) except *:
    cdef Task t
    cdef Buffer weights = contiguous_buffer(w, 8 if dtype else 4, False)
    t.m = pattern._m
    give_weights(&t.m, weights, dtype, wide)
    t.wide, t.queue = wide, work_queue(queue)
    return t


def weights(MatrixPattern pattern, w, int dtype, numbers, queue):
    """Write the number of nonzero weights of each row of weights to `numbers`."""
    cdef Task t = begin_task(pattern, w, dtype, False, queue)
    t.counts = <Py_ssize_t*> contiguous_buffer(numbers, sizeof(Py_ssize_t), True).at
    with nogil:
        fc_parallel_for(t.queue, numbers_worker, &t)


def count(
    MatrixPattern pattern, w, int dtype, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, counts, totals,
    space, queue,
):
    """Write `counts`: the number of nonzero entries of a matrix row, for each row of weights and each triple of
    segments (one along each of the axes D, H and W).

    Also write `totals` (1 + rows of weights). Its first element is 0. The other elements are, for each row of weights,
    the number of entries of all its matrix rows.

    The function `weights` computes `numbers`. If less than 1 / `share` of the weights of a row are nonzero, the nonzero
    weights are put into a tree; `most` is the largest number of nonzero weights of such a row. `longest` is the largest
    number of entries of a list. `space` has a row of `space_of` bytes for each thread, and must be zeroed.
    """
    cdef Task t = begin_task(pattern, w, dtype, False, queue)
    give_space(&t, numbers, share, longest, most, space)
    t.counts = <Py_ssize_t*> contiguous_buffer(counts, sizeof(Py_ssize_t), True).at
    t.starts = <Py_ssize_t*> contiguous_buffer(totals, sizeof(Py_ssize_t), True).at
    with nogil:
        fc_parallel_for(t.queue, counts_worker, &t)


def place(MatrixPattern pattern, w, int dtype, counts, starts, indptr, bint wide, queue):
    """Write indptr (rows + 1), the index of the first entry of each matrix row. `starts` has this index for the first
    matrix row of each row of weights.
    """
    cdef Task t = begin_task(pattern, w, dtype, wide, queue)
    t.counts, t.starts = index_pointer(counts), index_pointer(starts)
    t.indptr = contiguous_buffer(indptr, 8 if wide else 4, True).at
    with nogil:
        fc_parallel_for(t.queue, indptr_worker, &t)


def fill(
    MatrixPattern pattern, w, int dtype, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, indptr,
    indices, data, bint wide, Py_ssize_t parts, space, queue,
):
    """Write the entries of the matrix to indices (nnz,) and data (nnz,).

    For each row of weights, the lines of positions are divided into `parts` work items.
    """
    cdef Task t = begin_task(pattern, w, dtype, wide, queue)
    cdef Py_ssize_t width = 8 if wide else 4
    cdef Buffer columns = contiguous_buffer(indices, width, True), values = contiguous_buffer(data, t.m.itemsize, True)
    cdef Buffer starts = contiguous_buffer(indptr, width, False)
    give_space(&t, numbers, share, longest, most, space)
    t.indptr, t.indices, t.data, t.parts = starts.at, <char*> columns.at, <char*> values.at, parts
    with nogil:
        fc_check(starts.n == t.m.total * t.m.plane + 1)
        fc_check(values.n == columns.n)
        fc_check(start_of(&t, starts.n - 1) == values.n)
        fc_parallel_for(t.queue, fills_worker, &t)
