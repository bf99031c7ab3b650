# The sizes of a plan, and the places of the lanes of a block in the padded block and in the result.

from libc.stdint cimport int32_t

from fastconv._ext.gemm.microkernel cimport Kernels
from fastconv._ext.packing.patches cimport Block, ConvAxis
from fastconv._ext.sparse.kernels cimport fc_row_location, fc_sparse_kernels


cdef enum:
    MOST_LANES = 16  # The largest number of lanes of a vector.


# What all calls of a plan share. Distances are in elements, and offsets in the workspace are in bytes.
cdef struct Sizes:
    const fc_sparse_kernels* table
    Kernels kernel              # the kernels that copy padded blocks
    ConvAxis[3] axes
    Py_ssize_t itemsize         # the number of bytes of an element
    Py_ssize_t lanes            # the number of elements of a vector
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t rows             # the number of filters of a group or, for dx, of channels of a group
    Py_ssize_t row_step         # the distance between two rows of the weight matrix
    Py_ssize_t group_step       # the distance between the weights of two groups
    Py_ssize_t channels         # the number of channels of the source in a group
    Py_ssize_t channel_step     # the distance between the weights of two channels
    Py_ssize_t taps             # the number of taps of the kernel
    Py_ssize_t volume           # the number of elements of a channel of the source
    Py_ssize_t positions        # the number of elements of a channel of the result
    Py_ssize_t block_rows       # the number of rows of a row block
    Py_ssize_t row_blocks       # the number of row blocks of all groups
    Py_ssize_t row_blocks_at_once  # the number of row blocks whose lists are in the workspace at the same time
    Py_ssize_t block_channels   # the number of channels that are copied to vectors before they are multiplied
    Py_ssize_t channel_blocks   # the number of blocks of channels, each of which has lists of its own
    Py_ssize_t blocks           # the number of blocks of the result
    Py_ssize_t parts            # the number of partial sums of the gradient; 0 if no gradient is computed
    Py_ssize_t workers          # the largest number of threads of a call
    Py_ssize_t patch_image      # the distance between two images in the padded block
    Py_ssize_t channel_pitch    # the distance between two channels in the vectors of a block
    Py_ssize_t row_pitch        # the distance between two rows in the vectors of a block
    Py_ssize_t copy_rows        # the number of rows that one call of the copying kernel copies to vectors
    Py_ssize_t copies           # the number of calls of the copying kernel for one channel
    Py_ssize_t out_rows         # the number of output rows of one part of a block
    Py_ssize_t out_width        # the number of results of one output row; each result takes one lane of a vector
    Py_ssize_t tile_rows        # the number of output rows of a tile; the last tile may have fewer
    Py_ssize_t tile_width       # the number of vectors of an output row of a tile; the last tile may have fewer
    Py_ssize_t lane_images      # the number of images of a block; no two images share a lane
    Py_ssize_t[3] lane_parts    # the number of parts of a block along each axis; each lane holds one part
    Py_ssize_t[3] part          # the number of results of one part along each axis
    # For each weight of a row in a block of channels: the offset, in vectors, of the image element that the weight
    # multiplies, or -1 if the weight is not used.
    const int32_t* tap_offsets
    # For each offset of an image element: the offset, in a row of weights, of the weight that multiplies this element.
    const int32_t* weight_at
    # For each call of the kernel that copies rows to vectors: the offset of its first vector, and the offset of its
    # first row in the padded block.
    const Py_ssize_t* copy_to
    const Py_ssize_t* copy_from
    # For each output row: the offset of the first copied vector that the row reads.
    const Py_ssize_t* row_offsets
    # The scratchpad of a thread. A padded block is at its start.
    Py_ssize_t lanes_at         # the copied vectors
    Py_ssize_t sums_at          # the sums of a block of results; for the gradient of the weights: dout in vectors
    Py_ssize_t mask_at          # for the gradient of the weights: where dout was filled up with zeros
    Py_ssize_t locations_at     # an array of fc_row_location
    Py_ssize_t space_pitch      # the distance between the scratchpads of two threads, in bytes
    # A fc_nonzeros_list. There is one for each row block and each block of channels.
    Py_ssize_t list_rows_at     # `rows`
    Py_ssize_t list_counts_at   # `counts`
    Py_ssize_t list_offsets_at  # `offsets`
    Py_ssize_t list_values_at   # `values`; for the gradient of the weights: the first partial sum
    Py_ssize_t list_part        # the distance between two partial sums, in bytes
    Py_ssize_t list_pitch       # the distance between two lists, in bytes
    # The workspace of a call.
    Py_ssize_t lists_at         # the lists of all row blocks that are processed together
    Py_ssize_t space_at         # the scratchpads of all threads


cdef inline void set_lane_offsets(Py_ssize_t* at, const Sizes* s, const Block* block) noexcept nogil:
    """Set the offset of each lane in the padded block. If the block has fewer than `lane_images` images, the
    lanes of the missing images get the offsets of the last image.
    """
    cdef Py_ssize_t lane = 0, n, d, h, w
    for n in range(s.lane_images):
        for d in range(s.lane_parts[0]):
            for h in range(s.lane_parts[1]):
                for w in range(s.lane_parts[2]):
                    at[lane] = (
                        min(n, block.images - 1) * s.patch_image + d * s.part[0] * s.axes[0].pitch
                        + h * s.part[1] * s.axes[1].pitch + w * s.part[2]
                    )
                    lane += 1


cdef inline void set_row_locations(
    fc_row_location* locations, const Sizes* s, const Block* block, Py_ssize_t image_step
) noexcept nogil:
    """Set the location, in the result, of each output row of each lane."""
    cdef const ConvAxis* axis
    cdef Py_ssize_t[3] o
    cdef Py_ssize_t lane, row, n, d, h, w, left
    cdef Py_ssize_t lanes = s.lane_images * s.lane_parts[0] * s.lane_parts[1] * s.lane_parts[2]
    cdef fc_row_location* location
    for row in range(s.out_rows):
        lane = 0
        for n in range(s.lane_images):
            for d in range(s.lane_parts[0]):
                o[0] = block.begin[0] + d * s.part[0] + row // s.part[1]
                for h in range(s.lane_parts[1]):
                    o[1] = block.begin[1] + h * s.part[1] + row % s.part[1]
                    for w in range(s.lane_parts[2]):
                        o[2] = block.begin[2] + w * s.part[2]
                        location = &locations[row * lanes + lane]
                        lane += 1
                        location.offset = location.count = 0
                        left = min(s.part[2], s.axes[2].out - o[2])
                        if n < block.images and o[0] < s.axes[0].out and o[1] < s.axes[1].out and left > 0:
                            axis = &s.axes[0]
                            location.count = left
                            location.offset = (
                                (block.image + n) * image_step
                                + ((axis.output_offset + o[0] * axis.output_stride) * s.axes[1].output_size
                                   + s.axes[1].output_offset
                                   + o[1] * s.axes[1].output_stride) * s.axes[2].output_size
                                + s.axes[2].output_offset + o[2] * s.axes[2].output_stride
                            )
