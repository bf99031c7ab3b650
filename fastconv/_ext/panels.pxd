# Packing of weights into panels for the tiles of implicit.pyx. A panel holds, for every k, the weights of some rows
# contiguously.

from fastconv._ext.kernels cimport Kernels
from fastconv._ext.runs cimport fc_check, floating


cdef enum:
    MOST_LANES = 64    # the most lanes of a tile in any instruction set
    STRIDED_PANELS = 4


cdef enum WeightLayout:
    LAYOUT_GENERIC = 0  # no two weights need be contiguous
    LAYOUT_ROWS = 1    # the weights of a row are contiguous along k
    LAYOUT_TAPS = 2    # the taps of a row and channel are contiguous
    LAYOUT_COLUMNS = 3  # rows are contiguous for every k; the next k is channel_step further


# The sizes of a call, in the order of fastconv.convolution.implicit_gemm.calls. Steps and pitches are in elements.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t block_images
    Py_ssize_t groups
    Py_ssize_t rows           # rows of the result in a group: filters, or channels for dx
    Py_ssize_t row_step       # distance between the weights of two rows
    Py_ssize_t mc
    Py_ssize_t channels       # channels of the source in a group
    Py_ssize_t channel_step   # distance between the weights of two channels
    Py_ssize_t taps
    Py_ssize_t kc
    Py_ssize_t channel_pitch  # distance between two channels of a block
    Py_ssize_t image_pitch
    Py_ssize_t mode
    Py_ssize_t weight_layout          # layout of the weights: 0 or a value of Dense
    Py_ssize_t block_channels  # channels of the source that a block holds at a time
    Py_ssize_t packing        # rows that are packed next to each other
    Py_ssize_t tiles          # tiles that are multiplied by a row of weights before the next row
    Py_ssize_t panel_pitch    # distance between two panels of packed weights
    Py_ssize_t panels         # number of panels that threads share, stored after their workspaces; 0 if none
    Py_ssize_t panel_at       # offset of the packed weights in the workspace of a thread
    Py_ssize_t positions_at   # offset of the packed positions


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
    """Pack the taps of a channel for the rows of a panel, one tap at a time."""
    cdef Py_ssize_t t, i
    for t in range(taps):
        for i in range(rows):
            to[i] = source[at[i] + tap_of[t]]
        to = to + pitch


cdef inline void pack_strided(
    floating* panel, const floating* w, const Sizes* s, const Py_ssize_t* tap_of, Py_ssize_t rows,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t width, bint full, const Py_ssize_t* at,
) noexcept nogil:
    """Do the work of `pack_weights` for taps that are not contiguous: a few panels at a time, channel by channel.

    Packing one panel at a time would read single cache lines from all parts of large weights. Packing all panels at
    once would write to lines that map to the same cache sets.
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
    """Pack rows [0, rows) of w for k in [begin, end) into panels of `width` rows. The last panel has fewer rows unless
    `full`.
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
