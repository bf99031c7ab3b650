# The C kernels of pooling by rows (see pool.h), and the division of an array into blocks of rows.

from libc.stdint cimport int32_t

from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.pool.lists cimport numbers


cdef extern from "pool/pool.h" nogil:
    enum:
        FC_POOL_MAX
        FC_POOL_MAX_OR_NAN
        FC_POOL_MEAN
        FC_POOL_NORM
        FC_SLACK

    ctypedef struct fc_pool:
        Py_ssize_t[3] size
        Py_ssize_t[3] k
        Py_ssize_t[3] stride
        Py_ssize_t[3] lo
        Py_ssize_t[3] dilation
        Py_ssize_t[3] out
        Py_ssize_t pitch
        Py_ssize_t rows
        numbers[2] tap_begin
        numbers[2] tap_end
        Py_ssize_t n_phases
        Py_ssize_t phase_pitch
        Py_ssize_t phase_width
        numbers phase_column
        numbers phase_begin
        numbers phase_end
        numbers tap_offset
        numbers tap_distance
        numbers first_inside
        numbers[3] count
        Py_ssize_t first_inside_at
        Py_ssize_t count_at
        Py_ssize_t tap_distance_at
        Py_ssize_t left
        Py_ssize_t right
        numbers offset_end
        numbers offset
        numbers[2] readers_end
        numbers[2] readers

    ctypedef void (*fc_pool_fill_tables_t)(const fc_pool* g, int op, void* workspace) noexcept nogil
    ctypedef int (*fc_pool_load_t)(
        const fc_pool* g, int op, void* space, const void* plane, const void* plane_end,
        Py_ssize_t od, Py_ssize_t begin, Py_ssize_t end,
    ) noexcept nogil
    ctypedef void (*fc_pool_forward_t)(
        const fc_pool* g, int op, const void* space, const void* workspace, void* out, int32_t* indices,
        const void* out_end, Py_ssize_t od, Py_ssize_t begin, Py_ssize_t end,
    ) noexcept nogil
    ctypedef void (*fc_pool_load_gradient_t)(
        const fc_pool* g, void* space, const void* workspace, const void* dout, const void* dout_end,
        const void* norm, Py_ssize_t id_, Py_ssize_t begin, Py_ssize_t end,
    ) noexcept nogil
    ctypedef void (*fc_pool_gather_t)(
        const fc_pool* g, const void* space, const void* x, const void* x_end, void* dx, const void* dx_end,
        Py_ssize_t id_, Py_ssize_t begin, Py_ssize_t end,
    ) noexcept nogil

    ctypedef void (*fc_pool_2x2_forward_t)(
        const void* x, const void* x_end, Py_ssize_t width, Py_ssize_t cell, void* out, int32_t* indices,
        const void* out_end, Py_ssize_t rows,
    ) noexcept nogil
    ctypedef int (*fc_pool_2x2_backward_t)(
        const void* dout, const void* dout_end, const int32_t* indices, Py_ssize_t width, Py_ssize_t cell,
        void* dx, const void* dx_end, Py_ssize_t rows,
    ) noexcept nogil
    ctypedef void (*fc_pool_2x2_sum_t)(
        const void* x, const void* x_end, Py_ssize_t width, void* out, const void* out_end, Py_ssize_t rows,
    ) noexcept nogil
    ctypedef void (*fc_pool_2x2_sum_backward_t)(
        const void* dout, const void* dout_end, const void* norm, Py_ssize_t width, const void* x, const void* x_end,
        void* dx, const void* dx_end, Py_ssize_t rows,
    ) noexcept nogil

    ctypedef struct fc_pool_kernels:
        fc_pool_fill_tables_t fill_tables
        fc_pool_load_t load
        fc_pool_forward_t forward
        fc_pool_load_gradient_t load_gradient
        fc_pool_gather_t gather
        fc_pool_2x2_forward_t forward_2x2
        fc_pool_2x2_backward_t backward_2x2
        fc_pool_2x2_sum_t mean_2x2
        fc_pool_2x2_sum_t norm_2x2
        fc_pool_2x2_sum_backward_t mean_backward_2x2
        fc_pool_2x2_sum_backward_t norm_backward_2x2

    const fc_pool_kernels* fc_pool_for(int dtype, int isa)


# An array (planes, D, H, W) that is divided into blocks. A block has `rows` rows of one plane, at one index along D.
cdef struct Blocks:
    Py_ssize_t planes
    Py_ssize_t D
    Py_ssize_t H
    Py_ssize_t W
    Py_ssize_t rows   # the number of rows of a block; the last block at an index along D may have fewer


# The rows [begin, end) of a plane, at one index `depth` along D. `at` is the index, in the array, of the first element
# of the block.
cdef struct RowBlock:
    Py_ssize_t plane
    Py_ssize_t depth
    Py_ssize_t begin
    Py_ssize_t end
    Py_ssize_t at


cdef inline RowBlock row_block_at(Py_ssize_t i, const Blocks* blocks) noexcept nogil:
    cdef RowBlock here
    cdef Py_ssize_t count = ceil_div(blocks.H, blocks.rows)
    cdef Py_ssize_t above = i // count
    here.begin = (i - above * count) * blocks.rows
    here.end = min(here.begin + blocks.rows, blocks.H)
    here.at = (above * blocks.H + here.begin) * blocks.W
    here.plane = above // blocks.D
    here.depth = above - here.plane * blocks.D
    return here


cdef inline Py_ssize_t count_row_blocks(const Blocks* blocks) noexcept nogil:
    return blocks.planes * blocks.D * ceil_div(blocks.H, blocks.rows)
