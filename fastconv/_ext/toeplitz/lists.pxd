# Lists of the entries of matrix rows, and the memory in which a thread makes them.

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport fc_work_queue
from fastconv._ext.toeplitz.matrix cimport (
    FC_CHUNK, Matrix, Segment, fc_group, fc_list_tap_lines, fc_node, fc_nonzero, fc_nonzeros, fc_order_nonzeros, fc_row,
    fc_tap_line, row_of, weights_of,
)


cdef enum:
    ALIGNMENT = 64      # the alignment of the parts of a thread's memory, in bytes
    LISTS = 64          # the largest number of lists that a thread makes at a time
    CAPACITY = 2048     # the largest total number of entries of LISTS lists, unless a single list has more


# The state of a thread that makes lists.
cdef struct Maker:
    char* values
    char* columns
    Py_ssize_t[LISTS] at    # the offset of each list in `values` and `columns`
    Py_ssize_t[LISTS] n     # the number of entries of each list
    Py_ssize_t row          # the row of weights whose nonzero weights are in `nonzeros`, or -1 if there is none
    bint few                # whether few weights of the current row are nonzero
    const Segment* d        # `d` and `h`: the segments of the list in `nonzeros`, or NULL if there is no list
    const Segment* h
    fc_nonzeros nonzeros
    Py_ssize_t visits
    Py_ssize_t nbytes       # the size of the thread's memory, in bytes


cdef inline void begin_line(
    const Matrix* m, const Segment* d, const Segment* h, Maker* maker, const fc_row* r
) noexcept nogil:
    """List the nonzero weights for the segments d and h, unless the previous call had the same segments. All segments
    of the last axis use this list.
    """
    if maker.d != d or maker.h != h:
        maker.d, maker.h = d, h
        if m.mirrored:
            fc_order_nonzeros(&maker.nonzeros, r, m.itemsize)
        else:
            fc_list_tap_lines(&maker.nonzeros, r)


cdef inline Py_ssize_t list_row(
    const Matrix* m, Py_ssize_t row, const Segment* d, const Segment* h, const Segment* w, Maker* maker
) noexcept nogil:
    """Make the list for the segments d, h and w of row `row` of the weights. Return the number of entries of the list.

    `begin_row` must have been called for the same row.
    """
    cdef fc_row r
    if d.begin == d.end or h.begin == h.end or w.begin == w.end:
        return 0
    r = row_of(m, d, h, w)
    if maker.few:
        begin_line(m, d, h, maker, &r)
        return m.list_nonzeros(&maker.nonzeros, &r, maker.values, maker.columns)
    maker.visits += m.cols * r.axis[0].n * r.axis[1].n * r.axis[2].n
    return m.list(m.weights + weights_of(m, row) * m.itemsize, &r, maker.values, maker.columns)


cdef inline void begin_row(const Matrix* m, Py_ssize_t row, bint few, Maker* maker) noexcept nogil:
    """Prepare `maker` for the lists of a row of weights. If `few` is set, build the tree of the nonzero weights, unless
    `maker` has the tree already.
    """
    maker.few = few
    if few and maker.row != row:
        maker.row, maker.d = row, NULL
        m.build_tree(m.weights + weights_of(m, row) * m.itemsize, &m.weight, &maker.nonzeros)


# The arguments of a call, which all of its threads read.
cdef struct Task:
    Matrix m
    Py_ssize_t* counts      # the number of entries of a matrix row, for each row of weights and triple of segments
    Py_ssize_t* starts      # the index, in the matrix, of the first entry of each row of weights
    void* indptr
    char* indices
    char* data
    const Py_ssize_t* numbers   # the number of nonzero weights of each row of weights
    Py_ssize_t share        # a row has few nonzero weights if less than 1 / share of its weights are nonzero
    Py_ssize_t longest      # the largest number of entries of a list
    Py_ssize_t capacity     # the largest number of entries of the lists that a thread has at a time
    Py_ssize_t most         # the largest number of nonzero weights among the rows with few nonzero weights
    char* space             # the memory of all threads: see maker_of
    Py_ssize_t space_pitch  # the size of the memory of a thread, in bytes
    Py_ssize_t workspaces
    Py_ssize_t parts        # the number of work items into which the positions of a row of weights are divided
    bint wide
    fc_work_queue* queue


cdef inline int give_space(
    Task* t, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, space
) except -1:
    cdef Buffer workspace = contiguous_buffer(space, 1, True)
    t.numbers, t.share, t.longest, t.most = index_pointer(numbers), share, longest, most
    t.capacity = capacity_for(longest)
    t.space, t.workspaces = <char*> workspace.at, space.shape[0]
    t.space_pitch = workspace.n // t.workspaces
    return 0


cdef inline Py_ssize_t maker_of(
    Maker* maker, char* space, Py_ssize_t itemsize, Py_ssize_t longest, Py_ssize_t most, Py_ssize_t cols
) noexcept nogil:
    """Divide the memory of a thread into arrays, and return the number of bytes. The memory holds the number of weights
    that the thread has read, the values and columns of lists, the tree of nonzero weights, and a workspace for sorting.
    """
    cdef Py_ssize_t at = ALIGNMENT, level
    maker.d = maker.h = NULL
    maker.row, maker.few, maker.visits, maker.nonzeros.visits = -1, False, 0, 0
    maker.values, at = space + at, at + align_up((capacity_for(longest) + FC_CHUNK) * itemsize)
    maker.columns, at = space + at, at + align_up((capacity_for(longest) + FC_CHUNK) * 8)
    for level in range(3):
        maker.nonzeros.level[level] = <fc_node*> (space + at)
        at += align_up((min(most, cols) + 1 if level == 0 else most + 1) * sizeof(fc_node))
    maker.nonzeros.lines, at = <fc_tap_line*> (space + at), at + align_up(most * sizeof(fc_tap_line))
    maker.nonzeros.tap, at = <Py_ssize_t*> (space + at), at + align_up((most + 1) * 8)
    maker.nonzeros.value, at = <void*> (space + at), at + align_up((most + 1) * itemsize)
    maker.nonzeros.sorted, at = <fc_nonzero*> (space + at), at + align_up(most * sizeof(fc_nonzero))
    maker.nonzeros.sort_space, at = <fc_nonzero*> (space + at), at + align_up(most * sizeof(fc_nonzero))
    maker.nonzeros.at, at = <Py_ssize_t*> (space + at), at + align_up(most * 8)
    maker.nonzeros.key, at = <Py_ssize_t*> (space + at), at + align_up(most * 8)
    maker.nonzeros.ordered, at = <void*> (space + at), at + align_up(most * itemsize)
    maker.nonzeros.groups, at = <fc_group*> (space + at), at + align_up(most * sizeof(fc_group))
    maker.nonzeros.spare_columns, at = <Py_ssize_t*> (space + at), at + align_up(most * 8)
    maker.nonzeros.spare_values, at = <void*> (space + at), at + align_up(most * itemsize)
    return at


cdef inline Py_ssize_t capacity_for(Py_ssize_t longest) noexcept nogil:
    return max(longest, min(longest * LISTS, CAPACITY))


cdef inline Py_ssize_t align_up(Py_ssize_t n) noexcept nogil:
    return (n + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


cdef inline Maker begin_lists(const Task* t, Py_ssize_t worker_id) noexcept nogil:
    cdef Maker maker
    maker.nbytes = maker_of(
        &maker, t.space + worker_id * t.space_pitch, t.m.itemsize, t.longest, t.most, t.m.cols
    )
    fc_check(worker_id < t.workspaces)
    fc_check(maker.nbytes <= t.space_pitch)
    return maker


cdef inline void end_lists(const Task* t, Py_ssize_t worker_id, const Maker* maker) noexcept nogil:
    (<Py_ssize_t*> (t.space + worker_id * t.space_pitch))[0] += maker.visits + maker.nonzeros.visits


cdef inline bint is_few(const Task* t, Py_ssize_t row) noexcept nogil:
    return t.share * t.numbers[row] < t.m.cols * t.m.d.n_keys * t.m.h.n_keys * t.m.w.n_keys
