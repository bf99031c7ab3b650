# The sparse matrix of a convolution: the tables that describe it, its weights, and the C kernels that list its entries.
# toeplitz.h explains segments, keys, lists and mirrored positions.

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.buffers.arrays cimport Buffer
from fastconv._ext.buffers.runs cimport fc_check


cdef extern from "toeplitz/toeplitz.h" nogil:
    enum:
        FC_CHUNK

    ctypedef struct fc_span:
        const Py_ssize_t* entry
        const Py_ssize_t* lists
        Py_ssize_t n
        Py_ssize_t index_pitch
        Py_ssize_t weight_pitch
        const Py_ssize_t* element_of_key
        Py_ssize_t first_key
        Py_ssize_t keys

    ctypedef struct fc_node:
        Py_ssize_t key
        Py_ssize_t first

    ctypedef struct fc_tap_line:
        pass

    ctypedef struct fc_nonzero:
        pass

    ctypedef struct fc_group:
        pass

    ctypedef struct Segment "fc_segment":
        Py_ssize_t start
        Py_ssize_t step
        Py_ssize_t count
        Py_ssize_t begin
        Py_ssize_t end
        Py_ssize_t base
        Py_ssize_t base_step
        Py_ssize_t key

    ctypedef struct fc_nonzeros:
        fc_node* level[3]
        Py_ssize_t* tap
        void* value
        Py_ssize_t channels
        fc_tap_line* lines
        fc_nonzero* sorted
        fc_nonzero* sort_space
        Py_ssize_t* at
        Py_ssize_t* key
        void* ordered
        fc_group* groups
        Py_ssize_t n_sorted
        Py_ssize_t n_groups
        Py_ssize_t n_grouped
        Py_ssize_t* spare_columns
        void* spare_values
        Py_ssize_t visits

    ctypedef struct fc_weights:
        const Py_ssize_t* key[3]
        Py_ssize_t keys[3]
        Py_ssize_t pitch[3]
        Py_ssize_t taps
        Py_ssize_t cols
        Py_ssize_t col_step

    ctypedef struct fc_row:
        fc_span[3] axis
        Py_ssize_t cols
        Py_ssize_t index_step
        Py_ssize_t weight_step

    ctypedef Py_ssize_t (*fc_list_t)(const void* w, const fc_row* row, void* values, void* columns) noexcept nogil
    ctypedef Py_ssize_t (*fc_list_nonzeros_t)(
        fc_nonzeros* nonzeros, const fc_row* row, void* values, void* columns
    ) noexcept nogil
    ctypedef void (*fc_write_mirrored_rows_t)(
        fc_nonzeros* nonzeros, const fc_row* row, const Segment* segment, Py_ssize_t segments,
        const Py_ssize_t* element_of_key, const void* indptr, Py_ssize_t first, void* data, void* indices,
        void* values, void* columns,
    ) noexcept nogil
    void fc_list_tap_lines(fc_nonzeros* nonzeros, const fc_row* row)
    void fc_order_nonzeros(fc_nonzeros* nonzeros, const fc_row* row, Py_ssize_t itemsize)
    Py_ssize_t fc_count_elements(fc_nonzeros* nonzeros, const fc_span* span)
    ctypedef Py_ssize_t (*fc_count_nonzeros_t)(const void* w, const fc_weights* weights) noexcept nogil
    ctypedef void (*fc_build_tree_t)(const void* w, const fc_weights* weights, fc_nonzeros* nonzeros) noexcept nogil
    ctypedef void (*fc_repeat_t)(
        const void* values, const void* columns, Py_ssize_t n, void* data, void* indices,
        Py_ssize_t rows, Py_ssize_t first, Py_ssize_t step,
    ) noexcept nogil

    ctypedef struct fc_toeplitz_kernels:
        fc_list_t list_i32
        fc_list_t list_i64
        fc_list_nonzeros_t list_nonzeros_i32
        fc_list_nonzeros_t list_nonzeros_i64
        fc_list_nonzeros_t list_ordered_i32
        fc_list_nonzeros_t list_ordered_i64
        fc_write_mirrored_rows_t write_mirrored_rows_i32
        fc_write_mirrored_rows_t write_mirrored_rows_i64
        fc_count_nonzeros_t count_nonzeros
        fc_build_tree_t build_tree
        fc_repeat_t repeat_i32
        fc_repeat_t repeat_i64

    const fc_toeplitz_kernels* fc_toeplitz_for(int dtype)


cdef struct Axis:
    Py_ssize_t positions
    Py_ssize_t limit
    Py_ssize_t segments
    Py_ssize_t n_keys
    const Segment* segment
    const Py_ssize_t* entry
    const Py_ssize_t* lists
    const Py_ssize_t* element_of_key
    const Py_ssize_t* keys


cdef struct Matrix:
    Axis d
    Axis h
    Axis w
    Py_ssize_t rows         # the number of rows of weights in a group
    Py_ssize_t cols
    Py_ssize_t group_step   # the distance between the weights of two groups, in elements
    Py_ssize_t row_step
    Py_ssize_t col_step
    Py_ssize_t pitch_d
    Py_ssize_t pitch_h
    Py_ssize_t taps
    Py_ssize_t plane        # the number of matrix rows for each row of weights
    Py_ssize_t cells
    Py_ssize_t total        # the number of rows of weights
    Py_ssize_t itemsize
    const char* weights
    Py_ssize_t n_weights
    fc_weights weight       # the layout of a row of weights
    fc_list_t list
    fc_list_nonzeros_t list_nonzeros
    fc_write_mirrored_rows_t write_mirrored_rows
    bint mirrored           # whether any axis has mirrored positions
    fc_build_tree_t build_tree
    fc_repeat_t repeat


cdef inline void begin_matrix(Matrix* m) noexcept nogil:
    """Compute the fields of `m` that follow from its axes and from the layout of the weights."""
    m.plane = m.d.positions * m.h.positions * m.w.positions
    m.cells = m.d.limit * m.h.limit * m.w.limit
    m.mirrored = m.d.element_of_key != m.d.keys or m.h.element_of_key != m.h.keys or m.w.element_of_key != m.w.keys
    m.weight.key[0], m.weight.key[1], m.weight.key[2] = m.d.keys, m.h.keys, m.w.keys
    m.weight.keys[0], m.weight.keys[1], m.weight.keys[2] = m.d.n_keys, m.h.n_keys, m.w.n_keys
    m.weight.pitch[0], m.weight.pitch[1], m.weight.pitch[2] = m.pitch_d, m.pitch_h, 1
    m.weight.taps, m.weight.cols, m.weight.col_step = m.taps, m.cols, m.col_step


cdef inline void give_weights(Matrix* m, Buffer weights, int dtype, bint wide) noexcept nogil:
    m.itemsize = 8 if dtype else 4
    m.weights, m.n_weights = <const char*> weights.at, weights.n
    cdef const fc_toeplitz_kernels* k = fc_toeplitz_for(dtype)
    m.list = k.list_i64 if wide else k.list_i32
    if m.mirrored:
        m.list_nonzeros = k.list_ordered_i64 if wide else k.list_ordered_i32
    else:
        m.list_nonzeros = k.list_nonzeros_i64 if wide else k.list_nonzeros_i32
    m.write_mirrored_rows = k.write_mirrored_rows_i64 if wide else k.write_mirrored_rows_i32
    m.build_tree = k.build_tree
    m.repeat = k.repeat_i64 if wide else k.repeat_i32


cdef inline fc_span span_of(const Axis* axis, const Segment* s, Py_ssize_t index, Py_ssize_t weight) noexcept nogil:
    cdef fc_span span
    span.entry, span.lists, span.n = axis.entry + 2 * s.begin, axis.lists, s.end - s.begin
    span.index_pitch, span.weight_pitch = index, weight
    span.element_of_key = axis.element_of_key + ~s.key if s.key < 0 else NULL
    span.first_key = s.key
    span.keys = axis.n_keys
    return span


cdef inline Py_ssize_t weights_of(const Matrix* m, Py_ssize_t row) noexcept nogil:
    """Return the offset of the first weight of a row of weights."""
    cdef Py_ssize_t at = row // m.rows * m.group_step + row % m.rows * m.row_step
    fc_check(at + (m.cols - 1) * m.col_step + m.taps <= m.n_weights)
    return at


cdef inline fc_row row_of(const Matrix* m, const Segment* d, const Segment* h, const Segment* w) noexcept nogil:
    """Return the entries of the matrix rows of the segments d, h and w."""
    cdef fc_row r
    r.axis[0] = span_of(&m.d, d, m.h.limit * m.w.limit, m.pitch_d)
    r.axis[1] = span_of(&m.h, h, m.w.limit, m.pitch_h)
    r.axis[2] = span_of(&m.w, w, 1, 1)
    r.cols, r.index_step, r.weight_step = m.cols, m.cells, m.col_step
    return r
