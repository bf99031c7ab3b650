# The gradient of the weights by Winograd's minimal filtering. The image is correlated with the tiles of dout. For each
# interpolation point, one matrix product sums over the tiles.

from fastconv._ext.buffers.blocks cimport unravel_block
from fastconv._ext.gemm.microkernel cimport next_vectors
from fastconv._ext.buffers.runs cimport fc_check, fc_fetch_add, floating, zero
from fastconv._ext.threads.team cimport fc_next_item, fc_stopped, fc_worker_id
from fastconv._ext.winograd.tiles cimport (
    MOST_POINTS, Block, Call, PixelGrid, Sizes, TileAxis, Transforms, Window, block_at, clip_window, count_tiles,
    has_nan, list_interior_offsets, list_pixel_offsets, source_window, to_channels_last, transform_image,
)


cdef inline Window gradient_window(const Block* b, const TileAxis* axes) noexcept nogil:
    """Return the window of dout that a block of tiles reads. The window is clipped to dout."""
    cdef Window window
    cdef Py_ssize_t i, begin
    for i in range(3):
        begin = b.begin[i] * axes[i].outputs
        clip_window(&window, i, begin, begin + b.n[i] * axes[i].outputs, 0, axes[i].output_size)
    return window


cdef inline void transform_gradient(
    floating* u, const floating* patch, const Block* b, const Window* window, const Call* call
) noexcept nogil:
    """Transform the tiles of a patch of dout, and write the result to u (points, tiles, filters)."""
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef const Py_ssize_t* pixel_offsets
    cdef Py_ssize_t[MOST_POINTS] at, inside
    cdef Py_ssize_t n, od, oh, ow, f, base
    cdef PixelGrid grid
    grid.rows, grid.columns, grid.row_step, grid.column_step = axes[1].outputs, axes[2].outputs, 1, 1
    grid.lanes, grid.zero_pixel = s.row_lanes, s.zero_at - s.patch_at
    list_interior_offsets(inside, &grid, window)
    for n in range(b.images):
        for od in range(b.n[0]):
            for oh in range(b.n[1]):
                for ow in range(b.n[2]):
                    pixel_offsets = list_pixel_offsets(
                        at, inside, &base, n, b.begin[0] + od - window.first[0],
                        (b.begin[1] + oh) * axes[1].outputs - window.first[1],
                        (b.begin[2] + ow) * axes[2].outputs - window.first[2], &grid, window,
                    )
                    f = 0
                    while f < s.row_lanes:
                        t.weights(
                            <int> axes[1].points, <int> axes[1].outputs, <int> axes[2].points,
                            <int> axes[2].outputs, patch + base + f, pixel_offsets, u + f, s.u_pitch,
                        )
                        f += t.kernel.lanes
                    u = u + s.u_step


cdef inline void contract(
    const Call* call, const floating* source, const floating* dout, const Block* block, Py_ssize_t channels,
    Py_ssize_t filters, floating* workspace, bint add,
) noexcept nogil:
    """Compute m = [filters x tiles] @ [tiles x k] for each interpolation point and one block of tiles. Here k is the
    number of subkernels times the number of channels. If `add` is set, add the products to m.
    """
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef Py_ssize_t points = axes[1].points * axes[2].points, tiles = count_tiles(block), lanes = t.kernel.lanes
    cdef Py_ssize_t point, c, f, rows, k = (s.subkernels * channels + lanes - 1) // lanes
    cdef const floating* v
    cdef const floating* u
    cdef floating* m
    cdef floating* patch = workspace + s.patch_at
    cdef Window window = source_window(block, axes)
    cdef int vectors
    to_channels_last(patch, source, s.groups * s.channels * s.volume, call.plan.planes, channels, s.channel_lanes,
                     block, &window, axes[1].size, axes[2].size, &t.kernel)
    transform_image(workspace + s.v_at, patch, block, &window, call, channels)
    window = gradient_window(block, axes)
    to_channels_last(patch, dout, s.groups * s.rows * s.positions, call.plan.filter_planes, filters, s.row_lanes,
                     block, &window, axes[1].output_size, axes[2].output_size, &t.kernel)
    transform_gradient(workspace + s.u_at, patch, block, &window, call)
    for point in range(points):
        v = workspace + s.v_at + point * s.v_pitch
        u = workspace + s.u_at + point * s.u_pitch
        m = workspace + s.m_at + point * s.m_pitch
        c = 0
        while c < k:
            vectors = next_vectors(k - c, t.kernel.vectors)
            f = 0
            while f < filters:
                rows = min(<Py_ssize_t> t.kernel.rows, filters - f)
                call.plan.tile(
                    <int> rows, vectors, tiles, u + f, s.u_step, v + c * lanes, &s.v_step,
                    m + f * s.m_step + c * lanes, s.m_step, NULL, add,
                )
                f += rows
            c += vectors


cdef inline void gradients_worker(const Call* call, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is one partial sum of the gradient for some filters and
    channels.
    """
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef Block block
    cdef Py_ssize_t row, channel, group, part, block_index, channels, filters, c, f, q
    cdef Py_ssize_t worker_id = fc_worker_id(call.queue), index = fc_next_item(call.queue, s.items)
    cdef floating* own = <floating*> call.workspace + worker_id * s.workspace
    cdef floating* check = own + s.check_at
    cdef floating* to
    fc_check(worker_id < call.workspaces)
    if index < s.items:
        zero(own + s.zero_at, max(s.channel_lanes, s.row_lanes))
    while index < s.items:
        part = unravel_block(&channel, index, s.channels, s.block_channels)
        part = unravel_block(&row, part, s.rows, s.block_rows)
        group, part = part % s.groups, part // s.groups
        channels = min(s.block_channels, s.channels - channel)
        filters = min(s.block_rows, s.rows - row)
        block_index = part
        while block_index < s.blocks and not fc_stopped(call.queue):
            block_at(&block, block_index, s, axes)
            contract(
                call, <const floating*> call.source + (group * s.channels + channel) * s.volume,
                <const floating*> call.dout + (group * s.rows + row) * s.positions, &block, channels, filters, own,
                block_index > part,
            )
            block_index += s.parts
        zero(check, s.channel_lanes)
        for f in range(filters):
            to = (
                <floating*> call.result + part * s.part_pitch + (group * s.rows + row + f) * s.row_step
                + channel * s.channel_step
            )
            for q in range(s.subkernels):
                c = 0
                while c < channels:
                    t.gradient(
                        <int> axes[1].points, <int> axes[1].taps, <int> axes[2].points, <int> axes[2].taps,
                        own + s.m_at + f * s.m_step + q * channels + c, s.m_pitch, to + c * s.channel_step,
                        s.channel_step, call.plan.taps + q * axes[1].taps * axes[2].taps,
                        <int> min(channels - c, <Py_ssize_t> t.kernel.lanes), check + c,
                    )
                    c += t.kernel.lanes
        # Check only the first `channels` elements, because the other elements come from the next subkernel, or from
        # uninitialized memory.
        if has_nan(check, channels):
            fc_fetch_add(&call.overflows[0], 1)
        index = fc_next_item(call.queue, s.items)


cdef inline void weights_of_float(void* task) noexcept nogil:
    gradients_worker(<const Call*> task, <float*> NULL)


cdef inline void weights_of_double(void* task) noexcept nogil:
    gradients_worker(<const Call*> task, <double*> NULL)
