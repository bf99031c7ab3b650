"""Rectifying, and sums and maxima of whole planes: by vectors, at the speed of memory.

``counter`` and ``grain`` are as in im2col.pyx.
"""

from libc.stdint cimport int32_t

from fastconv._ext.runs cimport fc_check, fc_draw, floating


cdef extern from "planes.h" nogil:
    ctypedef void (*fc_rectify_t)(const void* sign, const void* source, void* to, Py_ssize_t n) noexcept nogil
    ctypedef double (*fc_total_t)(const void* source, Py_ssize_t n) noexcept nogil
    ctypedef Py_ssize_t (*fc_highest_t)(const void* source, Py_ssize_t n) noexcept nogil

    const fc_rectify_t[2][3] fc_rectify_table
    const fc_rectify_t[2][3] fc_rectify_gradient_table
    const fc_total_t[2][3] fc_total_table
    const fc_highest_t[2][3] fc_highest_table


cdef enum:
    PIECE = 1 << 12  # elements: what `grain` counts where there are no planes


def rectify(
    const floating[::1] sign, const floating[::1] source, floating[::1] to, bint gradient, int isa,
    Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """to = source where sign > 0, else 0; a NaN in `sign` takes `source` too, except in the `gradient`."""
    cdef Py_ssize_t n = to.shape[0], total = (n + PIECE - 1) // PIECE, begin, at
    cdef int dtype = 0 if floating is float else 1
    cdef fc_rectify_t kernel = fc_rectify_gradient_table[dtype][isa] if gradient else fc_rectify_table[dtype][isa]
    with nogil:
        fc_check(sign.shape[0] == n and source.shape[0] == n)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            at = begin * PIECE
            kernel(&sign[at], &source[at], &to[at], min(n, min(begin + grain, total) * PIECE) - at)
            begin = fc_draw(&counter[0], grain)


def totals(
    const floating[:, ::1] x, double[::1] sums, int isa, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """sums (P,): of every row of x (P, n)."""
    cdef Py_ssize_t total = x.shape[0], begin, p
    cdef int dtype = 0 if floating is float else 1
    with nogil:
        fc_check(sums.shape[0] == total)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for p in range(begin, min(begin + grain, total)):
                sums[p] = fc_total_table[dtype][isa](&x[p, 0], x.shape[1])
            begin = fc_draw(&counter[0], grain)


def highest(
    const floating[:, ::1] x, floating[::1] out, int32_t[::1] indices, int isa, Py_ssize_t[::1] counter,
    Py_ssize_t grain,
):
    """out and indices (P,): the first maximum of every row of x (P, n), or its first NaN, and its place."""
    cdef Py_ssize_t total = x.shape[0], begin, p, at
    cdef int dtype = 0 if floating is float else 1
    with nogil:
        fc_check(out.shape[0] == total and indices.shape[0] == total)
        begin = fc_draw(&counter[0], grain)
        while begin < total:
            for p in range(begin, min(begin + grain, total)):
                at = fc_highest_table[dtype][isa](&x[p, 0], x.shape[1])
                out[p] = x[p, at]
                indices[p] = <int32_t> at
            begin = fc_draw(&counter[0], grain)
