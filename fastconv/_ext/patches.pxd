# Blocks of the padded image, split into stride phases, in the workspace of a thread.
#
# Along an axis with stride s and dilation e, output o reads padded cell o * s + t * e at tap t. This is cell o + (t *
# e) // s of the phase (t * e) % s. So if phases are stored separately, the outputs of a row read contiguous cells at
# every tap, whatever the stride. Phases that no tap reads are left out.

from fastconv._ext.kernels cimport Kernels
from fastconv._ext.runs cimport fc_prefetch, floating, zero_short


cdef enum:
    FAR_BYTES = 8192   # bytes of the next plane that are prefetched at a time


# One axis of a block, as `Layout` in fastconv.convolution.blocking describes it, and its phases.
cdef struct ConvAxis:
    Py_ssize_t size      # cells of the source
    Py_ssize_t stride
    Py_ssize_t lo        # minus the source cell of padded cell 0; negative where the source is cropped
    Py_ssize_t out       # number of all outputs
    Py_ssize_t block     # outputs of a block
    Py_ssize_t halo     # halo: cells of a phase past the cell of the last output
    Py_ssize_t n_phases     # phases that are stored
    Py_ssize_t phase_pitch
    Py_ssize_t pitch     # distance between cells of a phase in a block
    Py_ssize_t output_offset     # output offset: the result cell of output 0
    Py_ssize_t output_stride      # output stride: result cells from one output to the next
    Py_ssize_t output_size     # cells of the result
    const Py_ssize_t* phase


# The outputs of a block: [begin, begin + n) along each axis, in images [image, image + images).
cdef struct Block:
    Py_ssize_t image
    Py_ssize_t images
    Py_ssize_t[3] begin
    Py_ssize_t[3] n


cdef enum:
    AXIS_NUMBERS = 12


cdef inline void read_conv_axes(
    ConvAxis* axes, const Py_ssize_t* table, const Py_ssize_t* phases, Py_ssize_t most_phases
) noexcept nogil:
    """Set `axes` from one row of `table` and one row of `phases` for each axis."""
    cdef Py_ssize_t i
    for i in range(3):
        axes[i].size, axes[i].stride, axes[i].lo = table[0], table[1], table[2]
        axes[i].out, axes[i].block, axes[i].halo = table[3], table[4], table[5]
        axes[i].n_phases, axes[i].phase_pitch, axes[i].pitch = table[6], table[7], table[8]
        axes[i].output_offset, axes[i].output_stride, axes[i].output_size = table[9], table[10], table[11]
        axes[i].phase = phases + i * most_phases
        table += AXIS_NUMBERS


cdef inline Py_ssize_t first_cell(const ConvAxis* axis, Py_ssize_t begin, Py_ssize_t phase,
                                  Py_ssize_t n) noexcept nogil:
    """Return how many of the first `n` cells of a phase lie before the source."""
    cdef Py_ssize_t at = begin * axis.stride + phase - axis.lo
    if at >= 0:
        return 0
    return min((-at + axis.stride - 1) // axis.stride, n)


cdef inline Py_ssize_t last_cell(const ConvAxis* axis, Py_ssize_t begin, Py_ssize_t phase, Py_ssize_t n) noexcept nogil:
    """Return how many of the first `n` cells of a phase lie before the end of the source."""
    cdef Py_ssize_t at = begin * axis.stride + phase - axis.lo
    if at >= axis.size:
        return 0
    return min((axis.size - at - 1) // axis.stride + 1, n)


cdef inline void fill(
    floating* patch, const floating* source, Py_ssize_t channels, Py_ssize_t image_step,
    const ConvAxis* axes, const Block* block, Py_ssize_t channel_pitch, Py_ssize_t image_pitch, const Kernels* kernel,
    bint far,
) noexcept nogil:
    """Fill a block with `channels` channels of each image; `source` is the first of these channels in image 0.

    If the source is `far` (in no cache), prefetch the first cells of the next channel, because they may be in other
    pages.
    """
    cdef const ConvAxis* d = &axes[0]
    cdef const ConvAxis* h = &axes[1]
    cdef const ConvAxis* w = &axes[2]
    cdef Py_ssize_t plane = h.size * w.size, volume = d.size * plane
    cdef Py_ssize_t deep = block.n[0] + d.halo, high = block.n[1] + h.halo, wide = block.n[2] + w.halo
    # If the padding of one row also serves the next row, the reads of a row extend past its end.
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
                fc_prefetch(image + volume + begin, cells * <Py_ssize_t> sizeof(floating))
            for sd in range(d.n_phases):
                for id_ in range(deep):
                    at_d = (block.begin[0] + id_) * d.stride + d.phase[sd] - d.lo
                    for sh in range(h.n_phases):
                        top = first_cell(h, block.begin[1], h.phase[sh], high)
                        end = last_cell(h, block.begin[1], h.phase[sh], high)
                        at_h = (block.begin[1] + top) * h.stride + h.phase[sh] - h.lo
                        for sw in range(w.n_phases):
                            row = patch + c * channel_pitch + n * image_pitch + sd * d.phase_pitch + id_ * d.pitch
                            row = row + sh * h.phase_pitch + sw * w.phase_pitch
                            a = first_cell(w, block.begin[2], w.phase[sw], written)
                            b = last_cell(w, block.begin[2], w.phase[sw], written)
                            filled = a < b and top < end and 0 <= at_d < d.size
                            if filled:
                                at_w = (block.begin[2] + a) * w.stride + w.phase[sw] - w.lo
                                kernel.copy_rows(
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
                            # Clear the end of the last row, where the next row would start. Later rows overwrite their
                            # part.
                            zero_short(row, over)
