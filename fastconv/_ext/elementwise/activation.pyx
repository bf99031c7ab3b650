"""Elementwise functions and their gradients, computed with vectors on several threads.

`queue` is the shared state of the call, which distributes the work among threads: see threads/team.h.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "elementwise/activation.h" nogil:
    ctypedef void (*fc_each_t)(const void* first, const void* second, void* to, Py_ssize_t n,
                               double slope) noexcept nogil

    ctypedef struct fc_activation_kernels:
        fc_each_t rectify
        fc_each_t rectify_gradient
        fc_each_t leak
        fc_each_t sigmoid
        fc_each_t sigmoid_gradient
        fc_each_t tanh
        fc_each_t tanh_gradient

    const fc_activation_kernels* fc_activation_for(int dtype, int isa)


cdef enum:
    PIECE_ELEMENTS = 1 << 12

PIECE = PIECE_ELEMENTS

# The functions that `each` can compute.
cdef enum Function:
    F_RECTIFY
    F_RECTIFY_GRADIENT
    F_LEAK
    F_SIGMOID
    F_SIGMOID_GRADIENT
    F_TANH
    F_TANH_GRADIENT

RECTIFY, RECTIFY_GRADIENT, LEAK = F_RECTIFY, F_RECTIFY_GRADIENT, F_LEAK
SIGMOID, SIGMOID_GRADIENT, TANH, TANH_GRADIENT = F_SIGMOID, F_SIGMOID_GRADIENT, F_TANH, F_TANH_GRADIENT


# The arguments of a call, which all threads of the call read.
cdef struct Each:
    fc_each_t kernel
    const char* first
    const char* second
    char* to
    Py_ssize_t n
    Py_ssize_t itemsize
    double slope
    fc_work_queue* queue


cdef inline fc_each_t kernel_of(int function, int dtype, int isa) noexcept nogil:
    if function == F_RECTIFY:
        return fc_activation_for(dtype, isa).rectify
    if function == F_RECTIFY_GRADIENT:
        return fc_activation_for(dtype, isa).rectify_gradient
    if function == F_LEAK:
        return fc_activation_for(dtype, isa).leak
    if function == F_SIGMOID:
        return fc_activation_for(dtype, isa).sigmoid
    if function == F_SIGMOID_GRADIENT:
        return fc_activation_for(dtype, isa).sigmoid_gradient
    if function == F_TANH:
        return fc_activation_for(dtype, isa).tanh
    return fc_activation_for(dtype, isa).tanh_gradient


def each(int function, int dtype, first, second, to, double slope, int isa, queue):
    """Compute to = function(first, second), elementwise. A function of one argument uses `first`.

    For a gradient, `second` is dout, and `first` is the input of the forward pass for relu, or the output of the
    forward pass for any other function. RECTIFY and LEAK write `second` where `first` is positive; elsewhere RECTIFY
    writes zeros, and LEAK writes `slope` times `second`. All three arrays are of `dtype`, 0 (float32) or 1 (float64).
    """
    cdef Each e
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Buffer firsts = contiguous_buffer(first, itemsize, False), seconds = contiguous_buffer(second, itemsize, False)
    cdef Buffer results = contiguous_buffer(to, itemsize, True)
    cdef fc_work_queue* shared = work_queue(queue)
    with nogil:
        e.kernel = kernel_of(function, dtype, isa)
        fc_check(firsts.n == results.n and seconds.n == results.n)
        e.first, e.second, e.to = <const char*> firsts.at, <const char*> seconds.at, <char*> results.at
        e.n, e.itemsize, e.slope, e.queue = results.n, itemsize, slope, shared
        fc_parallel_for(shared, pieces_worker, &e)


cdef void pieces_worker(void* task) noexcept nogil:
    cdef const Each* e = <const Each*> task
    cdef fc_worker worker = fc_new_worker(e.queue)
    cdef Py_ssize_t pieces = (e.n + PIECE_ELEMENTS - 1) // PIECE_ELEMENTS
    cdef Py_ssize_t most = e.queue.grain * PIECE_ELEMENTS, begin, at
    while True:
        begin = fc_next_chunk(e.queue, &worker, pieces) * PIECE_ELEMENTS
        if begin >= e.n:
            return
        at = begin * e.itemsize
        e.kernel(e.first + at, e.second + at, e.to + at, min(most, e.n - begin), e.slope)
