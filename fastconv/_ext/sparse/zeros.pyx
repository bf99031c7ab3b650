"""The density of weights: the fraction of weights that are not zero. 'auto' chooses an algorithm by the density."""

from libc.stdint cimport uint64_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer


cdef enum:
    COUNTED = 4096        # In arrays of at most this many weights, all nonzero weights are counted.
    SAMPLE = 1024         # The number of weights that are read in larger arrays.
    SAMPLED_FIRST = 1024  # In arrays of more weights than this, a first sample shows whether the array is dense.
    FIRST_SAMPLE = 128    # The number of weights of the first sample.


#: A density is rounded up to a multiple of 1 / steps.
steps = SAMPLE
#: The size of the largest array for which all weights are counted. Larger arrays are sampled.
counted = COUNTED


def density(w, *, int dtype, double dense):
    """Return the fraction of nonzero elements of an array, rounded up to a multiple of 1 / steps. `dtype` is 0
    (float32) or 1 (float64).

    If the fraction of nonzero elements is above `dense`, return 1.0. If the array has more than `counted` elements,
    read only a sample of the elements. The sampled indices are the fractional parts of multiples of 1 / golden ratio,
    scaled to the size of the array. So the indices are not periodic, and follow no pattern of the weights. All arrays
    of one size are sampled at the same indices.
    """
    cdef Buffer run = contiguous_buffer(w, 8 if dtype else 4, False)
    cdef Py_ssize_t found
    if run.n > SAMPLED_FIRST and sample(dtype, &run, FIRST_SAMPLE) > dense * FIRST_SAMPLE:
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


cdef Py_ssize_t sample(int dtype, const Buffer* run, Py_ssize_t count) noexcept nogil:
    cdef uint64_t fraction_bits = 0
    cdef Py_ssize_t _i, at, found = 0
    for _i in range(count):
        fraction_bits += 0x9E3779B97F4A7C15UL   # 2**64 divided by the golden ratio
        at = <Py_ssize_t> (<double> (fraction_bits >> 11) * (1.0 / 9007199254740992.0) * <double> run.n)
        at = min(at, run.n - 1)
        found += (<const double*> run.at)[at] != 0 if dtype else (<const float*> run.at)[at] != 0
    return found
