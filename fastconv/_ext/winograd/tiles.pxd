# Declarations for both modules of Winograd's minimal filtering F(m, r): the tiles of an image, which are transposed to
# channels-last, and the transform of each tile to its values at the interpolation points.
#
# The source is the array that the convolution reads: x or, for dx, dout. Along an axis with stride s, output o reads
# source element o * s + t - lo at tap t. The kernel is decomposed into subkernels, because the transforms support only
# a few taps. Tap j of the subkernel with offset f is tap f + j * s of the kernel, and reads source element
# (o + j) * s + f - lo. So a subkernel is a filter with stride 1 on every s-th element. The products of all subkernels
# are summed, as if each subkernel were an additional channel.

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div, unravel_block
from fastconv._ext.gemm.microkernel cimport Kernels, fc_tile_t, kernels
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.threads.team cimport fc_work_queue, work_queue

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
    AXIS_NUMBERS = 13  # The number of integers of an axis in the table of a call.
    MOST_LANES = 64   # The largest number of lanes of a panel in any instruction set.


# One axis of the source and of the result, and the division of the outputs into tiles.
cdef struct TileAxis:
    Py_ssize_t size     # the size of the source
    Py_ssize_t stride
    Py_ssize_t lo       # the padding before the source
    Py_ssize_t points   # the number of interpolation points
    Py_ssize_t taps     # the number of taps of a subkernel
    Py_ssize_t outputs  # the number of outputs of a tile
    Py_ssize_t tiles
    Py_ssize_t block    # the number of tiles of a block
    Py_ssize_t span     # the size of the range of source elements that a tile reads
    Py_ssize_t output_stride  # the distance between two outputs in the result
    Py_ssize_t output_size  # the size of the result
    Py_ssize_t first    # the outputs of the call read only the source elements [first, end)
    Py_ssize_t end


# The sizes of a call, in the order of the table that fastconv.convolution.winograd.tiles makes. Distances and offsets
# are in elements. An offset is relative to the start of the workspace of a thread.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t block_images
    Py_ssize_t groups
    Py_ssize_t rows              # the number of filters of a group or, for dx, of channels of a group
    Py_ssize_t row_step          # the distance between two rows of the weight matrix
    Py_ssize_t block_rows        # the number of rows of a work item
    Py_ssize_t pass_rows         # the number of rows of a pass: see `multiply` in product.pxd
    Py_ssize_t channels          # the number of channels of the source in a group
    Py_ssize_t channel_step      # the distance between the weights of two channels
    Py_ssize_t block_channels    # the number of channels of a work item
    Py_ssize_t kernel            # the number of taps of the kernel
    Py_ssize_t subkernels
    Py_ssize_t phases            # for dx: the number of stride phases, each of which has its own kernel; otherwise 1
    Py_ssize_t weights_resident  # whether the workspace holds the transformed weights of all rows of a work item
    Py_ssize_t parts             # for dw: the number of partial sums
    Py_ssize_t chunk             # the number of channels whose weights are transposed at a time
    Py_ssize_t lanes             # the number of channels in the workspace, rounded up to whole vectors
    Py_ssize_t rows_lanes        # the number of filters in the workspace, rounded up to whole vectors
    Py_ssize_t zero_at           # the offset of a vector of zeros, which stands for elements outside the image
    Py_ssize_t v_at              # the offset of v, the transformed tiles of the image
    Py_ssize_t u_at              # the offset of u, the transformed weights or, for dw, the transformed tiles of dout
    Py_ssize_t m_at              # the offset of m, the products of u and v
    Py_ssize_t g_at              # the offset of the transposed weights
    Py_ssize_t bias_at           # the offset of a copy of the bias
    # The offset of the array `check`, with one element for each row or, for dw, for each channel. The element becomes
    # NaN if a result of the row or the channel is inf or NaN.
    Py_ssize_t check_at
    Py_ssize_t v_step            # the distance between two tiles in v, the transformed image
    Py_ssize_t u_step            # for dw: the distance between two tiles in u, the transformed dout
    Py_ssize_t m_step            # for dw: the distance between two filters in m, the products of u and v
    Py_ssize_t v_pitch           # the distance between two interpolation points in v, the transformed image
    # The padding after the weights of each interpolation point. For dw, the distance between two interpolation points
    # in u, the transformed dout.
    Py_ssize_t u_pitch
    Py_ssize_t m_pitch           # the distance between two interpolation points in m, the products of u and v


# The transforms of one dtype and instruction set.
cdef struct Transforms:
    fc_wino_input_t input
    fc_wino_weights_t weights
    fc_wino_output_t output
    fc_wino_gradient_t gradient
    Kernels kernel


# The arguments of a call. All threads of the call read them. `bias` and `w` are for the ops forward and backward_data;
# `dout` and `filter_planes` are for backward_weights.
cdef struct Call:
    const void* source
    const void* w
    const void* bias
    const void* dout
    void* result
    Py_ssize_t part_pitch
    const Py_ssize_t* planes
    const Py_ssize_t* filter_planes
    const Py_ssize_t* offsets   # (subkernels, 3): the offset of each subkernel along D, H and W
    # (phases, subkernels, taps): for each tap of a subkernel, its index in the kernel, or -1 if the kernel has no such
    # tap
    const Py_ssize_t* taps
    # (phases, 3): the index, along D, H and W of the result, of output 0 of each stride phase; negative if this output
    # is outside the result
    const Py_ssize_t* starts
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    Py_ssize_t group_step   # the distance between the weights of two groups, in elements
    Py_ssize_t volume       # the number of elements of a channel of the source
    Py_ssize_t positions    # the number of elements of a channel of the result
    Py_ssize_t blocks
    Py_ssize_t items
    fc_work_queue* queue
    Py_ssize_t counts       # the number of elements of `overflows`
    Py_ssize_t* overflows   # how often an inf or NaN was found: a count for each image or, for dw, one count
    Sizes sizes
    TileAxis[3] axes
    Transforms transforms
    fc_tile_t tile


cdef inline int read_call(
    Call* call, sizes, axes, offsets, taps, overflows, space, int dtype, int isa, queue,
) except -1:
    cdef Py_ssize_t i, number = sizeof(Py_ssize_t)
    cdef Py_ssize_t* fields = <Py_ssize_t*> &call.sizes
    cdef Buffer of_sizes = contiguous_buffer(sizes, number, False), of_taps = contiguous_buffer(taps, number, False)
    cdef Buffer of_offsets = contiguous_buffer(offsets, number, False)
    cdef Buffer found = contiguous_buffer(overflows, number, True)
    cdef Buffer workspaces = contiguous_buffer(space, 8 if dtype else 4, True)
    cdef const Py_ssize_t* row = index_pointer(axes)
    cdef Transforms* t = &call.transforms
    cdef TileAxis* axis
    fc_check(of_sizes.n * number == <Py_ssize_t> sizeof(Sizes))
    for i in range(of_sizes.n):
        fields[i] = (<const Py_ssize_t*> of_sizes.at)[i]
    for i in range(3):
        axis = &call.axes[i]
        axis.size, axis.stride, axis.lo = row[0], row[1], row[2]
        axis.points, axis.taps, axis.outputs = row[3], row[4], row[5]
        axis.tiles, axis.block, axis.span = row[6], row[7], row[8]
        axis.output_stride, axis.output_size, axis.first, axis.end = row[9], row[10], row[11], row[12]
        row += AXIS_NUMBERS
    fc_check(of_offsets.n == 3 * call.sizes.subkernels)
    fc_check(of_taps.n == call.sizes.phases * call.sizes.subkernels * call.axes[1].taps * call.axes[2].taps)
    fc_check(call.axes[1].points * call.axes[2].points <= MOST_POINTS)
    call.offsets, call.taps = <const Py_ssize_t*> of_offsets.at, <const Py_ssize_t*> of_taps.at
    t.input = fc_winograd_for(dtype, isa).input
    t.weights = fc_winograd_for(dtype, isa).weights
    t.output = fc_winograd_for(dtype, isa).output
    t.gradient = fc_winograd_for(dtype, isa).gradient
    t.kernel = kernels(dtype, isa)
    call.volume = call.axes[0].size * call.axes[1].size * call.axes[2].size
    call.positions = call.axes[0].output_size * call.axes[1].output_size * call.axes[2].output_size
    call.blocks = ceil_div(call.sizes.images, call.sizes.block_images)
    for i in range(3):
        call.blocks *= ceil_div(call.axes[i].tiles, call.axes[i].block)
    call.overflows, call.counts = <Py_ssize_t*> found.at, found.n
    call.space, call.workspaces = workspaces.at, space.shape[0]
    call.space_pitch = workspaces.n // call.workspaces
    call.queue = work_queue(queue)
    return 0


# A block of tiles: [begin, begin + n) along each axis, in the images [image, image + images).
cdef struct Block:
    Py_ssize_t image
    Py_ssize_t images
    Py_ssize_t[3] begin
    Py_ssize_t[3] n


cdef inline Py_ssize_t block_at(Block* block, Py_ssize_t index, const Sizes* s, const TileAxis* axes) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(2, -1, -1):
        index = unravel_block(&block.begin[i], index, axes[i].tiles, axes[i].block)
        block.n[i] = min(axes[i].block, axes[i].tiles - block.begin[i])
    index = unravel_block(&block.image, index, s.images, s.block_images)
    block.images = min(s.block_images, s.images - block.image)
    return index


cdef inline Py_ssize_t count_tiles(const Block* b) noexcept nogil:
    return b.images * b.n[0] * b.n[1] * b.n[2]


# A window: the range of source elements that the tiles of a block read, [first, first + n) along each axis.
cdef struct Window:
    Py_ssize_t[3] first
    Py_ssize_t[3] n


cdef inline bint has_nan(const floating* lanes, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef int found = 0
    for i in range(n):
        found |= lanes[i] != lanes[i]
    return found != 0


cdef inline Py_ssize_t total(const Call* call) noexcept nogil:
    """Return how often an inf or NaN was found in all images."""
    cdef Py_ssize_t i, found = 0
    for i in range(call.counts):
        found += call.overflows[i]
    return found


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
    lanes). A plane of the source has `high` rows of `wide` elements.
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
    cdef const Sizes* s = &call.sizes
    cdef const TileAxis* axes = &call.axes[0]
    cdef const Transforms* t = &call.transforms
    cdef const Py_ssize_t* offset
    cdef const Py_ssize_t* pixel_offsets
    cdef Py_ssize_t[MOST_POINTS] at, inside
    cdef Py_ssize_t n, od, oh, ow, q, c, base, depth, y, x, steps_h, steps_w
    cdef PixelGrid grid
    grid.rows, grid.columns = axes[1].points, axes[2].points
    grid.row_step, grid.column_step = axes[1].stride, axes[2].stride
    grid.lanes, grid.zero_pixel = s.lanes, s.zero_at
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
                    offset = call.offsets
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
