# Blocks of the padded image, split into stride phases, in the workspace of a thread.
#
# Along an axis with stride s, output o meets at tap t (dilation e) padded cell o * s + t * e. That is cell o + (t * e)
# // s of the phase (t * e) % s, so once the phases are separate, the outputs of a row read contiguous cells at every
# tap, whatever the stride. Phases that no tap reads are left out.

from fastconv._ext.kernels cimport Kernels
from fastconv._ext.runs cimport fc_soon, floating, zero_short


cdef enum:
    FAR_BYTES = 8192   # of the next plane that are prefetched at a time


# One axis of a block, as `Layout` in fastconv.convolution.blocking has it, and its phases.
cdef struct Side:
    Py_ssize_t size      # cells of the source
    Py_ssize_t stride
    Py_ssize_t lo        # source cell of padded cell 0, negated; negative where the source is cropped
    Py_ssize_t out       # outputs, all of them
    Py_ssize_t block     # outputs of a block
    Py_ssize_t reach     # cells of a phase past the last output's
    Py_ssize_t slots     # phases kept
    Py_ssize_t slot_pitch
    Py_ssize_t pitch     # from a cell to the next of its phase
    Py_ssize_t start     # result cell of output 0
    Py_ssize_t jump      # result cells from an output to the next
    Py_ssize_t whole     # cells of the result
    const Py_ssize_t* phase


# The outputs of a block: [begin, begin + n) along each axis, in images [image, image + images).
cdef struct Block:
    Py_ssize_t image
    Py_ssize_t images
    Py_ssize_t[3] begin
    Py_ssize_t[3] n


cdef enum:
    SIDE_NUMBERS = 12


cdef inline void read_sides(
    Side* sides, const Py_ssize_t* table, const Py_ssize_t* phases, Py_ssize_t most_phases
) noexcept nogil:
    """Set `sides` from a row of `table` and a row of `phases` for each axis."""
    cdef Py_ssize_t i
    for i in range(3):
        sides[i].size, sides[i].stride, sides[i].lo = table[0], table[1], table[2]
        sides[i].out, sides[i].block, sides[i].reach = table[3], table[4], table[5]
        sides[i].slots, sides[i].slot_pitch, sides[i].pitch = table[6], table[7], table[8]
        sides[i].start, sides[i].jump, sides[i].whole = table[9], table[10], table[11]
        sides[i].phase = phases + i * most_phases
        table += SIDE_NUMBERS


cdef inline Py_ssize_t first_cell(const Side* side, Py_ssize_t begin, Py_ssize_t phase, Py_ssize_t n) noexcept nogil:
    """How many of `n` cells of a phase lie before the source."""
    cdef Py_ssize_t at = begin * side.stride + phase - side.lo
    if at >= 0:
        return 0
    return min((-at + side.stride - 1) // side.stride, n)


cdef inline Py_ssize_t last_cell(const Side* side, Py_ssize_t begin, Py_ssize_t phase, Py_ssize_t n) noexcept nogil:
    """How many of `n` cells of a phase lie before the end of the source."""
    cdef Py_ssize_t at = begin * side.stride + phase - side.lo
    if at >= side.size:
        return 0
    return min((side.size - at - 1) // side.stride + 1, n)


cdef inline void fill(
    floating* patch, const floating* source, Py_ssize_t channels, Py_ssize_t image_step,
    const Side* sides, const Block* block, Py_ssize_t channel_pitch, Py_ssize_t image_pitch, const Kernels* kernel,
    bint far,
) noexcept nogil:
    """Fill a block with `channels` channels of each image; `source` is the first of them in image 0.

    If the source is `far` (in no cache), the first cells of the next channel are prefetched, because they may be
    in other pages.
    """
    cdef const Side* d = &sides[0]
    cdef const Side* h = &sides[1]
    cdef const Side* w = &sides[2]
    cdef Py_ssize_t plane = h.size * w.size, volume = d.size * plane
    cdef Py_ssize_t deep = block.n[0] + d.reach, high = block.n[1] + h.reach, wide = block.n[2] + w.reach
    # Rows may be shorter than what is read of them, if the padding of one row also serves the next.
    cdef Py_ssize_t written = min(wide, h.pitch), over = wide - written
    cdef Py_ssize_t c, n, sd, sh, sw, id_, ih, a, b, top, end, at_d, at_h, at_w
    cdef Py_ssize_t begin = max(block.begin[0] * d.stride - d.lo, 0), cells
    cdef bint filled
    cdef floating* row
    cdef const floating* image
    begin = begin * h.size + max(block.begin[1] * h.stride - h.lo, 0)
    begin = begin * w.size + max(block.begin[2] * w.stride - w.lo, 0)
    cells = min((high - 1) * h.stride * w.size + wide * w.stride, volume - begin)
    cells = min(cells, FAR_BYTES // <Py_ssize_t> sizeof(floating))
    for c in range(channels):
        for n in range(block.images):
            image = source + (block.image + n) * image_step + c * volume
            if far and c + 1 < channels and cells > 0:
                fc_soon(image + volume + begin, cells * <Py_ssize_t> sizeof(floating))
            for sd in range(d.slots):
                for id_ in range(deep):
                    at_d = (block.begin[0] + id_) * d.stride + d.phase[sd] - d.lo
                    for sh in range(h.slots):
                        top = first_cell(h, block.begin[1], h.phase[sh], high)
                        end = last_cell(h, block.begin[1], h.phase[sh], high)
                        at_h = (block.begin[1] + top) * h.stride + h.phase[sh] - h.lo
                        for sw in range(w.slots):
                            row = patch + c * channel_pitch + n * image_pitch + sd * d.slot_pitch + id_ * d.pitch
                            row = row + sh * h.slot_pitch + sw * w.slot_pitch
                            a = first_cell(w, block.begin[2], w.phase[sw], written)
                            b = last_cell(w, block.begin[2], w.phase[sw], written)
                            filled = a < b and top < end and 0 <= at_d < d.size
                            if filled:
                                at_w = (block.begin[2] + a) * w.stride + w.phase[sw] - w.lo
                                kernel.cells_of(
                                    row + top * h.pitch + a, h.pitch, image + at_d * plane + at_h * w.size + at_w,
                                    h.stride * w.size, end - top, b - a, w.stride,
                                )
                            for ih in range(high):
                                if filled and top <= ih < end:
                                    zero_short(row, a)
                                    zero_short(row + b, written - b)
                                else:
                                    zero_short(row, written)
                                row = row + h.pitch
                            # The end of the last row, where the next row would begin; what follows is written later.
                            zero_short(row, over)
