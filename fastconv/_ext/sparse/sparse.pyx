"""Convolution with pruned weights. For each nonzero weight, the kernels multiply rows of the image by the weight, and
add the products to a tile of the result in registers.

A block of the padded image is divided into equal parts, one for each lane of a vector. The block is stored "in lanes":
vector i holds element i of every part. So the offset between two taps is a whole number of vectors. Output row r
is stored as vectors, too: it holds row r of the results of every part, one part in each lane.

A row block is a group of rows of the weight matrix that are processed together. A plan first lists the nonzero weights
of some row blocks, and then multiplies by these weights. fastconv.convolution.sparse chooses the sizes of all blocks.
"""

from libc.stdint cimport int32_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div, unravel_block
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.gemm.microkernel cimport kernels
from fastconv._ext.packing.patches cimport Block, ConvAxis, fill, set_conv_axes
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.sparse.kernels cimport (
    FC_LIST_SPARE, fc_clear_t, fc_isa_lanes, fc_nonzeros_list, fc_prefetch_rows, fc_row_location, fc_sparse_for,
    fc_sparse_kernels, fc_sparse_sums, fc_weights,
)
from fastconv._ext.sparse.lanes cimport MOST_LANES, Sizes, set_lane_offsets, set_row_locations
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_next_item, fc_parallel_for, fc_serial_queue, fc_stopped, fc_task_function,
    fc_work_queue, fc_worker, fc_worker_id, work_queue,
)


cdef enum:
    PATCH_SPARE = 128  # The number of elements past the end of a padded block that a kernel may read.


def lanes(*, int dtype, int isa):
    """Return the number of elements of a vector, for dtype 0 (float32) or 1 (float64)."""
    return fc_isa_lanes(dtype, isa)


def most_vectors(*, int isa, bint dots):
    """Return the largest number of vectors of a tile. If `dots` is set, the tile is one of the kernels that compute the
    gradient of the weights.
    """
    return fc_sparse_sums(isa, dots)


# The arguments of a call. All threads of the call read them.
cdef struct Call:
    const Sizes* sizes
    const void* source
    const void* w
    const void* bias
    void* result                # for the gradient of the weights: dout
    void* dw
    char* lists                 # the lists of nonzero weights of the row blocks that are processed at present
    char* space                 # the scratchpads of all threads
    Py_ssize_t first_row_block  # the index of the first row block that is processed at present
    Py_ssize_t row_blocks       # the number of row blocks that are processed at present
    Py_ssize_t items            # the number of work items of the current step
    fc_work_queue* queue        # the work queue of the current step


cdef inline fc_nonzeros_list lists_at(char* at, const Sizes* s) noexcept nogil:
    cdef fc_nonzeros_list lists
    lists.rows = <int32_t*> (at + s.list_rows_at)
    lists.counts = <int32_t*> (at + s.list_counts_at)
    lists.offsets = <int32_t*> (at + s.list_offsets_at)
    lists.values = at + s.list_values_at
    return lists


cdef Py_ssize_t set_sizes(Sizes* s, tables) except -1:
    """Set the fields of `s` that do not depend on the stride phase, divide the workspace of a call, and return its size
    in bytes. `tables` is a `SparseTables` of fastconv.convolution.sparse.tables.
    """
    cdef Scratchpad lists = scratchpad_of(1), slot = scratchpad_of(1), call = scratchpad_of(1)
    cdef Py_ssize_t i, entries, most, vectors
    problem, tiling = tables.problem, tables.tiling
    s.itemsize, s.lanes = tables.itemsize, tables.lanes
    s.images, s.groups, s.rows, s.row_step = problem.images, problem.groups, problem.rows, problem.row_step
    s.channels, s.channel_step, s.taps = problem.channels, problem.channel_step, tables.taps
    s.group_step = s.rows * s.channels * s.taps
    s.block_rows, s.block_channels = tiling.rows, tiling.channels
    s.channel_blocks = ceil_div(s.channels, s.block_channels)
    s.row_blocks, s.blocks, s.parts = tables.row_blocks, tables.blocks, tables.parts
    s.patch_image, s.channel_pitch = tables.patch.image_pitch, tables.channel_pitch * s.lanes
    s.row_pitch, s.copy_rows = tables.row_pitch * s.lanes, tables.copy_rows
    s.copies, s.out_rows = len(tables.copy_to), len(tables.row_offsets)
    s.tile_rows, s.tile_width = tiling.tile
    s.lane_images = tiling.lanes[0]
    for i in range(3):
        s.lane_parts[i], s.part[i] = tiling.lanes[1 + i], tiling.part[i]
    s.out_width = s.part[2]

    entries = s.block_rows * s.block_channels * s.taps + FC_LIST_SPARE
    s.list_rows_at = book(&lists, s.block_rows * <Py_ssize_t> sizeof(int32_t))
    s.list_counts_at = book(&lists, s.block_rows * <Py_ssize_t> sizeof(int32_t))
    s.list_offsets_at = book(&lists, entries * <Py_ssize_t> sizeof(int32_t))
    s.list_values_at = book(&lists, entries * s.itemsize)
    s.list_part = lists.size - s.list_values_at
    if s.parts > 1:
        book(&lists, (s.parts - 1) * s.list_part)
    s.list_pitch = lists.size
    most = <Py_ssize_t> tables.tuning.lists_bytes // (s.channel_blocks * s.list_pitch)
    s.row_blocks_at_once = max(1, min(s.row_blocks, most))

    vectors = s.out_rows * s.out_width
    book(&slot, s.itemsize * (s.lane_images * s.patch_image + PATCH_SPARE))   # the padded block
    s.lanes_at = book(&slot, s.itemsize * s.block_channels * s.channel_pitch)
    s.sums_at = book(&slot, s.itemsize * s.lanes * s.block_rows * vectors)
    s.mask_at = book(&slot, s.itemsize * s.lanes * vectors if s.parts else 0)
    s.locations_at = book(&slot, <Py_ssize_t> sizeof(fc_row_location) * s.lanes * s.out_rows)
    # While a thread lists nonzero weights, its scratchpad holds the lists of one row block before they are sorted.
    s.space_pitch, s.workers = max(slot.size, s.list_pitch), tables.workers

    s.lists_at = book(&call, s.row_blocks_at_once * s.channel_blocks * s.list_pitch)
    s.space_at = book(&call, s.workers * s.space_pitch)
    return call.size


def workspace(tables):
    """Return the number of bytes of the workspace of a plan with these tables."""
    cdef Sizes sizes
    return set_sizes(&sizes, tables)


cdef int run_step(Call* t, fc_task_function worker, fc_work_queue* queue, Py_ssize_t items) except -1 nogil:
    t.queue, t.items = queue, items
    queue.chunks_taken = queue.workers = 0
    return fc_parallel_for(queue, worker, t)


cdef class ProductPlan:
    """A plan for one product of weights and images, or for the gradient of the weights.

    `dtype` is 0 (float32) or 1 (float64). `tables` is a `SparseTables` of fastconv.convolution.sparse.tables. `layout`
    is the `Layout` of a padded block of this stride phase. For each weight of a row in a block of channels,
    `tap_offsets` has the offset, in vectors, of the image element that the weight multiplies, or -1 if the weight is
    not used. For each such offset, `weight_at` has the offset of the weight in its row; only the gradient needs it.
    """

    cdef Sizes _sizes
    cdef int _dtype
    cdef tuple _arrays   # The tuple keeps the arrays alive, because `_sizes` has pointers into them.
    #: The number of row blocks that are processed together.
    cdef readonly Py_ssize_t row_blocks_at_once

    def __init__(self, *, int dtype, int isa, tables, layout, tap_offsets, weight_at):
        cdef Sizes* s = &self._sizes
        cdef Buffer offsets = contiguous_buffer(tap_offsets, sizeof(int32_t), False)
        set_sizes(s, tables)
        set_conv_axes(s.axes, layout, tables.phases)
        fc_check(offsets.n == s.block_channels * s.taps)
        self._dtype, self.row_blocks_at_once = dtype, s.row_blocks_at_once
        self._arrays = tables.phases, tables.copy_to, tables.copy_from, tables.row_offsets, tap_offsets, weight_at
        s.table, s.kernel = fc_sparse_for(dtype, isa), kernels(dtype, isa)
        s.volume = s.axes[0].size * s.axes[1].size * s.axes[2].size
        s.positions = s.axes[0].output_size * s.axes[1].output_size * s.axes[2].output_size
        s.copy_to, s.copy_from = index_pointer(tables.copy_to), index_pointer(tables.copy_from)
        s.row_offsets, s.tap_offsets = index_pointer(tables.row_offsets), <const int32_t*> offsets.at
        s.weight_at = <const int32_t*> contiguous_buffer(weight_at, sizeof(int32_t), False).at

    def run(self, source, w, bias, result, space, list_queue, queue):
        """Compute result = w @ columns(source) + bias. `bias` may be None.

        All arrays have the dtype of the plan. `space` is the workspace. Threads take work from `list_queue` while they
        list nonzero weights, and from `queue` while they multiply. A queue may be None if one thread does all the work.
        """
        cdef Call t
        self._set_call(&t, source, w, space)
        cdef Buffer results = contiguous_buffer(result, self._sizes.itemsize, True)
        fc_check(results.n == self._result_size())
        t.result = results.at
        t.bias = NULL if bias is None else contiguous_buffer(bias, self._sizes.itemsize, False).at
        self._run(&t, list_queue, queue)

    def run_gradient(self, x, dout, w, dw, space, list_queue, queue):
        """Compute the gradient of the nonzero weights, and write it to their places in dw. The rest of dw stays.

        The gradient is computed as partial sums, which the last step adds up. The other arguments are those of `run`.
        """
        cdef Call t
        self._set_call(&t, x, w, space)
        cdef Buffer gradients = contiguous_buffer(dout, self._sizes.itemsize, False)
        fc_check(gradients.n == self._result_size())
        t.result, t.dw = gradients.at, contiguous_buffer(dw, self._sizes.itemsize, True).at
        self._run(&t, list_queue, queue)

    cdef Py_ssize_t _result_size(self) noexcept:
        return self._sizes.images * self._sizes.groups * self._sizes.rows * self._sizes.positions

    cdef int _set_call(self, Call* t, source, w, space) except -1:
        cdef const Sizes* s = &self._sizes
        cdef Buffer sources = contiguous_buffer(source, s.itemsize, False)
        cdef Buffer weights = contiguous_buffer(w, s.itemsize, False), workspace = contiguous_buffer(space, 1, True)
        fc_check(sources.n == s.images * s.groups * s.channels * s.volume)
        fc_check(weights.n == s.groups * s.group_step)
        fc_check(workspace.n >= s.space_at + s.workers * s.space_pitch)
        t.sizes, t.source, t.w, t.bias, t.dw = s, sources.at, weights.at, NULL, NULL
        t.lists, t.space = <char*> workspace.at + s.lists_at, <char*> workspace.at + s.space_at
        return 0

    cdef int _run(self, Call* t, list_queue, queue) except -1:
        cdef const Sizes* s = &self._sizes
        cdef fc_work_queue own
        cdef fc_work_queue* lists = &own
        cdef fc_work_queue* products = &own
        cdef Py_ssize_t units
        cdef bint is_double = self._dtype == 1
        fc_serial_queue(&own)
        if list_queue is not None:
            lists = work_queue(list_queue)
        if queue is not None:
            products = work_queue(queue)
        with nogil:
            t.first_row_block = 0
            while t.first_row_block < s.row_blocks:
                t.row_blocks = min(s.row_blocks_at_once, s.row_blocks - t.first_row_block)
                units = t.row_blocks * s.channel_blocks
                run_step(t, prune_worker, lists, units)
                run_step(t, product_of_double if is_double else product_of_float, products,
                         t.row_blocks * (s.parts if s.parts else s.blocks))
                if s.parts:
                    run_step(t, scatter_of_double if is_double else scatter_of_float, lists, units)
                t.first_row_block += s.row_blocks_at_once
        return 0


cdef void prune_worker(void* call) noexcept nogil:
    """Process work items until none are left. For each work item, list the nonzero weights of a row block in a block of
    channels.
    """
    cdef const Call* t = <const Call*> call
    cdef const Sizes* s = t.sizes
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.items), row, channel, channels
    cdef fc_nonzeros_list space = lists_at(t.space + worker_id * s.space_pitch, s), to
    cdef fc_weights weights
    fc_check(worker_id < s.workers)
    weights.tap_offsets, weights.row_step, weights.run_step = s.tap_offsets, s.row_step, s.channel_step
    while index < t.items:
        to = lists_at(t.lists + index * s.list_pitch, s)
        row = t.first_row_block + unravel_block(&channel, index, s.channels, s.block_channels)
        channels = min(s.block_channels, s.channels - channel)
        weights.runs, weights.n = channels, s.taps
        if s.channel_step == s.taps:
            weights.runs, weights.n = 1, channels * s.taps
        weights.w = <const char*> t.w + channel * s.channel_step * s.itemsize
        weights.w = <const char*> weights.w + unravel_block(&row, row, s.rows, s.block_rows) * s.group_step * s.itemsize
        weights.w = <const char*> weights.w + row * s.row_step * s.itemsize
        weights.rows = min(s.block_rows, s.rows - row)
        s.table.prune(&weights, &to, &space)
        index = fc_next_item(t.queue, t.items)


cdef void product_of_float(void* call) noexcept nogil:
    products_worker(<const Call*> call, <float*> NULL)


cdef void product_of_double(void* call) noexcept nogil:
    products_worker(<const Call*> call, <double*> NULL)


cdef void products_worker(const Call* t, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is one row block in one block of the result. For the gradient
    of the weights, a work item is one row block in all blocks of the result that contribute to one partial sum.
    """
    cdef const Sizes* s = t.sizes
    cdef Py_ssize_t worker_id = fc_worker_id(t.queue), index = fc_next_item(t.queue, t.items), row_block, i
    cdef Py_ssize_t block_index, left
    cdef Block block
    cdef char* space = t.space + worker_id * s.space_pitch
    fc_check(worker_id < s.workers)
    while index < t.items:
        row_block = index % t.row_blocks
        block_index = index // t.row_blocks
        while block_index < s.blocks and not fc_stopped(t.queue):
            left = block_index
            for i in range(2, -1, -1):
                left = unravel_block(&block.begin[i], left, s.axes[i].out, s.axes[i].block)
                block.n[i] = s.axes[i].block
            block.image = left * s.lane_images
            block.images = min(s.lane_images, s.images - block.image)
            multiply(t, row_block, index // t.row_blocks, block_index, &block, <floating*> space, space)
            block_index += s.parts if s.parts else s.blocks
        index = fc_next_item(t.queue, t.items)


cdef void scatter_of_float(void* call) noexcept nogil:
    scatter_worker(<const Call*> call, <float*> NULL)


cdef void scatter_of_double(void* call) noexcept nogil:
    scatter_worker(<const Call*> call, <double*> NULL)


cdef void scatter_worker(const Call* t, floating* dtype) noexcept nogil:
    """Add up the partial sums of the gradient, which are in the lists of nonzero weights, and write the sums to dw."""
    cdef const Sizes* s = t.sizes
    cdef Py_ssize_t index = fc_next_item(t.queue, t.items), row, channel, i, j, part, rows
    cdef fc_nonzeros_list lists
    cdef const floating* val
    cdef floating* dw
    cdef floating total
    fc_worker_id(t.queue)
    while index < t.items:
        lists = lists_at(t.lists + index * s.list_pitch, s)
        row = t.first_row_block + unravel_block(&channel, index, s.channels, s.block_channels)
        dw = <floating*> t.dw + unravel_block(&row, row, s.rows, s.block_rows) * s.group_step
        dw = dw + row * s.row_step + channel * s.channel_step
        rows = min(s.block_rows, s.rows - row)
        val = <const floating*> lists.values
        for i in range(rows):
            for j in range(lists.counts[i]):
                total = 0
                for part in range(s.parts):
                    total += (<const floating*> (<const char*> &val[j] + part * s.list_part))[0]
                dw[lists.rows[i] * s.row_step + s.weight_at[lists.offsets[j]]] = total
            val = val + lists.counts[i]
            lists.offsets = lists.offsets + lists.counts[i]
        index = fc_next_item(t.queue, t.items)


cdef void prefetch_channel(const Sizes* s, const floating* plane, Py_ssize_t image_step,
                           const Block* block) noexcept nogil:
    """Prefetch the elements that a block reads in the next channel, because the rows of a block are too short for
    the hardware prefetcher. `plane` points to the next channel of image 0.
    """
    cdef const ConvAxis* d = &s.axes[0]
    cdef const ConvAxis* h = &s.axes[1]
    cdef const ConvAxis* w = &s.axes[2]
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
    const Call* t, Py_ssize_t row_block, Py_ssize_t part, Py_ssize_t block_index, const Block* block, floating* dtype,
    char* space,
) noexcept nogil:
    """Compute one block of the result for one row block. For each block of channels, copy the channels to vectors, and
    add their products with the weights to the sums.

    For the gradient of the weights, first copy the rows of dout to vectors. Then multiply the rows of dout by the
    copied channels, and add the products to the partial sum with index `part`. The partial sums are stored in the lists
    of nonzero weights.
    """
    cdef const Sizes* s = t.sizes
    cdef const fc_sparse_kernels* kernel = s.table
    cdef Py_ssize_t[MOST_LANES] lane_at
    cdef Py_ssize_t first_row, group = unravel_block(&first_row, t.first_row_block + row_block, s.rows, s.block_rows)
    cdef Py_ssize_t rows = min(s.block_rows, s.rows - first_row), channel, here, c, i, k, row
    cdef Py_ssize_t image_step = s.groups * s.channels * s.volume
    cdef Py_ssize_t pitch = s.out_rows * s.out_width * s.lanes, line, first, height, width, at
    cdef floating* patch = <floating*> space
    cdef floating* cells = <floating*> (space + s.lanes_at)
    cdef floating* sums = <floating*> (space + s.sums_at)
    cdef fc_row_location* locations = <fc_row_location*> (space + s.locations_at)
    cdef const floating* source = <const floating*> t.source + group * s.channels * s.volume
    cdef floating* to = <floating*> t.result + (group * s.rows + first_row) * s.positions
    cdef const floating* initial = NULL
    cdef char* mask = space + s.mask_at
    cdef bint missing = False
    cdef fc_nonzeros_list lists
    if t.bias is not NULL:
        initial = <const floating*> t.bias + group * s.rows + first_row
    set_lane_offsets(lane_at, s, block)
    set_row_locations(locations, s, block, s.groups * s.rows * s.positions)
    if s.parts:
        for row in range(rows):
            missing = kernel.gradient_to_lanes(
                sums + row * pitch, mask if row == 0 else NULL, to + row * s.positions, locations, s.out_rows,
                s.out_width,
            )
    for i in range(s.channel_blocks):
        channel = i * s.block_channels
        here = min(s.block_channels, s.channels - channel)
        for c in range(here):
            fill(patch, source + (channel + c) * s.volume, 1, image_step, s.axes, block, 0, s.patch_image, &s.kernel,
                 False)
            if channel + c + 1 < s.channels:
                prefetch_channel(s, source + (channel + c + 1) * s.volume, image_step, block)
            for k in range(s.copies):
                kernel.to_lanes(
                    cells + c * s.channel_pitch + s.copy_to[k], s.row_pitch, patch + s.copy_from[k],
                    s.axes[1].pitch, lane_at, s.copy_rows, s.axes[2].halo + s.out_width,
                )
        lists = lists_at(t.lists + (row_block * s.channel_blocks + i) * s.list_pitch, s)
        if s.parts:
            lists.values = <char*> lists.values + part * s.list_part
            if block_index == part:
                zero_lists(&lists, rows, dtype)
        for k in range(ceil_div(s.out_rows, s.tile_rows) * ceil_div(s.out_width, s.tile_width)):
            first = unravel_block(&line, k, s.out_rows, s.tile_rows) * s.tile_width
            height, width = min(s.tile_rows, s.out_rows - line), min(s.tile_width, s.out_width - first)
            at = (line * s.out_width + first) * s.lanes
            if s.parts:
                kernel.dot_rows(
                    <int> height, <int> width, cells + first * s.lanes, s.row_offsets + line, &lists, rows,
                    sums + at, pitch, s.out_width * s.lanes, mask + at * s.itemsize if missing else NULL,
                )
            else:
                kernel.add_rows(
                    <int> height, <int> width, cells + first * s.lanes, s.row_offsets + line, &lists, rows,
                    sums + at, pitch, s.out_width * s.lanes, initial, i > 0,
                )
    if s.parts:
        return
    for row in range(rows):
        kernel.from_lanes(
            to + row * s.positions, locations, s.axes[2].output_stride, sums + row * pitch, s.out_rows, s.out_width,
            s.positions if row + 1 < rows else 0,
        )


# The arguments of a call of `clear`. All threads of the call read them.
cdef struct Clearing:
    fc_clear_t clear
    const char* w
    char* dw
    Py_ssize_t n            # the number of elements of an array
    Py_ssize_t items        # the number of work items
    Py_ssize_t itemsize     # the number of bytes of an element
    fc_work_queue* queue


def clear(w, dw, queue, *, int dtype, int isa, Py_ssize_t items):
    """Set dw to 0 where w is 0. The arrays are divided into `items` equal parts, one for each work item.

    `dtype` is 0 (float32) or 1 (float64). `queue` may be None if one thread does all the work.
    """
    cdef Clearing t
    cdef Buffer weights, gradients
    cdef fc_work_queue own
    t.itemsize = 8 if dtype else 4
    weights, gradients = contiguous_buffer(w, t.itemsize, False), contiguous_buffer(dw, t.itemsize, True)
    t.clear, t.w, t.dw = fc_sparse_for(dtype, isa).clear, <const char*> weights.at, <char*> gradients.at
    t.n, t.items, t.queue = gradients.n, items, &own
    fc_serial_queue(&own)
    if queue is not None:
        t.queue = work_queue(queue)
    with nogil:
        fc_check(weights.n == gradients.n)
        fc_parallel_for(t.queue, clearings_worker, &t)


cdef void clearings_worker(void* call) noexcept nogil:
    cdef const Clearing* t = <const Clearing*> call
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.items), first, end
    while begin < t.items:
        first, end = begin * t.n // t.items, min(begin + grain, t.items) * t.n // t.items
        t.clear(t.w + first * t.itemsize, t.dw + first * t.itemsize, end - first)
        begin = fc_next_chunk(t.queue, &worker, t.items)
