"""Maximum and sum over windows, and their adjoints, over three lifted axes.

Planes are the N * C images of one channel each. ``axes``, ``reach``,
``counter`` and ``grain`` are as in im2col.pyx.

`forward_rows` and `mean_backward_rows` are by vectors over the outputs of a row; the
others are for what those are not made for: long windows, planes whose cells are
not counted in 32 bits, gradients of the mean at strides above 2. There outputs are taken some
`rows` at a time, which stay in the first-level cache while every tap meets them.
"""

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.pool_rows cimport (
    FC_POOL_MAX, FC_POOL_MAX_OR_NAN, FC_POOL_MEAN, FC_SLACK, Place, Plan, fc_pairs_backward_table,
    fc_pairs_forward_table, fc_pool_begin_table, fc_pool_forward_table, fc_pool_gather_table, fc_pool_load_table,
    fc_pool_share_table, place, place_count, read_plan,
)
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
    FEW = 4
    FEW_CELLS = 1 << 11  # so many planes of so many cells stay in the first-level cache


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


def max_forward(
    const floating[:, ::1] x, floating[:, ::1] out, index_t[:, ::1] indices, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain, Py_ssize_t rows,
):
    """out and indices (P, L): the maximum of every window of x (P, D * H * W), and its place."""
    cdef Axis d, h, w
    cdef Block block
    cdef Py_ssize_t total, begin, i, j
    cdef floating* best
    cdef index_t* where
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        total = x.shape[0] * d.out * ((h.out - 1) // rows + 1)
        fc_check(x.shape[1] == d.size * h.size * w.size and out.shape[1] == d.out * h.out * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for i in range(begin, min(begin + grain, total)):
                block = read_block(&d, &h, &w, i, rows)
                best, where = &out[block.p, block.at], &indices[block.p, block.at]
                for j in range((block.end - block.begin) * w.out):
                    best[j] = 0
                    where[j] = -1
                visit_rows(
                    MAXIMUM, <floating*> &x[block.p, 0], best, where, &d, &h, &w, block.od, block.begin, block.end
                )
            begin = fc_draw(&counter[0], grain)


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


def max_backward(
    const floating[:, ::1] dout, const index_t[:, ::1] indices, floating[:, ::1] dx, char[::1] astray,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """dx (P, D * H * W): every entry of dout (P, L) added where its maximum was.

    An index outside the plane, which only a cache that was tampered with has,
    is not followed; astray[0] is set instead.
    """
    cdef Py_ssize_t total = dx.shape[0], cells = dx.shape[1], L = dout.shape[1], begin, end, p, n
    cdef bint stray
    with nogil:
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            end, p = min(begin + grain, total), begin
            while p < end:
                n = FEW if cells <= FEW_CELLS and p + FEW <= end else 1
                zero(&dx[p, 0], n * cells)
                if n == FEW:
                    stray = scatter_planes(FEW, &dx[p, 0], cells, &dout[p, 0], &indices[p, 0], L)
                else:
                    stray = scatter_planes(1, &dx[p, 0], cells, &dout[p, 0], &indices[p, 0], L)
                if stray:
                    astray[0] = 1
                p += n
            begin = fc_draw(&counter[0], grain)


def sum_forward(
    const floating[:, ::1] x, floating[:, ::1] out, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain, Py_ssize_t rows,
):
    """out (P, L): the sum of every window of x (P, D * H * W)."""
    cdef Axis d, h, w
    cdef Block block
    cdef Py_ssize_t total, begin, i
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        total = x.shape[0] * d.out * ((h.out - 1) // rows + 1)
        fc_check(x.shape[1] == d.size * h.size * w.size and out.shape[1] == d.out * h.out * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for i in range(begin, min(begin + grain, total)):
                block = read_block(&d, &h, &w, i, rows)
                zero(&out[block.p, block.at], (block.end - block.begin) * w.out)
                visit_rows(
                    SUM, <floating*> &x[block.p, 0], &out[block.p, block.at], <int32_t*> NULL, &d, &h, &w,
                    block.od, block.begin, block.end,
                )
            begin = fc_draw(&counter[0], grain)


def sum_backward(
    const floating[:, ::1] dout, floating[:, ::1] dx, const Py_ssize_t[:, ::1] axes,
    const Py_ssize_t[:, ::1] reach, Py_ssize_t[::1] counter, Py_ssize_t grain, Py_ssize_t rows,
):
    """dx (P, D * H * W): every entry of dout (P, L) added to each cell of its window."""
    cdef Axis d, h, w
    cdef Block block
    cdef Py_ssize_t total = dx.shape[0], begin, p, i, blocks
    with nogil:
        d, h, w = read_axis(axes, reach, 0), read_axis(axes, reach, 1), read_axis(axes, reach, 2)
        blocks = d.out * ((h.out - 1) // rows + 1)
        fc_check(dx.shape[1] == d.size * h.size * w.size and dout.shape[1] == d.out * h.out * w.out)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            # A whole plane each: windows of neighbouring blocks overlap.
            for p in range(begin, min(begin + grain, total)):
                zero(&dx[p, 0], dx.shape[1])
                for i in range(p * blocks, (p + 1) * blocks):
                    block = read_block(&d, &h, &w, i, rows)
                    visit_rows(
                        SPREAD, &dx[p, 0], <floating*> &dout[p, block.at], <int32_t*> NULL, &d, &h, &w,
                        block.od, block.begin, block.end,
                    )
            begin = fc_draw(&counter[0], grain)


cdef inline floating* aligned(floating* p) noexcept nogil:
    """The next place where a line of the cache begins; a workspace has FC_SLACK elements to spare for it."""
    return <floating*> ((<size_t> p + 63) // 64 * 64)


def forward_rows(
    const floating[::1] x, floating[::1] out, int32_t[::1] indices, const Py_ssize_t[::1] table,
    floating[:, ::1] space, int isa, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """out, and for the maximum its `indices`, of every window of x; the mean where `indices` is empty.

    Each thread takes a row of `space`, as many elements as the table says.
    """
    cdef Plan plan
    cdef Place here
    cdef Py_ssize_t planes, total, begin, last, first, i
    cdef int dtype = 0 if floating is float else 1, op = FC_POOL_MAX if indices.shape[0] else FC_POOL_MEAN
    cdef floating* lanes
    cdef floating* blocks
    cdef const floating* end
    cdef bint odd
    with nogil:
        plan = read_plan(&table[0])
        planes = x.shape[0] // plan.cells
        total = place_count(planes, &plan, plan.pool.out)
        fc_check(x.shape[0] == planes * plan.cells and out.shape[0] == planes * plan.outputs)
        fc_check(op == FC_POOL_MEAN or indices.shape[0] == out.shape[0])
        begin = fc_draw(&counter[0], grain)
        if begin < total:
            i = fc_draw(&counter[1], 1)
            fc_check(i < space.shape[0] and FC_SLACK + plan.lanes + plan.batch * plan.block <= space.shape[1])
            lanes = aligned(&space[i, 0])
            blocks = lanes + plan.lanes
            fc_pool_begin_table[dtype][isa](&plan.pool, op, lanes)
        while begin < total:
            last = min(begin + grain, total)
            # Vectors may spill up to where this draw's outputs end.
            here = place(last, &plan, plan.pool.out)
            end = &out[0] + here.at
            first = begin
            while first < last:
                odd = False
                for i in range(first, min(first + plan.batch, last)):
                    here = place(i, &plan, plan.pool.out)
                    odd |= fc_pool_load_table[dtype][isa](
                        &plan.pool, op, blocks + (i - first) * plan.block, &x[here.plane * plan.cells],
                        &x[0] + x.shape[0], here.depth, here.begin, here.end,
                    )
                for i in range(first, min(first + plan.batch, last)):
                    here = place(i, &plan, plan.pool.out)
                    fc_pool_forward_table[dtype][isa](
                        &plan.pool, FC_POOL_MAX_OR_NAN if odd and op == FC_POOL_MAX else op,
                        blocks + (i - first) * plan.block, lanes, &out[here.at],
                        &indices[here.at] if op == FC_POOL_MAX else NULL, end, here.depth, here.begin, here.end,
                    )
                first += plan.batch
            begin = fc_draw(&counter[0], grain)


def mean_backward_rows(
    const floating[::1] dout, floating[::1] dx, const Py_ssize_t[::1] table, floating[:, ::1] space, int isa,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """dx: every entry of dout over its window's count, added to each cell of the window."""
    cdef Plan plan
    cdef Place here
    cdef Py_ssize_t planes, total, begin, last, first, i
    cdef int dtype = 0 if floating is float else 1
    cdef floating* lanes
    cdef floating* blocks
    cdef const floating* end
    with nogil:
        plan = read_plan(&table[0])
        planes = dx.shape[0] // plan.cells
        total = place_count(planes, &plan, plan.pool.size)
        fc_check(dx.shape[0] == planes * plan.cells and dout.shape[0] == planes * plan.outputs)
        begin = fc_draw(&counter[0], grain)
        if begin < total:
            i = fc_draw(&counter[1], 1)
            fc_check(i < space.shape[0] and FC_SLACK + plan.lanes + plan.batch * plan.block <= space.shape[1])
            lanes = aligned(&space[i, 0])
            blocks = lanes + plan.lanes
            fc_pool_begin_table[dtype][isa](&plan.pool, FC_POOL_MEAN, lanes)
        while begin < total:
            last = min(begin + grain, total)
            here = place(last, &plan, plan.pool.size)
            end = &dx[0] + here.at
            first = begin
            while first < last:
                for i in range(first, min(first + plan.batch, last)):
                    here = place(i, &plan, plan.pool.size)
                    fc_pool_share_table[dtype][isa](
                        &plan.pool, blocks + (i - first) * plan.block, lanes, &dout[here.plane * plan.outputs],
                        &dout[0] + dout.shape[0], here.depth, here.begin, here.end,
                    )
                for i in range(first, min(first + plan.batch, last)):
                    here = place(i, &plan, plan.pool.size)
                    fc_pool_gather_table[dtype][isa](
                        &plan.pool, blocks + (i - first) * plan.block, &dx[here.at], end,
                        here.depth, here.begin, here.end,
                    )
                first += plan.batch
            begin = fc_draw(&counter[0], grain)


def pairs_forward(
    const floating[::1] x, floating[::1] out, int32_t[::1] indices, Py_ssize_t height, Py_ssize_t width, int isa,
    Py_ssize_t[::1] counter, Py_ssize_t grain, Py_ssize_t rows,
):
    """As `forward_rows`, the maximum of 2 x 2 cells at a stride of 2, `rows` rows of outputs to a block."""
    cdef Py_ssize_t cells = height * width, tall = height // 2, wide = width // 2, blocks = (tall - 1) // rows + 1
    cdef Py_ssize_t total = x.shape[0] // cells * blocks, begin, last, i, p, top, at
    cdef int dtype = 0 if floating is float else 1
    cdef const floating* end
    with nogil:
        fc_check(x.shape[0] % cells == 0 and out.shape[0] == x.shape[0] // cells * tall * wide)
        fc_check(out.shape[0] == indices.shape[0])
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            last = min(begin + grain, total)
            end = &out[0] + (last // blocks * tall + last % blocks * rows) * wide
            for i in range(begin, last):
                p, top = i // blocks, i % blocks * rows
                at = (p * tall + top) * wide
                fc_pairs_forward_table[dtype][isa](
                    &x[p * cells + 2 * top * width], &x[0] + x.shape[0], width, 2 * top * width,
                    &out[at], &indices[at], end, min(rows, tall - top),
                )
            begin = fc_draw(&counter[0], grain)


def pairs_backward(
    const floating[::1] dout, const int32_t[::1] indices, floating[::1] dx, char[::1] astray,
    Py_ssize_t height, Py_ssize_t width, int isa, Py_ssize_t[::1] counter, Py_ssize_t grain, Py_ssize_t rows,
):
    """The adjoint of `pairs_forward`; astray[0] is set where an index is not of its own window."""
    cdef Py_ssize_t cells = height * width, tall = height // 2, wide = width // 2, blocks = (tall - 1) // rows + 1
    cdef Py_ssize_t total = dx.shape[0] // cells * blocks, begin, last, i, p, top, at
    cdef int dtype = 0 if floating is float else 1, stray = 0
    cdef const floating* end
    with nogil:
        fc_check(dx.shape[0] % cells == 0 and dout.shape[0] == dx.shape[0] // cells * tall * wide)
        fc_check(dout.shape[0] == indices.shape[0])
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            last = min(begin + grain, total)
            end = &dx[0] + last // blocks * cells + last % blocks * rows * 2 * width
            for i in range(begin, last):
                p, top = i // blocks, i % blocks * rows
                at = (p * tall + top) * wide
                stray |= fc_pairs_backward_table[dtype][isa](
                    &dout[at], &dout[0] + dout.shape[0], &indices[at], width, 2 * top * width,
                    &dx[p * cells + 2 * top * width], end, min(rows, tall - top),
                )
                if top + rows >= tall and height % 2:
                    zero(&dx[(p + 1) * cells - width], width)
            begin = fc_draw(&counter[0], grain)
        if stray:
            astray[0] = 1
