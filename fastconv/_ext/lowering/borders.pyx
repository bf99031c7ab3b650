"""Padding of images by copies of their own cells (mirrored, replicated, circular), and the adjoint of this padding.

fastconv.lowering.padding makes one `BordersPlan` for each geometry. `queue` distributes the rows of a call among
threads: see threads/team.h.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "lowering/borders.h" nogil:
    ctypedef struct fc_borders:
        Py_ssize_t[3] size
        Py_ssize_t[3] padded
        Py_ssize_t lo
        const Py_ssize_t* cell[3]
        const Py_ssize_t* at[2]
        const Py_ssize_t* shows[2]

    ctypedef void (*fc_extend_t)(const void* x, void* padded, Py_ssize_t row, const fc_borders* borders) noexcept nogil
    ctypedef void (*fc_fold_t)(const void* padded, void* x, Py_ssize_t row, const fc_borders* borders,
                               fc_work_queue* queue) noexcept nogil
    ctypedef struct fc_borders_kernels:
        fc_extend_t extend
        fc_fold_t fold

    const fc_borders_kernels* fc_borders_for(int dtype, int isa)


# The arguments of a call, which all threads of the call read.
cdef struct Call:
    const fc_borders* borders
    const void* source
    void* to
    fc_extend_t extend
    fc_fold_t fold
    Py_ssize_t rows
    fc_work_queue* queue


cdef class BordersPlan:
    """The padding of images with one size, by one padding mode.

    `size` and `padded` are the sizes of the three axes, without and with padding. `lo` is the padding at the start of
    the last axis. `cells` has an array for each axis: the index of the image element that each padded element repeats.
    For the last axis, the array covers only the padding. `firsts` and `copies` invert `cells`, and have an array for
    each axis but the last. Element c of the image is repeated at copies[firsts[c]] to copies[firsts[c + 1] - 1].
    """

    cdef fc_borders _borders
    cdef tuple _arrays    # keeps the arrays alive, because `_borders` has pointers into them
    cdef Py_ssize_t _plane, _padded_plane
    cdef readonly Py_ssize_t nbytes

    def __init__(self, *, size, padded, Py_ssize_t lo, cells, firsts, copies):
        cdef fc_borders* b = &self._borders
        cdef Py_ssize_t i
        self._arrays = (*cells, *firsts, *copies)
        self._plane = self._padded_plane = 1
        for i in range(3):
            b.size[i], b.padded[i] = size[i], padded[i]
            self._plane *= b.size[i]
            self._padded_plane *= b.padded[i]
            b.cell[i] = indices(cells[i], b.padded[i] if i < 2 else b.padded[i] - b.size[i])
        for i in range(2):
            b.at[i], b.shows[i] = indices(firsts[i], b.size[i] + 1), indices(copies[i], b.padded[i])
        b.lo = lo
        self.nbytes = sum([array.nbytes for array in self._arrays])

    def extend(self, x, padded, int dtype, int isa, queue):
        """Write the padded copies of the P planes of x (P, D, H, W) to `padded`. Both arrays are C-contiguous and of
        `dtype`, 0 (float32) or 1 (float64).
        """
        cdef Buffer read = contiguous_buffer(x, 8 if dtype else 4, False)
        cdef Buffer written = contiguous_buffer(padded, 8 if dtype else 4, True)
        cdef Call c
        self._check_sizes(read.n, written.n)
        c.borders, c.source, c.to, c.queue = &self._borders, read.at, written.at, work_queue(queue)
        c.rows = written.n // self._borders.padded[2]
        with nogil:
            c.extend = fc_borders_for(dtype, isa).extend
            fc_parallel_for(c.queue, extended_worker, &c)

    def fold(self, padded, x, int dtype, int isa, queue):
        """Compute the adjoint of `extend`: set each element of x to the sum of the elements of `padded` to which
        `extend` copies the element.
        """
        cdef Buffer read = contiguous_buffer(padded, 8 if dtype else 4, False)
        cdef Buffer written = contiguous_buffer(x, 8 if dtype else 4, True)
        cdef Call c
        self._check_sizes(written.n, read.n)
        c.borders, c.source, c.to, c.queue = &self._borders, read.at, written.at, work_queue(queue)
        c.rows = written.n // self._borders.size[2]
        with nogil:
            c.fold = fc_borders_for(dtype, isa).fold
            fc_parallel_for(c.queue, folded_worker, &c)

    cdef int _check_sizes(self, Py_ssize_t n, Py_ssize_t n_padded) except -1:
        """Check the sizes of the arrays, because the kernels do not check them."""
        cdef Py_ssize_t plane = self._plane, padded = self._padded_plane
        if plane == 0 or n % plane or n_padded % padded or n // plane != n_padded // padded:
            raise ValueError(
                f"the plan of borders does not fit the arrays: a plane of x has {plane} elements, and x has {n}; a "
                f"padded plane has {padded} elements, and the padded array has {n_padded}"
            )
        return 0


cdef const Py_ssize_t* indices(array, Py_ssize_t n) except? NULL:
    """Return the address of an array of n indices."""
    cdef Buffer found = contiguous_buffer(array, sizeof(Py_ssize_t), False)
    if found.n != n:
        raise ValueError(f"an array of borders has {found.n} indices, but {n} are needed")
    return <const Py_ssize_t*> found.at


cdef void extended_worker(void* task) noexcept nogil:
    cdef const Call* c = <const Call*> task
    cdef fc_worker worker = fc_new_worker(c.queue)
    cdef Py_ssize_t grain = c.queue.grain, begin = fc_next_chunk(c.queue, &worker, c.rows), row
    while begin < c.rows:
        for row in range(begin, min(begin + grain, c.rows)):
            c.extend(c.source, c.to, row, c.borders)
        begin = fc_next_chunk(c.queue, &worker, c.rows)


cdef void folded_worker(void* task) noexcept nogil:
    cdef const Call* c = <const Call*> task
    cdef fc_worker worker = fc_new_worker(c.queue)
    cdef Py_ssize_t grain = c.queue.grain, begin = fc_next_chunk(c.queue, &worker, c.rows), row
    while begin < c.rows:
        for row in range(begin, min(begin + grain, c.rows)):
            c.fold(c.source, c.to, row, c.borders, c.queue)
        begin = fc_next_chunk(c.queue, &worker, c.rows)
