"""Max, average and L2 pooling and their adjoints. Vectors run along a row of outputs: see pool.h.

A plane is one channel of one image, so an array consists of N * C planes. `dtype` is 0 (float32) or 1 (float64), and
`isa` is the index of an instruction set in fastconv.runtime.isa.NAMES. `queue` is the shared state of a call, which
distributes the work among threads: see threads/team.h.
"""

from libc.stdint cimport int32_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.buffers.runs cimport fc_check, floating, zero
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.pool.lists cimport list_of
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


#: A vector may read or write up to this many elements past the end of a row in the workspace.
SLACK = FC_SLACK
#: The kind of pooling of each op.
cdef dict KINDS = {
    "maximum": FC_POOL_MAX,
    "maximum_gradient": FC_POOL_MAX,
    "mean": FC_POOL_MEAN,
    "mean_gradient": FC_POOL_MEAN,
    "norm": FC_POOL_NORM,
    "norm_gradient": FC_POOL_NORM,
}


# The constants of a pooling by rows.
cdef struct Plan:
    fc_pool pool
    const fc_pool_kernels* kernels
    int op                  # an FC_POOL_* constant
    Blocks blocks           # the division of the array that is written
    Py_ssize_t batch        # the number of blocks that are in the workspace at a time
    Py_ssize_t block        # the number of elements of one block in the workspace
    Py_ssize_t blocks_at    # the offset of the first block from the start of the workspace of a thread, in elements
    Py_ssize_t workspace    # the size of the workspace of a thread, in elements
    Py_ssize_t cells        # the number of elements of a plane of x
    Py_ssize_t outputs      # the number of elements of a plane of the output


cdef int set_plan(Plan* p, int dtype, int isa, op, axes, count_d, count_h, count_w) except -1:
    """Set the fields that the forward and the backward pass have in common."""
    cdef fc_pool* g = &p.pool
    cdef int i
    for i, axis in enumerate(axes):
        g.size[i], g.k[i], g.stride[i] = axis.size, axis.k, axis.stride
        g.lo[i], g.dilation[i], g.out[i] = axis.lo, axis.dilation, axis.out
    for i, counts in enumerate((count_d, count_h, count_w)):
        g.count[i] = list_of(counts, g.out[i])
    p.kernels, p.op = fc_pool_for(dtype, isa), KINDS[op]
    p.cells, p.outputs = g.size[0] * g.size[1] * g.size[2], g.out[0] * g.out[1] * g.out[2]
    return 0


cdef void divide_workspace(Plan* p, int dtype, Py_ssize_t taps, Py_ssize_t depths, Py_ssize_t batch_elements) noexcept:
    """Divide the workspace of a thread into the tables of `fill_tables` and a batch of blocks.

    A thread first writes all blocks of a batch, and then reads them. A batch has several blocks if blocks are small,
    because a thread that reads a block right after writing it would stall. `taps` is the number of elements of the
    table of distances. A block has `rows` rows at each of `depths` indices along D.
    """
    cdef Scratchpad pad = scratchpad_of(8 if dtype else 4)
    cdef Py_ssize_t width = p.pool.out[2]
    p.block = depths * p.pool.rows * p.pool.pitch
    p.batch = max(1, batch_elements // max(p.block, 1))
    p.pool.first_inside_at = book(&pad, width + FC_SLACK)
    p.pool.count_at = book(&pad, width + FC_SLACK)
    p.pool.tap_distance_at = book(&pad, taps)
    p.blocks_at = book(&pad, p.batch * p.block)
    # The workspace of a thread may start at any element, but its arrays start at cache lines.
    p.workspace = FC_SLACK + pad.size


# The arguments of a run of a plan, which all threads of the run read.
cdef struct Run:
    const Plan* plan
    const void* source
    Py_ssize_t sources      # the number of elements of `source`
    void* result
    int32_t* indices        # the indices of maxima; otherwise NULL
    const void* norms       # the outputs of L2 pooling, for its backward pass; otherwise NULL
    const void* factors     # the input x of L2 pooling, for its backward pass; otherwise NULL
    void* workspace
    Py_ssize_t workspaces   # the number of elements of `workspace`
    Py_ssize_t items        # the number of blocks
    fc_work_queue* queue


cdef inline floating* workspace_of(const Run* r, Py_ssize_t worker_id, floating* dtype) noexcept nogil:
    """Fill in the tables at the start of the workspace of this thread, and return the workspace."""
    cdef floating* start = <floating*> r.workspace + worker_id * r.plan.workspace
    fc_check((worker_id + 1) * r.plan.workspace <= r.workspaces)
    start = <floating*> ((<size_t> start + 63) // 64 * 64)
    r.plan.kernels.fill_tables(&r.plan.pool, r.plan.op, start)
    return start


cdef class ForwardRows:
    """A plan that computes the maximum, the mean or the L2 norm of each window of x.

    `op` is "maximum", "mean" or "norm". `axes` has the sizes of the axes D, H and W, as the attributes size, k, stride,
    lo, dilation and out. A block is `block_rows` rows of outputs, which are computed from `rows` rows of x. A thread
    processes blocks of about `batch_elements` elements together. All other arguments are fields of fc_pool in pool.h;
    lists have the dtype intp.
    """

    cdef Plan plan
    cdef tuple lists    # The tuple keeps the lists alive, because `plan` has pointers into them.
    cdef int dtype
    #: The size of the workspace of a thread, in elements, and the number of work items.
    cdef readonly Py_ssize_t workspace, items

    def __init__(
        self, *, int dtype, int isa, op, Py_ssize_t planes, axes, Py_ssize_t block_rows, Py_ssize_t batch_elements,
        Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t phase_pitch, Py_ssize_t phase_width, tap_begin_d, tap_end_d,
        tap_begin_h, tap_end_h, phase_column, phase_begin, phase_end, tap_offset, tap_distance, first_inside, count_d,
        count_h, count_w,
    ):
        cdef Plan* p = &self.plan
        cdef fc_pool* g = &p.pool
        cdef Py_ssize_t taps
        set_plan(p, dtype, isa, op, axes, count_d, count_h, count_w)
        g.pitch, g.rows, g.phase_pitch, g.phase_width = pitch, rows, phase_pitch, phase_width
        g.n_phases, taps = len(phase_column), g.k[1] * g.k[2]
        g.tap_begin[0], g.tap_end[0] = list_of(tap_begin_d, g.out[0]), list_of(tap_end_d, g.out[0])
        g.tap_begin[1], g.tap_end[1] = list_of(tap_begin_h, g.out[1]), list_of(tap_end_h, g.out[1])
        g.phase_column = list_of(phase_column, g.n_phases)
        g.phase_begin, g.phase_end = list_of(phase_begin, g.n_phases), list_of(phase_end, g.n_phases)
        g.tap_offset, g.tap_distance = list_of(tap_offset, taps), list_of(tap_distance, taps)
        g.first_inside = list_of(first_inside, g.out[2])
        self.lists = (
            tap_begin_d, tap_end_d, tap_begin_h, tap_end_h, phase_column, phase_begin, phase_end, tap_offset,
            tap_distance, first_inside, count_d, count_h, count_w,
        )
        divide_workspace(p, dtype, taps, g.k[0], batch_elements)
        p.blocks = Blocks(planes, g.out[0], g.out[1], g.out[2], block_rows)
        self.dtype, self.workspace, self.items = dtype, p.workspace, count_row_blocks(&p.blocks)

    def run(self, x, out, indices, workspace, queue):
        """Write the results to `out` and, for the maximum, the indices of the maxima (int32) to `indices`. `workspace`
        consists of a workspace for each thread.
        """
        cdef Run r
        cdef Py_ssize_t itemsize = 8 if self.dtype else 4
        cdef Buffer xs = contiguous_buffer(x, itemsize, False), outs = contiguous_buffer(out, itemsize, True)
        cdef Buffer index_buffer = Buffer(NULL, 0), space = contiguous_buffer(workspace, itemsize, True)
        if self.plan.op == FC_POOL_MAX:
            index_buffer = contiguous_buffer(indices, 4, True)
            fc_check(index_buffer.n == outs.n)
        fc_check(xs.n == self.plan.blocks.planes * self.plan.cells)
        fc_check(outs.n == self.plan.blocks.planes * self.plan.outputs)
        r.plan, r.items, r.queue = &self.plan, self.items, work_queue(queue)
        r.source, r.sources, r.result, r.indices = xs.at, xs.n, outs.at, <int32_t*> index_buffer.at
        r.workspace, r.workspaces = space.at, space.n
        with nogil:
            fc_parallel_for(r.queue, forward_of_double if self.dtype else forward_of_float, &r)


cdef void forward_of_float(void* task) noexcept nogil:
    forward_worker(<const Run*> task, <float*> NULL)


cdef void forward_of_double(void* task) noexcept nogil:
    forward_worker(<const Run*> task, <double*> NULL)


cdef void forward_worker(const Run* r, floating* dtype) noexcept nogil:
    cdef const Plan* plan = r.plan
    cdef const fc_pool_kernels* kernels = plan.kernels
    cdef RowBlock here
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.items), last, first, i
    cdef int op = plan.op
    cdef const floating* x = <const floating*> r.source
    cdef floating* out = <floating*> r.result
    cdef floating* workspace
    cdef floating* blocks
    cdef const floating* end
    cdef bint has_nan
    if begin >= r.items:
        return
    workspace = workspace_of(r, worker.id, dtype)
    blocks = workspace + plan.blocks_at
    while begin < r.items:
        last = min(begin + grain, r.items)
        # A vector may write past the end of its row, but not past the end of the outputs of this chunk.
        here = row_block_at(last, &plan.blocks)
        end = out + here.at
        first = begin
        while first < last:
            has_nan = False
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, &plan.blocks)
                has_nan |= kernels.load(
                    &plan.pool, op, blocks + (i - first) * plan.block, x + here.plane * plan.cells, x + r.sources,
                    here.depth, here.begin, here.end,
                )
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, &plan.blocks)
                kernels.forward(
                    &plan.pool, FC_POOL_MAX_OR_NAN if has_nan and op == FC_POOL_MAX else op,
                    blocks + (i - first) * plan.block, workspace, out + here.at,
                    r.indices + here.at if op == FC_POOL_MAX else NULL, end, here.depth, here.begin, here.end,
                )
            first += plan.batch
        begin = fc_next_chunk(r.queue, &worker, r.items)


cdef class BackwardRows:
    """A plan that computes dx of average or L2 pooling.

    `op` is "mean_gradient" or "norm_gradient". For the mean, each element of dout is divided by the number of elements
    of its window, and the quotient is added to dx at each element of the window. For the L2 norm, each element of dout
    is divided by the norm of its window, and the sum of these quotients at each element of dx is multiplied by x.

    A block is `block_rows` rows of dx, which are computed from up to `rows` rows of dout. For the other arguments, see
    `ForwardRows`.
    """

    cdef Plan plan
    cdef tuple lists    # The tuple keeps the lists alive, because `plan` has pointers into them.
    cdef int dtype
    #: The size of the workspace of a thread, in elements, and the number of work items.
    cdef readonly Py_ssize_t workspace, items

    def __init__(
        self, *, int dtype, int isa, op, Py_ssize_t planes, axes, Py_ssize_t block_rows, Py_ssize_t batch_elements,
        Py_ssize_t left, Py_ssize_t right, Py_ssize_t pitch, Py_ssize_t rows, offset_end, offset, readers_end_d,
        readers_d, readers_end_h, readers_h, count_d, count_h, count_w,
    ):
        cdef Plan* p = &self.plan
        cdef fc_pool* g = &p.pool
        cdef Py_ssize_t depths = 0, i
        set_plan(p, dtype, isa, op, axes, count_d, count_h, count_w)
        g.pitch, g.rows, g.left, g.right = pitch, rows, left, right
        g.offset_end = list_of(offset_end, g.stride[2])
        g.offset = list_of(offset, g.offset_end[g.stride[2] - 1])
        g.readers_end[0], g.readers_end[1] = list_of(readers_end_d, g.size[0]), list_of(readers_end_h, g.size[1])
        g.readers[0] = list_of(readers_d, g.readers_end[0][g.size[0] - 1])
        g.readers[1] = list_of(readers_h, g.readers_end[1][g.size[1] - 1])
        self.lists = offset_end, offset, readers_end_d, readers_d, readers_end_h, readers_h, count_d, count_h, count_w
        for i in range(g.size[0]):
            depths = max(depths, g.readers_end[0][i] - (g.readers_end[0][i - 1] if i else 0))
        divide_workspace(p, dtype, 0, depths, batch_elements)
        p.blocks = Blocks(planes, g.size[0], g.size[1], g.size[2], block_rows)
        self.dtype, self.workspace, self.items = dtype, p.workspace, count_row_blocks(&p.blocks)

    def run(self, dout, norms, x, dx, workspace, queue):
        """Write the gradient to dx. `norms` (the output of the forward pass) and x are needed for the L2 norm only, and
        are None for the mean. `workspace` consists of a workspace for each thread.
        """
        cdef Run r
        cdef Py_ssize_t itemsize = 8 if self.dtype else 4
        cdef Buffer douts = contiguous_buffer(dout, itemsize, False), dxs = contiguous_buffer(dx, itemsize, True)
        cdef Buffer divisors = Buffer(NULL, 0), factors = Buffer(NULL, 0)
        cdef Buffer space = contiguous_buffer(workspace, itemsize, True)
        if self.plan.op == FC_POOL_NORM:
            divisors, factors = contiguous_buffer(norms, itemsize, False), contiguous_buffer(x, itemsize, False)
            fc_check(divisors.n == douts.n and factors.n == dxs.n)
        fc_check(dxs.n == self.plan.blocks.planes * self.plan.cells)
        fc_check(douts.n == self.plan.blocks.planes * self.plan.outputs)
        r.plan, r.items, r.queue = &self.plan, self.items, work_queue(queue)
        r.source, r.sources, r.result = douts.at, douts.n, dxs.at
        r.norms, r.factors = divisors.at, factors.at
        r.workspace, r.workspaces = space.at, space.n
        with nogil:
            fc_parallel_for(r.queue, backward_of_double if self.dtype else backward_of_float, &r)


cdef void backward_of_float(void* task) noexcept nogil:
    backward_worker(<const Run*> task, <float*> NULL)


cdef void backward_of_double(void* task) noexcept nogil:
    backward_worker(<const Run*> task, <double*> NULL)


cdef void backward_worker(const Run* r, floating* dtype) noexcept nogil:
    cdef const Plan* plan = r.plan
    cdef const fc_pool_kernels* kernels = plan.kernels
    cdef RowBlock here
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.items), last, first, i
    cdef const floating* dout = <const floating*> r.source
    cdef const floating* norms = <const floating*> r.norms
    cdef const floating* x = <const floating*> r.factors
    cdef floating* dx = <floating*> r.result
    cdef floating* workspace
    cdef floating* blocks
    cdef const floating* end
    if begin >= r.items:
        return
    workspace = workspace_of(r, worker.id, dtype)
    blocks = workspace + plan.blocks_at
    while begin < r.items:
        last = min(begin + grain, r.items)
        here = row_block_at(last, &plan.blocks)
        end = dx + here.at
        first = begin
        while first < last:
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, &plan.blocks)
                kernels.load_gradient(
                    &plan.pool, blocks + (i - first) * plan.block, workspace, dout + here.plane * plan.outputs,
                    dout + r.sources, <const floating*> NULL if norms == NULL else norms + here.plane * plan.outputs,
                    here.depth, here.begin, here.end,
                )
            for i in range(first, min(first + plan.batch, last)):
                here = row_block_at(i, &plan.blocks)
                kernels.gather(
                    &plan.pool, blocks + (i - first) * plan.block, <const floating*> NULL if x == NULL else x + here.at,
                    <const floating*> NULL if x == NULL else x + plan.blocks.planes * plan.cells, dx + here.at, end,
                    here.depth, here.begin, here.end,
                )
            first += plan.batch
        begin = fc_next_chunk(r.queue, &worker, r.items)


# The constants of a 2 x 2 pooling with stride 2.
cdef struct Sizes2x2:
    const fc_pool_kernels* kernels
    int op              # an FC_POOL_* constant
    Py_ssize_t planes
    Py_ssize_t H        # the number of rows of a plane of x
    Py_ssize_t W        # the number of columns of a plane of x
    Py_ssize_t rows     # the number of rows of outputs of a block; the last block of a plane may have fewer
    Py_ssize_t blocks   # the number of blocks of a plane


# The arguments of a run of a plan, which all threads of the run read.
cdef struct Run2x2:
    const Sizes2x2* sizes
    const void* source
    Py_ssize_t sources      # the number of elements of `source`
    void* result
    int32_t* indices        # the indices of maxima; otherwise NULL
    const void* norms       # the outputs of L2 pooling, for its backward pass; otherwise NULL
    const void* factors     # the input x of L2 pooling, for its backward pass; otherwise NULL
    char* out_of_window
    fc_work_queue* queue


cdef class Plan2x2:
    """A plan of a 2 x 2 pooling with stride 2, without padding.

    `op` is "maximum", "mean" or "norm" or, for the backward pass, the same with "_gradient". x has `planes` planes of H
    rows and W columns. A block is `block_rows` rows of outputs.
    """

    cdef Sizes2x2 sizes
    cdef int dtype
    #: The number of work items.
    cdef readonly Py_ssize_t items

    def __init__(
        self, *, int dtype, int isa, op, Py_ssize_t planes, Py_ssize_t H, Py_ssize_t W, Py_ssize_t block_rows,
    ):
        cdef Sizes2x2* p = &self.sizes
        p.kernels, p.op, p.planes, p.H, p.W, p.rows = fc_pool_for(dtype, isa), KINDS[op], planes, H, W, block_rows
        p.blocks = ceil_div(H // 2, block_rows)
        self.dtype, self.items = dtype, planes * p.blocks


cdef class Forward2x2(Plan2x2):
    """A plan of the forward pass."""

    def run(self, x, out, indices, queue):
        """Write the results to `out` and, for the maximum, the indices of the maxima (int32) to `indices`."""
        cdef Run2x2 r
        cdef Py_ssize_t itemsize = 8 if self.dtype else 4
        cdef const Sizes2x2* p = &self.sizes
        cdef Buffer xs = contiguous_buffer(x, itemsize, False), outs = contiguous_buffer(out, itemsize, True)
        cdef Buffer index_buffer = Buffer(NULL, 0)
        if p.op == FC_POOL_MAX:
            index_buffer = contiguous_buffer(indices, 4, True)
            fc_check(index_buffer.n == outs.n)
        fc_check(xs.n == p.planes * p.H * p.W and outs.n == p.planes * (p.H // 2) * (p.W // 2))
        r.sizes, r.queue = p, work_queue(queue)
        r.source, r.sources, r.result, r.indices = xs.at, xs.n, outs.at, <int32_t*> index_buffer.at
        with nogil:
            fc_parallel_for(r.queue, forward_2x2_of_double if self.dtype else forward_2x2_of_float, &r)


cdef void forward_2x2_of_float(void* task) noexcept nogil:
    forward_2x2_worker(<const Run2x2*> task, <float*> NULL)


cdef void forward_2x2_of_double(void* task) noexcept nogil:
    forward_2x2_worker(<const Run2x2*> task, <double*> NULL)


cdef void forward_2x2_worker(const Run2x2* r, floating* dtype) noexcept nogil:
    cdef const Sizes2x2* p = r.sizes
    cdef Py_ssize_t cells = p.H * p.W, out_height = p.H // 2, out_width = p.W // 2, rows = p.rows, blocks = p.blocks
    cdef Py_ssize_t items = p.planes * blocks, grain = r.queue.grain, last, i, plane, top, at, cell
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t begin = fc_next_chunk(r.queue, &worker, items)
    cdef const floating* x = <const floating*> r.source
    cdef floating* out = <floating*> r.result
    cdef const floating* end
    cdef fc_pool_2x2_sum_t compute = p.kernels.norm_2x2 if p.op == FC_POOL_NORM else p.kernels.mean_2x2
    while begin < items:
        last = min(begin + grain, items)
        end = out + (last // blocks * out_height + last % blocks * rows) * out_width
        for i in range(begin, last):
            plane, top = i // blocks, i % blocks * rows
            at, cell = (plane * out_height + top) * out_width, 2 * top * p.W
            if r.indices == NULL:
                compute(x + plane * cells + cell, x + r.sources, p.W, out + at, end, min(rows, out_height - top))
            else:
                p.kernels.forward_2x2(
                    x + plane * cells + cell, x + r.sources, p.W, cell, out + at, r.indices + at, end,
                    min(rows, out_height - top),
                )
        begin = fc_next_chunk(r.queue, &worker, items)


cdef class Backward2x2(Plan2x2):
    """A plan that computes dx."""

    def run(self, dout, indices, norms, x, dx, queue):
        """Write the gradient to dx, and return whether every index is within its window.

        `indices` (int32) is needed for the maximum only. `norms` (the output of the forward pass) and x are needed for
        the L2 norm only.
        """
        cdef Run2x2 r
        cdef Py_ssize_t itemsize = 8 if self.dtype else 4
        cdef const Sizes2x2* p = &self.sizes
        cdef Buffer douts = contiguous_buffer(dout, itemsize, False), dxs = contiguous_buffer(dx, itemsize, True)
        cdef Buffer index_buffer = Buffer(NULL, 0), divisors = Buffer(NULL, 0), factors = Buffer(NULL, 0)
        cdef char out_of_window = False
        if p.op == FC_POOL_MAX:
            index_buffer = contiguous_buffer(indices, 4, False)
            fc_check(index_buffer.n == douts.n)
        elif p.op == FC_POOL_NORM:
            divisors, factors = contiguous_buffer(norms, itemsize, False), contiguous_buffer(x, itemsize, False)
            fc_check(divisors.n == douts.n and factors.n == dxs.n)
        fc_check(dxs.n == p.planes * p.H * p.W and douts.n == p.planes * (p.H // 2) * (p.W // 2))
        r.sizes, r.queue, r.out_of_window = p, work_queue(queue), &out_of_window
        r.source, r.sources, r.result, r.indices = douts.at, douts.n, dxs.at, <int32_t*> index_buffer.at
        r.norms, r.factors = divisors.at, factors.at
        with nogil:
            fc_parallel_for(r.queue, backward_2x2_of_double if self.dtype else backward_2x2_of_float, &r)
        return not out_of_window


cdef void backward_2x2_of_float(void* task) noexcept nogil:
    backward_2x2_worker(<const Run2x2*> task, <float*> NULL)


cdef void backward_2x2_of_double(void* task) noexcept nogil:
    backward_2x2_worker(<const Run2x2*> task, <double*> NULL)


cdef void backward_2x2_worker(const Run2x2* r, floating* dtype) noexcept nogil:
    cdef const Sizes2x2* p = r.sizes
    cdef Py_ssize_t cells = p.H * p.W, out_height = p.H // 2, out_width = p.W // 2, rows = p.rows, blocks = p.blocks
    cdef Py_ssize_t items = p.planes * blocks, grain = r.queue.grain, last, i, plane, top, at, cell
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t begin = fc_next_chunk(r.queue, &worker, items)
    cdef const floating* dout = <const floating*> r.source
    cdef const floating* norms = <const floating*> r.norms
    cdef const floating* x = <const floating*> r.factors
    cdef floating* dx = <floating*> r.result
    cdef const floating* end
    cdef int out_of_window = 0
    while begin < items:
        last = min(begin + grain, items)
        end = dx + last // blocks * cells + last % blocks * rows * 2 * p.W
        for i in range(begin, last):
            plane, top = i // blocks, i % blocks * rows
            at, cell = (plane * out_height + top) * out_width, plane * cells + 2 * top * p.W
            if p.op == FC_POOL_MAX:
                out_of_window |= p.kernels.backward_2x2(
                    dout + at, dout + r.sources, r.indices + at, p.W, 2 * top * p.W, dx + cell, end,
                    min(rows, out_height - top),
                )
            elif p.op == FC_POOL_NORM:
                p.kernels.norm_backward_2x2(
                    dout + at, dout + r.sources, norms + at, p.W, x + cell, x + p.planes * cells, dx + cell, end,
                    min(rows, out_height - top),
                )
            else:
                p.kernels.mean_backward_2x2(
                    dout + at, dout + r.sources, NULL, p.W, NULL, NULL, dx + cell, end, min(rows, out_height - top)
                )
            if top + rows >= out_height and p.H % 2:
                zero(dx + (plane + 1) * cells - p.W, p.W)
        begin = fc_next_chunk(r.queue, &worker, items)
    if out_of_window:
        r.out_of_window[0] = 1
