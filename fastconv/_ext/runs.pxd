"""Declarations that several kernels share: the functions of runs.h, the struct of an axis, and its outputs by tap."""

from libc.stdint cimport int32_t, int64_t


cdef extern from "runs.h" nogil:
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
    void fc_gather_add_f32(float* dst, const float* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    void fc_gather_add_f64(double* dst, const double* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    void fc_scatter_add_f32(float* dst, const float* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    void fc_scatter_add_f64(double* dst, const double* src, Py_ssize_t n, Py_ssize_t stride) noexcept
    void fc_max_f32_i32(float* best, int32_t* where, const float* x, Py_ssize_t n, Py_ssize_t stride,
                        int32_t first) noexcept
    void fc_max_f32_i64(float* best, int64_t* where, const float* x, Py_ssize_t n, Py_ssize_t stride,
                        int64_t first) noexcept
    void fc_max_f64_i32(double* best, int32_t* where, const double* x, Py_ssize_t n, Py_ssize_t stride,
                        int32_t first) noexcept
    void fc_max_f64_i64(double* best, int64_t* where, const double* x, Py_ssize_t n, Py_ssize_t stride,
                        int64_t first) noexcept


ctypedef fused floating:
    float
    double


# One spatial axis: the fields of `Axis.row` in fastconv.geometry.axis. `Axis.row` makes numbers small that have no
# effect, so no product below overflows Py_ssize_t. At tap t, the outputs [first[t], last[t]) read a cell of the image;
# the other outputs read padding.
cdef struct Axis:
    Py_ssize_t size
    Py_ssize_t k
    Py_ssize_t stride
    Py_ssize_t lo
    Py_ssize_t dilation
    Py_ssize_t out
    const Py_ssize_t* first
    const Py_ssize_t* last


cdef inline Axis read_axis(
    const Py_ssize_t[:, ::1] table, const Py_ssize_t[:, ::1] output_ranges, Py_ssize_t i
) noexcept nogil:
    cdef Axis axis
    cdef Py_ssize_t j, at = 0
    for j in range(i):
        at += table[j, 1]
    axis.size = table[i, 0]
    axis.k = table[i, 1]
    axis.stride = table[i, 2]
    axis.lo = table[i, 3]
    axis.dilation = table[i, 4]
    axis.out = table[i, 5]
    axis.first = &output_ranges[0, at]
    axis.last = &output_ranges[1, at]
    fc_check(at + axis.k <= output_ranges.shape[1])
    return axis


cdef inline Py_ssize_t cell(const Axis* axis, Py_ssize_t o, Py_ssize_t tap) noexcept nogil:
    """Return the input cell that output `o` reads at `tap`. A cell outside [0, size) is padding."""
    return o * axis.stride + tap * axis.dilation - axis.lo


cdef inline Py_ssize_t outputs_before(const Axis* axis, Py_ssize_t tap, Py_ssize_t bound) noexcept nogil:
    """Return how many outputs read, at `tap`, a cell before `bound`. These outputs come first."""
    cdef Py_ssize_t cells = bound + axis.lo - tap * axis.dilation
    if cells <= 0:
        return 0
    return min(cells if axis.stride == 1 else (cells - 1) // axis.stride + 1, axis.out)


cdef inline bint seen(const Axis* axis, Py_ssize_t tap) noexcept nogil:
    """Return whether any output reads a cell of the image at `tap`. Debug builds also check that all outputs of the
    range do.
    """
    if axis.first[tap] >= axis.last[tap]:
        return False
    fc_check(0 <= axis.first[tap] and axis.last[tap] <= axis.out)
    fc_check(cell(axis, axis.first[tap], tap) >= 0)
    fc_check(cell(axis, axis.last[tap] - 1, tap) < axis.size)
    return True


cdef inline void zero(floating* dst, Py_ssize_t n) noexcept nogil:
    if n > 0:
        fc_zero_bytes(<char*> dst, <size_t> n * sizeof(floating))


cdef inline void zero_short(floating* dst, Py_ssize_t n) noexcept nogil:
    """Write n zeros. This is faster than `zero` for short rows, because no function is called."""
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


cdef inline void gather_add(
    floating* dst, const floating* src, Py_ssize_t n, Py_ssize_t stride
) noexcept nogil:
    if floating is float:
        fc_gather_add_f32(dst, src, n, stride)
    else:
        fc_gather_add_f64(dst, src, n, stride)


cdef inline void scatter_add(
    floating* dst, const floating* src, Py_ssize_t n, Py_ssize_t stride
) noexcept nogil:
    if floating is float:
        fc_scatter_add_f32(dst, src, n, stride)
    else:
        fc_scatter_add_f64(dst, src, n, stride)
