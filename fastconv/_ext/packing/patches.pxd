# Copies of blocks of the padded image to the workspace of a thread. In a copy, the stride phases are separate arrays.
#
# Phase p of an axis with stride s consists of the padded elements p, p + s, p + 2 * s, and so on. With dilation e,
# output o reads padded element o * s + t * e at tap t. This is element o + (t * e) // s of phase (t * e) % s. So at
# each tap, the outputs of a row read contiguous elements of one phase, even with a stride. Phases that no tap reads
# are not stored.

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.gemm.microkernel cimport Kernels
from fastconv._ext.buffers.runs cimport fc_prefetch, floating, zero_short


cdef enum:
    FAR_BYTES = 8192    # The largest number of bytes that are prefetched from the next channel.


# One axis of a convolution, and of the blocks of its output. The source is the array that the convolution reads.
cdef struct ConvAxis:
    Py_ssize_t size             # the number of elements of the source along this axis, without padding
    Py_ssize_t stride           # the distance between the elements that two neighbouring outputs read at a tap
    Py_ssize_t lo               # the padding before the source; negative if the source is cropped
    Py_ssize_t out              # the number of outputs
    Py_ssize_t block            # the number of outputs of a block
    Py_ssize_t halo             # n outputs read n + halo neighbouring elements of a stride phase
    Py_ssize_t n_phases         # the number of stride phases that are stored
    Py_ssize_t phase_pitch      # the distance in memory between two stored phases, in elements
    Py_ssize_t pitch            # the distance in memory between two neighbours of a stored phase, in elements
    Py_ssize_t output_offset    # the index in the result at which output 0 is stored
    Py_ssize_t output_stride    # the distance between two outputs in the result, as a difference of indices
    Py_ssize_t output_size      # the size of the result along this axis
    const Py_ssize_t* phase     # the first padded element of each stored phase, in ascending order


# A block of outputs: [begin, begin + n) along each axis, in the images [image, image + images).
cdef struct Block:
    Py_ssize_t image        # the first image
    Py_ssize_t images       # the number of images
    Py_ssize_t[3] begin     # the first output along each axis
    Py_ssize_t[3] n         # the number of outputs along each axis


cdef inline int set_conv_axes(ConvAxis* axes, layout, phases) except -1:
    """Set `axes` (3 elements) from a `Layout` of fastconv.convolution.blocking.

    `phases` is the array that `layout.phases()` returned. The axes have pointers into it, so the plan keeps it alive.
    """
    cdef Buffer table = contiguous_buffer(phases, sizeof(Py_ssize_t), False)
    cdef Py_ssize_t i
    for i in range(3):
        axis = layout.conv_axes[i]
        axes[i].size, axes[i].stride, axes[i].lo = axis.size, axis.stride, axis.lo
        axes[i].out, axes[i].halo, axes[i].n_phases = axis.out, axis.halo, len(axis.phases)
        axes[i].output_offset, axes[i].output_stride = axis.output_offset, axis.output_stride
        axes[i].output_size = axis.output_size
        axes[i].block, axes[i].phase_pitch = layout.block[i], layout.phase_pitches[i]
        axes[i].pitch = layout.pitches[i]
        axes[i].phase = <const Py_ssize_t*> table.at + i * (table.n // 3)
    return 0


cdef inline Py_ssize_t first_cell(const ConvAxis* axis, Py_ssize_t begin, Py_ssize_t phase,
                                  Py_ssize_t n) noexcept nogil:
    """Return how many elements of a stride phase are padding at the start of the axis. The elements are counted from
    the first element that output `begin` reads. Only n elements are counted.
    """
    cdef Py_ssize_t at = begin * axis.stride + phase - axis.lo
    if at >= 0:
        return 0
    return min((-at + axis.stride - 1) // axis.stride, n)


cdef inline Py_ssize_t last_cell(const ConvAxis* axis, Py_ssize_t begin, Py_ssize_t phase, Py_ssize_t n) noexcept nogil:
    """Return how many elements of a stride phase precede the padding at the end of the axis. The elements are counted
    from the first element that output `begin` reads. Only n elements are counted.
    """
    cdef Py_ssize_t at = begin * axis.stride + phase - axis.lo
    if at >= axis.size:
        return 0
    return min((axis.size - at - 1) // axis.stride + 1, n)


cdef inline void fill(
    floating* patch, const floating* source, Py_ssize_t channels, Py_ssize_t image_step,
    const ConvAxis* axes, const Block* block, Py_ssize_t channel_pitch, Py_ssize_t image_pitch, const Kernels* kernel,
    bint far,
) noexcept nogil:
    """Copy the padded elements that `block` reads to `patch`, for `channels` channels of each image. `source` points to
    the first of these channels in image 0.

    If `far` is set, the source is expected to be in no cache. The start of the next channel is then prefetched, because
    the hardware does not prefetch across pages.
    """
    cdef const ConvAxis* d = &axes[0]
    cdef const ConvAxis* h = &axes[1]
    cdef const ConvAxis* w = &axes[2]
    cdef Py_ssize_t plane = h.size * w.size, volume = d.size * plane
    cdef Py_ssize_t deep = block.n[0] + d.halo, high = block.n[1] + h.halo, wide = block.n[2] + w.halo
    # Rows may share padding. The end of a row then overlaps the start of the next row by `over` elements.
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
                            # If rows share padding, the zeros at the end of a row are written with the next row. The
                            # last row has no next row, so its end is cleared here.
                            zero_short(row, over)
