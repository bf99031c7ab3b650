# The C kernels of pooling by rows, and the table that they read: see pool.h and fastconv.layers.pool.tables.

from libc.stdint cimport int32_t


ctypedef const Py_ssize_t* numbers


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
        numbers[2] tap_ranges
        Py_ssize_t n_phases
        Py_ssize_t phase_pitch
        Py_ssize_t phase_width
        numbers phase
        numbers tap_offset
        numbers tap_distance
        numbers first_inside
        numbers[3] count
        Py_ssize_t left
        Py_ssize_t right
        numbers tap_end
        numbers offset
        numbers[2] readers_end
        numbers[2] readers

    ctypedef void (*fc_pool_fill_tables_t)(const fc_pool* g, int op, void* tables) noexcept nogil
    ctypedef int (*fc_pool_load_t)(
        const fc_pool* g, int op, void* space, const void* plane, const void* plane_end,
        Py_ssize_t od, Py_ssize_t begin, Py_ssize_t end,
    ) noexcept nogil
    ctypedef void (*fc_pool_forward_t)(
        const fc_pool* g, int op, const void* space, const void* tables, void* out, int32_t* indices,
        const void* out_end, Py_ssize_t od, Py_ssize_t begin, Py_ssize_t end,
    ) noexcept nogil
    ctypedef void (*fc_pool_load_gradient_t)(
        const fc_pool* g, void* space, const void* tables, const void* dout, const void* dout_end, const void* norm,
        Py_ssize_t id_, Py_ssize_t begin, Py_ssize_t end,
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


# A block of rows [begin, end) of a plane, at one index `depth` along D. `at` is the index, in the array, of the first
# element of the block.
cdef struct RowBlock:
    Py_ssize_t plane
    Py_ssize_t depth
    Py_ssize_t begin
    Py_ssize_t end
    Py_ssize_t at


# The plan of a pooling by blocks of rows. All sizes are in elements.
cdef struct Plan:
    fc_pool pool
    Py_ssize_t block_rows
    Py_ssize_t batch      # the number of blocks that are in the workspace at a time
    Py_ssize_t block      # the size of one block in the workspace
    Py_ssize_t tables      # the size of the tables at the start of the workspace; the blocks follow the tables
    Py_ssize_t cells      # the number of elements of a plane of the input
    Py_ssize_t outputs    # the number of elements of a plane of the output


cdef inline Plan read_plan(const Py_ssize_t* table) noexcept nogil:
    """Read a plan from `table`: the sizes of the axes, then the fields of fastconv.layers.pool.tables.HEADER."""
    cdef Plan plan
    cdef const Py_ssize_t* header = table + 18
    cdef fc_pool* g = &plan.pool
    cdef int i
    for i in range(3):
        g.size[i], g.k[i], g.stride[i] = table[i], table[3 + i], table[6 + i]
        g.lo[i], g.dilation[i], g.out[i] = table[9 + i], table[12 + i], table[15 + i]
        g.count[i] = table + header[15 + i]
    plan.block_rows = header[0]
    g.pitch, g.rows, g.n_phases, g.phase_pitch, g.phase_width = header[2], header[3], header[4], header[5], header[6]
    g.left, g.right = header[7], header[8]
    g.tap_ranges[0], g.tap_ranges[1] = table + header[9], table + header[10]
    g.phase, g.tap_offset = table + header[11], table + header[12]
    g.tap_distance, g.first_inside = table + header[13], table + header[14]
    g.tap_end, g.offset = table + header[18], table + header[19]
    g.readers_end[0], g.readers_end[1] = table + header[20], table + header[21]
    g.readers[0], g.readers[1] = table + header[22], table + header[23]
    plan.tables, plan.block, plan.batch = header[24], header[25], header[26]
    plan.cells = g.size[0] * g.size[1] * g.size[2]
    plan.outputs = g.out[0] * g.out[1] * g.out[2]
    return plan


cdef inline RowBlock row_block_at(Py_ssize_t i, const Plan* plan, const Py_ssize_t* sizes) noexcept nogil:
    """Return block i of an array. `sizes` has the depth, the height and the width of the array."""
    cdef RowBlock here
    cdef Py_ssize_t blocks = (sizes[1] - 1) // plan.block_rows + 1
    cdef Py_ssize_t above = i // blocks
    here.begin = (i - above * blocks) * plan.block_rows
    here.end = min(here.begin + plan.block_rows, sizes[1])
    here.at = (above * sizes[1] + here.begin) * sizes[2]
    here.plane = above // sizes[0]
    here.depth = above - here.plane * sizes[0]
    return here


cdef inline Py_ssize_t count_row_blocks(Py_ssize_t planes, const Plan* plan, const Py_ssize_t* sizes) noexcept nogil:
    return planes * sizes[0] * ((sizes[1] - 1) // plan.block_rows + 1)
