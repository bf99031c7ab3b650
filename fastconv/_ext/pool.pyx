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


def max_forward(
    const floating[:, ::1] x, floating[:, ::1] out, index_t[:, ::1] indices,
    const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """out and indices (P, L): the maximum of every window of x (P, D * H * W), and its place."""
    cdef Axis d, h, w
    cdef Py_ssize_t rows, total, begin, i, j, p, od, oh, kd, kh, kw, w0, w1, at_d, at_h, first
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
                p, od, oh = i // rows, i % rows // h.out, i % h.out
                best = &out[p, i % rows * w.out]
                where = &indices[p, i % rows * w.out]
                for j in range(w.out):
                    best[j] = 0
                    where[j] = -1
                for kd in range(d.k):
                    at_d = cell(&d, od, kd)
                    if at_d < 0 or at_d >= d.size:
                        continue
                    for kh in range(h.k):
                        at_h = cell(&h, oh, kh)
                        if at_h < 0 or at_h >= h.size:
                            continue
                        for kw in range(w.k):
                            if not seen(&w, kw):
                                continue
                            w0, w1 = w.first[kw], w.last[kw]
                            first = (at_d * h.size + at_h) * w.size + cell(&w, w0, kw)
                            maximum(best + w0, where + w0, &x[p, first], w1 - w0, w.stride, first)
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
    const Py_ssize_t[:, ::1] reach,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """out (P, L): the sum of every window of x (P, D * H * W)."""
    cdef Axis d, h, w
    cdef Py_ssize_t rows, total, begin, i, p, od, oh, kd, kh, kw, w0, w1, at_d, at_h
    cdef floating* row
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        rows = d.out * h.out
        total = x.shape[0] * rows
        fc_check(x.shape[1] == d.size * h.size * w.size and out.shape[1] == rows * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for i in range(begin, min(begin + grain, total)):
                p, od, oh = i // rows, i % rows // h.out, i % h.out
                row = &out[p, i % rows * w.out]
                zero(row, w.out)
                for kd in range(d.k):
                    at_d = cell(&d, od, kd)
                    if at_d < 0 or at_d >= d.size:
                        continue
                    for kh in range(h.k):
                        at_h = cell(&h, oh, kh)
                        if at_h < 0 or at_h >= h.size:
                            continue
                        for kw in range(w.k):
                            if not seen(&w, kw):
                                continue
                            w0, w1 = w.first[kw], w.last[kw]
                            gather_add(
                                row + w0, &x[p, (at_d * h.size + at_h) * w.size + cell(&w, w0, kw)],
                                w1 - w0, w.stride,
                            )
            begin = fc_draw(&counter[0], grain)


def sum_backward(
    const floating[:, ::1] dout, floating[:, ::1] dx, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """dx (P, D * H * W): every entry of dout (P, L) added to each cell of its window."""
    cdef Axis d, h, w
    cdef Py_ssize_t total = dx.shape[0], begin, p, od, oh, kd, kh, kw, w0, w1, at_d, at_h
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        fc_check(dx.shape[1] == d.size * h.size * w.size and dout.shape[1] == d.out * h.out * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for p in range(begin, min(begin + grain, total)):
                zero(&dx[p, 0], dx.shape[1])
                for od in range(d.out):
                    for oh in range(h.out):
                        for kd in range(d.k):
                            at_d = cell(&d, od, kd)
                            if at_d < 0 or at_d >= d.size:
                                continue
                            for kh in range(h.k):
                                at_h = cell(&h, oh, kh)
                                if at_h < 0 or at_h >= h.size:
                                    continue
                                for kw in range(w.k):
                                    if not seen(&w, kw):
                                        continue
                                    w0, w1 = w.first[kw], w.last[kw]
                                    scatter_add(
                                        &dx[p, (at_d * h.size + at_h) * w.size + cell(&w, w0, kw)],
                                        &dout[p, (od * h.out + oh) * w.out + w0], w1 - w0, w.stride,
                                    )
            begin = fc_draw(&counter[0], grain)
