# Forward and backward_data of depthwise convolution: the sweeps over a block, and the worker that computes blocks.

from fastconv._ext.buffers.runs cimport fc_check, floating
from fastconv._ext.depthwise.blocks cimport list_segments, no_block, place_block
from fastconv._ext.depthwise.kernels cimport fc_copy_segment, fc_depthwise_kernels, fc_taps
from fastconv._ext.packing.patches cimport Block, ConvAxis
from fastconv._ext.threads.team cimport fc_new_worker, fc_next_chunk, fc_work_queue, fc_worker


# One stride phase of the result. In the forward pass, the whole result is one part.
cdef struct Part:
    Py_ssize_t[3] out    # the number of results along each axis
    Py_ssize_t[3] start  # the index of result 0 along each axis of the result array
    fc_taps taps         # the taps of every result; a sweep sets `w` and `to_pitch` in a copy


# The constants of a `ConvolvePlan`. The source is the array that is convolved: x or, for dx, dout. The result is out or
# dx. Steps, pitches and offsets are in elements.
cdef struct ConvolveSizes:
    ConvAxis[3] axes
    const fc_depthwise_kernels* kernels
    const Part* parts
    Py_ssize_t n_parts        # the number of parts of the result
    Py_ssize_t lanes          # the number of lanes of a vector
    Py_ssize_t groups         # the number of groups of an image
    Py_ssize_t rows           # the number of channels of the result in a group
    Py_ssize_t row_step       # the distance between the weights of two channels of the result
    Py_ssize_t group_step     # the distance between the weights of two groups
    Py_ssize_t channels       # the number of channels of the source in a group
    Py_ssize_t channel_pitch  # the distance between two channels of a padded block
    Py_ssize_t volume         # the number of cells of a channel of the source
    Py_ssize_t positions      # the number of cells of a channel of the result
    Py_ssize_t blocks         # the number of blocks of a channel of the result
    Py_ssize_t items          # the number of items of a call: the blocks of all groups of all images
    Py_ssize_t segments       # the largest number of segments of a channel of a padded block
    Py_ssize_t sweeps         # the largest number of sweeps over a padded block
    bint paired               # whether the results of two parts alternate in each row of the result
    bint scattered            # whether the results of a sweep are computed in the workspace, then copied one by one
    Py_ssize_t workspace      # the number of elements of the workspace of a thread
    Py_ssize_t[2] block_at    # the offsets of the two padded blocks in the workspace
    Py_ssize_t scattered_at   # the offset of the results that are copied one by one
    Py_ssize_t segments_at    # the offset of the list of segments, which both blocks share
    Py_ssize_t[2] sweeps_at   # the offsets of the lists of sweeps over each block


# A sweep computes the results of one block that are in one plane of one part. If `paired` is set, a sweep computes two
# parts.
cdef struct Sweep:
    Py_ssize_t part    # the index of the part, or of the first of two parts
    Py_ssize_t source  # the offset, in the padded block, of the first row that the sweep reads, in elements
    Py_ssize_t to      # the offset, in a channel of the result, of the first result of the sweep, in elements
    Py_ssize_t rows    # the number of rows of results
    Py_ssize_t n       # the number of results in a row of the sweep
    Py_ssize_t whole   # the number of rows whose last vector may write past the end of the row


# A padded block in the workspace, and the sweeps over it.
cdef struct Stage:
    Py_ssize_t plane   # the index of the image and group: image * groups + group
    Py_ssize_t block   # the index of the block in a channel of the result
    Py_ssize_t count   # the number of sweeps
    Sweep* sweeps


# The arguments of a call of `ConvolvePlan.run`. All workers of the call read them.
cdef struct ConvolveCall:
    const ConvolveSizes* sizes
    const void* source
    Py_ssize_t sources         # the number of elements of the source
    const void* w
    const void* b              # one number for each channel of the result, or NULL
    void* result
    void* workspace            # the workspaces of all workers, `sizes.workspace` elements each
    Py_ssize_t workspaces      # the number of workspaces
    fc_work_queue* queue


cdef inline Py_ssize_t whole_rows(Py_ssize_t rows, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """Return how many of the `rows` rows may be stored as one whole vector each. A row has n results. A vector has more
    lanes than a row has results, so the vector also writes into later rows, but it must not write past the last row.
    If n is at least `lanes`, return 0.
    """
    cdef Py_ssize_t spare = rows * n - lanes
    return 0 if spare < 0 or n >= lanes else spare // n + 1


cdef inline Py_ssize_t list_sweeps(Sweep* sweeps, const ConvolveSizes* s, const Block* b) noexcept nogil:
    """List the sweeps over a block for one channel of the result, and return their number."""
    cdef const ConvAxis* d = &s.axes[0]
    cdef const ConvAxis* h = &s.axes[1]
    cdef const ConvAxis* x = &s.axes[2]
    cdef Py_ssize_t index = 0, deep, high, wide, od, count = 0, lanes = s.lanes
    cdef const Part* part
    cdef Sweep* sweep
    if s.paired:
        lanes *= 2
    while index < s.n_parts:
        part = &s.parts[index]
        deep = min(b.n[0], part.out[0] - b.begin[0])
        high = min(b.n[1], part.out[1] - b.begin[1])
        wide = min(b.n[2], part.out[2] - b.begin[2])
        if s.paired:
            wide = min(2 * b.n[2], x.output_size - 2 * b.begin[2])
        for od in range(deep):
            if high <= 0 or wide <= 0:
                break
            sweep = &sweeps[count]
            count += 1
            sweep.part, sweep.source, sweep.rows, sweep.n = index, od * d.pitch, high, wide
            sweep.to = (
                ((part.start[0] + (b.begin[0] + od) * d.output_stride) * h.output_size
                 + part.start[1] + b.begin[1] * h.output_stride) * x.output_size
                + part.start[2] + b.begin[2] * x.output_stride
            )
            # A vector may write past the end of its row only if the rows of the sweep are whole, adjacent rows of the
            # result.
            sweep.whole = whole_rows(high, wide, lanes) if h.output_stride == 1 and wide == x.output_size else 0
        index += 2 if s.paired else 1
    return count


cdef inline void sum_row(
    const ConvolveSizes* s, const floating* w, const floating* b, floating* result, const Stage* stage,
    const floating* patch, floating* scattered,
) noexcept nogil:
    """Compute the results of a block for one channel of the result, by the sweeps that `stage` lists."""
    cdef const ConvAxis* h = &s.axes[1]
    cdef const ConvAxis* x = &s.axes[2]
    cdef const Sweep* sweep
    cdef fc_taps even, odd
    cdef Py_ssize_t i, oh, ow, pitch = h.output_stride * x.output_size
    cdef floating* to
    for i in range(stage.count):
        sweep = &stage.sweeps[i]
        even = s.parts[sweep.part].taps
        even.w, even.to_pitch = w, sweep.n if s.scattered else pitch
        to = result + sweep.to
        if s.paired:
            odd = s.parts[sweep.part + 1].taps
            odd.w, odd.to_pitch = w, pitch
            s.kernels.sweep_pair(&even, &odd, patch + sweep.source, to, sweep.rows, sweep.n, b, sweep.whole)
        elif not s.scattered:
            s.kernels.sweep(&even, patch + sweep.source, to, sweep.rows, sweep.n, b, sweep.whole)
        else:
            s.kernels.sweep(&even, patch + sweep.source, scattered, sweep.rows, sweep.n, b, sweep.rows)
            for oh in range(sweep.rows):
                for ow in range(sweep.n):
                    to[oh * pitch + ow * x.output_stride] = scattered[oh * sweep.n + ow]


cdef inline void convolve_worker(const ConvolveCall* call, floating* dtype) noexcept nogil:
    """Take chunks of blocks from the work queue until none are left, and compute these blocks."""
    cdef const ConvolveSizes* s = call.sizes
    cdef const ConvAxis* axes = &s.axes[0]
    cdef Block block = no_block()
    cdef Stage[2] stages
    cdef Stage* stage
    cdef Py_ssize_t filled = -1, count = 0, blocks = s.blocks, block_index
    cdef Py_ssize_t index, end, plane, row, channel, group, first
    cdef fc_worker worker = fc_new_worker(call.queue)
    cdef Py_ssize_t grain = call.queue.grain, begin = fc_next_chunk(call.queue, &worker, s.items)
    cdef const floating* source = <const floating*> call.source
    cdef const floating* w = <const floating*> call.w
    cdef const floating* b = <const floating*> call.b
    cdef floating* result = <floating*> call.result
    cdef floating* workspace = <floating*> call.workspace + worker.id * s.workspace
    cdef fc_copy_segment* segments = <fc_copy_segment*> (workspace + s.segments_at)
    if begin >= s.items:
        return
    fc_check(worker.id < call.workspaces)
    for index in range(2):
        stages[index].sweeps = <Sweep*> (workspace + s.sweeps_at[index])
        stages[index].block = -1
    while begin < s.items:
        plane, block_index = begin // blocks, begin % blocks
        end = min(begin + grain, s.items)
        # Copy the next block before summing the current block. If a block were summed right after it was copied, the
        # loads would have to wait, because the copy would still be in the store buffer.
        for index in range(begin, end + 1):
            if index < end:
                stage = &stages[index % 2]
                stage.plane = plane
                if filled != block_index or stage.block != block_index:
                    place_block(&block, block_index, axes)
                if filled != block_index:
                    filled = block_index
                    count = list_segments(segments, axes, &block)
                    fc_check(count <= s.segments)
                if stage.block != block_index:
                    stage.block = block_index
                    stage.count = list_sweeps(stage.sweeps, s, &block)
                    fc_check(stage.count <= s.sweeps)
                for channel in range(s.channels):
                    first = (plane * s.channels + channel) * s.volume
                    s.kernels.pad(
                        workspace + s.block_at[index % 2] + channel * s.channel_pitch, axes[1].pitch, segments, count,
                        source + first, axes[1].stride * axes[2].size, axes[2].stride, call.sources - first,
                    )
                block_index += 1
                if block_index == blocks:
                    block_index = 0
                    plane += 1
            if index > begin:
                stage = &stages[(index - 1) % 2]
                group = stage.plane % s.groups
                for row in range(s.rows):
                    sum_row(
                        s, w + group * s.group_step + row * s.row_step,
                        <const floating*> NULL if b is NULL else b + group * s.rows + row,
                        result + (stage.plane * s.rows + row) * s.positions, stage,
                        workspace + s.block_at[(index - 1) % 2], workspace + s.scattered_at,
                    )
        begin = fc_next_chunk(call.queue, &worker, s.items)


cdef inline void convolve_float64(void* call) noexcept nogil:
    convolve_worker(<const ConvolveCall*> call, <double*> NULL)


cdef inline void convolve_float32(void* call) noexcept nogil:
    convolve_worker(<const ConvolveCall*> call, <float*> NULL)
