"""Max, average and L2 pooling by windows of any size, axis by axis, and their adjoints: see pool_running.h.

A plane is one channel of one image, so an array consists of N * C planes. `dtype` is 0 (float32) or 1 (float64).
`queue` is the shared state of the call, which distributes the work among threads: see threads/team.h.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


ctypedef const Py_ssize_t* numbers


cdef extern from "pool/pool_running.h" nogil:
    enum:
        FC_RUNNING_SUM
        FC_INPUT_OVER_NORM

    ctypedef struct fc_target_range:
        Py_ssize_t begin
        Py_ssize_t end
        Py_ssize_t source
        Py_ssize_t n


ctypedef const fc_target_range* ranges_t


cdef extern from "pool/pool_running.h" nogil:
    ctypedef struct fc_running_width:
        Py_ssize_t size
        Py_ssize_t levels
        Py_ssize_t stride
        Py_ssize_t lo
        Py_ssize_t dilation
        Py_ssize_t phases
        Py_ssize_t taps
        Py_ssize_t rest
        Py_ssize_t step
        Py_ssize_t copies_sources
        numbers shift
        numbers plus
        ranges_t ranges

    ctypedef struct fc_running_axis:
        Py_ssize_t size
        Py_ssize_t targets
        Py_ssize_t levels
        Py_ssize_t early
        Py_ssize_t first
        Py_ssize_t rows
        numbers shift
        numbers plus
        numbers ring
        numbers depth
        numbers ends
        numbers target
        numbers from_ "from"
        ranges_t ranges

    ctypedef struct fc_running_windows:
        Py_ssize_t size
        Py_ssize_t k
        Py_ssize_t stride
        Py_ssize_t lo
        Py_ssize_t dilation
        Py_ssize_t low
        Py_ssize_t high

    ctypedef struct fc_running:
        fc_running_axis depth
        fc_running_axis height
        fc_running_width width
        Py_ssize_t n_ranges_w
        Py_ssize_t n_ranges_h
        Py_ssize_t n_ranges_d
        Py_ssize_t row_pitch
        Py_ssize_t pitch
        Py_ssize_t item_rows
        fc_running_windows[3] windows
        Py_ssize_t sources
        Py_ssize_t targets
        Py_ssize_t group
        Py_ssize_t planes
        int dtype
        int isa
        int op
        int input_op
        int result_op
        int int64_indices
        const char* source
        const char* norms
        const char* factors
        char* target
        char* indices

    ctypedef struct fc_running_space:
        Py_ssize_t item

    Py_ssize_t fc_running_elements(const fc_running* g) noexcept
    fc_running_space fc_running_begin(const fc_running* g, char* space) noexcept
    void fc_running_item(fc_running* g, fc_running_space* at, Py_ssize_t item, fc_work_queue* queue) noexcept


# The arguments of a call, which all threads of the call read.
cdef struct Call:
    fc_running plan
    char* space
    Py_ssize_t space_bytes  # the size of the workspace of a thread in bytes
    Py_ssize_t workspaces
    Py_ssize_t total
    fc_work_queue* queue


cdef inline void read_axis(fc_running_axis* axis, numbers table, numbers at) noexcept nogil:
    axis.size, axis.targets, axis.levels, axis.early = at[0], at[1], at[2], at[3]
    axis.first, axis.rows = at[4], at[5]
    axis.shift, axis.plus, axis.ring, axis.depth = table + at[6], table + at[7], table + at[8], table + at[9]
    axis.ends, axis.target, axis.from_ = table + at[10], table + at[11], table + at[12]
    axis.ranges = <ranges_t> (table + at[13])


cdef inline void read_plan(fc_running* g, numbers table) noexcept nogil:
    """Read the plan of a call from `table`, which fastconv.layers.pool.running makes."""
    cdef numbers at = table
    cdef int i
    g.n_ranges_w, g.n_ranges_h, g.n_ranges_d = at[0], at[1], at[2]
    g.row_pitch, g.pitch, g.item_rows = at[3], at[4], at[5]
    at += 6
    for i in range(3):
        g.windows[i].size, g.windows[i].k, g.windows[i].stride, g.windows[i].lo = at[0], at[1], at[2], at[3]
        g.windows[i].dilation, g.windows[i].low, g.windows[i].high = at[4], at[5], at[6]
        at += 7
    read_axis(&g.depth, table, at)
    read_axis(&g.height, table, at + 14)
    at += 28
    g.width.size, g.width.levels, g.width.stride, g.width.lo = at[0], at[1], at[2], at[3]
    g.width.dilation, g.width.phases, g.width.taps, g.width.rest = at[4], at[5], at[6], at[7]
    g.width.step, g.width.copies_sources = at[8], at[9]
    g.width.shift, g.width.plus, g.width.ranges = table + at[10], table + at[11], <ranges_t> (table + at[12])
    g.sources, g.targets, g.group = at[13], at[14], at[15]


def running(
    int dtype, source, norms, factors, target, indices, bint int64_indices, table, int op, int input_op, int result_op,
    space, Py_ssize_t workspaces, int isa, queue,
):
    """Compute the forward pass or the adjoint of a pooling, whose plan is `table`.

    In the forward pass, `source` is x and `target` is the output; for the adjoint, `source` is dout and `target` is dx.
    The indices of maxima are written to `indices`. `norms` has the size of `source`, and is needed if `input_op` is
    FC_INPUT_OVER_NORM. `factors` has the size of `target`, and is needed if `result_op` is FC_RESULT_TIMES.
    `space` consists of `workspaces` workspaces, one for each thread.
    """
    cdef Call c
    cdef Py_ssize_t planes, itemsize = 8 if dtype else 4
    cdef Buffer sources = contiguous_buffer(source, itemsize, False)
    cdef Buffer targets = contiguous_buffer(target, itemsize, True)
    cdef Buffer index_buffer = Buffer(NULL, 0), divisors = Buffer(NULL, 0), factor_buffer = Buffer(NULL, 0)
    cdef Buffer spaces = contiguous_buffer(space, itemsize, True)
    cdef fc_work_queue* shared = work_queue(queue)
    cdef numbers entries = index_pointer(table)
    if op != FC_RUNNING_SUM:
        index_buffer = contiguous_buffer(indices, 8 if int64_indices else 4, True)
    if norms is not None:
        divisors = contiguous_buffer(norms, itemsize, False)
    if factors is not None:
        factor_buffer = contiguous_buffer(factors, itemsize, False)
    with nogil:
        read_plan(&c.plan, entries)
        planes = sources.n // c.plan.sources
        fc_check(sources.n == planes * c.plan.sources and targets.n == planes * c.plan.targets)
        fc_check(index_buffer.n == 0 or index_buffer.n == targets.n)
        fc_check(divisors.n == 0 or divisors.n == sources.n)
        fc_check(factor_buffer.n == 0 or factor_buffer.n == targets.n)
        c.plan.dtype, c.plan.isa, c.plan.op, c.plan.input_op, c.plan.result_op = dtype, isa, op, input_op, result_op
        c.plan.int64_indices, c.plan.planes = int64_indices, planes
        c.plan.source, c.plan.norms = <const char*> sources.at, <const char*> divisors.at
        c.plan.factors = <const char*> factor_buffer.at
        c.plan.target, c.plan.indices = <char*> targets.at, <char*> index_buffer.at
        c.space, c.space_bytes, c.workspaces = <char*> spaces.at, spaces.n // workspaces * itemsize, workspaces
        fc_check(fc_running_elements(&c.plan) * itemsize <= c.space_bytes)
        c.total = ((planes - 1) // c.plan.group + 1) * c.plan.n_ranges_w * c.plan.n_ranges_h * c.plan.n_ranges_d
        c.queue = shared
        fc_parallel_for(shared, items_worker, &c)


cdef void items_worker(void* task) noexcept nogil:
    cdef Call* c = <Call*> task
    cdef fc_running plan
    cdef fc_running_space at
    cdef fc_worker worker = fc_new_worker(c.queue)
    cdef Py_ssize_t grain = c.queue.grain, begin = fc_next_chunk(c.queue, &worker, c.total), i
    if begin >= c.total:
        return
    fc_check(worker.id < c.workspaces)
    plan = c.plan
    at = fc_running_begin(&plan, c.space + worker.id * c.space_bytes)
    while begin < c.total:
        for i in range(begin, min(begin + grain, c.total)):
            fc_running_item(&plan, &at, i, c.queue)
        begin = fc_next_chunk(c.queue, &worker, c.total)
