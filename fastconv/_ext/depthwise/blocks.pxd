# The blocks of an image in depthwise convolution: the outputs of a block, and how its cells are copied to a workspace.
# A padded block is the copy of the cells that the outputs of a block read.

from fastconv._ext.buffers.blocks cimport ceil_div, unravel_block
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book
from fastconv._ext.depthwise.kernels cimport fc_copy_segment
from fastconv._ext.packing.patches cimport Block, ConvAxis, first_cell, last_cell


cdef enum:
    VECTORS_PAST = 2  # The kernels may read or clear this number of vectors past the end of a padded block.


cdef inline Block no_block() noexcept nogil:
    """Return a block without outputs."""
    cdef Block b
    cdef Py_ssize_t i
    b.image = b.images = 0
    for i in range(3):
        b.begin[i] = b.n[i] = 0
    return b


cdef inline void place_block(Block* b, Py_ssize_t index, const ConvAxis* axes) noexcept nogil:
    """Set `b` to the outputs of block `index` of an image."""
    cdef Py_ssize_t i
    for i in range(2, -1, -1):
        index = unravel_block(&b.begin[i], index, axes[i].out, axes[i].block)
        b.n[i] = min(axes[i].block, axes[i].out - b.begin[i])


cdef inline Py_ssize_t blocks_of(const ConvAxis* axes) noexcept nogil:
    """Return the number of blocks of an image."""
    cdef Py_ssize_t i, count = 1
    for i in range(3):
        count *= ceil_div(axes[i].out, axes[i].block)
    return count


cdef inline void book_blocks(
    Scratchpad* pad, Py_ssize_t* block_at, Py_ssize_t channels, Py_ssize_t channel_pitch, Py_ssize_t row,
    Py_ssize_t lanes,
) noexcept nogil:
    """Book two padded blocks, and set `block_at` (2 elements) to their offsets. There are two, because a worker copies
    the next block before it sums the current one. `row` is the distance between two rows of a padded block.
    """
    cdef Py_ssize_t i
    for i in range(2):
        block_at[i] = book(pad, channels * channel_pitch + row + VECTORS_PAST * lanes)


cdef inline Py_ssize_t book_structs(
    Scratchpad* pad, Py_ssize_t n, Py_ssize_t size, Py_ssize_t itemsize
) noexcept nogil:
    """Book n structs of `size` bytes in a scratchpad for elements of `itemsize` bytes, and return their offset."""
    return book(pad, ceil_div(n * size, itemsize))


cdef inline Py_ssize_t count_segments(const ConvAxis* axes) noexcept nogil:
    """Return the largest number of segments that `list_segments` lists for a block."""
    return axes[0].n_phases * (axes[0].block + axes[0].halo) * axes[1].n_phases * axes[2].n_phases


cdef inline Py_ssize_t list_segments(fc_copy_segment* segments, const ConvAxis* axes, const Block* b) noexcept nogil:
    """List the segments of a block of one channel, in ascending order of their offsets, and return their number.

    A segment is one stride phase of one plane. It is copied to the padded block, whose layout is that of `fill` in
    packing/patches.pxd.
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
