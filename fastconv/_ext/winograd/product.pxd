# Forward and backward_data by Winograd's minimal filtering: one matrix product for each interpolation point.

from fastconv._ext.buffers.blocks cimport unravel_block
from fastconv._ext.gemm.microkernel cimport MOST_LANES, next_vectors
from fastconv._ext.buffers.runs cimport fc_check, fc_fetch_add, fc_prefetch, floating, zero
from fastconv._ext.threads.team cimport fc_next_item, fc_stopped, fc_worker_id
from fastconv._ext.winograd.tiles cimport (
    MOST_POINTS, Block, Call, Sizes, TileAxis, Transforms, Window, block_at, count_tiles, has_nan,
    source_window, to_channels_last, transform_image,
)


cdef enum:
    PREFETCH_CHANNELS = 3   # Weights are prefetched this number of channels before they are used.
    MOST_PANELS = 64        # The largest number of panels of weights in a pass: see `multiply`.


cdef inline void transform_weights(
    floating* u, floating* transposed, const floating* w, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t phase,
    const Call* call,
) noexcept nogil:
    """Transform `rows` rows of the weights of one phase, and store them in u (points, subkernels * channels, width).

    First write the weights of each chunk of channels to `transposed` (channels, taps, width). Its last axis runs over
    the rows of the weights: each vector lane holds the weight of another row.
    """
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef Py_ssize_t[MOST_LANES] at
    cdef Py_ssize_t[MOST_POINTS] tap_at
    cdef Py_ssize_t taps = axes[1].taps * axes[2].taps, zeros = s.chunk * s.kernel_taps * width
    cdef Py_ssize_t c = 0, n, i, q, lane, pitch = s.subkernels * s.channels * width + s.u_padding
    cdef const Py_ssize_t* tap
    fc_check(width <= MOST_LANES)
    for i in range(rows):
        at[i] = i * s.row_step
    if rows < width:
        # Clear the lanes without a row. Old contents of the workspace may be denormal numbers, which slow down
        # multiplications.
        zero(transposed, min(s.chunk, s.channels) * s.kernel_taps * width)
    while c < s.channels:
        n = min(s.chunk, s.channels - c)
        if s.channel_step == s.kernel_taps:
            t.kernel.interleave(transposed, width, w + c * s.channel_step, at, rows, n * s.kernel_taps)
        else:
            for i in range(n):
                # Prefetch the weights of a later channel, because the weights of successive channels are far apart.
                if c + i + PREFETCH_CHANNELS < s.channels:
                    fc_prefetch(w + (c + i + PREFETCH_CHANNELS) * s.channel_step,
                                rows * s.kernel_taps * <Py_ssize_t> sizeof(floating))
                t.kernel.interleave(
                    transposed + i * s.kernel_taps * width, width, w + (c + i) * s.channel_step, at, rows,
                    s.kernel_taps,
                )
        zero(transposed + zeros, width)
        for q in range(s.subkernels):
            tap = call.plan.taps + (phase * s.subkernels + q) * taps
            for i in range(n):
                for lane in range(taps):
                    tap_at[lane] = (i * s.kernel_taps + tap[lane]) * width if tap[lane] >= 0 else zeros
                lane = 0
                while lane < width:
                    t.weights(
                        <int> axes[1].points, <int> axes[1].taps, <int> axes[2].points, <int> axes[2].taps,
                        transposed + lane, tap_at, u + (q * s.channels + c + i) * width + lane, pitch,
                    )
                    lane += t.kernel.lanes
        c += n


# One axis of a stride phase of the result.
cdef struct Phase:
    Py_ssize_t output_offset    # the index of output 0 in the result; negative if output 0 is outside the result
    Py_ssize_t n_outputs        # the number of outputs from output 0 to the end of the result


# The outputs of a tile, along one axis, that are in the result: [begin, end).
cdef struct OutputRange:
    Py_ssize_t at    # the index, in the result, of output 0 of the tile
    int begin        # the index, in the tile, of the first of these outputs
    int end


cdef inline OutputRange output_range(const TileAxis* axis, const Phase* phase, Py_ssize_t tile) noexcept nogil:
    """Return the outputs of a tile of one stride phase, along one axis, that are in the result."""
    cdef OutputRange outputs
    cdef Py_ssize_t first = tile * axis.outputs
    outputs.at = phase.output_offset + first * axis.output_stride
    outputs.begin = 1 if outputs.at < 0 else 0
    outputs.end = <int> max(min(axis.outputs, phase.n_outputs - first), 0)
    return outputs


cdef inline void transform_result(
    floating* result, const floating* m, const floating* bias, floating* check, Py_ssize_t rows, Py_ssize_t width,
    const Block* b, Py_ssize_t phase, const Call* call,
) noexcept nogil:
    """Transform m, the products of all tiles of a block, to outputs, and write them to `rows` rows of the result.

    `result` points to the first of the `rows` rows in image 0. `width` is the distance, in elements, between two tiles
    in m.

    Increment the element of `call.overflows` of each image in which an inf or NaN is found. The caller then has to
    check the image, because a transform may overflow, or spread an inf or NaN to outputs that do not depend on it.
    """
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef Py_ssize_t plane = axes[1].output_size * axes[2].output_size
    cdef Py_ssize_t image_step = s.groups * s.rows * s.positions, n, od, oh, ow, lane
    cdef const floating* lanes_of_bias
    cdef floating* to
    cdef OutputRange deep, high, wide
    cdef Phase[3] phases
    cdef int[4] box
    for n in range(3):
        phases[n].output_offset = call.plan.output_offsets[3 * phase + n]
        phases[n].n_outputs = (axes[n].output_size - phases[n].output_offset
                               + axes[n].output_stride - 1) // axes[n].output_stride
    for n in range(b.images):
        zero(check, width)
        for od in range(b.n[0]):
            deep = output_range(&axes[0], &phases[0], b.begin[0] + od)
            for oh in range(b.n[1]):
                high = output_range(&axes[1], &phases[1], b.begin[1] + oh)
                box[0], box[1] = high.begin, high.end
                for ow in range(b.n[2]):
                    wide = output_range(&axes[2], &phases[2], b.begin[2] + ow)
                    box[2], box[3] = wide.begin, wide.end
                    if deep.begin < deep.end and high.begin < high.end and wide.begin < wide.end:
                        to = (
                            result + (b.image + n) * image_step
                            + deep.at * plane + high.at * axes[2].output_size + wide.at
                        )
                        lane = 0
                        while lane < rows:
                            lanes_of_bias = bias
                            if bias is not NULL:
                                lanes_of_bias = bias + lane
                            t.output(
                                <int> axes[1].points, <int> axes[1].outputs, <int> axes[2].points,
                                <int> axes[2].outputs, m + lane, s.m_pitch, lanes_of_bias,
                                to + lane * s.positions, s.positions, axes[1].output_stride * axes[2].output_size,
                                axes[2].output_stride, <int> min(rows - lane, <Py_ssize_t> t.kernel.lanes), box,
                                check + lane,
                            )
                            lane += t.kernel.lanes
                    m = m + width
        # Check only the first `rows` lanes, because the other lanes hold old contents of the workspace.
        if has_nan(check, rows):
            fc_fetch_add(&call.overflows[b.image + n], 1)


# A panel of transformed weights. Each of its vector lanes holds one row of the result. Offsets and pitches are in
# elements.
cdef struct Panel:
    int vectors          # the number of vectors
    Py_ssize_t width     # the number of lanes of all vectors
    Py_ssize_t column    # the index, among the rows of the pass, of the row that the first lane holds
    Py_ssize_t at        # the offset of the panel from the first panel of the pass
    Py_ssize_t pitch     # the distance between the weights of two interpolation points


cdef inline Py_ssize_t list_panels(
    Panel* panels, Py_ssize_t rows, Py_ssize_t k, Py_ssize_t points, const Call* call
) noexcept nogil:
    """List the panels of a pass of `rows` rows, and return the number of panels."""
    cdef Py_ssize_t lanes = call.plan.transforms.kernel.lanes, left = (rows + lanes - 1) // lanes, n = 0
    cdef Panel panel
    panel.column = panel.at = 0
    while left:
        fc_check(n < MOST_PANELS)
        panel.vectors = next_vectors(left, call.plan.transforms.kernel.vectors)
        panel.width = panel.vectors * lanes
        panel.pitch = k * panel.width + call.plan.sizes.u_padding
        panels[n] = panel
        panel.column += panel.width
        panel.at += points * panel.pitch
        left -= panel.vectors
        n += 1
    return n


cdef inline void multiply(
    const Call* call, Py_ssize_t group, Py_ssize_t first, const Block* block, floating* workspace, bint new_weights
) noexcept nogil:
    """Compute the outputs of a block for up to `s.block_rows` rows of the result, starting with row `first`.

    The rows are processed in passes of at most `s.pass_rows` rows. A pass computes [tiles x k] @ [k x rows] for each
    interpolation point, where k is the number of subkernels times the number of channels. It then transforms the
    products to outputs.
    """
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef Py_ssize_t points = axes[1].points * axes[2].points, k = s.subkernels * s.channels
    cdef Py_ssize_t tiles = count_tiles(block), end = min(first + s.block_rows, s.rows)
    cdef Py_ssize_t row, here = -1, last, point, tile, phase, width = 0, i, n, count = 0
    cdef const floating* factors = <const floating*> call.w + group * s.group_step
    cdef const floating* bias = <const floating*> call.bias
    cdef floating* u = workspace + s.u_at
    cdef floating* bias_of_pass = workspace + s.bias_at
    cdef floating* m = workspace + s.m_at
    cdef floating* products
    cdef const floating* v
    cdef Panel[MOST_PANELS] panels
    cdef const Panel* p
    for phase in range(s.phases):
        row = first
        while row < end and not fc_stopped(call.queue):
            last = here
            here = min(s.pass_rows, end - row)
            if here != last:
                count = list_panels(panels, here, k, points, call)
                width = panels[count - 1].column + panels[count - 1].width
            if new_weights or not s.weights_resident:
                for i in range(count):
                    p = &panels[i]
                    transform_weights(
                        u + p.at, workspace + s.transposed_at, factors + (row + p.column) * s.row_step,
                        min(p.width, here - p.column), p.width, phase, call,
                    )
            for point in range(points):
                v = workspace + s.v_at + point * s.v_pitch
                products = m + point * s.m_pitch
                tile = 0
                while tile < tiles:
                    n = min(<Py_ssize_t> t.kernel.rows, tiles - tile)
                    # The next n tiles stay in the cache while they are multiplied by all rows of weights of the pass.
                    for i in range(count):
                        p = &panels[i]
                        call.plan.tile(
                            <int> n, p.vectors, k, v, s.v_step, u + p.at + point * p.pitch, NULL,
                            products + p.column, width, NULL, 0,
                        )
                    v = v + n * s.v_step
                    products = products + n * width
                    tile += n
            if bias is not NULL:
                for i in range(here):
                    bias_of_pass[i] = bias[group * s.rows + row + i]
            transform_result(
                <floating*> call.result + (group * s.rows + row) * s.positions, m,
                bias_of_pass if bias is not NULL else NULL, workspace + s.check_at, here, width, block, phase, call,
            )
            if s.weights_resident:
                u = u + panels[count - 1].at + points * panels[count - 1].pitch
            row += here


cdef inline void products_worker(const Call* call, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is some rows of the result in one block of tiles."""
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef Block block
    cdef Window window
    cdef Py_ssize_t row, group, place, filled = -1, transformed = -1
    cdef Py_ssize_t worker_id = fc_worker_id(call.queue), index = fc_next_item(call.queue, s.items)
    cdef floating* own = <floating*> call.workspace + worker_id * s.workspace
    fc_check(worker_id < call.workspaces)
    if index < s.items:
        zero(own + s.zero_at, s.channel_lanes)
    while index < s.items:
        place = unravel_block(&row, index, s.rows, s.block_rows)
        group = block_at(&block, place, s, axes)
        if filled != place:
            filled = place
            window = source_window(&block, axes)
            to_channels_last(own + s.patch_at, <const floating*> call.source + group * s.channels * s.volume,
                             s.groups * s.channels * s.volume, call.plan.planes, s.channels, s.channel_lanes, &block,
                             &window, axes[1].size, axes[2].size, &t.kernel)
            transform_image(own + s.v_at, own + s.patch_at, &block, &window, call, s.channels)
        multiply(call, group, row, &block, own, group * s.rows + row != transformed)
        transformed = group * s.rows + row
        index = fc_next_item(call.queue, s.items)


cdef inline void product_of_float(void* task) noexcept nogil:
    products_worker(<const Call*> task, <float*> NULL)


cdef inline void product_of_double(void* task) noexcept nogil:
    products_worker(<const Call*> task, <double*> NULL)
