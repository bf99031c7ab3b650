# What forward, backward_data and backward_weights have in common: the structs of a plan, the division of an image into
# tiles, the copy of a block to channels-last, and the transform of tiles to their values at the interpolation points.
#
# The source is the array that the convolution reads: x or, for dx, dout. Along an axis with stride s, output o reads
# source element o * s + t - lo at tap t. The kernel is decomposed into subkernels, because the transforms support only
# a few taps. Tap j of the subkernel with offset f is tap f + j * s of the kernel, and reads source element
# (o + j) * s + f - lo. So a subkernel is a filter with stride 1 on every s-th element. The products of all subkernels
# are summed, as if each subkernel were an additional channel.

from fastconv._ext.buffers.blocks cimport unravel_block
from fastconv._ext.buffers.runs cimport floating
from fastconv._ext.gemm.microkernel cimport Kernels, fc_tile_t
from fastconv._ext.threads.team cimport fc_work_queue

cdef extern from "winograd/winograd.h":
    ctypedef void (*fc_wino_input_t)(
        int high, int wide, const void* patch, const Py_ssize_t* at, void* v, Py_ssize_t pitch,
    ) noexcept nogil
    ctypedef void (*fc_wino_weights_t)(
        int high, int taps_h, int wide, int taps_w, const void* g, const Py_ssize_t* at, void* u, Py_ssize_t pitch,
    ) noexcept nogil
    ctypedef void (*fc_wino_output_t)(
        int high, int out_h, int wide, int out_w, const void* m, Py_ssize_t pitch, const void* bias, void* to,
        Py_ssize_t filter_step, Py_ssize_t row_step, Py_ssize_t column_step, int filters, const int* box, void* check,
    ) noexcept nogil
    ctypedef void (*fc_wino_gradient_t)(
        int high, int taps_h, int wide, int taps_w, const void* m, Py_ssize_t pitch, void* to, Py_ssize_t step,
        const Py_ssize_t* at, int channels, void* check,
    ) noexcept nogil

    ctypedef struct fc_winograd_kernels:
        fc_wino_input_t input
        fc_wino_weights_t weights
        fc_wino_output_t output
        fc_wino_gradient_t gradient

    const fc_winograd_kernels* fc_winograd_for(int dtype, int isa) noexcept nogil


cdef enum:
    MOST_POINTS = 64  # The largest number of interpolation points of a tile.


# One axis of the source and of the result, and the division of the outputs into tiles. The sizes are numbers of
# elements along the axis.
cdef struct TileAxis:
    Py_ssize_t size             # the size of the source
    Py_ssize_t stride           # the distance, in the source, between what neighbouring outputs read
    Py_ssize_t lo               # the padding before the source
    Py_ssize_t points           # the number of interpolation points
    Py_ssize_t taps             # the number of taps of a subkernel
    Py_ssize_t outputs          # the number of outputs of a tile
    Py_ssize_t tiles            # the number of tiles that cover all outputs
    Py_ssize_t block            # the number of tiles of a block
    Py_ssize_t span             # the size of the range of source elements that a tile reads
    Py_ssize_t output_stride    # the distance between two outputs in the result
    Py_ssize_t output_size      # the size of the result
    Py_ssize_t first            # the outputs read only the source elements [first, end)
    Py_ssize_t end


# The sizes of a plan. Distances, pitches, offsets and the sizes of arrays are in elements. An offset `*_at` is relative
# to the start of the workspace of a thread. "Rows" are filters or, for dx, channels of the image. "Channels" are
# channels of the source, so for dx they are filters.
cdef struct Sizes:
    Py_ssize_t images            # the number of images
    Py_ssize_t block_images      # the number of images of a block
    Py_ssize_t groups            # the number of groups
    Py_ssize_t rows              # the number of rows of a group
    Py_ssize_t row_step          # the distance, in the weights, between two rows
    Py_ssize_t block_rows        # the number of rows of a work item
    Py_ssize_t pass_rows         # the number of rows of a pass: see `multiply` in product.pxd
    Py_ssize_t channels          # the number of channels of a group
    Py_ssize_t channel_step      # the distance, in the weights, between two channels of a row
    Py_ssize_t block_channels    # for dw: the number of channels of a work item
    Py_ssize_t kernel_taps       # the number of taps of the kernel
    Py_ssize_t subkernels        # the number of subkernels of the kernel
    Py_ssize_t phases            # for dx: the number of stride phases, each of which has its own kernel; otherwise 1
    Py_ssize_t group_step        # the distance between the weights of two groups
    Py_ssize_t volume            # the size of a channel of an image of the source
    Py_ssize_t positions         # the size of a row of an image of the result
    Py_ssize_t blocks            # the number of blocks of all images
    Py_ssize_t items             # the number of work items
    Py_ssize_t parts             # for dw: the number of partial sums
    Py_ssize_t part_pitch        # for dw: the distance between two partial sums, which is the size of dw
    Py_ssize_t chunk             # the number of channels whose weights are transposed at a time
    bint weights_resident        # whether the workspace holds the transformed weights of all rows of a work item
    Py_ssize_t channel_lanes     # the number of channels of the patch, rounded up to whole vectors
    Py_ssize_t row_lanes         # for dw: the number of filters of a work item, rounded up to whole vectors
    Py_ssize_t v_step            # the distance between two tiles in v
    Py_ssize_t v_pitch           # the distance between two interpolation points in v
    Py_ssize_t u_step            # for dw: the distance between two tiles in u
    Py_ssize_t u_pitch           # for dw: the distance between two interpolation points in u
    Py_ssize_t u_padding         # except for dw: the padding after the weights of each interpolation point in u
    Py_ssize_t m_step            # for dw: the distance between two filters in m
    Py_ssize_t m_pitch           # the distance between two interpolation points in m
    Py_ssize_t patch_at          # the offset of the patch, a copy of a block of the image (for dw, also of dout)
    Py_ssize_t zero_at           # the offset of a pixel of zeros, which stands for elements outside the image
    Py_ssize_t v_at              # the offset of v, the transformed tiles of the image
    Py_ssize_t u_at              # the offset of u, the transformed weights or, for dw, the transformed tiles of dout
    Py_ssize_t m_at              # the offset of m, the products of u and v
    Py_ssize_t transposed_at     # the offset of the transposed weights
    Py_ssize_t bias_at           # the offset of a copy of the bias
    # The offset of the array `check`, with one element for each row or, for dw, for each channel. The element becomes
    # NaN if a result of the row or the channel is inf or NaN.
    Py_ssize_t check_at
    Py_ssize_t workspace         # the size of the workspace of a thread


# The transforms of one dtype and instruction set.
cdef struct Transforms:
    fc_wino_input_t input
    fc_wino_weights_t weights
    fc_wino_output_t output
    fc_wino_gradient_t gradient
    Kernels kernel      # the kernels of matrix products, of which `interleave` transposes


# What does not change after a plan is made. All threads of all calls read it.
cdef struct Constants:
    Sizes sizes
    TileAxis[3] axes                     # along D, H and W
    Transforms transforms
    fc_tile_t tile                       # the micro-kernel that multiplies u and v
    const Py_ssize_t* planes             # the offset of each channel of a work item in the source
    const Py_ssize_t* filter_planes      # for dw: the offset of each filter of a work item in dout
    const Py_ssize_t* offsets            # (subkernels, 3): the offset of each subkernel along D, H and W
    # (phases, subkernels, taps): for each tap of a subkernel, its index in the kernel, or -1 if the kernel has no such
    # tap
    const Py_ssize_t* taps
    # (phases, 3): the index, along D, H and W of the result, of output 0 of each stride phase; negative if this output
    # is outside the result
    const Py_ssize_t* output_offsets


# The arguments of a call. All threads of the call read them.
cdef struct Call:
    const Constants* plan
    const void* source
    const void* w           # except for dw
    const void* bias        # except for dw; NULL if there is no bias
    const void* dout        # for dw
    void* result
    void* workspace
    Py_ssize_t workspaces   # the number of threads that have a workspace
    Py_ssize_t counts       # the number of elements of `overflows`
    Py_ssize_t* overflows   # how often an inf or NaN was found: a count for each image or, for dw, one count
    fc_work_queue* queue


# A block of tiles: [begin, begin + n) along each axis, in the images [image, image + images).
cdef struct Block:
    Py_ssize_t image        # the index of the first image
    Py_ssize_t images       # the number of images
    Py_ssize_t[3] begin     # the index of the first tile along D, H and W
    Py_ssize_t[3] n         # the number of tiles along D, H and W


cdef inline Py_ssize_t block_at(Block* block, Py_ssize_t index, const Sizes* s, const TileAxis* axes) noexcept nogil:
    """Set `block` to the block of a work item. `index` is the index of the block, plus the number of blocks times the
    index of the group. Return the index of the group.
    """
    cdef Py_ssize_t i
    for i in range(2, -1, -1):
        index = unravel_block(&block.begin[i], index, axes[i].tiles, axes[i].block)
        block.n[i] = min(axes[i].block, axes[i].tiles - block.begin[i])
    index = unravel_block(&block.image, index, s.images, s.block_images)
    block.images = min(s.block_images, s.images - block.image)
    return index


cdef inline Py_ssize_t count_tiles(const Block* b) noexcept nogil:
    """Return the number of tiles of a block, in all its images."""
    return b.images * b.n[0] * b.n[1] * b.n[2]


# A window: the range of source elements that the tiles of a block read, [first, first + n) along each axis.
cdef struct Window:
    Py_ssize_t[3] first     # the index of the first element along D, H and W
    Py_ssize_t[3] n         # the number of elements along D, H and W


cdef inline bint has_nan(const floating* lanes, Py_ssize_t n) noexcept nogil:
    """Return whether any of n elements is NaN. The loop has no branch, so that the compiler can vectorize it."""
    cdef Py_ssize_t i
    cdef int found = 0
    for i in range(n):
        found |= lanes[i] != lanes[i]
    return found != 0


cdef inline void clip_window(
    Window* window, Py_ssize_t i, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Set the window along axis i to the intersection of [begin, end) and [first, last)."""
    window.first[i] = min(max(begin, first), last)
    window.n[i] = max(min(end, last) - window.first[i], 0)


cdef inline Window source_window(const Block* b, const TileAxis* axes) noexcept nogil:
    """Return the window of the source that the tiles of a block read."""
    cdef Window window
    cdef Py_ssize_t i, step, begin
    for i in range(3):
        step = axes[i].outputs * axes[i].stride
        begin = b.begin[i] * step - axes[i].lo
        clip_window(
            &window, i, begin, begin + (b.n[i] - 1) * step + axes[i].span, axes[i].first, axes[i].end,
        )
    return window


cdef inline void to_channels_last(
    floating* patch, const floating* source, Py_ssize_t image_step, const Py_ssize_t* planes, Py_ssize_t channels,
    Py_ssize_t lanes, const Block* b, const Window* window, Py_ssize_t high, Py_ssize_t wide, const Kernels* kernel,
) noexcept nogil:
    """Transpose a window of each image to channels-last, and write the result to patch (images, depth, height, width,
    lanes). A plane of the source has `high` rows of `wide` elements. If the window has the whole width of the source,
    transpose all its rows as one run.
    """
    cdef Py_ssize_t n, d, y, run = window.n[2], runs = window.n[1]
    cdef const floating* at
    if window.n[0] * window.n[1] * window.n[2] == 0:
        return
    if run == wide:
        run, runs = run * runs, 1
    for n in range(b.images):
        for d in range(window.n[0]):
            at = (
                source + (b.image + n) * image_step
                + ((window.first[0] + d) * high + window.first[1]) * wide + window.first[2]
            )
            for y in range(runs):
                kernel.interleave(patch, lanes, at + y * wide, planes, channels, run)
                patch = patch + run * lanes


# The pixels that a tile reads from a channels-last patch. A pixel is all channels at one position.
cdef struct PixelGrid:
    Py_ssize_t rows         # the number of rows of pixels that a tile reads
    Py_ssize_t columns      # the number of columns of pixels that a tile reads
    Py_ssize_t row_step     # the stride along H: a tile reads every `row_step`-th row of the patch
    Py_ssize_t column_step  # the stride along W: a tile reads every `column_step`-th column of the patch
    Py_ssize_t lanes        # the number of channels of a pixel
    Py_ssize_t zero_pixel   # the offset of a pixel of zeros from the start of the patch, in elements


cdef inline void list_interior_offsets(Py_ssize_t* at, const PixelGrid* grid, const Window* window) noexcept nogil:
    """Fill `at` with the offset of each pixel of a tile, relative to the first pixel of the tile. The offsets are valid
    for every tile that lies inside the window.
    """
    cdef Py_ssize_t i, j
    for i in range(grid.rows):
        for j in range(grid.columns):
            at[i * grid.columns + j] = (i * grid.row_step * window.n[2] + j * grid.column_step) * grid.lanes


cdef inline const Py_ssize_t* list_pixel_offsets(
    Py_ssize_t* at, const Py_ssize_t* inside, Py_ssize_t* base, Py_ssize_t n, Py_ssize_t depth, Py_ssize_t y,
    Py_ssize_t x, const PixelGrid* grid, const Window* window,
) noexcept nogil:
    """Return an array with the offset, relative to `base`, of each pixel of a tile. The first pixel of the tile is at
    (depth, y, x) in the window of image n.

    If the tile lies inside the window, the array is `inside` (see `list_interior_offsets`). Otherwise the array is
    `at`, which this function fills in. A pixel outside the window gets the offset of a pixel of zeros.
    """
    cdef Py_ssize_t i, j, row
    base[0] = (((n * window.n[0] + depth) * window.n[1] + y) * window.n[2] + x) * grid.lanes
    if (
        depth >= 0 and depth < window.n[0] and y >= 0 and y + (grid.rows - 1) * grid.row_step < window.n[1]
        and x >= 0 and x + (grid.columns - 1) * grid.column_step < window.n[2]
    ):
        return inside
    base[0] = 0
    for i in range(grid.rows):
        row = ((n * window.n[0] + depth) * window.n[1] + y + i * grid.row_step) * window.n[2]
        if depth < 0 or depth >= window.n[0] or y + i * grid.row_step < 0 or y + i * grid.row_step >= window.n[1]:
            for j in range(grid.columns):
                at[i * grid.columns + j] = grid.zero_pixel
        else:
            for j in range(grid.columns):
                at[i * grid.columns + j] = grid.zero_pixel
                if 0 <= x + j * grid.column_step < window.n[2]:
                    at[i * grid.columns + j] = (row + x + j * grid.column_step) * grid.lanes
    return at


cdef inline void transform_image(
    floating* v, const floating* patch, const Block* b, const Window* window, const Call* call, Py_ssize_t channels,
) noexcept nogil:
    """Transform the tiles of a patch, and write the result to v (points, tiles, subkernels * channels)."""
    cdef const Sizes* s = &call.plan.sizes
    cdef const TileAxis* axes = &call.plan.axes[0]
    cdef const Transforms* t = &call.plan.transforms
    cdef const Py_ssize_t* offset
    cdef const Py_ssize_t* pixel_offsets
    cdef Py_ssize_t[MOST_POINTS] at, inside
    cdef Py_ssize_t n, od, oh, ow, q, c, base, depth, y, x, steps_h, steps_w
    cdef PixelGrid grid
    grid.rows, grid.columns = axes[1].points, axes[2].points
    grid.row_step, grid.column_step = axes[1].stride, axes[2].stride
    grid.lanes, grid.zero_pixel = s.channel_lanes, s.zero_at - s.patch_at
    list_interior_offsets(inside, &grid, window)
    steps_h, steps_w = axes[1].outputs * axes[1].stride, axes[2].outputs * axes[2].stride
    for n in range(b.images):
        for od in range(b.n[0]):
            depth = (b.begin[0] + od) * axes[0].stride - axes[0].lo - window.first[0]
            for oh in range(b.n[1]):
                y = (b.begin[1] + oh) * steps_h - axes[1].lo - window.first[1]
                for ow in range(b.n[2]):
                    x = (b.begin[2] + ow) * steps_w - axes[2].lo - window.first[2]
                    # The last vector of values of a subkernel may extend into the values of the next subkernel. This
                    # does no harm, because the values of the next subkernel are written later.
                    offset = call.plan.offsets
                    for q in range(s.subkernels):
                        pixel_offsets = list_pixel_offsets(
                            at, inside, &base, n, depth + offset[0], y + offset[1], x + offset[2], &grid, window,
                        )
                        c = 0
                        while c < channels:
                            t.input(
                                <int> grid.rows, <int> grid.columns, patch + base + c, pixel_offsets,
                                v + q * channels + c, s.v_pitch,
                            )
                            c += t.kernel.lanes
                        offset += 3
                    v = v + s.v_step
