"""Sums and maxima of whole planes, computed with vectors at the speed of memory.

`words` is the shared state of the call, which distributes the work among threads: see team.h.
"""

from libc.stdint cimport int32_t

from fastconv._ext.arrays cimport Run, numbers_of, run_of
from fastconv._ext.runs cimport fc_check, floating
from fastconv._ext.team cimport FC_GRAIN, FC_WORDS, fc_alone, fc_enrol, fc_member, fc_next, fc_share


cdef extern from "planes.h" nogil:
    ctypedef double (*fc_total_t)(const void* source, Py_ssize_t n) noexcept nogil
    ctypedef Py_ssize_t (*fc_highest_t)(const void* source, Py_ssize_t n) noexcept nogil

    ctypedef struct fc_planes_kernels:
        fc_total_t total
        fc_highest_t highest

    const fc_planes_kernels* fc_planes_for(int dtype, int isa)


# The arguments of a reduction of planes, which all of its threads read.
cdef struct Reduction:
    fc_total_t total
    fc_highest_t highest
    const void* x
    void* out            # of the dtype; doubles for `totals`
    int32_t* indices
    Py_ssize_t planes    # the number of planes or, if there are `images` images, of channels
    Py_ssize_t images
    Py_ssize_t cells
    Py_ssize_t* words


def totals(const floating[:, ::1] x, double[::1] sums, int isa, words):
    """Write to sums (P,) the sums of the rows of x (P, n)."""
    cdef Reduction r
    cdef Py_ssize_t* shared = numbers_of(words)
    with nogil:
        fc_check(sums.shape[0] == x.shape[0])
        r.total = fc_planes_for(0 if floating is float else 1, isa).total
        r.x, r.out = <const void*> &x[0, 0], <void*> &sums[0]
        r.planes, r.cells, r.words = x.shape[0], x.shape[1], shared
        if floating is float:
            fc_share(shared, totals_of_float, &r)
        else:
            fc_share(shared, totals_of_double, &r)


cdef void totals_of_float(void* task) noexcept nogil:
    draw_totals(<const Reduction*> task, <float*> NULL)


cdef void totals_of_double(void* task) noexcept nogil:
    draw_totals(<const Reduction*> task, <double*> NULL)


cdef void draw_totals(const Reduction* r, floating* dtype) noexcept nogil:
    cdef const floating* x = <const floating*> r.x
    cdef double* sums = <double*> r.out
    cdef fc_member member = fc_enrol(r.words)
    cdef Py_ssize_t grain = r.words[FC_GRAIN], begin = fc_next(r.words, &member, r.planes), p
    while begin < r.planes:
        for p in range(begin, min(begin + grain, r.planes)):
            sums[p] = r.total(x + p * r.cells, r.cells)
        begin = fc_next(r.words, &member, r.planes)


def channels(int dtype, x, out, Py_ssize_t images, int isa, words):
    """Write to out (C,) the sums of the channels of x (N, C, ...) over all images, added up in double.

    x and out are of `dtype`, 0 (float32) or 1 (float64).
    """
    cdef Reduction r
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Py_ssize_t[FC_WORDS] own
    cdef Run source = run_of(x, itemsize, False), sums = run_of(out, itemsize, True)
    r.words = own
    if words is None:
        fc_alone(own)
    else:
        r.words = numbers_of(words)
    with nogil:
        r.total = fc_planes_for(dtype, isa).total
        r.x, r.out, r.planes, r.images = source.at, sums.at, sums.n, images
        r.cells = source.n // (images * sums.n)
        fc_share(r.words, channels_of_double if dtype else channels_of_float, &r)


cdef void channels_of_float(void* task) noexcept nogil:
    draw_channels(<const Reduction*> task, <float*> NULL)


cdef void channels_of_double(void* task) noexcept nogil:
    draw_channels(<const Reduction*> task, <double*> NULL)


cdef void draw_channels(const Reduction* r, floating* dtype) noexcept nogil:
    cdef const floating* x = <const floating*> r.x
    cdef floating* sums = <floating*> r.out
    cdef fc_member member = fc_enrol(r.words)
    cdef Py_ssize_t grain = r.words[FC_GRAIN], begin = fc_next(r.words, &member, r.planes), p, n
    cdef double total
    while begin < r.planes:
        for p in range(begin, min(begin + grain, r.planes)):
            total = 0
            for n in range(r.images):
                total += r.total(x + (n * r.planes + p) * r.cells, r.cells)
            sums[p] = <floating> total
        begin = fc_next(r.words, &member, r.planes)


def highest(const floating[:, ::1] x, floating[::1] out, int32_t[::1] indices, int isa, words):
    """Write to out and indices (P,) the first maximum of each row of x (P, n), or its first NaN, and its index."""
    cdef Reduction r
    cdef Py_ssize_t* shared = numbers_of(words)
    with nogil:
        fc_check(out.shape[0] == x.shape[0] and indices.shape[0] == x.shape[0])
        r.highest = fc_planes_for(0 if floating is float else 1, isa).highest
        r.x, r.out, r.indices = <const void*> &x[0, 0], <void*> &out[0], &indices[0]
        r.planes, r.cells, r.words = x.shape[0], x.shape[1], shared
        if floating is float:
            fc_share(shared, highest_of_float, &r)
        else:
            fc_share(shared, highest_of_double, &r)


cdef void highest_of_float(void* task) noexcept nogil:
    draw_highest(<const Reduction*> task, <float*> NULL)


cdef void highest_of_double(void* task) noexcept nogil:
    draw_highest(<const Reduction*> task, <double*> NULL)


cdef void draw_highest(const Reduction* r, floating* dtype) noexcept nogil:
    cdef const floating* x = <const floating*> r.x
    cdef floating* out = <floating*> r.out
    cdef fc_member member = fc_enrol(r.words)
    cdef Py_ssize_t grain = r.words[FC_GRAIN], begin = fc_next(r.words, &member, r.planes), p, at
    while begin < r.planes:
        for p in range(begin, min(begin + grain, r.planes)):
            at = r.highest(x + p * r.cells, r.cells)
            out[p] = x[p * r.cells + at]
            r.indices[p] = <int32_t> at
        begin = fc_next(r.words, &member, r.planes)
