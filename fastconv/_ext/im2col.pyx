"""im2col and its adjoint col2im over one, two or three lifted axes, zero padding only.

``axes`` and ``reach`` are a geometry's tables, as runs.pxd reads them;
``counter`` is the shared place in the work, which every thread of a call draws
from, ``grain`` pieces at a time.
"""

from fastconv._ext.runs cimport (
    FC_CHECKED, Axis, cell, copy, fc_check, fc_draw, floating, outputs_before, read_axis, scatter_add, seen,
    zero, zero_column, zero_short,
)


#: Whether this build checks bounds.
checked = bool(FC_CHECKED)


cdef void fill_row(
    const floating* plane, Py_ssize_t step_d, Py_ssize_t step_h, floating* row,
    const Axis* d, const Axis* h, const Axis* w, Py_ssize_t kd, Py_ssize_t kh, Py_ssize_t kw,
) noexcept nogil:
    """One row of the matrix: what tap (kd, kh, kw) sees at every output position."""
    cdef Py_ssize_t d0 = d.first[kd], d1 = d.last[kd]
    cdef Py_ssize_t h0 = h.first[kh], h1 = h.last[kh]
    cdef Py_ssize_t w0 = w.first[kw], w1 = w.last[kw]
    cdef Py_ssize_t area = h.out * w.out, od, oh, i
    cdef Py_ssize_t edge = w.out - w1, step = h.stride * step_h
    cdef const floating* src
    cdef floating* dst
    if not (seen(d, kd) and seen(h, kh) and seen(w, kw)):
        zero(row, d.out * area)
        return
    # At stride 1 with rows as long as the input's, the tap sees the plane itself, shifted: one
    # long run for all rows, after which the few cells that wrapped around a border are cleared.
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


# A tap on small planes, the way `fill_row` works it out for each row: at stride 1 all of it is
# the same for every channel, and on a 7x7 plane it takes longer than the copy.
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
    if not (seen(h, kh) and seen(w, kw)):
        shift.src = shift.n = shift.left = shift.right = shift.begin = shift.rows = shift.tail = 0
        shift.head = h.out * w.out
        return shift
    shift.src = cell(h, h0, kh) * w.size + cell(w, w0, kw)
    shift.head = h0 * w.out + w0
    shift.n = (h1 - h0 - 1) * w.out + w1 - w0
    shift.tail = h.out * w.out - shift.head - shift.n
    # Wrapped cells lie between the rows of the run: after the first row's end, before the last row's start.
    shift.left, shift.right = w0, w.out - w1
    shift.begin, shift.rows = h0 * w.out, h1 - h0 - 1
    return shift


cdef inline void fill_shifted(
    const floating* plane, floating* row, const Shift* shift, Py_ssize_t pitch
) noexcept nogil:
    """As `fill_row`, for a tap that `read_shift` has read."""
    cdef Py_ssize_t i
    cdef floating* at = row + shift.begin
    zero_short(row, shift.head)
    copy(row + shift.head, plane + shift.src, shift.n, 1)
    zero_short(row + shift.head + shift.n, shift.tail)
    for i in range(shift.left):
        zero_column(at + pitch + i, shift.rows, pitch)
    for i in range(shift.right):
        zero_column(at + pitch - 1 - i, shift.rows, pitch)


def im2col(
    const floating[:, :, :, :, :] x, floating[:, :, :] cols, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """cols (N, C * taps, L) from x (N, C, D, H, W); the last axis of each is contiguous."""
    cdef Axis d, h, w
    cdef Py_ssize_t channels = x.shape[1], rows = cols.shape[1], total = cols.shape[0] * rows
    cdef Py_ssize_t begin, end, i, n, c, kd, kh, kw, at
    cdef const floating* plane
    cdef floating* row
    cdef Shift[MAX_SHIFTS] shifts
    cdef Py_ssize_t taps, tap
    cdef bint shifted
    cdef Py_ssize_t step_d = x.strides[2] // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t step_h = x.strides[3] // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t step_row = cols.strides[1] // <Py_ssize_t> sizeof(floating)
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        fc_check(rows == channels * d.k * h.k * w.k and cols.shape[2] == d.out * h.out * w.out)
        fc_check(d.size == x.shape[2] and h.size == x.shape[3] and w.size == x.shape[4])
        taps = d.k * h.k * w.k
        shifted = (
            d.size == d.k == d.out == 1 and seen(&d, 0) and taps <= MAX_SHIFTS and step_h == w.size
            and h.stride == 1 and w.stride == 1 and w.out == w.size
        )
        if shifted:
            for tap in range(taps):
                shifts[tap] = read_shift(&h, &w, tap // w.k, tap % w.k)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            end = min(begin + grain, total)
            # Rows are counted n, c, kd, kh, kw; the place is divided out once a draw, then counted on.
            n, at = begin // rows, begin % rows
            at, kw = at // w.k, at % w.k
            at, kh = at // h.k, at % h.k
            c, kd = at // d.k, at % d.k
            plane, row = &x[n, c, 0, 0, 0], &cols[n, begin - n * rows, 0]
            for i in range(begin, end):
                if shifted:
                    fill_shifted(plane, row, &shifts[kh * w.k + kw], w.out)
                else:
                    fill_row(plane, step_d, step_h, row, &d, &h, &w, kd, kh, kw)
                row = row + step_row
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
                            if c == channels:
                                c = 0
                                n += 1
                                if i + 1 < end:
                                    row = &cols[n, 0, 0]
                            if i + 1 < end:
                                plane = &x[n, c, 0, 0, 0]
            begin = fc_draw(&counter[0], grain)


cdef void gather_block(
    const floating[:, :, :] cols, Py_ssize_t n, Py_ssize_t row, floating* block,
    const Axis* d, const Axis* h, const Axis* w, Py_ssize_t id_, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Image rows [begin, end) at depth `id_`: every entry of cols that im2col read from them."""
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
                if not seen(w, kw):
                    continue
                w0, w1 = w.first[kw], w.last[kw]
                fc_check(cell(h, h0, kh) >= begin and cell(h, h1 - 1, kh) < end)
                src = &cols[n, row + (kd * h.k + kh) * w.k + kw, (od * h.out + h0) * w.out + w0]
                dst = block + (cell(h, h0, kh) - begin) * w.size + cell(w, w0, kw)
                whole = h.stride == 1 and w.stride == 1 and w1 - w0 == w.size and w.out == w.size
                if whole:
                    scatter_add(dst, src, (h1 - h0) * w.size, 1)
                    continue
                for oh in range(h1 - h0):
                    scatter_add(dst + oh * h.stride * w.size, src + oh * w.out, w1 - w0, w.stride)


def col2im(
    const floating[:, :, :] cols, floating[:, :, :, :, :] x, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain, Py_ssize_t block,
):
    """x (N, C, D, H, W), H and W dense, from cols (N, C * taps, L), whose last axis is contiguous.

    A thread owns `block` image rows at a time, so that they stay in its cache
    while every tap adds to them, and no two threads write the same cell.
    """
    cdef Axis d, h, w
    cdef Py_ssize_t blocks = (x.shape[3] - 1) // block + 1
    cdef Py_ssize_t total = x.shape[0] * x.shape[1] * x.shape[2] * blocks
    cdef Py_ssize_t i, at, n, c, id_, top, begin, taps
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        taps = d.k * h.k * w.k
        fc_check(h.size == 1 or x.strides[3] == w.size * x.strides[4])
        fc_check(cols.shape[1] == x.shape[1] * taps and cols.shape[2] == d.out * h.out * w.out)
        fc_check(d.size == x.shape[2] and h.size == x.shape[3] and w.size == x.shape[4])
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for i in range(begin, min(begin + grain, total)):
                at = i // blocks
                top = (i % blocks) * block
                id_ = at % d.size
                at = at // d.size
                n, c = at // x.shape[1], at % x.shape[1]
                gather_block(
                    cols, n, c * taps, &x[n, c, id_, top, 0], &d, &h, &w,
                    id_, top, min(top + block, h.size),
                )
            begin = fc_draw(&counter[0], grain)
