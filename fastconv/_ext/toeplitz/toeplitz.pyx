"""Convolution as a sparse matrix in CSR format: counting entries, filling rows, and products.

A row of weights has the weights of one filter or, for the transposed matrix, of one channel. The matrix has a row for
each row of weights and each position. toeplitz.h explains segments, keys, lists and mirrored positions. A line is all
positions along the last axis, for one position along each other axis. `table` describes three axes: see
fastconv.convolution.toeplitz.pattern. `sizes` comes from fastconv.convolution.toeplitz.csr. `queue` is the shared state
of the call, which distributes the work among threads: see threads/team.h. Indices have 64 bits if `wide` is
set, else 32 bits.
`dtype` is 0 (float32) or 1 (float64).
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport fc_parallel_for, work_queue
from fastconv._ext.toeplitz.counts cimport counts_worker, indptr_worker, numbers_worker
from fastconv._ext.toeplitz.fill cimport fills_worker, start_of
from fastconv._ext.toeplitz.lists cimport Maker, Task, give_space, maker_of, read_task
from fastconv._ext.toeplitz.matrix cimport HEADER, Segment, fc_toeplitz_for, give_weights, read_matrix
from fastconv._ext.toeplitz.products cimport Gradient, Product, gradients_worker, products_worker, slots_space
from fastconv._ext.toeplitz.segments cimport merge_positions


HEADER_SIZE = HEADER


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


def weights(table, sizes, w, int dtype, numbers, queue):
    """Write the number of nonzero weights of each row of weights to `numbers`."""
    cdef Task t = read_task(table, sizes, w, dtype, False, 0, queue)
    t.counts = <Py_ssize_t*> contiguous_buffer(numbers, sizeof(Py_ssize_t), True).at
    with nogil:
        fc_parallel_for(t.queue, numbers_worker, &t)


def count(
    table, sizes, w, int dtype, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, counts, totals,
    int isa, space, queue,
):
    """Write `counts`: the number of nonzero entries of a matrix row, for each row of weights and each triple of
    segments (one along each of the axes D, H and W).

    Also write `totals` (1 + rows of weights). Its first element is 0. The other elements are, for each row of weights,
    the number of entries of all its matrix rows.

    The function `weights` computes `numbers`. If less than 1 / `share` of the weights of a row are nonzero, the nonzero
    weights are put into a tree; `most` is the largest number of nonzero weights of such a row. `longest` is the largest
    number of entries of a list. `space` has a row of `space_of` bytes for each thread, and must be zeroed.
    """
    cdef Task t = read_task(table, sizes, w, dtype, False, isa, queue)
    give_space(&t, numbers, share, longest, most, space)
    t.counts = <Py_ssize_t*> contiguous_buffer(counts, sizeof(Py_ssize_t), True).at
    t.starts = <Py_ssize_t*> contiguous_buffer(totals, sizeof(Py_ssize_t), True).at
    with nogil:
        fc_parallel_for(t.queue, counts_worker, &t)


def place(table, sizes, w, int dtype, counts, starts, indptr, bint wide, queue):
    """Write indptr (rows + 1), the index of the first entry of each matrix row. `starts` has this index for the first
    matrix row of each row of weights.
    """
    cdef Task t = read_task(table, sizes, w, dtype, wide, 0, queue)
    t.counts, t.starts = index_pointer(counts), index_pointer(starts)
    t.indptr = contiguous_buffer(indptr, 8 if wide else 4, True).at
    with nogil:
        fc_parallel_for(t.queue, indptr_worker, &t)


def fill(
    table, sizes, w, int dtype, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, indptr, indices, data,
    bint wide, Py_ssize_t parts, int isa, space, queue,
):
    """Write the entries of the matrix to indices (nnz,) and data (nnz,).

    For each row of weights, the lines of positions are divided into `parts` work items.
    """
    cdef Task t = read_task(table, sizes, w, dtype, wide, isa, queue)
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


def product(
    int dtype, bint wide, indptr, indices, data, x, y, Py_ssize_t width, Py_ssize_t x_pitch, Py_ssize_t y_pitch,
    int isa, queue,
):
    """Compute y (rows, width) = A @ x (cols, width). `x_pitch` and `y_pitch` are the distances between the rows of x
    and of y, in elements. `width` is a multiple of the vector length.
    """
    cdef Product t
    cdef Py_ssize_t itemsize = 8 if dtype else 4, number_size = 8 if wide else 4
    cdef Buffer rows = contiguous_buffer(indptr, number_size, False)
    cdef Buffer columns = contiguous_buffer(indices, number_size, False)
    cdef Buffer values = contiguous_buffer(data, itemsize, False), source = contiguous_buffer(x, itemsize, False)
    cdef Buffer result = contiguous_buffer(y, itemsize, True)
    t.rows, t.queue = rows.n - 1, work_queue(queue)
    t.p.data, t.p.indices, t.p.indptr, t.p.x, t.p.y = values.at, columns.at, rows.at, source.at, result.at
    t.p.width, t.p.x_pitch, t.p.y_pitch = width, x_pitch, y_pitch
    t.kernel = fc_toeplitz_for(dtype, isa).spmm_i64 if wide else fc_toeplitz_for(dtype, isa).spmm_i32
    with nogil:
        fc_check((t.rows - 1) * y_pitch + width <= result.n and values.n == columns.n)
        fc_parallel_for(t.queue, products_worker, &t)


def gradient(
    table, sizes, numbers, int dtype, x, dy, dw, Py_ssize_t width, Py_ssize_t block, int isa, space, queue,
):
    """Compute dw (rows of weights, cols, taps) from dy (rows, width) and x (cols, width). The gradient of a weight is
    the sum of dy * x over all entries of the matrix that hold this weight.

    `numbers` (float64) is an array of weights for `block` channels, in which the weights are replaced by the numbers
    1, 2, and so on. So the value of a matrix entry is the number of the weight that belongs to this entry. `space` has
    a row of `gradient_space` bytes for each thread.
    """
    cdef Gradient t
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Buffer counted = contiguous_buffer(numbers, sizeof(double), False)
    cdef Buffer source = contiguous_buffer(x, itemsize, False)
    cdef Buffer upstream = contiguous_buffer(dy, itemsize, False), result = contiguous_buffer(dw, itemsize, True)
    cdef Buffer workspace = contiguous_buffer(space, 1, True)
    t.m = read_matrix(index_pointer(table), index_pointer(sizes))
    give_weights(&t.m, counted, 1, True, isa)
    t.contract, t.collect = fc_toeplitz_for(dtype, isa).contract, fc_toeplitz_for(dtype, isa).collect
    t.x, t.dy, t.dw = <const char*> source.at, <const char*> upstream.at, <char*> result.at
    t.width, t.block, t.blocks = width, block, (t.m.cols + block - 1) // block
    t.lanes = max(1, (16 << isa) // itemsize)
    t.itemsize, t.queue = itemsize, work_queue(queue)
    t.space, t.workspaces = <char*> workspace.at, space.shape[0]
    t.space_pitch = workspace.n // t.workspaces
    with nogil:
        fc_check(t.space_pitch >= slots_space(block * t.m.taps))
        fc_check(result.n == t.m.total * t.m.cols * t.m.taps and upstream.n == t.m.total * t.m.plane * width)
        fc_parallel_for(t.queue, gradients_worker, &t)


def gradient_space(Py_ssize_t slots):
    """Return the number of bytes that a thread of `gradient` needs for `slots` weights."""
    return slots_space(slots)
