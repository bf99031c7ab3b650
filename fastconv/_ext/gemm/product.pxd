# Forward and backward_data by implicit GEMM: the worker, and the matrix products of a work item.

from libc.math cimport isfinite

from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.gemm.tiles cimport (
    CONTIGUOUS, PACKED, SWAPPED, Item, Segments, Sizes, Tile, item_at, place_tile, segments,
)
from fastconv._ext.gemm.microkernel cimport Kernels, fc_run, fc_tile_t, next_vectors
from fastconv._ext.packing.panels cimport LAYOUT_ROWS, WeightMatrix, pack_weights
from fastconv._ext.packing.patches cimport ConvAxis, fill
from fastconv._ext.buffers.runs cimport fc_check, fc_fetch_add, floating
from fastconv._ext.threads.team cimport (
    fc_atomic_exchange, fc_atomic_load, fc_next_item, fc_stopped, fc_work_queue, fc_worker_id,
)


cdef enum:
    MOST_TILES = 16      # The largest number of tiles that are multiplied by the same rows of weights.
    # Weights are not packed if a work item has at most FEW_POSITIONS positions, or at most two tiles of positions.
    FEW_POSITIONS = 64


# What all calls of a plan have in common.
cdef struct Product:
    Sizes sizes
    WeightMatrix weights
    ConvAxis[3] axes
    # For each channel of a block and each tap: the offset of the cell that output 0 reads, in elements of the block or,
    # in the mode CONTIGUOUS, of the source.
    const Py_ssize_t* cell_offsets
    Kernels kernel
    # The tile kernels. The first index is 1 if weights are not packed. The second index is 1 if positions are packed in
    # a panel.
    fc_tile_t[2][2] tiles


# The state of a panel of packed weights that threads share.
cdef struct PanelState:
    Py_ssize_t requests   # how many threads have asked to pack the panel
    Py_ssize_t packed     # 1 if the panel is packed, otherwise 0


# A call of a plan. All threads of the call read it.
cdef struct ProductCall:
    const Product* plan
    const void* source       # the image or, for dx, dout
    const void* w
    const void* bias         # NULL if there is no bias
    void* result
    Py_ssize_t group_step    # the distance between the weights of two groups, in elements
    void* scratchpads        # the scratchpads of all threads, one after another
    Py_ssize_t workers       # the number of scratchpads
    void* panels             # the shared panels
    PanelState* states       # the state of each shared panel
    fc_work_queue* queue


cdef inline const floating* packed_weights(
    floating* own, const floating* w, const ProductCall* call, const Item* item, Py_ssize_t k0, Py_ssize_t n
) noexcept nogil:
    """Return a packed panel with the weights of the rows of a work item, for k in [k0, k0 + n).

    If panels are shared, the first thread that needs a panel packs it. A thread that needs the panel before it is
    complete does not wait, but packs a copy of its own, to the array `own`.
    """
    cdef const Product* p = call.plan
    cdef const Sizes* s = &p.sizes
    cdef const Kernels* kernel = &p.kernel
    cdef Py_ssize_t chunk = s.block_channels * p.weights.taps, blocks_of_k = ceil_div(chunk, s.kc), at
    cdef PanelState* state
    cdef floating* panel
    if s.panels:
        at = item.group * ceil_div(s.rows, s.mc) + item.row // s.mc
        at = (at * ceil_div(s.channels, s.block_channels) + k0 // chunk) * blocks_of_k + k0 % chunk // s.kc
        fc_check(at < s.panels and item.rows * n <= s.panel_pitch)
        panel, state = <floating*> call.panels + at * s.panel_pitch, &call.states[at]
        if fc_atomic_load(&state.packed):
            return panel
        if fc_fetch_add(&state.requests, 1) == 0:
            pack_weights(panel, w, &p.weights, item.rows, k0, k0 + n, kernel.rows, False, kernel)
            fc_atomic_exchange(&state.packed, 1)
            return panel
    pack_weights(own, w, &p.weights, item.rows, k0, k0 + n, kernel.rows, False, kernel)
    return own


# The weights of a work item in one block of the inner dimension k, and the rows of the result. The products of the
# weights and the image are written or added to these rows.
cdef struct Factors:
    const void* a            # the weights: packed panels or, if `direct` is set, the weight array
    Py_ssize_t step          # if `direct` is set: the distance between two rows of weights, in elements
    bint direct
    Py_ssize_t n             # the number of indices k in the block
    Py_ssize_t rows          # the number of rows of the work item
    int tile_rows            # the largest number of rows of a tile
    const void* bias         # the bias of the first row, or NULL in all blocks of k but the last
    void* to                 # the first row of the result
    Py_ssize_t positions     # the distance between two rows of the result, in elements
    bint add                 # whether products are added to the result


# A tile of the result of a product a @ b. In each row, the elements of the tile are contiguous.
cdef struct OutputTile:
    int vectors                    # the number of vectors of a row of the tile
    Py_ssize_t target              # the offset of the tile in a row of the result
    const void* b                  # the operand b
    const Py_ssize_t* rows_of_b    # the offset of each row of b, or NULL if b is a panel
    fc_tile_t product              # the kernel that multiplies the tile


cdef inline void multiply_tiles(
    const Factors* f, const OutputTile* output_tiles, Py_ssize_t count, floating* dtype
) noexcept nogil:
    """Multiply tiles by rows of weights. All tiles are multiplied by a few rows before the next rows are read.

    If all tiles are multiplied by the same few rows, the results of neighbouring tiles are written to a row one after
    another. If each tile were multiplied by all rows first, the writes would alternate between all rows of the result.
    Rows of the result share cache sets, so half-written cache lines would be evicted and loaded again. With a short
    inner dimension, these loads would take longer than the products.
    """
    cdef Py_ssize_t row = 0, rows, i, step
    cdef const floating* panels = <const floating*> f.a
    cdef const floating* bias = NULL
    while row < f.rows:
        rows = min(<Py_ssize_t> f.tile_rows, f.rows - row)
        step = f.step if f.direct else rows
        if f.bias is not NULL:
            bias = <const floating*> f.bias + row
        for i in range(count):
            output_tiles[i].product(
                <int> rows, output_tiles[i].vectors, f.n, panels, step, output_tiles[i].b, output_tiles[i].rows_of_b,
                <floating*> f.to + row * f.positions + output_tiles[i].target, f.positions, bias, f.add,
            )
        panels = panels + rows * (f.step if f.direct else f.n)
        row += rows


cdef inline void multiply_edge_tile(
    const Factors* f, const OutputTile* output_tile, floating* edge, const Tile* tile, Py_ssize_t output_stride,
    const Kernels* kernel,
) noexcept nogil:
    """Multiply a tile whose results are not contiguous. The results go to the buffer `edge` first, and are then copied
    to the rows of the result.
    """
    cdef Factors part = f[0]
    cdef Py_ssize_t row = 0, width = output_tile.vectors * kernel.lanes
    cdef OutputTile edge_tile = output_tile[0]
    edge_tile.target = 0
    part.to, part.positions, part.add = edge, width, False
    while row < f.rows:
        part.rows = min(<Py_ssize_t> f.tile_rows, f.rows - row)
        part.a = <const floating*> f.a + row * (f.step if f.direct else f.n)
        if f.bias is not NULL:
            part.bias = <const floating*> f.bias + row
        multiply_tiles(&part, &edge_tile, 1, edge)
        kernel.scatter(<floating*> f.to + row * f.positions, f.positions, output_stride, edge, width, part.rows,
                       tile.target, tile.targets, f.add)
        row += part.rows


cdef inline void multiply(
    const ProductCall* call, const Item* item, Py_ssize_t channel, Py_ssize_t channels, floating* scratchpad
) noexcept nogil:
    """Compute the product [rows x k] @ [k x positions] of a work item, for some of its channels. Weights are packed in
    panels of rows, and positions are divided into tiles.
    """
    cdef const Product* p = call.plan
    cdef const Sizes* s = &p.sizes
    cdef const ConvAxis* axes = &p.axes[0]
    cdef const Kernels* kernel = &p.kernel
    cdef const Py_ssize_t* at = p.cell_offsets
    cdef Py_ssize_t taps = p.weights.taps, k = s.channels * taps, begin = channel * taps, end = begin + channels * taps
    cdef Py_ssize_t k0, n, width, length, segment, position, count = 0
    cdef Py_ssize_t first_row = item.group * s.rows + item.row, image_step = s.groups * s.rows * s.positions
    cdef Py_ssize_t row_step = p.weights.row_step
    cdef const floating* w = <const floating*> call.w + item.group * call.group_step + item.row * row_step
    cdef floating* packed
    cdef floating* edge = scratchpad + s.edge_at
    cdef const floating* base = scratchpad + s.block_at
    cdef Factors factors
    cdef Segments st = segments(item, s, axes)
    cdef Tile tile
    cdef OutputTile[MOST_TILES] output_tiles
    cdef OutputTile* output_tile
    cdef Py_ssize_t behind = (
        (((s.images - item.block.image) * s.groups - item.group) * s.channels - channel - channels) * s.volume
    )
    cdef bint near_end, gathered
    cdef fc_run run
    # If there are few tiles, do not pack the weights, because packing reads and writes each weight once more.
    factors.direct = (
        p.weights.layout == LAYOUT_ROWS
        and st.count * st.length <= max(2 * kernel.vectors * kernel.lanes, FEW_POSITIONS)
    )
    factors.step, factors.rows, factors.tile_rows = row_step, item.rows, kernel.rows
    factors.to, factors.positions = <floating*> call.result + first_row * s.positions, s.positions
    if s.mode == CONTIGUOUS:
        base = (
            <const floating*> call.source + (item.block.image * s.groups + item.group) * s.channels * s.volume
            + channel * s.volume + item.block.begin[2]
        )
    k0 = begin
    while k0 < end:
        n = min(s.kc, end - k0)
        factors.n, factors.add, factors.bias = n, k0 > 0, NULL
        if call.bias is not NULL and k0 + n == k:
            factors.bias = <const floating*> call.bias + first_row
        factors.a = w + k0
        if not factors.direct:
            factors.a = packed_weights(scratchpad + s.panel_at, w, call, item, k0, n)
        for segment in range(st.count):
            if fc_stopped(call.queue):
                return
            position = 0
            while position < st.length:
                length = st.length - position
                tile.vectors = next_vectors((length + kernel.lanes - 1) // kernel.lanes, kernel.vectors)
                width = tile.vectors * kernel.lanes
                place_tile(&tile, segment, position, width, &st, item, s, axes, image_step)
                output_tile = &output_tiles[count]
                packed = scratchpad + s.positions_at + count * s.kc * kernel.vectors * kernel.lanes
                # A tile may read past the last channel of the work item, but not past the end of the source.
                near_end = s.mode == CONTIGUOUS and behind < width - length
                gathered = s.mode == PACKED or near_end or s.packing
                if s.mode == PACKED or near_end:
                    kernel.gather(packed, width, base, &at[k0 - begin], n, tile.source, tile.sources, not near_end)
                elif gathered:
                    run.at, run.lane, run.n = tile.base, 0, width
                    kernel.gather(packed, width, base, &at[k0 - begin], n, &run, 1, True)
                output_tile.b, output_tile.rows_of_b = base + tile.base, &at[k0 - begin]
                if gathered:
                    output_tile.b, output_tile.rows_of_b = packed, NULL
                output_tile.vectors, output_tile.product = tile.vectors, p.tiles[factors.direct][gathered]
                if tile.whole:
                    output_tile.target = tile.target[0].at
                    count += 1
                else:
                    multiply_edge_tile(&factors, output_tile, edge, &tile, axes[2].output_stride, kernel)
                if count == s.tiles:
                    multiply_tiles(&factors, output_tiles, count, edge)
                    count = 0
                position += width
        multiply_tiles(&factors, output_tiles, count, edge)
        count = 0
        k0 += n


cdef inline void multiply_swapped(
    const ProductCall* call, const Item* item, Py_ssize_t channel, Py_ssize_t channels, floating* scratchpad
) noexcept nogil:
    """Compute the product [positions x k] @ [k x rows] of a work item, with swapped operands, for some of its channels.

    Vector lanes hold rows of weights instead of positions. So the lanes are filled even if there are few positions.
    """
    cdef const Product* p = call.plan
    cdef const Sizes* s = &p.sizes
    cdef const ConvAxis* axes = &p.axes[0]
    cdef const Kernels* kernel = &p.kernel
    cdef const Py_ssize_t* at = p.cell_offsets
    cdef Py_ssize_t taps = p.weights.taps, k = s.channels * taps, begin = channel * taps, end = begin + channels * taps
    cdef Py_ssize_t k0, n, row, width, here, first, position, count, i
    cdef Py_ssize_t positions = s.positions, first_row = item.group * s.rows + item.row
    cdef Py_ssize_t image_step = s.groups * s.rows * positions
    cdef Py_ssize_t row_step = p.weights.row_step
    cdef const floating* w = <const floating*> call.w + item.group * call.group_step + item.row * row_step
    cdef const floating* bias = <const floating*> call.bias
    cdef Py_ssize_t[8] lanes_at
    cdef const floating* block = scratchpad + s.block_at
    cdef floating* panel = scratchpad + s.panel_at
    cdef floating* packed = scratchpad + s.positions_at
    cdef floating* edge = scratchpad + s.edge_at
    cdef floating* transposed = scratchpad + s.transposed_at
    cdef floating* panels
    cdef Segments st = segments(item, s, axes)
    cdef Tile tile
    cdef int vectors
    k0 = begin
    while k0 < end:
        n = min(s.kc, end - k0)
        # For the indices [k0, k0 + n), pack the elements that each position reads. A panel has `kernel.rows` positions.
        panels = packed
        first = 0
        while first < st.length:
            count = min(<Py_ssize_t> kernel.rows, st.length - first)
            place_tile(&tile, 0, first, count, &st, item, s, axes, image_step)
            kernel.gather(panels, count, block, &at[k0 - begin], n, tile.source, tile.sources, 0)
            panels = panels + count * n
            first += count
        row = 0
        while row < item.rows and not fc_stopped(call.queue):
            vectors = next_vectors((item.rows - row + kernel.lanes - 1) // kernel.lanes, kernel.vectors)
            width = vectors * kernel.lanes
            here = min(width, item.rows - row)
            pack_weights(panel, w + row * row_step, &p.weights, here, k0, k0 + n, width, True, kernel)
            for i in range(kernel.rows):
                lanes_at[i] = i * width
            panels = packed
            position = 0
            while position < st.length:
                count = min(<Py_ssize_t> kernel.rows, st.length - position)
                place_tile(&tile, 0, position, count, &st, item, s, axes, image_step)
                p.tiles[0][1](<int> count, vectors, n, panels, count, panel, NULL, edge, width, NULL, 0)
                if bias is not NULL and k0 + n == k:
                    for first in range(count):
                        for i in range(here):
                            edge[first * width + i] += bias[first_row + row + i]
                kernel.interleave(transposed, count, edge, lanes_at, count, here)
                kernel.scatter(
                    <floating*> call.result + (first_row + row) * positions, positions, axes[2].output_stride,
                    transposed, count, here, tile.target, tile.targets, k0 > 0,
                )
                panels = panels + count * n
                position += count
            row += width
        k0 += n


cdef inline void products_worker(const ProductCall* call, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is some rows of the result in one block of outputs."""
    cdef const Product* p = call.plan
    cdef const Sizes* s = &p.sizes
    cdef Item item
    cdef Py_ssize_t filled = -1, worker_id = fc_worker_id(call.queue), index = fc_next_item(call.queue, s.items)
    cdef Py_ssize_t channel, channels
    cdef const floating* source
    cdef floating* scratchpad = <floating*> call.scratchpads + worker_id * s.scratchpad
    fc_check(worker_id < call.workers)
    while index < s.items:
        item = item_at(index, s, p.axes)
        channel = 0
        while channel < s.channels:
            channels = min(s.block_channels, s.channels - channel)
            if s.mode != CONTIGUOUS and (filled != item.place or channels < s.channels):
                filled = item.place
                source = <const floating*> call.source + (item.group * s.channels + channel) * s.volume
                fill(
                    scratchpad + s.block_at, source, channels, s.groups * s.channels * s.volume, p.axes, &item.block,
                    s.channel_pitch, s.image_pitch, &p.kernel, False,
                )
            if s.mode == SWAPPED:
                multiply_swapped(call, &item, channel, channels, scratchpad)
            else:
                multiply(call, &item, channel, channels, scratchpad)
            channel += channels
        index = fc_next_item(call.queue, s.items)


cdef inline void product_of_float(void* task) noexcept nogil:
    products_worker(<const ProductCall*> task, <float*> NULL)


cdef inline void product_of_double(void* task) noexcept nogil:
    products_worker(<const ProductCall*> task, <double*> NULL)


cdef inline bint rows_begin_finite(const ProductCall* call, floating* dtype) noexcept nogil:
    """Return whether, in the first image, the first result of every row is finite."""
    cdef const Sizes* s = &call.plan.sizes
    cdef const ConvAxis* d = &call.plan.axes[0]
    cdef const ConvAxis* h = &call.plan.axes[1]
    cdef const ConvAxis* w = &call.plan.axes[2]
    cdef const floating* first = <const floating*> call.result + (d.output_offset * h.output_size
                                                                  + h.output_offset) * w.output_size + w.output_offset
    cdef Py_ssize_t row
    cdef bint finite = True
    for row in range(s.groups * s.rows):
        finite &= isfinite(<double> first[row * s.positions]) != 0
    return finite
