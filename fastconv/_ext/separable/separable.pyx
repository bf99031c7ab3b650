"""Separable convolution. The kernel is an outer product of one vector for each axis, so it is applied axis by axis.
These vectors are the factors of the kernel.

`factors` computes the factors of kernels, and `ConvolvePlan` applies the factors. A plan is made once, by
fastconv.convolution.separable.tables, and never changes. So several threads may run one plan at once. `dtype` is
0 (float32) or 1 (float64).
"""

from libc.stdlib cimport free, malloc

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.threads.team cimport (
    fc_atomic_exchange, fc_new_worker, fc_next_chunk, fc_parallel_for, fc_stopped, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "separable/rank_one.h" nogil:
    ctypedef struct fc_mismatch:
        Py_ssize_t index
        double value
        double product

    Py_ssize_t fc_factor_space(const Py_ssize_t* k) noexcept
    int fc_factor_f32(const float* w, const Py_ssize_t* k, const Py_ssize_t* order, Py_ssize_t entries, float* to,
                      double* space, fc_mismatch* mismatch) noexcept
    int fc_factor_f64(const double* w, const Py_ssize_t* k, const Py_ssize_t* order, Py_ssize_t entries, double* to,
                      double* space, fc_mismatch* mismatch) noexcept


cdef extern from "separable/separable.h" nogil:
    enum:
        FC_ZEROS
        FC_REFLECT
        FC_REPLICATE
        FC_CIRCULAR

    ctypedef struct fc_conv_axis:
        Py_ssize_t out
        Py_ssize_t output_offset
        Py_ssize_t output_stride
        Py_ssize_t lo
        Py_ssize_t dilation
        Py_ssize_t taps
        Py_ssize_t factors

    ctypedef struct fc_phased_axis:
        Py_ssize_t size
        Py_ssize_t output_size
        Py_ssize_t stride
        Py_ssize_t phases
        Py_ssize_t out
        Py_ssize_t block
        Py_ssize_t pad
        Py_ssize_t halo
        const fc_conv_axis* phase

    ctypedef struct fc_separable:
        fc_phased_axis[3] axes
        Py_ssize_t images
        Py_ssize_t channels
        Py_ssize_t shared
        Py_ssize_t sources
        Py_ssize_t entries
        Py_ssize_t flat
        Py_ssize_t border
        Py_ssize_t pitch
        Py_ssize_t split_at
        Py_ssize_t phase_pitch
        Py_ssize_t row_at
        Py_ssize_t planes_at
        Py_ssize_t space
        const void* x
        const void* factors
        const void* bias
        void* result
        fc_work_queue* queue

    ctypedef int (*fc_separable_t)(const fc_separable* call, Py_ssize_t item, void* space) noexcept nogil
    ctypedef struct fc_separable_kernels:
        fc_separable_t block

    const fc_separable_kernels* fc_separable_for(int dtype, int isa)
    Py_ssize_t fc_separable_items(const fc_separable* call) noexcept
    int fc_isa_lanes(int dtype, int isa) noexcept


#: The border modes of the kernel, by the names of the option `pad_mode`.
_BORDERS = {"zeros": FC_ZEROS, "reflect": FC_REFLECT, "replicate": FC_REPLICATE, "circular": FC_CIRCULAR}


cdef enum:
    PAGE = 4096  # the bytes after which addresses share a set of the L1 cache


def lanes(*, int dtype, int isa):
    """Return the number of lanes of a vector."""
    return fc_isa_lanes(dtype, isa)


def factors(w, to, *, int dtype, kernel, order, bint report_mismatch=False):
    """Compute the factors of the kernel of each filter of w (F, KD, KH, KW), and write them to `to` (F, len(order)).

    `kernel` is (KD, KH, KW). The three factors are concatenated to one vector of KD + KH + KW elements, and to[f, i] is
    element order[i] of this vector. Return None if all kernels are outer products. Otherwise, return a tuple with the
    index of the first filter whose kernel is not an outer product. If `report_mismatch` is set and the kernel is
    finite, the tuple also has the index of the weight that differs most from the product of the factors, that weight,
    and that product.
    """
    cdef Py_ssize_t itemsize = 8 if dtype else 4, f, count, entries, taps
    cdef Buffer weights = contiguous_buffer(w, itemsize, False)
    cdef Buffer orders = contiguous_buffer(order, sizeof(Py_ssize_t), False)
    cdef Buffer results = contiguous_buffer(to, itemsize, True)
    cdef Py_ssize_t[3] k
    cdef fc_mismatch mismatch
    cdef fc_mismatch* reported = &mismatch if report_mismatch else NULL
    cdef int found = 0
    cdef double* space
    k[0], k[1], k[2] = kernel
    taps, entries = k[0] * k[1] * k[2], orders.n
    count = weights.n // taps
    fc_check(results.n >= count * entries)
    space = <double*> malloc(<size_t> fc_factor_space(k) * sizeof(double))
    if space == NULL:
        raise MemoryError
    with nogil:
        for f in range(count):
            if dtype:
                found = fc_factor_f64(
                    <const double*> weights.at + f * taps, k, <const Py_ssize_t*> orders.at, entries,
                    <double*> results.at + f * entries, space, reported,
                )
            else:
                found = fc_factor_f32(
                    <const float*> weights.at + f * taps, k, <const Py_ssize_t*> orders.at, entries,
                    <float*> results.at + f * entries, space, reported,
                )
            if found:
                break
    free(space)
    if found == 1 and report_mismatch:
        return f, mismatch.index, mismatch.value, mismatch.product
    return (f,) if found else None


# The arguments of a call of `ConvolvePlan.run`. All workers of the call read them.
cdef struct Call:
    fc_separable args           # the arguments of the kernel
    fc_separable_t block        # the kernel, which computes one work item
    Py_ssize_t items            # the number of work items of the call
    Py_ssize_t image_items      # the number of work items of an image
    Py_ssize_t* not_finite      # for each image, 1 if a result of the image is inf or NaN
    char* workspace             # the workspaces of all workers, `workspace_bytes` bytes each
    Py_ssize_t workspace_bytes
    Py_ssize_t workspaces       # the number of workspaces
    fc_work_queue* queue


cdef class ConvolvePlan:
    """Convolves each channel of the source along D, H and W in turn. The source is x or dout, and the result is out or
    dx.

    `axes` has the three axes (`StridePhases` of fastconv.convolution.separable.tables), and `blocks` the number of
    outputs of a block along each axis. `border` is the `pad_mode` of the image. For the other arguments, see
    fc_separable in separable.h.
    """

    # The arguments of the kernel, without the arrays and the queue of a call.
    cdef fc_separable _args
    cdef fc_separable_t _block
    cdef Py_ssize_t _itemsize
    # The array of stride phases to which `_args` has pointers.
    cdef object _phases
    #: The number of work items of a call.
    cdef readonly Py_ssize_t items
    #: The number of elements of the workspace of one thread.
    cdef readonly Py_ssize_t workspace

    def __init__(
        self, *, int dtype, int isa, axes, blocks, Py_ssize_t images, Py_ssize_t channels, Py_ssize_t shared,
        Py_ssize_t sources, Py_ssize_t entries, bint flat, border,
    ):
        cdef fc_separable* args = &self._args
        self._itemsize = 8 if dtype else 4
        self._block = fc_separable_for(dtype, isa).block
        args.images, args.channels, args.shared, args.sources = images, channels, shared, sources
        args.entries, args.flat, args.border = entries, flat, _BORDERS[border]
        args.x = args.factors = args.bias = args.result = args.queue = NULL
        self._set_axes(axes, blocks)
        self._book_workspace(fc_isa_lanes(dtype, isa))
        self.items, self.workspace = fc_separable_items(args), args.space

    cdef int _set_axes(self, axes, blocks) except -1:
        cdef fc_phased_axis* axis
        cdef fc_conv_axis* phase
        cdef Py_ssize_t i
        self._phases = bytearray(sum([len(each.conv_axes) for each in axes]) * sizeof(fc_conv_axis))
        phase = <fc_conv_axis*> contiguous_buffer(self._phases, sizeof(fc_conv_axis), True).at
        for i in range(3):
            axis, each = &self._args.axes[i], axes[i]
            first = each.conv_axes[0]
            axis.size, axis.output_size, axis.stride = first.size, first.output_size, first.stride
            axis.phases, axis.phase = len(each.conv_axes), phase
            axis.out, axis.block, axis.pad, axis.halo = each.out, blocks[i], each.pad, each.halo
            for conv_axis, factors in zip(each.conv_axes, each.factors):
                phase.out, phase.lo, phase.dilation = conv_axis.out, conv_axis.lo, conv_axis.dilation
                phase.output_offset, phase.output_stride = conv_axis.output_offset, conv_axis.output_stride
                phase.taps, phase.factors = conv_axis.taps, factors
                phase += 1
        return 0

    cdef int _book_workspace(self, Py_ssize_t lanes) except -1:
        cdef fc_separable* args = &self._args
        cdef const fc_phased_axis* d = &args.axes[0]
        cdef const fc_phased_axis* h = &args.axes[1]
        cdef const fc_phased_axis* w = &args.axes[2]
        cdef Scratchpad pad = scratchpad_of(self._itemsize)
        cdef Py_ssize_t width = span(w), i
        cdef bint strided = False
        for i in range(w.phases):
            strided = strided or w.phase[i].output_stride > 1
        # The rows of sums, which the kernel expects at the start of the workspace. The kernel may read a vector past
        # the end of a row. With a border mode, a row also holds the whole row of the image.
        args.pitch = max(width, w.pad + w.size) if args.border != FC_ZEROS else width
        args.pitch = ceil_div(args.pitch + lanes, pad.alignment) * pad.alignment
        if args.pitch * self._itemsize % PAGE == 0:
            args.pitch += pad.alignment
        book(&pad, h.block * args.pitch)
        args.phase_pitch = ceil_div(width, w.stride) + lanes if w.stride > 1 else 0
        args.split_at = book(&pad, w.stride * args.phase_pitch)
        args.row_at = book(&pad, w.block + lanes if strided else 0)
        args.planes_at = book(&pad, 0 if args.flat else d.block * min(span(h), h.size) * min(width, w.size))
        args.space = pad.size
        return 0

    def run(self, source, factors, b, result, not_finite, workspace, queue):
        """Compute `result`. If a result of image n is inf or NaN, set not_finite[n] to 1.

        `factors` are those that the function `factors` computes. `b` has a number for each channel of the result, or is
        None.
        """
        cdef Call call
        cdef fc_separable* args = &call.args
        cdef Py_ssize_t itemsize = self._itemsize
        cdef Buffer inputs = contiguous_buffer(source, itemsize, False)
        cdef Buffer weights = contiguous_buffer(factors, itemsize, False)
        cdef Buffer results = contiguous_buffer(result, itemsize, True)
        cdef Buffer spaces = contiguous_buffer(workspace, itemsize, True)
        cdef Buffer biases
        args[0] = self._args
        args.x, args.factors, args.result = inputs.at, weights.at, results.at
        if b is not None:
            biases = contiguous_buffer(b, itemsize, False)
            fc_check(biases.n == args.channels)
            args.bias = biases.at
        call.queue = args.queue = work_queue(queue)
        call.block, call.items, call.image_items = self._block, self.items, self.items // args.images
        call.not_finite = index_pointer(not_finite)
        call.workspace, call.workspaces = <char*> spaces.at, spaces.n // self.workspace
        call.workspace_bytes = self.workspace * itemsize
        with nogil:
            fc_check(results.n == args.images * args.channels * volume(args, True))
            fc_check(inputs.n * args.shared == args.images * args.channels * args.sources * volume(args, False))
            fc_check(weights.n >= args.channels * args.sources * args.entries)
            fc_parallel_for(call.queue, convolve_worker, &call)


cdef inline Py_ssize_t span(const fc_phased_axis* axis) noexcept nogil:
    """Return the number of source elements, including padding, that the outputs of a block read."""
    return (axis.block - 1) * axis.stride + axis.halo + 1


cdef inline Py_ssize_t volume(const fc_separable* args, bint output_size) noexcept nogil:
    """Return the number of elements of a channel of the result or, if `output_size` is not set, of the source."""
    cdef Py_ssize_t i, cells = 1
    for i in range(3):
        cells *= args.axes[i].output_size if output_size else args.axes[i].size
    return cells


cdef void convolve_worker(void* task) noexcept nogil:
    """Take chunks of work items from the work queue until none are left, and compute these items."""
    cdef const Call* call = <const Call*> task
    cdef fc_worker worker = fc_new_worker(call.queue)
    cdef Py_ssize_t item = fc_next_chunk(call.queue, &worker, call.items), end
    cdef char* workspace = call.workspace + worker.id * call.workspace_bytes
    fc_check(worker.id < call.workspaces or item >= call.items)
    while item < call.items:
        end = min(item + call.queue.grain, call.items)
        while item < end and not fc_stopped(call.queue):
            if call.block(&call.args, item, workspace):
                fc_atomic_exchange(&call.not_finite[item // call.image_items], 1)
            item += 1
        item = fc_next_chunk(call.queue, &worker, call.items)
