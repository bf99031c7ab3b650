"""Implicit GEMM: the matrix product of weights and im2col columns. The matrix of columns is never built, because
packing reads the image itself.

This module computes forward and backward_data. A position is one output of a plane. Vector lanes hold positions, or
filters if there are few positions. fastconv.convolution.implicit_gemm.calls divides the work into items, and makes all
tables that are read here.
"""

from libc.math cimport isfinite
from libc.string cimport memset

from fastconv._ext.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.blocks cimport ceil_div, unravel_block
from fastconv._ext.kernels cimport (
    FC_ISAS, Kernels, fc_isa_compiled, fc_isa_names, fc_isa_usable, fc_microkernel_for, fc_microkernel_kernels, fc_run,
    fc_tile_t, kernels, next_vectors,
)
from fastconv._ext.panels cimport LAYOUT_ROWS, MOST_LANES, Sizes, pack_weights, read_sizes
from fastconv._ext.patches cimport Block, ConvAxis, fill, read_conv_axes
from fastconv._ext.runs cimport fc_check, fc_fetch_add, floating
from fastconv._ext.team cimport (
    fc_atomic_exchange, fc_atomic_load, fc_next_item, fc_parallel_for, fc_serial_queue, fc_stopped, fc_work_queue,
    fc_worker_id, work_queue,
)

cdef extern from "cpu.h" nogil:
    enum:
        FC_VENDOR
    int fc_cpu(char* vendor) noexcept


cdef enum:
    # The largest number of tiles that are multiplied by the same rows of weights. It equals `_MOST_TILES` of
    # fastconv.convolution.implicit_gemm.tiling.
    MOST_TILES = 16
    FEW_POSITIONS = 64


cdef enum Mode:
    CONTIGUOUS   # The image itself is the matrix of columns, so no block is copied.
    PADDED_GRID    # Tiles are read from a padded block, and may cross rows. Results for the padding are dropped.
    ROW_WISE    # Tiles are read from a padded block, and each lies within one row.
    PACKED  # Positions are gathered from a padded block into panels, so that no lane is empty.
    SWAPPED  # Positions are gathered, too, but the operands are swapped, so that lanes hold filters.


# An item of work: the rows of the result, and the block of outputs, that one thread computes.
cdef struct Item:
    Py_ssize_t group
    Py_ssize_t row
    Py_ssize_t rows
    Py_ssize_t place     # the index of the block and the group; items with the same index read the same cells
    Block block


cdef Item item_at(Py_ssize_t index, const Sizes* s, const ConvAxis* axes) noexcept nogil:
    cdef Item item
    cdef Py_ssize_t i
    index = unravel_block(&item.row, index, s.rows, s.mc)
    item.rows = min(s.mc, s.rows - item.row)
    item.place = index
    for i in range(2, -1, -1):
        index = unravel_block(&item.block.begin[i], index, axes[i].out, axes[i].block)
        item.block.n[i] = min(axes[i].block, axes[i].out - item.block.begin[i])
    item.group = unravel_block(&item.block.image, index, s.images, s.block_images)
    item.block.images = min(s.block_images, s.images - item.block.image)
    return item


# A tile of positions. `source` lists its runs of contiguous lanes in the block, and `target` those in the result.
cdef struct Tile:
    int vectors
    Py_ssize_t base       # the offset of the first lane in the block; used if all lanes are contiguous there
    Py_ssize_t sources    # the number of runs in `source`
    Py_ssize_t targets    # the number of runs in `target`
    bint whole            # whether all lanes are used and are contiguous in the result
    fc_run[MOST_LANES] source
    fc_run[MOST_LANES] target


cdef inline void add_run(
    Tile* tile, Py_ssize_t source, Py_ssize_t target, Py_ssize_t lane, Py_ssize_t n, bint joined
) noexcept nogil:
    cdef fc_run* last
    cdef fc_run run
    run.at, run.lane, run.n = source, lane, n
    tile.source[tile.sources] = run
    tile.sources += 1
    if tile.targets and joined:
        last = &tile.target[tile.targets - 1]
        if last.at + last.n == target and last.lane + last.n == lane:
            last.n += n
            return
    run.at = target
    tile.target[tile.targets] = run
    tile.targets += 1


# The outputs of an item, divided into segments. A segment is a sequence of positions that consecutive tiles cover: a
# row (ROW_WISE), a plane of an image (CONTIGUOUS and PADDED_GRID), or the whole block (PACKED and SWAPPED).
cdef struct Segments:
    Py_ssize_t count
    Py_ssize_t length     # the number of positions of a segment, including the padding between its rows
    Py_ssize_t row        # the number of positions from the start of one row to the start of the next


cdef Segments segments(const Item* item, const Sizes* s, const ConvAxis* axes) noexcept nogil:
    cdef Segments st
    cdef const Block* b = &item.block
    if s.mode == PACKED or s.mode == SWAPPED:
        st.count, st.row = 1, b.n[2]
        st.length = b.images * b.n[0] * b.n[1] * b.n[2]
    elif s.mode == ROW_WISE:
        st.count, st.row, st.length = b.images * b.n[0] * b.n[1], axes[1].pitch, b.n[2]
    else:
        st.count, st.row = b.images * b.n[0], axes[1].pitch
        st.length = (b.n[1] - 1) * st.row + b.n[2]
    return st


cdef void place_tile(
    Tile* tile, Py_ssize_t segment, Py_ssize_t first, Py_ssize_t lanes, const Segments* st,
    const Item* item, const Sizes* s, const ConvAxis* axes, Py_ssize_t image_step,
) noexcept nogil:
    """Set `tile` to the positions [first, first + lanes) of a segment.

    `image_step` is the distance between two images of the result in elements.
    """
    cdef const ConvAxis* d = &axes[0]
    cdef const ConvAxis* h = &axes[1]
    cdef const ConvAxis* w = &axes[2]
    cdef const Block* b = &item.block
    cdef Py_ssize_t last = min(first + lanes, st.length), position = first
    cdef Py_ssize_t row, column, n, image, deep, high, at, source, target, covered = 0
    # The number of rows before the segment.
    cdef Py_ssize_t before = segment if s.mode == ROW_WISE else 0
    if s.mode == CONTIGUOUS or s.mode == PADDED_GRID:
        before = segment * b.n[1]
    tile.sources = tile.targets = 0
    row, column = position // st.row, position % st.row
    at = before + row
    high = at % b.n[1]
    deep = at // b.n[1] % b.n[0]
    image = at // b.n[1] // b.n[0]
    tile.base = image * s.image_pitch + deep * d.pitch + high * h.pitch + column
    while position < last:
        n = min(st.row - column, last - position)
        if column < b.n[2]:
            n = min(n, b.n[2] - column)
            source = image * s.image_pitch + deep * d.pitch + high * h.pitch + column
            target = (
                (b.image + image) * image_step
                + ((d.output_offset + (b.begin[0] + deep) * d.output_stride) * h.output_size + h.output_offset
                   + (b.begin[1] + high) * h.output_stride)
                * w.output_size + w.output_offset + (b.begin[2] + column) * w.output_stride
            )
            add_run(tile, source, target, position - first, n, w.output_stride == 1)
            covered += n
        position += n
        column += n
        if column == st.row:
            column = 0
            high += 1
            if high == b.n[1]:
                high = 0
                deep += 1
                if deep == b.n[0]:
                    deep = 0
                    image += 1
    tile.whole = covered == lanes and tile.targets == 1 and w.output_stride == 1


#: The names of the instruction sets. The index of a name is the number of the instruction set.
isas = tuple([(<bytes> fc_isa_names[i]).decode() for i in range(FC_ISAS)])


def usable(int isa):
    """Return whether kernels were compiled for an instruction set and this CPU supports it."""
    return bool(fc_isa_usable(isa))


def compiled(int isa):
    """Return whether kernels were compiled for an instruction set."""
    return bool(fc_isa_compiled(isa))


def cpu():
    """Return the vendor and family of this CPU from cpuid, or 'generic' and 0 if there is no cpuid."""
    cdef char vendor[FC_VENDOR + 1]
    cdef int family = fc_cpu(vendor)
    return (<bytes> vendor).decode("ascii", "replace"), family


def shape(int dtype, int isa):
    """Return the largest numbers of rows and of vectors of a tile, and the number of lanes of a vector. `dtype` is 0
    (float32) or 1 (float64).
    """
    cdef Kernels kernel = kernels(dtype, isa)
    return kernel.rows, kernel.vectors, kernel.lanes


def all_finite(array):
    """Return whether no element of a C-contiguous float32 or float64 array is inf or NaN."""
    cdef Py_ssize_t itemsize = array.itemsize
    cdef Buffer run = contiguous_buffer(array, itemsize, False)
    if itemsize == 8:
        return finite_cells(<const double*> run.at, run.n)
    return finite_cells(<const float*> run.at, run.n)


cdef bint finite_cells(const floating* cells, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef int finite = 1
    for i in range(n):
        finite &= cells[i] - cells[i] == 0
    return finite


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
    # The tile kernels. The first index is 1 if weights are read in place; the second is 1 if positions are in a panel.
    fc_tile_t[2][2] tiles


cdef class Multiply:
    """A plan that computes result = w @ columns(source) + bias for all groups and blocks.

    `dtype` is 0 (float32) or 1 (float64). Each thread has `space_pitch` elements of the workspace. With `probing`,
    `run` also returns False if a weight may be inf or NaN.
    """

    cdef Product _product
    cdef tuple _tables    # keeps the tables alive, because `_product` has pointers into them
    cdef int _dtype
    cdef bint _probing
    cdef Py_ssize_t _sources, _results

    def __init__(self, int dtype, axes, phases, sizes, at, tap_of, Py_ssize_t space_pitch, int isa, bint probing):
        cdef Product* p = &self._product
        cdef Py_ssize_t i
        cdef const fc_microkernel_kernels* table = fc_microkernel_for(dtype, isa)
        cdef Buffer of_phases = contiguous_buffer(phases, sizeof(Py_ssize_t), False)
        self._tables, self._dtype, self._probing = (axes, phases, sizes, at, tap_of), dtype, probing
        p.at, p.tap_of = index_pointer(at), index_pointer(tap_of)
        p.space_pitch = space_pitch
        p.sizes = read_sizes(index_pointer(sizes))
        fc_check(0 < p.sizes.tiles <= MOST_TILES)
        read_conv_axes(p.axes, index_pointer(axes), <Py_ssize_t*> of_phases.at, of_phases.n // 3)
        p.kernel = kernels(dtype, isa)
        p.tiles[0][0], p.tiles[0][1] = table.tile_listed, table.tile
        p.tiles[1][0], p.tiles[1][1] = table.tile_rows_listed, table.tile_rows
        p.volume = p.axes[0].size * p.axes[1].size * p.axes[2].size
        p.positions = p.axes[0].output_size * p.axes[1].output_size * p.axes[2].output_size
        p.items = ceil_div(p.sizes.rows, p.sizes.mc) * p.sizes.groups
        p.items *= ceil_div(p.sizes.images, p.sizes.block_images)
        for i in range(3):
            p.items *= ceil_div(p.axes[i].out, p.axes[i].block)
        self._sources = p.sizes.images * p.sizes.groups * p.sizes.channels * p.volume
        self._results = p.sizes.images * p.sizes.groups * p.sizes.rows * p.positions

    def run(self, source, w, bias, result, space, queue):
        """Run the plan. All arrays have the dtype of the plan. `space` holds a workspace for each thread, and after
        them the shared panels.

        `bias` may be None. `queue` may be None if there are no workers. With `probing`, returns False if the first
        result of any row is inf or NaN, and True otherwise. The first result is enough to find a weight that is inf or
        NaN, because every result of a row is a sum of products with all weights of that row. Even the product of such a
        weight with a zero of the padding is NaN.
        """
        cdef Product p = self._product
        cdef bint finite = True
        cdef Py_ssize_t itemsize = 8 if self._dtype else 4, shared
        cdef fc_work_queue own
        cdef Buffer weights = contiguous_buffer(w, itemsize, False)
        cdef Buffer workspace = contiguous_buffer(space, itemsize, True)
        cdef Buffer sources = contiguous_buffer(source, itemsize, False)
        cdef Buffer results = contiguous_buffer(result, itemsize, True)
        p.source, p.w, p.result = sources.at, weights.at, results.at
        p.bias = NULL if bias is None else contiguous_buffer(bias, itemsize, False).at
        shared = p.sizes.panels * (p.sizes.panel_pitch + 2 * <Py_ssize_t> sizeof(Py_ssize_t) // itemsize)
        p.space, p.workspaces = workspace.at, (workspace.n - shared) // p.space_pitch
        p.shared = <char*> p.space + p.workspaces * p.space_pitch * itemsize
        p.flags = <Py_ssize_t*> (<char*> p.shared + p.sizes.panels * p.sizes.panel_pitch * itemsize)
        memset(p.flags, 0, 2 * p.sizes.panels * sizeof(Py_ssize_t))
        if queue is None:
            fc_serial_queue(&own)
            p.queue = &own
        else:
            p.queue = work_queue(queue)
        with nogil:
            p.group_step = weights.n // p.sizes.groups
            fc_check(sources.n == self._sources and results.n == self._results)
            fc_parallel_for(p.queue, product_of_double if self._dtype else product_of_float, &p)
            if self._probing:
                if self._dtype:
                    finite = rows_begin_finite(&p, <double*> NULL)
                else:
                    finite = rows_begin_finite(&p, <float*> NULL)
        return finite


cdef bint rows_begin_finite(const Product* p, floating* dtype) noexcept nogil:
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


cdef void product_of_float(void* task) noexcept nogil:
    products_worker(<const Product*> task, <float*> NULL)


cdef void product_of_double(void* task) noexcept nogil:
    products_worker(<const Product*> task, <double*> NULL)


cdef void products_worker(const Product* p, floating* dtype) noexcept nogil:
    """Compute items of a product until none are left."""
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


cdef const floating* packed_weights(
    floating* own, const floating* factors, const Product* p, const Item* item, Py_ssize_t k0, Py_ssize_t n
) noexcept nogil:
    """Return a packed panel with the weights of the rows of an item, for k in [k0, k0 + n).

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


# The operand a of a product, which is the weights of an item in one block of k, and the rows that get the result.
cdef struct Factors:
    const void* a            # packed panels or, if `direct`, the weights in place
    Py_ssize_t step          # the distance between two rows of weights in place, in elements
    bint direct
    Py_ssize_t n             # the depth of the block of k
    Py_ssize_t rows
    int tile_rows            # the largest number of rows of a tile
    const void* bias
    void* to
    Py_ssize_t positions     # the distance between two rows of the result, in elements
    bint add                 # whether products are added to the result


# The operand b of a tile, and the offset of its results, which are contiguous in each row.
cdef struct OutputTile:
    int vectors
    Py_ssize_t target
    const void* b
    const Py_ssize_t* rows_of_b    # the offset of each row of b, or NULL if b is a panel
    fc_tile_t product


cdef void multiply_tiles(const Factors* f, const OutputTile* output_tiles, Py_ssize_t count,
                         floating* dtype) noexcept nogil:
    """Multiply all tiles by one group of rows of weights before the next group.

    So the results of neighbouring tiles are written to a row one after another. If each tile were multiplied by all
    rows first, the writes would alternate between all rows of the result. The rows share cache sets, so half-written
    cache lines would be evicted and loaded again. With a short k, that would take longer than the products.
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


cdef void multiply_edge_tile(
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


cdef void multiply(
    const Product* p, const Item* item, Py_ssize_t channel, Py_ssize_t channels, floating* space
) noexcept nogil:
    """Multiply some channels of an item: [rows x k] @ [k x positions]. Weights are packed in panels of rows, and
    positions are divided into tiles.
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
    # With few tiles, read the weights in place, because packing reads and writes each weight once more.
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
                # A tile may read past the last channel of the item, but not past the end of the source.
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


cdef void multiply_swapped(
    const Product* p, const Item* item, Py_ssize_t channel, Py_ssize_t channels, floating* space
) noexcept nogil:
    """Multiply some channels of an item with swapped operands: [positions x k] @ [k x rows].

    Vector lanes then hold rows of weights, so that few positions do not leave lanes empty.
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
        # Pack all positions for this block of k, in panels of `kernel.rows` positions.
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
