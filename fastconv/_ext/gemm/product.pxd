# Forward and backward_data by implicit GEMM: the worker, and the matrix products of a work item.

from libc.math cimport isfinite

from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.gemm.tiles cimport (
    CONTIGUOUS, PACKED, SWAPPED, Item, Segments, Tile, item_at, place_tile, segments,
)
from fastconv._ext.gemm.microkernel cimport Kernels, fc_run, fc_tile_t, next_vectors
from fastconv._ext.packing.panels cimport LAYOUT_ROWS, MOST_LANES, Sizes, pack_weights
from fastconv._ext.packing.patches cimport ConvAxis, fill
from fastconv._ext.buffers.runs cimport fc_check, fc_fetch_add, floating
from fastconv._ext.threads.team cimport (
    fc_atomic_exchange, fc_atomic_load, fc_next_item, fc_stopped, fc_work_queue, fc_worker_id,
)


cdef enum:
    # The largest number of tiles that are multiplied by the same rows of weights. It equals `_MOST_TILES` of
    # fastconv.convolution.implicit_gemm.tiling.
    MOST_TILES = 16
    FEW_POSITIONS = 64


# The arguments of a call. All threads of the call read them.
cdef struct Product:
    const void* source
    const void* w
    const void* bias
    void* result
    const Py_ssize_t* at
    const Py_ssize_t* tap_of
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    void* shared            # the packed panels of weights that threads share
    # Two numbers for each shared panel: how many threads asked to pack the panel, and whether it is packed.
    Py_ssize_t* flags
    Py_ssize_t group_step   # the distance between the weights of two consecutive groups, in elements
    Py_ssize_t volume       # the number of cells of a channel of the source
    Py_ssize_t positions    # the number of cells of a channel of the result
    Py_ssize_t items
    fc_work_queue* queue
    Sizes sizes
    ConvAxis[3] axes
    Kernels kernel
    # The tile kernels. The first index is 1 if weights are not packed. The second index is 1 if positions are packed in
    # a panel.
    fc_tile_t[2][2] tiles


cdef inline const floating* packed_weights(
    floating* own, const floating* factors, const Product* p, const Item* item, Py_ssize_t k0, Py_ssize_t n
) noexcept nogil:
    """Return a packed panel with the weights of the rows of a work item, for k in [k0, k0 + n).

    If panels are shared, the first thread that needs a panel packs it. A thread that needs the panel before it is
    complete does not wait, but packs a copy of its own.
    """
    cdef const Sizes* s = &p.sizes
    cdef const Kernels* kernel = &p.kernel
    cdef Py_ssize_t blocks_of_k = ceil_div(s.block_channels * s.taps, s.kc), chunk = s.block_channels * s.taps, at
    cdef Py_ssize_t* flags
    cdef floating* panel
    if s.panels:
        at = item.group * ceil_div(s.rows, s.mc) + item.row // s.mc
        at = (at * ceil_div(s.channels, s.block_channels) + k0 // chunk) * blocks_of_k + k0 % chunk // s.kc
        fc_check(at < s.panels and item.rows * n <= s.panel_pitch)
        panel, flags = <floating*> p.shared + at * s.panel_pitch, p.flags + 2 * at
        if fc_atomic_load(&flags[1]):
            return panel
        if fc_fetch_add(&flags[0], 1) == 0:
            pack_weights(panel, factors, s, p.tap_of, item.rows, k0, k0 + n, kernel.rows, False, kernel)
            fc_atomic_exchange(&flags[1], 1)
            return panel
    pack_weights(own, factors, s, p.tap_of, item.rows, k0, k0 + n, kernel.rows, False, kernel)
    return own


# The weights of a work item in one block of the inner dimension k, and the rows of the result. The products of the
# weights and the image are written or added to these rows.
cdef struct Factors:
    const void* a            # the weights: packed panels or, if `direct` is set, the weight array
    Py_ssize_t step          # if `direct` is set: the distance between two rows of weights, in elements
    bint direct
    Py_ssize_t n             # the number of indices k in the block
    Py_ssize_t rows
    int tile_rows            # the largest number of rows of a tile
    const void* bias
    void* to
    Py_ssize_t positions     # the distance between two rows of the result, in elements
    bint add                 # whether products are added to the result


# A tile of the result of a product a @ b: the operand b, and the offset of the tile in a row of the result. In each
# row, the elements of the tile are contiguous.
cdef struct OutputTile:
    int vectors
    Py_ssize_t target
    const void* b
    const Py_ssize_t* rows_of_b    # the offset of each row of b, or NULL if b is a panel
    fc_tile_t product


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
    const Product* p, const Item* item, Py_ssize_t channel, Py_ssize_t channels, floating* space
) noexcept nogil:
    """Compute the product [rows x k] @ [k x positions] of a work item, for some of its channels. Weights are packed in
    panels of rows, and positions are divided into tiles.
    """
    cdef const Sizes* s = &p.sizes
    cdef const ConvAxis* axes = &p.axes[0]
    cdef const Kernels* kernel = &p.kernel
    cdef const Py_ssize_t* at = p.at
    cdef Py_ssize_t k = s.channels * s.taps, begin = channel * s.taps, end = (channel + channels) * s.taps
    cdef Py_ssize_t k0, n, width, length, segment, position, count = 0
    cdef Py_ssize_t first_row = item.group * s.rows + item.row, image_step = s.groups * s.rows * p.positions
    cdef const floating* weights = <const floating*> p.w + item.group * p.group_step + item.row * s.row_step
    cdef floating* packed
    cdef floating* edge = (
        space + s.positions_at + (s.tiles * s.kc + 1) * kernel.vectors * kernel.lanes
    )
    cdef const floating* base = space
    cdef Factors factors
    cdef Segments st = segments(item, s, axes)
    cdef Tile tile
    cdef OutputTile[MOST_TILES] output_tiles
    cdef OutputTile* output_tile
    cdef Py_ssize_t behind = (
        (((s.images - item.block.image) * s.groups - item.group) * s.channels - channel - channels) * p.volume
    )
    cdef bint near_end, gathered
    cdef fc_run run
    # If there are few tiles, do not pack the weights, because packing reads and writes each weight once more.
    factors.direct = (
        s.weight_layout == LAYOUT_ROWS and st.count * st.length <= max(2 * kernel.vectors * kernel.lanes, FEW_POSITIONS)
    )
    factors.step, factors.rows, factors.tile_rows = s.row_step, item.rows, kernel.rows
    factors.to, factors.positions = <floating*> p.result + first_row * p.positions, p.positions
    if s.mode == CONTIGUOUS:
        base = (
            <const floating*> p.source + (item.block.image * s.groups + item.group) * s.channels * p.volume
            + channel * p.volume + item.block.begin[2]
        )
    k0 = begin
    while k0 < end:
        n = min(s.kc, end - k0)
        factors.n, factors.add, factors.bias = n, k0 > 0, NULL
        if p.bias is not NULL and k0 + n == k:
            factors.bias = <const floating*> p.bias + first_row
        factors.a = weights + k0
        if not factors.direct:
            factors.a = packed_weights(space + s.panel_at, weights, p, item, k0, n)
        for segment in range(st.count):
            if fc_stopped(p.queue):
                return
            position = 0
            while position < st.length:
                length = st.length - position
                tile.vectors = next_vectors((length + kernel.lanes - 1) // kernel.lanes, kernel.vectors)
                width = tile.vectors * kernel.lanes
                place_tile(&tile, segment, position, width, &st, item, s, axes, image_step)
                output_tile = &output_tiles[count]
                packed = space + s.positions_at + count * s.kc * kernel.vectors * kernel.lanes
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
    const Product* p, const Item* item, Py_ssize_t channel, Py_ssize_t channels, floating* space
) noexcept nogil:
    """Compute the product [positions x k] @ [k x rows] of a work item, with swapped operands, for some of its channels.

    Vector lanes hold rows of weights instead of positions. So the lanes are filled even if there are few positions.
    """
    cdef const Sizes* s = &p.sizes
    cdef const ConvAxis* axes = &p.axes[0]
    cdef const Kernels* kernel = &p.kernel
    cdef const Py_ssize_t* at = p.at
    cdef Py_ssize_t k = s.channels * s.taps, begin = channel * s.taps, end = (channel + channels) * s.taps
    cdef Py_ssize_t k0, n, row, width, here, first, position, count, i
    cdef Py_ssize_t positions = p.positions, first_row = item.group * s.rows + item.row
    cdef Py_ssize_t image_step = s.groups * s.rows * positions
    cdef const floating* factors = <const floating*> p.w + item.group * p.group_step + item.row * s.row_step
    cdef const floating* bias = <const floating*> p.bias
    cdef Py_ssize_t[8] lanes_at
    cdef floating* panel = space + s.panel_at
    cdef floating* packed = space + s.positions_at
    cdef floating* panels
    cdef floating* transposed
    cdef floating* edge
    cdef Segments st = segments(item, s, axes)
    cdef Tile tile
    cdef int vectors
    edge = packed + (st.length // kernel.rows + 1) * kernel.rows * s.kc + MOST_LANES
    transposed = edge + kernel.rows * kernel.vectors * kernel.lanes
    k0 = begin
    while k0 < end:
        n = min(s.kc, end - k0)
        # Pack the elements that all positions read for the indices [k0, k0 + n), in panels of `kernel.rows` positions.
        panels = packed
        first = 0
        while first < st.length:
            count = min(<Py_ssize_t> kernel.rows, st.length - first)
            place_tile(&tile, 0, first, count, &st, item, s, axes, image_step)
            kernel.gather(panels, count, space, &at[k0 - begin], n, tile.source, tile.sources, 0)
            panels = panels + count * n
            first += count
        row = 0
        while row < item.rows and not fc_stopped(p.queue):
            vectors = next_vectors((item.rows - row + kernel.lanes - 1) // kernel.lanes, kernel.vectors)
            width = vectors * kernel.lanes
            here = min(width, item.rows - row)
            pack_weights(panel, factors + row * s.row_step, s, p.tap_of, here, k0, k0 + n, width, True, kernel)
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
                    <floating*> p.result + (first_row + row) * positions, positions, axes[2].output_stride, transposed,
                    count, here, tile.target, tile.targets, k0 > 0,
                )
                panels = panels + count * n
                position += count
            row += width
        k0 += n


cdef inline void products_worker(const Product* p, floating* dtype) noexcept nogil:
    """Process work items until none are left. A work item is some rows of the result in one block of outputs."""
    cdef Item item
    cdef Py_ssize_t filled = -1, worker_id = fc_worker_id(p.queue), index = fc_next_item(p.queue, p.items)
    cdef Py_ssize_t channel, channels
    cdef floating* space = <floating*> p.space + worker_id * p.space_pitch
    fc_check(worker_id < p.workspaces)
    while index < p.items:
        item = item_at(index, &p.sizes, p.axes)
        channel = 0
        while channel < p.sizes.channels:
            channels = min(p.sizes.block_channels, p.sizes.channels - channel)
            if p.sizes.mode != CONTIGUOUS and (filled != item.place or channels < p.sizes.channels):
                filled = item.place
                fill(
                    space, <const floating*> p.source + (item.group * p.sizes.channels + channel) * p.volume, channels,
                    p.sizes.groups * p.sizes.channels * p.volume, p.axes, &item.block, p.sizes.channel_pitch,
                    p.sizes.image_pitch, &p.kernel, False,
                )
            if p.sizes.mode == SWAPPED:
                multiply_swapped(p, &item, channel, channels, space)
            else:
                multiply(p, &item, channel, channels, space)
            channel += channels
        index = fc_next_item(p.queue, p.items)


cdef inline void product_of_float(void* task) noexcept nogil:
    products_worker(<const Product*> task, <float*> NULL)


cdef inline void product_of_double(void* task) noexcept nogil:
    products_worker(<const Product*> task, <double*> NULL)


cdef inline bint rows_begin_finite(const Product* p, floating* dtype) noexcept nogil:
    """Return whether, in the first image, the first result of every row is finite."""
    cdef const ConvAxis* d = &p.axes[0]
    cdef const ConvAxis* h = &p.axes[1]
    cdef const ConvAxis* w = &p.axes[2]
    cdef const floating* first = <const floating*> p.result + (d.output_offset * h.output_size
                                                               + h.output_offset) * w.output_size + w.output_offset
    cdef Py_ssize_t row
    cdef bint finite = True
    for row in range(p.sizes.groups * p.sizes.rows):
        finite &= isfinite(<double> first[row * p.positions]) != 0
    return finite
