"""Winograd's minimal filtering: a product for each interpolation point.

The image is first turned so that channels lie together: transforms then have
channels in the vector lanes, whatever the size of the planes. `product` is
forward and backward_data, `weights` backward_weights. How the work is cut, and
every table below, is fastconv.algorithms.winograd's.
"""

from fastconv._ext.cuts cimport cut, pieces
from fastconv._ext.kernels cimport Kernels, kernels, next_vectors
from fastconv._ext.runs cimport fc_check, fc_draw, floating, zero
from fastconv._ext.team cimport fc_share

cdef extern from "winograd.h":
    ctypedef void (*fc_wino_input_t)(
        int high, int wide, const void* patch, const Py_ssize_t* at, void* v, Py_ssize_t pitch,
    ) noexcept nogil
    ctypedef void (*fc_wino_weights_t)(
        int high, int taps_h, int wide, int taps_w, const void* g, const Py_ssize_t* at, void* u, Py_ssize_t pitch,
    ) noexcept nogil
    ctypedef void (*fc_wino_output_t)(
        int high, int out_h, int wide, int out_w, const void* m, Py_ssize_t pitch, const void* bias, void* to,
        Py_ssize_t filter_step, Py_ssize_t row_step, int filters, int rows, int columns,
    ) noexcept nogil
    ctypedef void (*fc_wino_gradient_t)(
        int high, int taps_h, int wide, int taps_w, const void* m, Py_ssize_t pitch, void* to, Py_ssize_t step,
        int channels,
    ) noexcept nogil

    void fc_prefetch(const void* at, Py_ssize_t nbytes) noexcept nogil

    const fc_wino_input_t[2][3] fc_wino_input_table
    const fc_wino_weights_t[2][3] fc_wino_weights_table
    const fc_wino_output_t[2][3] fc_wino_output_table
    const fc_wino_gradient_t[2][3] fc_wino_gradient_table


cdef enum:
    MOST_POINTS = 36
    MOST_LANES = 64
    AHEAD = 3           # channels whose weights are asked for before they are needed


# One axis: cells of the source and of the result, and how both are cut into tiles.
cdef struct Side:
    Py_ssize_t size
    Py_ssize_t lo       # zeros before cell 0; negative where the source is cropped
    Py_ssize_t whole    # outputs
    Py_ssize_t points
    Py_ssize_t taps
    Py_ssize_t outputs  # of a tile
    Py_ssize_t tiles
    Py_ssize_t block    # tiles of a block


# fastconv.algorithms.winograd lists these, in this order; steps and pitches are in elements.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t block_images
    Py_ssize_t groups
    Py_ssize_t rows           # of the result, in a group: filters, or for dx channels
    Py_ssize_t row_step       # of the weights, from a row to the next
    Py_ssize_t block_rows
    Py_ssize_t channels       # of the source, in a group
    Py_ssize_t channel_step   # of the weights
    Py_ssize_t block_channels
    Py_ssize_t flipped        # whether the kernel is turned
    Py_ssize_t kept           # whether a thread keeps all transformed weights of an item's rows
    Py_ssize_t parts          # of the batch, whose dw is summed apart
    Py_ssize_t chunk          # channels whose weights are turned at a time
    Py_ssize_t lanes          # channels of a cell in the patch, with what fills the last vector
    Py_ssize_t rows_lanes     # the same for rows
    Py_ssize_t zero_at        # of the workspace: a cell of zeros,
    Py_ssize_t v_at           # the image at every point,
    Py_ssize_t u_at           # the weights or the gradient,
    Py_ssize_t m_at           # the products,
    Py_ssize_t g_at           # weights turned,
    Py_ssize_t bias_at
    Py_ssize_t v_step         # from a tile to the next: of the image
    Py_ssize_t u_step         # and of the gradient
    Py_ssize_t v_pitch        # from a point to the next: of the image,
    Py_ssize_t u_pitch        # of the weights past their end, or of the gradient,
    Py_ssize_t m_pitch        # of the products


cdef inline void read_tables(
    Sizes* s, Side* sides, const Py_ssize_t[::1] sizes, const Py_ssize_t[:, ::1] axes
) noexcept nogil:
    cdef Py_ssize_t i
    cdef Py_ssize_t* fields = <Py_ssize_t*> s
    fc_check(sizes.shape[0] * <Py_ssize_t> sizeof(Py_ssize_t) == <Py_ssize_t> sizeof(Sizes))
    for i in range(sizes.shape[0]):
        fields[i] = sizes[i]
    for i in range(3):
        sides[i].size, sides[i].lo, sides[i].whole = axes[i, 0], axes[i, 1], axes[i, 2]
        sides[i].points, sides[i].taps, sides[i].outputs = axes[i, 3], axes[i, 4], axes[i, 5]
        sides[i].tiles, sides[i].block = axes[i, 6], axes[i, 7]


# The copies of one dtype and instruction set.
cdef struct Transforms:
    fc_wino_input_t input
    fc_wino_weights_t weights
    fc_wino_output_t output
    fc_wino_gradient_t gradient
    Kernels kernel


cdef inline Transforms transforms(int dtype, int isa) noexcept nogil:
    cdef Transforms t
    t.input = fc_wino_input_table[dtype][isa]
    t.weights = fc_wino_weights_table[dtype][isa]
    t.output = fc_wino_output_table[dtype][isa]
    t.gradient = fc_wino_gradient_table[dtype][isa]
    t.kernel = kernels(dtype, isa)
    return t


# Which tiles: [begin, begin + n) per axis, in images [image, image + images).
cdef struct Block:
    Py_ssize_t image
    Py_ssize_t images
    Py_ssize_t[3] begin
    Py_ssize_t[3] n


cdef Py_ssize_t block_at(Block* block, Py_ssize_t index, const Sizes* s, const Side* sides) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(2, -1, -1):
        index = cut(&block.begin[i], index, sides[i].tiles, sides[i].block)
        block.n[i] = min(sides[i].block, sides[i].tiles - block.begin[i])
    index = cut(&block.image, index, s.images, s.block_images)
    block.images = min(s.block_images, s.images - block.image)
    return index


cdef inline Py_ssize_t count_blocks(const Sizes* s, const Side* sides) noexcept nogil:
    cdef Py_ssize_t i, total = pieces(s.images, s.block_images)
    for i in range(3):
        total *= pieces(sides[i].tiles, sides[i].block)
    return total


cdef inline Py_ssize_t count_tiles(const Block* b) noexcept nogil:
    return b.images * b.n[0] * b.n[1] * b.n[2]


# Cells [first, first + n) of the source along each axis: what the tiles of a block see of it.
cdef struct Window:
    Py_ssize_t[3] first
    Py_ssize_t[3] n


cdef Window see(const Block* b, const Side* sides, bint gradient) noexcept nogil:
    """Of the source, or of the gradient, which has a cell for each output."""
    cdef Window window
    cdef Py_ssize_t i, begin, end, lo, span, size
    for i in range(3):
        lo, span, size = sides[i].lo, sides[i].points, sides[i].size
        if i == 0:
            span = sides[i].taps
        if gradient:
            lo, span, size = 0, sides[i].outputs, sides[i].whole
        begin = b.begin[i] * sides[i].outputs - lo
        end = begin + (b.n[i] - 1) * sides[i].outputs + span
        window.first[i] = min(max(begin, 0), size)
        window.n[i] = max(min(end, size) - window.first[i], 0)
    return window


cdef void turn(
    floating* patch, const floating* source, Py_ssize_t image_step, const Py_ssize_t* planes, Py_ssize_t channels,
    Py_ssize_t lanes, const Block* b, const Window* window, Py_ssize_t high, Py_ssize_t wide, const Kernels* kernel,
) noexcept nogil:
    """patch (images, depth, height, width, lanes) from the window of each image's planes, high x wide."""
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


cdef void list_cells(
    Py_ssize_t* at, Py_ssize_t n, Py_ssize_t depth, Py_ssize_t y, Py_ssize_t x, Py_ssize_t high, Py_ssize_t wide,
    const Window* window, Py_ssize_t lanes, Py_ssize_t nothing,
) noexcept nogil:
    """Where in the patch each of high x wide cells is, whose first is (depth, y, x) of the source; zeros else."""
    cdef Py_ssize_t i, j, row
    depth, y, x = depth - window.first[0], y - window.first[1], x - window.first[2]
    for i in range(high):
        row = ((n * window.n[0] + depth) * window.n[1] + y + i) * window.n[2] + x
        if depth < 0 or depth >= window.n[0] or y + i < 0 or y + i >= window.n[1]:
            for j in range(wide):
                at[i * wide + j] = nothing
        else:
            for j in range(wide):
                at[i * wide + j] = (row + j) * lanes if 0 <= x + j < window.n[2] else nothing


cdef void transform_image(
    floating* v, const floating* patch, const Block* b, const Window* window, const Sizes* s, const Side* sides,
    const Transforms* t,
) noexcept nogil:
    """v (points, depth taps, tiles, channels) from a patch."""
    cdef Py_ssize_t[MOST_POINTS] at
    cdef Py_ssize_t kd, n, od, oh, ow, c
    for kd in range(sides[0].taps):
        for n in range(b.images):
            for od in range(b.n[0]):
                for oh in range(b.n[1]):
                    for ow in range(b.n[2]):
                        list_cells(
                            at, n, b.begin[0] + od + kd - sides[0].lo,
                            (b.begin[1] + oh) * sides[1].outputs - sides[1].lo,
                            (b.begin[2] + ow) * sides[2].outputs - sides[2].lo,
                            sides[1].points, sides[2].points, window, s.lanes, s.zero_at,
                        )
                        c = 0
                        while c < s.lanes:
                            t.input(<int> sides[1].points, <int> sides[2].points, patch + c, at, v + c, s.v_pitch)
                            c += t.kernel.lanes
                        v = v + s.v_step


cdef void transform_gradient(
    floating* u, const floating* patch, const Block* b, const Window* window, const Sizes* s, const Side* sides,
    const Transforms* t,
) noexcept nogil:
    """u (points, tiles, filters) from a patch of dout: its tiles are the kernels that x is correlated with."""
    cdef Py_ssize_t[MOST_POINTS] at
    cdef Py_ssize_t n, od, oh, ow, f
    for n in range(b.images):
        for od in range(b.n[0]):
            for oh in range(b.n[1]):
                for ow in range(b.n[2]):
                    list_cells(
                        at, n, b.begin[0] + od, (b.begin[1] + oh) * sides[1].outputs,
                        (b.begin[2] + ow) * sides[2].outputs, sides[1].outputs, sides[2].outputs, window,
                        s.rows_lanes, s.zero_at,
                    )
                    f = 0
                    while f < s.rows_lanes:
                        t.weights(
                            <int> sides[1].points, <int> sides[1].outputs, <int> sides[2].points,
                            <int> sides[2].outputs, patch + f, at, u + f, s.u_pitch,
                        )
                        f += t.kernel.lanes
                    u = u + s.u_step


cdef void transform_weights(
    floating* u, floating* turned, const floating* w, Py_ssize_t rows, Py_ssize_t width,
    const Sizes* s, const Side* sides, const Transforms* t,
) noexcept nogil:
    """u (points, depth taps, channels, width) from `rows` rows of the weights."""
    cdef Py_ssize_t[MOST_LANES] at
    cdef Py_ssize_t[MOST_POINTS] tap_at
    cdef Py_ssize_t taps = sides[1].taps * sides[2].taps, deep = sides[0].taps, all_taps = deep * taps
    cdef Py_ssize_t c = 0, n, i, kd, lane, pitch = deep * s.channels * width + s.u_pitch
    cdef const floating* g
    fc_check(width <= MOST_LANES)
    for i in range(rows):
        at[i] = i * s.row_step
    for i in range(taps):
        tap_at[i] = (taps - 1 - i if s.flipped else i) * width
    while c < s.channels:
        n = min(s.chunk, s.channels - c)
        if s.channel_step == all_taps:
            t.kernel.interleave(turned, width, w + c * s.channel_step, at, rows, n * all_taps)
        else:
            for i in range(n):
                # Rows lie together here, and the next channel's far away.
                if c + i + AHEAD < s.channels:
                    fc_prefetch(w + (c + i + AHEAD) * s.channel_step, rows * all_taps * <Py_ssize_t> sizeof(floating))
                t.kernel.interleave(
                    turned + i * all_taps * width, width, w + (c + i) * s.channel_step, at, rows, all_taps
                )
        for i in range(n):
            for kd in range(deep):
                g = turned + (i * deep + (deep - 1 - kd if s.flipped else kd)) * taps * width
                lane = 0
                while lane < width:
                    t.weights(
                        <int> sides[1].points, <int> sides[1].taps, <int> sides[2].points, <int> sides[2].taps,
                        g + lane, tap_at, u + (kd * s.channels + c + i) * width + lane, pitch,
                    )
                    lane += t.kernel.lanes
        c += n


cdef void transform_result(
    floating* result, const floating* m, const floating* bias, Py_ssize_t rows, Py_ssize_t width,
    const Block* b, const Sizes* s, const Side* sides, Py_ssize_t image_step, const Transforms* t,
) noexcept nogil:
    """Every tile of a block, for up to `width` rows of the result, which starts at image 0's first of them."""
    cdef Py_ssize_t plane = sides[1].whole * sides[2].whole, positions = sides[0].whole * plane
    cdef Py_ssize_t n, od, oh, ow, lane, y, x
    cdef const floating* lanes_of_bias
    cdef floating* to
    for n in range(b.images):
        for od in range(b.n[0]):
            for oh in range(b.n[1]):
                y = (b.begin[1] + oh) * sides[1].outputs
                for ow in range(b.n[2]):
                    x = (b.begin[2] + ow) * sides[2].outputs
                    to = (
                        result + (b.image + n) * image_step + (b.begin[0] + od) * plane + y * sides[2].whole + x
                    )
                    lane = 0
                    while lane < rows:
                        lanes_of_bias = bias
                        if bias is not NULL:
                            lanes_of_bias = bias + lane
                        t.output(
                            <int> sides[1].points, <int> sides[1].outputs, <int> sides[2].points,
                            <int> sides[2].outputs, m + lane, s.m_pitch, lanes_of_bias, to + lane * positions,
                            positions, sides[2].whole, <int> min(rows - lane, <Py_ssize_t> t.kernel.lanes),
                            <int> min(sides[1].outputs, sides[1].whole - y),
                            <int> min(sides[2].outputs, sides[2].whole - x),
                        )
                        lane += t.kernel.lanes
                    m = m + width


# What all threads of a call read; `bias` and `at`, or `dout` and `filter_planes`, are of one kind of call only.
cdef struct Call:
    const void* source
    const void* w
    const void* bias
    const void* dout
    void* result
    Py_ssize_t part_pitch
    const Py_ssize_t* planes
    const Py_ssize_t* filter_planes
    const Py_ssize_t* lines
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t slots
    Py_ssize_t group_step   # of the weights, from a group to the next
    Py_ssize_t volume       # cells of the source
    Py_ssize_t positions    # and of the result
    Py_ssize_t blocks
    Py_ssize_t items
    Py_ssize_t* words
    Sizes sizes
    Side[3] sides
    Transforms transforms


cdef void multiply(
    const Call* call, Py_ssize_t group, Py_ssize_t first, const Block* block, floating* space, bint fresh
) noexcept nogil:
    """A block's tiles, rows from `first` on: per point [tiles x channels] @ [channels x rows]."""
    cdef const Sizes* s = &call.sizes
    cdef const Side* sides = call.sides
    cdef const Transforms* t = &call.transforms
    cdef Py_ssize_t points = sides[1].points * sides[2].points, deep = sides[0].taps
    cdef Py_ssize_t tiles = count_tiles(block), end = min(first + s.block_rows, s.rows)
    cdef Py_ssize_t positions = call.positions, row = first, width, here, point, tile, kd, i, pitch
    cdef const floating* factors = <const floating*> call.w + group * call.group_step
    cdef const floating* bias = <const floating*> call.bias
    cdef floating* u = space + s.u_at
    cdef floating* own = space + s.bias_at
    cdef floating* m = space + s.m_at
    cdef const floating* v
    cdef int vectors
    while row < end:
        vectors = next_vectors((end - row + t.kernel.lanes - 1) // t.kernel.lanes, t.kernel.vectors)
        width = vectors * t.kernel.lanes
        here = min(width, end - row)
        pitch = deep * s.channels * width + s.u_pitch
        if fresh or not s.kept:
            transform_weights(u, space + s.g_at, factors + row * s.row_step, here, width, s, sides, t)
        for point in range(points):
            for kd in range(deep):
                v = space + s.v_at + point * s.v_pitch + kd * tiles * s.v_step
                tile = 0
                while tile < tiles:
                    i = min(<Py_ssize_t> t.kernel.rows, tiles - tile)
                    # [tiles x channels] @ [channels x rows]
                    t.kernel.tile_rows(
                        <int> i, vectors, s.channels, v + tile * s.v_step, s.v_step,
                        u + point * pitch + kd * s.channels * width, call.lines + (vectors - 1) * s.channels,
                        m + point * s.m_pitch + tile * width, width, NULL, kd > 0,
                    )
                    tile += i
        if bias is not NULL:
            for i in range(here):
                own[i] = bias[group * s.rows + row + i]
        transform_result(
            <floating*> call.result + (group * s.rows + row) * positions, m, own if bias is not NULL else NULL, here,
            width, block, s, sides, s.groups * s.rows * positions, t,
        )
        if s.kept:
            u = u + points * pitch
        row += width


def product(
    const floating[::1] source, const floating[::1] w, const floating[::1] bias, floating[::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[::1] sizes, const Py_ssize_t[::1] planes,
    const Py_ssize_t[::1] lines, floating[:, ::1] space, int isa, Py_ssize_t[::1] words,
):
    """result = w * source + bias; `planes` are the channels of the source, `lines` the rows of u by width."""
    cdef Call call
    with nogil:
        read_call(&call, sizes, axes, 0 if floating is float else 1, isa, &words[0])
        call.source, call.w, call.result = <const void*> &source[0], <const void*> &w[0], <void*> &result[0]
        call.bias = NULL
        if bias.shape[0]:
            call.bias = <const void*> &bias[0]
        call.planes, call.lines = &planes[0], &lines[0]
        call.space, call.space_pitch, call.slots = <void*> &space[0, 0], space.shape[1], space.shape[0]
        call.group_step = w.shape[0] // call.sizes.groups
        call.items = pieces(call.sizes.rows, call.sizes.block_rows) * call.sizes.groups * call.blocks
        if floating is float:
            fc_share(&words[0], product_of_float, &call)
        else:
            fc_share(&words[0], product_of_double, &call)


cdef void read_call(
    Call* call, const Py_ssize_t[::1] sizes, const Py_ssize_t[:, ::1] axes, int dtype, int isa, Py_ssize_t* words
) noexcept nogil:
    read_tables(&call.sizes, call.sides, sizes, axes)
    call.transforms = transforms(dtype, isa)
    call.volume = call.sides[0].size * call.sides[1].size * call.sides[2].size
    call.positions = call.sides[0].whole * call.sides[1].whole * call.sides[2].whole
    call.blocks = count_blocks(&call.sizes, call.sides)
    call.words = words


cdef void product_of_float(void* task) noexcept nogil:
    draw_products(<const Call*> task, <float*> NULL)


cdef void product_of_double(void* task) noexcept nogil:
    draw_products(<const Call*> task, <double*> NULL)


cdef void draw_products(const Call* call, floating* dtype) noexcept nogil:
    """Items, until none is left."""
    cdef const Sizes* s = &call.sizes
    cdef const Side* sides = call.sides
    cdef const Transforms* t = &call.transforms
    cdef Block block
    cdef Window window
    cdef Py_ssize_t row, group, place, filled = -1, weighed = -1
    cdef Py_ssize_t slot = fc_draw(&call.words[1], 1), index = fc_draw(&call.words[0], 1)
    cdef floating* own = <floating*> call.space + slot * call.space_pitch
    fc_check(slot < call.slots)
    if index < call.items:
        zero(own + s.zero_at, s.lanes)
    while index < call.items:
        place = cut(&row, index, s.rows, s.block_rows)
        group = block_at(&block, place, s, sides)
        if filled != place:
            filled = place
            window = see(&block, sides, False)
            turn(own, <const floating*> call.source + group * s.channels * call.volume,
                 s.groups * s.channels * call.volume, call.planes, s.channels, s.lanes, &block, &window,
                 sides[1].size, sides[2].size, &t.kernel)
            transform_image(own + s.v_at, own, &block, &window, s, sides, t)
        multiply(call, group, row, &block, own, group * s.rows + row != weighed)
        weighed = group * s.rows + row
        index = fc_draw(&call.words[0], 1)


cdef void contract(
    const floating* source, const floating* dout, const Block* block, const Sizes* s, const Side* sides,
    Py_ssize_t channels, Py_ssize_t filters, const Py_ssize_t* planes, const Py_ssize_t* filter_planes,
    const Py_ssize_t* lines, floating* space, const Transforms* t, bint add,
) noexcept nogil:
    """One block: per point and depth tap, m (+)= [filters x tiles] @ [tiles x channels]."""
    cdef Py_ssize_t points = sides[1].points * sides[2].points, deep = sides[0].taps, tiles = count_tiles(block)
    cdef Py_ssize_t point, kd, c, f, rows
    cdef Py_ssize_t volume = sides[0].size * sides[1].size * sides[2].size
    cdef Py_ssize_t positions = sides[0].whole * sides[1].whole * sides[2].whole
    cdef const floating* v
    cdef const floating* u
    cdef floating* m
    cdef Window window = see(block, sides, False)
    cdef int vectors
    turn(space, source, s.groups * s.channels * volume, planes, channels, s.lanes, block, &window,
         sides[1].size, sides[2].size, &t.kernel)
    transform_image(space + s.v_at, space, block, &window, s, sides, t)
    window = see(block, sides, True)
    turn(space, dout, s.groups * s.rows * positions, filter_planes, filters, s.rows_lanes, block, &window,
         sides[1].whole, sides[2].whole, &t.kernel)
    transform_gradient(space + s.u_at, space, block, &window, s, sides, t)
    for point in range(points):
        for kd in range(deep):
            v = space + s.v_at + point * s.v_pitch + kd * tiles * s.v_step
            u = space + s.u_at + point * s.u_pitch
            m = space + s.m_at + point * s.m_pitch + kd * s.block_rows * s.lanes
            c = 0
            while c < s.lanes:
                vectors = next_vectors((s.lanes - c) // t.kernel.lanes, t.kernel.vectors)
                f = 0
                while f < filters:
                    rows = min(<Py_ssize_t> t.kernel.rows, filters - f)
                    t.kernel.tile(<int> rows, vectors, tiles, u + f, s.u_step, v + c, lines,
                                  m + f * s.lanes + c, s.lanes, NULL, add)
                    f += rows
                c += vectors * t.kernel.lanes


def weights(
    const floating[::1] source, const floating[::1] dout, floating[:, ::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[::1] sizes, const Py_ssize_t[::1] planes,
    const Py_ssize_t[::1] filter_planes, const Py_ssize_t[::1] lines, floating[:, ::1] space, int isa,
    Py_ssize_t[::1] words,
):
    """result[part] = the gradient of w, of every `parts`-th block; `lines` are the tiles of v."""
    cdef Call call
    cdef const Sizes* s = &call.sizes
    with nogil:
        read_call(&call, sizes, axes, 0 if floating is float else 1, isa, &words[0])
        call.source, call.dout, call.result = <const void*> &source[0], <const void*> &dout[0], <void*> &result[0, 0]
        call.part_pitch = result.shape[1]
        call.planes, call.filter_planes, call.lines = &planes[0], &filter_planes[0], &lines[0]
        call.space, call.space_pitch, call.slots = <void*> &space[0, 0], space.shape[1], space.shape[0]
        call.items = s.parts * s.groups * pieces(s.rows, s.block_rows) * pieces(s.channels, s.block_channels)
        if floating is float:
            fc_share(&words[0], weights_of_float, &call)
        else:
            fc_share(&words[0], weights_of_double, &call)


cdef void weights_of_float(void* task) noexcept nogil:
    draw_gradients(<const Call*> task, <float*> NULL)


cdef void weights_of_double(void* task) noexcept nogil:
    draw_gradients(<const Call*> task, <double*> NULL)


cdef void draw_gradients(const Call* call, floating* dtype) noexcept nogil:
    """Items, until none is left."""
    cdef const Sizes* s = &call.sizes
    cdef const Side* sides = call.sides
    cdef const Transforms* t = &call.transforms
    cdef Block block
    cdef Py_ssize_t row, channel, group, part, piece, channels, filters, c, f, kd
    cdef Py_ssize_t taps = sides[1].taps * sides[2].taps
    cdef Py_ssize_t slot = fc_draw(&call.words[1], 1), index = fc_draw(&call.words[0], 1)
    cdef floating* own = <floating*> call.space + slot * call.space_pitch
    cdef floating* to
    fc_check(slot < call.slots)
    if index < call.items:
        zero(own + s.zero_at, max(s.lanes, s.rows_lanes))
    while index < call.items:
        part = cut(&channel, index, s.channels, s.block_channels)
        part = cut(&row, part, s.rows, s.block_rows)
        group, part = part % s.groups, part // s.groups
        channels = min(s.block_channels, s.channels - channel)
        filters = min(s.block_rows, s.rows - row)
        piece = part
        while piece < call.blocks:
            block_at(&block, piece, s, sides)
            contract(
                <const floating*> call.source + (group * s.channels + channel) * call.volume,
                <const floating*> call.dout + (group * s.rows + row) * call.positions,
                &block, s, sides, channels, filters, call.planes, call.filter_planes, call.lines, own, t,
                piece > part,
            )
            piece += s.parts
        for f in range(filters):
            for kd in range(sides[0].taps):
                to = (
                    <floating*> call.result + part * call.part_pitch + (group * s.rows + row + f) * s.row_step
                    + channel * s.channel_step + kd * taps
                )
                c = 0
                while c < channels:
                    t.gradient(
                        <int> sides[1].points, <int> sides[1].taps, <int> sides[2].points, <int> sides[2].taps,
                        own + s.m_at + (kd * s.block_rows + f) * s.lanes + c, s.m_pitch, to + c * s.channel_step,
                        s.channel_step, <int> min(channels - c, <Py_ssize_t> t.kernel.lanes),
                    )
                    c += t.kernel.lanes
        index = fc_draw(&call.words[0], 1)
