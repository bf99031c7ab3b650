"""Gradients of max pooling: each element of dout is added to the element of dx that was the maximum of its window.

A plane is one channel of one image, so there are N * C planes. A cell is one element of a plane of dx. `dtype` is 0
(float32) or 1 (float64). The index of a maximum is the index of its cell in the plane. Indices are int64 if
`int64_indices` is set, and otherwise int32.
"""

from libc.stdint cimport int32_t, int64_t

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.buffers.runs cimport fc_check, fc_fetch_add, floating, zero
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.pool.lists cimport list_of, numbers
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_stopped, fc_task_function, fc_work_queue, fc_worker, work_queue,
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


# The arguments of a run of a plan, which all threads of the run read.
cdef struct Scatter:
    const void* dout
    const void* indices
    void* dx
    char* out_of_plane
    Py_ssize_t planes
    Py_ssize_t cells    # the number of cells of a plane
    Py_ssize_t outputs  # the number of elements of a plane of dout
    fc_work_queue* queue


cdef class MaxBackward:
    """A plan that adds each element of dout (planes, outputs) to the element of dx (planes, cells) that was the
    maximum.
    """

    cdef Py_ssize_t cells, outputs
    cdef int itemsize, index_itemsize
    cdef fc_task_function worker
    #: The number of work items, which are planes.
    cdef readonly Py_ssize_t items

    def __init__(
        self, *, int dtype, bint int64_indices, Py_ssize_t planes, Py_ssize_t cells, Py_ssize_t outputs,
    ):
        self.items, self.cells, self.outputs = planes, cells, outputs
        self.itemsize, self.index_itemsize = 8 if dtype else 4, 8 if int64_indices else 4
        if dtype == 0:
            self.worker = scatter_float_int64 if int64_indices else scatter_float_int32
        else:
            self.worker = scatter_double_int64 if int64_indices else scatter_double_int32

    def run(self, dout, indices, dx, queue):
        """Write the gradient to dx, and return whether all indices are within their planes.

        An index outside the plane is ignored. It can occur only if the user has changed the tuple `cache` of the
        forward pass.
        """
        cdef Scatter s
        cdef Buffer douts = contiguous_buffer(dout, self.itemsize, False)
        cdef Buffer dxs = contiguous_buffer(dx, self.itemsize, True)
        cdef Buffer index_buffer = contiguous_buffer(indices, self.index_itemsize, False)
        cdef char out_of_plane = False
        fc_check(dxs.n == self.items * self.cells and douts.n == self.items * self.outputs)
        fc_check(index_buffer.n == douts.n)
        s.planes, s.cells, s.outputs = self.items, self.cells, self.outputs
        s.dout, s.indices, s.dx = douts.at, index_buffer.at, dxs.at
        s.out_of_plane, s.queue = &out_of_plane, work_queue(queue)
        with nogil:
            fc_parallel_for(s.queue, self.worker, &s)
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


cdef enum:
    POLL_OUTPUTS = 1 << 15  # the number of outputs that a thread processes between two checks for signals
    FC_PAGE = 64    # the number of cells of a block, and the number of rounding errors in a page


# The constants of a plan of `MaxBackwardBands`.
cdef struct BandSizes:
    Py_ssize_t planes
    Py_ssize_t cells        # the number of cells of a plane
    Py_ssize_t outputs      # the number of elements of a plane of dout
    Py_ssize_t bands        # the number of bands of a plane
    # For each band: its cells are [cell_begin, cell_end), and the windows of the outputs [output_begin, output_end) may
    # overlap it.
    numbers cell_begin
    numbers cell_end
    numbers output_begin
    numbers output_end
    Py_ssize_t blocks       # the number of blocks of the longest band; a block is FC_PAGE cells
    Py_ssize_t pages        # the number of pages of a thread; a page holds the rounding errors of one block
    # The offsets of three arrays in the workspace of a thread, in bytes.
    Py_ssize_t lost_at      # the rounding errors in all pages
    Py_ssize_t page_at      # the index of the page of each block (int32)
    Py_ssize_t owner_at     # the index of the block that uses each page (int32)
    Py_ssize_t workspace    # the size of the workspace of a thread, in bytes


# The arguments of a run of a plan, which all threads of the run read.
cdef struct Bands:
    const BandSizes* sizes
    const void* dout
    const void* indices
    void* dx
    char* workspace
    Py_ssize_t workspaces   # the number of bytes of `workspace`
    Py_ssize_t[1] found     # the number of outputs whose maximum was in a band that their window may overlap
    fc_work_queue* queue


cdef class MaxBackwardBands:
    """A plan of the work of `MaxBackward`, but with a rounding error that does not grow with the number of terms of a
    sum.

    The rounding errors of each sum are summed, too (D. Knuth's two-sum, The Art of Computer Programming 2, 4.2.2).
    These sums of errors are stored in pages. Each thread has a number of pages, which take at most `page_bytes` bytes.
    A block of FC_PAGE cells gets a page when the first gradient is added to one of its cells. When no page is free, the
    errors in all pages are added to dx, which rounds dx once more. This is rare, because few cells of a plane are the
    maximum of many windows.

    A plane is divided into bands of cells: see `BandSizes` for the four lists, whose dtype is intp.
    """

    cdef BandSizes sizes
    cdef tuple lists    # The tuple keeps the lists alive, because `sizes` has pointers into them.
    cdef int itemsize, index_itemsize
    cdef fc_task_function worker
    #: The size of the workspace of a thread, in bytes, and the number of work items, which are the bands of all planes.
    cdef readonly Py_ssize_t workspace, items

    def __init__(
        self, *, int dtype, bint int64_indices, Py_ssize_t planes, Py_ssize_t cells, Py_ssize_t outputs, cell_begin,
        cell_end, output_begin, output_end, Py_ssize_t page_bytes,
    ):
        cdef BandSizes* b = &self.sizes
        cdef Scratchpad pad = scratchpad_of(1)
        cdef Py_ssize_t longest = 0, i
        self.itemsize, self.index_itemsize = 8 if dtype else 4, 8 if int64_indices else 4
        self.lists = cell_begin, cell_end, output_begin, output_end
        b.planes, b.cells, b.outputs, b.bands = planes, cells, outputs, len(cell_begin)
        b.cell_begin, b.cell_end = list_of(cell_begin, b.bands), list_of(cell_end, b.bands)
        b.output_begin, b.output_end = list_of(output_begin, b.bands), list_of(output_end, b.bands)
        for i in range(b.bands):
            fc_check(b.cell_begin[i] >= 0 and b.cell_end[i] <= cells)
            fc_check(b.output_begin[i] >= 0 and b.output_end[i] <= outputs)
            longest = max(longest, b.cell_end[i] - b.cell_begin[i])
        b.blocks = ceil_div(longest, FC_PAGE)
        b.pages = max(1, min(b.blocks, page_bytes // (FC_PAGE * self.itemsize)))
        b.lost_at = book(&pad, b.pages * FC_PAGE * self.itemsize)
        b.page_at = book(&pad, b.blocks * <Py_ssize_t> sizeof(int32_t))
        b.owner_at = book(&pad, b.pages * <Py_ssize_t> sizeof(int32_t))
        self.workspace = b.workspace = pad.size
        self.items = planes * b.bands
        if dtype == 0:
            self.worker = bands_float_int64 if int64_indices else bands_float_int32
        else:
            self.worker = bands_double_int64 if int64_indices else bands_double_int32

    def run(self, dout, indices, dx, workspace, queue):
        """Write the gradient to dx. Return True if the index of each output is in a band that the window of the output
        may overlap. Otherwise return False; dx is then incomplete.

        `workspace` is an array of bytes, which consists of a workspace for each thread.
        """
        cdef Bands b
        cdef Buffer douts = contiguous_buffer(dout, self.itemsize, False)
        cdef Buffer dxs = contiguous_buffer(dx, self.itemsize, True)
        cdef Buffer index_buffer = contiguous_buffer(indices, self.index_itemsize, False)
        cdef Buffer space = contiguous_buffer(workspace, 1, True)
        fc_check(dxs.n == self.sizes.planes * self.sizes.cells and douts.n == self.sizes.planes * self.sizes.outputs)
        fc_check(index_buffer.n == douts.n)
        b.sizes, b.found[0], b.queue = &self.sizes, 0, work_queue(queue)
        b.dout, b.indices, b.dx = douts.at, index_buffer.at, dxs.at
        b.workspace, b.workspaces = <char*> space.at, space.n
        with nogil:
            fc_parallel_for(b.queue, self.worker, &b)
        return b.found[0] == douts.n


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
    cdef const BandSizes* sizes = b.sizes
    cdef fc_worker worker = fc_new_worker(b.queue)
    cdef Py_ssize_t items = sizes.planes * sizes.bands, grain = b.queue.grain, found = 0
    cdef Py_ssize_t begin = fc_next_chunk(b.queue, &worker, items), i, plane, band, first, n, o, end
    cdef char* workspace = b.workspace + worker.id * sizes.workspace
    cdef floating* dx
    cdef floating* lost = <floating*> (workspace + sizes.lost_at)
    cdef const floating* dout
    cdef const index_t* indices
    cdef Pages pages
    if begin >= items:
        return
    fc_check((worker.id + 1) * sizes.workspace <= b.workspaces)
    pages.page, pages.owner = <int32_t*> (workspace + sizes.page_at), <int32_t*> (workspace + sizes.owner_at)
    pages.used, pages.most = 0, sizes.pages
    for i in range(sizes.blocks):
        pages.page[i] = -1
    while begin < items:
        for i in range(begin, min(begin + grain, items)):
            plane, band = i // sizes.bands, i % sizes.bands
            first, o, end = sizes.cell_begin[band], sizes.output_begin[band], sizes.output_end[band]
            n = sizes.cell_end[band] - first
            dx = <floating*> b.dx + plane * sizes.cells + first
            dout = <const floating*> b.dout + plane * sizes.outputs
            indices = <const index_t*> b.indices + plane * sizes.outputs
            zero(dx, n)
            while o < end:
                if fc_stopped(b.queue):
                    return
                found += scatter_band(
                    &pages, dx, lost, first, n, dout + o, indices + o, min(end - o, <Py_ssize_t> POLL_OUTPUTS)
                )
                o += POLL_OUTPUTS
            close_pages(&pages, dx, lost, n)
        begin = fc_next_chunk(b.queue, &worker, items)
    fc_fetch_add(b.found, found)
