"""im2col and its adjoint col2im for three axes, with zero padding only.

fastconv.lowering.columns makes one `LoweringPlan` for each geometry. `queue` distributes the work of a call among
threads: see threads/team.h. `dtype` is 0 (float32) or 1 (float64).
"""

from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.runs cimport (
    FC_CHECKED, copy, fc_check, floating, scatter_add, zero, zero_column, zero_short,
)
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


#: Whether this build checks bounds.
checked = bool(FC_CHECKED)


# One spatial axis, with the numbers that `Axis.row` of fastconv.geometry.axis returns. `Axis.row` replaces a huge
# stride or dilation that has no effect by a small number, so no product below overflows Py_ssize_t. At tap t, the
# outputs [first[t], last[t]) read an element of the image; the other outputs read padding.
cdef struct Axis:
    Py_ssize_t size
    Py_ssize_t k
    Py_ssize_t stride
    Py_ssize_t lo
    Py_ssize_t dilation
    Py_ssize_t out
    const Py_ssize_t* first
    const Py_ssize_t* last


cdef inline Py_ssize_t cell(const Axis* axis, Py_ssize_t o, Py_ssize_t tap) noexcept nogil:
    """Return the index of the input element that output `o` reads at `tap`. An index outside [0, size) is padding."""
    return o * axis.stride + tap * axis.dilation - axis.lo


cdef inline Py_ssize_t outputs_before(const Axis* axis, Py_ssize_t tap, Py_ssize_t bound) noexcept nogil:
    """Return the number of outputs that read, at `tap`, an element with an index below `bound`. These are the first
    outputs of the axis.
    """
    cdef Py_ssize_t cells = bound + axis.lo - tap * axis.dilation
    if cells <= 0:
        return 0
    return min(cells if axis.stride == 1 else (cells - 1) // axis.stride + 1, axis.out)


cdef inline bint is_read(const Axis* axis, Py_ssize_t tap) noexcept nogil:
    """Return whether any output reads an element of the image, and not only padding, at `tap`. Debug builds also check
    that every output in [first[tap], last[tap]) reads an element of the image.
    """
    if axis.first[tap] >= axis.last[tap]:
        return False
    fc_check(0 <= axis.first[tap] and axis.last[tap] <= axis.out)
    fc_check(cell(axis, axis.first[tap], tap) >= 0)
    fc_check(cell(axis, axis.last[tap] - 1, tap) < axis.size)
    return True


cdef void fill_row(
    const floating* plane, Py_ssize_t step_d, Py_ssize_t step_h, floating* row,
    const Axis* d, const Axis* h, const Axis* w, Py_ssize_t kd, Py_ssize_t kh, Py_ssize_t kw,
) noexcept nogil:
    """Write one row of the im2col matrix: the elements of one channel that tap (kd, kh, kw) reads, for every output
    position.
    """
    cdef Py_ssize_t d0 = d.first[kd], d1 = d.last[kd]
    cdef Py_ssize_t h0 = h.first[kh], h1 = h.last[kh]
    cdef Py_ssize_t w0 = w.first[kw], w1 = w.last[kw]
    cdef Py_ssize_t area = h.out * w.out, od, oh, i
    cdef Py_ssize_t edge = w.out - w1, step = h.stride * step_h
    cdef const floating* src
    cdef floating* dst
    if not (is_read(d, kd) and is_read(h, kh) and is_read(w, kw)):
        zero(row, d.out * area)
        return
    # If the stride is 1 and output rows are as long as input rows, the row of the matrix is the image plane shifted by
    # an offset. All rows of the plane are then copied together, and the few elements that wrap around a border are
    # cleared.
    cdef bint shifted = h.stride == 1 and w.stride == 1 and w.out == w.size and step_h == w.size
    src = plane + cell(d, d0, kd) * step_d + cell(h, h0, kh) * step_h + cell(w, w0, kw)
    if d0 > 0 or d1 < d.out:
        zero(row, d0 * area)
        zero(row + d1 * area, (d.out - d1) * area)
    for od in range(d0, d1):
        dst = row + od * area
        if h0 > 0 or h1 < h.out:
            zero(dst, h0 * w.out)
            zero(dst + h1 * w.out, (h.out - h1) * w.out)
        dst = dst + h0 * w.out
        if shifted:
            copy(dst + w0, src, (h1 - h0) * w.out - w0 - edge, 1)
        else:
            for oh in range(h1 - h0):
                copy(dst + oh * w.out + w0, src + oh * step, w1 - w0, w.stride)
        for i in range(w0):
            zero_column(dst + i, h1 - h0, w.out)
        for i in range(w1, w.out):
            zero_column(dst + i, h1 - h0, w.out)
        src = src + d.stride * step_d


# The ranges of copied elements and of zeros in one row of the im2col matrix, as `fill_row` computes them. The ranges of
# a tap are the same for every channel. They are computed once for each tap, because for a 7 x 7 image the computation
# takes longer than the copy.
cdef struct Shift:
    Py_ssize_t src
    Py_ssize_t head
    Py_ssize_t n
    Py_ssize_t tail
    Py_ssize_t left
    Py_ssize_t right
    Py_ssize_t begin
    Py_ssize_t rows


cdef enum:
    MAX_SHIFTS = 64


cdef inline Shift read_shift(const Axis* h, const Axis* w, Py_ssize_t kh, Py_ssize_t kw) noexcept nogil:
    cdef Shift shift
    cdef Py_ssize_t h0 = h.first[kh], h1 = h.last[kh], w0 = w.first[kw], w1 = w.last[kw]
    if not (is_read(h, kh) and is_read(w, kw)):
        shift.src = shift.n = shift.left = shift.right = shift.begin = shift.rows = shift.tail = 0
        shift.head = h.out * w.out
        return shift
    shift.src = cell(h, h0, kh) * w.size + cell(w, w0, kw)
    shift.head = h0 * w.out + w0
    shift.n = (h1 - h0 - 1) * w.out + w1 - w0
    shift.tail = h.out * w.out - shift.head - shift.n
    # An element that wraps around a border can only lie between the end of the first copied row and the start of the
    # last copied row.
    shift.left, shift.right = w0, w.out - w1
    shift.begin, shift.rows = h0 * w.out, h1 - h0 - 1
    return shift


cdef inline void fill_shifted(
    const floating* plane, floating* row, const Shift* shift, Py_ssize_t pitch
) noexcept nogil:
    """Do the work of `fill_row` for one tap. `shift` has the precomputed ranges of this tap."""
    cdef Py_ssize_t i
    cdef floating* at = row + shift.begin
    zero_short(row, shift.head)
    copy(row + shift.head, plane + shift.src, shift.n, 1)
    zero_short(row + shift.head + shift.n, shift.tail)
    for i in range(shift.left):
        zero_column(at + pitch + i, shift.rows, pitch)
    for i in range(shift.right):
        zero_column(at + pitch - 1 - i, shift.rows, pitch)


# The arguments of a call, which all threads of the call read. Distances are in elements.
cdef struct Lowering:
    void* image
    void* cols
    Py_ssize_t images
    Py_ssize_t channels
    Py_ssize_t step_image
    Py_ssize_t step_channel
    Py_ssize_t step_d
    Py_ssize_t step_h
    Py_ssize_t step_matrix  # the distance in cols between the matrices of two images
    Py_ssize_t step_row     # the distance in cols between two rows of a matrix
    Py_ssize_t rows         # the number of rows of the matrix of one image
    Py_ssize_t total
    Py_ssize_t block        # for col2im: the number of image rows of a block
    Py_ssize_t blocks       # for col2im: the number of blocks of a plane
    bint shifted            # for im2col: whether the ranges of all taps are precomputed in `shifts`
    Axis[3] axes
    Shift[MAX_SHIFTS] shifts
    fc_work_queue* queue


# An array of up to five axes, which may have gaps between its rows. Strides are distances in elements.
cdef struct StridedBuffer:
    void* at
    Py_ssize_t[5] shape
    Py_ssize_t[5] strides


cdef StridedBuffer strided_buffer(object array, int ndim, Py_ssize_t itemsize, bint writable) except *:
    """Return the address, the shape and the strides of an array. The caller has to keep the array alive, and to pass
    the `itemsize` of its dtype.
    """
    cdef Py_buffer buffer
    cdef StridedBuffer found
    cdef int i
    PyObject_GetBuffer(array, &buffer, PyBUF_STRIDES | PyBUF_WRITABLE if writable else PyBUF_STRIDES)
    fc_check(buffer.ndim == ndim and buffer.itemsize == itemsize)
    found.at = buffer.buf
    for i in range(ndim):
        found.shape[i], found.strides[i] = buffer.shape[i], buffer.strides[i] // itemsize
    PyBuffer_Release(&buffer)
    return found


cdef class LoweringPlan:
    """im2col and col2im for one geometry.

    `axes` has three objects with the attributes of `Axis.row`. `output_ranges` has two rows and a column for each tap
    of each axis: the first output for which the tap reads the image, and the last such output plus 1.
    """

    cdef Axis[3] _axes
    cdef object _output_ranges    # keeps the array alive, because `_axes` has pointers into it
    cdef readonly Py_ssize_t nbytes

    def __init__(self, *, axes, output_ranges):
        cdef Buffer ranges = contiguous_buffer(output_ranges, sizeof(Py_ssize_t), False)
        cdef const Py_ssize_t* first = <const Py_ssize_t*> ranges.at
        cdef Py_ssize_t taps = ranges.n // 2, at = 0, i
        cdef Axis* a
        self._output_ranges, self.nbytes = output_ranges, output_ranges.nbytes
        for i in range(3):
            axis, a = axes[i], &self._axes[i]
            a.size, a.k, a.stride, a.lo, a.dilation, a.out = (
                axis.size, axis.k, axis.stride, axis.lo, axis.dilation, axis.out
            )
            if at + a.k > taps:
                raise ValueError(f"output_ranges has {taps} columns, too few for the taps of three axes")
            a.first, a.last = first + at, first + taps + at
            at += a.k

    cdef Lowering _begin(self, int dtype, x, cols, bint writes_cols, queue) except *:
        cdef Lowering t
        cdef Py_ssize_t itemsize = 8 if dtype else 4
        cdef StridedBuffer image = strided_buffer(x, 5, itemsize, not writes_cols)
        cdef StridedBuffer matrix = strided_buffer(cols, 3, itemsize, writes_cols)
        cdef int i
        t.image, t.cols, t.queue = image.at, matrix.at, work_queue(queue)
        t.images, t.channels, t.rows = image.shape[0], image.shape[1], matrix.shape[1]
        t.step_image, t.step_channel, t.step_d, t.step_h = (
            image.strides[0], image.strides[1], image.strides[2], image.strides[3]
        )
        t.step_matrix, t.step_row = matrix.strides[0], matrix.strides[1]
        for i in range(3):
            t.axes[i] = self._axes[i]
            fc_check(t.axes[i].size == image.shape[2 + i])
        fc_check(t.rows == t.channels * t.axes[0].k * t.axes[1].k * t.axes[2].k)
        fc_check(matrix.shape[0] == t.images)
        fc_check(matrix.shape[2] == t.axes[0].out * t.axes[1].out * t.axes[2].out)
        return t

    def im2col(self, int dtype, x, cols, queue):
        """Write cols (N, C * taps, L) from x (N, C, D, H, W). The last axes of cols and x are contiguous."""
        cdef Lowering t = self._begin(dtype, x, cols, True, queue)
        cdef const Axis* d = &t.axes[0]
        cdef const Axis* h = &t.axes[1]
        cdef const Axis* w = &t.axes[2]
        cdef Py_ssize_t taps = d.k * h.k * w.k, tap
        t.total = t.images * t.rows
        t.shifted = (
            d.size == d.k == d.out == 1 and is_read(d, 0) and taps <= MAX_SHIFTS and t.step_h == w.size
            and h.stride == 1 and w.stride == 1 and w.out == w.size
        )
        if t.shifted:
            for tap in range(taps):
                t.shifts[tap] = read_shift(h, w, tap // w.k, tap % w.k)
        with nogil:
            fc_parallel_for(t.queue, rows_of_double if dtype else rows_of_float, &t)

    def col2im(self, int dtype, cols, x, Py_ssize_t block, queue):
        """Write x (N, C, D, H, W) from cols (N, C * taps, L). The axes H and W of x, and the last axis of cols, are
        contiguous.

        A thread adds the elements of cols for all taps to a block of `block` image rows. The block stays in the cache
        of the thread. No two threads write the same element.
        """
        cdef Lowering t = self._begin(dtype, x, cols, False, queue)
        t.block, t.blocks = block, (t.axes[1].size - 1) // block + 1
        t.total = t.images * t.channels * t.axes[0].size * t.blocks
        with nogil:
            fc_parallel_for(t.queue, blocks_of_double if dtype else blocks_of_float, &t)


cdef void rows_of_float(void* task) noexcept nogil:
    rows_worker(<const Lowering*> task, <float*> NULL)


cdef void rows_of_double(void* task) noexcept nogil:
    rows_worker(<const Lowering*> task, <double*> NULL)


cdef void rows_worker(const Lowering* t, floating* dtype) noexcept nogil:
    """Take chunks of rows of cols from the work queue until none are left, and write these rows."""
    cdef const Axis* d = &t.axes[0]
    cdef const Axis* h = &t.axes[1]
    cdef const Axis* w = &t.axes[2]
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t rows = t.rows, total = t.total, grain = t.queue.grain
    cdef Py_ssize_t begin = fc_next_chunk(t.queue, &worker, total), end, _i, n, c, kd, kh, kw, at
    cdef const floating* image = <const floating*> t.image
    cdef const floating* plane
    cdef floating* cols = <floating*> t.cols
    cdef floating* row
    while begin < total:
        end = min(begin + grain, total)
        # For the first row of a chunk, divisions split the row index into n, c, kd, kh and kw. For each further row,
        # these five indices are incremented instead.
        n, at = begin // rows, begin % rows
        at, kw = at // w.k, at % w.k
        at, kh = at // h.k, at % h.k
        c, kd = at // d.k, at % d.k
        plane = image + n * t.step_image + c * t.step_channel
        row = cols + n * t.step_matrix + (begin - n * rows) * t.step_row
        for _i in range(begin, end):
            if t.shifted:
                fill_shifted(plane, row, &t.shifts[kh * w.k + kw], w.out)
            else:
                fill_row(plane, t.step_d, t.step_h, row, d, h, w, kd, kh, kw)
            row = row + t.step_row
            kw += 1
            if kw == w.k:
                kw = 0
                kh += 1
                if kh == h.k:
                    kh = 0
                    kd += 1
                    if kd == d.k:
                        kd = 0
                        c += 1
                        if c == t.channels:
                            c = 0
                            n += 1
                            row = cols + n * t.step_matrix
                        plane = image + n * t.step_image + c * t.step_channel
        begin = fc_next_chunk(t.queue, &worker, total)


cdef void gather_block(
    const floating* cols, Py_ssize_t step_row, floating* block,
    const Axis* d, const Axis* h, const Axis* w, Py_ssize_t id_, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Compute the image rows [begin, end) at depth `id_` of a channel. Each element is the sum of the elements of cols
    to which im2col copies that element.
    """
    cdef Py_ssize_t kd, kh, kw, od, oh, h0, h1, w0, w1, at
    cdef const floating* src
    cdef floating* dst
    cdef bint whole
    zero(block, (end - begin) * w.size)
    for kd in range(d.k):
        at = id_ + d.lo - kd * d.dilation
        if at < 0 or at % d.stride or at // d.stride >= d.out:
            continue
        od = at // d.stride
        for kh in range(h.k):
            h0, h1 = outputs_before(h, kh, begin), outputs_before(h, kh, end)
            if h0 >= h1:
                continue
            for kw in range(w.k):
                if not is_read(w, kw):
                    continue
                w0, w1 = w.first[kw], w.last[kw]
                fc_check(cell(h, h0, kh) >= begin and cell(h, h1 - 1, kh) < end)
                src = cols + ((kd * h.k + kh) * w.k + kw) * step_row + (od * h.out + h0) * w.out + w0
                dst = block + (cell(h, h0, kh) - begin) * w.size + cell(w, w0, kw)
                whole = h.stride == 1 and w.stride == 1 and w1 - w0 == w.size and w.out == w.size
                if whole:
                    scatter_add(dst, src, (h1 - h0) * w.size, 1)
                    continue
                for oh in range(h1 - h0):
                    scatter_add(dst + oh * h.stride * w.size, src + oh * w.out, w1 - w0, w.stride)


cdef void blocks_of_float(void* task) noexcept nogil:
    blocks_worker(<const Lowering*> task, <float*> NULL)


cdef void blocks_of_double(void* task) noexcept nogil:
    blocks_worker(<const Lowering*> task, <double*> NULL)


cdef void blocks_worker(const Lowering* t, floating* dtype) noexcept nogil:
    """Take chunks of blocks of image rows from the work queue until none are left, and compute these blocks."""
    cdef const Axis* d = &t.axes[0]
    cdef const Axis* h = &t.axes[1]
    cdef const Axis* w = &t.axes[2]
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t taps = d.k * h.k * w.k, grain = t.queue.grain, i, at, n, c, id_, top
    cdef Py_ssize_t begin = fc_next_chunk(t.queue, &worker, t.total)
    fc_check(h.size == 1 or t.step_h == w.size)
    while begin < t.total:
        for i in range(begin, min(begin + grain, t.total)):
            at = i // t.blocks
            top = (i % t.blocks) * t.block
            id_ = at % d.size
            at = at // d.size
            n, c = at // t.channels, at % t.channels
            gather_block(
                <const floating*> t.cols + n * t.step_matrix + c * taps * t.step_row, t.step_row,
                <floating*> t.image + n * t.step_image + c * t.step_channel + id_ * t.step_d + top * t.step_h,
                d, h, w, id_, top, min(top + t.block, h.size),
            )
        begin = fc_next_chunk(t.queue, &worker, t.total)
