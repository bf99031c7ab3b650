# The C kernels of matrix products, for each dtype and instruction set. The module microkernel is linked with them, and
# other modules get them from its function `microkernel_for`.

cdef extern from "gemm/microkernel.h":
    int FC_MASKED_ROW_MAX_K
    int FC_MASKED_TILE_ROWS

    ctypedef struct fc_run:
        Py_ssize_t at      # the offset of the run in its array, in elements
        Py_ssize_t lane    # the first lane of the run
        Py_ssize_t n       # the number of lanes of the run

    ctypedef void (*fc_shape_t)(int* rows, int* vectors, int* lanes) noexcept nogil
    ctypedef void (*fc_tile_t)(
        int rows, int vectors, Py_ssize_t k, const void* a, Py_ssize_t step, const void* b,
        const Py_ssize_t* at, void* c, Py_ssize_t pitch, const void* bias, int add,
    ) noexcept nogil
    ctypedef void (*fc_row_masked_t)(
        int k, const void* a, Py_ssize_t stride, const void* b, void* c, const void* mask, Py_ssize_t n,
    ) noexcept nogil
    ctypedef void (*fc_interleave_t)(
        void* to, Py_ssize_t width, const void* source, const Py_ssize_t* at, Py_ssize_t rows, Py_ssize_t n,
    ) noexcept nogil
    ctypedef void (*fc_gather_t)(
        void* to, Py_ssize_t width, const void* source, const Py_ssize_t* at, Py_ssize_t k,
        const fc_run* runs, Py_ssize_t count, int spare,
    ) noexcept nogil
    ctypedef void (*fc_scatter_t)(
        void* to, Py_ssize_t pitch, Py_ssize_t step, const void* source, Py_ssize_t width,
        Py_ssize_t rows, const fc_run* runs, Py_ssize_t count, int add,
    ) noexcept nogil

    ctypedef void (*fc_copy_rows_t)(
        void* to, Py_ssize_t pitch, const void* source, Py_ssize_t source_pitch, Py_ssize_t rows, Py_ssize_t n,
        Py_ssize_t stride,
    ) noexcept nogil

    # For the masked kernels, the argument `bias` is a mask with the shape of the result. These kernels set the result
    # to 0 where the mask is 0.
    ctypedef struct fc_microkernel_kernels:
        fc_shape_t shape
        fc_tile_t tile_listed
        fc_tile_t tile
        fc_tile_t tile_masked_listed
        fc_tile_t tile_masked
        fc_row_masked_t row_masked
        fc_tile_t tile_strided
        fc_tile_t tile_rows_listed
        fc_tile_t tile_rows
        fc_interleave_t interleave
        fc_gather_t gather
        fc_scatter_t scatter
        fc_copy_rows_t copy_rows


cdef enum:
    MOST_LANES = 64   # The largest number of lanes of a row of a tile in any instruction set.


# Return the kernels of one dtype and instruction set.
cdef const fc_microkernel_kernels* microkernel_for(int dtype, int isa) noexcept nogil


# The kernels of one dtype and instruction set, except the kernels that multiply tiles. Modules get the kernels that
# multiply tiles from `microkernel_for`.
cdef struct Kernels:
    int rows       # the largest number of rows of a tile
    int vectors    # the largest number of vectors of a row of a tile
    int lanes      # the number of elements of a vector
    fc_interleave_t interleave
    fc_gather_t gather
    fc_scatter_t scatter
    fc_copy_rows_t copy_rows


cdef inline Kernels kernels(int dtype, int isa) noexcept nogil:
    cdef Kernels k
    cdef const fc_microkernel_kernels* table = microkernel_for(dtype, isa)
    table.shape(&k.rows, &k.vectors, &k.lanes)
    k.interleave, k.gather = table.interleave, table.gather
    k.scatter, k.copy_rows = table.scatter, table.copy_rows
    return k


# Return the number of vectors of the next tile. `left` vectors are divided into tiles of at most `most` vectors, and
# all tiles have about the same size.
cdef inline int next_vectors(Py_ssize_t left, int most) noexcept nogil:
    cdef Py_ssize_t tiles = (left + most - 1) // most
    return <int> ((left + tiles - 1) // tiles)
