"""Maximum and sum over windows, and their adjoints, over three lifted axes.

Planes are the N * C images of one channel each. ``axes``, ``reach``,
``counter`` and ``grain`` are as in im2col.pyx.
"""

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.runs cimport (
    Axis, cell, fc_check, fc_draw, fc_max_f32_i32, fc_max_f32_i64, fc_max_f64_i32, fc_max_f64_i64,
    floating, gather_add, read_axis, scatter_add, seen, zero,
)


ctypedef fused index_t:
    int32_t
    int64_t


cdef inline void maximum(
    floating* best, index_t* where, const floating* x, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t first
) noexcept nogil:
    if floating is float and index_t is int32_t:
        fc_max_f32_i32(best, where, x, n, stride, <int32_t> first)
    elif floating is float:
        fc_max_f32_i64(best, where, x, n, stride, <int64_t> first)
    elif index_t is int32_t:
        fc_max_f64_i32(best, where, x, n, stride, <int32_t> first)
    else:
        fc_max_f64_i64(best, where, x, n, stride, <int64_t> first)


cdef enum:
    MAXIMUM = 0
    SUM = 1
    SPREAD = 2


cdef inline void visit_row(
    int op, floating* plane, floating* row, index_t* where,
    const Axis* d, const Axis* h, const Axis* w, Py_ssize_t od, Py_ssize_t oh,
) noexcept nogil:
    """One row of outputs: at every tap a run of the plane meets the outputs that see it there."""
    cdef Py_ssize_t kd, kh, kw, at_d, at_h, first, w0, n
    for kd in range(d.k):
        at_d = cell(d, od, kd)
        if at_d < 0 or at_d >= d.size:
            continue
        for kh in range(h.k):
            at_h = cell(h, oh, kh)
            if at_h < 0 or at_h >= h.size:
                continue
            for kw in range(w.k):
                if not seen(w, kw):
                    continue
                w0, n = w.first[kw], w.last[kw] - w.first[kw]
                first = (at_d * h.size + at_h) * w.size + cell(w, w0, kw)
                if op == MAXIMUM:
                    maximum(row + w0, where + w0, plane + first, n, w.stride, first)
                elif op == SUM:
                    gather_add(row + w0, plane + first, n, w.stride)
                else:
                    scatter_add(plane + first, row + w0, n, w.stride)


def max_forward(
    const floating[:, ::1] x, floating[:, ::1] out, index_t[:, ::1] indices,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """out and indices (P, L): the maximum of every window of x (P, D * H * W), and its place."""
    cdef Axis d, h, w
    cdef Py_ssize_t rows, total, begin, i, j, p, row
    cdef floating* best
    cdef index_t* where
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        rows = d.out * h.out
        total = x.shape[0] * rows
        fc_check(x.shape[1] == d.size * h.size * w.size and out.shape[1] == rows * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for i in range(begin, min(begin + grain, total)):
                p, row = i // rows, i % rows
                best, where = &out[p, row * w.out], &indices[p, row * w.out]
                for j in range(w.out):
                    best[j] = 0
                    where[j] = -1
                visit_row(MAXIMUM, <floating*> &x[p, 0], best, where, &d, &h, &w, row // h.out, row % h.out)
            begin = fc_draw(&counter[0], grain)


def max_backward(
    const floating[:, ::1] dout, const index_t[:, ::1] indices, floating[:, ::1] dx,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """dx (P, D * H * W): every entry of dout (P, L) added where its maximum was."""
    cdef Py_ssize_t total = dx.shape[0], begin, p, i
    with nogil:
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for p in range(begin, min(begin + grain, total)):
                zero(&dx[p, 0], dx.shape[1])
                for i in range(dout.shape[1]):
                    fc_check(0 <= indices[p, i] < dx.shape[1])
                    dx[p, indices[p, i]] += dout[p, i]
            begin = fc_draw(&counter[0], grain)


def sum_forward(
    const floating[:, ::1] x, floating[:, ::1] out, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """out (P, L): the sum of every window of x (P, D * H * W)."""
    cdef Axis d, h, w
    cdef Py_ssize_t rows, total, begin, i, p, row
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        rows = d.out * h.out
        total = x.shape[0] * rows
        fc_check(x.shape[1] == d.size * h.size * w.size and out.shape[1] == rows * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for i in range(begin, min(begin + grain, total)):
                p, row = i // rows, i % rows
                zero(&out[p, row * w.out], w.out)
                visit_row(
                    SUM, <floating*> &x[p, 0], &out[p, row * w.out], <int32_t*> NULL, &d, &h, &w,
                    row // h.out, row % h.out,
                )
            begin = fc_draw(&counter[0], grain)


def sum_backward(
    const floating[:, ::1] dout, floating[:, ::1] dx, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """dx (P, D * H * W): every entry of dout (P, L) added to each cell of its window."""
    cdef Axis d, h, w
    cdef Py_ssize_t total = dx.shape[0], begin, p, row
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        fc_check(dx.shape[1] == d.size * h.size * w.size and dout.shape[1] == d.out * h.out * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for p in range(begin, min(begin + grain, total)):
                zero(&dx[p, 0], dx.shape[1])
                for row in range(d.out * h.out):
                    visit_row(
                        SPREAD, &dx[p, 0], <floating*> &dout[p, row * w.out], <int32_t*> NULL, &d, &h, &w,
                        row // h.out, row % h.out,
                    )
            begin = fc_draw(&counter[0], grain)
