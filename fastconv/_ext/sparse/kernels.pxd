# The C kernels of convolution with pruned weights, for each dtype and instruction set.

from libc.stdint cimport int32_t


cdef extern from "sparse/sparse.h":
    enum:
        FC_LIST_SPARE

    ctypedef struct fc_nonzeros_list:
        int32_t* rows
        int32_t* counts
        int32_t* offsets
        void* values

    ctypedef struct fc_weights:
        const void* w
        Py_ssize_t rows
        Py_ssize_t row_step
        Py_ssize_t runs
        Py_ssize_t run_step
        Py_ssize_t n
        const int32_t* tap_offsets

    ctypedef struct fc_row_location:
        Py_ssize_t offset
        Py_ssize_t count

    ctypedef void (*fc_prune_t)(
        const fc_weights* weights, const fc_nonzeros_list* to, const fc_nonzeros_list* space,
    ) noexcept nogil
    ctypedef void (*fc_to_lanes_t)(
        void* to, Py_ssize_t to_pitch, const void* source, Py_ssize_t source_pitch, const Py_ssize_t* at,
        Py_ssize_t rows, Py_ssize_t n,
    ) noexcept nogil
    ctypedef void (*fc_add_rows_t)(
        int height, int width, const void* x, const Py_ssize_t* row_offsets, const fc_nonzeros_list* pruned,
        Py_ssize_t rows, void* sums, Py_ssize_t pitch, Py_ssize_t row_pitch, const void* initial, int add,
    ) noexcept nogil
    ctypedef void (*fc_from_lanes_t)(
        void* to, const fc_row_location* locations, Py_ssize_t step, const void* sums, Py_ssize_t rows,
        Py_ssize_t width, Py_ssize_t next_row,
    ) noexcept nogil

    ctypedef void (*fc_dot_rows_t)(
        int height, int width, const void* x, const Py_ssize_t* row_offsets, const fc_nonzeros_list* pruned,
        Py_ssize_t rows, const void* dout, Py_ssize_t pitch, Py_ssize_t row_pitch, const void* mask,
    ) noexcept nogil
    ctypedef int (*fc_gradient_to_lanes_t)(
        void* to, void* mask, const void* source, const fc_row_location* locations, Py_ssize_t rows, Py_ssize_t width,
    ) noexcept nogil
    ctypedef void (*fc_clear_t)(const void* w, void* dw, Py_ssize_t n) noexcept nogil

    ctypedef struct fc_sparse_kernels:
        fc_prune_t prune
        fc_to_lanes_t to_lanes
        fc_add_rows_t add_rows
        fc_from_lanes_t from_lanes
        fc_dot_rows_t dot_rows
        fc_gradient_to_lanes_t gradient_to_lanes
        fc_clear_t clear

    const fc_sparse_kernels* fc_sparse_for(int dtype, int isa) noexcept nogil
    void fc_prefetch_rows(const char* source, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t nbytes) noexcept nogil
    int fc_isa_lanes(int dtype, int isa) noexcept nogil
    int fc_sparse_sums(int isa, int dots) noexcept nogil
