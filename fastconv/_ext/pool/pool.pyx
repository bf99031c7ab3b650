"""Gradients of max pooling: each element of dout is added to the element of dx that was the maximum of its window.

A plane is one channel of one image, so there are N * C planes. A cell is one element of a plane of dx.
"""

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.runs cimport fc_check, fc_fetch_add, floating, zero
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_stopped, fc_work_queue, fc_worker, work_queue,
)


ctypedef fused index_t:
    int32_t
    int64_t


cdef enum:
    BATCH_PLANES = 4
    BATCH_BYTES = 1 << 12   # if a plane has at most this number of bytes, BATCH_PLANES planes fit into the L1 cache
    PAIR_BYTES = 1 << 13  # if a plane has at most this number of bytes, two planes fit into the L1 cache


cdef inline bint scatter_planes(
    int planes, floating* dx, Py_ssize_t cells, const floating* dout, const index_t* indices, Py_ssize_t L
) noexcept nogil:
    """Add dout to dx for `planes` planes, and return whether an index is outside its plane.

    If windows overlap, two successive additions may be to the same element, and the second has to wait for the first.
    So the loop alternates between several planes.
    """
    cdef Py_ssize_t i
    cdef int j
    cdef size_t at
    cdef bint out_of_plane = False
    for i in range(L):
        for j in range(planes):
            at = <size_t> indices[j * L + i]  # The index is unsigned, so that a negative index is out of range.
            if at < <size_t> cells:
                dx[j * cells + <Py_ssize_t> at] += dout[j * L + i]
            else:
                out_of_plane = True
    return out_of_plane


# The arguments of a call of `max_backward`, which all of its threads read.
cdef struct Scatter:
    const void* dout
    const void* indices
    void* dx
    char* out_of_plane
    Py_ssize_t planes
    Py_ssize_t cells
    Py_ssize_t outputs
    fc_work_queue* queue


def max_backward(int dtype, dout, indices, dx, bint int64_indices, Py_ssize_t planes, queue):
    """Add each element of dout (planes * L) to the element of dx (planes * cells) whose index within the plane is given
    by `indices`.

    Return whether all indices are within their planes.

    `dtype` is 0 (float32) or 1 (float64). Indices are int64 if `int64_indices`, else int32. An index outside the plane
    is ignored. It can occur only if the user has changed the tuple `cache` of the forward pass.
    """
    cdef Scatter s
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Buffer douts = contiguous_buffer(dout, itemsize, False), dxs = contiguous_buffer(dx, itemsize, True)
    cdef Buffer index_buffer = contiguous_buffer(indices, 8 if int64_indices else 4, False)
    cdef char out_of_plane = False
    cdef fc_work_queue* shared = work_queue(queue)
    with nogil:
        s.planes, s.cells, s.outputs = planes, dxs.n // planes, douts.n // planes
        fc_check(dxs.n == planes * s.cells and douts.n == planes * s.outputs and index_buffer.n == douts.n)
        s.dout, s.indices, s.dx = douts.at, index_buffer.at, dxs.at
        s.out_of_plane, s.queue = &out_of_plane, shared
        if dtype == 0:
            fc_parallel_for(shared, scatter_float_int64 if int64_indices else scatter_float_int32, &s)
        else:
            fc_parallel_for(shared, scatter_double_int64 if int64_indices else scatter_double_int32, &s)
    return not out_of_plane


cdef void scatter_float_int32(void* task) noexcept nogil:
    scatters_worker(<const Scatter*> task, <float*> NULL, <int32_t*> NULL)


cdef void scatter_float_int64(void* task) noexcept nogil:
    scatters_worker(<const Scatter*> task, <float*> NULL, <int64_t*> NULL)


cdef void scatter_double_int32(void* task) noexcept nogil:
    scatters_worker(<const Scatter*> task, <double*> NULL, <int32_t*> NULL)


cdef void scatter_double_int64(void* task) noexcept nogil:
    scatters_worker(<const Scatter*> task, <double*> NULL, <int64_t*> NULL)


cdef void scatters_worker(const Scatter* s, floating* dtype, index_t* index_dtype) noexcept nogil:
    cdef fc_worker worker = fc_new_worker(s.queue)
    cdef Py_ssize_t cells = s.cells, L = s.outputs, grain = s.queue.grain, end, p, n
    cdef Py_ssize_t begin = fc_next_chunk(s.queue, &worker, s.planes)
    cdef const floating* dout = <const floating*> s.dout
    cdef const index_t* indices = <const index_t*> s.indices
    cdef floating* dx = <floating*> s.dx
    cdef Py_ssize_t bytes = cells * <Py_ssize_t> sizeof(floating)
    cdef bint out_of_plane
    while begin < s.planes:
        end, p = min(begin + grain, s.planes), begin
        while p < end:
            n = BATCH_PLANES if bytes <= BATCH_BYTES else 2 if bytes <= PAIR_BYTES else 1
            if p + n > end:
                n = 1
            zero(dx + p * cells, n * cells)
            if n == BATCH_PLANES:
                out_of_plane = scatter_planes(BATCH_PLANES, dx + p * cells, cells, dout + p * L, indices + p * L, L)
            elif n == 2:
                out_of_plane = scatter_planes(2, dx + p * cells, cells, dout + p * L, indices + p * L, L)
            else:
                out_of_plane = scatter_planes(1, dx + p * cells, cells, dout + p * L, indices + p * L, L)
            if out_of_plane:
                s.out_of_plane[0] = 1
            p += n
        begin = fc_next_chunk(s.queue, &worker, s.planes)


# The arguments of a call of `max_backward_bands`, which all of its threads read.
cdef struct Bands:
    const void* dout
    const void* indices
    void* dx
    void* space
    int32_t* marks
    const Py_ssize_t* table
    Py_ssize_t bands
    Py_ssize_t blocks    # the number of blocks of a band; a block is FC_PAGE cells
    Py_ssize_t pages     # the number of pages that each thread has; a page holds the rounding errors of one block
    Py_ssize_t total
    Py_ssize_t cells
    Py_ssize_t outputs
    Py_ssize_t workspaces
    Py_ssize_t[1] found
    fc_work_queue* queue


cdef enum:
    POLL_OUTPUTS = 1 << 15  # the number of outputs that a thread processes between two checks for signals
    FC_PAGE = 64    # the number of cells of a block, and the number of rounding errors in a page


def max_backward_bands(
    int dtype, dout, indices, dx, bint int64_indices, Py_ssize_t planes, table, Py_ssize_t bands, space, marks,
    Py_ssize_t pages, Py_ssize_t workspaces, queue,
):
    """Do the work of `max_backward`, but with a rounding error that does not grow with the number of terms of a sum.

    The rounding errors of each sum are summed, too (D. Knuth's two-sum, The Art of Computer Programming 2, 4.2.2).
    These sums of errors are stored in pages. Each thread has `pages` pages. A block of FC_PAGE cells gets a page when
    the first gradient is added to one of its cells. When no page is free, the errors in all pages are added to dx,
    which rounds dx once more. This is rare, because few cells of a plane are the maximum of many windows.

    A plane is divided into `bands` bands of cells. For each band, `table` holds two ranges [begin, end): the cells of
    the band, and the outputs whose windows overlap the band. Return True if the index of each output is in a band that
    the window of the output overlaps. Otherwise return False; dx is then incomplete.
    """
    cdef Bands b
    cdef Py_ssize_t itemsize = 8 if dtype else 4, i
    cdef Buffer douts = contiguous_buffer(dout, itemsize, False), dxs = contiguous_buffer(dx, itemsize, True)
    cdef Buffer index_buffer = contiguous_buffer(indices, 8 if int64_indices else 4, False)
    cdef Buffer spaces = contiguous_buffer(space, itemsize, True)
    cdef Buffer marked = contiguous_buffer(marks, 4, True)
    cdef fc_work_queue* shared = work_queue(queue)
    b.table = index_pointer(table)
    with nogil:
        b.bands, b.pages, b.total, b.workspaces = bands, pages, planes * bands, workspaces
        b.blocks = marked.n // workspaces - pages
        fc_check(pages > 0 and spaces.n == workspaces * pages * FC_PAGE and b.blocks > 0)
        b.cells, b.outputs = dxs.n // planes, douts.n // planes
        fc_check(dxs.n == planes * b.cells and douts.n == planes * b.outputs and index_buffer.n == douts.n)
        for i in range(bands):
            fc_check(b.table[4 * i] >= 0 and b.table[4 * i + 1] - b.table[4 * i] <= b.blocks * FC_PAGE)
            fc_check(b.table[4 * i + 1] <= b.cells and b.table[4 * i + 2] >= 0 and b.table[4 * i + 3] <= b.outputs)
        b.dout, b.indices, b.dx, b.space, b.queue = douts.at, index_buffer.at, dxs.at, spaces.at, shared
        b.marks = <int32_t*> marked.at
        b.found[0] = 0
        if dtype == 0:
            fc_parallel_for(shared, bands_float_int64 if int64_indices else bands_float_int32, &b)
        else:
            fc_parallel_for(shared, bands_double_int64 if int64_indices else bands_double_int32, &b)
    return b.found[0] == planes * b.outputs


cdef void bands_float_int32(void* task) noexcept nogil:
    bands_worker(<Bands*> task, <float*> NULL, <int32_t*> NULL)


cdef void bands_float_int64(void* task) noexcept nogil:
    bands_worker(<Bands*> task, <float*> NULL, <int64_t*> NULL)


cdef void bands_double_int32(void* task) noexcept nogil:
    bands_worker(<Bands*> task, <double*> NULL, <int32_t*> NULL)


cdef void bands_double_int64(void* task) noexcept nogil:
    bands_worker(<Bands*> task, <double*> NULL, <int64_t*> NULL)


# The pages of a thread.
cdef struct Pages:
    int32_t* page   # the index of the page of each block, or -1 if the block has no page
    int32_t* owner  # the index of the block that uses each page
    Py_ssize_t used
    Py_ssize_t most


cdef void close_pages(Pages* pages, floating* dx, const floating* lost, Py_ssize_t n) noexcept nogil:
    """Add the rounding errors in all pages to the n cells of the band, and free all pages."""
    cdef Py_ssize_t i, j, first
    for i in range(pages.used):
        first = <Py_ssize_t> pages.owner[i] * FC_PAGE
        for j in range(first, min(first + FC_PAGE, n)):
            # If a sum is not finite, its rounding error is NaN and must not be added.
            if dx[j] - dx[j] == 0:
                dx[j] += lost[i * FC_PAGE + j - first]
        pages.page[pages.owner[i]] = -1
    pages.used = 0


cdef void open_page(Pages* pages, Py_ssize_t block, floating* dx, floating* lost, Py_ssize_t n) noexcept nogil:
    if pages.used == pages.most:
        close_pages(pages, dx, lost, n)
    pages.owner[pages.used], pages.page[block] = <int32_t> block, <int32_t> pages.used
    zero(lost + pages.used * FC_PAGE, FC_PAGE)
    pages.used += 1


cdef inline Py_ssize_t scatter_band(
    Pages* pages, floating* dx, floating* lost, Py_ssize_t first, Py_ssize_t n, const floating* dout,
    const index_t* indices, Py_ssize_t outputs,
) noexcept nogil:
    """Add the gradients of the outputs whose maximum is one of the n cells of the band, which starts at cell `first`.
    Return the number of these outputs.
    """
    cdef Py_ssize_t i, block, page_cell = 0, found = 0
    cdef size_t at, current = <size_t> n
    cdef floating total = 0, rest = 0, value, bigger, part
    for i in range(outputs):
        at = <size_t> (<Py_ssize_t> indices[i] - first)
        if at != current:
            # Neighbouring windows often have the same maximum. So the sum for one index is stored only when the next
            # output has another index.
            if current < <size_t> n:
                dx[current], lost[page_cell] = total, rest
            current = at
            if current < <size_t> n:
                block = <Py_ssize_t> (current // FC_PAGE)
                if pages.page[block] < 0:
                    open_page(pages, block, dx, lost, n)
                page_cell = pages.page[block] * <Py_ssize_t> FC_PAGE + <Py_ssize_t> (current % FC_PAGE)
                total, rest = dx[current], lost[page_cell]
        if current < <size_t> n:
            value = dout[i]
            bigger = total + value
            part = bigger - total
            rest += (total - (bigger - part)) + (value - part)
            total = bigger
            found += 1
    if current < <size_t> n:
        dx[current], lost[page_cell] = total, rest
    return found


cdef void bands_worker(Bands* b, floating* dtype, index_t* index_dtype) noexcept nogil:
    cdef fc_worker worker = fc_new_worker(b.queue)
    cdef Py_ssize_t grain = b.queue.grain, begin = fc_next_chunk(b.queue, &worker, b.total), i, n, o, found = 0
    cdef const Py_ssize_t* band
    cdef floating* dx
    cdef floating* lost = <floating*> b.space + worker.id * b.pages * FC_PAGE
    cdef const floating* dout
    cdef const index_t* indices
    cdef Pages pages
    if begin >= b.total:
        return
    fc_check(worker.id < b.workspaces)
    pages.page = b.marks + worker.id * (b.blocks + b.pages)
    pages.owner = pages.page + b.blocks
    pages.used, pages.most = 0, b.pages
    for i in range(b.blocks):
        pages.page[i] = -1
    while begin < b.total:
        for i in range(begin, min(begin + grain, b.total)):
            band = b.table + i % b.bands * 4
            n = band[1] - band[0]
            dx = <floating*> b.dx + i // b.bands * b.cells + band[0]
            dout = <const floating*> b.dout + i // b.bands * b.outputs
            indices = <const index_t*> b.indices + i // b.bands * b.outputs
            zero(dx, n)
            o = band[2]
            while o < band[3]:
                if fc_stopped(b.queue):
                    return
                found += scatter_band(
                    &pages, dx, lost, band[0], n, dout + o, indices + o, min(band[3] - o, <Py_ssize_t> POLL_OUTPUTS)
                )
                o += POLL_OUTPUTS
            close_pages(&pages, dx, lost, n)
        begin = fc_next_chunk(b.queue, &worker, b.total)
    fc_fetch_add(b.found, found)
