"""The gradient of the weights by implicit GEMM: a matrix product that sums over output positions.

A column of the gradient is a pair of a channel and a tap, and each vector lane holds one column. Packing reads the
columns from a block of the padded image, and transposes them into panels.
fastconv.convolution.implicit_gemm.calls divides the work into blocks.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div, unravel_block
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.gemm.microkernel cimport (
    FC_MASKED_ROW_MAX_K, FC_MASKED_TILE_ROWS, Kernels, fc_microkernel_kernels, fc_row_masked_t, fc_run, fc_tile_t,
    kernels, microkernel_for, next_vectors,
)
from fastconv._ext.packing.patches cimport Block, ConvAxis, fill, set_conv_axes
from fastconv._ext.threads.team cimport (
    fc_next_item, fc_parallel_for, fc_serial_queue, fc_stopped, fc_work_queue, fc_worker_id, work_queue,
)


cdef enum:
    LONG_ROW = 8      # The largest block that `interleave` transposes in registers is LONG_ROW x LONG_ROW elements.
    MOST_VECTORS = 3  # The largest number of vectors in a row of a tile.
    MOST_PANELS_AT_A_TIME = 64  # The largest number of panels that are packed at a time.


# The sizes of a gradient, which a plan sets once. Distances and offsets are in elements of the dtype, unless a comment
# gives another unit.
cdef struct WeightSizes:
    Py_ssize_t images           # the number of images
    Py_ssize_t groups           # the number of groups
    Py_ssize_t filters          # the number of filters of a group
    Py_ssize_t channels         # the number of channels of the image in a group
    Py_ssize_t taps             # the number of taps of the kernel
    Py_ssize_t volume           # the number of cells of a channel of the image
    Py_ssize_t positions        # the number of output positions of a filter and an image
    Py_ssize_t blocks           # the number of blocks of output positions
    Py_ssize_t parts            # the number of partial sums
    Py_ssize_t items            # the number of work items
    Py_ssize_t block_images     # the number of images of a block
    Py_ssize_t block_channels   # the number of channels of a work item
    Py_ssize_t channel_pitch    # the distance between two channels of a block of the padded image
    Py_ssize_t image_pitch      # the distance between two images of a block of the padded image
    Py_ssize_t panels_at_a_time  # the number of panels of columns that are packed at a time if there is a mask
    Py_ssize_t panel_pitch      # the distance between two panels of columns
    Py_ssize_t list_pitch       # the distance between two lists of `list_positions`, in integers
    # The scratchpad of a thread: where its arrays begin, and its number of elements.
    Py_ssize_t block_at         # the block of the padded image
    Py_ssize_t panel_at         # the packed values of dout
    Py_ssize_t columns_at       # the packed columns
    Py_ssize_t edge_at          # the sums of an edge tile, until they are copied to the output
    Py_ssize_t edge_mask_at     # the mask of such a tile
    Py_ssize_t lists_at         # the lists of `list_positions`: one for tiles of one vector, one for two vectors, ...
    Py_ssize_t scratchpad       # the number of elements of a scratchpad


cdef Py_ssize_t pack_gradient(
    floating* panel, const floating* dout, const Block* b, const ConvAxis* axes, const WeightSizes* s,
    const Kernels* kernel, int tall,
) noexcept nogil:
    """Pack dout, for the output positions of a block, into panels of `tall` filters. Return the number of positions."""
    cdef Py_ssize_t[8] at
    cdef Py_ssize_t plane = axes[1].out * axes[2].out, positions = s.positions
    cdef Py_ssize_t first, here, n, od, oh, i, run, runs, count = b.images * b.n[0] * b.n[1] * b.n[2]
    cdef const floating* source
    run, runs = b.n[2], b.n[1]
    if b.n[2] == axes[2].out:
        run, runs = b.n[1] * b.n[2], 1
    for i in range(8):
        at[i] = i * positions
    first = 0
    while first < s.filters:
        here = min(<Py_ssize_t> tall, s.filters - first)
        for n in range(b.images):
            for od in range(b.n[0]):
                source = (
                    dout + ((b.image + n) * s.groups * s.filters + first) * positions
                    + (b.begin[0] + od) * plane + b.begin[1] * axes[2].out + b.begin[2]
                )
                for oh in range(runs):
                    kernel.interleave(panel, here, source + oh * axes[2].out, at, here, run)
                    panel = panel + here * run
        first += here
    return count


cdef void list_positions(Py_ssize_t* rows, const Block* b, Py_ssize_t pitch, Py_ssize_t width) noexcept nogil:
    """Fill `rows` with the offset, in a panel of `width` lanes, of each output position of a block. The panel also
    holds the padding between image rows, but no offset in `rows` points to this padding.
    """
    cdef Py_ssize_t plane, oh, ow, length = (b.n[1] - 1) * pitch + b.n[2]
    for plane in range(b.images * b.n[0]):
        for oh in range(b.n[1]):
            for ow in range(b.n[2]):
                rows[0] = (plane * length + oh * pitch + ow) * width
                rows += 1


# What all calls of a plan have in common.
cdef struct Gradient:
    WeightSizes sizes
    ConvAxis[3] axes
    # For each channel of a work item and each tap: the offset in the block of the cell that output 0 reads.
    const Py_ssize_t* cell_offsets
    Kernels kernel
    # The four tile kernels. Kernels 0 and 2 read positions at listed offsets, 1 and 3 read contiguous positions.
    # Kernels 2 and 3 apply the weight mask.
    fc_tile_t[4] tiles
    fc_row_masked_t row_masked


# A call of a plan. All threads of the call read it.
cdef struct GradientCall:
    const Gradient* plan
    const void* source         # the image
    const void* dout
    const void* weight_mask    # NULL if there is no mask
    void* result               # the partial sums, one after another
    Py_ssize_t part_pitch      # the distance between two partial sums, in elements
    void* scratchpads          # the scratchpads of all threads, one after another
    Py_ssize_t workers         # the number of scratchpads
    fc_work_queue* queue


cdef void divide_scratchpad(Gradient* g, Py_ssize_t itemsize, Py_ssize_t panel_bytes) noexcept:
    """Divide the scratchpad of a thread into arrays, and choose how many panels are packed at a time.

    Panels that are packed at a time have at most `panel_bytes` bytes in all, unless a single panel has more.
    """
    cdef WeightSizes* s = &g.sizes
    cdef Scratchpad pad = scratchpad_of(itemsize)
    # Kernels read and write whole vectors, so they may access up to `nr` elements behind the last element of an array.
    cdef Py_ssize_t mr = g.kernel.rows, nr = g.kernel.vectors * g.kernel.lanes
    cdef Py_ssize_t planes = s.block_images * g.axes[0].block, rows = planes * g.axes[1].block
    cdef Py_ssize_t count = rows * g.axes[2].block, columns = s.block_channels * s.taps
    # A packed column may also hold the padding between image rows.
    cdef Py_ssize_t length = planes * ((g.axes[1].block - 1) * g.axes[1].pitch + g.axes[2].block)
    s.block_at = book(&pad, s.block_channels * s.channel_pitch + 2 * nr)
    s.panel_at = book(&pad, s.filters * count + nr)
    s.columns_at = book(&pad, (length + 1) * nr)
    s.panel_pitch = pad.size - s.columns_at
    s.panels_at_a_time = min(MOST_PANELS_AT_A_TIME, panel_bytes // (s.panel_pitch * itemsize), ceil_div(columns, nr))
    s.panels_at_a_time = max(s.panels_at_a_time, 1)
    book(&pad, (s.panels_at_a_time - 1) * s.panel_pitch)
    s.edge_at = book(&pad, mr * nr)
    s.edge_mask_at = book(&pad, mr * nr)
    s.list_pitch = count
    s.lists_at = book(&pad, ceil_div(g.kernel.vectors * s.list_pitch * <Py_ssize_t> sizeof(Py_ssize_t), itemsize))
    s.scratchpad = pad.size


cdef class GradientPlan:
    """A plan that computes the gradient of the weights, dout @ columns(x).T, as one or more partial sums.

    With `parts` partial sums, result[p] is the sum over the blocks p, p + parts, p + 2 * parts, and so on. The caller
    adds the partial sums.

    `dtype` is 0 (float32) or 1 (float64). `layout` is the `Layout` of a block in fastconv.convolution.blocking. A work
    item has at most `block_channels` of the `channels` channels of a group. In a block, channels are `channel_pitch`
    elements apart. `cell_offsets` has, for each channel of a work item and each tap, the offset in the block of the
    cell that output 0 reads. With a mask, several panels are packed at a time, which have about `panel_bytes` bytes.
    """

    #: The number of elements of the scratchpad of a thread.
    cdef readonly Py_ssize_t workspace
    #: The number of elements that all threads share. A `ProductPlan` has this attribute, too.
    cdef readonly Py_ssize_t shared
    #: The number of work items, which are divided among threads.
    cdef readonly Py_ssize_t items
    #: The bytes of the arrays that the plan keeps.
    cdef readonly Py_ssize_t nbytes
    cdef Gradient _gradient
    cdef tuple _arrays    # The tuple keeps the arrays alive, because `_gradient` has pointers into them.
    cdef int _dtype
    cdef Py_ssize_t _sources, _gradients, _results   # the numbers of elements of x, of dout and of a partial sum

    def __init__(
        self, *, int dtype, int isa, Py_ssize_t images, Py_ssize_t groups, Py_ssize_t filters, Py_ssize_t channels,
        Py_ssize_t block_channels, Py_ssize_t parts, layout, Py_ssize_t channel_pitch, cell_offsets,
        Py_ssize_t panel_bytes,
    ):
        cdef Gradient* g = &self._gradient
        cdef WeightSizes* s = &g.sizes
        cdef Py_ssize_t i
        cdef const fc_microkernel_kernels* table = microkernel_for(dtype, isa)
        phases = layout.phases()
        self._arrays, self._dtype = (phases, cell_offsets), dtype
        self.nbytes = phases.nbytes + cell_offsets.nbytes
        set_conv_axes(g.axes, layout, phases)
        g.kernel = kernels(dtype, isa)
        g.tiles[0], g.tiles[1] = table.tile_listed, table.tile
        g.tiles[2], g.tiles[3] = table.tile_masked_listed, table.tile_masked
        g.row_masked = table.row_masked
        g.cell_offsets = index_pointer(cell_offsets)
        s.images, s.groups, s.filters, s.channels, s.parts = images, groups, filters, channels, parts
        s.block_channels, s.taps = block_channels, len(cell_offsets) // block_channels
        s.block_images, s.image_pitch, s.channel_pitch = layout.images, layout.image_pitch, channel_pitch
        s.volume = g.axes[0].size * g.axes[1].size * g.axes[2].size
        s.positions = g.axes[0].out * g.axes[1].out * g.axes[2].out
        s.blocks = ceil_div(s.images, s.block_images)
        for i in range(3):
            s.blocks *= ceil_div(g.axes[i].out, g.axes[i].block)
        s.items = s.parts * s.groups * ceil_div(s.channels, s.block_channels)
        divide_scratchpad(g, 8 if dtype else 4, panel_bytes)
        fc_check(g.kernel.vectors <= MOST_VECTORS)
        self.items, self.workspace = s.items, s.scratchpad
        self._sources = s.images * s.groups * s.channels * s.volume
        self._gradients = s.images * s.groups * s.filters * s.positions
        self._results = s.groups * s.filters * s.channels * s.taps

    def run(self, x, dout, result, workspace, queue, weight_mask=None):
        """Run the plan. All arrays have the dtype of the plan. `workspace` holds a scratchpad for each thread. If
        `queue` is None, the calling thread works alone.

        If `weight_mask` is given, the result is 0 where the mask is 0. Only a plan with one partial sum supports a
        mask.
        """
        cdef const WeightSizes* s = &self._gradient.sizes
        cdef GradientCall call
        cdef Py_ssize_t itemsize = 8 if self._dtype else 4
        cdef fc_work_queue own
        cdef Buffer results = contiguous_buffer(result, itemsize, True)
        cdef Buffer scratchpads = contiguous_buffer(workspace, itemsize, True)
        cdef Buffer sources = contiguous_buffer(x, itemsize, False)
        cdef Buffer gradients = contiguous_buffer(dout, itemsize, False)
        cdef Buffer weights = results
        call.plan = &self._gradient
        call.source, call.dout, call.result, call.weight_mask = sources.at, gradients.at, results.at, NULL
        call.scratchpads, call.workers = scratchpads.at, scratchpads.n // s.scratchpad
        call.part_pitch = results.n // s.parts
        if weight_mask is not None:
            weights = contiguous_buffer(weight_mask, itemsize, False)
            call.weight_mask = weights.at
        if queue is None:
            fc_serial_queue(&own)
            call.queue = &own
        else:
            call.queue = work_queue(queue)
        with nogil:
            fc_check(sources.n == self._sources and gradients.n == self._gradients)
            fc_check(call.part_pitch == self._results)
            fc_check(call.weight_mask == NULL or (weights.n == results.n and s.parts == 1))
            fc_parallel_for(call.queue, weights_of_double if self._dtype else weights_of_float, &call)


cdef void weights_of_float(void* task) noexcept nogil:
    gradients_worker(<const GradientCall*> task, <float*> NULL)


cdef void weights_of_double(void* task) noexcept nogil:
    gradients_worker(<const GradientCall*> task, <double*> NULL)


cdef void gradients_worker(const GradientCall* call, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is one partial sum of the gradient for one block of channels.
    """
    cdef const Gradient* g = call.plan
    cdef const WeightSizes* s = &g.sizes
    cdef const ConvAxis* axes = &g.axes[0]
    cdef Block block
    cdef const floating* weight_mask
    cdef Py_ssize_t group, channel, part, block_index, rest, i, at, worker_id = fc_worker_id(call.queue)
    cdef Py_ssize_t index = fc_next_item(call.queue, s.items)
    fc_check(worker_id < call.workers)
    while index < s.items:
        rest = unravel_block(&channel, index, s.channels, s.block_channels)
        group, part = rest % s.groups, rest // s.groups
        block_index = part
        at = (group * s.filters * s.channels + channel) * s.taps
        while block_index < s.blocks and not fc_stopped(call.queue):
            rest = block_index
            for i in range(2, -1, -1):
                rest = unravel_block(&block.begin[i], rest, axes[i].out, axes[i].block)
                block.n[i] = min(axes[i].block, axes[i].out - block.begin[i])
            unravel_block(&block.image, rest, s.images, s.block_images)
            block.images = min(s.block_images, s.images - block.image)
            # Apply the mask together with the last block, because the sums are complete only after this block.
            weight_mask = NULL
            if call.weight_mask != NULL and block_index + s.parts >= s.blocks:
                weight_mask = <const floating*> call.weight_mask + at
            contract(
                g, <const floating*> call.source + (group * s.channels + channel) * s.volume,
                <const floating*> call.dout + group * s.filters * s.positions,
                <floating*> call.result + part * call.part_pitch + at, &block,
                min(s.block_channels, s.channels - channel), <floating*> call.scratchpads + worker_id * s.scratchpad,
                block_index > part, weight_mask, call.queue,
            )
            block_index += s.parts
        index = fc_next_item(call.queue, s.items)


cdef void contract(
    const Gradient* g, const floating* source, const floating* dout, floating* result, const Block* block,
    Py_ssize_t channels, floating* scratchpad, bint add, const floating* weight_mask, fc_work_queue* queue,
) noexcept nogil:
    """Compute the product [filters x positions] @ [positions x channels * taps] for one block of output positions. If
    `weight_mask` is not NULL, the result is 0 where the mask is 0.

    A masked kernel computes only a few rows of the result. So with a mask, several panels of columns are packed, and
    all of them are multiplied by a few rows of dout before the next rows are read. The kernels then access long
    contiguous parts of each row of the result. With one panel at a time, successive cache lines of the result would be
    in different pages, and the hardware would not prefetch them.
    """
    cdef const WeightSizes* s = &g.sizes
    cdef const ConvAxis* axes = &g.axes[0]
    cdef const Kernels* kernel = &g.kernel
    cdef const Py_ssize_t* at = g.cell_offsets
    cdef Py_ssize_t pitch = axes[1].pitch, length = (block.n[1] - 1) * pitch + block.n[2]
    cdef Py_ssize_t columns = channels * s.taps, column = 0, width, here, n, plane, row, rows, first
    cdef Py_ssize_t row_step = s.channels * s.taps, offset
    # `close` is set if the panel holds no padding between image rows. Rows of at least LONG_ROW elements are transposed
    # one at a time, without the padding. Shorter rows are transposed together with the padding.
    cdef bint joined = block.n[2] == pitch or block.n[1] == 1, close = joined or block.n[2] >= LONG_ROW
    cdef Py_ssize_t runs = block.n[1] if close and not joined else 1, oh
    cdef int[MOST_PANELS_AT_A_TIME] vectors
    cdef bint[MOST_VECTORS + 1] listed
    cdef int panels, p, tall = kernel.rows if weight_mask == NULL else min(kernel.rows, FC_MASKED_TILE_ROWS)
    cdef Py_ssize_t panels_at_a_time = 1 if weight_mask == NULL else s.panels_at_a_time
    cdef fc_tile_t tile = g.tiles[close], full = g.tiles[close if weight_mask == NULL else 2 + close]
    cdef floating* patch = scratchpad + s.block_at
    cdef floating* panel = scratchpad + s.panel_at
    cdef floating* packed = scratchpad + s.columns_at
    cdef floating* edge = scratchpad + s.edge_at
    cdef floating* edge_mask = scratchpad + s.edge_mask_at
    cdef Py_ssize_t* lists = <Py_ssize_t*> (scratchpad + s.lists_at)
    cdef floating* transposed
    cdef const floating* cells
    cdef Py_ssize_t* list
    cdef fc_run run
    for p in range(MOST_VECTORS + 1):
        listed[p] = False
    if runs > 1:
        length = block.n[2]
    fill(
        patch, source, channels, s.groups * s.channels * s.volume, axes, block, s.channel_pitch, s.image_pitch, kernel,
        True,
    )
    n = pack_gradient(panel, dout, block, axes, s, kernel, tall)
    if (
        weight_mask != NULL and not add and close and n <= FC_MASKED_ROW_MAX_K
        and (columns + kernel.lanes) * n <= s.panels_at_a_time * s.panel_pitch
    ):
        transposed = packed
        while column < columns:
            here = min(<Py_ssize_t> kernel.lanes, columns - column)
            for plane in range(block.images * block.n[0]):
                cells = patch + plane // block.n[0] * s.image_pitch + plane % block.n[0] * axes[0].pitch
                for oh in range(runs):
                    kernel.interleave(transposed, kernel.lanes, cells + oh * pitch, &at[column], here, length)
                    transposed = transposed + length * kernel.lanes
            column += here
        for row in range(s.filters):
            if row & 127 == 0 and fc_stopped(queue):
                return
            # In a panel of dout, the values of all filters at one position are contiguous.
            first = row - row % tall
            g.row_masked(<int> n, panel + first * n + row % tall, min(<Py_ssize_t> tall, s.filters - first), packed,
                         result + row * row_step, weight_mask + row * row_step, columns)
        return
    while column < columns:
        first, panels = column, 0
        while column < columns and panels < panels_at_a_time:
            vectors[panels] = next_vectors((columns - column + kernel.lanes - 1) // kernel.lanes, kernel.vectors)
            width = vectors[panels] * kernel.lanes
            here = min(width, columns - column)
            if not close and not listed[vectors[panels]]:
                list_positions(lists + (vectors[panels] - 1) * s.list_pitch, block, pitch, width)
                listed[vectors[panels]] = True
            transposed = packed + panels * s.panel_pitch
            for plane in range(block.images * block.n[0]):
                cells = patch + plane // block.n[0] * s.image_pitch + plane % block.n[0] * axes[0].pitch
                for oh in range(runs):
                    kernel.interleave(transposed, width, cells + oh * pitch, &at[column], here, length)
                    transposed = transposed + length * width
            column += here
            panels += 1
        panel = scratchpad + s.panel_at
        row = 0
        while row < s.filters:
            # Check for signals here, too, because the first write to each page of a large result is slow: the system
            # has to clear the page.
            if row & 127 == 0 and fc_stopped(queue):
                return
            rows = min(<Py_ssize_t> tall, s.filters - row)
            offset = row * row_step + first
            transposed = packed
            for p in range(panels):
                width = vectors[p] * kernel.lanes
                here = min(width, row * row_step + column - offset)
                list = lists + (vectors[p] - 1) * s.list_pitch
                if here == width:
                    full(<int> rows, vectors[p], n, panel, rows, transposed, list, result + offset, row_step,
                         <const floating*> NULL if weight_mask == NULL else weight_mask + offset, add)
                else:
                    run.at, run.lane, run.n = 0, 0, here
                    if weight_mask != NULL and not add:
                        kernel.scatter(edge_mask, width, 1, weight_mask + offset, row_step, rows, &run, 1, 0)
                        full(<int> rows, vectors[p], n, panel, rows, transposed, list, edge, width, edge_mask, 0)
                    else:
                        tile(<int> rows, vectors[p], n, panel, rows, transposed, list, edge, width, NULL, 0)
                    if weight_mask != NULL and add:
                        add_masked(edge, result + offset, weight_mask + offset, row_step, width, rows, here)
                    kernel.scatter(result + offset, row_step, 1, edge, width, rows, &run, 1,
                                   add and weight_mask == NULL)
                transposed = transposed + s.panel_pitch
                offset += width
            panel = panel + rows * n
            row += rows


cdef void add_masked(
    floating* sums, const floating* result, const floating* weight_mask, Py_ssize_t pitch, Py_ssize_t width,
    Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    """Add `result` to `sums`, the buffer of an edge tile, and set `sums` to 0 where `weight_mask` is 0."""
    cdef Py_ssize_t row, i
    for row in range(rows):
        for i in range(n):
            sums[row * width + i] = result[row * pitch + i] + sums[row * width
                                                                   + i] if weight_mask[row * pitch + i] != 0 else 0
