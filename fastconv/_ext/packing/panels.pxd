# Packing of the weight matrix into panels for the tiles of gemm/product.pxd. A panel is a block of rows, stored
# column by column: for each index k of a column, the weights of all rows of the panel are contiguous.

from fastconv._ext.gemm.microkernel cimport MOST_LANES, Kernels
from fastconv._ext.buffers.runs cimport fc_check, floating


cdef enum:
    STRIDED_PANELS = 4   # The number of panels that `pack_strided` packs at a time.


# How the weights of a matrix lie in memory. fastconv.convolution.implicit_gemm.calls chooses the fastest that applies.
cdef enum WeightLayout:
    LAYOUT_GENERIC  # The weights may have any strides.
    LAYOUT_ROWS     # The weights of each row of the matrix are contiguous.
    LAYOUT_TAPS     # The weights of one row and one channel are contiguous.
    LAYOUT_COLUMNS  # Each column of the matrix is contiguous. Two columns are `channel_step` elements apart.


# The weights of one group as a matrix [rows x k], where k is channels * taps. Distances and offsets are in elements.
cdef struct WeightMatrix:
    int layout                  # a value of WeightLayout
    Py_ssize_t row_step         # the distance between the weights of two neighbouring rows
    Py_ssize_t channel_step     # the distance between the weights of two neighbouring channels of a row
    Py_ssize_t taps             # the number of taps of a channel
    const Py_ssize_t* offsets   # for each tap: the offset of its weight from the first weight of the channel


cdef inline void pack_taps(
    floating* to, Py_ssize_t pitch, const floating* source, const Py_ssize_t* at, Py_ssize_t rows,
    const Py_ssize_t* offsets, Py_ssize_t taps,
) noexcept nogil:
    """Pack the weights of one channel at some taps, for all rows of a panel. `at` has the offset of each row."""
    cdef Py_ssize_t t, i
    for t in range(taps):
        for i in range(rows):
            to[i] = source[at[i] + offsets[t]]
        to = to + pitch


cdef inline void pack_strided(
    floating* panel, const floating* w, const WeightMatrix* weights, Py_ssize_t rows, Py_ssize_t begin,
    Py_ssize_t end, Py_ssize_t width, bint full, const Py_ssize_t* at,
) noexcept nogil:
    """Do the work of `pack_weights` for LAYOUT_GENERIC. STRIDED_PANELS panels are packed at a time, channel by channel.

    A few panels are packed at a time. With one panel at a time, reads would jump between distant cache lines of large
    weights. With all panels at once, the cache lines that are written would share cache sets.
    """
    cdef Py_ssize_t n = end - begin, group = 0, k, tap, taps, first, last, here, pitch
    cdef const floating* source
    while group < rows:
        last = min(group + STRIDED_PANELS * width, rows)
        source = w + begin // weights.taps * weights.channel_step
        tap, k = begin % weights.taps, 0
        while k < n:
            taps = min(weights.taps - tap, n - k)
            first = group
            while first < last:
                here = min(width, last - first)
                pitch = width if full else here
                pack_taps(
                    panel + first * n + k * pitch, pitch, source + first * weights.row_step, at, here,
                    weights.offsets + tap, taps,
                )
                first += here
            k += taps
            tap = 0
            source = source + weights.channel_step
        group = last


cdef inline void pack_weights(
    floating* panel, const floating* w, const WeightMatrix* weights, Py_ssize_t rows, Py_ssize_t begin,
    Py_ssize_t end, Py_ssize_t width, bint full, const Kernels* kernel,
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
        at[i] = i * weights.row_step
    if weights.layout == LAYOUT_GENERIC:
        pack_strided(panel, w, weights, rows, begin, end, width, full, at)
        return
    first = 0
    while first < rows:
        here = min(width, rows - first)
        pitch = width if full else here
        source = w + first * weights.row_step
        if weights.layout == LAYOUT_ROWS:
            kernel.interleave(panel, pitch, source + begin, at, here, n)
        elif weights.layout == LAYOUT_COLUMNS:
            kernel.copy_rows(panel, pitch, source + begin * weights.channel_step, weights.channel_step, n, here, 1)
        else:
            source = source + begin // weights.taps * weights.channel_step
            tap, k = begin % weights.taps, 0
            while k < n:
                taps = min(weights.taps - tap, n - k)
                kernel.interleave(panel + k * pitch, pitch, source + weights.offsets[tap], at, here, taps)
                k += taps
                tap = 0
                source = source + weights.channel_step
        panel = panel + pitch * n
        first += here
