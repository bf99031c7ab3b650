"""The density of weights, which is the share of nonzero weights. The algorithm 'auto' chooses by it."""

from libc.stdint cimport uint64_t

from fastconv._ext.arrays cimport Buffer, contiguous_buffer


cdef enum:
    FEW = 1024          # The largest number of weights that are counted without taking a first sample.
    COUNTED = 4096      # The largest number of weights of which all are counted.
    SAMPLE = 1024       # The number of weights in the sample of a larger array.
    FIRST = 128         # The number of weights in the first sample, which finds arrays that are dense.


#: The number of steps from 0 to 1: a density is rounded up to a multiple of 1 / steps.
steps = SAMPLE
#: The largest number of weights for which the density is exact up to rounding. Larger arrays are sampled.
counted = COUNTED


def density(int dtype, w, double dense):
    """Return the share of nonzero elements of an array. The share is rounded up to a multiple of 1 / steps.

    Returns 1.0 if the share is above `dense`. The dtype is 0 (float32) or 1 (float64). For an array of more than
    `counted` elements, the share of a sample is returned. The indices of the sample are spread by multiples of the
    golden ratio, so that they follow no pattern of the weights. All arrays of one size are sampled at the same indices.
    """
    cdef Buffer run = contiguous_buffer(w, 8 if dtype else 4, False)
    cdef Py_ssize_t found
    if run.n > FEW and sample(dtype, &run, FIRST) > dense * FIRST:
        return 1.0
    if run.n > COUNTED:
        found = sample(dtype, &run, SAMPLE)
    else:
        found = count_double(<const double*> run.at, run.n) if dtype else count_float(<const float*> run.at, run.n)
        found = (SAMPLE * found + run.n - 1) // max(run.n, 1)
    return 1.0 if found > dense * SAMPLE else <double> found / SAMPLE


cdef Py_ssize_t count_float(const float* w, Py_ssize_t n) noexcept nogil:
    cdef int found = 0
    cdef Py_ssize_t i
    for i in range(n):
        found += w[i] != 0
    return found


cdef Py_ssize_t count_double(const double* w, Py_ssize_t n) noexcept nogil:
    cdef int found = 0
    cdef Py_ssize_t i
    for i in range(n):
        found += w[i] != 0
    return found


cdef Py_ssize_t sample(int dtype, const Buffer* run, Py_ssize_t places) noexcept nogil:
    cdef uint64_t turn = 0
    cdef Py_ssize_t _i, at, found = 0
    for _i in range(places):
        turn += 0x9E3779B97F4A7C15UL   # 2**64 divided by the golden ratio
        at = <Py_ssize_t> (<double> (turn >> 11) * (1.0 / 9007199254740992.0) * <double> run.n)
        at = min(at, run.n - 1)
        found += (<const double*> run.at)[at] != 0 if dtype else (<const float*> run.at)[at] != 0
    return found
