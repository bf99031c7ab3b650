"""Convolution as a sparse matrix in CSR format: counting entries, filling rows, and products.

A row of weights is the weights of one filter or, for the transposed matrix, of one channel. The matrix has a row for
each row of weights and each position. toeplitz.h explains segments, keys, lists and mirrored positions. A line is the
positions along the last axis, for one position along each other axis. `table` describes three axes: see
fastconv.convolution.toeplitz.pattern. `sizes` comes from fastconv.convolution.toeplitz.csr. `queue` is the shared state
of the call, which distributes the work among threads: see team.h. Indices have 64 bits if `wide` is set, else 32.
`dtype` is 0 (float32) or 1 (float64).
"""

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.runs cimport fc_check
from fastconv._ext.team cimport fc_new_worker, fc_next_chunk, fc_parallel_for, fc_work_queue, fc_worker, work_queue


cdef extern from "toeplitz.h" nogil:
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

    ctypedef struct fc_spmm:
        const void* data
        const void* indices
        const void* indptr
        const void* x
        void* y
        Py_ssize_t width
        Py_ssize_t x_pitch
        Py_ssize_t y_pitch

    ctypedef struct fc_contraction:
        const int64_t* columns
        const int64_t* slots
        Py_ssize_t n
        const void* x
        const void* dy
        Py_ssize_t width
        Py_ssize_t x_step
        Py_ssize_t dy_step
        Py_ssize_t count
        void* sums

    ctypedef void (*fc_contract_t)(const fc_contraction* contraction) noexcept nogil
    ctypedef void (*fc_collect_t)(void* sums, double* totals, Py_ssize_t slots) noexcept nogil
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
    ctypedef void (*fc_spmm_t)(const fc_spmm* product, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

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
        fc_spmm_t spmm_i32
        fc_spmm_t spmm_i64
        fc_contract_t contract
        fc_collect_t collect

    const fc_toeplitz_kernels* fc_toeplitz_for(int dtype, int isa)


ctypedef fused number:
    int32_t
    int64_t


cdef enum:
    HEADER = 9          # the number of integers for each axis at the start of a table
    SEGMENT = 8         # the number of integers of a segment
    LINE = 64           # the alignment of the parts of a thread's memory, in bytes
    LISTS = 64          # the largest number of lists that a thread makes at a time
    ROOM = 2048         # the largest number of entries of these lists together, unless one list has more
    # If a row has at most this number of nonzero weights, matrix rows are written directly, because copying a shared
    # list takes longer.
    SHORT = 16


HEADER_SIZE = HEADER


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
    bint mirrored           # whether an axis has mirrored positions
    fc_build_tree_t build_tree
    fc_repeat_t repeat


# The state of a thread that makes lists.
cdef struct Maker:
    char* values
    char* columns
    Py_ssize_t[LISTS] at    # the offset of each list in `values` and `columns`
    Py_ssize_t[LISTS] n     # the number of entries of each list
    Py_ssize_t row          # the row of weights that `nonzeros` describes, or -1
    bint few                # whether few weights of the current row are nonzero
    const Segment* d        # the segments for which `nonzeros` has tap lines or sorted weights, or NULL
    const Segment* h
    fc_nonzeros nonzeros
    Py_ssize_t visits
    Py_ssize_t nbytes       # the size of the thread's memory, in bytes


cdef Axis read_axis(const Py_ssize_t* table, Py_ssize_t i) noexcept nogil:
    cdef Axis axis
    cdef const Py_ssize_t* at = table + i * HEADER
    axis.positions, axis.limit, axis.segments, axis.n_keys = at[0], at[1], at[2], at[3]
    axis.segment, axis.entry, axis.lists = <const Segment*> (table + at[4]), table + at[5], table + at[6]
    axis.element_of_key, axis.keys = table + at[7], table + at[8]
    return axis


cdef Matrix read_matrix(const Py_ssize_t* table, const Py_ssize_t* sizes) noexcept nogil:
    cdef Matrix m
    m.d, m.h, m.w = read_axis(table, 0), read_axis(table, 1), read_axis(table, 2)
    m.rows, m.cols = sizes[1], sizes[2]
    m.group_step, m.row_step, m.col_step = sizes[3], sizes[4], sizes[5]
    m.pitch_d, m.pitch_h, m.taps = sizes[6], sizes[7], sizes[8]
    m.plane = m.d.positions * m.h.positions * m.w.positions
    m.cells = m.d.limit * m.h.limit * m.w.limit
    m.total = sizes[0] * m.rows
    m.mirrored = m.d.element_of_key != m.d.keys or m.h.element_of_key != m.h.keys or m.w.element_of_key != m.w.keys
    m.weight.key[0], m.weight.key[1], m.weight.key[2] = m.d.keys, m.h.keys, m.w.keys
    m.weight.keys[0], m.weight.keys[1], m.weight.keys[2] = m.d.n_keys, m.h.n_keys, m.w.n_keys
    m.weight.pitch[0], m.weight.pitch[1], m.weight.pitch[2] = m.pitch_d, m.pitch_h, 1
    m.weight.taps, m.weight.cols, m.weight.col_step = m.taps, m.cols, m.col_step
    return m


cdef inline void give_weights(Matrix* m, Buffer weights, int dtype, bint wide, int isa) noexcept nogil:
    m.itemsize = 8 if dtype else 4
    m.weights, m.n_weights = <const char*> weights.at, weights.n
    cdef const fc_toeplitz_kernels* k = fc_toeplitz_for(dtype, isa)
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
    span.first_key, span.keys = s.key, axis.n_keys
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


cdef Py_ssize_t list_row(
    const Matrix* m, Py_ssize_t row, const Segment* d, const Segment* h, const Segment* w, Maker* maker
) noexcept nogil:
    """Make the list for the segments d, h and w and row of weights `row`, and return its number of entries.

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


cdef void begin_row(const Matrix* m, Py_ssize_t row, bint few, Maker* maker) noexcept nogil:
    """Prepare `maker` for the lists of a row of weights. If `few` is set, this builds the tree of the nonzero weights,
    unless `maker` has the tree already.
    """
    maker.few = few
    if few and maker.row != row:
        maker.row, maker.d = row, NULL
        m.build_tree(m.weights + weights_of(m, row) * m.itemsize, &m.weight, &maker.nonzeros)


# The arguments of a call, which all of its threads read.
cdef struct Task:
    Matrix m
    Py_ssize_t* counts      # the number of entries of a matrix row, by row of weights and by segments along d, h and w
    Py_ssize_t* starts      # the index of the first entry of each row of weights
    void* indptr
    char* indices
    char* data
    const Py_ssize_t* numbers   # the number of nonzero weights of each row of weights
    Py_ssize_t share        # a row has few nonzero weights if less than 1 / share of its weights are nonzero
    Py_ssize_t longest      # the largest number of entries of a list
    Py_ssize_t room         # the largest number of entries of the lists that a thread has at a time
    Py_ssize_t most         # the largest number of nonzero weights of a row that has few of them
    char* space             # the memory of all threads: see maker_of
    Py_ssize_t space_pitch  # the size of the memory of a thread, in bytes
    Py_ssize_t workspaces
    Py_ssize_t pieces       # the number of parts into which the lines of a row of weights are divided
    bint wide
    fc_work_queue* queue


cdef Task read_task(table, sizes, w, int dtype, bint wide, int isa, queue) except *:
    cdef Task t
    cdef Buffer weights = contiguous_buffer(w, 8 if dtype else 4, False)
    t.m = read_matrix(index_pointer(table), index_pointer(sizes))
    give_weights(&t.m, weights, dtype, wide, isa)
    t.wide, t.queue = wide, work_queue(queue)
    return t


cdef int give_space(
    Task* t, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, space
) except -1:
    cdef Buffer room = contiguous_buffer(space, 1, True)
    t.numbers, t.share, t.longest, t.most = index_pointer(numbers), share, longest, most
    t.room = room_for(longest)
    t.space, t.workspaces = <char*> room.at, space.shape[0]
    t.space_pitch = room.n // t.workspaces
    return 0


cdef Py_ssize_t maker_of(
    Maker* maker, char* space, Py_ssize_t itemsize, Py_ssize_t longest, Py_ssize_t most, Py_ssize_t cols
) noexcept nogil:
    """Divide the memory of a thread into the number of visits, the values and columns of lists, the arrays of the
    nonzero weights, and a workspace for sorting. Returns the number of bytes.
    """
    cdef Py_ssize_t at = LINE, level
    maker.d = maker.h = NULL
    maker.row, maker.few, maker.visits, maker.nonzeros.visits = -1, False, 0, 0
    maker.values, at = space + at, at + line_up((room_for(longest) + FC_CHUNK) * itemsize)
    maker.columns, at = space + at, at + line_up((room_for(longest) + FC_CHUNK) * 8)
    for level in range(3):
        maker.nonzeros.level[level] = <fc_node*> (space + at)
        at += line_up((min(most, cols) + 1 if level == 0 else most + 1) * sizeof(fc_node))
    maker.nonzeros.lines, at = <fc_tap_line*> (space + at), at + line_up(most * sizeof(fc_tap_line))
    maker.nonzeros.tap, at = <Py_ssize_t*> (space + at), at + line_up((most + 1) * 8)
    maker.nonzeros.value, at = <void*> (space + at), at + line_up((most + 1) * itemsize)
    maker.nonzeros.sorted, at = <fc_nonzero*> (space + at), at + line_up(most * sizeof(fc_nonzero))
    maker.nonzeros.sort_space, at = <fc_nonzero*> (space + at), at + line_up(most * sizeof(fc_nonzero))
    maker.nonzeros.at, at = <Py_ssize_t*> (space + at), at + line_up(most * 8)
    maker.nonzeros.key, at = <Py_ssize_t*> (space + at), at + line_up(most * 8)
    maker.nonzeros.ordered, at = <void*> (space + at), at + line_up(most * itemsize)
    maker.nonzeros.groups, at = <fc_group*> (space + at), at + line_up(most * sizeof(fc_group))
    maker.nonzeros.spare_columns, at = <Py_ssize_t*> (space + at), at + line_up(most * 8)
    maker.nonzeros.spare_values, at = <void*> (space + at), at + line_up(most * itemsize)
    return at


cdef inline Py_ssize_t room_for(Py_ssize_t longest) noexcept nogil:
    return max(longest, min(longest * LISTS, ROOM))


cdef inline Py_ssize_t line_up(Py_ssize_t n) noexcept nogil:
    return (n + LINE - 1) // LINE * LINE


def space_of(int dtype, Py_ssize_t longest, Py_ssize_t most, Py_ssize_t cols):
    """Return the bytes of workspace that a thread needs. `longest` is the largest number of entries of a list. `most`
    is the largest number of nonzero weights of a row of weights that is stored as a tree: see toeplitz.h.
    """
    cdef Maker maker
    return maker_of(&maker, NULL, 8 if dtype else 4, longest, most, cols)


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


def merge(cells, order, taps, starts, segments, entries, lists, element_of_key):
    """Group positions into segments, and write segments, entries, lists and element_of_key: see toeplitz/pattern.py.

    `cells` (positions, taps) has the cell that each tap of each position reads, and `order` (positions, taps) sorts the
    cells of each position. `starts` holds the first position, and the numbers of earlier entries, integers in lists,
    and integers in element_of_key. The results have room for one segment for each position. Return the numbers of new
    segments, entries, integers in lists, and integers in element_of_key.
    """
    cdef Py_ssize_t k = taps.shape[0], n = cells.shape[0]
    cdef const Py_ssize_t* first = index_pointer(starts)
    cdef Py_ssize_t[4] made = [0, 0, 0, 0]
    cdef Buffer at = contiguous_buffer(cells, sizeof(Py_ssize_t), False)
    cdef Buffer by = contiguous_buffer(order, sizeof(Py_ssize_t), False)
    cdef Buffer segment = contiguous_buffer(segments, sizeof(Segment), True)
    cdef Buffer entry = contiguous_buffer(entries, sizeof(Py_ssize_t), True)
    cdef Buffer several = contiguous_buffer(lists, sizeof(Py_ssize_t), True)
    cdef Buffer element = contiguous_buffer(element_of_key, sizeof(Py_ssize_t), True)
    cdef const Py_ssize_t* tap = index_pointer(taps)
    with nogil:
        fc_check(at.n == n * k)
        fc_check(by.n == n * k)
        fc_check(segment.n >= n)
        fc_check(entry.n >= 2 * n * k)
        fc_check(several.n >= 3 * n * k // 2)
        fc_check(element.n >= n * k)
        merge_positions(
            n, k, <const Py_ssize_t*> at.at, <const Py_ssize_t*> by.at, tap, first, <Segment*> segment.at,
            <Py_ssize_t*> entry.at, <Py_ssize_t*> several.at, <Py_ssize_t*> element.at, made,
        )
    return made[0], made[1], made[2], made[3]


cdef void merge_positions(
    Py_ssize_t n, Py_ssize_t k, const Py_ssize_t* at, const Py_ssize_t* by, const Py_ssize_t* tap,
    const Py_ssize_t* first, Segment* segment, Py_ssize_t* entry, Py_ssize_t* lists, Py_ssize_t* element_of_key,
    Py_ssize_t* made,
) noexcept nogil:
    cdef Py_ssize_t p, i, j, a, base, before = 0, entries = 0, n_lists = 0, n_elements = 0
    cdef Segment* s = segment - 1
    cdef bint alike
    for p in range(n):
        base, alike = at[by[0]], p > 0
        if alike:
            for i in range(k):
                alike = alike & (by[i] == by[i - k]) & (at[i] - base == at[i - k] - before)
        # A segment has a constant shift from position to position.
        if alike and (s.count == 1 or s.base_step == base - before):
            s.count += 1
            s.base_step = base - before
        else:
            s = s + 1
            s.start, s.step, s.count, s.base, s.base_step = first[0] + p, 1, 1, base, 0
            s.begin, s.key = first[1] + entries, ~(first[3] + n_elements)
            i = 0
            while i < k:
                a = at[by[i]]
                j = i + 1
                while j < k and at[by[j]] == a:
                    j += 1
                entry[0] = a - base
                if j == i + 1:
                    entry[1] = tap[by[i]]
                else:
                    # A list is the number of taps, followed by the taps.
                    entry[1] = ~(first[2] + n_lists)
                    lists[n_lists] = j - i
                    n_lists += 1
                    for a in range(i, j):
                        lists[n_lists] = tap[by[a]]
                        n_lists += 1
                i = j
                entry, entries = entry + 2, entries + 1
            s.end = first[1] + entries
            for i in range(k):
                element_of_key[n_elements + i] = at[i] - base
            n_elements += k
        at, by, before = at + k, by + k, base
    made[0], made[1], made[2], made[3] = s + 1 - segment, entries, n_lists, n_elements


cdef inline bint is_few(const Task* t, Py_ssize_t row) noexcept nogil:
    return t.share * t.numbers[row] < t.m.cols * t.m.d.n_keys * t.m.h.n_keys * t.m.w.n_keys


def weights(table, sizes, w, int dtype, numbers, queue):
    """Compute numbers (rows of weights,): the number of nonzero weights of each row of weights."""
    cdef Task t = read_task(table, sizes, w, dtype, False, 0, queue)
    t.counts = <Py_ssize_t*> contiguous_buffer(numbers, sizeof(Py_ssize_t), True).at
    with nogil:
        fc_parallel_for(t.queue, numbers_worker, &t)


cdef void numbers_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.m.total), row
    cdef fc_count_nonzeros_t count_nonzeros = fc_toeplitz_for(1 if t.m.itemsize == 8 else 0, 0).count_nonzeros
    while begin < t.m.total:
        for row in range(begin, min(begin + grain, t.m.total)):
            t.counts[row] = count_nonzeros(t.m.weights + weights_of(&t.m, row) * t.m.itemsize, &t.m.weight)
        begin = fc_next_chunk(t.queue, &worker, t.m.total)


def count(
    table, sizes, w, int dtype, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, counts, totals,
    int isa, space, queue,
):
    """Compute counts (rows of weights, segments of d * h * w): the number of nonzero entries of a matrix row.

    Also computes totals (1 + rows of weights): 0, then the number of entries of all matrix rows of each row of weights.

    `numbers` comes from `weights`. If less than 1 / `share` of the weights of a row are nonzero, the nonzero weights
    are put into a tree; `most` is the largest number of nonzero weights of such a row. `longest` is the largest number
    of entries of a list. `space` has a row of `space_of` bytes for each thread, and must be zeroed.
    """
    cdef Task t = read_task(table, sizes, w, dtype, False, isa, queue)
    give_space(&t, numbers, share, longest, most, space)
    t.counts = <Py_ssize_t*> contiguous_buffer(counts, sizeof(Py_ssize_t), True).at
    t.starts = <Py_ssize_t*> contiguous_buffer(totals, sizeof(Py_ssize_t), True).at
    with nogil:
        fc_parallel_for(t.queue, counts_worker, &t)


cdef void counts_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.m.total), row
    cdef Maker maker = begin_lists(t, worker.id)
    while begin < t.m.total:
        for row in range(begin, min(begin + grain, t.m.total)):
            count_row(t, row, &maker)
        begin = fc_next_chunk(t.queue, &worker, t.m.total)
    end_lists(t, worker.id, &maker)


cdef void count_row(const Task* t, Py_ssize_t row, Maker* maker) noexcept nogil:
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t i, j, k, per, total = 0, line
    cdef Py_ssize_t* counts = t.counts + row * m.d.segments * m.h.segments * m.w.segments
    cdef const Segment* d
    cdef const Segment* h
    cdef const Segment* w = m.w.segment
    cdef bint dense = t.numbers[row] == m.cols * m.d.n_keys * m.h.n_keys * m.w.n_keys
    begin_row(m, row, is_few(t, row), maker)
    for i in range(m.d.segments):
        d = m.d.segment + i
        for j in range(m.h.segments):
            h = m.h.segment + j
            if dense:
                per = m.cols * (d.end - d.begin) * (h.end - h.begin)
                for k in range(m.w.segments):
                    counts[k] = per * (w[k].end - w[k].begin)
            elif maker.few and m.mirrored:
                count_line(m, row, d, h, counts, maker)
            else:
                for k in range(m.w.segments):
                    counts[k] = list_row(m, row, d, h, w + k, maker)
            line = 0
            for k in range(m.w.segments):
                line += w[k].count * counts[k]
            total += d.count * h.count * line
            counts = counts + m.w.segments
    t.starts[row + 1] = total


cdef inline void count_line(
    const Matrix* m, Py_ssize_t row, const Segment* d, const Segment* h, Py_ssize_t* counts, Maker* maker
) noexcept nogil:
    """Count the entries for the segments d and h and each segment of the last axis. This is for rows of weights with
    few nonzero weights if an axis has mirrored positions. Most segments are counted without making a list.
    """
    cdef Py_ssize_t k
    cdef fc_row r = row_of(m, d, h, m.w.segment)
    begin_line(m, d, h, maker, &r)
    for k in range(m.w.segments):
        counts[k] = maker.nonzeros.n_sorted
        if maker.nonzeros.n_groups:
            r.axis[2] = span_of(&m.w, m.w.segment + k, 1, 1)
            counts[k] = fc_count_elements(&maker.nonzeros, &r.axis[2])
            if counts[k] < 0:
                counts[k] = m.list_nonzeros(&maker.nonzeros, &r, maker.values, maker.columns)


def place(table, sizes, w, int dtype, counts, starts, indptr, bint wide, queue):
    """Write indptr (rows + 1), the index of the first entry of each matrix row. `starts` has this index for the first
    matrix row of each row of weights.
    """
    cdef Task t = read_task(table, sizes, w, dtype, wide, 0, queue)
    t.counts, t.starts = index_pointer(counts), index_pointer(starts)
    t.indptr = contiguous_buffer(indptr, 8 if wide else 4, True).at
    with nogil:
        fc_parallel_for(t.queue, indptr_worker, &t)


cdef void indptr_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.m.total), row
    while begin < t.m.total:
        for row in range(begin, min(begin + grain, t.m.total)):
            if t.wide:
                write_indptr(t, row, <int64_t*> t.indptr)
            else:
                write_indptr(t, row, <int32_t*> t.indptr)
        begin = fc_next_chunk(t.queue, &worker, t.m.total)


cdef void write_indptr(const Task* t, Py_ssize_t row, number* indptr) noexcept nogil:
    """Write indptr for the matrix rows of one row of weights: first the length of each matrix row, in the order of the
    segments, then the running sums of the lengths.
    """
    cdef const Matrix* m = &t.m
    cdef const Py_ssize_t* counts = t.counts + row * m.d.segments * m.h.segments * m.w.segments
    cdef number* plane = indptr + row * m.plane
    cdef number* line
    cdef number total, length
    cdef Py_ssize_t i, j, k, a, b, c
    cdef const Segment* d
    cdef const Segment* h
    cdef const Segment* s
    if row == 0:
        indptr[0] = 0
    plane = plane + 1
    for i in range(m.d.segments):
        d = m.d.segment + i
        for j in range(m.h.segments):
            h = m.h.segment + j
            for a in range(d.count):
                for b in range(h.count):
                    line = plane + (
                        (d.start + a * d.step) * m.h.positions + h.start + b * h.step
                    ) * m.w.positions
                    for k in range(m.w.segments):
                        s, length = m.w.segment + k, <number> counts[k]
                        for c in range(s.count):
                            line[s.start + c * s.step] = length
            counts = counts + m.w.segments
    total = <number> t.starts[row]
    for i in range(m.plane):
        total += plane[i]
        plane[i] = total


def fill(
    table, sizes, w, int dtype, numbers, Py_ssize_t share, Py_ssize_t longest, Py_ssize_t most, indptr, indices, data,
    bint wide, Py_ssize_t pieces, int isa, space, queue,
):
    """Write the entries of the matrix to indices (nnz,) and data (nnz,).

    The lines of each row of weights are divided into `pieces` parts; an item is one part.
    """
    cdef Task t = read_task(table, sizes, w, dtype, wide, isa, queue)
    cdef Py_ssize_t width = 8 if wide else 4
    cdef Buffer columns = contiguous_buffer(indices, width, True), values = contiguous_buffer(data, t.m.itemsize, True)
    cdef Buffer starts = contiguous_buffer(indptr, width, False)
    give_space(&t, numbers, share, longest, most, space)
    t.indptr, t.indices, t.data, t.pieces = starts.at, <char*> columns.at, <char*> values.at, pieces
    with nogil:
        fc_check(starts.n == t.m.total * t.m.plane + 1)
        fc_check(values.n == columns.n)
        fc_check(start_of(&t, starts.n - 1) == values.n)
        fc_parallel_for(t.queue, fills_worker, &t)


cdef inline Py_ssize_t start_of(const Task* t, Py_ssize_t row) noexcept nogil:
    return (<const int64_t*> t.indptr)[row] if t.wide else (<const int32_t*> t.indptr)[row]


cdef void fills_worker(void* task) noexcept nogil:
    cdef const Task* t = <const Task*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t total = t.m.total * t.pieces, grain = t.queue.grain, lines = t.m.d.positions * t.m.h.positions
    cdef Py_ssize_t begin = fc_next_chunk(t.queue, &worker, total), item, piece
    cdef Maker maker = begin_lists(t, worker.id)
    while begin < total:
        for item in range(begin, min(begin + grain, total)):
            piece = item % t.pieces
            fill_lines(
                t, item // t.pieces, piece * lines // t.pieces, (piece + 1) * lines // t.pieces, &maker
            )
        begin = fc_next_chunk(t.queue, &worker, total)
    end_lists(t, worker.id, &maker)


cdef void fill_lines(const Task* t, Py_ssize_t row, Py_ssize_t low, Py_ssize_t high, Maker* maker) noexcept nogil:
    """Write the matrix rows of the lines [low, high) of positions. Lines that belong to the same segments d and h are
    processed together, because they use the same lists.
    """
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t i, j, k, a, b, line, first, last, lists, cell, one
    cdef const Segment* d
    cdef const Segment* h
    begin_row(m, row, is_few(t, row), maker)
    for i in range(m.d.segments):
        d = m.d.segment + i
        if d.start * m.h.positions >= high or (d.start + (d.count - 1) * d.step + 1) * m.h.positions <= low:
            continue
        for j in range(m.h.segments):
            h = m.h.segment + j
            first = d.start * m.h.positions + h.start
            last = first + (d.count - 1) * d.step * m.h.positions + (h.count - 1) * h.step
            if first >= high or last < low:
                continue
            k = 0
            if m.mirrored and maker.few:
                k = write_mirrored_lines(t, row, low, high, d, h, maker)
            while k < m.w.segments:
                lists = 0
                for a in range(d.count):
                    line = (d.start + a * d.step) * m.h.positions + h.start
                    if line >= high or line + (h.count - 1) * h.step < low:
                        continue
                    for b in range(h.count):
                        if low <= line and line < high:
                            if lists == 0:
                                lists = make_lists(t, row, d, h, k, maker)
                            cell = (d.base + a * d.base_step) * m.h.limit + h.base + b * h.base_step
                            for one in range(lists):
                                fill_run(t, row, line, m.w.segment + k + one, cell, one, maker)
                        line += h.step
                if lists == 0:
                    break
                k += lists


cdef Py_ssize_t write_mirrored_lines(
    const Task* t, Py_ssize_t row, Py_ssize_t low, Py_ssize_t high, const Segment* d, const Segment* h, Maker* maker
) noexcept nogil:
    """Write the matrix rows of the first segments of the lines of d and h directly, without lists. These are the
    segments of the last axis up to the first that is not a single mirrored position. Returns their number.

    Writes nothing and returns 0 if several lines can share long lists, because copying a list is then faster.
    """
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t width = 8 if t.wide else 4, n = 0, a, b, line, cell
    cdef const char* indptr
    cdef fc_row r
    while n < m.w.segments and m.w.segment[n].count == 1 and m.w.segment[n].key < 0:
        n += 1
    if n == 0:
        return 0
    r = row_of(m, d, h, m.w.segment)
    begin_line(m, d, h, maker, &r)
    if maker.nonzeros.n_groups and maker.nonzeros.n_sorted > SHORT and d.count * h.count > 1:
        return 0
    for a in range(d.count):
        line = (d.start + a * d.step) * m.h.positions + h.start
        for b in range(h.count):
            if low <= line and line < high:
                indptr = <const char*> t.indptr + (row * m.plane + line * m.w.positions) * width
                cell = (d.base + a * d.base_step) * m.h.limit + h.base + b * h.base_step
                m.write_mirrored_rows(
                    &maker.nonzeros, &r, m.w.segment, n, m.w.element_of_key, indptr,
                    row // m.rows * m.cols * m.cells + cell * m.w.limit, t.data, t.indices, maker.values,
                    maker.columns,
                )
            line += h.step
    return n


cdef Py_ssize_t make_lists(
    const Task* t, Py_ssize_t row, const Segment* d, const Segment* h, Py_ssize_t k, Maker* maker
) noexcept nogil:
    """Make the lists of segments k, k + 1, ... of the last axis, until the memory is full. Returns the number of lists.

    Several lists are made at a time, so that a line is written in order, from its first position to its last.
    """
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t used = 0, lists = 0
    cdef char* values = maker.values
    cdef char* columns = maker.columns
    while lists < LISTS and k + lists < m.w.segments and (lists == 0 or used + t.longest <= t.room):
        maker.at[lists] = used
        maker.n[lists] = list_row(m, row, d, h, m.w.segment + k + lists, maker)
        used += maker.n[lists]
        lists += 1
        maker.values = values + used * m.itemsize
        maker.columns = columns + used * (8 if t.wide else 4)
    maker.values, maker.columns = values, columns
    return lists


cdef inline void fill_run(
    const Task* t, Py_ssize_t row, Py_ssize_t line, const Segment* s, Py_ssize_t cell, Py_ssize_t one,
    const Maker* maker,
) noexcept nogil:
    """Write the matrix rows of a segment of a line. They all repeat list number `one`."""
    cdef const Matrix* m = &t.m
    cdef Py_ssize_t n = maker.n[one], width = 8 if t.wide else 4, start, i
    cdef Py_ssize_t at = row * m.plane + line * m.w.positions + s.start
    cdef Py_ssize_t first = row // m.rows * m.cols * m.cells + cell * m.w.limit + s.base
    cdef const char* values = maker.values + maker.at[one] * m.itemsize
    cdef const char* columns = maker.columns + maker.at[one] * width
    if n == 0:
        return
    if s.step == 1:
        start = start_of(t, at)
        fc_check(start_of(t, at + s.count) == start + s.count * n)
        m.repeat(values, columns, n, t.data + start * m.itemsize, t.indices + start * width, s.count, first,
                 s.base_step)
        return
    for i in range(s.count):
        start = start_of(t, at + i * s.step)
        fc_check(start_of(t, at + i * s.step + 1) == start + n)
        m.repeat(
            values, columns, n, t.data + start * m.itemsize, t.indices + start * width, 1, first + i * s.base_step, 0
        )


# The arguments of a product, which all of its threads read.
cdef struct Product:
    fc_spmm p
    fc_spmm_t kernel
    Py_ssize_t rows
    fc_work_queue* queue


def product(
    int dtype, bint wide, indptr, indices, data, x, y, Py_ssize_t width, Py_ssize_t x_pitch, Py_ssize_t y_pitch,
    int isa, queue,
):
    """Compute y (rows, width) = A @ x (cols, width). `x_pitch` and `y_pitch` are the distances between the rows of x
    and of y, in elements. `width` is a multiple of the vector length.
    """
    cdef Product t
    cdef Py_ssize_t itemsize = 8 if dtype else 4, number_size = 8 if wide else 4
    cdef Buffer rows = contiguous_buffer(indptr, number_size, False)
    cdef Buffer columns = contiguous_buffer(indices, number_size, False)
    cdef Buffer values = contiguous_buffer(data, itemsize, False), source = contiguous_buffer(x, itemsize, False)
    cdef Buffer result = contiguous_buffer(y, itemsize, True)
    t.rows, t.queue = rows.n - 1, work_queue(queue)
    t.p.data, t.p.indices, t.p.indptr, t.p.x, t.p.y = values.at, columns.at, rows.at, source.at, result.at
    t.p.width, t.p.x_pitch, t.p.y_pitch = width, x_pitch, y_pitch
    t.kernel = fc_toeplitz_for(dtype, isa).spmm_i64 if wide else fc_toeplitz_for(dtype, isa).spmm_i32
    with nogil:
        fc_check((t.rows - 1) * y_pitch + width <= result.n and values.n == columns.n)
        fc_parallel_for(t.queue, products_worker, &t)


cdef void products_worker(void* task) noexcept nogil:
    cdef const Product* t = <const Product*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t grain = t.queue.grain, begin = fc_next_chunk(t.queue, &worker, t.rows)
    while begin < t.rows:
        t.kernel(&t.p, begin, min(begin + grain, t.rows))
        begin = fc_next_chunk(t.queue, &worker, t.rows)


cdef enum:
    SUMMED = 256   # the number of products that a lane adds up before the sum is added to a double


# The arguments of a call of `gradient`, which all of its threads read.
cdef struct Gradient:
    Matrix m               # the matrix, with numbers of weights in place of weights
    fc_contract_t contract
    fc_collect_t collect
    const char* x
    const char* dy
    char* dw
    Py_ssize_t width
    Py_ssize_t lanes
    Py_ssize_t block       # the number of channels of an item
    Py_ssize_t blocks
    Py_ssize_t itemsize
    char* space            # for each thread: sums and totals of weights; values, columns and slots of a list
    Py_ssize_t space_pitch
    Py_ssize_t workspaces
    fc_work_queue* queue


def gradient(
    table, sizes, numbers, int dtype, x, dy, dw, Py_ssize_t width, Py_ssize_t block, int isa, space, queue,
):
    """Compute dw (rows of weights, cols, taps) from dy (rows, width) and x (cols, width). The gradient of a weight is
    the sum of dy * x over all entries of the matrix that have the weight.

    `numbers` (float64) numbers the weights of `block` channels, starting at 1. The lists have these numbers in place of
    weights. `space` has a row of `gradient_space` bytes for each thread.
    """
    cdef Gradient t
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Buffer counted = contiguous_buffer(numbers, sizeof(double), False)
    cdef Buffer source = contiguous_buffer(x, itemsize, False)
    cdef Buffer upstream = contiguous_buffer(dy, itemsize, False), result = contiguous_buffer(dw, itemsize, True)
    cdef Buffer room = contiguous_buffer(space, 1, True)
    t.m = read_matrix(index_pointer(table), index_pointer(sizes))
    give_weights(&t.m, counted, 1, True, isa)
    t.contract, t.collect = fc_toeplitz_for(dtype, isa).contract, fc_toeplitz_for(dtype, isa).collect
    t.x, t.dy, t.dw = <const char*> source.at, <const char*> upstream.at, <char*> result.at
    t.width, t.block, t.blocks = width, block, (t.m.cols + block - 1) // block
    t.lanes = max(1, (16 << isa) // itemsize)
    t.itemsize, t.queue = itemsize, work_queue(queue)
    t.space, t.workspaces = <char*> room.at, space.shape[0]
    t.space_pitch = room.n // t.workspaces
    with nogil:
        fc_check(t.space_pitch >= slots_space(block * t.m.taps))
        fc_check(result.n == t.m.total * t.m.cols * t.m.taps and upstream.n == t.m.total * t.m.plane * width)
        fc_parallel_for(t.queue, gradients_worker, &t)


cdef inline Py_ssize_t slots_space(Py_ssize_t slots) noexcept nogil:
    return slots * 64 + (slots + FC_CHUNK) * 32


def gradient_space(Py_ssize_t slots):
    """Return the number of bytes that a thread of `gradient` needs for `slots` weights."""
    return slots_space(slots)


cdef void gradients_worker(void* task) noexcept nogil:
    cdef const Gradient* t = <const Gradient*> task
    cdef fc_worker worker = fc_new_worker(t.queue)
    cdef Py_ssize_t total = t.m.total * t.blocks, grain = t.queue.grain
    cdef Py_ssize_t begin = fc_next_chunk(t.queue, &worker, total), item
    while begin < total:
        fc_check(worker.id < t.workspaces)
        for item in range(begin, min(begin + grain, total)):
            gradient_of(t, item // t.blocks, item % t.blocks * t.block, t.space + worker.id * t.space_pitch)
        begin = fc_next_chunk(t.queue, &worker, total)


cdef void gradient_of(const Gradient* t, Py_ssize_t row, Py_ssize_t channel, char* space) noexcept nogil:
    """Compute the gradient of the weights of up to `block` channels, which start at `channel`, of a row of weights."""
    cdef Matrix m = t.m
    cdef Py_ssize_t i, j, k, a, b, line, cell, n, done = 0
    cdef Py_ssize_t slots = min(t.block, m.cols - channel) * m.taps, most = t.block * m.taps
    cdef double* totals = <double*> (space + most * 64)
    cdef double* counted = totals + most + FC_CHUNK
    cdef int64_t* columns = <int64_t*> (counted + most + FC_CHUNK)
    cdef int64_t* slots_of_entries = columns + most + FC_CHUNK
    cdef Py_ssize_t cells = (row // m.rows * m.cols + channel) * m.cells, at = (row * m.cols + channel) * m.taps
    cdef const Segment* d
    cdef const Segment* h
    cdef const Segment* s
    cdef fc_contraction c
    cdef Maker maker
    maker.few, maker.visits, maker.values, maker.columns = False, 0, <char*> counted, <char*> columns
    m.cols = min(t.block, m.cols - channel)
    c.columns, c.slots, c.width, c.sums = columns, slots_of_entries, t.width, <void*> space
    for i in range(slots):
        totals[i] = 0
    for i in range(slots * 64):
        space[i] = 0
    for i in range(m.d.segments):
        d = m.d.segment + i
        for j in range(m.h.segments):
            h = m.h.segment + j
            for k in range(m.w.segments):
                s = m.w.segment + k
                n = list_row(&m, 0, d, h, s, &maker)
                if not n:
                    continue
                for a in range(n):
                    slots_of_entries[a] = <int64_t> counted[a] - 1
                c.n, c.x_step, c.dy_step, c.count = n, s.base_step, s.step, s.count
                for a in range(d.count):
                    for b in range(h.count):
                        line = (d.start + a * d.step) * m.h.positions + h.start + b * h.step
                        cell = ((d.base + a * d.base_step) * m.h.limit + h.base + b * h.base_step) * m.w.limit + s.base
                        c.x = t.x + (cells + cell) * t.width * t.itemsize
                        c.dy = t.dy + (row * m.plane + line * m.w.positions + s.start) * t.width * t.itemsize
                        t.contract(&c)
                        done += s.count * t.width // t.lanes
                        if done >= SUMMED:
                            t.collect(space, totals, slots)
                            done = 0
    t.collect(space, totals, slots)
    fc_check(at + slots <= t.m.total * t.m.cols * m.taps)
    for i in range(slots):
        if t.itemsize == 8:
            (<double*> t.dw)[at + i] = totals[i]
        else:
            (<float*> t.dw)[at + i] = <float> totals[i]
