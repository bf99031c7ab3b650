"""How many of a kernel's weights are zero: what 'auto' looks at before it chooses an algorithm."""

from libc.stdint cimport uint64_t

from fastconv._ext.arrays cimport Run, run_of


cdef enum:
    FEW = 1024          # weights, of which all are counted
    COUNTED = 4096      # or of which all are counted where some are zero
    SAMPLE = 1024       # places looked at among more weights,
    FIRST = 128         # and so many at first


#: A density is a multiple of one in so many.
steps = SAMPLE
#: Up to so many weights are all counted.
counted = COUNTED


def density(int dtype, w, double dense):
    """The share of an array's elements that are not zero, rounded up to a multiple of 1 / steps.

    1.0 where it is above `dense`. The dtype is 0 (float32) or 1 (float64). Of many elements this is the share of a
    sample, at multiples of the golden ratio: places that are the same in every call, and no pattern's own.
    """
    cdef Run run = run_of(w, 8 if dtype else 4, False)
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


cdef Py_ssize_t sample(int dtype, const Run* run, Py_ssize_t places) noexcept nogil:
    cdef uint64_t turn = 0
    cdef Py_ssize_t _i, at, found = 0
    for _i in range(places):
        turn += 0x9E3779B97F4A7C15UL   # of 2**64, the golden ratio's share
        at = <Py_ssize_t> (<double> (turn >> 11) * (1.0 / 9007199254740992.0) * <double> run.n)
        at = min(at, run.n - 1)
        found += (<const double*> run.at)[at] != 0 if dtype else (<const float*> run.at)[at] != 0
    return found
