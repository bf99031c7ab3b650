"""Maximum and sum over windows, and their adjoints, over three lifted axes.

Planes are the N * C images of one channel each. ``axes``, ``reach`` and
``words`` are as in im2col.pyx.

`max_forward`, `sum_forward` and `sum_backward` are for what pool_rows.pyx is not made for: long windows,
planes whose cells are not counted in 32 bits, gradients of sums at strides above 2. There outputs are
taken some `rows` at a time, which stay in the first-level cache while every tap meets them.
"""

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.arrays cimport Run, numbers_of, run_of
from fastconv._ext.runs cimport (
    Axis, cell, fc_check, fc_max_f32_i32, fc_max_f32_i64, fc_max_f64_i32, fc_max_f64_i64,
    floating, gather_add, read_axis, scatter_add, seen, zero,
)
from fastconv._ext.team cimport FC_GRAIN, fc_enrol, fc_member, fc_next, fc_share, fc_stopped


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
    FEW = 4
    FEW_BYTES = 1 << 12   # so many planes of so many bytes stay in the first-level cache
    PAIR_BYTES = 1 << 13  # and two of so many


cdef enum:
    MAXIMUM = 0
    SUM = 1
    SPREAD = 2


cdef inline void visit_rows(
    int op, floating* plane, floating* rows, index_t* where,
    const Axis* d, const Axis* h, const Axis* w, Py_ssize_t od, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Rows [begin, end) of outputs at depth `od`: at every tap runs of the plane meet the outputs that see them.

    `rows` and `where` point at the first of the rows. Taps are the outer loops, so
    that what they have in common is worked out once for all rows.
    """
    cdef Py_ssize_t kd, kh, kw, at_d, _oh, h0, h1, w0, n, first, at
    for kd in range(d.k):
        at_d = cell(d, od, kd)
        if at_d < 0 or at_d >= d.size:
            continue
        for kh in range(h.k):
            h0, h1 = max(begin, h.first[kh]), min(end, h.last[kh])
            if h0 >= h1:
                continue
            fc_check(cell(h, h0, kh) >= 0 and cell(h, h1 - 1, kh) < h.size)
            for kw in range(w.k):
                if not seen(w, kw):
                    continue
                w0, n = w.first[kw], w.last[kw] - w.first[kw]
                first = (at_d * h.size + cell(h, h0, kh)) * w.size + cell(w, w0, kw)
                at = (h0 - begin) * w.out + w0
                for _oh in range(h0, h1):
                    if op == MAXIMUM:
                        maximum(rows + at, where + at, plane + first, n, w.stride, first)
                    elif op == SUM:
                        gather_add(rows + at, plane + first, n, w.stride)
                    else:
                        scatter_add(plane + first, rows + at, n, w.stride)
                    at = at + w.out
                    first = first + h.stride * w.size


cdef struct Block:
    Py_ssize_t p
    Py_ssize_t od
    Py_ssize_t begin
    Py_ssize_t end
    Py_ssize_t at


cdef inline Block read_block(const Axis* d, const Axis* h, const Axis* w, Py_ssize_t i, Py_ssize_t rows) noexcept nogil:
    """The i-th block of `rows` rows of outputs: plane, depth, rows, and where it starts in its plane."""
    cdef Block block
    cdef Py_ssize_t blocks = (h.out - 1) // rows + 1
    block.begin = i % blocks * rows
    block.end = min(block.begin + rows, h.out)
    block.od = i // blocks % d.out
    block.p = i // blocks // d.out
    block.at = (block.od * h.out + block.begin) * w.out
    return block


# Arguments of a call of `max_forward`, `sum_forward` or `sum_backward`, which all of its threads read.
cdef struct Windows:
    void* image
    void* outputs
    void* indices
    Py_ssize_t cells     # of a plane of the image
    Py_ssize_t length    # of a plane of the outputs
    Py_ssize_t rows      # of outputs in a block
    Py_ssize_t total
    Axis[3] axes
    Py_ssize_t* words


cdef Windows read_windows(
    const floating[:, ::1] x, const floating[:, ::1] out, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t rows, words,
) except *:
    cdef Windows t
    cdef int i
    t.image, t.outputs, t.indices = <void*> &x[0, 0], <void*> &out[0, 0], NULL
    t.cells, t.length, t.rows, t.words = x.shape[1], out.shape[1], rows, numbers_of(words)
    for i in range(3):
        t.axes[i] = read_axis(axes, reach, i)
    fc_check(t.cells == t.axes[0].size * t.axes[1].size * t.axes[2].size)
    fc_check(t.length == t.axes[0].out * t.axes[1].out * t.axes[2].out)
    t.total = x.shape[0] * blocks_of(&t)
    return t


cdef inline Py_ssize_t blocks_of(const Windows* t) noexcept nogil:
    """The number of blocks of a plane."""
    return t.axes[0].out * ((t.axes[1].out - 1) // t.rows + 1)


def max_forward(
    const floating[:, ::1] x, floating[:, ::1] out, index_t[:, ::1] indices, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t rows, words,
):
    """out and indices (P, L): the maximum of every window of x (P, D * H * W), and its place."""
    cdef Windows t = read_windows[floating](x, out, axes, reach, rows, words)
    t.indices = <void*> &indices[0, 0]
    with nogil:
        if floating is float:
            fc_share(t.words, maxima_float_int32 if index_t is int32_t else maxima_float_int64, &t)
        else:
            fc_share(t.words, maxima_double_int32 if index_t is int32_t else maxima_double_int64, &t)


cdef void maxima_float_int32(void* task) noexcept nogil:
    draw_maxima(<const Windows*> task, <float*> NULL, <int32_t*> NULL)


cdef void maxima_float_int64(void* task) noexcept nogil:
    draw_maxima(<const Windows*> task, <float*> NULL, <int64_t*> NULL)


cdef void maxima_double_int32(void* task) noexcept nogil:
    draw_maxima(<const Windows*> task, <double*> NULL, <int32_t*> NULL)


cdef void maxima_double_int64(void* task) noexcept nogil:
    draw_maxima(<const Windows*> task, <double*> NULL, <int64_t*> NULL)


cdef void draw_maxima(const Windows* t, floating* dtype, index_t* index_dtype) noexcept nogil:
    cdef const Axis* d = &t.axes[0]
    cdef const Axis* h = &t.axes[1]
    cdef const Axis* w = &t.axes[2]
    cdef Block block
    cdef fc_member member = fc_enrol(t.words)
    cdef Py_ssize_t grain = t.words[FC_GRAIN], begin = fc_next(t.words, &member, t.total), i, j
    cdef floating* best
    cdef index_t* where
    while begin < t.total:
        for i in range(begin, min(begin + grain, t.total)):
            block = read_block(d, h, w, i, t.rows)
            best = <floating*> t.outputs + block.p * t.length + block.at
            where = <index_t*> t.indices + block.p * t.length + block.at
            for j in range((block.end - block.begin) * w.out):
                best[j] = 0
                where[j] = -1
            visit_rows(
                MAXIMUM, <floating*> t.image + block.p * t.cells, best, where, d, h, w, block.od, block.begin, block.end
            )
        begin = fc_next(t.words, &member, t.total)


cdef inline bint scatter_planes(
    int planes, floating* dx, Py_ssize_t cells, const floating* dout, const index_t* indices, Py_ssize_t L
) noexcept nogil:
    """`planes` planes side by side: where windows overlap a sum waits for the one before, but not for other planes'.

    True where some index lies outside its plane.
    """
    cdef Py_ssize_t i
    cdef int j
    cdef size_t at
    cdef bint astray = False
    for i in range(L):
        for j in range(planes):
            at = <size_t> indices[j * L + i]  # wraps around, so that a negative one is outside, too
            if at < <size_t> cells:
                dx[j * cells + <Py_ssize_t> at] += dout[j * L + i]
            else:
                astray = True
    return astray


# What all threads of a call of `max_backward` read.
cdef struct Scatter:
    const void* dout
    const void* indices
    void* dx
    char* astray
    Py_ssize_t planes
    Py_ssize_t cells
    Py_ssize_t outputs
    Py_ssize_t* words


def max_backward(int dtype, dout, indices, dx, bint wide, Py_ssize_t planes, words):
    """dx (planes * cells): every entry of dout (planes * L) added where its maximum was; whether all were in a plane.

    `dtype` is 0 (float32) or 1 (float64), and indices are int64 where `wide`, else int32. One outside the
    plane, which only a cache that was tampered with has, is not followed.
    """
    cdef Scatter s
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Run douts = run_of(dout, itemsize, False), dxs = run_of(dx, itemsize, True)
    cdef Run places = run_of(indices, 8 if wide else 4, False)
    cdef char astray = False
    cdef Py_ssize_t* shared = numbers_of(words)
    with nogil:
        s.planes, s.cells, s.outputs = planes, dxs.n // planes, douts.n // planes
        fc_check(dxs.n == planes * s.cells and douts.n == planes * s.outputs and places.n == douts.n)
        s.dout, s.indices, s.dx = douts.at, places.at, dxs.at
        s.astray, s.words = &astray, shared
        if dtype == 0:
            fc_share(shared, scatter_float_int64 if wide else scatter_float_int32, &s)
        else:
            fc_share(shared, scatter_double_int64 if wide else scatter_double_int32, &s)
    return not astray


cdef void scatter_float_int32(void* task) noexcept nogil:
    draw_scatters(<const Scatter*> task, <float*> NULL, <int32_t*> NULL)


cdef void scatter_float_int64(void* task) noexcept nogil:
    draw_scatters(<const Scatter*> task, <float*> NULL, <int64_t*> NULL)


cdef void scatter_double_int32(void* task) noexcept nogil:
    draw_scatters(<const Scatter*> task, <double*> NULL, <int32_t*> NULL)


cdef void scatter_double_int64(void* task) noexcept nogil:
    draw_scatters(<const Scatter*> task, <double*> NULL, <int64_t*> NULL)


cdef void draw_scatters(const Scatter* s, floating* dtype, index_t* index_dtype) noexcept nogil:
    cdef fc_member member = fc_enrol(s.words)
    cdef Py_ssize_t cells = s.cells, L = s.outputs, grain = s.words[FC_GRAIN], end, p, n
    cdef Py_ssize_t begin = fc_next(s.words, &member, s.planes)
    cdef const floating* dout = <const floating*> s.dout
    cdef const index_t* indices = <const index_t*> s.indices
    cdef floating* dx = <floating*> s.dx
    cdef Py_ssize_t bytes = cells * <Py_ssize_t> sizeof(floating)
    cdef bint stray
    while begin < s.planes:
        end, p = min(begin + grain, s.planes), begin
        while p < end:
            n = FEW if bytes <= FEW_BYTES else 2 if bytes <= PAIR_BYTES else 1
            if p + n > end:
                n = 1
            zero(dx + p * cells, n * cells)
            if n == FEW:
                stray = scatter_planes(FEW, dx + p * cells, cells, dout + p * L, indices + p * L, L)
            elif n == 2:
                stray = scatter_planes(2, dx + p * cells, cells, dout + p * L, indices + p * L, L)
            else:
                stray = scatter_planes(1, dx + p * cells, cells, dout + p * L, indices + p * L, L)
            if stray:
                s.astray[0] = 1
            p += n
        begin = fc_next(s.words, &member, s.planes)


def sum_forward(
    const floating[:, ::1] x, floating[:, ::1] out, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t rows, words,
):
    """out (P, L): the sum of every window of x (P, D * H * W)."""
    cdef Windows t = read_windows[floating](x, out, axes, reach, rows, words)
    with nogil:
        fc_share(t.words, sums_of_float if floating is float else sums_of_double, &t)


cdef void sums_of_float(void* task) noexcept nogil:
    draw_sums(<const Windows*> task, <float*> NULL)


cdef void sums_of_double(void* task) noexcept nogil:
    draw_sums(<const Windows*> task, <double*> NULL)


cdef void draw_sums(const Windows* t, floating* dtype) noexcept nogil:
    cdef const Axis* d = &t.axes[0]
    cdef const Axis* h = &t.axes[1]
    cdef const Axis* w = &t.axes[2]
    cdef Block block
    cdef fc_member member = fc_enrol(t.words)
    cdef Py_ssize_t grain = t.words[FC_GRAIN], begin = fc_next(t.words, &member, t.total), i
    cdef floating* out
    while begin < t.total:
        for i in range(begin, min(begin + grain, t.total)):
            block = read_block(d, h, w, i, t.rows)
            out = <floating*> t.outputs + block.p * t.length + block.at
            zero(out, (block.end - block.begin) * w.out)
            visit_rows(
                SUM, <floating*> t.image + block.p * t.cells, out, <int32_t*> NULL, d, h, w,
                block.od, block.begin, block.end,
            )
        begin = fc_next(t.words, &member, t.total)


def sum_backward(
    const floating[:, ::1] dout, floating[:, ::1] dx, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t rows, words,
):
    """dx (P, D * H * W): every entry of dout (P, L) added to each cell of its window."""
    cdef Windows t = read_windows[floating](dx, dout, axes, reach, rows, words)
    t.total = dx.shape[0]  # whole planes are drawn, because windows of neighbouring blocks overlap
    with nogil:
        fc_share(t.words, spread_of_float if floating is float else spread_of_double, &t)


cdef void spread_of_float(void* task) noexcept nogil:
    draw_spread(<const Windows*> task, <float*> NULL)


cdef void spread_of_double(void* task) noexcept nogil:
    draw_spread(<const Windows*> task, <double*> NULL)


cdef void draw_spread(const Windows* t, floating* dtype) noexcept nogil:
    cdef const Axis* d = &t.axes[0]
    cdef const Axis* h = &t.axes[1]
    cdef const Axis* w = &t.axes[2]
    cdef Block block
    cdef fc_member member = fc_enrol(t.words)
    cdef Py_ssize_t grain = t.words[FC_GRAIN], begin = fc_next(t.words, &member, t.total), p, i, blocks = blocks_of(t)
    cdef floating* dx
    while begin < t.total:
        for p in range(begin, min(begin + grain, t.total)):
            dx = <floating*> t.image + p * t.cells
            zero(dx, t.cells)
            for i in range(p * blocks, (p + 1) * blocks):
                if fc_stopped(t.words):
                    return
                block = read_block(d, h, w, i, t.rows)
                visit_rows(
                    SPREAD, dx, <floating*> t.outputs + block.p * t.length + block.at, <int32_t*> NULL, d, h, w,
                    block.od, block.begin, block.end,
                )
        begin = fc_next(t.words, &member, t.total)
