# The work items of implicit GEMM, and the tiles into which the positions of a work item are divided.
#
# A position is one output of a plane.

from fastconv._ext.buffers.blocks cimport unravel_block
from fastconv._ext.gemm.microkernel cimport fc_run
from fastconv._ext.packing.panels cimport MOST_LANES
from fastconv._ext.packing.patches cimport Block, ConvAxis


# How tiles read the image. Only in the mode CONTIGUOUS, no part of the image is copied to a padded block.
cdef enum Mode:
    CONTIGUOUS   # Tiles are read from the image, which is the im2col matrix itself.
    # Tiles are read from a padded block. A tile may extend over several rows and the padding between them. The results
    # for this padding are dropped.
    PADDED_GRID
    ROW_WISE     # Tiles are read from a padded block, and each tile lies within one row.
    PACKED       # Positions are gathered from a padded block into panels, so that no lane is empty.
    SWAPPED      # Like PACKED, but the operands of the product are swapped. So lanes hold rows instead of positions.


# The sizes of a product [rows x k] @ [k x positions], where k is channels * taps. A plan sets them once. Distances and
# offsets are in elements.
cdef struct Sizes:
    int mode                    # a value of Mode
    bint packing                # whether the cells of a tile are packed even if they are contiguous
    Py_ssize_t images           # the number of images
    Py_ssize_t groups           # the number of groups
    Py_ssize_t rows             # the number of rows of a group: its filters or, for dx, its channels
    Py_ssize_t channels         # the number of channels of the source in a group
    Py_ssize_t volume           # the number of cells of a channel of the source
    Py_ssize_t positions        # the number of cells of a channel of the result
    Py_ssize_t items            # the number of work items
    Py_ssize_t mc               # the number of rows of a work item
    Py_ssize_t block_images     # the number of images of a block
    Py_ssize_t block_channels   # the number of channels that a block holds at a time
    Py_ssize_t kc               # the number of steps along k after which the sums of a tile are stored
    Py_ssize_t tiles            # the number of tiles that are multiplied by the same rows of weights
    Py_ssize_t channel_pitch    # the distance between two channels of a block or, in the mode CONTIGUOUS, of the source
    Py_ssize_t image_pitch      # the distance between two images of a block
    # The scratchpad of a thread: where its arrays begin, and its number of elements.
    Py_ssize_t block_at         # the padded block
    Py_ssize_t panel_at         # the packed weights
    Py_ssize_t positions_at     # the packed cells
    Py_ssize_t edge_at          # the results of a tile before they are copied to the result
    Py_ssize_t transposed_at    # the transpose of these results; only in the mode SWAPPED
    Py_ssize_t scratchpad       # the number of elements of a scratchpad
    # The panels of weights that threads share. They follow the scratchpads of all threads.
    Py_ssize_t panels           # the number of shared panels, 0 if each thread packs its own panels
    Py_ssize_t panel_pitch      # the distance between two shared panels
    Py_ssize_t states_at        # the offset of the array of `PanelState` from the first shared panel
    Py_ssize_t shared           # the number of elements of the shared panels and their states


# A work item: the rows of the result, and the block of outputs, that one thread computes.
cdef struct Item:
    Py_ssize_t group     # the index of the group
    Py_ssize_t row       # the index of the first row in the group
    Py_ssize_t rows      # the number of rows
    Py_ssize_t place     # the index of the block and the group; work items with the same index read the same cells
    Block block


cdef inline Item item_at(Py_ssize_t index, const Sizes* s, const ConvAxis* axes) noexcept nogil:
    """Return the work item with an index. Work items that read the same cells have neighbouring indices."""
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


# A tile of positions. `source` lists the runs of lanes that are contiguous in the block, and `target` lists the runs of
# lanes that are contiguous in the result.
cdef struct Tile:
    int vectors           # the number of vectors of the tile
    Py_ssize_t base       # the offset of the first lane in the block; used if all lanes are contiguous in the block
    Py_ssize_t sources    # the number of runs of lanes in `source`
    Py_ssize_t targets    # the number of runs of lanes in `target`
    bint whole            # whether all lanes are used and are contiguous in the result
    fc_run[MOST_LANES] source
    fc_run[MOST_LANES] target


cdef inline void add_run(
    Tile* tile, Py_ssize_t source, Py_ssize_t target, Py_ssize_t lane, Py_ssize_t n, bint joined
) noexcept nogil:
    """Add n lanes, beginning with `lane`, to a tile. Their cells begin at the offset `source` of the block, and their
    results at the offset `target`. If `joined` is set, a run of results may continue the previous one.
    """
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
    Py_ssize_t count      # the number of segments
    Py_ssize_t length     # the number of positions of a segment, including the padding between its rows
    Py_ssize_t row        # the number of positions from the start of one row to the start of the next


cdef inline Segments segments(const Item* item, const Sizes* s, const ConvAxis* axes) noexcept nogil:
    """Return the segments of a work item."""
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


cdef inline void place_tile(
    Tile* tile, Py_ssize_t segment, Py_ssize_t first, Py_ssize_t lanes, const Segments* st,
    const Item* item, const Sizes* s, const ConvAxis* axes, Py_ssize_t image_step,
) noexcept nogil:
    """Set `tile` to the positions [first, first + lanes) of a segment.

    `image_step` is the distance, in elements, between two images of the result.
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
