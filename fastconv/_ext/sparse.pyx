"""Convolution with pruned weights: each nonzero weight scales rows of the image, which are added to tiles in registers.

A block of the padded image is divided into equal parts, one for each lane of a vector. The block is copied "in lanes":
each vector holds the same cell of all parts. So every tap is an offset of whole vectors. A line is a row of results of
a part, in all lanes.

A set is a number of rows of weights that are listed and multiplied together. A first call lists the nonzero weights of
some sets, and a second call multiplies by these weights. fastconv.convolution.sparse divides the work into items, and
makes all tables that are read here.
"""

from libc.stdint cimport int32_t

from fastconv._ext.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.blocks cimport ceil_div, unravel_block
from fastconv._ext.microkernel cimport Kernels, kernels
from fastconv._ext.patches cimport Block, ConvAxis, fill, read_conv_axes
from fastconv._ext.runs cimport fc_check, floating
from fastconv._ext.sparse_kernels cimport (
    FC_LIST_SPARE, fc_add_rows_t, fc_clear_t, fc_dot_rows_t, fc_from_lanes_t, fc_gradient_to_lanes_t, fc_isa_lanes,
    fc_nonzeros_list, fc_prefetch_rows, fc_sparse_for, fc_sparse_sums, fc_target, fc_to_lanes_t, fc_weights,
)
from fastconv._ext.team cimport (
    fc_new_worker, fc_next_chunk, fc_next_item, fc_parallel_for, fc_stopped, fc_work_queue, fc_worker, fc_worker_id,
    work_queue,
)


cdef enum:
    LINE = 64        # The number of bytes of a cache line, and of the largest vector.
    MOST_LANES = 16  # The largest number of lanes of a vector.


def shape(int dtype, int isa, bint dots):
    """Return the number of lanes of a vector, and the largest number of vectors of a tile. `dtype` is 0 (float32) or 1
    (float64). `dots` selects the kernels of the gradient of the weights.
    """
    return fc_isa_lanes(dtype, isa), fc_sparse_sums(isa, dots)


#: The largest number of elements that a kernel may write past the end of a list.
spare = FC_LIST_SPARE


# The sizes of a call, in the order of the table that fastconv.convolution.sparse.tables makes. Steps and pitches are in
# elements.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t rows            # the number of rows of the result in a group: its filters or, for dx, its channels
    Py_ssize_t row_step        # the distance between the weights of two rows
    Py_ssize_t block_rows      # the number of rows of a set
    Py_ssize_t channels        # the number of channels of the source in a group
    Py_ssize_t channel_step    # the distance between the weights of two channels
    Py_ssize_t block_channels  # the number of channels that are copied to lanes before they are multiplied
    Py_ssize_t taps            # the number of taps of the whole kernel
    Py_ssize_t patch_image     # the distance between two images in the padded block
    Py_ssize_t channel_pitch   # the distance between two channels of the block in lanes
    Py_ssize_t line_pitch      # the distance between two lines of the block in lanes
    Py_ssize_t copy_lines      # the number of lines of a group that is copied to lanes by one call of the kernel
    Py_ssize_t copies          # the number of such groups of lines
    Py_ssize_t lines           # the number of lines of results
    Py_ssize_t wide            # the number of results of a line, in each lane
    Py_ssize_t tiles           # the number of tiles of the results of a block
    Py_ssize_t lane_images     # the number of parts of a block along the images
    Py_ssize_t[3] lane_parts   # the number of parts of a block along each axis
    Py_ssize_t[3] part         # the number of results of a part along each axis
    Py_ssize_t lanes_at        # the offset of the block in lanes in the workspace of a thread, in bytes
    Py_ssize_t sums_at         # the offset of the sums in the workspace of a thread, in bytes
    Py_ssize_t targets_at      # the offset of the array of fc_target in the workspace of a thread, in bytes
    # Each pair of a set and a block of channels has its own lists.
    Py_ssize_t list_off        # the offset of `off` in the lists of such a pair, in bytes
    Py_ssize_t list_val        # the offset of `val` in the lists of such a pair, in bytes
    Py_ssize_t list_pitch      # the distance between the lists of two such pairs, in bytes


cdef inline Sizes read_sizes(const Py_ssize_t* t) noexcept nogil:
    cdef Sizes s
    cdef Py_ssize_t i
    s.images, s.groups, s.rows, s.row_step, s.block_rows = t[0], t[1], t[2], t[3], t[4]
    s.channels, s.channel_step, s.block_channels, s.taps = t[5], t[6], t[7], t[8]
    s.patch_image, s.channel_pitch, s.line_pitch, s.copy_lines = t[9], t[10], t[11], t[12]
    s.copies, s.lines, s.wide, s.tiles, s.lane_images = t[13], t[14], t[15], t[16], t[17]
    for i in range(3):
        s.lane_parts[i], s.part[i] = t[18 + i], t[21 + i]
    s.lanes_at, s.sums_at, s.targets_at = t[24], t[25], t[26]
    s.list_off, s.list_val, s.list_pitch = t[27], t[28], t[29]
    return s


# The arguments of a call. All threads of the call read them.
cdef struct Task:
    const void* source
    const void* w
    const void* bias
    void* result
    const int32_t* at              # for each weight of a block of channels: its `off`, or -1 (see sparse.h)
    # For each group of lines that is copied to lanes: its offset in the block in lanes, and in the padded block.
    const Py_ssize_t* copies
    const Py_ssize_t* lines        # for each line of results: the offset of its first cell in the block in lanes
    const Py_ssize_t* tiles        # for each tile: the numbers of lines and of results per line, first line and result
    char* lists
    char* space
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    Py_ssize_t first_set           # the index of the first set of this call
    Py_ssize_t sets                # the number of sets of this call
    Py_ssize_t items
    Py_ssize_t volume              # the number of cells of a channel of the source
    Py_ssize_t positions           # the number of cells of a channel of the result
    Py_ssize_t group_step          # the distance between the weights of two groups, in elements
    Py_ssize_t itemsize
    fc_work_queue* queue
    const int32_t* weight_at       # for each `off`: the offset of the weight in its row
    Py_ssize_t parts               # the number of partial sums of DOTS; 0 for MULTIPLY
    Py_ssize_t places              # the number of blocks
    int dtype
    int isa
    Sizes sizes
    ConvAxis[3] axes
    Kernels kernel


cdef enum Step:
    PRUNE      # List the nonzero weights.
    MULTIPLY   # Multiply by the listed weights.
    DOTS       # Compute the gradient of the listed weights, and store it in place of the weights.
    SPREAD     # Copy the gradient from the lists to dw.


cdef inline fc_nonzeros_list lists_at(char* at, const Sizes* s) noexcept nogil:
    cdef fc_nonzeros_list lists
    lists.rows = <int32_t*> at
    lists.counts = lists.rows + s.block_rows
    lists.off = <int32_t*> (at + s.list_off)
    lists.val = at + s.list_val
    return lists


cdef inline char* align_up(void* at) noexcept nogil:
    return <char*> ((<Py_ssize_t> at + LINE - 1) // LINE * LINE)


def product(
    int dtype, source, w, bias, result, axes, phases, sizes, at, copies, lines, tiles, space,
    Py_ssize_t lists_bytes, Py_ssize_t space_pitch, Py_ssize_t first_set, Py_ssize_t sets, weight_at,
    Py_ssize_t parts, int step, int isa, queue,
):
    """Run one step (see `Step`) for `sets` sets of rows, starting with set `first_set`.

    To compute result = w @ columns(source) + bias, call PRUNE and then MULTIPLY. `bias` may be None. To compute the
    gradient of the nonzero weights, call PRUNE, DOTS and SPREAD. `parts` is the number of partial sums, and `result` is
    dout in DOTS and dw in SPREAD. The arrays are of `dtype`, 0 (float32) or 1 (float64). `space` holds the lists
    (`lists_bytes` bytes), and then `space_pitch` bytes for each thread.
    """
    cdef Task t
    cdef Py_ssize_t i, itemsize = 8 if dtype else 4
    cdef Py_ssize_t* of_axes = index_pointer(axes)
    cdef Py_ssize_t* of_sizes = index_pointer(sizes)
    cdef Buffer sources = contiguous_buffer(source, itemsize, False)
    cdef Buffer results = contiguous_buffer(result, itemsize, step == MULTIPLY or step == SPREAD)
    cdef Buffer weights = contiguous_buffer(w, itemsize, False), workspace = contiguous_buffer(space, 1, True)
    cdef Buffer of_phases = contiguous_buffer(phases, sizeof(Py_ssize_t), False)
    cdef Buffer offsets = contiguous_buffer(at, sizeof(int32_t), False)
    t.source, t.w, t.result = sources.at, weights.at, results.at
    t.bias = NULL if bias is None else contiguous_buffer(bias, itemsize, False).at
    t.at, t.copies = <const int32_t*> offsets.at, index_pointer(copies)
    t.lines, t.tiles = index_pointer(lines), index_pointer(tiles)
    t.lists = align_up(workspace.at)
    t.space, t.space_pitch = t.lists + lists_bytes, space_pitch
    t.workspaces = (workspace.n - lists_bytes - LINE) // space_pitch
    t.first_set, t.sets, t.itemsize, t.dtype, t.isa = first_set, sets, itemsize, dtype, isa
    t.queue, t.parts, t.places = work_queue(queue), parts, 1
    t.weight_at = <const int32_t*> contiguous_buffer(weight_at, sizeof(int32_t), False).at
    with nogil:
        t.sizes = read_sizes(of_sizes)
        read_conv_axes(t.axes, of_axes, <Py_ssize_t*> of_phases.at, of_phases.n // 3)
        t.kernel = kernels(dtype, isa)
        t.volume = t.axes[0].size * t.axes[1].size * t.axes[2].size
        t.positions = t.axes[0].output_size * t.axes[1].output_size * t.axes[2].output_size
        t.group_step = weights.n // t.sizes.groups
        fc_check(sources.n == t.sizes.images * t.sizes.groups * t.sizes.channels * t.volume)
        fc_check(step == SPREAD or results.n == t.sizes.images * t.sizes.groups * t.sizes.rows * t.positions)
        fc_check(offsets.n == t.sizes.block_channels * t.sizes.taps)
        t.places = ceil_div(t.sizes.images, t.sizes.lane_images)
        for i in range(3):
            t.places *= ceil_div(t.axes[i].out, t.axes[i].block)
        t.items = sets * ceil_div(t.sizes.channels, t.sizes.block_channels)
        fc_check(t.items * t.sizes.list_pitch <= lists_bytes)
        if step == PRUNE:
            fc_parallel_for(t.queue, prune_all, &t)
        elif step == SPREAD:
            fc_parallel_for(t.queue, spread_of_double if dtype else spread_of_float, &t)
        else:
            t.items = sets * (t.places if step == MULTIPLY else parts)
            fc_parallel_for(t.queue, product_of_double if dtype else product_of_float, &t)


cdef void prune_all(void* task) noexcept nogil:
    """List nonzero weights until none are left. An item is a set of rows and a block of channels."""
    cdef const Task* t = <const Task*> task
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.items), row, channel, channels
    cdef fc_nonzeros_list space = lists_at(t.space + worker_id * t.space_pitch, s), to
    cdef fc_weights weights
    fc_check(worker_id < t.workspaces)
    weights.at, weights.row_step, weights.run_step = t.at, s.row_step, s.channel_step
    while index < t.items:
        to = lists_at(t.lists + index * s.list_pitch, s)
        row = t.first_set + unravel_block(&channel, index, s.channels, s.block_channels)
        channels = min(s.block_channels, s.channels - channel)
        weights.runs, weights.n = channels, s.taps
        if s.channel_step == s.taps:
            weights.runs, weights.n = 1, channels * s.taps
        weights.w = <const char*> t.w + channel * s.channel_step * t.itemsize
        weights.w = <const char*> weights.w + unravel_block(&row, row, s.rows, s.block_rows) * t.group_step * t.itemsize
        weights.w = <const char*> weights.w + row * s.row_step * t.itemsize
        weights.rows = min(s.block_rows, s.rows - row)
        fc_sparse_for(t.dtype, t.isa).prune(&weights, &to, &space)
        index = fc_next_item(t.queue, t.items)


cdef void product_of_float(void* task) noexcept nogil:
    products_worker(<const Task*> task, <float*> NULL)


cdef void product_of_double(void* task) noexcept nogil:
    products_worker(<const Task*> task, <double*> NULL)


cdef void products_worker(const Task* t, floating* dtype) noexcept nogil:
    """Compute items until none are left. An item is a set and, for MULTIPLY, one block. For DOTS, it is a set and all
    blocks of a partial sum.
    """
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.items), chosen, i, place, left
    cdef Block block
    cdef char* space = t.space + worker_id * t.space_pitch
    fc_check(worker_id < t.workspaces)
    while index < t.items:
        chosen = index % t.sets
        place = index // t.sets
        while place < t.places and not fc_stopped(t.queue):
            left = place
            for i in range(2, -1, -1):
                left = unravel_block(&block.begin[i], left, t.axes[i].out, t.axes[i].block)
                block.n[i] = t.axes[i].block
            block.image = left * s.lane_images
            block.images = min(s.lane_images, s.images - block.image)
            multiply(t, chosen, index // t.sets, place, &block, <floating*> space, space)
            place += t.parts if t.parts else t.places
        index = fc_next_item(t.queue, t.items)


cdef void spread_of_float(void* task) noexcept nogil:
    spread(<const Task*> task, <float*> NULL)


cdef void spread_of_double(void* task) noexcept nogil:
    spread(<const Task*> task, <double*> NULL)


cdef void spread(const Task* t, floating* dtype) noexcept nogil:
    """Add up the partial sums of the gradient in the lists, and store the totals in dw."""
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t index = fc_next_item(t.queue, t.items), row, channel, i, j, part, rows
    cdef Py_ssize_t pitch = s.list_pitch - s.list_val
    cdef fc_nonzeros_list lists
    cdef const floating* val
    cdef floating* dw
    cdef floating total
    fc_worker_id(t.queue)
    while index < t.items:
        lists = lists_at(t.lists + index * s.list_pitch, s)
        row = t.first_set + unravel_block(&channel, index, s.channels, s.block_channels)
        dw = <floating*> t.result + unravel_block(&row, row, s.rows, s.block_rows) * t.group_step
        dw = dw + row * s.row_step + channel * s.channel_step
        rows = min(s.block_rows, s.rows - row)
        val = <const floating*> lists.val
        for i in range(rows):
            for j in range(lists.counts[i]):
                total = 0
                for part in range(t.parts):
                    total += (<const floating*> (<const char*> &val[j] + part * (pitch // t.parts)))[0]
                dw[lists.rows[i] * s.row_step + t.weight_at[lists.off[j]]] = total
            val = val + lists.counts[i]
            lists.off = lists.off + lists.counts[i]
        index = fc_next_item(t.queue, t.items)


cdef void place_lanes(Py_ssize_t* at, const Sizes* s, const ConvAxis* axes, const Block* block) noexcept nogil:
    """Set the offset of each lane in the padded block. A lane whose image does not exist gets the last image instead.
    """
    cdef Py_ssize_t lane = 0, n, d, h, w
    for n in range(s.lane_images):
        for d in range(s.lane_parts[0]):
            for h in range(s.lane_parts[1]):
                for w in range(s.lane_parts[2]):
                    at[lane] = (
                        min(n, block.images - 1) * s.patch_image + d * s.part[0] * axes[0].pitch
                        + h * s.part[1] * axes[1].pitch + w * s.part[2]
                    )
                    lane += 1


cdef void place_targets(
    fc_target* targets, const Sizes* s, const ConvAxis* axes, const Block* block, Py_ssize_t image_step
) noexcept nogil:
    """Set the targets of all lines and lanes: see fc_target."""
    cdef const ConvAxis* axis
    cdef Py_ssize_t[3] o
    cdef Py_ssize_t lane, line, n, d, h, w, left
    cdef Py_ssize_t lanes = s.lane_images * s.lane_parts[0] * s.lane_parts[1] * s.lane_parts[2]
    cdef fc_target* target
    for line in range(s.lines):
        lane = 0
        for n in range(s.lane_images):
            for d in range(s.lane_parts[0]):
                o[0] = block.begin[0] + d * s.part[0] + line // s.part[1]
                for h in range(s.lane_parts[1]):
                    o[1] = block.begin[1] + h * s.part[1] + line % s.part[1]
                    for w in range(s.lane_parts[2]):
                        o[2] = block.begin[2] + w * s.part[2]
                        target = &targets[line * lanes + lane]
                        lane += 1
                        target.to = target.n = 0
                        left = min(s.part[2], axes[2].out - o[2])
                        if n < block.images and o[0] < axes[0].out and o[1] < axes[1].out and left > 0:
                            axis = &axes[0]
                            target.n = left
                            target.to = (
                                (block.image + n) * image_step
                                + ((axis.output_offset + o[0] * axis.output_stride) * axes[1].output_size
                                   + axes[1].output_offset
                                   + o[1] * axes[1].output_stride) * axes[2].output_size
                                + axes[2].output_offset + o[2] * axes[2].output_stride
                            )


cdef void prefetch_channel(const Task* t, const floating* plane, Py_ssize_t image_step,
                           const Block* block) noexcept nogil:
    """Prefetch the cells of a block in the next channel. Their rows are too short for the hardware prefetcher. `plane`
    is that channel of image 0.
    """
    cdef const ConvAxis* d = &t.axes[0]
    cdef const ConvAxis* h = &t.axes[1]
    cdef const ConvAxis* w = &t.axes[2]
    cdef Py_ssize_t n, deep, top, left, rows, cells, first = max(0, block.begin[0] * d.stride - d.lo)
    top, left = max(0, block.begin[1] * h.stride - h.lo), max(0, block.begin[2] * w.stride - w.lo)
    rows = min(h.size, (block.begin[1] + block.n[1] + h.halo) * h.stride - h.lo) - top
    cells = min(w.size, (block.begin[2] + block.n[2] + w.halo) * w.stride - w.lo) - left
    for n in range(block.images):
        for deep in range(first, min(d.size, (block.begin[0] + block.n[0] + d.halo) * d.stride - d.lo)):
            fc_prefetch_rows(
                <const char*> (plane + (block.image + n) * image_step + (deep * h.size + top) * w.size + left),
                w.size * sizeof(floating), rows, cells * sizeof(floating),
            )


cdef void zero_lists(const fc_nonzeros_list* lists, Py_ssize_t rows, floating* dtype) noexcept nogil:
    cdef Py_ssize_t i, j, at = 0
    cdef floating* val = <floating*> lists.val
    for i in range(rows):
        for j in range(lists.counts[i]):
            val[at + j] = 0
        at += lists.counts[i]


cdef void multiply(
    const Task* t, Py_ssize_t chosen, Py_ssize_t part, Py_ssize_t place, const Block* block, floating* dtype,
    char* space,
) noexcept nogil:
    """Compute one block for one set of rows: copy some channels to lanes, add their products to the sums, and repeat
    until all channels are done.

    For DOTS, first copy the rows of dout to lanes. Then add the products of dout and the channels to partial sum `part`
    in the lists.
    """
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t lanes = fc_isa_lanes(t.dtype, t.isa)
    cdef Py_ssize_t[MOST_LANES] lane_at
    cdef Py_ssize_t first_row, group = unravel_block(&first_row, t.first_set + chosen, s.rows, s.block_rows)
    cdef Py_ssize_t rows = min(s.block_rows, s.rows - first_row), channel, here, c, i, k, row
    cdef Py_ssize_t image_step = s.groups * s.channels * t.volume, count = ceil_div(s.channels, s.block_channels)
    cdef Py_ssize_t pitch = s.lines * s.wide * lanes
    cdef floating* patch = <floating*> space
    cdef floating* cells = <floating*> (space + s.lanes_at)
    cdef floating* sums = <floating*> (space + s.sums_at)
    cdef fc_target* targets = <fc_target*> (space + s.targets_at)
    cdef const floating* source = <const floating*> t.source + group * s.channels * t.volume
    cdef floating* to = <floating*> t.result + (group * s.rows + first_row) * t.positions
    cdef const floating* initial = NULL
    cdef const Py_ssize_t* tile
    cdef fc_to_lanes_t to_lanes = fc_sparse_for(t.dtype, t.isa).to_lanes
    cdef fc_from_lanes_t from_lanes = fc_sparse_for(t.dtype, t.isa).from_lanes
    cdef fc_add_rows_t add_rows = fc_sparse_for(t.dtype, t.isa).add_rows
    cdef fc_dot_rows_t dot_rows = fc_sparse_for(t.dtype, t.isa).dot_rows
    cdef fc_gradient_to_lanes_t gradient_to_lanes = fc_sparse_for(t.dtype, t.isa).gradient_to_lanes
    cdef char* mask = <char*> (sums + rows * pitch)
    cdef bint missing = False
    cdef fc_nonzeros_list lists
    if t.bias is not NULL:
        initial = <const floating*> t.bias + group * s.rows + first_row
    place_lanes(lane_at, s, t.axes, block)
    place_targets(targets, s, t.axes, block, s.groups * s.rows * t.positions)
    if t.parts:
        for row in range(rows):
            missing = gradient_to_lanes(
                sums + row * pitch, mask if row == 0 else NULL, to + row * t.positions, targets, s.lines, s.wide
            )
    for i in range(count):
        channel = i * s.block_channels
        here = min(s.block_channels, s.channels - channel)
        for c in range(here):
            fill(patch, source + (channel + c) * t.volume, 1, image_step, t.axes, block, 0, s.patch_image, &t.kernel,
                 False)
            if channel + c + 1 < s.channels:
                prefetch_channel(t, source + (channel + c + 1) * t.volume, image_step, block)
            for k in range(s.copies):
                to_lanes(
                    cells + c * s.channel_pitch + t.copies[2 * k], s.line_pitch, patch + t.copies[2 * k + 1],
                    t.axes[1].pitch, lane_at, s.copy_lines, t.axes[2].halo + s.wide,
                )
        lists = lists_at(t.lists + (chosen * count + i) * s.list_pitch, s)
        if t.parts:
            lists.val = <char*> lists.val + part * ((s.list_pitch - s.list_val) // t.parts)
            if place == part:
                zero_lists(&lists, rows, dtype)
        for k in range(s.tiles):
            tile = t.tiles + 4 * k
            if t.parts:
                dot_rows(
                    <int> tile[0], <int> tile[1], cells + tile[3] * lanes, t.lines + tile[2], &lists, rows,
                    sums + (tile[2] * s.wide + tile[3]) * lanes, pitch, s.wide * lanes,
                    mask + (tile[2] * s.wide + tile[3]) * lanes * t.itemsize if missing else NULL,
                )
                continue
            add_rows(
                <int> tile[0], <int> tile[1], cells + tile[3] * lanes, t.lines + tile[2], &lists, rows,
                sums + (tile[2] * s.wide + tile[3]) * lanes, pitch, s.wide * lanes, initial, i > 0,
            )
    if t.parts:
        return
    for row in range(rows):
        from_lanes(to + row * t.positions, targets, t.axes[2].output_stride, sums + row * pitch, s.lines, s.wide,
                   t.positions if row + 1 < rows else 0)


# The arguments of a call of `clear`. All threads of the call read them.
cdef struct Clearing:
    fc_clear_t clear
    const char* w
    char* dw
    Py_ssize_t n
    Py_ssize_t items
    Py_ssize_t itemsize
    fc_work_queue* queue


def clear(int dtype, w, dw, Py_ssize_t items, int isa, queue):
    """Set dw to 0 where w is 0. The arrays are divided into `items` equal parts, which threads share."""
    cdef Clearing t
    cdef Buffer weights, gradients
    t.itemsize = 8 if dtype else 4
    weights, gradients = contiguous_buffer(w, t.itemsize, False), contiguous_buffer(dw, t.itemsize, True)
    t.clear, t.w, t.dw = fc_sparse_for(dtype, isa).clear, <const char*> weights.at, <char*> gradients.at
    t.n, t.items, t.queue = gradients.n, items, work_queue(queue)
    with nogil:
        fc_check(weights.n == gradients.n)
        fc_parallel_for(t.queue, clearings_worker, &t)


cdef void clearings_worker(void* task) noexcept nogil:
    cdef const Clearing* t = <const Clearing*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.items), first, end
    while begin < t.items:
        first, end = begin * t.n // t.items, min(begin + grain, t.items) * t.n // t.items
        t.clear(t.w + first * t.itemsize, t.dw + first * t.itemsize, end - first)
        begin = fc_next_chunk(t.queue, &worker, t.items)
