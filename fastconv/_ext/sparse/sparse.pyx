"""Convolution with pruned weights. For each nonzero weight, the kernels multiply rows of the image by the weight, and
add the products to a tile of the result in registers.

A block of the padded image is divided into equal parts, one for each lane of a vector. The block is stored "in lanes":
vector i holds element i of every part. So the offset between two taps is a whole number of vectors. An output row
consists of the same row of results of every part, stored as vectors.

A row block is a group of rows of the weight matrix that are processed together. A first call lists the nonzero weights
of some row blocks, and a second call multiplies by these weights. fastconv.convolution.sparse divides the work into
work items, and makes all tables that this module reads.
"""

from libc.stdint cimport int32_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div, unravel_block
from fastconv._ext.gemm.microkernel cimport Kernels, kernels
from fastconv._ext.packing.patches cimport Block, ConvAxis, fill, read_conv_axes
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.sparse.kernels cimport (
    FC_LIST_SPARE, fc_add_rows_t, fc_clear_t, fc_dot_rows_t, fc_from_lanes_t, fc_gradient_to_lanes_t, fc_isa_lanes,
    fc_nonzeros_list, fc_prefetch_rows, fc_row_location, fc_sparse_for, fc_sparse_sums, fc_to_lanes_t, fc_weights,
)
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_next_item, fc_parallel_for, fc_stopped, fc_work_queue, fc_worker, fc_worker_id,
    work_queue,
)


cdef enum:
    LINE = 64        # The size of a cache line in bytes. It is also the size of the largest vector.
    MOST_LANES = 16  # The largest number of lanes of a vector.


def shape(int dtype, int isa, bint dots):
    """Return the number of lanes of a vector, and the largest number of vectors of a tile. `dtype` is 0 (float32) or 1
    (float64). If `dots` is set, the tile is one of the kernels that compute the gradient of the weights.
    """
    return fc_isa_lanes(dtype, isa), fc_sparse_sums(isa, dots)


#: The largest number of elements that a kernel may write past the end of a list of nonzero weights.
spare = FC_LIST_SPARE


# The sizes of a call, in the order of the table that fastconv.convolution.sparse.tables makes. Distances are in
# elements, and offsets are in bytes.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t rows             # the number of filters of a group or, for dx, of channels of a group
    Py_ssize_t row_step         # the distance between two rows of the weight matrix
    Py_ssize_t block_rows       # the number of rows of a row block
    Py_ssize_t channels         # the number of channels of the source in a group
    Py_ssize_t channel_step     # the distance between the weights of two channels
    Py_ssize_t block_channels   # the number of channels that are copied to vectors before they are multiplied
    Py_ssize_t taps             # the number of taps of the kernel
    Py_ssize_t patch_image      # the distance between two images in the padded block
    Py_ssize_t channel_pitch    # the distance between two channels in the vectors of a block
    Py_ssize_t row_pitch        # the distance between two rows in the vectors of a block
    Py_ssize_t copy_rows        # the number of rows that one call of the copying kernel copies to vectors
    Py_ssize_t copies           # the number of calls of the copying kernel for one channel
    Py_ssize_t out_rows         # the number of output rows of one part of a block
    Py_ssize_t out_width        # the number of results of one output row; each result takes one lane of a vector
    Py_ssize_t tiles            # the number of tiles into which the results of a block are divided
    Py_ssize_t lane_images      # the number of images of a block; no two images share a lane
    Py_ssize_t[3] lane_parts    # the number of parts of a block along each axis; each lane holds one part
    Py_ssize_t[3] part          # the number of results of one part along each axis
    Py_ssize_t lanes_at         # the offset of the copied vectors in the workspace of a thread, in bytes
    Py_ssize_t sums_at          # the offset of the sums in the workspace of a thread, in bytes
    Py_ssize_t locations_at     # the offset of the array of fc_row_location in the workspace of a thread, in bytes
    # The lists of nonzero weights: there is one fc_nonzeros_list for each row block and each block of channels.
    Py_ssize_t list_offsets_at  # the offset of `offsets` from the start of a fc_nonzeros_list, in bytes
    Py_ssize_t list_values_at   # the offset of `values` from the start of a fc_nonzeros_list, in bytes
    Py_ssize_t list_pitch       # the distance between two structs fc_nonzeros_list, in bytes


cdef inline Sizes read_sizes(const Py_ssize_t* t) noexcept nogil:
    cdef Sizes s
    cdef Py_ssize_t i
    s.images, s.groups, s.rows, s.row_step, s.block_rows = t[0], t[1], t[2], t[3], t[4]
    s.channels, s.channel_step, s.block_channels, s.taps = t[5], t[6], t[7], t[8]
    s.patch_image, s.channel_pitch, s.row_pitch, s.copy_rows = t[9], t[10], t[11], t[12]
    s.copies, s.out_rows, s.out_width, s.tiles, s.lane_images = t[13], t[14], t[15], t[16], t[17]
    for i in range(3):
        s.lane_parts[i], s.part[i] = t[18 + i], t[21 + i]
    s.lanes_at, s.sums_at, s.locations_at = t[24], t[25], t[26]
    s.list_offsets_at, s.list_values_at, s.list_pitch = t[27], t[28], t[29]
    return s


# The arguments of a call of `product`. All threads of the call read them.
cdef struct Task:
    const void* source
    const void* w
    const void* bias
    void* result
    # For each weight: the offset, in vectors, of the image element that the weight multiplies, or -1 if the weight is
    # not used.
    const int32_t* tap_offsets
    # Two offsets for each call of the kernel that copies rows to vectors: the first in the vectors, the second in the
    # padded block.
    const Py_ssize_t* copies
    # For each output row: the offset of the first copied vector that the row reads.
    const Py_ssize_t* row_offsets
    # Four numbers for each tile: its number of rows, its number of vectors per row, its first row, its first vector.
    const Py_ssize_t* tiles
    char* lists
    char* space
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    Py_ssize_t first_row_block  # the index of the first row block of this call
    Py_ssize_t row_blocks       # the number of row blocks of this call
    Py_ssize_t items
    Py_ssize_t volume           # the number of cells of a channel of the source
    Py_ssize_t positions        # the number of cells of a channel of the result
    Py_ssize_t group_step       # the distance between the weights of two groups, in elements
    Py_ssize_t itemsize
    fc_work_queue* queue
    # For each offset of an image element: the offset, in a row of weights, of the weight that multiplies this element.
    const int32_t* weight_at
    Py_ssize_t parts            # the number of partial sums of the gradient; 0 if no gradient is computed
    Py_ssize_t blocks           # the number of blocks of the result
    int dtype
    int isa
    Sizes sizes
    ConvAxis[3] axes
    Kernels kernel


cdef enum Step:
    PRUNE     # List the nonzero weights.
    MULTIPLY  # Multiply by the listed weights.
    DOTS      # Compute the gradient of the listed weights, and store it in place of the weights.
    SCATTER   # Copy the gradient from the lists to dw.


cdef inline fc_nonzeros_list lists_at(char* at, const Sizes* s) noexcept nogil:
    cdef fc_nonzeros_list lists
    lists.rows = <int32_t*> at
    lists.counts = lists.rows + s.block_rows
    lists.offsets = <int32_t*> (at + s.list_offsets_at)
    lists.values = at + s.list_values_at
    return lists


cdef inline char* align_up(void* at) noexcept nogil:
    return <char*> ((<Py_ssize_t> at + LINE - 1) // LINE * LINE)


def product(
    int dtype, source, w, bias, result, axes, phases, sizes, tap_offsets, copies, row_offsets, tiles, space,
    Py_ssize_t lists_bytes, Py_ssize_t space_pitch, Py_ssize_t first_row_block, Py_ssize_t row_blocks, weight_at,
    Py_ssize_t parts, int step, int isa, queue,
):
    """Run one step (a value of `Step`) for `row_blocks` row blocks of the weight matrix, starting with row block
    `first_row_block`.

    To compute result = w @ columns(source) + bias, run PRUNE, then MULTIPLY. `bias` may be None. To compute the
    gradient of the nonzero weights, run PRUNE, DOTS and SCATTER. In DOTS, the argument `result` is dout; in SCATTER, it
    is dw. The gradient is computed as `parts` partial sums, which SCATTER adds up. The arrays are of `dtype`, 0
    (float32) or 1 (float64). The workspace `space` starts with `lists_bytes` bytes for the lists of nonzero weights.
    Each thread has `space_pitch` bytes after the lists.
    """
    cdef Task t
    cdef Py_ssize_t i, itemsize = 8 if dtype else 4
    cdef Py_ssize_t* of_axes = index_pointer(axes)
    cdef Py_ssize_t* of_sizes = index_pointer(sizes)
    cdef Buffer sources = contiguous_buffer(source, itemsize, False)
    cdef Buffer results = contiguous_buffer(result, itemsize, step == MULTIPLY or step == SCATTER)
    cdef Buffer weights = contiguous_buffer(w, itemsize, False), workspace = contiguous_buffer(space, 1, True)
    cdef Buffer of_phases = contiguous_buffer(phases, sizeof(Py_ssize_t), False)
    cdef Buffer offsets = contiguous_buffer(tap_offsets, sizeof(int32_t), False)
    t.source, t.w, t.result = sources.at, weights.at, results.at
    t.bias = NULL if bias is None else contiguous_buffer(bias, itemsize, False).at
    t.tap_offsets, t.copies = <const int32_t*> offsets.at, index_pointer(copies)
    t.row_offsets, t.tiles = index_pointer(row_offsets), index_pointer(tiles)
    t.lists = align_up(workspace.at)
    t.space, t.space_pitch = t.lists + lists_bytes, space_pitch
    t.workspaces = (workspace.n - lists_bytes - LINE) // space_pitch
    t.first_row_block, t.row_blocks, t.itemsize, t.dtype, t.isa = first_row_block, row_blocks, itemsize, dtype, isa
    t.queue, t.parts, t.blocks = work_queue(queue), parts, 1
    t.weight_at = <const int32_t*> contiguous_buffer(weight_at, sizeof(int32_t), False).at
    with nogil:
        t.sizes = read_sizes(of_sizes)
        read_conv_axes(t.axes, of_axes, <Py_ssize_t*> of_phases.at, of_phases.n // 3)
        t.kernel = kernels(dtype, isa)
        t.volume = t.axes[0].size * t.axes[1].size * t.axes[2].size
        t.positions = t.axes[0].output_size * t.axes[1].output_size * t.axes[2].output_size
        t.group_step = weights.n // t.sizes.groups
        fc_check(sources.n == t.sizes.images * t.sizes.groups * t.sizes.channels * t.volume)
        fc_check(step == SCATTER or results.n == t.sizes.images * t.sizes.groups * t.sizes.rows * t.positions)
        fc_check(offsets.n == t.sizes.block_channels * t.sizes.taps)
        t.blocks = ceil_div(t.sizes.images, t.sizes.lane_images)
        for i in range(3):
            t.blocks *= ceil_div(t.axes[i].out, t.axes[i].block)
        t.items = row_blocks * ceil_div(t.sizes.channels, t.sizes.block_channels)
        fc_check(t.items * t.sizes.list_pitch <= lists_bytes)
        if step == PRUNE:
            fc_parallel_for(t.queue, prune_all, &t)
        elif step == SCATTER:
            fc_parallel_for(t.queue, scatter_of_double if dtype else scatter_of_float, &t)
        else:
            t.items = row_blocks * (t.blocks if step == MULTIPLY else parts)
            fc_parallel_for(t.queue, product_of_double if dtype else product_of_float, &t)


cdef void prune_all(void* task) noexcept nogil:
    """Process work items until none are left. For each work item, list the nonzero weights of a row block in a block of
    channels.
    """
    cdef const Task* t = <const Task*> task
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.items), row, channel, channels
    cdef fc_nonzeros_list space = lists_at(t.space + worker_id * t.space_pitch, s), to
    cdef fc_weights weights
    fc_check(worker_id < t.workspaces)
    weights.tap_offsets, weights.row_step, weights.run_step = t.tap_offsets, s.row_step, s.channel_step
    while index < t.items:
        to = lists_at(t.lists + index * s.list_pitch, s)
        row = t.first_row_block + unravel_block(&channel, index, s.channels, s.block_channels)
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
    """Process work items until none are left. For MULTIPLY, a work item is one row block in one block of the
    result. For DOTS, a work item is one row block in all blocks of the result that contribute to one partial sum.
    """
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.items), row_block, i
    cdef Py_ssize_t block_index, left
    cdef Block block
    cdef char* space = t.space + worker_id * t.space_pitch
    fc_check(worker_id < t.workspaces)
    while index < t.items:
        row_block = index % t.row_blocks
        block_index = index // t.row_blocks
        while block_index < t.blocks and not fc_stopped(t.queue):
            left = block_index
            for i in range(2, -1, -1):
                left = unravel_block(&block.begin[i], left, t.axes[i].out, t.axes[i].block)
                block.n[i] = t.axes[i].block
            block.image = left * s.lane_images
            block.images = min(s.lane_images, s.images - block.image)
            multiply(t, row_block, index // t.row_blocks, block_index, &block, <floating*> space, space)
            block_index += t.parts if t.parts else t.blocks
        index = fc_next_item(t.queue, t.items)


cdef void scatter_of_float(void* task) noexcept nogil:
    scatter_worker(<const Task*> task, <float*> NULL)


cdef void scatter_of_double(void* task) noexcept nogil:
    scatter_worker(<const Task*> task, <double*> NULL)


cdef void scatter_worker(const Task* t, floating* dtype) noexcept nogil:
    """Add up the partial sums of the gradient, which are in the lists of nonzero weights, and write the sums to dw."""
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t index = fc_next_item(t.queue, t.items), row, channel, i, j, part, rows
    cdef Py_ssize_t pitch = s.list_pitch - s.list_values_at
    cdef fc_nonzeros_list lists
    cdef const floating* val
    cdef floating* dw
    cdef floating total
    fc_worker_id(t.queue)
    while index < t.items:
        lists = lists_at(t.lists + index * s.list_pitch, s)
        row = t.first_row_block + unravel_block(&channel, index, s.channels, s.block_channels)
        dw = <floating*> t.result + unravel_block(&row, row, s.rows, s.block_rows) * t.group_step
        dw = dw + row * s.row_step + channel * s.channel_step
        rows = min(s.block_rows, s.rows - row)
        val = <const floating*> lists.values
        for i in range(rows):
            for j in range(lists.counts[i]):
                total = 0
                for part in range(t.parts):
                    total += (<const floating*> (<const char*> &val[j] + part * (pitch // t.parts)))[0]
                dw[lists.rows[i] * s.row_step + t.weight_at[lists.offsets[j]]] = total
            val = val + lists.counts[i]
            lists.offsets = lists.offsets + lists.counts[i]
        index = fc_next_item(t.queue, t.items)


cdef void set_lane_offsets(Py_ssize_t* at, const Sizes* s, const ConvAxis* axes, const Block* block) noexcept nogil:
    """Set the offset of each lane in the padded block. If the block has fewer than `lane_images` images, the
    lanes of the missing images get the offsets of the last image.
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


cdef void set_row_locations(
    fc_row_location* locations, const Sizes* s, const ConvAxis* axes, const Block* block, Py_ssize_t image_step
) noexcept nogil:
    """Set the location, in the result, of each output row of each lane."""
    cdef const ConvAxis* axis
    cdef Py_ssize_t[3] o
    cdef Py_ssize_t lane, row, n, d, h, w, left
    cdef Py_ssize_t lanes = s.lane_images * s.lane_parts[0] * s.lane_parts[1] * s.lane_parts[2]
    cdef fc_row_location* location
    for row in range(s.out_rows):
        lane = 0
        for n in range(s.lane_images):
            for d in range(s.lane_parts[0]):
                o[0] = block.begin[0] + d * s.part[0] + row // s.part[1]
                for h in range(s.lane_parts[1]):
                    o[1] = block.begin[1] + h * s.part[1] + row % s.part[1]
                    for w in range(s.lane_parts[2]):
                        o[2] = block.begin[2] + w * s.part[2]
                        location = &locations[row * lanes + lane]
                        lane += 1
                        location.offset = location.count = 0
                        left = min(s.part[2], axes[2].out - o[2])
                        if n < block.images and o[0] < axes[0].out and o[1] < axes[1].out and left > 0:
                            axis = &axes[0]
                            location.count = left
                            location.offset = (
                                (block.image + n) * image_step
                                + ((axis.output_offset + o[0] * axis.output_stride) * axes[1].output_size
                                   + axes[1].output_offset
                                   + o[1] * axes[1].output_stride) * axes[2].output_size
                                + axes[2].output_offset + o[2] * axes[2].output_stride
                            )


cdef void prefetch_channel(const Task* t, const floating* plane, Py_ssize_t image_step,
                           const Block* block) noexcept nogil:
    """Prefetch the elements that a block reads in the next channel, because the rows of a block are too short for
    the hardware prefetcher. `plane` points to the next channel of image 0.
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
    cdef floating* val = <floating*> lists.values
    for i in range(rows):
        for j in range(lists.counts[i]):
            val[at + j] = 0
        at += lists.counts[i]


cdef void multiply(
    const Task* t, Py_ssize_t row_block, Py_ssize_t part, Py_ssize_t block_index, const Block* block, floating* dtype,
    char* space,
) noexcept nogil:
    """Compute one block of the result for one row block. For each block of channels, copy the channels to vectors, and
    add their products with the weights to the sums.

    For DOTS, first copy the rows of dout to vectors. Then multiply the rows of dout by the copied channels, and add the
    products to the partial sum with index `part`. The partial sums are stored in the lists of nonzero weights.
    """
    cdef const Sizes* s = &t.sizes
    cdef Py_ssize_t lanes = fc_isa_lanes(t.dtype, t.isa)
    cdef Py_ssize_t[MOST_LANES] lane_at
    cdef Py_ssize_t first_row, group = unravel_block(&first_row, t.first_row_block + row_block, s.rows, s.block_rows)
    cdef Py_ssize_t rows = min(s.block_rows, s.rows - first_row), channel, here, c, i, k, row
    cdef Py_ssize_t image_step = s.groups * s.channels * t.volume, count = ceil_div(s.channels, s.block_channels)
    cdef Py_ssize_t pitch = s.out_rows * s.out_width * lanes
    cdef floating* patch = <floating*> space
    cdef floating* cells = <floating*> (space + s.lanes_at)
    cdef floating* sums = <floating*> (space + s.sums_at)
    cdef fc_row_location* locations = <fc_row_location*> (space + s.locations_at)
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
    set_lane_offsets(lane_at, s, t.axes, block)
    set_row_locations(locations, s, t.axes, block, s.groups * s.rows * t.positions)
    if t.parts:
        for row in range(rows):
            missing = gradient_to_lanes(
                sums + row * pitch, mask if row == 0 else NULL, to + row * t.positions, locations, s.out_rows,
                s.out_width,
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
                    cells + c * s.channel_pitch + t.copies[2 * k], s.row_pitch, patch + t.copies[2 * k + 1],
                    t.axes[1].pitch, lane_at, s.copy_rows, t.axes[2].halo + s.out_width,
                )
        lists = lists_at(t.lists + (row_block * count + i) * s.list_pitch, s)
        if t.parts:
            lists.values = <char*> lists.values + part * ((s.list_pitch - s.list_values_at) // t.parts)
            if block_index == part:
                zero_lists(&lists, rows, dtype)
        for k in range(s.tiles):
            tile = t.tiles + 4 * k
            if t.parts:
                dot_rows(
                    <int> tile[0], <int> tile[1], cells + tile[3] * lanes, t.row_offsets + tile[2], &lists, rows,
                    sums + (tile[2] * s.out_width + tile[3]) * lanes, pitch, s.out_width * lanes,
                    mask + (tile[2] * s.out_width + tile[3]) * lanes * t.itemsize if missing else NULL,
                )
                continue
            add_rows(
                <int> tile[0], <int> tile[1], cells + tile[3] * lanes, t.row_offsets + tile[2], &lists, rows,
                sums + (tile[2] * s.out_width + tile[3]) * lanes, pitch, s.out_width * lanes, initial, i > 0,
            )
    if t.parts:
        return
    for row in range(rows):
        from_lanes(to + row * t.positions, locations, t.axes[2].output_stride, sums + row * pitch, s.out_rows,
                   s.out_width, t.positions if row + 1 < rows else 0)


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
    """Set dw to 0 where w is 0. The arrays are divided into `items` equal parts, one for each work item."""
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
