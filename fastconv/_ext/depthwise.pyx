"""Convolution with few channels and filters in a group, for example with groups == C.

The kernels compute sums over taps instead of a matrix product, and vectors run along the rows of an image. A padded
block of an image is copied to a workspace that stays in the L1 cache, and is split into stride phases (see
patches.pxd). Rows of the result are then summed in registers.

`product` computes forward and backward_data, and `weights` computes backward_weights. fastconv.convolution.depthwise
divides the work into items, and makes all tables that are read here.
"""

from fastconv._ext.depthwise_kernels cimport fc_copy_segment, fc_depthwise_for, fc_isa_lanes, fc_pad_t, fc_taps
from fastconv._ext.patches cimport Block, ConvAxis, first_cell, last_cell, read_conv_axes
from fastconv._ext.runs cimport fc_check, floating
from fastconv._ext.team cimport (
    fc_new_worker, fc_next_chunk, fc_next_item, fc_parallel_for, fc_stopped, fc_work_queue, fc_worker, fc_worker_id,
    work_queue,
)


def lanes(int dtype, int isa):
    """Return the number of lanes of a vector, for dtype 0 (float32) or 1 (float64)."""
    return fc_isa_lanes(dtype, isa)


cdef inline Py_ssize_t unravel_block(
    Py_ssize_t* begin, Py_ssize_t* n, Py_ssize_t index, Py_ssize_t whole, Py_ssize_t block,
) noexcept nogil:
    """Set `begin` and `n` to the first item and the number of items of block `index % count`, where `count` is the
    number of blocks of `whole` items. Return `index // count`.
    """
    cdef Py_ssize_t count = (whole + block - 1) // block
    begin[0] = index % count * block
    n[0] = min(block, whole - begin[0])
    return index // count


cdef inline void place_block(Block* b, Py_ssize_t index, const ConvAxis* axes) noexcept nogil:
    """Set `b` to the outputs of block `index` of an image."""
    cdef Py_ssize_t i
    for i in range(2, -1, -1):
        index = unravel_block(&b.begin[i], &b.n[i], index, axes[i].out, axes[i].block)


cdef inline Py_ssize_t blocks_of(const ConvAxis* axes) noexcept nogil:
    cdef Py_ssize_t i, count = 1
    for i in range(3):
        count *= (axes[i].out + axes[i].block - 1) // axes[i].block
    return count


cdef Py_ssize_t list_segments(fc_copy_segment* segments, const ConvAxis* axes, const Block* b) noexcept nogil:
    """List the segments that fill a block of one channel, in ascending order of their offsets. The layout of the block
    is that of `fill` in patches.pxd. Returns the number of segments.
    """
    cdef const ConvAxis* d = &axes[0]
    cdef const ConvAxis* h = &axes[1]
    cdef const ConvAxis* w = &axes[2]
    cdef Py_ssize_t deep = b.n[0] + d.halo, high = b.n[1] + h.halo, wide = b.n[2] + w.halo
    cdef Py_ssize_t sd, sh, sw, cell, at_d, bottom, after, count = 0
    cdef fc_copy_segment* segment
    for sd in range(d.n_phases):
        for cell in range(deep):
            at_d = (b.begin[0] + cell) * d.stride + d.phase[sd] - d.lo
            for sh in range(h.n_phases):
                for sw in range(w.n_phases):
                    segment = &segments[count]
                    count += 1
                    segment.to = sd * d.phase_pitch + cell * d.pitch + sh * h.phase_pitch + sw * w.phase_pitch
                    segment.top = first_cell(h, b.begin[1], h.phase[sh], high)
                    bottom = last_cell(h, b.begin[1], h.phase[sh], high)
                    segment.before = first_cell(w, b.begin[2], w.phase[sw], wide)
                    after = last_cell(w, b.begin[2], w.phase[sw], wide)
                    if at_d < 0 or at_d >= d.size or segment.top >= bottom or segment.before >= after:
                        segment.top, segment.rows, segment.bottom = high, 0, 0
                        segment.source = segment.before = segment.n = 0
                        continue
                    segment.rows, segment.bottom = bottom - segment.top, high - bottom
                    segment.n = after - segment.before
                    segment.source = (
                        (at_d * h.size + (b.begin[1] + segment.top) * h.stride + h.phase[sh] - h.lo) * w.size
                        + (b.begin[2] + segment.before) * w.stride + w.phase[sw] - w.lo
                    )
    return count


# The sizes of a call of `product`, in the order of the table that fastconv.convolution.depthwise makes. Steps, pitches
# and offsets are in elements.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t rows           # the number of rows of the result in a group: its filters or, for dx, its channels
    Py_ssize_t row_step       # the distance between the weights of two rows
    Py_ssize_t channels       # the number of channels of the source in a group
    Py_ssize_t channel_pitch  # the distance between two channels of a block
    # The distance between the two blocks of a workspace. A buffer for strided results follows the blocks.
    Py_ssize_t scatter_at
    Py_ssize_t segments         # the largest number of segments of a channel
    Py_ssize_t sweeps         # the largest number of sweeps over a block
    Py_ssize_t paired         # whether the results of two neighbouring parts alternate in each row of the result


cdef inline Sizes read_sizes(const Py_ssize_t[::1] table) noexcept nogil:
    cdef Sizes s
    s.images, s.groups, s.rows, s.row_step = table[0], table[1], table[2], table[3]
    s.channels, s.channel_pitch, s.scatter_at, s.segments, s.sweeps, s.paired = (
        table[4], table[5], table[6], table[7], table[8], table[9]
    )
    return s


cdef enum:
    # The columns of the table `parts`. A part is one stride phase of the result. In the forward pass, the whole result
    # is one part.
    PART_OUT = 0      # three columns: the number of outputs along each axis
    PART_START = 3    # three columns: the result cell of output 0 along each axis
    PART_K = 6        # `k`, `high` and `step` of fc_taps
    PART_HIGH = 7
    PART_STEP = 8
    PART_AT = 9       # the index of the first tap in `at` and in `places`
    PART_COLUMNS = 10


# A sweep computes the rows of one plane of the result that are in a block and in one part.
cdef struct Sweep:
    Py_ssize_t part
    Py_ssize_t source  # the offset of the first row in the block, in elements
    Py_ssize_t to      # the offset of the first result in the plane or volume of the result, in elements
    Py_ssize_t rows
    Py_ssize_t n       # the number of results of a row
    Py_ssize_t whole   # the number of rows whose last vector may be stored past the end of the row


# A block that was copied to the workspace, and the sweeps over it.
cdef struct Stage:
    Py_ssize_t plane   # the index of the image and group: image * groups + group
    Py_ssize_t part    # the index of the block in the image
    Py_ssize_t count   # the number of sweeps
    Sweep* sweeps


cdef Py_ssize_t whole_rows(Py_ssize_t rows, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """Return how many rows of n results may be stored as whole vectors. Such a vector may write into later rows, but
    not past the last row.
    """
    cdef Py_ssize_t spare = rows * n - lanes
    return 0 if spare < 0 or n >= lanes else spare // n + 1


cdef Py_ssize_t list_sweeps(
    Sweep* sweeps, const Sizes* s, const ConvAxis* axes, const Block* b, const Py_ssize_t* parts, Py_ssize_t many,
    Py_ssize_t lanes,
) noexcept nogil:
    """List the sweeps over a block for one row of the result. Returns the number of sweeps."""
    cdef const ConvAxis* d = &axes[0]
    cdef const ConvAxis* h = &axes[1]
    cdef const ConvAxis* x = &axes[2]
    cdef Py_ssize_t part = 0, deep, high, wide, od, count = 0
    cdef const Py_ssize_t* row
    cdef Sweep* sweep
    if s.paired:
        lanes *= 2
    while part < many:
        row = parts + part * PART_COLUMNS
        deep = min(b.n[0], row[PART_OUT] - b.begin[0])
        high = min(b.n[1], row[PART_OUT + 1] - b.begin[1])
        wide = min(b.n[2], row[PART_OUT + 2] - b.begin[2])
        if s.paired:
            wide = min(2 * b.n[2], x.output_size - 2 * b.begin[2])
        for od in range(deep):
            if high <= 0 or wide <= 0:
                break
            sweep = &sweeps[count]
            count += 1
            sweep.part, sweep.source, sweep.rows, sweep.n = part, od * d.pitch, high, wide
            sweep.to = (
                ((row[PART_START] + (b.begin[0] + od) * d.output_stride) * h.output_size
                 + row[PART_START + 1] + b.begin[1] * h.output_stride) * x.output_size
                + row[PART_START + 2] + b.begin[2] * x.output_stride
            )
            # Whole vectors may be stored only if the rows are contiguous, which means as long as those of the result.
            sweep.whole = whole_rows(high, wide, lanes) if h.output_stride == 1 and wide == x.output_size else 0
        part += 2 if s.paired else 1
    return count


# The arguments of a call of `product`. All threads of the call read them.
cdef struct Product:
    const void* source
    Py_ssize_t sources         # the number of elements of the source
    const void* w
    const void* bias
    void* result
    const Py_ssize_t* parts
    Py_ssize_t parts_count
    const Py_ssize_t* at
    const Py_ssize_t* places
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t* lists
    Py_ssize_t lists_pitch
    Py_ssize_t workspaces
    Py_ssize_t group_step      # the distance between the weights of two groups, in elements
    Py_ssize_t volume          # the number of cells of a channel of the source
    Py_ssize_t positions       # the number of cells of a channel of the result
    Py_ssize_t blocks          # the number of blocks of an image
    Py_ssize_t total           # the number of items
    int isa
    fc_work_queue* queue
    Sizes sizes
    ConvAxis[3] axes


def product(
    const floating[::1] source, const floating[::1] w, const floating[::1] bias, floating[::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[:, ::1] phases, const Py_ssize_t[::1] sizes,
    const Py_ssize_t[:, ::1] parts, const Py_ssize_t[::1] at, const Py_ssize_t[::1] places,
    floating[:, ::1] space, Py_ssize_t[:, ::1] lists, int isa, queue,
):
    """Compute result = w * source + bias, where * is the convolution. An item is a block of one group of one image."""
    cdef Product p
    cdef fc_work_queue* shared = work_queue(queue)
    with nogil:
        p.sizes = read_sizes(sizes)
        read_conv_axes(p.axes, &axes[0, 0], &phases[0, 0], phases.shape[1])
        p.source, p.sources = <const void*> &source[0], source.shape[0]
        p.w, p.result, p.bias = <const void*> &w[0], <void*> &result[0], NULL
        if bias.shape[0]:
            p.bias = <const void*> &bias[0]
        p.parts, p.parts_count, p.at, p.places = &parts[0, 0], parts.shape[0], &at[0], &places[0]
        p.space, p.space_pitch = <void*> &space[0, 0], space.shape[1]
        p.lists, p.lists_pitch = &lists[0, 0], lists.shape[1]
        p.workspaces = min(space.shape[0], lists.shape[0])
        p.group_step = w.shape[0] // p.sizes.groups
        p.volume = p.axes[0].size * p.axes[1].size * p.axes[2].size
        p.positions = p.axes[0].output_size * p.axes[1].output_size * p.axes[2].output_size
        p.blocks = blocks_of(p.axes)
        p.total = p.blocks * p.sizes.images * p.sizes.groups
        p.isa, p.queue = isa, shared
        fc_check(parts.shape[1] == PART_COLUMNS)
        fc_check(p.sizes.segments * 7 + 2 * p.sizes.sweeps * 6 <= lists.shape[1])
        if floating is float:
            fc_parallel_for(shared, product_of_float, &p)
        else:
            fc_parallel_for(shared, product_of_double, &p)


cdef void product_of_float(void* task) noexcept nogil:
    products_worker(<const Product*> task, <float*> NULL)


cdef void product_of_double(void* task) noexcept nogil:
    products_worker(<const Product*> task, <double*> NULL)


cdef void products_worker(const Product* p, floating* dtype) noexcept nogil:
    """Compute chunks of blocks until none are left."""
    cdef const Sizes* s = &p.sizes
    cdef const ConvAxis* axes = &p.axes[0]
    cdef int isa = p.isa, which = 0 if floating is float else 1
    cdef fc_pad_t pad = fc_depthwise_for(which, isa).pad
    cdef Block block
    cdef Stage[2] stages
    cdef Stage* stage
    cdef Py_ssize_t filled = -1, count = 0, blocks = p.blocks, index, end, plane, part, row, channel, group, first
    cdef fc_worker worker = fc_new_worker(p.queue)
    cdef Py_ssize_t worker_id = worker.id, grain = p.queue.grain, begin = fc_next_chunk(p.queue, &worker, p.total)
    cdef const floating* source = <const floating*> p.source
    cdef const floating* w = <const floating*> p.w
    cdef const floating* bias = <const floating*> p.bias
    cdef floating* result = <floating*> p.result
    cdef floating* space = <floating*> p.space + worker_id * p.space_pitch
    cdef fc_copy_segment* segments = <fc_copy_segment*> (p.lists + worker_id * p.lists_pitch)
    if begin >= p.total:
        return
    fc_check(worker_id < p.workspaces)
    stages[0].sweeps = <Sweep*> (segments + s.segments)
    stages[1].sweeps = stages[0].sweeps + s.sweeps
    stages[0].part = stages[1].part = -1
    while begin < p.total:
        plane, part = begin // blocks, begin % blocks
        end = min(begin + grain, p.total)
        # Copy the next block before summing this one. A load that reads the data of several recent stores has to wait
        # until these stores have left the store buffer.
        for index in range(begin, end + 1):
            if index < end:
                stage = &stages[index % 2]
                stage.plane = plane
                if filled != part or stage.part != part:
                    place_block(&block, part, axes)
                if filled != part:
                    filled = part
                    count = list_segments(segments, axes, &block)
                    fc_check(count <= s.segments)
                if stage.part != part:
                    stage.part = part
                    stage.count = list_sweeps(
                        stage.sweeps, s, axes, &block, p.parts, p.parts_count, fc_isa_lanes(which, isa)
                    )
                    fc_check(stage.count <= s.sweeps)
                for channel in range(s.channels):
                    first = (plane * s.channels + channel) * p.volume
                    pad(space + index % 2 * s.scatter_at + channel * s.channel_pitch, axes[1].pitch, segments,
                        count, source + first, axes[1].stride * axes[2].size, axes[2].stride, p.sources - first)
                part += 1
                if part == blocks:
                    part = 0
                    plane += 1
            if index > begin:
                stage = &stages[(index - 1) % 2]
                group = stage.plane % s.groups
                for row in range(s.rows):
                    sum_row(
                        p, w + group * p.group_step + row * s.row_step,
                        <const floating*> NULL if bias is NULL else bias + group * s.rows + row,
                        result + (stage.plane * s.rows + row) * p.positions, stage,
                        space + (index - 1) % 2 * s.scatter_at, space + 2 * s.scatter_at,
                    )
        begin = fc_next_chunk(p.queue, &worker, p.total)


cdef inline void read_taps(fc_taps* taps, const Product* p, Py_ssize_t part, const void* w) noexcept nogil:
    cdef const Py_ssize_t* row = p.parts + part * PART_COLUMNS
    taps.k, taps.high, taps.step = row[PART_K], row[PART_HIGH], row[PART_STEP]
    taps.at, taps.of = p.at + row[PART_AT], p.places + row[PART_AT]
    taps.w, taps.pitch = w, p.axes[1].pitch


cdef void sum_row(
    const Product* p, const floating* w, const floating* bias, floating* result, const Stage* stage,
    const floating* patch, floating* scattered,
) noexcept nogil:
    """Compute one row of the result in the block of a stage, sweep by sweep. A row is a filter or, for dx, a channel.
    """
    cdef const ConvAxis* h = &p.axes[1]
    cdef const ConvAxis* x = &p.axes[2]
    cdef const Sweep* sweep
    cdef int isa = p.isa, dtype = 0 if floating is float else 1
    cdef fc_taps a, b
    cdef Py_ssize_t i, oh, ow
    cdef floating* to
    for i in range(stage.count):
        sweep = &stage.sweeps[i]
        read_taps(&a, p, sweep.part, w)
        a.to_pitch = h.output_stride * x.output_size
        to = result + sweep.to
        if p.sizes.paired:
            read_taps(&b, p, sweep.part + 1, w)
            fc_depthwise_for(dtype, isa).sweep_pair(
                &a, &b, patch + sweep.source, to, sweep.rows, sweep.n, bias, sweep.whole,
            )
        elif x.output_stride == 1:
            fc_depthwise_for(dtype, isa).sweep(&a, patch + sweep.source, to, sweep.rows, sweep.n, bias, sweep.whole)
        else:
            a.to_pitch = sweep.n
            fc_depthwise_for(dtype, isa).sweep(&a, patch + sweep.source, scattered, sweep.rows, sweep.n, bias,
                                               sweep.rows)
            for oh in range(sweep.rows):
                for ow in range(sweep.n):
                    to[oh * h.output_stride * x.output_size + ow * x.output_stride] = scattered[oh * sweep.n + ow]


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
    # The distance between the two blocks of a workspace. A buffer for a copy of dout follows the blocks.
    Py_ssize_t dout_at
    Py_ssize_t totals_at      # the offset of the sums in a workspace


cdef inline WeightSizes read_weight_sizes(const Py_ssize_t[::1] table) noexcept nogil:
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


def weights(
    const floating[::1] source, const floating[::1] dout, floating[:, ::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[:, ::1] phases, const Py_ssize_t[::1] sizes,
    const Py_ssize_t[::1] at, const Py_ssize_t[::1] places, floating[:, ::1] space, Py_ssize_t[:, ::1] lists,
    int isa, queue,
):
    """Compute the gradient of the weights in partial sums. result[p] is the sum over the blocks p, p + parts,
    p + 2 * parts, and so on. Blocks are counted over all images, and `parts` is the number of partial sums.
    """
    cdef Weights t
    cdef fc_work_queue* shared = work_queue(queue)
    with nogil:
        t.sizes = read_weight_sizes(sizes)
        read_conv_axes(t.axes, &axes[0, 0], &phases[0, 0], phases.shape[1])
        t.source, t.sources = <const void*> &source[0], source.shape[0]
        t.dout, t.douts = <const void*> &dout[0], dout.shape[0]
        t.result, t.result_pitch = <void*> &result[0, 0], result.shape[1]
        t.at, t.places = &at[0], &places[0]
        t.space, t.space_pitch = <void*> &space[0, 0], space.shape[1]
        t.lists, t.lists_pitch = &lists[0, 0], lists.shape[1]
        t.workspaces = min(space.shape[0], lists.shape[0])
        t.volume = t.axes[0].size * t.axes[1].size * t.axes[2].size
        t.blocks = blocks_of(t.axes)
        t.total = t.sizes.parts * ((t.sizes.groups + t.sizes.block_groups - 1) // t.sizes.block_groups)
        t.isa, t.queue = isa, shared
        if floating is float:
            fc_parallel_for(shared, weights_of_float, &t)
        else:
            fc_parallel_for(shared, weights_of_double, &t)


cdef void weights_of_float(void* task) noexcept nogil:
    weights_worker(<const Weights*> task, <float*> NULL)


cdef void weights_of_double(void* task) noexcept nogil:
    weights_worker(<const Weights*> task, <double*> NULL)


cdef void weights_worker(const Weights* t, floating* dtype) noexcept nogil:
    """Compute the gradients of blocks of groups until none are left."""
    cdef const WeightSizes* s = &t.sizes
    cdef const ConvAxis* axes = &t.axes[0]
    cdef int isa = t.isa, which = 0 if floating is float else 1
    cdef fc_pad_t pad = fc_depthwise_for(which, isa).pad
    cdef Block block
    cdef Py_ssize_t lanes = fc_isa_lanes(which, isa), taps = s.k * s.high, step = s.filters * s.channels * taps
    cdef Py_ssize_t filled = -1, count = 0, group, groups, part, piece, g, i, first, channel, plane
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.total)
    cdef const floating* source = <const floating*> t.source
    cdef floating* space = <floating*> t.space + worker_id * t.space_pitch
    cdef floating* totals = space + s.totals_at
    cdef fc_copy_segment* segments = <fc_copy_segment*> (t.lists + worker_id * t.lists_pitch)
    fc_check(worker_id < t.workspaces or index >= t.total)
    while index < t.total:
        part = unravel_block(&group, &groups, index, s.groups, s.block_groups)
        for i in range(groups * step * lanes):
            totals[i] = 0
        piece = part
        while piece < s.images * t.blocks and not fc_stopped(t.queue):
            block.image = piece // t.blocks
            if filled != piece % t.blocks:
                filled = piece % t.blocks
                place_block(&block, filled, axes)
                count = list_segments(segments, axes, &block)
                fc_check(count * 7 <= t.lists_pitch)
            # Copy the next block before summing this one, as in `products_worker`.
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
            piece += s.parts
        fc_depthwise_for(which, isa).lanes(
            totals, groups * step, taps, t.places, <floating*> t.result + part * t.result_pitch + group * step
        )
        index = fc_next_item(t.queue, t.total)


cdef void contract(
    const Weights* t, Py_ssize_t row, const Block* b, const floating* patch, floating* copied, floating* totals,
    Py_ssize_t lanes,
) noexcept nogil:
    """Add the sums of one block of one group to `totals`, for each pair of a filter and a channel. `row` is the index
    of the first filter of the group in dout, counted over all images.
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
                # Copy the rows of dout, because a vector would read past the end of dout.
                taps.to_pitch = b.n[2]
                for i in range(b.n[1] * b.n[2]):
                    copied[i] = rows[i // b.n[2] * axes[2].out + i % b.n[2]]
                rows = copied
            for c in range(s.channels):
                fc_depthwise_for(dtype, t.isa).dots(
                    &taps, patch + c * s.channel_pitch + od * axes[0].pitch, rows, b.n[1], b.n[2],
                    totals + (f * s.channels + c) * s.k * s.high * lanes,
                )
