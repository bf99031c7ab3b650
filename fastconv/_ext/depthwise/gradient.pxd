# Backward_weights of depthwise convolution: the worker that sums the products of blocks of dout and of x.

from fastconv._ext.buffers.blocks cimport unravel_block
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.depthwise.blocks cimport list_segments, no_block, place_block
from fastconv._ext.depthwise.kernels cimport fc_copy_segment, fc_depthwise_kernels, fc_taps
from fastconv._ext.packing.patches cimport Block, ConvAxis
from fastconv._ext.threads.team cimport fc_next_item, fc_stopped, fc_work_queue, fc_worker_id


# The constants of a `WeightGradientPlan`. Pitches and offsets are in elements.
cdef struct GradientSizes:
    ConvAxis[3] axes
    const fc_depthwise_kernels* kernels
    fc_taps taps              # the taps of a pair of a filter and a channel; each row of dout sets `to_pitch` in a copy
    const Py_ssize_t* weights  # the index in the kernel of the weight of each tap, column by column of `taps`
    Py_ssize_t lanes          # the number of lanes of a vector
    Py_ssize_t images         # the number of images
    Py_ssize_t groups         # the number of groups of an image
    Py_ssize_t block_groups   # the number of groups whose sums a worker computes at a time
    Py_ssize_t filters        # the number of filters of a group
    Py_ssize_t channels       # the number of channels of x in a group
    Py_ssize_t channel_pitch  # the distance between two channels of a padded block
    Py_ssize_t kernel         # the number of taps of a pair of a filter and a channel
    Py_ssize_t parts          # the number of partial sums of dw
    Py_ssize_t volume         # the number of cells of a channel of x
    Py_ssize_t blocks         # the number of blocks of a channel
    Py_ssize_t items          # the number of items of a call: the partial sums of all blocks of groups
    Py_ssize_t segments       # the largest number of segments of a channel of a padded block
    Py_ssize_t workspace      # the number of elements of the workspace of a thread
    Py_ssize_t[2] block_at    # the offsets of the two padded blocks in the workspace
    Py_ssize_t dout_at        # the offset of the copy of short rows of dout
    Py_ssize_t totals_at      # the offset of the sums, which have a vector for each tap
    Py_ssize_t segments_at    # the offset of the list of segments, which both blocks share


# The arguments of a call of `WeightGradientPlan.run`. All workers of the call read them.
cdef struct GradientCall:
    const GradientSizes* sizes
    const void* x
    Py_ssize_t xs              # the number of elements of x
    const void* dout
    Py_ssize_t douts           # the number of elements of dout
    void* dw                   # the partial sums of dw
    Py_ssize_t dws             # the number of elements of one partial sum
    void* workspace            # the workspaces of all workers, `sizes.workspace` elements each
    Py_ssize_t workspaces      # the number of workspaces
    fc_work_queue* queue


cdef inline void contract(
    const GradientCall* call, Py_ssize_t filter, const Block* b, const floating* patch, floating* copied,
    floating* totals,
) noexcept nogil:
    """Add the contribution of one block of one group to the gradients in `totals`, for each pair of a filter and a
    channel. `filter` is the index of the first filter of the group in dout, counted over all images.
    """
    cdef const GradientSizes* s = call.sizes
    cdef const ConvAxis* axes = &s.axes[0]
    cdef Py_ssize_t plane = axes[1].out * axes[2].out, f, c, od, i, first
    cdef const floating* rows
    cdef fc_taps taps = s.taps
    for f in range(s.filters):
        for od in range(b.n[0]):
            first = ((filter + f) * axes[0].out + b.begin[0] + od) * plane + b.begin[1] * axes[2].out + b.begin[2]
            fc_check(first + (b.n[1] - 1) * axes[2].out + b.n[2] <= call.douts)
            rows = <const floating*> call.dout + first
            taps.to_pitch = axes[2].out
            if b.n[2] < s.lanes and first + (b.n[1] - 1) * axes[2].out + s.lanes > call.douts:
                # Copy the rows of dout, because a vector would otherwise read past the end of dout.
                taps.to_pitch = b.n[2]
                for i in range(b.n[1] * b.n[2]):
                    copied[i] = rows[i // b.n[2] * axes[2].out + i % b.n[2]]
                rows = copied
            for c in range(s.channels):
                s.kernels.dots(
                    &taps, patch + c * s.channel_pitch + od * axes[0].pitch, rows, b.n[1], b.n[2],
                    totals + (f * s.channels + c) * s.kernel * s.lanes,
                )


cdef inline void gradient_worker(const GradientCall* call, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is one partial sum of dw for a block of groups."""
    cdef const GradientSizes* s = call.sizes
    cdef const ConvAxis* axes = &s.axes[0]
    cdef Block block = no_block()
    cdef Py_ssize_t step = s.filters * s.channels * s.kernel  # the number of weights of a group
    cdef Py_ssize_t filled = -1, count = 0, group, groups, part, block_index, g, i, first, channel, plane
    cdef Py_ssize_t worker_id = fc_worker_id(call.queue), index = fc_next_item(call.queue, s.items)
    cdef const floating* x = <const floating*> call.x
    cdef floating* workspace = <floating*> call.workspace + worker_id * s.workspace
    cdef floating* totals = workspace + s.totals_at
    cdef fc_copy_segment* segments = <fc_copy_segment*> (workspace + s.segments_at)
    fc_check(worker_id < call.workspaces or index >= s.items)
    while index < s.items:
        part = unravel_block(&group, index, s.groups, s.block_groups)
        groups = min(s.block_groups, s.groups - group)
        for i in range(groups * step * s.lanes):
            totals[i] = 0
        block_index = part
        while block_index < s.images * s.blocks and not fc_stopped(call.queue):
            block.image = block_index // s.blocks
            if filled != block_index % s.blocks:
                filled = block_index % s.blocks
                place_block(&block, filled, axes)
                count = list_segments(segments, axes, &block)
                fc_check(count <= s.segments)
            # Copy the next block before summing the current block, as in `convolve_worker`.
            for g in range(groups + 1):
                plane = block.image * s.groups + group + g
                if g < groups:
                    for channel in range(s.channels):
                        first = (plane * s.channels + channel) * s.volume
                        s.kernels.pad(
                            workspace + s.block_at[g % 2] + channel * s.channel_pitch, axes[1].pitch, segments, count,
                            x + first, axes[1].stride * axes[2].size, axes[2].stride, call.xs - first,
                        )
                if g > 0:
                    contract(
                        call, (plane - 1) * s.filters, &block, workspace + s.block_at[(g - 1) % 2],
                        workspace + s.dout_at, totals + (g - 1) * step * s.lanes,
                    )
            block_index += s.parts
        s.kernels.lanes(
            totals, groups * step, s.kernel, s.weights, <floating*> call.dw + part * call.dws + group * step
        )
        index = fc_next_item(call.queue, s.items)


cdef inline void gradient_float64(void* call) noexcept nogil:
    gradient_worker(<const GradientCall*> call, <double*> NULL)


cdef inline void gradient_float32(void* call) noexcept nogil:
    gradient_worker(<const GradientCall*> call, <float*> NULL)
