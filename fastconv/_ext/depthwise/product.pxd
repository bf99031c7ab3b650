# Forward and backward_data of depthwise convolution: the sweeps over a block, and the worker that computes blocks.

from fastconv._ext.depthwise.blocks cimport list_segments, place_block
from fastconv._ext.depthwise.kernels cimport fc_copy_segment, fc_depthwise_for, fc_isa_lanes, fc_pad_t, fc_taps
from fastconv._ext.packing.patches cimport Block, ConvAxis
from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.threads.team cimport fc_new_worker, fc_next_chunk, fc_work_queue, fc_worker


# The sizes of a call of `product`, in the order of the table that fastconv.convolution.depthwise makes. Steps, pitches
# and offsets are in elements.
cdef struct Sizes:
    Py_ssize_t images
    Py_ssize_t groups
    Py_ssize_t rows           # the number of rows of the result in a group: its filters or, for dx, its channels
    Py_ssize_t row_step       # the distance between the weights of two rows
    Py_ssize_t channels       # the number of channels of the source in a group
    Py_ssize_t channel_pitch  # the distance between two channels of a block
    # The distance between the two padded blocks in a workspace. After both blocks, the workspace has a buffer for
    # strided results.
    Py_ssize_t scatter_at
    Py_ssize_t segments         # the largest number of segments of a channel: see blocks.pxd
    Py_ssize_t sweeps         # the largest number of sweeps of a block: see `Sweep`
    Py_ssize_t paired         # whether the results of two stride phases alternate in each row of the result


cdef inline Sizes read_sizes(const Py_ssize_t* table) noexcept nogil:
    cdef Sizes s
    s.images, s.groups, s.rows, s.row_step = table[0], table[1], table[2], table[3]
    s.channels, s.channel_pitch, s.scatter_at, s.segments, s.sweeps, s.paired = (
        table[4], table[5], table[6], table[7], table[8], table[9]
    )
    return s


cdef enum:
    # The columns of the table `parts`. A part is one stride phase of the result. In the forward pass, the whole result
    # is one part.
    PART_OUT = 0      # three columns: the number of outputs along each axis
    PART_START = 3    # three columns: the index of output 0 along each axis of the result
    PART_K = 6        # three columns: the fields `k`, `high` and `step` of fc_taps
    PART_HIGH = 7
    PART_STEP = 8
    PART_AT = 9       # the index, in `at` and in `places`, of the first tap of the part
    PART_COLUMNS = 10


# A sweep computes the results of one block that are in one plane and one stride phase of the result. If `paired` is
# set, a sweep computes two stride phases. `part` is the index of the first of these stride phases.
cdef struct Sweep:
    Py_ssize_t part
    Py_ssize_t source  # the offset, in the padded block, of the first row of the sweep, in elements
    Py_ssize_t to      # the offset, in a channel of the result, of the first result of the sweep, in elements
    Py_ssize_t rows
    Py_ssize_t n       # the number of results in a row of the sweep
    Py_ssize_t whole   # the number of rows whose last vector may write past the end of the row


# A block that was copied to the workspace, and the sweeps over it.
cdef struct Stage:
    Py_ssize_t plane   # the index of the image and group: image * groups + group
    Py_ssize_t part    # the index of the block in the image
    Py_ssize_t count   # the number of sweeps
    Sweep* sweeps


cdef inline Py_ssize_t whole_rows(Py_ssize_t rows, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """Return how many of the `rows` rows may be stored as one whole vector each. A row has n results. A vector has more
    lanes than a row has results, so the vector also writes into later rows, but it must not write past the last row.
    If n is at least `lanes`, return 0.
    """
    cdef Py_ssize_t spare = rows * n - lanes
    return 0 if spare < 0 or n >= lanes else spare // n + 1


cdef inline Py_ssize_t list_sweeps(
    Sweep* sweeps, const Sizes* s, const ConvAxis* axes, const Block* b, const Py_ssize_t* parts, Py_ssize_t many,
    Py_ssize_t lanes,
) noexcept nogil:
    """List the sweeps over a block for one row of the result, and return the number of sweeps."""
    cdef const ConvAxis* d = &axes[0]
    cdef const ConvAxis* h = &axes[1]
    cdef const ConvAxis* x = &axes[2]
    cdef Py_ssize_t part = 0, deep, high, wide, od, count = 0
    cdef const Py_ssize_t* row
    cdef Sweep* sweep
    if s.paired:
        lanes *= 2
    while part < many:
        row = parts + part * PART_COLUMNS
        deep = min(b.n[0], row[PART_OUT] - b.begin[0])
        high = min(b.n[1], row[PART_OUT + 1] - b.begin[1])
        wide = min(b.n[2], row[PART_OUT + 2] - b.begin[2])
        if s.paired:
            wide = min(2 * b.n[2], x.output_size - 2 * b.begin[2])
        for od in range(deep):
            if high <= 0 or wide <= 0:
                break
            sweep = &sweeps[count]
            count += 1
            sweep.part, sweep.source, sweep.rows, sweep.n = part, od * d.pitch, high, wide
            sweep.to = (
                ((row[PART_START] + (b.begin[0] + od) * d.output_stride) * h.output_size
                 + row[PART_START + 1] + b.begin[1] * h.output_stride) * x.output_size
                + row[PART_START + 2] + b.begin[2] * x.output_stride
            )
            # A vector may write past the end of its row only if the rows of the sweep are whole, adjacent rows of the
            # result.
            sweep.whole = whole_rows(high, wide, lanes) if h.output_stride == 1 and wide == x.output_size else 0
        part += 2 if s.paired else 1
    return count


# The arguments of a call of `product`. All threads of the call read them.
cdef struct Product:
    const void* source
    Py_ssize_t sources         # the number of elements of the source
    const void* w
    const void* bias
    void* result
    const Py_ssize_t* parts
    Py_ssize_t parts_count
    const Py_ssize_t* at
    const Py_ssize_t* places
    void* space
    Py_ssize_t space_pitch
    Py_ssize_t* lists
    Py_ssize_t lists_pitch
    Py_ssize_t workspaces
    Py_ssize_t group_step      # the distance between the weights of two groups, in elements
    Py_ssize_t volume          # the number of cells of a channel of the source
    Py_ssize_t positions       # the number of cells of a channel of the result
    Py_ssize_t blocks          # the number of blocks of an image
    Py_ssize_t total           # the number of items
    int isa
    fc_work_queue* queue
    Sizes sizes
    ConvAxis[3] axes


cdef inline void sum_row(
    const Product* p, const floating* w, const floating* bias, floating* result, const Stage* stage,
    const floating* patch, floating* scattered,
) noexcept nogil:
    """Compute the results of a block for one filter or, for dx, one channel. `stage` lists the sweeps of the block."""
    cdef const ConvAxis* h = &p.axes[1]
    cdef const ConvAxis* x = &p.axes[2]
    cdef const Sweep* sweep
    cdef int isa = p.isa, dtype = 0 if floating is float else 1
    cdef fc_taps a, b
    cdef Py_ssize_t i, oh, ow
    cdef floating* to
    for i in range(stage.count):
        sweep = &stage.sweeps[i]
        read_taps(&a, p, sweep.part, w)
        a.to_pitch = h.output_stride * x.output_size
        to = result + sweep.to
        if p.sizes.paired:
            read_taps(&b, p, sweep.part + 1, w)
            fc_depthwise_for(dtype, isa).sweep_pair(
                &a, &b, patch + sweep.source, to, sweep.rows, sweep.n, bias, sweep.whole,
            )
        elif x.output_stride == 1:
            fc_depthwise_for(dtype, isa).sweep(&a, patch + sweep.source, to, sweep.rows, sweep.n, bias, sweep.whole)
        else:
            a.to_pitch = sweep.n
            fc_depthwise_for(dtype, isa).sweep(&a, patch + sweep.source, scattered, sweep.rows, sweep.n, bias,
                                               sweep.rows)
            for oh in range(sweep.rows):
                for ow in range(sweep.n):
                    to[oh * h.output_stride * x.output_size + ow * x.output_stride] = scattered[oh * sweep.n + ow]


cdef inline void read_taps(fc_taps* taps, const Product* p, Py_ssize_t part, const void* w) noexcept nogil:
    cdef const Py_ssize_t* row = p.parts + part * PART_COLUMNS
    taps.k, taps.high, taps.step = row[PART_K], row[PART_HIGH], row[PART_STEP]
    taps.at, taps.of = p.at + row[PART_AT], p.places + row[PART_AT]
    taps.w, taps.pitch = w, p.axes[1].pitch


cdef inline void products_worker(const Product* p, floating* dtype) noexcept nogil:
    """Take chunks of blocks from the work queue until none are left, and compute these blocks."""
    cdef const Sizes* s = &p.sizes
    cdef const ConvAxis* axes = &p.axes[0]
    cdef int isa = p.isa, which = 0 if floating is float else 1
    cdef fc_pad_t pad = fc_depthwise_for(which, isa).pad
    cdef Block block
    cdef Stage[2] stages
    cdef Stage* stage
    cdef Py_ssize_t filled = -1, count = 0, blocks = p.blocks, index, end, plane, part, row, channel, group, first
    cdef fc_worker worker = fc_new_worker(p.queue)
    cdef Py_ssize_t worker_id = worker.id, grain = p.queue.grain, begin = fc_next_chunk(p.queue, &worker, p.total)
    cdef const floating* source = <const floating*> p.source
    cdef const floating* w = <const floating*> p.w
    cdef const floating* bias = <const floating*> p.bias
    cdef floating* result = <floating*> p.result
    cdef floating* space = <floating*> p.space + worker_id * p.space_pitch
    cdef fc_copy_segment* segments = <fc_copy_segment*> (p.lists + worker_id * p.lists_pitch)
    if begin >= p.total:
        return
    fc_check(worker_id < p.workspaces)
    stages[0].sweeps = <Sweep*> (segments + s.segments)
    stages[1].sweeps = stages[0].sweeps + s.sweeps
    stages[0].part = stages[1].part = -1
    while begin < p.total:
        plane, part = begin // blocks, begin % blocks
        end = min(begin + grain, p.total)
        # Copy the next block before summing the current block. If a block were summed right after it was copied, the
        # loads would have to wait, because the copy would still be in the store buffer.
        for index in range(begin, end + 1):
            if index < end:
                stage = &stages[index % 2]
                stage.plane = plane
                if filled != part or stage.part != part:
                    place_block(&block, part, axes)
                if filled != part:
                    filled = part
                    count = list_segments(segments, axes, &block)
                    fc_check(count <= s.segments)
                if stage.part != part:
                    stage.part = part
                    stage.count = list_sweeps(
                        stage.sweeps, s, axes, &block, p.parts, p.parts_count, fc_isa_lanes(which, isa)
                    )
                    fc_check(stage.count <= s.sweeps)
                for channel in range(s.channels):
                    first = (plane * s.channels + channel) * p.volume
                    pad(space + index % 2 * s.scatter_at + channel * s.channel_pitch, axes[1].pitch, segments,
                        count, source + first, axes[1].stride * axes[2].size, axes[2].stride, p.sources - first)
                part += 1
                if part == blocks:
                    part = 0
                    plane += 1
            if index > begin:
                stage = &stages[(index - 1) % 2]
                group = stage.plane % s.groups
                for row in range(s.rows):
                    sum_row(
                        p, w + group * p.group_step + row * s.row_step,
                        <const floating*> NULL if bias is NULL else bias + group * s.rows + row,
                        result + (stage.plane * s.rows + row) * p.positions, stage,
                        space + (index - 1) % 2 * s.scatter_at, space + 2 * s.scatter_at,
                    )
        begin = fc_next_chunk(p.queue, &worker, p.total)


cdef inline void product_of_double(void* task) noexcept nogil:
    products_worker(<const Product*> task, <double*> NULL)


cdef inline void product_of_float(void* task) noexcept nogil:
    products_worker(<const Product*> task, <float*> NULL)
