# Backward_weights of depthwise convolution: the worker that sums the products of blocks of dout and of the image.

from fastconv._ext.buffers.blocks cimport unravel_block
from fastconv._ext.depthwise.blocks cimport list_segments, place_block
from fastconv._ext.depthwise.kernels cimport fc_copy_segment, fc_depthwise_for, fc_isa_lanes, fc_pad_t, fc_taps
from fastconv._ext.packing.patches cimport Block, ConvAxis
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.threads.team cimport fc_next_item, fc_stopped, fc_work_queue, fc_worker_id


# The sizes of a call of `weights`, in the order of the table that fastconv.convolution.depthwise makes. Pitches and
# offsets are in elements.
cdef struct WeightSizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t block_groups
    Py_ssize_t filters
    Py_ssize_t channels
    Py_ssize_t channel_pitch
    Py_ssize_t k
    Py_ssize_t high
    Py_ssize_t parts
    # The distance between the two padded blocks in a workspace. After both blocks, the workspace has a buffer for a
    # copy of rows of dout.
    Py_ssize_t dout_at
    Py_ssize_t totals_at      # the offset of the sums in a workspace


cdef inline WeightSizes read_weight_sizes(const Py_ssize_t* table) noexcept nogil:
    cdef WeightSizes s
    s.images, s.groups, s.block_groups, s.filters, s.channels = table[0], table[1], table[2], table[3], table[4]
    s.channel_pitch, s.k, s.high, s.parts, s.dout_at, s.totals_at = (
        table[5], table[6], table[7], table[8], table[9], table[10]
    )
    return s


# The arguments of a call of `weights`. All threads of the call read them.
cdef struct Weights:
    const void* source
    Py_ssize_t sources         # the number of elements of the source
    const void* dout
    Py_ssize_t douts
    void* result
    Py_ssize_t result_pitch
    const Py_ssize_t* at
    const Py_ssize_t* places
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t* lists
    Py_ssize_t lists_pitch
    Py_ssize_t workspaces
    Py_ssize_t volume          # the number of cells of a channel of the source
    Py_ssize_t blocks          # the number of blocks of an image
    Py_ssize_t total           # the number of items
    int isa
    fc_work_queue* queue
    WeightSizes sizes
    ConvAxis[3] axes


cdef inline void contract(
    const Weights* t, Py_ssize_t row, const Block* b, const floating* patch, floating* copied, floating* totals,
    Py_ssize_t lanes,
) noexcept nogil:
    """Add the contribution of one block of one group to the gradients in `totals`, for each pair of a filter and a
    channel. `row` is the index of the first filter of the group in dout, counted over all images.
    """
    cdef const WeightSizes* s = &t.sizes
    cdef const ConvAxis* axes = &t.axes[0]
    cdef int dtype = 0 if floating is float else 1
    cdef Py_ssize_t plane = axes[1].out * axes[2].out, f, c, od, i, first
    cdef const floating* rows
    cdef fc_taps taps
    taps.k, taps.high, taps.at = s.k, s.high, t.at
    taps.pitch = axes[1].pitch
    for f in range(s.filters):
        for od in range(b.n[0]):
            first = (
                ((row + f) * axes[0].out + b.begin[0] + od) * plane + b.begin[1] * axes[2].out + b.begin[2]
            )
            fc_check(first + (b.n[1] - 1) * axes[2].out + b.n[2] <= t.douts)
            rows = <const floating*> t.dout + first
            taps.to_pitch = axes[2].out
            if b.n[2] < lanes and first + (b.n[1] - 1) * axes[2].out + lanes > t.douts:
                # Copy the rows of dout, because a vector would otherwise read past the end of dout.
                taps.to_pitch = b.n[2]
                for i in range(b.n[1] * b.n[2]):
                    copied[i] = rows[i // b.n[2] * axes[2].out + i % b.n[2]]
                rows = copied
            for c in range(s.channels):
                fc_depthwise_for(dtype, t.isa).dots(
                    &taps, patch + c * s.channel_pitch + od * axes[0].pitch, rows, b.n[1], b.n[2],
                    totals + (f * s.channels + c) * s.k * s.high * lanes,
                )


cdef inline void weights_worker(const Weights* t, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is one partial sum of the gradient for a block of groups."""
    cdef const WeightSizes* s = &t.sizes
    cdef const ConvAxis* axes = &t.axes[0]
    cdef int isa = t.isa, which = 0 if floating is float else 1
    cdef fc_pad_t pad = fc_depthwise_for(which, isa).pad
    cdef Block block
    cdef Py_ssize_t lanes = fc_isa_lanes(which, isa), taps = s.k * s.high, step = s.filters * s.channels * taps
    cdef Py_ssize_t filled = -1, count = 0, group, groups, part, block_index, g, i, first, channel, plane
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.total)
    cdef const floating* source = <const floating*> t.source
    cdef floating* space = <floating*> t.space + worker_id * t.space_pitch
    cdef floating* totals = space + s.totals_at
    cdef fc_copy_segment* segments = <fc_copy_segment*> (t.lists + worker_id * t.lists_pitch)
    fc_check(worker_id < t.workspaces or index >= t.total)
    while index < t.total:
        part = unravel_block(&group, index, s.groups, s.block_groups)
        groups = min(s.block_groups, s.groups - group)
        for i in range(groups * step * lanes):
            totals[i] = 0
        block_index = part
        while block_index < s.images * t.blocks and not fc_stopped(t.queue):
            block.image = block_index // t.blocks
            if filled != block_index % t.blocks:
                filled = block_index % t.blocks
                place_block(&block, filled, axes)
                count = list_segments(segments, axes, &block)
                fc_check(count * 7 <= t.lists_pitch)
            # Copy the next block before summing the current block, as in `products_worker`.
            for g in range(groups + 1):
                plane = block.image * s.groups + group + g
                if g < groups:
                    for channel in range(s.channels):
                        first = (plane * s.channels + channel) * t.volume
                        pad(space + g % 2 * s.dout_at + channel * s.channel_pitch, axes[1].pitch, segments, count,
                            source + first, axes[1].stride * axes[2].size, axes[2].stride, t.sources - first)
                if g > 0:
                    contract(
                        t, (plane - 1) * s.filters, &block, space + (g - 1) % 2 * s.dout_at, space + 2 * s.dout_at,
                        totals + (g - 1) * step * lanes, lanes,
                    )
            block_index += s.parts
        fc_depthwise_for(which, isa).lanes(
            totals, groups * step, taps, t.places, <floating*> t.result + part * t.result_pitch + group * step
        )
        index = fc_next_item(t.queue, t.total)


cdef inline void weights_of_double(void* task) noexcept nogil:
    weights_worker(<const Weights*> task, <double*> NULL)


cdef inline void weights_of_float(void* task) noexcept nogil:
    weights_worker(<const Weights*> task, <float*> NULL)
