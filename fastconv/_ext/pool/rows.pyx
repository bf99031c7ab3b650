"""Max, average and L2 pooling and their adjoints. Vectors run along a row of outputs: see pool.h.

A plane is one channel of one image, so an array consists of N * C planes. `dtype` is 0 (float32) or 1 (float64).
`queue` is the shared state of the call, which distributes the work among threads: see threads/team.h.
"""

from libc.stdint cimport int32_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check, floating, zero
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef inline floating* aligned(floating* p) noexcept nogil:
    """Return p, rounded up to the start of a cache line. A workspace has FC_SLACK spare elements for this."""
    return <floating*> ((<size_t> p + 63) // 64 * 64)


# The arguments of a pooling by rows, which all threads of the call read.
cdef struct Rows:
    Plan plan
    const void* source
    Py_ssize_t sources   # the number of elements of `source`
    void* result
    Py_ssize_t results   # the number of elements of `result`; used by the backward pass only
    int32_t* indices
    const void* norms    # the outputs of L2 pooling, for its backward pass; otherwise NULL
    const void* factors  # the input x of L2 pooling, for its backward pass; otherwise NULL
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    Py_ssize_t total
    int op
    int isa
    fc_work_queue* queue


def forward_rows(
    int dtype, x, out, indices, bint norm, table, space, Py_ssize_t workspaces, int isa, queue,
):
    """Compute the maximum, the L2 norm or the mean of each window of x, and write it to `out`.

    If `indices` is not empty, the maximum is computed, and its index is written to `indices`. Otherwise, the L2 norm is
    computed if `norm` is set, and the mean if not. `space` consists of `workspaces` workspaces, one for each thread.
    """
    cdef Rows r
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Buffer xs = contiguous_buffer(x, itemsize, False), outs = contiguous_buffer(out, itemsize, True)
    cdef Buffer index_buffer = contiguous_buffer(indices, 4, True)
    cdef Buffer spaces = contiguous_buffer(space, itemsize, True)
    cdef fc_work_queue* shared = work_queue(queue)
    cdef const Py_ssize_t* entries = index_pointer(table)
    with nogil:
        r.plan = read_plan(entries)
        planes = xs.n // r.plan.cells
        r.total = count_row_blocks(planes, &r.plan, r.plan.pool.out)
        r.op, r.indices = FC_POOL_NORM if norm else FC_POOL_MEAN, NULL
        if index_buffer.n:
            r.op, r.indices = FC_POOL_MAX, <int32_t*> index_buffer.at
        fc_check(xs.n == planes * r.plan.cells and outs.n == planes * r.plan.outputs)
        fc_check(index_buffer.n == 0 or index_buffer.n == outs.n)
        r.source, r.sources, r.result = xs.at, xs.n, outs.at
        set_rows(&r, &spaces, workspaces, isa, shared)
        fc_parallel_for(shared, forward_of_double if dtype else forward_of_float, &r)


cdef inline void set_rows(Rows* r, const Buffer* space, Py_ssize_t workspaces, int isa,
                          fc_work_queue* queue) noexcept nogil:
    r.space, r.space_pitch, r.workspaces = space.at, space.n // workspaces, workspaces
    r.isa, r.queue = isa, queue
    fc_check(FC_SLACK + r.plan.tables + r.plan.batch * r.plan.block <= r.space_pitch)


cdef void forward_of_float(void* task) noexcept nogil:
    forward_worker(<const Rows*> task, <float*> NULL)


cdef void forward_of_double(void* task) noexcept nogil:
    forward_worker(<const Rows*> task, <double*> NULL)


cdef inline floating* begin_rows(const Rows* r, Py_ssize_t worker_id, floating* dtype) noexcept nogil:
    """Fill in the tables at the start of the workspace of this thread, and return the workspace."""
    cdef floating* tables = aligned(<floating*> r.space + worker_id * r.space_pitch)
    fc_check(worker_id < r.workspaces)
    fc_pool_for(0 if floating is float else 1, r.isa).fill_tables(&r.plan.pool, r.op, tables)
    return tables


cdef void forward_worker(const Rows* r, floating* dtype) noexcept nogil:
    cdef const Plan* plan = &r.plan
    cdef RowBlock here
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.total), last, first, i
    cdef int isa = r.isa, op = r.op, which = 0 if floating is float else 1
    cdef const floating* x = <const floating*> r.source
    cdef floating* out = <floating*> r.result
    cdef floating* tables
    cdef floating* blocks
    cdef const floating* end
    cdef bint has_nan
    if begin >= r.total:
        return
    tables = begin_rows(r, worker.id, dtype)
    blocks = tables + plan.tables
    while begin < r.total:
        last = min(begin + grain, r.total)
        # A vector may write past the end of its row, but not past the end of the outputs of this chunk.
        here = row_block_at(last, plan, plan.pool.out)
        end = out + here.at
        first = begin
        while first < last:
            has_nan = False
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, plan, plan.pool.out)
                has_nan |= fc_pool_for(which, isa).load(
                    &plan.pool, op, blocks + (i - first) * plan.block, x + here.plane * plan.cells, x + r.sources,
                    here.depth, here.begin, here.end,
                )
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, plan, plan.pool.out)
                fc_pool_for(which, isa).forward(
                    &plan.pool, FC_POOL_MAX_OR_NAN if has_nan and op == FC_POOL_MAX else op,
                    blocks + (i - first) * plan.block, tables, out + here.at,
                    r.indices + here.at if op == FC_POOL_MAX else NULL, end, here.depth, here.begin, here.end,
                )
            first += plan.batch
        begin = fc_next_chunk(r.queue, &worker, r.total)


def backward_rows(
    int dtype, dout, norms, x, dx, table, space, Py_ssize_t workspaces, int isa, queue,
):
    """Compute dx of average pooling or, if `norms` and x are not None, of L2 pooling.

    For the mean, each element of dout is divided by the number of elements of its window, and the quotient is added to
    dx at each element of the window. For the L2 norm, each element of dout is divided by the norm of its window, and
    the sum of these quotients at each element of dx is multiplied by x.
    """
    cdef Rows r
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Buffer douts = contiguous_buffer(dout, itemsize, False), dxs = contiguous_buffer(dx, itemsize, True)
    cdef Buffer divisors = Buffer(NULL, 0), factors = Buffer(NULL, 0)
    cdef Buffer spaces = contiguous_buffer(space, itemsize, True)
    cdef fc_work_queue* shared = work_queue(queue)
    cdef const Py_ssize_t* entries = index_pointer(table)
    cdef bint by_norm = norms is not None
    if by_norm:
        divisors, factors = contiguous_buffer(norms, itemsize, False), contiguous_buffer(x, itemsize, False)
    with nogil:
        r.plan = read_plan(entries)
        planes = dxs.n // r.plan.cells
        r.total = count_row_blocks(planes, &r.plan, r.plan.pool.size)
        fc_check(dxs.n == planes * r.plan.cells and douts.n == planes * r.plan.outputs)
        r.source, r.sources, r.result, r.results = douts.at, douts.n, dxs.at, dxs.n
        r.op, r.indices = FC_POOL_MEAN, NULL
        r.norms = r.factors = NULL
        if by_norm:
            fc_check(divisors.n == douts.n and factors.n == dxs.n)
            r.op, r.norms, r.factors = FC_POOL_NORM, divisors.at, factors.at
        set_rows(&r, &spaces, workspaces, isa, shared)
        fc_parallel_for(shared, backward_of_double if dtype else backward_of_float, &r)


cdef void backward_of_float(void* task) noexcept nogil:
    backward_worker(<const Rows*> task, <float*> NULL)


cdef void backward_of_double(void* task) noexcept nogil:
    backward_worker(<const Rows*> task, <double*> NULL)


cdef void backward_worker(const Rows* r, floating* dtype) noexcept nogil:
    cdef const Plan* plan = &r.plan
    cdef RowBlock here
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.total), last, first, i
    cdef int isa = r.isa, which = 0 if floating is float else 1
    cdef const floating* dout = <const floating*> r.source
    cdef const floating* norms = <const floating*> r.norms
    cdef const floating* x = <const floating*> r.factors
    cdef floating* dx = <floating*> r.result
    cdef floating* tables
    cdef floating* blocks
    cdef const floating* end
    if begin >= r.total:
        return
    tables = begin_rows(r, worker.id, dtype)
    blocks = tables + plan.tables
    while begin < r.total:
        last = min(begin + grain, r.total)
        here = row_block_at(last, plan, plan.pool.size)
        end = dx + here.at
        first = begin
        while first < last:
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, plan, plan.pool.size)
                fc_pool_for(which, isa).load_gradient(
                    &plan.pool, blocks + (i - first) * plan.block, tables, dout + here.plane * plan.outputs,
                    dout + r.sources, <const floating*> NULL if norms == NULL else norms + here.plane * plan.outputs,
                    here.depth, here.begin, here.end,
                )
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, plan, plan.pool.size)
                fc_pool_for(which, isa).gather(
                    &plan.pool, blocks + (i - first) * plan.block, <const floating*> NULL if x == NULL else x + here.at,
                    <const floating*> NULL if x == NULL else x + r.results, dx + here.at, end,
                    here.depth, here.begin, here.end,
                )
            first += plan.batch
        begin = fc_next_chunk(r.queue, &worker, r.total)


# The arguments of a 2 x 2 pooling with stride 2, which all threads of the call read.
cdef struct Pool2x2:
    fc_pool_2x2_forward_t forward
    fc_pool_2x2_backward_t backward
    fc_pool_2x2_sum_t sum
    fc_pool_2x2_sum_backward_t sum_backward
    const void* source
    Py_ssize_t sources   # the number of elements of `source`
    void* result
    int32_t* indices     # the indices of the maxima; NULL for average and L2 pooling
    const void* norms    # the outputs of L2 pooling, for its backward pass; otherwise NULL
    const void* factors  # the input x of L2 pooling, for its backward pass; otherwise NULL
    char* out_of_window
    Py_ssize_t height    # the number of rows of an image
    Py_ssize_t width
    Py_ssize_t rows      # the number of rows of outputs of a block
    Py_ssize_t total
    fc_work_queue* queue


def forward_2x2(
    int dtype, x, out, indices, bint norm, Py_ssize_t height, Py_ssize_t width, Py_ssize_t rows, int isa, queue,
):
    """Do the work of `forward_rows` for 2 x 2 windows with stride 2. A block has `rows` rows of outputs."""
    cdef Pool2x2 p
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Buffer xs = contiguous_buffer(x, itemsize, False), outs = contiguous_buffer(out, itemsize, True)
    cdef Buffer index_buffer = contiguous_buffer(indices, 4, True)
    cdef fc_work_queue* shared = work_queue(queue)
    with nogil:
        p.sum, p.indices = fc_pool_for(dtype, isa).norm_2x2 if norm else fc_pool_for(dtype, isa).mean_2x2, NULL
        if index_buffer.n:
            p.forward, p.indices = fc_pool_for(dtype, isa).forward_2x2, <int32_t*> index_buffer.at
        p.source, p.sources, p.result = xs.at, xs.n, outs.at
        p.height, p.width, p.rows, p.queue = height, width, rows, shared
        planes = xs.n // (height * width)
        p.total = planes * ((height // 2 - 1) // rows + 1)
        fc_check(xs.n == planes * height * width and outs.n == planes * (height // 2) * (width // 2))
        fc_check(index_buffer.n == 0 or outs.n == index_buffer.n)
        fc_parallel_for(shared, forward_2x2_of_double if dtype else forward_2x2_of_float, &p)


cdef void forward_2x2_of_float(void* task) noexcept nogil:
    pool_2x2_forward_worker(<const Pool2x2*> task, <float*> NULL)


cdef void forward_2x2_of_double(void* task) noexcept nogil:
    pool_2x2_forward_worker(<const Pool2x2*> task, <double*> NULL)


cdef void pool_2x2_forward_worker(const Pool2x2* p, floating* dtype) noexcept nogil:
    cdef Py_ssize_t cells = p.height * p.width, out_height = p.height // 2, out_width = p.width // 2, rows = p.rows
    cdef Py_ssize_t blocks = (out_height - 1) // rows + 1, grain = p.queue.grain, last, i, plane, top, at, cell
    cdef fc_worker worker = fc_new_worker(p.queue)
    cdef Py_ssize_t begin = fc_next_chunk(p.queue, &worker, p.total)
    cdef const floating* x = <const floating*> p.source
    cdef floating* out = <floating*> p.result
    cdef const floating* end
    while begin < p.total:
        last = min(begin + grain, p.total)
        end = out + (last // blocks * out_height + last % blocks * rows) * out_width
        for i in range(begin, last):
            plane, top = i // blocks, i % blocks * rows
            at, cell = (plane * out_height + top) * out_width, 2 * top * p.width
            if p.indices == NULL:
                p.sum(x + plane * cells + cell, x + p.sources, p.width, out + at, end, min(rows, out_height - top))
            else:
                p.forward(
                    x + plane * cells + cell, x + p.sources, p.width, cell, out + at, p.indices + at, end,
                    min(rows, out_height - top),
                )
        begin = fc_next_chunk(p.queue, &worker, p.total)


def backward_2x2(
    int dtype, dout, indices, norms, x, dx, Py_ssize_t height, Py_ssize_t width, Py_ssize_t rows, int isa, queue,
):
    """Compute dx of a 2 x 2 pooling with stride 2: of max pooling if `indices` is not empty, of L2 pooling if `norms`
    and x are not None, and otherwise of average pooling.

    Return whether every index is within its window.
    """
    cdef Pool2x2 p
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Buffer douts = contiguous_buffer(dout, itemsize, False), dxs = contiguous_buffer(dx, itemsize, True)
    cdef Buffer index_buffer = contiguous_buffer(indices, 4, False)
    cdef Buffer divisors = Buffer(NULL, 0), factors = Buffer(NULL, 0)
    cdef char out_of_window = False
    cdef fc_work_queue* shared = work_queue(queue)
    cdef bint by_norm = norms is not None
    if by_norm:
        divisors, factors = contiguous_buffer(norms, itemsize, False), contiguous_buffer(x, itemsize, False)
    with nogil:
        p.sum_backward, p.indices, p.norms, p.factors = fc_pool_for(dtype, isa).mean_backward_2x2, NULL, NULL, NULL
        if by_norm:
            fc_check(divisors.n == douts.n and factors.n == dxs.n)
            p.sum_backward, p.norms, p.factors = fc_pool_for(dtype, isa).norm_backward_2x2, divisors.at, factors.at
        if index_buffer.n:
            p.backward, p.indices = fc_pool_for(dtype, isa).backward_2x2, <int32_t*> index_buffer.at
        p.source, p.sources, p.result = douts.at, douts.n, dxs.at
        p.height, p.width, p.rows, p.out_of_window, p.queue = height, width, rows, &out_of_window, shared
        planes = dxs.n // (height * width)
        p.total = planes * ((height // 2 - 1) // rows + 1)
        fc_check(dxs.n == planes * height * width and douts.n == planes * (height // 2) * (width // 2))
        fc_check(index_buffer.n == 0 or douts.n == index_buffer.n)
        fc_parallel_for(shared, backward_2x2_of_double if dtype else backward_2x2_of_float, &p)
    return not out_of_window


cdef void backward_2x2_of_float(void* task) noexcept nogil:
    pool_2x2_backward_worker(<const Pool2x2*> task, <float*> NULL)


cdef void backward_2x2_of_double(void* task) noexcept nogil:
    pool_2x2_backward_worker(<const Pool2x2*> task, <double*> NULL)


cdef void pool_2x2_backward_worker(const Pool2x2* p, floating* dtype) noexcept nogil:
    cdef Py_ssize_t cells = p.height * p.width, out_height = p.height // 2, out_width = p.width // 2, rows = p.rows
    cdef Py_ssize_t blocks = (out_height - 1) // rows + 1, grain = p.queue.grain, last, i, plane, top, at, cell
    cdef fc_worker worker = fc_new_worker(p.queue)
    cdef Py_ssize_t begin = fc_next_chunk(p.queue, &worker, p.total), planes = p.total // blocks
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
            at, cell = (plane * out_height + top) * out_width, plane * cells + 2 * top * p.width
            if p.indices != NULL:
                out_of_window |= p.backward(
                    dout + at, dout + p.sources, p.indices + at, p.width, 2 * top * p.width, dx + cell, end,
                    min(rows, out_height - top),
                )
            elif norms != NULL:
                p.sum_backward(
                    dout + at, dout + p.sources, norms + at, p.width, x + cell, x + planes * cells, dx + cell, end,
                    min(rows, out_height - top),
                )
            else:
                p.sum_backward(
                    dout + at, dout + p.sources, NULL, p.width, NULL, NULL, dx + cell, end, min(rows, out_height - top)
                )
            if top + rows >= out_height and p.height % 2:
                zero(dx + (plane + 1) * cells - p.width, p.width)
        begin = fc_next_chunk(p.queue, &worker, p.total)
    if out_of_window:
        p.out_of_window[0] = 1
