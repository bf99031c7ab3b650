"""Max, average and L2 pooling and their adjoints, with vectors along a row of outputs: see pool.h.

Arrays hold planes, which are the N * C channels of all images. `dtype` is 0 (float32) or 1 (float64). `words` is the
shared state of the call, which distributes the work among threads: see team.h.
"""

from libc.stdint cimport int32_t

from fastconv._ext.arrays cimport Run, numbers_of, run_of
from fastconv._ext.runs cimport fc_check, floating, zero
from fastconv._ext.team cimport FC_GRAIN, fc_enrol, fc_member, fc_next, fc_share


cdef inline floating* aligned(floating* p) noexcept nogil:
    """Return the first address from p on that starts a cache line; a workspace has FC_SLACK spare elements for this."""
    return <floating*> ((<size_t> p + 63) // 64 * 64)


# The arguments of a pooling by rows, which all of its threads read.
cdef struct Rows:
    Plan plan
    const void* source
    Py_ssize_t sources   # elements of the source
    void* result
    Py_ssize_t results   # for the adjoint only
    int32_t* indices
    const void* norms    # for the adjoint of the norm; else NULL
    const void* factors  # for the adjoint of the norm: x; else NULL
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t slots
    Py_ssize_t total
    int op
    int isa
    Py_ssize_t* words


def forward_rows(
    int dtype, x, out, indices, bint norm, table, space, Py_ssize_t slots, int isa, words,
):
    """Compute out for every window of x. If `indices` is not empty, out is the maximum and `indices` its index;
    otherwise out is the mean or the norm.

    Each thread has one of `slots` rows of `space`, whose length is in the table.
    """
    cdef Rows r
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Run xs = run_of(x, itemsize, False), outs = run_of(out, itemsize, True), places = run_of(indices, 4, True)
    cdef Run spaces = run_of(space, itemsize, True)
    cdef Py_ssize_t* shared = numbers_of(words)
    cdef const Py_ssize_t* entries = numbers_of(table)
    with nogil:
        r.plan = read_plan(entries)
        planes = xs.n // r.plan.cells
        r.total = place_count(planes, &r.plan, r.plan.pool.out)
        r.op, r.indices = FC_POOL_NORM if norm else FC_POOL_MEAN, NULL
        if places.n:
            r.op, r.indices = FC_POOL_MAX, <int32_t*> places.at
        fc_check(xs.n == planes * r.plan.cells and outs.n == planes * r.plan.outputs)
        fc_check(places.n == 0 or places.n == outs.n)
        r.source, r.sources, r.result = xs.at, xs.n, outs.at
        set_rows(&r, &spaces, slots, isa, shared)
        fc_share(shared, forward_of_double if dtype else forward_of_float, &r)


cdef inline void set_rows(Rows* r, const Run* space, Py_ssize_t slots, int isa, Py_ssize_t* words) noexcept nogil:
    r.space, r.space_pitch, r.slots = space.at, space.n // slots, slots
    r.isa, r.words = isa, words
    fc_check(FC_SLACK + r.plan.lanes + r.plan.batch * r.plan.block <= r.space_pitch)


cdef void forward_of_float(void* task) noexcept nogil:
    draw_forward(<const Rows*> task, <float*> NULL)


cdef void forward_of_double(void* task) noexcept nogil:
    draw_forward(<const Rows*> task, <double*> NULL)


cdef inline floating* begin_rows(const Rows* r, Py_ssize_t slot, floating* dtype) noexcept nogil:
    """Return the workspace of this thread, with the tables that all windows share filled in."""
    cdef floating* lanes = aligned(<floating*> r.space + slot * r.space_pitch)
    fc_check(slot < r.slots)
    fc_pool_for(0 if floating is float else 1, r.isa).begin(&r.plan.pool, r.op, lanes)
    return lanes


cdef void draw_forward(const Rows* r, floating* dtype) noexcept nogil:
    cdef const Plan* plan = &r.plan
    cdef Place here
    cdef fc_member member = fc_enrol(r.words)
    cdef Py_ssize_t grain = r.words[FC_GRAIN], begin = fc_next(r.words, &member, r.total), last, first, i
    cdef int isa = r.isa, op = r.op, which = 0 if floating is float else 1
    cdef const floating* x = <const floating*> r.source
    cdef floating* out = <floating*> r.result
    cdef floating* lanes
    cdef floating* blocks
    cdef const floating* end
    cdef bint odd
    if begin >= r.total:
        return
    lanes = begin_rows(r, member.slot, dtype)
    blocks = lanes + plan.lanes
    while begin < r.total:
        last = min(begin + grain, r.total)
        # Vectors may write past a row, up to the end of the outputs of this chunk.
        here = place(last, plan, plan.pool.out)
        end = out + here.at
        first = begin
        while first < last:
            odd = False
            for i in range(first, min(first + plan.batch, last)):
                here = place(i, plan, plan.pool.out)
                odd |= fc_pool_for(which, isa).load(
                    &plan.pool, op, blocks + (i - first) * plan.block, x + here.plane * plan.cells, x + r.sources,
                    here.depth, here.begin, here.end,
                )
            for i in range(first, min(first + plan.batch, last)):
                here = place(i, plan, plan.pool.out)
                fc_pool_for(which, isa).forward(
                    &plan.pool, FC_POOL_MAX_OR_NAN if odd and op == FC_POOL_MAX else op,
                    blocks + (i - first) * plan.block, lanes, out + here.at,
                    r.indices + here.at if op == FC_POOL_MAX else NULL, end, here.depth, here.begin, here.end,
                )
            first += plan.batch
        begin = fc_next(r.words, &member, r.total)


def backward_rows(
    int dtype, dout, norms, x, dx, table, space, Py_ssize_t slots, int isa, words,
):
    """Compute dx: each entry of dout, divided by the count of its window, is added to each cell of the window.

    If `norms` and x are not None, each entry is divided by the norm of the window instead, and the sum of each cell is
    multiplied by x.
    """
    cdef Rows r
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Run douts = run_of(dout, itemsize, False), dxs = run_of(dx, itemsize, True)
    cdef Run divisors = Run(NULL, 0), factors = Run(NULL, 0)
    cdef Run spaces = run_of(space, itemsize, True)
    cdef Py_ssize_t* shared = numbers_of(words)
    cdef const Py_ssize_t* entries = numbers_of(table)
    cdef bint by_norm = norms is not None
    if by_norm:
        divisors, factors = run_of(norms, itemsize, False), run_of(x, itemsize, False)
    with nogil:
        r.plan = read_plan(entries)
        planes = dxs.n // r.plan.cells
        r.total = place_count(planes, &r.plan, r.plan.pool.size)
        fc_check(dxs.n == planes * r.plan.cells and douts.n == planes * r.plan.outputs)
        r.source, r.sources, r.result, r.results = douts.at, douts.n, dxs.at, dxs.n
        r.op, r.indices = FC_POOL_MEAN, NULL
        r.norms = r.factors = NULL
        if by_norm:
            fc_check(divisors.n == douts.n and factors.n == dxs.n)
            r.op, r.norms, r.factors = FC_POOL_NORM, divisors.at, factors.at
        set_rows(&r, &spaces, slots, isa, shared)
        fc_share(shared, backward_of_double if dtype else backward_of_float, &r)


cdef void backward_of_float(void* task) noexcept nogil:
    draw_backward(<const Rows*> task, <float*> NULL)


cdef void backward_of_double(void* task) noexcept nogil:
    draw_backward(<const Rows*> task, <double*> NULL)


cdef void draw_backward(const Rows* r, floating* dtype) noexcept nogil:
    cdef const Plan* plan = &r.plan
    cdef Place here
    cdef fc_member member = fc_enrol(r.words)
    cdef Py_ssize_t grain = r.words[FC_GRAIN], begin = fc_next(r.words, &member, r.total), last, first, i
    cdef int isa = r.isa, which = 0 if floating is float else 1
    cdef const floating* dout = <const floating*> r.source
    cdef const floating* norms = <const floating*> r.norms
    cdef const floating* x = <const floating*> r.factors
    cdef floating* dx = <floating*> r.result
    cdef floating* lanes
    cdef floating* blocks
    cdef const floating* end
    if begin >= r.total:
        return
    lanes = begin_rows(r, member.slot, dtype)
    blocks = lanes + plan.lanes
    while begin < r.total:
        last = min(begin + grain, r.total)
        here = place(last, plan, plan.pool.size)
        end = dx + here.at
        first = begin
        while first < last:
            for i in range(first, min(first + plan.batch, last)):
                here = place(i, plan, plan.pool.size)
                fc_pool_for(which, isa).share(
                    &plan.pool, blocks + (i - first) * plan.block, lanes, dout + here.plane * plan.outputs,
                    dout + r.sources, <const floating*> NULL if norms == NULL else norms + here.plane * plan.outputs,
                    here.depth, here.begin, here.end,
                )
            for i in range(first, min(first + plan.batch, last)):
                here = place(i, plan, plan.pool.size)
                fc_pool_for(which, isa).gather(
                    &plan.pool, blocks + (i - first) * plan.block, <const floating*> NULL if x == NULL else x + here.at,
                    <const floating*> NULL if x == NULL else x + r.results, dx + here.at, end,
                    here.depth, here.begin, here.end,
                )
            first += plan.batch
        begin = fc_next(r.words, &member, r.total)


# The arguments of a 2 x 2 pooling with stride 2, which all of its threads read.
cdef struct Pool2x2:
    fc_pool_2x2_forward_t forward
    fc_pool_2x2_backward_t backward
    fc_pool_2x2_sum_t sum
    fc_pool_2x2_spread_t spread
    const void* source
    Py_ssize_t sources   # elements of the source
    void* result
    int32_t* indices     # NULL for the mean and the norm
    const void* norms    # for the adjoint of the norm; else NULL
    const void* factors  # for the adjoint of the norm: x; else NULL
    char* out_of_window
    Py_ssize_t height    # rows of the image
    Py_ssize_t width
    Py_ssize_t rows      # rows of outputs in a block
    Py_ssize_t total
    Py_ssize_t* words


def forward_2x2(
    int dtype, x, out, indices, bint norm, Py_ssize_t height, Py_ssize_t width, Py_ssize_t rows, int isa, words,
):
    """Compute what `forward_rows` computes, for 2 x 2 windows, with `rows` rows of outputs in a block."""
    cdef Pool2x2 p
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Run xs = run_of(x, itemsize, False), outs = run_of(out, itemsize, True), places = run_of(indices, 4, True)
    cdef Py_ssize_t* shared = numbers_of(words)
    with nogil:
        p.sum, p.indices = fc_pool_for(dtype, isa).norm_2x2 if norm else fc_pool_for(dtype, isa).mean_2x2, NULL
        if places.n:
            p.forward, p.indices = fc_pool_for(dtype, isa).forward_2x2, <int32_t*> places.at
        p.source, p.sources, p.result = xs.at, xs.n, outs.at
        p.height, p.width, p.rows, p.words = height, width, rows, shared
        planes = xs.n // (height * width)
        p.total = planes * ((height // 2 - 1) // rows + 1)
        fc_check(xs.n == planes * height * width and outs.n == planes * (height // 2) * (width // 2))
        fc_check(places.n == 0 or outs.n == places.n)
        fc_share(shared, forward_2x2_of_double if dtype else forward_2x2_of_float, &p)


cdef void forward_2x2_of_float(void* task) noexcept nogil:
    draw_2x2_forward(<const Pool2x2*> task, <float*> NULL)


cdef void forward_2x2_of_double(void* task) noexcept nogil:
    draw_2x2_forward(<const Pool2x2*> task, <double*> NULL)


cdef void draw_2x2_forward(const Pool2x2* p, floating* dtype) noexcept nogil:
    cdef Py_ssize_t cells = p.height * p.width, tall = p.height // 2, wide = p.width // 2, rows = p.rows
    cdef Py_ssize_t blocks = (tall - 1) // rows + 1, grain = p.words[FC_GRAIN], last, i, plane, top, at, cell
    cdef fc_member member = fc_enrol(p.words)
    cdef Py_ssize_t begin = fc_next(p.words, &member, p.total)
    cdef const floating* x = <const floating*> p.source
    cdef floating* out = <floating*> p.result
    cdef const floating* end
    while begin < p.total:
        last = min(begin + grain, p.total)
        end = out + (last // blocks * tall + last % blocks * rows) * wide
        for i in range(begin, last):
            plane, top = i // blocks, i % blocks * rows
            at, cell = (plane * tall + top) * wide, 2 * top * p.width
            if p.indices == NULL:
                p.sum(x + plane * cells + cell, x + p.sources, p.width, out + at, end, min(rows, tall - top))
            else:
                p.forward(
                    x + plane * cells + cell, x + p.sources, p.width, cell, out + at, p.indices + at, end,
                    min(rows, tall - top),
                )
        begin = fc_next(p.words, &member, p.total)


def backward_2x2(
    int dtype, dout, indices, norms, x, dx, Py_ssize_t height, Py_ssize_t width, Py_ssize_t rows, int isa, words,
):
    """Compute the adjoint of `forward_2x2`, or of the norm if `norms` and x are not None.

    Returns whether every index is within its window.
    """
    cdef Pool2x2 p
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Run douts = run_of(dout, itemsize, False), dxs = run_of(dx, itemsize, True)
    cdef Run places = run_of(indices, 4, False)
    cdef Run divisors = Run(NULL, 0), factors = Run(NULL, 0)
    cdef char out_of_window = False
    cdef Py_ssize_t* shared = numbers_of(words)
    cdef bint by_norm = norms is not None
    if by_norm:
        divisors, factors = run_of(norms, itemsize, False), run_of(x, itemsize, False)
    with nogil:
        p.spread, p.indices, p.norms, p.factors = fc_pool_for(dtype, isa).mean_spread_2x2, NULL, NULL, NULL
        if by_norm:
            fc_check(divisors.n == douts.n and factors.n == dxs.n)
            p.spread, p.norms, p.factors = fc_pool_for(dtype, isa).norm_spread_2x2, divisors.at, factors.at
        if places.n:
            p.backward, p.indices = fc_pool_for(dtype, isa).backward_2x2, <int32_t*> places.at
        p.source, p.sources, p.result = douts.at, douts.n, dxs.at
        p.height, p.width, p.rows, p.out_of_window, p.words = height, width, rows, &out_of_window, shared
        planes = dxs.n // (height * width)
        p.total = planes * ((height // 2 - 1) // rows + 1)
        fc_check(dxs.n == planes * height * width and douts.n == planes * (height // 2) * (width // 2))
        fc_check(places.n == 0 or douts.n == places.n)
        fc_share(shared, backward_2x2_of_double if dtype else backward_2x2_of_float, &p)
    return not out_of_window


cdef void backward_2x2_of_float(void* task) noexcept nogil:
    draw_2x2_backward(<const Pool2x2*> task, <float*> NULL)


cdef void backward_2x2_of_double(void* task) noexcept nogil:
    draw_2x2_backward(<const Pool2x2*> task, <double*> NULL)


cdef void draw_2x2_backward(const Pool2x2* p, floating* dtype) noexcept nogil:
    cdef Py_ssize_t cells = p.height * p.width, tall = p.height // 2, wide = p.width // 2, rows = p.rows
    cdef Py_ssize_t blocks = (tall - 1) // rows + 1, grain = p.words[FC_GRAIN], last, i, plane, top, at, cell
    cdef fc_member member = fc_enrol(p.words)
    cdef Py_ssize_t begin = fc_next(p.words, &member, p.total), planes = p.total // blocks
    cdef const floating* dout = <const floating*> p.source
    cdef const floating* norms = <const floating*> p.norms
    cdef const floating* x = <const floating*> p.factors
    cdef floating* dx = <floating*> p.result
    cdef const floating* end
    cdef int out_of_window = 0
    while begin < p.total:
        last = min(begin + grain, p.total)
        end = dx + last // blocks * cells + last % blocks * rows * 2 * p.width
        for i in range(begin, last):
            plane, top = i // blocks, i % blocks * rows
            at, cell = (plane * tall + top) * wide, plane * cells + 2 * top * p.width
            if p.indices != NULL:
                out_of_window |= p.backward(
                    dout + at, dout + p.sources, p.indices + at, p.width, 2 * top * p.width, dx + cell, end,
                    min(rows, tall - top),
                )
            elif norms != NULL:
                p.spread(
                    dout + at, dout + p.sources, norms + at, p.width, x + cell, x + planes * cells, dx + cell, end,
                    min(rows, tall - top),
                )
            else:
                p.spread(
                    dout + at, dout + p.sources, NULL, p.width, NULL, NULL, dx + cell, end, min(rows, tall - top)
                )
            if top + rows >= tall and p.height % 2:
                zero(dx + (plane + 1) * cells - p.width, p.width)
        begin = fc_next(p.words, &member, p.total)
    if out_of_window:
        p.out_of_window[0] = 1
