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


def workspace_rows(Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t C, bint is_gradient):
    """Return the number of rows of the workspace of a thread. A row has `width` elements."""
    return lo + hi + 3 + (C if is_gradient else 0)


cdef class LrnKernel:
    """Local response normalisation of images (N, C, S), or its gradient.

    The sum of squares runs over `lo` channels before each channel, the channel itself, and `hi` channels after it.
    `dtype` is 0 (float32) or 1 (float64). `workspace` is the number of elements of the workspace of a thread.
    """

    cdef Response _layer
    cdef bint _is_gradient
    cdef readonly Py_ssize_t workspace

    def __init__(
        self, *, int dtype, int isa, Py_ssize_t N, Py_ssize_t C, Py_ssize_t S, Py_ssize_t lo, Py_ssize_t hi,
        Py_ssize_t width, bint is_gradient,
    ):
        cdef Response* r = &self._layer
        r.itemsize, r.N, r.width = 8 if dtype else 4, N, width
        r.layer.channels, r.layer.pitch, r.layer.lo, r.layer.hi = C, S, lo, hi
        r.forward, r.gradient = fc_lrn_for(dtype, isa).forward, fc_lrn_for(dtype, isa).gradient
        self._is_gradient = is_gradient
        self.workspace = workspace_rows(lo, hi, C, is_gradient) * width

    def run(self, x, dout, to, double alpha, double beta, double k, space, queue):
        """Compute to = x / (k + alpha * sum of squares) ** beta or, for the gradient, dx from `dout`.

        Without a gradient, `dout` is None. Each thread has one row of `space`.
        """
        cdef Response r = self._layer
        cdef Py_ssize_t n = r.N * r.layer.channels * r.layer.pitch
        cdef Buffer inputs = contiguous_buffer(x, r.itemsize, False)
        cdef Buffer results = contiguous_buffer(to, r.itemsize, True), spaces = contiguous_buffer(space, 1, True)
        cdef Buffer gradients = contiguous_buffer(dout, r.itemsize, False) if self._is_gradient else inputs
        r.layer.alpha, r.layer.beta, r.layer.k = alpha, beta, k
        r.x, r.to, r.space = <const char*> inputs.at, <char*> results.at, <char*> spaces.at
        r.dout = <const char*> gradients.at if self._is_gradient else NULL
        r.spaces = len(space)
        r.space_bytes, r.queue = spaces.n // r.spaces, work_queue(queue)
        with nogil:
            fc_check(inputs.n == n and results.n == n and gradients.n == n)
            fc_check(r.space_bytes >= self.workspace * r.itemsize)
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
