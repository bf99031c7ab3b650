"""Winograd's minimal filtering: one matrix product for each interpolation point.

`ProductPlan` computes forward and backward_data, and `GradientPlan` computes backward_weights. The image is first
transposed to channels-last. So the vector lanes of the transforms hold channels, and are full even if planes are small.
fastconv.convolution.winograd.tiles makes the plans.

These arguments of both plans have the same meaning:

- `dtype` is 0 (float32) or 1 (float64), and `isa` is the number of the instruction set.
- `problem` is the `WinogradProblem` of the convolution.
- `block` is the number of tiles of a block along D, H and W. A block has `block_images` images.
- `cells` is the largest number of elements of the source that a block reads in one image and one channel.
- `lanes` is the number of channels that a block reads, rounded up to whole vectors.
- `offsets` and `taps` are what `problem.offsets()` and `problem.tap_of()` return.
- `planes` are the offsets of the channels of a work item in the source.
- For the steps and pitches of v, u and m, see `Sizes` in tiles.pxd.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.gemm.microkernel cimport kernels, microkernel_for
from fastconv._ext.threads.team cimport fc_parallel_for, fc_task_function, work_queue
from fastconv._ext.winograd.gradient cimport weights_of_double, weights_of_float
from fastconv._ext.winograd.product cimport MOST_PANELS as PANELS, product_of_double, product_of_float
from fastconv._ext.winograd.tiles cimport MOST_POINTS, Call, Constants, Sizes, TileAxis, fc_winograd_for


#: The largest number of panels of weights in one pass over the tiles of a block.
MOST_PANELS = PANELS


cdef class ProductPlan:
    """A plan that computes result = w * source + bias, where * is the convolution.

    A work item has `block_rows` rows of the result: filters or, for dx, channels. They are computed in passes of at
    most `pass_rows` rows. `chunk` is the number of channels whose weights are transposed at a time.

    If `weights_resident` is set, the workspace holds the transformed weights of all rows of a work item; otherwise, it
    holds those of one pass. The transformed weights are in an array u, which has `u_size` elements for each
    interpolation point. `u_size` includes `u_padding` elements of padding for each panel.

    `output_offsets` is what `problem.output_offsets()` returns.
    """

    cdef Constants _plan
    cdef tuple _arrays      # The tuple keeps the arrays alive, because `_plan` has pointers into them.
    cdef Py_ssize_t _itemsize
    cdef fc_task_function _worker
    cdef readonly Py_ssize_t workspace      # the number of elements of the workspace of a thread
    cdef readonly Py_ssize_t items          # the number of work items

    def __init__(
        self, *, int dtype, int isa, problem, block, Py_ssize_t block_images, Py_ssize_t block_rows,
        Py_ssize_t pass_rows, Py_ssize_t chunk, bint weights_resident, Py_ssize_t cells, Py_ssize_t lanes,
        Py_ssize_t v_step, Py_ssize_t v_pitch, Py_ssize_t u_size, Py_ssize_t u_padding, Py_ssize_t m_pitch, offsets,
        taps, output_offsets, planes,
    ):
        cdef Constants* p = &self._plan
        cdef Sizes* s = &p.sizes
        cdef Buffer starts = contiguous_buffer(output_offsets, sizeof(Py_ssize_t), False)
        cdef Scratchpad scratchpad
        cdef Py_ssize_t unit, points
        self._arrays = offsets, taps, output_offsets, planes
        self._itemsize = 8 if dtype else 4
        self._worker = product_of_double if dtype else product_of_float
        set_problem(p, dtype, isa, problem, block, block_images, offsets, taps)
        set_planes(&p.planes, planes, s.channels)
        p.tile = microkernel_for(dtype, isa).tile_rows
        p.output_offsets = <const Py_ssize_t*> starts.at
        fc_check(starts.n == 3 * s.phases)
        s.block_rows, s.pass_rows, s.chunk, s.weights_resident = block_rows, pass_rows, chunk, weights_resident
        s.channel_lanes, s.v_step, s.v_pitch, s.u_padding, s.m_pitch = lanes, v_step, v_pitch, u_padding, m_pitch
        s.items = s.blocks * s.groups * ceil_div(s.rows, block_rows)

        scratchpad = scratchpad_of(self._itemsize)
        points = p.axes[1].points * p.axes[2].points
        unit = p.transforms.kernel.vectors * p.transforms.kernel.lanes
        s.patch_at = book(&scratchpad, block_images * cells * lanes)
        s.zero_at = book(&scratchpad, lanes)
        s.v_at = book(&scratchpad, points * v_pitch)
        s.u_at = book(&scratchpad, points * u_size)
        s.m_at = book(&scratchpad, points * m_pitch)
        # The transposed weights of a chunk are followed by zeros, which stand for taps outside the kernel.
        s.transposed_at = book(&scratchpad, (chunk * s.kernel_taps + 2) * unit)
        # The last panel of a pass may have more lanes than rows.
        s.bias_at = book(&scratchpad, pass_rows + unit)
        s.check_at = book(&scratchpad, pass_rows + unit)
        s.workspace = scratchpad.size
        self.workspace, self.items = s.workspace, s.items

    def run(self, source, w, bias, result, overflows, workspace, queue):
        """Run the plan. All arrays except `overflows` have the dtype of the plan. `bias` may be None. `workspace` has a
        row for each thread.

        Return 0 if the whole result is finite. Otherwise overflows[n] is above 0 for each image n with an inf or NaN.
        """
        cdef Call call
        cdef const Sizes* s = &self._plan.sizes
        cdef Buffer weights = contiguous_buffer(w, self._itemsize, False)
        set_call(&call, &self._plan, source, result, overflows, workspace, queue, self._itemsize)
        call.w, call.dout = weights.at, NULL
        call.bias = NULL if bias is None else contiguous_buffer(bias, self._itemsize, False).at
        with nogil:
            fc_check(weights.n == s.groups * s.group_step)
            fc_check(call.counts == s.images)
            fc_parallel_for(call.queue, self._worker, &call)
        return total(&call)


cdef class GradientPlan:
    """A plan that computes the gradient of w in `parts` partial sums. Partial sum p is the sum over the blocks p,
    p + parts, p + 2 * parts, and so on.

    A work item computes a partial sum for `block_rows` filters and `block_channels` channels. `row_lanes` is
    `block_rows`, rounded up to whole vectors. `results` is the largest number of elements of dout that a block reads in
    one image and one filter. `filter_planes` are the offsets of the filters of a work item in dout.
    """

    cdef Constants _plan
    cdef tuple _arrays      # The tuple keeps the arrays alive, because `_plan` has pointers into them.
    cdef Py_ssize_t _itemsize
    cdef fc_task_function _worker
    cdef readonly Py_ssize_t workspace      # the number of elements of the workspace of a thread
    cdef readonly Py_ssize_t items          # the number of work items

    def __init__(
        self, *, int dtype, int isa, problem, block, Py_ssize_t block_images, Py_ssize_t block_rows,
        Py_ssize_t block_channels, Py_ssize_t parts, Py_ssize_t cells, Py_ssize_t results, Py_ssize_t lanes,
        Py_ssize_t row_lanes, Py_ssize_t v_step, Py_ssize_t v_pitch, Py_ssize_t u_step, Py_ssize_t u_pitch,
        Py_ssize_t m_step, Py_ssize_t m_pitch, offsets, taps, planes, filter_planes,
    ):
        cdef Constants* p = &self._plan
        cdef Sizes* s = &p.sizes
        cdef Scratchpad scratchpad
        cdef Py_ssize_t points
        self._arrays = offsets, taps, planes, filter_planes
        self._itemsize = 8 if dtype else 4
        self._worker = weights_of_double if dtype else weights_of_float
        set_problem(p, dtype, isa, problem, block, block_images, offsets, taps)
        set_planes(&p.planes, planes, block_channels)
        set_planes(&p.filter_planes, filter_planes, block_rows)
        p.tile = microkernel_for(dtype, isa).tile_strided
        s.block_rows, s.block_channels, s.parts = block_rows, block_channels, parts
        s.part_pitch = s.groups * s.group_step
        s.channel_lanes, s.row_lanes, s.v_step, s.v_pitch = lanes, row_lanes, v_step, v_pitch
        s.u_step, s.u_pitch, s.m_step, s.m_pitch = u_step, u_pitch, m_step, m_pitch
        s.items = parts * s.groups * ceil_div(s.rows, block_rows) * ceil_div(s.channels, block_channels)

        scratchpad = scratchpad_of(self._itemsize)
        points = p.axes[1].points * p.axes[2].points
        # The patch holds a block of the image and then, after its transform, a block of dout.
        s.patch_at = book(&scratchpad, block_images * max(cells * lanes, results * row_lanes))
        s.zero_at = book(&scratchpad, max(lanes, row_lanes))
        s.v_at = book(&scratchpad, points * v_pitch)
        s.u_at = book(&scratchpad, points * u_pitch)
        s.m_at = book(&scratchpad, points * m_pitch)
        s.check_at = book(&scratchpad, lanes)
        s.workspace = scratchpad.size
        self.workspace, self.items = s.workspace, s.items

    def run(self, x, dout, dw, overflows, workspace, queue):
        """Run the plan. All arrays except `overflows` have the dtype of the plan. dw has a row for each partial sum,
        and `workspace` a row for each thread.

        Return 0 if all partial sums are finite, and a number above 0 otherwise.
        """
        cdef Call call
        set_call(&call, &self._plan, x, dw, overflows, workspace, queue, self._itemsize)
        call.w, call.bias = NULL, NULL
        call.dout = contiguous_buffer(dout, self._itemsize, False).at
        with nogil:
            fc_parallel_for(call.queue, self._worker, &call)
        return total(&call)


cdef int set_problem(
    Constants* p, int dtype, int isa, problem, block, Py_ssize_t block_images, offsets, taps
) except -1:
    """Set what both plans have in common: the axes, the transforms, and the sizes that depend only on the problem and
    its blocks. The caller keeps `offsets` and `taps` alive.
    """
    cdef Sizes* s = &p.sizes
    cdef TileAxis* to
    cdef Py_ssize_t i
    cdef Buffer of_offsets = contiguous_buffer(offsets, sizeof(Py_ssize_t), False)
    cdef Buffer of_taps = contiguous_buffer(taps, sizeof(Py_ssize_t), False)
    s.images, s.groups, s.rows, s.row_step = problem.images, problem.groups, problem.rows, problem.row_step
    s.channels, s.channel_step, s.kernel_taps = problem.channels, problem.channel_step, problem.taps
    s.subkernels, s.phases, s.block_images = problem.subkernels, problem.phases, block_images
    s.group_step = s.rows * s.channels * s.kernel_taps
    s.volume = s.positions = 1
    s.blocks = ceil_div(s.images, block_images)
    for i in range(3):
        axis, to = problem.tile_axes[i], &p.axes[i]
        to.size, to.stride, to.lo, to.tiles, to.block = axis.size, axis.stride, axis.lo, axis.tiles, block[i]
        to.points, to.taps, to.outputs = axis.minimal.points, axis.minimal.taps, axis.minimal.outputs
        to.span, to.output_stride, to.output_size = axis.span, axis.output_stride, axis.output_size
        to.first, to.end = axis.read
        s.volume *= to.size
        s.positions *= to.output_size
        s.blocks *= ceil_div(to.tiles, to.block)
    fc_check(of_offsets.n == 3 * s.subkernels)
    fc_check(of_taps.n == s.phases * s.subkernels * p.axes[1].taps * p.axes[2].taps)
    fc_check(p.axes[1].points * p.axes[2].points <= MOST_POINTS)
    p.offsets, p.taps = <const Py_ssize_t*> of_offsets.at, <const Py_ssize_t*> of_taps.at
    p.transforms.input = fc_winograd_for(dtype, isa).input
    p.transforms.weights = fc_winograd_for(dtype, isa).weights
    p.transforms.output = fc_winograd_for(dtype, isa).output
    p.transforms.gradient = fc_winograd_for(dtype, isa).gradient
    p.transforms.kernel = kernels(dtype, isa)
    return 0


cdef int set_planes(const Py_ssize_t** to, planes, Py_ssize_t n) except -1:
    """Set `to` to the address of the n elements of the array `planes`."""
    cdef Buffer found = contiguous_buffer(planes, sizeof(Py_ssize_t), False)
    fc_check(found.n == n)
    to[0] = <const Py_ssize_t*> found.at
    return 0


cdef int set_call(
    Call* call, const Constants* plan, source, result, overflows, workspace, queue, Py_ssize_t itemsize
) except -1:
    """Set what calls of both plans have in common."""
    cdef Buffer counts = contiguous_buffer(overflows, sizeof(Py_ssize_t), True)
    cdef Buffer space = contiguous_buffer(workspace, itemsize, True)
    call.plan = plan
    call.source = contiguous_buffer(source, itemsize, False).at
    call.result = contiguous_buffer(result, itemsize, True).at
    call.overflows, call.counts = <Py_ssize_t*> counts.at, counts.n
    call.workspace, call.workspaces = space.at, space.n // plan.sizes.workspace
    call.queue = work_queue(queue)
    return 0


cdef Py_ssize_t total(const Call* call) noexcept nogil:
    """Return how often all threads together found an inf or NaN."""
    cdef Py_ssize_t i, found = 0
    for i in range(call.counts):
        found += call.overflows[i]
    return found
