"""Declarations of the functions of runs.h, which copy, add up and clear runs of elements, and wrappers for both dtypes.
"""

cdef extern from "buffers/runs.h" nogil:
    const bint FC_CHECKED
    void fc_check(bint condition) noexcept
    Py_ssize_t fc_fetch_add(Py_ssize_t* counter, Py_ssize_t grain) noexcept
    void fc_prefetch(const void* begin, Py_ssize_t nbytes) noexcept
    void fc_zero_bytes(char* dst, size_t bytes) noexcept
    void fc_copy_f32(float* dst, const float* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    void fc_copy_f64(double* dst, const double* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    void fc_zero_column_f32(float* dst, Py_ssize_t rows, Py_ssize_t pitch) noexcept
    void fc_zero_column_f64(double* dst, Py_ssize_t rows, Py_ssize_t pitch) noexcept
    void fc_zero_short_f32(float* dst, Py_ssize_t n) noexcept
    void fc_zero_short_f64(double* dst, Py_ssize_t n) noexcept
    void fc_scatter_add_f32(float* dst, const float* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    void fc_scatter_add_f64(double* dst, const double* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    bint fc_all_finite_f32(const float* x, Py_ssize_t n) noexcept
    bint fc_all_finite_f64(const double* x, Py_ssize_t n) noexcept


ctypedef fused floating:
    float
    double


cdef inline void zero(floating* dst, Py_ssize_t n) noexcept nogil:
    if n > 0:
        fc_zero_bytes(<char*> dst, <size_t> n * sizeof(floating))


cdef inline void zero_short(floating* dst, Py_ssize_t n) noexcept nogil:
    """Write n zeros. For short rows, `zero_short` is faster than `zero`, because it calls no function."""
    if floating is float:
        fc_zero_short_f32(dst, n)
    else:
        fc_zero_short_f64(dst, n)


cdef inline void zero_column(floating* dst, Py_ssize_t rows, Py_ssize_t pitch) noexcept nogil:
    if floating is float:
        fc_zero_column_f32(dst, rows, pitch)
    else:
        fc_zero_column_f64(dst, rows, pitch)


cdef inline void copy(floating* dst, const floating* src, Py_ssize_t n, Py_ssize_t stride) noexcept nogil:
    if floating is float:
        fc_copy_f32(dst, src, n, stride)
    else:
        fc_copy_f64(dst, src, n, stride)


cdef inline void scatter_add(
    floating* dst, const floating* src, Py_ssize_t n, Py_ssize_t stride
) noexcept nogil:
    if floating is float:
        fc_scatter_add_f32(dst, src, n, stride)
    else:
        fc_scatter_add_f64(dst, src, n, stride)
