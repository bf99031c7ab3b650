"""Convolution of few channels with few filters, as groups == C has it: no matrix, vectors along the row.

A padded block of an image, split into stride phases, lies in the first-level
cache; rows of results are summed from it in registers. `product` is forward
and backward_data, `weights` is backward_weights. How the work is cut, and
every table below, is fastconv.algorithms.depthwise's.
"""

from fastconv._ext.patches cimport Block, Side, first_cell, last_cell, read_sides
from fastconv._ext.runs cimport fc_check, fc_draw, floating


cdef extern from "depthwise.h":
    int FC_ISAS

    ctypedef struct fc_taps:
        Py_ssize_t k
        Py_ssize_t high
        const Py_ssize_t* at
        const void* w
        Py_ssize_t pitch
        Py_ssize_t to_pitch

    ctypedef void (*fc_pad_t)(
        void* to, Py_ssize_t width, Py_ssize_t top, Py_ssize_t rows, Py_ssize_t bottom, const void* source,
        Py_ssize_t source_pitch, Py_ssize_t before, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t room,
    ) noexcept nogil
    ctypedef void (*fc_sweep_t)(
        const fc_taps* taps, const void* source, void* to, Py_ssize_t rows, Py_ssize_t n, const void* start, int spill,
    ) noexcept nogil
    ctypedef void (*fc_sweep_pair_t)(
        const fc_taps* a, const fc_taps* b, const void* source, void* to, Py_ssize_t rows, Py_ssize_t n, int spill,
    ) noexcept nogil
    ctypedef void (*fc_dots_t)(
        const fc_taps* taps, const void* source, const void* dout, Py_ssize_t rows, Py_ssize_t n, void* totals,
    ) noexcept nogil
    ctypedef void (*fc_lanes_t)(const void* totals, Py_ssize_t n, const Py_ssize_t* place, void* to) noexcept nogil

    const fc_pad_t[2][3] fc_pad_table
    const fc_sweep_t[2][3] fc_sweep_table
    const fc_sweep_pair_t[2][3] fc_sweep_pair_table
    const fc_dots_t[2][3] fc_dots_table
    const fc_lanes_t[2][3] fc_lanes_table
    int fc_depthwise_lanes(int dtype, int isa) noexcept nogil


def lanes(int dtype, int isa):
    """Lanes of a vector for dtype 0 (float32) or 1 (float64)."""
    return fc_depthwise_lanes(dtype, isa)


cdef inline Py_ssize_t cut(Py_ssize_t* begin, Py_ssize_t* n, Py_ssize_t index, Py_ssize_t whole, Py_ssize_t block
                           ) noexcept nogil:
    """Piece `index % pieces` of `whole`; returns what is left of the index."""
    cdef Py_ssize_t count = (whole + block - 1) // block
    begin[0] = index % count * block
    n[0] = min(block, whole - begin[0])
    return index // count


cdef inline Py_ssize_t place_block(Block* b, Py_ssize_t index, const Side* sides) noexcept nogil:
    """Which outputs piece `index` of an image has; returns what is left of the index."""
    cdef Py_ssize_t i
    for i in range(2, -1, -1):
        index = cut(&b.begin[i], &b.n[i], index, sides[i].out, sides[i].block)
    return index


cdef inline Py_ssize_t blocks_of(const Side* sides) noexcept nogil:
    cdef Py_ssize_t i, count = 1
    for i in range(3):
        count *= (sides[i].out + sides[i].block - 1) // sides[i].block
    return count


cdef void pad(
    floating* patch, const floating[::1] source, Py_ssize_t first, Py_ssize_t channels, const Side* sides,
    const Block* b, Py_ssize_t channel_pitch, fc_pad_t kernel,
) noexcept nogil:
    """`channels` planes, the first at source[first], as patches.fill lays them out; in ascending order."""
    cdef const Side* d = &sides[0]
    cdef const Side* h = &sides[1]
    cdef const Side* w = &sides[2]
    cdef Py_ssize_t plane = h.size * w.size, volume = d.size * plane
    cdef Py_ssize_t deep = b.n[0] + d.reach, high = b.n[1] + h.reach, wide = b.n[2] + w.reach
    cdef Py_ssize_t c, sd, sh, sw, cell, at_d, top, bottom, before, after, at
    cdef floating* to
    for c in range(channels):
        for sd in range(d.slots):
            for cell in range(deep):
                at_d = (b.begin[0] + cell) * d.stride + d.phase[sd] - d.lo
                for sh in range(h.slots):
                    top = first_cell(h, b.begin[1], h.phase[sh], high)
                    bottom = max(last_cell(h, b.begin[1], h.phase[sh], high), top)
                    for sw in range(w.slots):
                        before = first_cell(w, b.begin[2], w.phase[sw], wide)
                        after = max(last_cell(w, b.begin[2], w.phase[sw], wide), before)
                        to = patch + c * channel_pitch + sd * d.slot_pitch + cell * d.pitch
                        to = to + sh * h.slot_pitch + sw * w.slot_pitch
                        if at_d < 0 or at_d >= d.size or top == bottom or before == after:
                            kernel(to, h.pitch, high, 0, 0, to, 0, 0, 0, 1, 0)
                            continue
                        at = (
                            first + c * volume + at_d * plane
                            + ((b.begin[1] + top) * h.stride + h.phase[sh] - h.lo) * w.size
                            + (b.begin[2] + before) * w.stride + w.phase[sw] - w.lo
                        )
                        fc_check(at < source.shape[0])
                        kernel(
                            to, h.pitch, top, bottom - top, high - bottom, &source[at], h.stride * w.size,
                            before, after - before, w.stride, source.shape[0] - at,
                        )


# fastconv.algorithms.depthwise makes these, and the rows of `parts` below.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t rows           # of the result, in a group: filters, or for dx channels
    Py_ssize_t row_step       # of the weights, from a row to the next
    Py_ssize_t channels       # of the source, in a group
    Py_ssize_t channel_pitch  # of the block
    Py_ssize_t weights_at     # of the workspace
    Py_ssize_t spill_at
    Py_ssize_t paired         # two neighbouring parts share their rows, cell by cell in turn


cdef inline Sizes read_sizes(const Py_ssize_t[::1] table) noexcept nogil:
    cdef Sizes s
    s.images, s.groups, s.rows, s.row_step = table[0], table[1], table[2], table[3]
    s.channels, s.channel_pitch, s.weights_at, s.spill_at, s.paired = table[4], table[5], table[6], table[7], table[8]
    return s


cdef enum:
    # Columns of `parts`, a convolution whose results are every jump-th cell of the result.
    PART_OUT = 0      # outputs, and where the first one belongs, per axis
    PART_START = 3
    PART_K = 6
    PART_HIGH = 7
    PART_AT = 8       # its stretch of `at`
    PART_TAPS = 9     # and of `tap_of`


def product(
    const floating[::1] source, const floating[::1] w, const floating[::1] bias, floating[::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[:, ::1] phases, const Py_ssize_t[::1] sizes,
    const Py_ssize_t[:, ::1] parts, const Py_ssize_t[::1] at, const Py_ssize_t[::1] tap_of,
    floating[:, ::1] space, int isa, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """result = w * source + bias, by group, image and block."""
    cdef Sizes s
    cdef Side[3] sides
    cdef Block block
    cdef Py_ssize_t dtype = 0 if floating is float else 1
    cdef Py_ssize_t total, blocks, index, begin, slot, plane, part, row, filled = -1, volume, positions
    with nogil:
        s = read_sizes(sizes)
        read_sides(sides, axes, phases)
        volume = sides[0].size * sides[1].size * sides[2].size
        positions = sides[0].whole * sides[1].whole * sides[2].whole
        blocks = blocks_of(sides)
        total = blocks * s.images * s.groups
        slot = fc_draw(&counter[1], 1)
        fc_check(slot < space.shape[0])
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for index in range(begin, min(begin + grain, total)):
                plane = place_block(&block, index, sides)
                pad(&space[slot, 0], source, plane * s.channels * volume, s.channels, sides, &block,
                    s.channel_pitch, fc_pad_table[dtype][isa])
                for row in range(s.rows):
                    sweep(
                        &w[plane % s.groups * (w.shape[0] // s.groups) + row * s.row_step],
                        &bias[plane % s.groups * s.rows + row] if bias.shape[0] else NULL,
                        result, (plane * s.rows + row) * positions, &s, sides, &block, parts, at, tap_of,
                        &space[slot, 0], dtype, isa,
                    )
            begin = fc_draw(&counter[0], grain)


cdef void sweep(
    const floating* w, const floating* bias, floating[::1] result, Py_ssize_t first, const Sizes* s,
    const Side* sides, const Block* b, const Py_ssize_t[:, ::1] parts, const Py_ssize_t[::1] at,
    const Py_ssize_t[::1] tap_of, floating* space, Py_ssize_t dtype, int isa,
) noexcept nogil:
    """One row of the result, from result[first] on, in one block: every part of it."""
    cdef const Side* d = &sides[0]
    cdef const Side* h = &sides[1]
    cdef const Side* x = &sides[2]
    cdef fc_taps[2] taps
    cdef Py_ssize_t part = 0, i, side, deep, high, wide, od, oh, ow, n, to, weights
    cdef floating* spill = space + s.spill_at
    cdef bint whole
    while part < parts.shape[0]:
        deep = min(b.n[0], parts[part, PART_OUT] - b.begin[0])
        high = min(b.n[1], parts[part, PART_OUT + 1] - b.begin[1])
        wide = min(b.n[2], parts[part, PART_OUT + 2] - b.begin[2])
        weights = s.weights_at
        for side in range(2 if s.paired else 1):
            taps[side].k = parts[part + side, PART_K]
            taps[side].high = parts[part + side, PART_HIGH]
            taps[side].at = &at[parts[part + side, PART_AT]]
            taps[side].w = space + weights
            taps[side].pitch = h.pitch
            n = taps[side].k * taps[side].high
            for i in range(n):
                space[weights + i] = w[tap_of[parts[part + side, PART_TAPS] + i]]
            weights += n
        for od in range(deep):
            to = (
                first
                + ((parts[part, PART_START] + (b.begin[0] + od) * d.jump) * h.whole
                   + parts[part, PART_START + 1] + b.begin[1] * h.jump) * x.whole
                + parts[part, PART_START + 2] + b.begin[2] * x.jump
            )
            if high <= 0 or wide <= 0:
                continue
            whole = h.jump == 1 and b.begin[2] == 0
            taps[0].to_pitch = h.jump * x.whole
            fc_check(to + (high - 1) * taps[0].to_pitch + (wide - 1) * x.jump < result.shape[0])
            if s.paired:
                n = min(2 * b.n[2], x.whole - b.begin[2] * 2)
                fc_sweep_pair_table[dtype][isa](
                    &taps[0], &taps[1], space + od * d.pitch, &result[to], high, n, whole and n == x.whole,
                )
            elif x.jump == 1:
                fc_sweep_table[dtype][isa](
                    &taps[0], space + od * d.pitch, &result[to], high, wide, bias, whole and wide == x.whole,
                )
            else:
                taps[0].to_pitch = wide
                fc_sweep_table[dtype][isa](&taps[0], space + od * d.pitch, spill, high, wide, bias, 1)
                for oh in range(high):
                    for ow in range(wide):
                        result[to + oh * h.jump * x.whole + ow * x.jump] = spill[oh * wide + ow]
        part += 2 if s.paired else 1


# fastconv.algorithms.depthwise makes these.
cdef struct WeightSizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t block_groups
    Py_ssize_t filters
    Py_ssize_t channels
    Py_ssize_t channel_pitch
    Py_ssize_t k
    Py_ssize_t high
    Py_ssize_t parts
    Py_ssize_t dout_at        # of the workspace
    Py_ssize_t totals_at


cdef inline WeightSizes read_weight_sizes(const Py_ssize_t[::1] table) noexcept nogil:
    cdef WeightSizes s
    s.images, s.groups, s.block_groups, s.filters, s.channels = table[0], table[1], table[2], table[3], table[4]
    s.channel_pitch, s.k, s.high, s.parts, s.dout_at, s.totals_at = (
        table[5], table[6], table[7], table[8], table[9], table[10]
    )
    return s


def weights(
    const floating[::1] source, const floating[::1] dout, floating[:, ::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[:, ::1] phases, const Py_ssize_t[::1] sizes,
    const Py_ssize_t[::1] at, const Py_ssize_t[::1] tap_of, floating[:, ::1] space, int isa,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """result[part] = dout times source, tap by tap, summed over every `parts`-th block of each image."""
    cdef WeightSizes s
    cdef Side[3] sides
    cdef Block block
    cdef Py_ssize_t dtype = 0 if floating is float else 1
    cdef Py_ssize_t total, blocks, index, begin, slot, volume, group, groups, part, piece, g, i, taps, lanes, step
    cdef floating* totals
    with nogil:
        s = read_weight_sizes(sizes)
        read_sides(sides, axes, phases)
        volume = sides[0].size * sides[1].size * sides[2].size
        blocks = blocks_of(sides)
        lanes = fc_depthwise_lanes(<int> dtype, isa)
        taps = s.k * s.high
        step = s.filters * s.channels * taps
        total = s.parts * ((s.groups + s.block_groups - 1) // s.block_groups)
        slot = fc_draw(&counter[1], 1)
        fc_check(slot < space.shape[0])
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for index in range(begin, min(begin + grain, total)):
                part = cut(&group, &groups, index, s.groups, s.block_groups)
                totals = &space[slot, s.totals_at]
                for i in range(groups * step * lanes):
                    totals[i] = 0
                piece = part
                while piece < s.images * blocks:
                    block.image = place_block(&block, piece, sides)
                    for g in range(group, group + groups):
                        pad(&space[slot, 0], source, (block.image * s.groups + g) * s.channels * volume, s.channels,
                            sides, &block, s.channel_pitch, fc_pad_table[dtype][isa])
                        contract(
                            dout, (block.image * s.groups + g) * s.filters, &s, sides, &block, at, &space[slot, 0],
                            totals + (g - group) * step * lanes, dtype, isa, lanes,
                        )
                    piece += s.parts
                for i in range(groups * s.filters * s.channels):
                    fc_lanes_table[dtype][isa](
                        totals + i * taps * lanes, taps, &tap_of[0], &result[part, group * step + i * taps]
                    )
            begin = fc_draw(&counter[0], grain)


cdef void contract(
    const floating[::1] dout, Py_ssize_t row, const WeightSizes* s, const Side* sides, const Block* b,
    const Py_ssize_t[::1] at, floating* space, floating* totals, Py_ssize_t dtype, int isa, Py_ssize_t lanes,
) noexcept nogil:
    """One block of one group: each filter's outputs, of which `row` is the first plane, with each channel."""
    cdef Py_ssize_t plane = sides[1].out * sides[2].out, f, c, od, i, first
    cdef Py_ssize_t taps_count = s.k * s.high
    cdef const floating* rows
    cdef fc_taps taps
    taps.k, taps.high, taps.at, taps.w = s.k, s.high, &at[0], NULL
    taps.pitch = sides[1].pitch
    for f in range(s.filters):
        for od in range(b.n[0]):
            first = (
                ((row + f) * sides[0].out + b.begin[0] + od) * plane + b.begin[1] * sides[2].out + b.begin[2]
            )
            fc_check(first + (b.n[1] - 1) * sides[2].out + b.n[2] <= dout.shape[0])
            rows = &dout[first]
            taps.to_pitch = sides[2].out
            if b.n[2] < lanes and first + (b.n[1] - 1) * sides[2].out + lanes > dout.shape[0]:
                # A vector would read past the end of dout.
                taps.to_pitch = b.n[2]
                for i in range(b.n[1] * b.n[2]):
                    space[s.dout_at + i] = rows[i // b.n[2] * sides[2].out + i % b.n[2]]
                rows = space + s.dout_at
            for c in range(s.channels):
                fc_dots_table[dtype][isa](
                    &taps, space + c * s.channel_pitch + od * sides[0].pitch, rows, b.n[1], b.n[2],
                    totals + (f * s.channels + c) * taps_count * lanes,
                )
