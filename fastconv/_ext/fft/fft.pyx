"""Correlation by the FFT of tiles: see fft.h. fastconv.convolution.fft.tiling divides the work into tiles."""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.threads.team cimport fc_serial_queue, fc_work_queue, work_queue


cdef extern from "fft/fft.h" nogil:
    enum:
        FC_FFT_PASSES
        FC_FFT_ZEROS
        FC_FFT_REFLECT
        FC_FFT_REPLICATE
        FC_FFT_CIRCULAR

    ctypedef struct fc_fft_axis:
        Py_ssize_t length
        Py_ssize_t passes
        const Py_ssize_t* radices
        const void* factors

    ctypedef struct fc_fft_tile_axis:
        Py_ssize_t size
        Py_ssize_t pitch
        Py_ssize_t step
        Py_ssize_t begin
        Py_ssize_t count
        Py_ssize_t border

    ctypedef struct fc_fft_array_axis:
        fc_fft_tile_axis first
        Py_ssize_t phi_step
        Py_ssize_t tau_step
        Py_ssize_t positions

    ctypedef struct fc_fft_layout:
        Py_ssize_t outer
        Py_ssize_t group
        Py_ssize_t inner
        Py_ssize_t tiled
        fc_fft_array_axis[3] axes

    ctypedef struct fc_fft_array:
        char* at

    ctypedef struct fc_fft_kernels:
        pass

    ctypedef struct fc_fft_plan:
        fc_fft_axis[3] axes
        Py_ssize_t[3][FC_FFT_PASSES] radices
        fc_fft_layout source, weights, result
        const fc_fft_kernels* kernels
        double scale
        Py_ssize_t itemsize, lanes, threads
        Py_ssize_t is_signal, is_volume, gradient, backward_data
        Py_ssize_t groups, images, rows, columns
        Py_ssize_t taus, phis, tiles
        Py_ssize_t[3] tau
        Py_ssize_t[3] phi
        Py_ssize_t[3] tile
        Py_ssize_t[3] tiles_along
        Py_ssize_t block_rows, block_columns, block_pairs, block_groups
        Py_ssize_t fused, shared, parts, pitch
        Py_ssize_t flat_at, other_flat_at, volume_at, other_volume_at, slot_pitch
        Py_ssize_t shared_at, other_shared_at, weight_spectra_at, source_spectra_at, result_spectra_at

    ctypedef struct fc_fft_task:
        const fc_fft_plan* plan
        fc_fft_axis[3] axes
        const void* twiddles
        fc_fft_array source, weights, result
        char* bias
        char* space
        Py_ssize_t* counts
        fc_work_queue* queue

    const fc_fft_kernels* fc_fft_for(int dtype, int isa)
    int fc_isa_lanes(int dtype, int isa) noexcept
    int fc_fft_run(fc_fft_task* task) except -1


cdef dict BORDERS = {
    "zeros": FC_FFT_ZEROS, "reflect": FC_FFT_REFLECT, "replicate": FC_FFT_REPLICATE, "circular": FC_FFT_CIRCULAR,
}


def lanes(*, int dtype, int isa):
    """Return the number of elements of a vector, for dtype 0 (float32) or 1 (float64)."""
    return fc_isa_lanes(dtype, isa)


cdef Py_ssize_t book_workspace(fc_fft_plan* p, tiling) except -1:
    """Divide the workspace of a call, set the offsets in `p`, and return the size of the workspace in elements.

    `tiling` is an `FftTiling` of fastconv.convolution.fft.tiling.
    """
    cdef Scratchpad slot = scratchpad_of(tiling.problem.itemsize), call = scratchpad_of(tiling.problem.itemsize)
    cdef Py_ssize_t depth, height, width, strips, row, plane, volume
    depth, height, width = tiling.lengths
    p.lanes, p.threads, p.pitch = tiling.problem.lanes, tiling.problem.threads, tiling.pitch
    p.fused, p.shared, p.gradient, p.is_volume = tiling.fused, tiling.shared, tiling.gradient, depth > 1
    p.block_rows, p.block_columns = tiling.row_block, tiling.column_block
    p.block_pairs, p.block_groups = tiling.pair_block, tiling.group_block
    # Each plane and volume has one row more than its transform needs. So elements with the same index in neighbouring
    # planes are in different cache sets.
    row, strips = 2 * p.lanes, (height + p.lanes - 1) // p.lanes
    plane = row * (strips * width + 1)
    volume = row * (depth * height * ((width + p.lanes - 1) // p.lanes) + 1)
    p.flat_at = p.other_flat_at = p.volume_at = p.other_volume_at = p.shared_at = p.other_shared_at = 0
    p.weight_spectra_at = p.source_spectra_at = p.result_spectra_at = 0

    book(&slot, row * (depth if p.is_volume else height))   # the strip
    if p.fused and (p.is_volume or not p.shared):
        p.flat_at = book(&slot, plane)
        if p.gradient:
            p.other_flat_at = book(&slot, plane)
    if p.is_volume and not p.shared:
        p.volume_at = book(&slot, volume)
        if p.fused and p.gradient:
            p.other_volume_at = book(&slot, volume)
    p.slot_pitch = slot.size

    book(&call, p.threads * p.slot_pitch)
    if p.shared:
        p.shared_at = book(&call, volume if p.is_volume else p.pitch)
        if p.gradient:
            p.other_shared_at = book(&call, volume if p.is_volume else p.pitch)
    if not p.fused:
        p.weight_spectra_at = book(&call, p.pitch * p.block_rows * (p.block_pairs if p.gradient else p.block_columns))
        p.source_spectra_at = book(&call, p.pitch * p.block_pairs * p.block_columns)
        p.result_spectra_at = book(&call, p.pitch * p.block_rows * (p.block_columns if p.gradient else p.block_pairs))
    elif p.gradient:
        p.result_spectra_at = book(&call, p.pitch * p.threads)
    else:
        p.weight_spectra_at = book(&call, p.pitch * p.block_groups)
    return call.size


def workspace(tiling):
    """Return the number of elements of the workspace of a plan with this tiling."""
    cdef fc_fft_plan plan
    return book_workspace(&plan, tiling)


cdef int set_layout(fc_fft_layout* layout, array) except -1:
    """Set `layout` from an `ArrayLayout` of fastconv.convolution.fft.layouts."""
    cdef Py_ssize_t i
    layout.outer, layout.group, layout.inner, layout.tiled = array.outer, array.group, array.inner, array.tiled
    for i in range(3):
        axis = array.axes[i]
        layout.axes[i].first.size, layout.axes[i].first.pitch = axis.size, axis.pitch
        layout.axes[i].first.step, layout.axes[i].first.begin = axis.step, axis.origin
        layout.axes[i].first.count, layout.axes[i].first.border = axis.count, BORDERS[axis.border]
        layout.axes[i].phi_step, layout.axes[i].tau_step = axis.phi_step, axis.tau_step
        layout.axes[i].positions = axis.positions
    return 0


cdef class TransformPlan:
    """A plan that correlates `source` with `weights`, or computes the gradient of `weights`.

    `dtype` is 0 (float32) or 1 (float64). `tiling` is an `FftTiling` of fastconv.convolution.fft.tiling. `radices` has
    the radices of the passes of each of the three transforms. `source`, `weights` and `result` are the layouts of the
    arrays (`ArrayLayout`). All results are multiplied by `scale`.
    """

    cdef fc_fft_plan _plan
    cdef int _dtype
    #: The number of elements of the workspace of a call.
    cdef readonly Py_ssize_t workspace

    def __init__(self, *, int dtype, int isa, tiling, radices, source, weights, result, double scale):
        cdef fc_fft_plan* p = &self._plan
        cdef Py_ssize_t i, k
        self._dtype, self.workspace = dtype, book_workspace(p, tiling)
        p.kernels, p.itemsize, p.scale = fc_fft_for(dtype, isa), 8 if dtype else 4, scale
        fc_check(p.lanes == fc_isa_lanes(dtype, isa))
        problem = tiling.problem
        p.is_signal, p.backward_data, p.parts = problem.line, problem.op == "backward_data", tiling.parts
        p.groups, p.images, p.rows, p.columns = problem.groups, problem.images, problem.rows, problem.columns
        p.taus = p.phis = p.tiles = 1
        for i in range(3):
            axis = problem.phase_axes[i]
            p.tau[i], p.phi[i], p.tile[i], p.tiles_along[i] = axis.taus, axis.phis, tiling.tile[i], tiling.tiles[i]
            p.taus, p.phis, p.tiles = p.taus * p.tau[i], p.phis * p.phi[i], p.tiles * p.tiles_along[i]
            passes = radices[i]
            p.axes[i].length, p.axes[i].passes, p.axes[i].radices = tiling.lengths[i], len(passes), p.radices[i]
            fc_check(p.axes[i].passes <= FC_FFT_PASSES)
            for k in range(p.axes[i].passes):
                p.radices[i][k] = passes[k]
        set_layout(&p.source, source)
        set_layout(&p.weights, weights)
        set_layout(&p.result, result)

    def run(self, source, weights, result, bias, counts, factors, twiddles, space, queue):
        """Correlate `source` with `weights`, add `bias` unless it is None, and write the sums to `result`. For the
        gradient of the weights, correlate x (`source`) with dout (`result`) instead, and write the sums to `weights`.

        All arrays but `counts` have the dtype of the plan. `counts` (N,) is above 0 for each image with a result that
        is not finite. For the gradient, counts[0] is above 0 if any result is not finite. `factors` has the twiddle
        factors of each of the three transforms. `twiddles` has the factors between the two axes of a signal; it is None
        for other images. fastconv.convolution.fft.lengths makes all these factors. `queue` may be None if one thread
        does all the work.
        """
        cdef fc_fft_task t
        cdef Py_ssize_t i, itemsize = self._plan.itemsize
        cdef bint gradient = self._plan.gradient
        cdef fc_work_queue own
        cdef Buffer workspace = contiguous_buffer(space, itemsize, True)
        fc_check(workspace.n >= self.workspace)
        t.plan = &self._plan
        for i in range(3):
            t.axes[i] = self._plan.axes[i]
            t.axes[i].factors = contiguous_buffer(factors[i], itemsize, False).at
        t.twiddles = NULL if twiddles is None else contiguous_buffer(twiddles, itemsize, False).at
        t.source.at = <char*> contiguous_buffer(source, itemsize, False).at
        t.weights.at = <char*> contiguous_buffer(weights, itemsize, gradient).at
        t.result.at = <char*> contiguous_buffer(result, itemsize, not gradient).at
        t.bias = NULL if bias is None else <char*> contiguous_buffer(bias, itemsize, False).at
        t.counts = index_pointer(counts)
        t.space = <char*> workspace.at
        if queue is None:
            fc_serial_queue(&own)
            t.queue = &own
        else:
            t.queue = work_queue(queue)
        with nogil:
            fc_fft_run(&t)
