# Packing of the weight matrix into panels for the tiles of gemm/product.pxd. A panel is a block of rows, stored
# column by column: for each index k of a column, the weights of all rows of the panel are contiguous.

from fastconv._ext.gemm.microkernel cimport Kernels
from fastconv._ext.buffers.runs cimport fc_check, floating


cdef enum:
    MOST_LANES = 64    # The largest number of lanes of a tile in any instruction set.
    STRIDED_PANELS = 4  # The number of panels that `pack_strided` packs at a time.


cdef enum WeightLayout:
    LAYOUT_GENERIC = 0  # The weights may have any strides.
    LAYOUT_ROWS = 1    # The weights of each row of the matrix are contiguous.
    LAYOUT_TAPS = 2    # The weights of one row and one channel are contiguous.
    LAYOUT_COLUMNS = 3  # Each column of the matrix is contiguous. Two columns are `channel_step` elements apart.


# The sizes of a call, in the order of the table that fastconv.convolution.implicit_gemm.calls makes. All distances and
# offsets are in elements.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t block_images
    Py_ssize_t groups
    Py_ssize_t rows           # the number of filters of a group or, for dx, of channels of a group
    Py_ssize_t row_step       # the distance between two rows of the weight matrix
    Py_ssize_t mc             # the number of rows of a work item
    Py_ssize_t channels       # the number of channels of the source in a group
    Py_ssize_t channel_step   # the distance between the weights of two channels
    Py_ssize_t taps
    Py_ssize_t kc             # the depth KC of one block of the inner dimension k
    Py_ssize_t channel_pitch  # the distance between two channels of a block of the padded image
    Py_ssize_t image_pitch    # the distance between two images of a block of the padded image
    Py_ssize_t mode           # a value of Mode in gemm/tiles.pxd
    Py_ssize_t weight_layout          # a value of WeightLayout
    Py_ssize_t block_channels  # the number of channels of the source that a block holds at a time
    Py_ssize_t packing        # whether elements of the image are packed into a panel even if they are contiguous
    Py_ssize_t tiles          # the number of tiles of columns by which a panel of weights is multiplied at a time
    Py_ssize_t panel_pitch    # the distance between two shared blocks of packed weights
    Py_ssize_t panels         # the number of shared blocks of packed weights, which follow the workspaces of threads
    Py_ssize_t panel_at       # the offset of the packed weights in the workspace of a thread
    Py_ssize_t positions_at   # the offset of the packed elements of the image in the workspace of a thread


cdef inline Sizes read_sizes(const Py_ssize_t* table) noexcept nogil:
    cdef Sizes s
    s.images, s.block_images, s.groups = table[0], table[1], table[2]
    s.rows, s.row_step, s.mc = table[3], table[4], table[5]
    s.channels, s.channel_step, s.taps, s.kc = table[6], table[7], table[8], table[9]
    s.channel_pitch, s.image_pitch, s.mode, s.weight_layout = table[10], table[11], table[12], table[13]
    s.block_channels, s.packing, s.tiles = table[14], table[15], table[16]
    s.panel_pitch, s.panels, s.panel_at, s.positions_at = table[17], table[18], table[19], table[20]
    return s


cdef inline void pack_taps(
    floating* to, Py_ssize_t pitch, const floating* source, const Py_ssize_t* at, Py_ssize_t rows,
    const Py_ssize_t* tap_of, Py_ssize_t taps,
) noexcept nogil:
    """Pack the weights of one channel at some taps, for all rows of a panel."""
    cdef Py_ssize_t t, i
    for t in range(taps):
        for i in range(rows):
            to[i] = source[at[i] + tap_of[t]]
        to = to + pitch


cdef inline void pack_strided(
    floating* panel, const floating* w, const Sizes* s, const Py_ssize_t* tap_of, Py_ssize_t rows,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t width, bint full, const Py_ssize_t* at,
) noexcept nogil:
    """Do the work of `pack_weights` for LAYOUT_GENERIC. STRIDED_PANELS panels are packed at a time, channel by channel.

    A few panels are packed at a time. With one panel at a time, reads would jump between distant cache lines of large
    weights. With all panels at once, the cache lines that are written would share cache sets.
    """
    cdef Py_ssize_t n = end - begin, group = 0, k, tap, taps, first, last, here, pitch
    cdef const floating* source
    while group < rows:
        last = min(group + STRIDED_PANELS * width, rows)
        source = w + begin // s.taps * s.channel_step
        tap, k = begin % s.taps, 0
        while k < n:
            taps = min(s.taps - tap, n - k)
            first = group
            while first < last:
                here = min(width, last - first)
                pitch = width if full else here
                pack_taps(
                    panel + first * n + k * pitch, pitch, source + first * s.row_step, at, here, tap_of + tap, taps
                )
                first += here
            k += taps
            tap = 0
            source = source + s.channel_step
        group = last


cdef inline void pack_weights(
    floating* panel, const floating* w, const Sizes* s, const Py_ssize_t* tap_of, Py_ssize_t rows,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t width, bint full, const Kernels* kernel,
) noexcept nogil:
    """Pack rows [0, rows) and columns [begin, end) of the weight matrix into panels of `width` rows. The last
    panel may have fewer rows. If `full` is set, successive columns are `width` elements apart in every panel, also
    in the last panel.
    """
    cdef Py_ssize_t[MOST_LANES] at
    cdef Py_ssize_t first, here, pitch, k, tap, taps, i, n = end - begin
    cdef const floating* source
    fc_check(width <= MOST_LANES)
    for i in range(width):
        at[i] = i * s.row_step
    if s.weight_layout == LAYOUT_GENERIC:
        pack_strided(panel, w, s, tap_of, rows, begin, end, width, full, at)
        return
    first = 0
    while first < rows:
        here = min(width, rows - first)
        pitch = width if full else here
        source = w + first * s.row_step
        if s.weight_layout == LAYOUT_ROWS:
            kernel.interleave(panel, pitch, source + begin, at, here, n)
        elif s.weight_layout == LAYOUT_COLUMNS:
            kernel.copy_rows(panel, pitch, source + begin * s.channel_step, s.channel_step, n, here, 1)
        else:
            source = source + begin // s.taps * s.channel_step
            tap, k = begin % s.taps, 0
            while k < n:
                taps = min(s.taps - tap, n - k)
                kernel.interleave(panel + k * pitch, pitch, source + tap_of[tap], at, here, taps)
                k += taps
                tap = 0
                source = source + s.channel_step
        panel = panel + pitch * n
        first += here
