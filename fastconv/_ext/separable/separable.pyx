"""Separable convolution. The kernel is an outer product of one vector for each axis, so it is applied axis by axis.
These vectors are the factors of the kernel.

`factors` computes the factors of kernels, and `convolve` applies the factors. fastconv.convolution.separable divides
the work into work items, and makes all tables that this module reads.
"""

from libc.stdlib cimport free, malloc

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check
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


def lanes(int dtype, int isa):
    """Return the number of lanes of a vector, for dtype 0 (float32) or 1 (float64)."""
    return fc_isa_lanes(dtype, isa)


def factors(int dtype, w, kernel, order, to, bint report_mismatch):
    """Compute the factors of the kernel of each filter of w (F, KD, KH, KW), and write them to `to` (F, len(order)).

    The three factors are concatenated to one vector of KD + KH + KW elements, and to[f, i] is element order[i] of this
    vector. Return None if all kernels are outer products. Otherwise, return a tuple with the index of the first filter
    whose kernel is not an outer product. If `report_mismatch` is set and the kernel is finite, the tuple also has the
    index of the weight that differs most from the product of the factors, that weight, and that product.
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


# The arguments of a call. All threads of the call read them.
cdef struct Task:
    fc_separable call
    fc_separable_t block
    Py_ssize_t* counts
    Py_ssize_t items
    char* space
    Py_ssize_t space_bytes
    Py_ssize_t spaces
    fc_work_queue* queue


def convolve(int dtype, x, factors, bias, result, axes, phases, sizes, space, counts, int isa, queue):
    """Convolve each channel of x along D, H and W in turn. If a result of image n is inf or NaN, set counts[n] to 1.

    `bias` is None or has one number for each channel of the result. `axes` (3, 8) has the fields of fc_phased_axis for
    each axis, `phases` (n, 7) has the fields of fc_conv_axis for the stride phases of all axes, and `sizes` has the
    fields of fc_separable. The workspace `space` has the shape (threads, bytes).
    """
    cdef Task t
    cdef fc_phased_axis* axis
    cdef Py_ssize_t i, at = 0, itemsize = 8 if dtype else 4
    cdef Py_ssize_t* numbers = index_pointer(axes)
    cdef const fc_conv_axis* phase = <const fc_conv_axis*> index_pointer(phases)
    cdef Buffer sources = contiguous_buffer(x, itemsize, False), results = contiguous_buffer(result, itemsize, True)
    cdef Buffer entries = contiguous_buffer(factors, itemsize, False), spaces = contiguous_buffer(space, 1, True)
    cdef Buffer biases
    for i in range(3):
        axis = &t.call.axes[i]
        axis.size, axis.output_size, axis.stride, axis.phases = numbers[0], numbers[1], numbers[2], numbers[3]
        axis.out, axis.block, axis.pad, axis.halo = numbers[4], numbers[5], numbers[6], numbers[7]
        axis.phase = phase + at
        at += axis.phases
        numbers += 8
    numbers = index_pointer(sizes)
    t.call.images, t.call.channels, t.call.shared, t.call.sources = numbers[0], numbers[1], numbers[2], numbers[3]
    t.call.entries, t.call.flat, t.call.pitch, t.call.split_at = numbers[4], numbers[5], numbers[6], numbers[7]
    t.call.phase_pitch, t.call.row_at, t.call.planes_at, t.call.space = numbers[8], numbers[9], numbers[10], numbers[11]
    t.call.border = numbers[12]
    t.call.x, t.call.factors, t.call.result, t.call.bias = sources.at, entries.at, results.at, NULL
    if bias is not None:
        biases = contiguous_buffer(bias, itemsize, False)
        fc_check(biases.n == t.call.channels)
        t.call.bias = biases.at
    t.counts, t.queue = index_pointer(counts), work_queue(queue)
    t.call.queue = t.queue
    t.space, t.spaces = <char*> spaces.at, len(space)
    t.space_bytes = spaces.n // t.spaces
    t.block = fc_separable_for(dtype, isa).block
    with nogil:
        fc_check(t.space_bytes >= t.call.space * itemsize)
        t.items = fc_separable_items(&t.call)
        fc_check(results.n == t.call.images * t.call.channels * volume(&t.call, True))
        fc_check(
            sources.n * t.call.shared == t.call.images * t.call.channels * t.call.sources * volume(&t.call, False)
        )
        fc_check(entries.n >= t.call.channels * t.call.sources * t.call.entries)
        fc_parallel_for(t.queue, items_worker, &t)


cdef inline Py_ssize_t volume(const fc_separable* call, bint output_size) noexcept nogil:
    """Return the number of elements of a channel of the result or, if `output_size` is not set, of the source."""
    cdef Py_ssize_t i, cells = 1
    for i in range(3):
        cells *= call.axes[i].output_size if output_size else call.axes[i].size
    return cells


cdef void items_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t item = fc_next_chunk(t.queue, &worker, t.items), end
    cdef char* space = t.space + worker.id * t.space_bytes
    fc_check(worker.id < t.spaces)
    while item < t.items:
        end = min(item + t.queue.grain, t.items)
        while item < end and not fc_stopped(t.queue):
            if t.block(&t.call, item, space):
                fc_atomic_exchange(&t.counts[item // (t.items // t.call.images)], 1)
            item += 1
        item = fc_next_chunk(t.queue, &worker, t.items)
