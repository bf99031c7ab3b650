"""The gradient of the weights by implicit GEMM: a matrix product that sums over output positions.

A column of the gradient is a pair of a channel and a tap, and each vector lane holds one column. Packing reads the
columns from a block of the padded image, and transposes them into panels.
fastconv.convolution.implicit_gemm.calls divides the work into work items, and makes all tables that this module reads.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div, unravel_block
from fastconv._ext.gemm.microkernel cimport (
    FC_MASKED_ROW_MAX_K, FC_MASKED_TILE_ROWS, Kernels, fc_microkernel_kernels, fc_row_masked_t, fc_run, fc_tile_t,
    kernels, microkernel_for, next_vectors,
)
from fastconv._ext.packing.patches cimport Block, ConvAxis, fill, read_conv_axes
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.threads.team cimport (
    fc_next_item, fc_parallel_for, fc_serial_queue, fc_stopped, fc_work_queue, fc_worker_id, work_queue,
)


cdef enum:
    LONG_ROW = 8      # The largest block that `interleave` transposes in registers is LONG_ROW x LONG_ROW elements.
    MOST_VECTORS = 3  # The largest number of vectors in a row of a tile.
    # The largest number of panels that are packed at a time. It equals `_PANELS_AT_A_TIME` of
    # fastconv.convolution.implicit_gemm.calls.
    MOST_PANELS_AT_A_TIME = 64


# The sizes of a call, in the order of the list that fastconv.convolution.implicit_gemm.calls makes. Distances and
# offsets are in elements of the dtype, unless a comment gives another unit.
cdef struct WeightSizes:
    Py_ssize_t images
    Py_ssize_t block_images
    Py_ssize_t groups
    Py_ssize_t filters
    Py_ssize_t channels
    Py_ssize_t block_channels
    Py_ssize_t taps
    Py_ssize_t channel_pitch
    Py_ssize_t image_pitch
    Py_ssize_t parts
    Py_ssize_t panel_at
    Py_ssize_t positions_at
    Py_ssize_t edge_at
    # The offset of the lists that `list_positions` fills: one list for tiles of one vector, one for tiles of two, ...
    Py_ssize_t lists_at
    Py_ssize_t list_pitch        # the distance between two lists of `list_positions`, in integers
    Py_ssize_t panels_at_a_time  # the number of panels of columns that are packed at a time if there is a mask
    Py_ssize_t panel_pitch       # the distance between two panels of columns, in elements


cdef inline WeightSizes read_weight_sizes(const Py_ssize_t* table) noexcept nogil:
    cdef WeightSizes s
    s.images, s.block_images, s.groups, s.filters = table[0], table[1], table[2], table[3]
    s.channels, s.block_channels, s.taps = table[4], table[5], table[6]
    s.channel_pitch, s.image_pitch, s.parts = table[7], table[8], table[9]
    s.panel_at, s.positions_at, s.edge_at, s.lists_at = table[10], table[11], table[12], table[13]
    s.list_pitch, s.panels_at_a_time, s.panel_pitch = table[14], table[15], table[16]
    return s


cdef Py_ssize_t pack_gradient(
    floating* panel, const floating* dout, const Block* b, const ConvAxis* axes, const WeightSizes* s,
    const Kernels* kernel, int tall,
) noexcept nogil:
    """Pack dout, for the output positions of a block, into panels of `tall` filters. Return the number of positions."""
    cdef Py_ssize_t[8] at
    cdef Py_ssize_t plane = axes[1].out * axes[2].out, positions = axes[0].out * plane
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


# The arguments of a call of `Contract.run`. All threads of the call read them.
cdef struct Contraction:
    const void* source
    const void* dout
    const void* weight_mask
    void* result
    Py_ssize_t part_pitch
    const Py_ssize_t* at
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    Py_ssize_t volume
    Py_ssize_t items
    Py_ssize_t blocks
    fc_work_queue* queue
    WeightSizes sizes
    ConvAxis[3] axes
    Kernels kernel
    # The four tile kernels. Kernels 0 and 2 read positions at listed offsets, 1 and 3 read contiguous positions.
    # Kernels 2 and 3 apply the weight mask.
    fc_tile_t[4] tiles
    fc_row_masked_t row_masked


cdef class Contract:
    """A plan that computes the gradient of the weights, dout @ columns(source).T, as one or more partial sums.

    With `parts` partial sums, result[p] is the sum over the blocks p, p + parts, p + 2 * parts, and so on. The caller
    adds the partial sums. `dtype` is 0 (float32) or 1 (float64). Each thread has `space_pitch` elements of the
    workspace.
    """

    cdef Contraction _contraction
    cdef tuple _tables    # The tuple keeps the tables alive, because `_contraction` has pointers into them.
    cdef int _dtype
    cdef Py_ssize_t _sources, _gradients, _results

    def __init__(self, int dtype, axes, phases, sizes, at, Py_ssize_t space_pitch, int isa):
        cdef Contraction* c = &self._contraction
        cdef Py_ssize_t i
        cdef const fc_microkernel_kernels* table = microkernel_for(dtype, isa)
        cdef Buffer of_phases = contiguous_buffer(phases, sizeof(Py_ssize_t), False)
        self._tables, self._dtype = (axes, phases, sizes, at), dtype
        c.at = index_pointer(at)
        c.space_pitch = space_pitch
        c.sizes = read_weight_sizes(index_pointer(sizes))
        read_conv_axes(c.axes, index_pointer(axes), <Py_ssize_t*> of_phases.at, of_phases.n // 3)
        c.kernel = kernels(dtype, isa)
        c.tiles[0], c.tiles[1] = table.tile_listed, table.tile
        c.tiles[2], c.tiles[3] = table.tile_masked_listed, table.tile_masked
        c.row_masked = table.row_masked
        fc_check(c.sizes.panels_at_a_time <= MOST_PANELS_AT_A_TIME and c.kernel.vectors <= MOST_VECTORS)
        c.volume = c.axes[0].size * c.axes[1].size * c.axes[2].size
        c.blocks = ceil_div(c.sizes.images, c.sizes.block_images)
        for i in range(3):
            c.blocks *= ceil_div(c.axes[i].out, c.axes[i].block)
        c.items = c.sizes.parts * c.sizes.groups * ceil_div(c.sizes.channels, c.sizes.block_channels)
        self._sources = c.sizes.images * c.sizes.groups * c.sizes.channels * c.volume
        self._gradients = c.sizes.images * c.sizes.groups * c.sizes.filters
        self._gradients *= c.axes[0].out * c.axes[1].out * c.axes[2].out
        self._results = c.sizes.groups * c.sizes.filters * c.sizes.channels * c.sizes.taps

    def run(self, source, dout, result, space, queue, weight_mask=None):
        """Run the plan. All arrays have the dtype of the plan. If `queue` is None, the calling thread works alone.

        If `weight_mask` is given, the result is 0 where the mask is 0. Only a plan with one partial sum supports a
        mask.
        """
        cdef Contraction c = self._contraction
        cdef Py_ssize_t itemsize = 8 if self._dtype else 4
        cdef fc_work_queue own
        cdef Buffer results = contiguous_buffer(result, itemsize, True)
        cdef Buffer workspace = contiguous_buffer(space, itemsize, True)
        cdef Buffer sources = contiguous_buffer(source, itemsize, False)
        cdef Buffer gradients = contiguous_buffer(dout, itemsize, False)
        cdef Buffer weights = results
        c.source, c.dout, c.result = sources.at, gradients.at, results.at
        c.space, c.workspaces = workspace.at, workspace.n // c.space_pitch
        c.part_pitch = results.n // c.sizes.parts
        if weight_mask is not None:
            weights = contiguous_buffer(weight_mask, itemsize, False)
            c.weight_mask = weights.at
        if queue is None:
            fc_serial_queue(&own)
            c.queue = &own
        else:
            c.queue = work_queue(queue)
        with nogil:
            fc_check(sources.n == self._sources and gradients.n == self._gradients and c.part_pitch == self._results)
            fc_check(c.weight_mask == NULL or (weights.n == results.n and c.sizes.parts == 1))
            fc_parallel_for(c.queue, weights_of_double if self._dtype else weights_of_float, &c)


cdef void weights_of_float(void* task) noexcept nogil:
    contractions_worker(<const Contraction*> task, <float*> NULL)


cdef void weights_of_double(void* task) noexcept nogil:
    contractions_worker(<const Contraction*> task, <double*> NULL)


cdef void contractions_worker(const Contraction* c, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is one partial sum of the gradient for one block of channels.
    """
    cdef const WeightSizes* s = &c.sizes
    cdef const ConvAxis* axes = &c.axes[0]
    cdef Block block
    cdef const floating* weight_mask
    cdef Py_ssize_t group, channel, part, block_index, rest, i, at, worker_id = fc_worker_id(c.queue)
    cdef Py_ssize_t positions = axes[0].out * axes[1].out * axes[2].out, index = fc_next_item(c.queue, c.items)
    fc_check(worker_id < c.workspaces)
    while index < c.items:
        rest = unravel_block(&channel, index, s.channels, s.block_channels)
        group, part = rest % s.groups, rest // s.groups
        block_index = part
        at = (group * s.filters * s.channels + channel) * s.taps
        while block_index < c.blocks and not fc_stopped(c.queue):
            rest = block_index
            for i in range(2, -1, -1):
                rest = unravel_block(&block.begin[i], rest, axes[i].out, axes[i].block)
                block.n[i] = min(axes[i].block, axes[i].out - block.begin[i])
            unravel_block(&block.image, rest, s.images, s.block_images)
            block.images = min(s.block_images, s.images - block.image)
            # Apply the mask together with the last block, because the sums are complete only after this block.
            weight_mask = NULL
            if c.weight_mask != NULL and block_index + s.parts >= c.blocks:
                weight_mask = <const floating*> c.weight_mask + at
            contract(
                <const floating*> c.source + (group * s.channels + channel) * c.volume,
                <const floating*> c.dout + group * s.filters * positions,
                <floating*> c.result + part * c.part_pitch + at,
                &block, s, axes, min(s.block_channels, s.channels - channel), c.at,
                <floating*> c.space + worker_id * c.space_pitch, &c.kernel, c.tiles, c.volume,
                block_index > part, weight_mask, c.row_masked, c.queue,
            )
            block_index += s.parts
        index = fc_next_item(c.queue, c.items)


cdef void contract(
    const floating* source, const floating* dout, floating* result, const Block* block, const WeightSizes* s,
    const ConvAxis* axes, Py_ssize_t channels, const Py_ssize_t* at, floating* space, const Kernels* kernel,
    const fc_tile_t* tiles, Py_ssize_t volume, bint add, const floating* weight_mask, fc_row_masked_t row_masked,
    fc_work_queue* queue,
) noexcept nogil:
    """Compute the product [filters x positions] @ [positions x channels * taps] for one block of output positions. If
    `weight_mask` is not NULL, the result is 0 where the mask is 0.

    A masked kernel computes only a few rows of the result. So with a mask, several panels of columns are packed, and
    all of them are multiplied by a few rows of dout before the next rows are read. The kernels then access long
    contiguous parts of each row of the result. With one panel at a time, successive cache lines of the result would be
    in different pages, and the hardware would not prefetch them.
    """
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
    cdef fc_tile_t tile = tiles[close], full = tiles[close if weight_mask == NULL else 2 + close]
    cdef floating* panel
    cdef floating* transposed
    cdef const floating* cells
    cdef floating* packed = space + s.positions_at
    cdef floating* edge = space + s.edge_at
    cdef floating* edge_mask = edge + kernel.rows * kernel.vectors * kernel.lanes    # the mask of an edge tile
    cdef Py_ssize_t* lists = <Py_ssize_t*> (space + s.lists_at)
    cdef Py_ssize_t* list
    cdef fc_run run
    for p in range(MOST_VECTORS + 1):
        listed[p] = False
    if runs > 1:
        length = block.n[2]
    fill(
        space, source, channels, s.groups * s.channels * volume, axes, block, s.channel_pitch, s.image_pitch, kernel,
        True,
    )
    n = pack_gradient(space + s.panel_at, dout, block, axes, s, kernel, tall)
    panel = space + s.panel_at
    if (
        weight_mask != NULL and not add and close and n <= FC_MASKED_ROW_MAX_K
        and (columns + kernel.lanes) * n <= s.panels_at_a_time * s.panel_pitch
    ):
        transposed = packed
        while column < columns:
            here = min(<Py_ssize_t> kernel.lanes, columns - column)
            for plane in range(block.images * block.n[0]):
                cells = space + plane // block.n[0] * s.image_pitch + plane % block.n[0] * axes[0].pitch
                for oh in range(runs):
                    kernel.interleave(transposed, kernel.lanes, cells + oh * pitch, &at[column], here, length)
                    transposed = transposed + length * kernel.lanes
            column += here
        for row in range(s.filters):
            if row & 127 == 0 and fc_stopped(queue):
                return
            # In a panel of dout, the values of all filters at one position are contiguous.
            first = row - row % tall
            row_masked(<int> n, panel + first * n + row % tall, min(<Py_ssize_t> tall, s.filters - first), packed,
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
                cells = space + plane // block.n[0] * s.image_pitch + plane % block.n[0] * axes[0].pitch
                for oh in range(runs):
                    kernel.interleave(transposed, width, cells + oh * pitch, &at[column], here, length)
                    transposed = transposed + length * width
            column += here
            panels += 1
        panel = space + s.panel_at
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
