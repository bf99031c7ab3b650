"""Convolution of few channels with few filters, as groups == C has it: no matrix, vectors along the row.

A padded block of an image, split into stride phases, lies in the first-level
cache; rows of results are summed from it in registers. `product` is forward
and backward_data, `weights` is backward_weights. How the work is cut, and
every table below, is fastconv.algorithms.depthwise's.
"""

from fastconv._ext.depthwise_kernels cimport (
    fc_depthwise_lanes, fc_dots_table, fc_lanes_table, fc_pad_t, fc_pad_table, fc_piece, fc_sweep_pair_table,
    fc_sweep_table, fc_taps,
)
from fastconv._ext.patches cimport Block, Side, first_cell, last_cell, read_sides
from fastconv._ext.runs cimport fc_check, fc_draw, floating


def lanes(int dtype, int isa):
    """Lanes of a vector for dtype 0 (float32) or 1 (float64)."""
    return fc_depthwise_lanes(dtype, isa)


cdef inline Py_ssize_t cut(
    Py_ssize_t* begin, Py_ssize_t* n, Py_ssize_t index, Py_ssize_t whole, Py_ssize_t block,
) noexcept nogil:
    """Piece `index % pieces` of `whole`; returns what is left of the index."""
    cdef Py_ssize_t count = (whole + block - 1) // block
    begin[0] = index % count * block
    n[0] = min(block, whole - begin[0])
    return index // count


cdef inline void place_block(Block* b, Py_ssize_t index, const Side* sides) noexcept nogil:
    """Which outputs piece `index` of an image has."""
    cdef Py_ssize_t i
    for i in range(2, -1, -1):
        index = cut(&b.begin[i], &b.n[i], index, sides[i].out, sides[i].block)


cdef inline Py_ssize_t blocks_of(const Side* sides) noexcept nogil:
    cdef Py_ssize_t i, count = 1
    for i in range(3):
        count *= (sides[i].out + sides[i].block - 1) // sides[i].block
    return count


cdef Py_ssize_t cut_pieces(fc_piece* pieces, const Side* sides, const Block* b) noexcept nogil:
    """The planes of a block as patches.fill lays them out, for one channel, in ascending order; returns how many."""
    cdef const Side* d = &sides[0]
    cdef const Side* h = &sides[1]
    cdef const Side* w = &sides[2]
    cdef Py_ssize_t deep = b.n[0] + d.reach, high = b.n[1] + h.reach, wide = b.n[2] + w.reach
    cdef Py_ssize_t sd, sh, sw, cell, at_d, bottom, after, count = 0
    cdef fc_piece* piece
    for sd in range(d.slots):
        for cell in range(deep):
            at_d = (b.begin[0] + cell) * d.stride + d.phase[sd] - d.lo
            for sh in range(h.slots):
                for sw in range(w.slots):
                    piece = &pieces[count]
                    count += 1
                    piece.to = sd * d.slot_pitch + cell * d.pitch + sh * h.slot_pitch + sw * w.slot_pitch
                    piece.top = first_cell(h, b.begin[1], h.phase[sh], high)
                    bottom = last_cell(h, b.begin[1], h.phase[sh], high)
                    piece.before = first_cell(w, b.begin[2], w.phase[sw], wide)
                    after = last_cell(w, b.begin[2], w.phase[sw], wide)
                    if at_d < 0 or at_d >= d.size or piece.top >= bottom or piece.before >= after:
                        piece.top, piece.rows, piece.bottom = high, 0, 0
                        piece.source = piece.before = piece.n = 0
                        continue
                    piece.rows, piece.bottom, piece.n = bottom - piece.top, high - bottom, after - piece.before
                    piece.source = (
                        (at_d * h.size + (b.begin[1] + piece.top) * h.stride + h.phase[sh] - h.lo) * w.size
                        + (b.begin[2] + piece.before) * w.stride + w.phase[sw] - w.lo
                    )
    return count


# fastconv.algorithms.depthwise makes these, and the rows of `parts` below.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t rows           # of the result, in a group: filters, or for dx channels
    Py_ssize_t row_step       # of the weights, from a row to the next
    Py_ssize_t channels       # of the source, in a group
    Py_ssize_t channel_pitch  # of the block
    Py_ssize_t spill_at       # from a block in the workspace to the next, and the results that follow these
    Py_ssize_t pieces         # most of them, of a channel
    Py_ssize_t sweeps
    Py_ssize_t paired         # two neighbouring parts share their rows, cell by cell in turn


cdef inline Sizes read_sizes(const Py_ssize_t[::1] table) noexcept nogil:
    cdef Sizes s
    s.images, s.groups, s.rows, s.row_step = table[0], table[1], table[2], table[3]
    s.channels, s.channel_pitch, s.spill_at, s.pieces, s.sweeps, s.paired = (
        table[4], table[5], table[6], table[7], table[8], table[9]
    )
    return s


cdef enum:
    # Columns of `parts`, a convolution whose results are every jump-th cell of the result.
    PART_OUT = 0      # outputs, and where the first one belongs, per axis
    PART_START = 3
    PART_K = 6
    PART_HIGH = 7
    PART_STEP = 8
    PART_AT = 9       # its stretch of `at` and of `places`


# Some rows of results of a block: how many outputs, where they belong in the result.
cdef struct Sweep:
    Py_ssize_t part
    Py_ssize_t source
    Py_ssize_t to
    Py_ssize_t rows
    Py_ssize_t n
    Py_ssize_t whole   # rows that may be stored past their end


# A block that was copied: of which image and group, and what is to be computed of it.
cdef struct Stage:
    Py_ssize_t plane
    Py_ssize_t part
    Py_ssize_t count
    Sweep* sweeps


cdef Py_ssize_t whole_rows(Py_ssize_t rows, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """How many rows, end to end, may be stored with more lanes than they have without going past the last one."""
    cdef Py_ssize_t spare = rows * n - lanes
    return 0 if spare < 0 or n >= lanes else spare // n + 1


cdef Py_ssize_t cut_sweeps(
    Sweep* sweeps, const Sizes* s, const Side* sides, const Block* b, const Py_ssize_t[:, ::1] parts, Py_ssize_t lanes,
) noexcept nogil:
    """What is to be computed of a block, for one row of the result; returns how many sweeps."""
    cdef const Side* d = &sides[0]
    cdef const Side* h = &sides[1]
    cdef const Side* x = &sides[2]
    cdef Py_ssize_t part = 0, deep, high, wide, od, count = 0
    cdef Sweep* sweep
    if s.paired:
        lanes *= 2
    while part < parts.shape[0]:
        deep = min(b.n[0], parts[part, PART_OUT] - b.begin[0])
        high = min(b.n[1], parts[part, PART_OUT + 1] - b.begin[1])
        wide = min(b.n[2], parts[part, PART_OUT + 2] - b.begin[2])
        if s.paired:
            wide = min(2 * b.n[2], x.whole - 2 * b.begin[2])
        for od in range(deep):
            if high <= 0 or wide <= 0:
                break
            sweep = &sweeps[count]
            count += 1
            sweep.part, sweep.source, sweep.rows, sweep.n = part, od * d.pitch, high, wide
            sweep.to = (
                ((parts[part, PART_START] + (b.begin[0] + od) * d.jump) * h.whole
                 + parts[part, PART_START + 1] + b.begin[1] * h.jump) * x.whole
                + parts[part, PART_START + 2] + b.begin[2] * x.jump
            )
            # A row that is the whole row of the result is followed by the next one.
            sweep.whole = whole_rows(high, wide, lanes) if h.jump == 1 and wide == x.whole else 0
        part += 2 if s.paired else 1
    return count


def product(
    const floating[::1] source, const floating[::1] w, const floating[::1] bias, floating[::1] result,
    const Py_ssize_t[:, ::1] axes, const Py_ssize_t[:, ::1] phases, const Py_ssize_t[::1] sizes,
    const Py_ssize_t[:, ::1] parts, const Py_ssize_t[::1] at, const Py_ssize_t[::1] places,
    floating[:, ::1] space, Py_ssize_t[:, ::1] lists, int isa, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """result = w * source + bias, by image, group and block."""
    cdef Sizes s
    cdef Side[3] sides
    cdef Block block
    cdef fc_piece* pieces
    cdef Stage[2] stages
    cdef Stage* stage
    cdef int dtype = 0 if floating is float else 1
    cdef Py_ssize_t total, blocks, index, begin, end, slot, plane, part, row, channel, volume, positions, group
    cdef Py_ssize_t filled = -1, count = 0, first
    cdef fc_pad_t pad = fc_pad_table[dtype][isa]
    cdef floating* patch
    with nogil:
        s = read_sizes(sizes)
        read_sides(sides, axes, phases)
        volume = sides[0].size * sides[1].size * sides[2].size
        positions = sides[0].whole * sides[1].whole * sides[2].whole
        blocks = blocks_of(sides)
        total = blocks * s.images * s.groups
        slot = fc_draw(&counter[1], 1)
        fc_check(slot < space.shape[0] and slot < lists.shape[0])
        pieces = <fc_piece*> &lists[slot, 0]
        stages[0].sweeps = <Sweep*> (pieces + s.pieces)
        stages[1].sweeps = stages[0].sweeps + s.sweeps
        fc_check(s.pieces * 7 + 2 * s.sweeps * 6 <= lists.shape[1])
        stages[0].part = stages[1].part = -1
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            plane, part = begin // blocks, begin % blocks
            end = min(begin + grain, total)
            # The next block is copied before this one is summed: a load that meets several stores has to wait
            # until these have left the store buffer.
            for index in range(begin, end + 1):
                if index < end:
                    stage = &stages[index % 2]
                    stage.plane = plane
                    if filled != part or stage.part != part:
                        place_block(&block, part, sides)
                    if filled != part:
                        filled = part
                        count = cut_pieces(pieces, sides, &block)
                        fc_check(count <= s.pieces)
                    if stage.part != part:
                        stage.part = part
                        stage.count = cut_sweeps(
                            stage.sweeps, &s, sides, &block, parts, fc_depthwise_lanes(dtype, isa)
                        )
                        fc_check(stage.count <= s.sweeps)
                    for channel in range(s.channels):
                        first = (plane * s.channels + channel) * volume
                        pad(&space[slot, index % 2 * s.spill_at + channel * s.channel_pitch], sides[1].pitch, pieces,
                            count, &source[first], sides[1].stride * sides[2].size, sides[2].stride,
                            source.shape[0] - first)
                    part += 1
                    if part == blocks:
                        part = 0
                        plane += 1
                if index > begin:
                    stage = &stages[(index - 1) % 2]
                    patch = &space[slot, (index - 1) % 2 * s.spill_at]
                    group = stage.plane % s.groups
                    for row in range(s.rows):
                        sum_row(
                            &w[group * (w.shape[0] // s.groups) + row * s.row_step],
                            &bias[group * s.rows + row] if bias.shape[0] else NULL,
                            &result[(stage.plane * s.rows + row) * positions], stage.sweeps, stage.count, &s, sides,
                            parts, at, places, patch, &space[slot, 0] + 2 * s.spill_at, dtype, isa,
                        )
            begin = fc_draw(&counter[0], grain)


cdef inline void read_taps(
    fc_taps* taps, const Py_ssize_t* part, const Py_ssize_t[::1] at, const Py_ssize_t[::1] places, const void* w,
    Py_ssize_t pitch,
) noexcept nogil:
    taps.k, taps.high, taps.step = part[PART_K], part[PART_HIGH], part[PART_STEP]
    taps.at, taps.of = &at[part[PART_AT]], &places[part[PART_AT]]
    taps.w, taps.pitch = w, pitch


cdef void sum_row(
    const floating* w, const floating* bias, floating* result, const Sweep* sweeps, Py_ssize_t count, const Sizes* s,
    const Side* sides, const Py_ssize_t[:, ::1] parts, const Py_ssize_t[::1] at, const Py_ssize_t[::1] places,
    const floating* patch, floating* spill, int dtype, int isa,
) noexcept nogil:
    """One row of the result in one block, a sweep at a time."""
    cdef const Side* h = &sides[1]
    cdef const Side* x = &sides[2]
    cdef const Sweep* sweep
    cdef fc_taps a, b
    cdef Py_ssize_t i, oh, ow
    cdef floating* to
    for i in range(count):
        sweep = &sweeps[i]
        read_taps(&a, &parts[sweep.part, 0], at, places, w, h.pitch)
        a.to_pitch = h.jump * x.whole
        to = result + sweep.to
        if s.paired:
            read_taps(&b, &parts[sweep.part + 1, 0], at, places, w, h.pitch)
            fc_sweep_pair_table[dtype][isa](&a, &b, patch + sweep.source, to, sweep.rows, sweep.n, sweep.whole)
        elif x.jump == 1:
            fc_sweep_table[dtype][isa](&a, patch + sweep.source, to, sweep.rows, sweep.n, bias, sweep.whole)
        else:
            a.to_pitch = sweep.n
            fc_sweep_table[dtype][isa](&a, patch + sweep.source, spill, sweep.rows, sweep.n, bias, sweep.rows)
            for oh in range(sweep.rows):
                for ow in range(sweep.n):
                    to[oh * h.jump * x.whole + ow * x.jump] = spill[oh * sweep.n + ow]


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
    Py_ssize_t dout_at        # from a block in the workspace to the next, and the outputs that follow these
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
    const Py_ssize_t[::1] at, const Py_ssize_t[::1] places, floating[:, ::1] space, Py_ssize_t[:, ::1] lists,
    int isa, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """result[part] = dout times source, tap by tap, summed over every `parts`-th block of each image."""
    cdef WeightSizes s
    cdef Side[3] sides
    cdef Block block
    cdef fc_piece* pieces
    cdef int dtype = 0 if floating is float else 1
    cdef Py_ssize_t total, blocks, index, begin, slot, volume, group, groups, part, piece, g, i, taps, lanes, step
    cdef Py_ssize_t filled = -1, count = 0, first, channel, plane
    cdef floating* totals
    cdef fc_pad_t pad = fc_pad_table[dtype][isa]
    with nogil:
        s = read_weight_sizes(sizes)
        read_sides(sides, axes, phases)
        volume = sides[0].size * sides[1].size * sides[2].size
        blocks = blocks_of(sides)
        lanes = fc_depthwise_lanes(dtype, isa)
        taps = s.k * s.high
        step = s.filters * s.channels * taps
        total = s.parts * ((s.groups + s.block_groups - 1) // s.block_groups)
        slot = fc_draw(&counter[1], 1)
        fc_check(slot < space.shape[0] and slot < lists.shape[0])
        pieces = <fc_piece*> &lists[slot, 0]
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for index in range(begin, min(begin + grain, total)):
                part = cut(&group, &groups, index, s.groups, s.block_groups)
                totals = &space[slot, s.totals_at]
                for i in range(groups * step * lanes):
                    totals[i] = 0
                piece = part
                while piece < s.images * blocks:
                    block.image = piece // blocks
                    if filled != piece % blocks:
                        filled = piece % blocks
                        place_block(&block, filled, sides)
                        count = cut_pieces(pieces, sides, &block)
                        fc_check(count * 7 <= lists.shape[1])
                    # As in `product`, one copy ahead of the sums.
                    for g in range(groups + 1):
                        plane = block.image * s.groups + group + g
                        if g < groups:
                            for channel in range(s.channels):
                                first = (plane * s.channels + channel) * volume
                                pad(&space[slot, g % 2 * s.dout_at + channel * s.channel_pitch], sides[1].pitch,
                                    pieces, count, &source[first], sides[1].stride * sides[2].size, sides[2].stride,
                                    source.shape[0] - first)
                        if g > 0:
                            contract(
                                dout, (plane - 1) * s.filters, &s, sides, &block, at,
                                &space[slot, (g - 1) % 2 * s.dout_at], &space[slot, 0] + 2 * s.dout_at,
                                totals + (g - 1) * step * lanes, dtype, isa, lanes,
                            )
                    piece += s.parts
                fc_lanes_table[dtype][isa](
                    totals, groups * step, taps, &places[0], &result[part, group * step]
                )
            begin = fc_draw(&counter[0], grain)


cdef void contract(
    const floating[::1] dout, Py_ssize_t row, const WeightSizes* s, const Side* sides, const Block* b,
    const Py_ssize_t[::1] at, const floating* patch, floating* copied, floating* totals, int dtype, int isa,
    Py_ssize_t lanes,
) noexcept nogil:
    """One block of one group: each filter's outputs, of which `row` is the first plane, with each channel."""
    cdef Py_ssize_t plane = sides[1].out * sides[2].out, f, c, od, i, first
    cdef const floating* rows
    cdef fc_taps taps
    taps.k, taps.high, taps.at = s.k, s.high, &at[0]
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
                    copied[i] = rows[i // b.n[2] * sides[2].out + i % b.n[2]]
                rows = copied
            for c in range(s.channels):
                fc_dots_table[dtype][isa](
                    &taps, patch + c * s.channel_pitch + od * sides[0].pitch, rows, b.n[1], b.n[2],
                    totals + (f * s.channels + c) * s.k * s.high * lanes,
                )
