"""Convolution with few channels and filters in a group, for example with groups == C.

The kernels compute sums over taps instead of a matrix product, and vectors run along the rows of an image. A padded
block of an image is copied to a workspace that stays in the L1 cache, and is split into stride phases (see
packing/patches.pxd). Rows of the result are then summed in registers.

`ConvolvePlan` computes forward and backward_data, and `WeightGradientPlan` computes backward_weights. A plan is made
once, by fastconv.convolution.depthwise, and never changes. So several threads may run one plan at once.

`dtype` is 0 (float32) or 1 (float64). The workspace of a call has `workspace` elements for each thread. `queue` is the
shared state of the call, which distributes the work among threads: see threads/team.h.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.buffers.runs cimport fc_all_finite_f32, fc_all_finite_f64, fc_check
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.depthwise.blocks cimport blocks_of, book_blocks, book_structs, count_segments
from fastconv._ext.depthwise.convolve cimport (
    ConvolveCall, ConvolveSizes, Part, Sweep, convolve_float32, convolve_float64,
)
from fastconv._ext.depthwise.gradient cimport GradientCall, GradientSizes, gradient_float32, gradient_float64
from fastconv._ext.depthwise.kernels cimport fc_copy_segment, fc_depthwise_for, fc_isa_lanes, fc_taps
from fastconv._ext.packing.patches cimport ConvAxis, set_conv_axes
from fastconv._ext.threads.team cimport fc_parallel_for, work_queue


def lanes(*, int dtype, int isa):
    """Return the number of lanes of a vector."""
    return fc_isa_lanes(dtype, isa)


def all_finite(array):
    """Return whether no element of a C-contiguous float32 or float64 array is inf or NaN."""
    cdef Py_ssize_t itemsize = array.itemsize
    cdef Buffer run = contiguous_buffer(array, itemsize, False)
    if itemsize == 8:
        return bool(fc_all_finite_f64(<const double*> run.at, run.n))
    return bool(fc_all_finite_f32(<const float*> run.at, run.n))


cdef int set_taps(fc_taps* taps, columns, const ConvAxis* axes) except -1:
    """Set `taps` from the `Columns` of fastconv.convolution.depthwise, whose arrays the plan keeps alive."""
    taps.at, taps.of = index_pointer(columns.offsets), index_pointer(columns.weights)
    taps.k, taps.high, taps.step = len(columns.offsets), columns.high, columns.step
    taps.w, taps.pitch, taps.to_pitch = NULL, axes[1].pitch, 0
    return 0


cdef class ConvolvePlan:
    """Computes result = w * source + b, where * is a convolution. The source is x or dout, and the result is out or dx.

    `layout` is the `Layout` of padded blocks of the source, and `parts` is a list of the stride phases of the result
    (`Part` of fastconv.convolution.depthwise). For the other arguments, see `ConvolveSizes`. A work item is a block of
    one group of one image.
    """

    cdef ConvolveSizes _sizes
    cdef Py_ssize_t _itemsize
    # The arrays and structs to which `_sizes` has pointers.
    cdef object _phases, _columns, _parts
    #: The number of work items of a call.
    cdef readonly Py_ssize_t items
    #: The number of elements of the workspace of one thread.
    cdef readonly Py_ssize_t workspace

    def __init__(
        self, *, int dtype, int isa, layout, parts, Py_ssize_t images, Py_ssize_t groups, Py_ssize_t rows,
        Py_ssize_t row_step, Py_ssize_t group_step, Py_ssize_t channels, Py_ssize_t channel_pitch, bint paired,
    ):
        cdef ConvolveSizes* s = &self._sizes
        cdef ConvAxis* axes = &s.axes[0]
        cdef Scratchpad pad
        self._itemsize = 8 if dtype else 4
        self._phases = layout.phases()
        set_conv_axes(axes, layout, self._phases)
        s.kernels, s.lanes = fc_depthwise_for(dtype, isa), fc_isa_lanes(dtype, isa)
        s.groups, s.rows, s.row_step, s.group_step = groups, rows, row_step, group_step
        s.channels, s.channel_pitch = channels, channel_pitch
        s.volume = axes[0].size * axes[1].size * axes[2].size
        s.positions = axes[0].output_size * axes[1].output_size * axes[2].output_size
        s.blocks = blocks_of(axes)
        s.items = s.blocks * images * groups
        s.paired, s.scattered = paired, axes[2].output_stride > 1 and not paired
        self._set_parts(parts)
        s.segments, s.sweeps = count_segments(axes), s.n_parts * axes[0].block

        pad = scratchpad_of(self._itemsize)
        book_blocks(&pad, s.block_at, channels, channel_pitch, layout.row, s.lanes)
        s.scattered_at = book(&pad, axes[1].block * axes[2].block + s.lanes if s.scattered else 0)
        s.segments_at = book_structs(&pad, s.segments, sizeof(fc_copy_segment), self._itemsize)
        s.sweeps_at[0] = book_structs(&pad, s.sweeps, sizeof(Sweep), self._itemsize)
        s.sweeps_at[1] = book_structs(&pad, s.sweeps, sizeof(Sweep), self._itemsize)
        s.workspace = pad.size
        self.items, self.workspace = s.items, s.workspace

    cdef int _set_parts(self, parts) except -1:
        cdef Part* part
        cdef Py_ssize_t i
        self._sizes.n_parts = len(parts)
        self._parts = bytearray(self._sizes.n_parts * sizeof(Part))
        self._columns = [each.columns for each in parts]
        part = <Part*> contiguous_buffer(self._parts, sizeof(Part), True).at
        self._sizes.parts = part
        for each in parts:
            for i in range(3):
                axis = each.conv_axes[i]
                part.out[i], part.start[i] = axis.out, axis.output_offset
            set_taps(&part.taps, each.columns, &self._sizes.axes[0])
            part += 1
        return 0

    def run(self, source, w, b, result, workspace, queue):
        """Compute `result`. `b` has a number for each channel of the result, or is None."""
        cdef const ConvolveSizes* s = &self._sizes
        cdef ConvolveCall call
        cdef Py_ssize_t itemsize = self._itemsize
        cdef Buffer sources = contiguous_buffer(source, itemsize, False)
        cdef Buffer weights = contiguous_buffer(w, itemsize, False)
        cdef Buffer results = contiguous_buffer(result, itemsize, True)
        cdef Buffer spaces = contiguous_buffer(workspace, itemsize, True)
        call.sizes = s
        call.source, call.sources, call.w = sources.at, sources.n, weights.at
        call.b = NULL if b is None else contiguous_buffer(b, itemsize, False).at
        call.result = results.at
        call.workspace, call.workspaces = spaces.at, spaces.n // s.workspace
        call.queue = work_queue(queue)
        with nogil:
            fc_check(weights.n == s.groups * s.group_step)
            fc_check(results.n * s.blocks == s.items * s.rows * s.positions)
            fc_check(sources.n * s.blocks == s.items * s.channels * s.volume)
            fc_parallel_for(call.queue, convolve_float64 if itemsize == 8 else convolve_float32, &call)


cdef class WeightGradientPlan:
    """Computes dw in `parts` partial sums. Partial sum p is the sum over the blocks p, p + parts, p + 2 * parts, and so
    on. Blocks are counted over all images.

    `layout` is the `Layout` of padded blocks of x, and `columns` are the taps (`Columns` of
    fastconv.convolution.depthwise). For the other arguments, see `GradientSizes`.
    """

    cdef GradientSizes _sizes
    cdef Py_ssize_t _itemsize
    # The arrays to which `_sizes` has pointers.
    cdef object _phases, _columns, _weights
    #: The number of work items of a call.
    cdef readonly Py_ssize_t items
    #: The number of elements of the workspace of one thread.
    cdef readonly Py_ssize_t workspace

    def __init__(
        self, *, int dtype, int isa, layout, columns, Py_ssize_t images, Py_ssize_t groups, Py_ssize_t block_groups,
        Py_ssize_t filters, Py_ssize_t channels, Py_ssize_t channel_pitch, Py_ssize_t parts,
    ):
        cdef GradientSizes* s = &self._sizes
        cdef ConvAxis* axes = &s.axes[0]
        cdef const ConvAxis* x = &s.axes[2]
        cdef Scratchpad pad
        cdef bint short_rows
        self._itemsize = 8 if dtype else 4
        self._phases, self._columns, self._weights = layout.phases(), columns, columns.tap_weights
        set_conv_axes(axes, layout, self._phases)
        set_taps(&s.taps, columns, axes)
        s.weights, s.kernel = index_pointer(self._weights), len(self._weights)
        s.kernels, s.lanes = fc_depthwise_for(dtype, isa), fc_isa_lanes(dtype, isa)
        s.images, s.groups, s.block_groups = images, groups, block_groups
        s.filters, s.channels, s.channel_pitch, s.parts = filters, channels, channel_pitch, parts
        s.volume = axes[0].size * axes[1].size * axes[2].size
        s.blocks = blocks_of(axes)
        s.items = parts * ceil_div(groups, block_groups)
        s.segments = count_segments(axes)
        # Whether the rows of some block are shorter than a vector, and may have to be copied.
        short_rows = x.block < s.lanes or x.out % x.block > 0

        pad = scratchpad_of(self._itemsize)
        book_blocks(&pad, s.block_at, channels, channel_pitch, layout.row, s.lanes)
        # The last vector of the copied rows may read past their end.
        s.dout_at = book(&pad, (axes[1].block + 1) * s.lanes if short_rows else 0)
        s.totals_at = book(&pad, block_groups * filters * channels * s.kernel * s.lanes)
        s.segments_at = book_structs(&pad, s.segments, sizeof(fc_copy_segment), self._itemsize)
        s.workspace = pad.size
        self.items, self.workspace = s.items, s.workspace

    def run(self, x, dout, dw, workspace, queue):
        """Write the partial sums to `dw`, which has `parts` rows."""
        cdef const GradientSizes* s = &self._sizes
        cdef GradientCall call
        cdef Py_ssize_t itemsize = self._itemsize
        cdef Buffer xs = contiguous_buffer(x, itemsize, False), douts = contiguous_buffer(dout, itemsize, False)
        cdef Buffer dws = contiguous_buffer(dw, itemsize, True), spaces = contiguous_buffer(workspace, itemsize, True)
        call.sizes = s
        call.x, call.xs, call.dout, call.douts = xs.at, xs.n, douts.at, douts.n
        call.dw, call.dws = dws.at, dws.n // s.parts
        call.workspace, call.workspaces = spaces.at, spaces.n // s.workspace
        call.queue = work_queue(queue)
        with nogil:
            fc_check(xs.n == s.images * s.groups * s.channels * s.volume)
            fc_check(call.dws == s.groups * s.filters * s.channels * s.kernel)
            fc_parallel_for(call.queue, gradient_float64 if itemsize == 8 else gradient_float32, &call)
