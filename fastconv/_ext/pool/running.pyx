"""Max, average and L2 pooling by windows of any size, axis by axis, and their adjoints: see pool_running.h.

A plane is one channel of one image, so an array consists of N * C planes. Sources are the elements that are read, and
targets are the elements that are written.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.pool.lists cimport list_of, numbers
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "pool/pool_running.h" nogil:
    enum:
        FC_RUNNING_MAX
        FC_RUNNING_SUM
        FC_INPUT_CELLS
        FC_INPUT_SQUARES
        FC_INPUT_OVER_COUNT
        FC_INPUT_OVER_NORM
        FC_RESULT_SUMS
        FC_RESULT_OVER_COUNT
        FC_RESULT_ROOT
        FC_RESULT_TIMES
        FC_FROM_LAST
        FC_FROM_EARLY
        FC_FROM_NOTHING
        FC_RUNNING_SLACK
        FC_RUNNING_LEVELS

    ctypedef struct fc_target_ranges:
        numbers begin
        numbers end
        numbers source
        numbers n

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
        fc_target_ranges ranges

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
        fc_target_ranges ranges

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
        Py_ssize_t row_at
        Py_ssize_t counts_at
        Py_ssize_t present_at
        Py_ssize_t early_at
        Py_ssize_t last_at
        Py_ssize_t deep_early_at
        Py_ssize_t deep_last_at
        Py_ssize_t neutral_at
        Py_ssize_t rings_at
        Py_ssize_t deep_rings_at
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

    fc_running_space fc_running_begin(const fc_running* g, char* space) noexcept
    void fc_running_item(fc_running* g, fc_running_space* at, Py_ssize_t item, fc_work_queue* queue) noexcept


#: A vector may read or write up to this many elements past the end of a row in the workspace.
SLACK = FC_RUNNING_SLACK
#: The step after which a result is computed, or FROM_NOTHING if no source contributes to it.
FROM_LAST, FROM_EARLY, FROM_NOTHING = FC_FROM_LAST, FC_FROM_EARLY, FC_FROM_NOTHING

#: For each op, three constants: the operation, the terms of a sum, and the result that is computed from the sum.
cdef dict OPS = {
    "maximum": (FC_RUNNING_MAX, FC_INPUT_CELLS, FC_RESULT_SUMS),
    "mean": (FC_RUNNING_SUM, FC_INPUT_CELLS, FC_RESULT_OVER_COUNT),
    "norm": (FC_RUNNING_SUM, FC_INPUT_SQUARES, FC_RESULT_ROOT),
    "mean_gradient": (FC_RUNNING_SUM, FC_INPUT_OVER_COUNT, FC_RESULT_SUMS),
    "norm_gradient": (FC_RUNNING_SUM, FC_INPUT_OVER_NORM, FC_RESULT_TIMES),
}


cdef Py_ssize_t set_ranges(fc_target_ranges* to, ranges) except -1:
    """Set the lists of an axis, and return the number of ranges."""
    cdef Py_ssize_t n = len(ranges.begin)
    to.begin, to.end = list_of(ranges.begin, n), list_of(ranges.end, n)
    to.source, to.n = list_of(ranges.source, n), list_of(ranges.n, n)
    return n


cdef Py_ssize_t set_axis(fc_running_axis* to, axis) except -1:
    """Set the steps along D or H, and return the number of ranges."""
    cdef Py_ssize_t sources = len(axis.depth)
    to.size, to.early, to.first = axis.size, axis.early, axis.first
    to.targets, to.levels = len(axis.target), len(axis.shift)
    fc_check(to.levels < FC_RUNNING_LEVELS)
    to.shift, to.plus = list_of(axis.shift, to.levels), list_of(axis.plus, to.levels)
    to.ring = list_of(axis.ring, to.levels + 1)
    to.rows = to.ring[to.levels]
    to.depth, to.ends = list_of(axis.depth, sources), list_of(axis.ends, sources)
    to.target, to.from_ = list_of(axis.target, to.targets), list_of(axis.from_, to.targets)
    return set_ranges(&to.ranges, axis.ranges)


cdef Py_ssize_t set_width(fc_running_width* to, width) except -1:
    """Set the steps along W, and return the number of ranges."""
    to.size, to.stride, to.lo, to.dilation = width.size, width.stride, width.lo, width.dilation
    to.phases, to.taps, to.rest, to.step = width.phases, width.taps, width.rest, width.step
    to.levels, to.copies_sources = len(width.shift), width.copies_sources
    to.shift, to.plus = list_of(width.shift, to.levels), list_of(width.plus, to.levels)
    return set_ranges(&to.ranges, width.ranges)


cdef Py_ssize_t divide_workspace(fc_running* g, Py_ssize_t itemsize) noexcept:
    """Divide the workspace of a thread, and return its size in elements. A row of maxima has a row of indices, too."""
    cdef Scratchpad pad = scratchpad_of(itemsize)
    cdef Py_ssize_t row = g.pitch if g.op == FC_RUNNING_SUM else 2 * g.pitch
    g.row_at = book(&pad, 2 * g.row_pitch)
    g.counts_at = book(&pad, g.row_pitch)
    g.present_at = book(&pad, row)
    g.early_at = book(&pad, row)
    g.last_at = book(&pad, row)
    g.deep_early_at = book(&pad, row)
    g.deep_last_at = book(&pad, row)
    g.neutral_at = book(&pad, row)
    g.rings_at = book(&pad, g.height.rows * row)
    g.deep_rings_at = book(&pad, g.depth.rows * g.item_rows * row)
    # The workspace of a thread may start at any element, but its arrays start at cache lines.
    return pad.size + 2 * FC_RUNNING_SLACK


# The arguments of a run of a plan, which all threads of the run read.
cdef struct Run:
    fc_running plan
    char* workspace
    Py_ssize_t workspaces   # the number of bytes of `workspace`
    Py_ssize_t pitch        # the size of the workspace of a thread, in bytes
    Py_ssize_t items
    fc_work_queue* queue


cdef class AxisByAxis:
    """A plan of the forward pass or the adjoint of a pooling.

    `op` is "maximum", "mean", "norm", "mean_gradient" or "norm_gradient". `axes` has the axes D, H and W of the pooling
    (see fastconv.geometry.axis.Axis). A mean counts cells of the padding if `include_pad` is set. `group` is the number
    of planes of a work item. `depth` and `height` have the attributes of fc_running_axis in pool_running.h, and `width`
    has those of fc_running_width. `row_pitch` and `pitch` are fields of fc_running.

    `dtype` is 0 (float32) or 1 (float64). Indices of maxima are int64 if `int64_indices` is set, and otherwise int32.
    """

    cdef fc_running plan
    cdef tuple steps    # The tuple keeps the lists alive, because `plan` has pointers into them.
    cdef bint reads_norms, reads_factors
    #: The size of the workspace of a thread, in elements, and the number of work items.
    cdef readonly Py_ssize_t workspace, items

    def __init__(
        self, *, int dtype, int isa, op, bint int64_indices, axes, bint include_pad, Py_ssize_t planes,
        Py_ssize_t group, depth, height, width, Py_ssize_t row_pitch, Py_ssize_t pitch,
    ):
        cdef fc_running* g = &self.plan
        cdef fc_running_windows* w
        cdef Py_ssize_t cells = 1, outputs = 1, i
        g.dtype, g.isa, g.int64_indices, g.planes, g.group = dtype, isa, int64_indices, planes, group
        g.op, g.input_op, g.result_op = OPS[op]
        self.reads_norms = g.input_op == FC_INPUT_OVER_NORM
        self.reads_factors = g.result_op == FC_RESULT_TIMES
        for i, axis in enumerate(axes):
            w = &g.windows[i]
            w.size, w.k, w.stride, w.lo, w.dilation = axis.size, axis.k, axis.stride, axis.lo, axis.dilation
            w.low, w.high = (-axis.lo, axis.size + axis.hi) if include_pad else (0, axis.size)
            cells *= axis.size
            outputs *= axis.out
        g.sources, g.targets = (outputs, cells) if op.endswith("_gradient") else (cells, outputs)
        self.steps = depth, height, width
        g.n_ranges_d, g.n_ranges_h = set_axis(&g.depth, depth), set_axis(&g.height, height)
        g.n_ranges_w = set_width(&g.width, width)
        g.row_pitch, g.pitch, g.item_rows = row_pitch, pitch, 0
        for i in range(g.n_ranges_h):
            g.item_rows = max(g.item_rows, g.height.ranges.end[i] - g.height.ranges.begin[i])
        self.workspace = divide_workspace(g, 8 if dtype else 4)
        self.items = ceil_div(planes, group) * g.n_ranges_w * g.n_ranges_h * g.n_ranges_d

    def run(self, source, norms, factors, target, indices, workspace, queue):
        """Compute `target` from `source`: out from x, or dx from dout.

        The indices of maxima are written to `indices`. For the gradient of the L2 norm, `norms` is the output of the
        forward pass, and `factors` is x. For other ops, these arrays are ignored. `workspace` consists of a workspace
        for each thread. `queue` is the shared state of the run, which distributes the work among threads.
        """
        cdef Run r
        cdef fc_running* g = &r.plan
        cdef Py_ssize_t itemsize = 8 if self.plan.dtype else 4
        cdef Buffer sources = contiguous_buffer(source, itemsize, False)
        cdef Buffer targets = contiguous_buffer(target, itemsize, True)
        cdef Buffer index_buffer = Buffer(NULL, 0), divisors = Buffer(NULL, 0), factor_buffer = Buffer(NULL, 0)
        cdef Buffer space = contiguous_buffer(workspace, itemsize, True)
        if self.plan.op != FC_RUNNING_SUM:
            index_buffer = contiguous_buffer(indices, 8 if self.plan.int64_indices else 4, True)
            fc_check(index_buffer.n == targets.n)
        if self.reads_norms:
            divisors = contiguous_buffer(norms, itemsize, False)
            fc_check(divisors.n == sources.n)
        if self.reads_factors:
            factor_buffer = contiguous_buffer(factors, itemsize, False)
            fc_check(factor_buffer.n == targets.n)
        g[0] = self.plan
        fc_check(sources.n == g.planes * g.sources and targets.n == g.planes * g.targets)
        g.source, g.norms, g.factors = <char*> sources.at, <char*> divisors.at, <char*> factor_buffer.at
        g.target, g.indices = <char*> targets.at, <char*> index_buffer.at
        r.workspace, r.workspaces, r.pitch = <char*> space.at, space.n * itemsize, self.workspace * itemsize
        r.items, r.queue = self.items, work_queue(queue)
        with nogil:
            fc_parallel_for(r.queue, items_worker, &r)


cdef void items_worker(void* task) noexcept nogil:
    cdef Run* r = <Run*> task
    cdef fc_running plan
    cdef fc_running_space at
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t grain = r.queue.grain, begin = fc_next_chunk(r.queue, &worker, r.items), i
    if begin >= r.items:
        return
    fc_check((worker.id + 1) * r.pitch <= r.workspaces)
    plan = r.plan
    at = fc_running_begin(&plan, r.workspace + worker.id * r.pitch)
    while begin < r.items:
        for i in range(begin, min(begin + grain, r.items)):
            fc_running_item(&plan, &at, i, r.queue)
        begin = fc_next_chunk(r.queue, &worker, r.items)
