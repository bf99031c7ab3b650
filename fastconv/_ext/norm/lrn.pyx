"""Local response normalisation, forward and backward, on several threads.

Images have the shape (N, C, S), with S positions. A work item is a block of at most `width` positions of one image,
with all channels. Each thread has one row of the workspace `space`. `queue` is the shared state of the call, which
distributes the items among threads: see threads/team.h.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "norm/lrn.h" nogil:
    ctypedef struct fc_response:
        Py_ssize_t channels
        Py_ssize_t pitch
        Py_ssize_t lo
        Py_ssize_t hi
        double alpha
        double beta
        double k

    ctypedef void (*fc_lrn_t)(const void* x, void* y, Py_ssize_t n, const fc_response* layer,
                              void* space) noexcept nogil
    ctypedef void (*fc_lrn_gradient_t)(const void* dout, const void* x, void* dx, Py_ssize_t n,
                                       const fc_response* layer, void* space) noexcept nogil

    ctypedef struct fc_lrn_kernels:
        fc_lrn_t forward
        fc_lrn_gradient_t gradient

    const fc_lrn_kernels* fc_lrn_for(int dtype, int isa)


# The arguments of a call, which all threads of the call read.
cdef struct Response:
    fc_response layer
    fc_lrn_t forward
    fc_lrn_gradient_t gradient
    const char* x
    const char* dout
    char* to
    char* space
    Py_ssize_t space_bytes
    Py_ssize_t spaces
    Py_ssize_t itemsize
    Py_ssize_t N
    Py_ssize_t width
    fc_work_queue* queue


cdef Response begin_call(int dtype, x, to, shape, window, constants, Py_ssize_t width, space, queue) except *:
    cdef Response r
    cdef Buffer inputs, results, spaces
    r.itemsize = 8 if dtype else 4
    inputs, results = contiguous_buffer(x, r.itemsize, False), contiguous_buffer(to, r.itemsize, True)
    spaces = contiguous_buffer(space, 1, True)
    r.N, r.layer.channels, r.layer.pitch = shape
    r.layer.lo, r.layer.hi = window
    r.layer.alpha, r.layer.beta, r.layer.k = constants
    r.x, r.dout, r.to, r.space = <const char*> inputs.at, NULL, <char*> results.at, <char*> spaces.at
    r.spaces, r.width = len(space), width
    r.space_bytes = spaces.n // r.spaces
    r.queue = work_queue(queue)
    fc_check(inputs.n == r.N * r.layer.channels * r.layer.pitch and results.n == inputs.n)
    return r


def forward(int dtype, x, y, shape, window, constants, Py_ssize_t width, space, int isa, queue):
    """Compute y = x / (k + alpha * sum of squares) ** beta. The sum runs over window[0] channels before each channel,
    the channel itself, and window[1] channels after it.

    x and y are of `dtype`, 0 (float32) or 1 (float64). `shape` is (N, C, S), and `constants` is (alpha / size, beta,
    k). Each thread has one row of `space`, with room for (window[0] + window[1] + 3) * width elements.
    """
    cdef Response r = begin_call(dtype, x, y, shape, window, constants, width, space, queue)
    r.forward = fc_lrn_for(dtype, isa).forward
    with nogil:
        fc_check(r.space_bytes >= (r.layer.lo + r.layer.hi + 3) * width * r.itemsize)
        fc_parallel_for(r.queue, items_worker, &r)


def backward(int dtype, dout, x, dx, shape, window, constants, Py_ssize_t width, space, int isa, queue):
    """Compute dx, the gradient of `forward`. Each thread has one row of `space`, with room for
    (C + window[0] + window[1] + 3) * width elements.
    """
    cdef Response r = begin_call(dtype, x, dx, shape, window, constants, width, space, queue)
    cdef Buffer gradients = contiguous_buffer(dout, r.itemsize, False)
    r.dout = <const char*> gradients.at
    r.gradient = fc_lrn_for(dtype, isa).gradient
    with nogil:
        fc_check(gradients.n == r.N * r.layer.channels * r.layer.pitch)
        fc_check(r.space_bytes >= (r.layer.channels + r.layer.lo + r.layer.hi + 3) * width * r.itemsize)
        fc_parallel_for(r.queue, items_worker, &r)


cdef void items_worker(void* task) noexcept nogil:
    cdef const Response* r = <const Response*> task
    cdef fc_worker worker = fc_new_worker(r.queue)
    cdef Py_ssize_t cells = r.layer.pitch, blocks = (cells + r.width - 1) // r.width, items = r.N * blocks
    cdef Py_ssize_t item = fc_next_chunk(r.queue, &worker, items), end, first, n, at
    cdef char* space = r.space + worker.id * r.space_bytes
    fc_check(worker.id < r.spaces)
    while item < items:
        end = min(item + r.queue.grain, items)
        while item < end:
            first = item % blocks * r.width
            n = min(r.width, cells - first)
            at = (item // blocks * r.layer.channels * cells + first) * r.itemsize
            if r.dout == NULL:
                r.forward(r.x + at, r.to + at, n, &r.layer, space)
            else:
                r.gradient(r.dout + at, r.x + at, r.to + at, n, &r.layer, space)
            item += 1
        item = fc_next_chunk(r.queue, &worker, items)
