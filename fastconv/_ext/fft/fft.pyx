"""Correlation by the FFT of tiles: see fft.h. fastconv.convolution.fft.tiling divides the work into tiles."""

from fastconv._ext.buffers.arrays cimport contiguous_buffer, index_pointer
from fastconv._ext.threads.team cimport fc_serial_queue, fc_work_queue, work_queue


cdef extern from "fft/fft.h" nogil:
    ctypedef struct fc_fft_part_t:
        pass
    ctypedef struct fc_fft_multiply_t:
        pass
    ctypedef struct fc_fft_add_t:
        pass

    ctypedef struct fc_fft_array:
        char* at

    ctypedef struct fc_fft_task:
        Py_ssize_t itemsize, lanes
        double scale
        fc_fft_array source, weights, result
        char* bias
        char* space
        Py_ssize_t* counts
        fc_work_queue* queue
        fc_fft_part_t part
        fc_fft_multiply_t multiply
        fc_fft_add_t add

    enum:
        FC_FFT_PASSES

    ctypedef struct fc_fft_kernels:
        fc_fft_part_t part
        fc_fft_multiply_t multiply
        fc_fft_add_t add

    const fc_fft_kernels* fc_fft_for(int dtype, int isa)
    int fc_isa_lanes(int dtype, int isa) noexcept
    void fc_fft_read(fc_fft_task* task, const Py_ssize_t* numbers, const char* factors) noexcept
    int fc_fft_run(fc_fft_task* task) except -1


#: The largest number of passes of a transform.
PASSES = FC_FFT_PASSES


def lanes(int dtype, int isa):
    """Return the number of lanes of a vector, for dtype 0 (float32) or 1 (float64)."""
    return fc_isa_lanes(dtype, isa)


def run(
    int dtype, source, weights, result, bias, counts, numbers, factors, double scale, space, int isa, queue,
):
    """Correlate `source` with `weights`, add `bias` unless it is None, and write the sums to `result`. For the gradient
    of the weights, correlate x (`source`) with dout (`result`) instead, and write the sums to `weights`.

    The arrays are of `dtype`, 0 (float32) or 1 (float64). `counts` (N,) is above 0 for each image with a result that is
    not finite. For the gradient, counts[0] is above 0 if any result is not finite. `numbers` is the table of
    fastconv.convolution.fft.tables, and `factors` is that of fastconv.convolution.fft.lengths.
    """
    cdef fc_fft_task t
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef fc_work_queue own
    cdef const Py_ssize_t* of_plan = index_pointer(numbers)
    cdef const char* of_factors = <const char*> contiguous_buffer(factors, itemsize, False).at
    cdef bint gradient = of_plan[1]
    t.itemsize, t.lanes, t.scale = itemsize, fc_isa_lanes(dtype, isa), scale
    fc_fft_read(&t, of_plan, of_factors)
    t.source.at = <char*> contiguous_buffer(source, itemsize, False).at
    t.weights.at = <char*> contiguous_buffer(weights, itemsize, gradient).at
    t.result.at = <char*> contiguous_buffer(result, itemsize, not gradient).at
    t.bias = NULL if bias is None else <char*> contiguous_buffer(bias, itemsize, False).at
    t.counts = index_pointer(counts)
    t.space = <char*> contiguous_buffer(space, 1, True).at
    t.queue = &own
    if queue is None:
        fc_serial_queue(&own)
    else:
        t.queue = work_queue(queue)
    t.part = fc_fft_for(dtype, isa).part
    t.multiply = fc_fft_for(dtype, isa).multiply
    t.add = fc_fft_for(dtype, isa).add
    with nogil:
        fc_fft_run(&t)
