"""Winograd's minimal filtering: a product for each interpolation point, filters in the vector lanes.

Tiles of the output are the rows of those products. How the work is cut, and
every table below, is fastconv.algorithms.winograd's.
"""

from fastconv._ext.kernels cimport Kernels, kernels, next_vectors
from fastconv._ext.patches cimport Block, Side, fill, read_sides
from fastconv._ext.runs cimport fc_check, fc_draw, floating

cdef extern from "winograd.h":
    ctypedef void (*fc_wino_input_t)(
        int high, int wide, const void* patch, const Py_ssize_t* at, void* v, Py_ssize_t pitch,
    ) noexcept nogil
    ctypedef void (*fc_wino_weights_t)(
        int high, int taps_h, int wide, int taps_w, const void* g, Py_ssize_t step, void* u, Py_ssize_t pitch,
    ) noexcept nogil
    ctypedef void (*fc_wino_output_t)(
        int high, int out_h, int wide, int out_w, const void* m, Py_ssize_t pitch, const void* bias, void* to,
        Py_ssize_t filter_step, Py_ssize_t row_step, int filters, int rows, int columns,
    ) noexcept nogil

    const fc_wino_input_t[2][3] fc_wino_input_table
    const fc_wino_weights_t[2][3] fc_wino_weights_table
    const fc_wino_output_t[2][3] fc_wino_output_table


# fastconv.algorithms.winograd names these.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t block_images
    Py_ssize_t groups
    Py_ssize_t rows           # of the result, in a group: filters, or for dx channels
    Py_ssize_t row_step       # of the weights, from a row to the next
    Py_ssize_t block_rows
    Py_ssize_t channels       # of the source, in a group
    Py_ssize_t channel_step   # of the weights
    Py_ssize_t channel_pitch  # of the block
    Py_ssize_t image_pitch
    Py_ssize_t joined         # tiles of all rows follow each other in the block, 2: of all images
    Py_ssize_t flipped        # whether the kernel is turned
    Py_ssize_t kept           # whether a thread keeps all transformed weights of an item's rows
    Py_ssize_t tiles          # of a block, at most
    Py_ssize_t deep           # taps along the depth, which is not transformed
    Py_ssize_t high           # points, taps and outputs of a tile along the height
    Py_ssize_t taps_h
    Py_ssize_t out_h
    Py_ssize_t wide           # and along the width
    Py_ssize_t taps_w
    Py_ssize_t out_w
    Py_ssize_t chunk          # channels whose weights are turned at a time
    Py_ssize_t v_at           # of the workspace: image,
    Py_ssize_t u_at           # weights
    Py_ssize_t m_at           # and products, transformed
    Py_ssize_t g_at           # weights turned
    Py_ssize_t bias_at
    Py_ssize_t v_pitch        # from a point to the next


cdef inline Sizes read_sizes(const Py_ssize_t[::1] table) noexcept nogil:
    cdef Sizes s
    s.images, s.block_images, s.groups, s.rows = table[0], table[1], table[2], table[3]
    s.row_step, s.block_rows, s.channels, s.channel_step = table[4], table[5], table[6], table[7]
    s.channel_pitch, s.image_pitch, s.joined, s.flipped = table[8], table[9], table[10], table[11]
    s.kept, s.tiles, s.deep = table[12], table[13], table[14]
    s.high, s.taps_h, s.out_h = table[15], table[16], table[17]
    s.wide, s.taps_w, s.out_w = table[18], table[19], table[20]
    s.chunk, s.v_at, s.u_at, s.m_at = table[21], table[22], table[23], table[24]
    s.g_at, s.bias_at, s.v_pitch = table[25], table[26], table[27]
    return s


cdef struct Item:
    Py_ssize_t group
    Py_ssize_t row
    Py_ssize_t rows
    Py_ssize_t place     # the same for items of the same tiles
    Block block


# The copies of one dtype and instruction set; `narrow` is the next narrower one's, for the ends of rows.
cdef struct Transforms:
    fc_wino_input_t input
    fc_wino_input_t narrow
    int narrow_lanes
    fc_wino_weights_t weights
    fc_wino_output_t output
    Kernels kernel


cdef inline Transforms transforms(int dtype, int isa) noexcept nogil:
    cdef Transforms t
    cdef int less = isa - 1 if isa > 0 else 0
    t.input = fc_wino_input_table[dtype][isa]
    t.narrow = fc_wino_input_table[dtype][less]
    t.narrow_lanes = kernels(dtype, less).lanes
    t.weights = fc_wino_weights_table[dtype][isa]
    t.output = fc_wino_output_table[dtype][isa]
    t.kernel = kernels(dtype, isa)
    return t


cdef inline Py_ssize_t pieces(Py_ssize_t n, Py_ssize_t block) noexcept nogil:
    return (n + block - 1) // block


cdef inline Py_ssize_t cut(Py_ssize_t* begin, Py_ssize_t index, Py_ssize_t n, Py_ssize_t block) noexcept nogil:
    """Piece `index % pieces` of n; returns what is left of the index."""
    cdef Py_ssize_t count = pieces(n, block)
    begin[0] = index % count * block
    return index // count


cdef Item item_at(Py_ssize_t index, const Sizes* s, const Side* sides) noexcept nogil:
    cdef Item item
    cdef Py_ssize_t i
    index = cut(&item.row, index, s.rows, s.block_rows)
    item.rows = min(s.block_rows, s.rows - item.row)
    item.place = index
    for i in range(2, -1, -1):
        index = cut(&item.block.begin[i], index, sides[i].out, sides[i].block)
        item.block.n[i] = min(sides[i].block, sides[i].out - item.block.begin[i])
    item.group = cut(&item.block.image, index, s.images, s.block_images)
    item.block.images = min(s.block_images, s.images - item.block.image)
    return item


cdef void transform_stretch(
    floating* v, const floating* patch, const Py_ssize_t* at, Py_ssize_t n, const Sizes* s, const Transforms* t,
) noexcept nogil:
    """`n` tiles that follow each other. Lanes past the last spill into what is written after them."""
    cdef Py_ssize_t i = 0
    while i < n:
        if n - i <= t.narrow_lanes:
            t.narrow(<int> s.high, <int> s.wide, patch + i, at, v + i, s.v_pitch)
            i += t.narrow_lanes
        else:
            t.input(<int> s.high, <int> s.wide, patch + i, at, v + i, s.v_pitch)
            i += t.kernel.lanes


cdef void transform_image(
    floating* v, const floating* patch, const Block* b, const Sizes* s, const Side* sides,
    const Py_ssize_t* at, const Transforms* t,
) noexcept nogil:
    """v (points, channels * deep, tiles) from a block."""
    cdef Py_ssize_t c, kd, n, od, oh, tiles = b.images * b.n[0] * b.n[1] * b.n[2]
    cdef const floating* source
    for c in range(s.channels):
        for kd in range(s.deep):
            source = patch + c * s.channel_pitch + kd * sides[0].pitch
            if s.joined == 2:
                transform_stretch(v, source, at, tiles, s, t)
                v = v + tiles
                continue
            for n in range(b.images):
                if s.joined:
                    transform_stretch(v, source + n * s.image_pitch, at, tiles // b.images, s, t)
                    v = v + tiles // b.images
                    continue
                for od in range(b.n[0]):
                    for oh in range(b.n[1]):
                        transform_stretch(
                            v, source + n * s.image_pitch + od * sides[0].pitch + oh * sides[1].pitch, at, b.n[2],
                            s, t,
                        )
                        v = v + b.n[2]


cdef void transform_weights(
    floating* u, floating* turned, const floating* w, Py_ssize_t rows, Py_ssize_t width,
    const Sizes* s, const Transforms* t,
) noexcept nogil:
    """u (points, channels * deep, width) from `rows` rows of the weights, lanes past them left as they are."""
    cdef Py_ssize_t[64] at
    cdef Py_ssize_t taps = s.taps_h * s.taps_w, all_taps = s.deep * taps, k = s.channels * s.deep
    cdef Py_ssize_t c = 0, n, i, kd, lane, step
    cdef const floating* g
    fc_check(width <= 64)
    for i in range(rows):
        at[i] = i * s.row_step
    while c < s.channels:
        n = min(s.chunk, s.channels - c)
        if s.channel_step == all_taps:
            t.kernel.interleave(turned, width, w + c * s.channel_step, at, rows, n * all_taps)
        else:
            for i in range(n):
                t.kernel.interleave(
                    turned + i * all_taps * width, width, w + (c + i) * s.channel_step, at, rows, all_taps
                )
        for i in range(n):
            for kd in range(s.deep):
                g, step = turned + (i * s.deep + kd) * taps * width, width
                if s.flipped:
                    g, step = turned + ((i * s.deep + s.deep - kd) * taps - 1) * width, -width
                lane = 0
                while lane < width:
                    t.weights(
                        <int> s.high, <int> s.taps_h, <int> s.wide, <int> s.taps_w, g + lane, step,
                        u + ((c + i) * s.deep + kd) * width + lane, k * width,
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
                y = (b.begin[1] + oh) * s.out_h
                for ow in range(b.n[2]):
                    x = (b.begin[2] + ow) * s.out_w
                    to = (
                        result + (b.image + n) * image_step + (b.begin[0] + od) * plane + y * sides[2].whole + x
                    )
                    lane = 0
                    while lane < rows:
                        lanes_of_bias = bias
                        if bias is not NULL:
                            lanes_of_bias = bias + lane
                        t.output(
                            <int> s.high, <int> s.out_h, <int> s.wide, <int> s.out_w, m + lane, s.tiles * width,
                            lanes_of_bias, to + lane * positions, positions, sides[2].whole,
                            <int> min(rows - lane, <Py_ssize_t> t.kernel.lanes),
                            <int> min(s.out_h, sides[1].whole - y), <int> min(s.out_w, sides[2].whole - x),
                        )
                        lane += t.kernel.lanes
                    m = m + width


cdef void multiply(
    const floating[::1] w, const floating[::1] bias, floating[::1] result, const Item* item, const Sizes* s,
    const Side* sides, const Py_ssize_t[::1] lines, floating* space, const Transforms* t, bint fresh,
) noexcept nogil:
    """One item: per point [tiles x channels] @ [channels x rows], a tile of registers at a time."""
    cdef Py_ssize_t points = s.high * s.wide, k = s.channels * s.deep
    cdef Py_ssize_t tiles = item.block.images * item.block.n[0] * item.block.n[1] * item.block.n[2]
    cdef Py_ssize_t positions = sides[0].whole * sides[1].whole * sides[2].whole
    cdef Py_ssize_t first = item.group * s.rows + item.row, row = 0, width, here, point, tile, i
    cdef const floating* factors = &w[item.group * (w.shape[0] // s.groups) + item.row * s.row_step]
    cdef floating* u = space + s.u_at
    cdef floating* own = space + s.bias_at
    cdef floating* m = space + s.m_at
    cdef floating* v
    cdef int vectors
    while row < item.rows:
        vectors = next_vectors((item.rows - row + t.kernel.lanes - 1) // t.kernel.lanes, t.kernel.vectors)
        width = vectors * t.kernel.lanes
        here = min(width, item.rows - row)
        if fresh or not s.kept:
            transform_weights(u, space + s.g_at, factors + row * s.row_step, here, width, s, t)
        for point in range(points):
            v = space + s.v_at + point * s.v_pitch
            tile = 0
            while tile < tiles:
                i = min(<Py_ssize_t> t.kernel.rows, tiles - tile)
                # [tiles x channels] @ [channels x rows]
                t.kernel.tile(
                    <int> i, vectors, k, v + tile, tiles, u + point * k * width, &lines[(vectors - 1) * k],
                    m + (point * s.tiles + tile) * width, width, NULL, 0,
                )
                tile += i
        if bias.shape[0]:
            for i in range(here):
                own[i] = bias[first + row + i]
        transform_result(
            &result[(first + row) * positions], m, own if bias.shape[0] else NULL, here, width, &item.block, s,
            sides, s.groups * s.rows * positions, t,
        )
        if s.kept:
            u = u + points * k * width
        row += width


def product(
    const floating[::1] source, const floating[::1] w, const floating[::1] bias, floating[::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[:, ::1] phases, const Py_ssize_t[::1] sizes,
    const Py_ssize_t[::1] at, const Py_ssize_t[::1] lines, floating[:, ::1] space, int isa,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """result = w * source + bias; the axes count tiles, `at` has a tile's cells, `lines` the rows of u."""
    cdef Sizes s
    cdef Side[3] sides
    cdef Transforms t
    cdef Item item
    cdef Py_ssize_t total, index, begin, slot, volume, i, filled = -1, weighed = -1, key
    cdef floating* own
    with nogil:
        s = read_sizes(sizes)
        read_sides(sides, axes, phases)
        t = transforms(0 if floating is float else 1, isa)
        volume = sides[0].size * sides[1].size * sides[2].size
        total = pieces(s.rows, s.block_rows) * s.groups * pieces(s.images, s.block_images)
        for i in range(3):
            total *= pieces(sides[i].out, sides[i].block)
        slot = fc_draw(&counter[1], 1)
        fc_check(slot < space.shape[0])
        own = &space[slot, 0]
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for index in range(begin, min(begin + grain, total)):
                item = item_at(index, &s, sides)
                if filled != item.place:
                    filled = item.place
                    fill(
                        own, &source[item.group * s.channels * volume], s.channels,
                        s.groups * s.channels * volume, sides, &item.block, s.channel_pitch, s.image_pitch,
                    )
                    transform_image(own + s.v_at, own, &item.block, &s, sides, &at[0], &t)
                key = item.group * s.rows + item.row
                multiply(w, bias, result, &item, &s, sides, lines, own, &t, key != weighed)
                weighed = key
            begin = fc_draw(&counter[0], grain)
