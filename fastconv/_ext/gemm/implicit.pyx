"""Implicit GEMM: the matrix product of weights and im2col columns. The matrix of columns is never built, because
packing reads the image itself.

This module computes forward and backward_data. Vector lanes hold positions, or rows of weights if there are few
positions. fastconv.convolution.implicit_gemm.tiling divides the work into items.
"""

from libc.string cimport memset

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.buffers.scratchpad cimport Scratchpad, book, scratchpad_of
from fastconv._ext.gemm cimport product, tiles
from fastconv._ext.gemm.microkernel cimport MOST_LANES, fc_microkernel_kernels, kernels, microkernel_for
from fastconv._ext.gemm.product cimport (
    PanelState, Product, ProductCall, product_of_double, product_of_float, rows_begin_finite,
)
from fastconv._ext.gemm.tiles cimport Sizes
from fastconv._ext.packing cimport panels
from fastconv._ext.packing.patches cimport set_conv_axes
from fastconv._ext.threads.team cimport fc_parallel_for, fc_serial_queue, fc_work_queue, work_queue


#: The modes: the ways in which tiles read the image. The enum `Mode` in gemm/tiles.pxd explains them.
CONTIGUOUS, PADDED_GRID, ROW_WISE = tiles.CONTIGUOUS, tiles.PADDED_GRID, tiles.ROW_WISE
PACKED, SWAPPED = tiles.PACKED, tiles.SWAPPED
#: How weights lie in memory. The enum `WeightLayout` in packing/panels.pxd explains the values.
LAYOUT_GENERIC, LAYOUT_ROWS = panels.LAYOUT_GENERIC, panels.LAYOUT_ROWS
LAYOUT_TAPS, LAYOUT_COLUMNS = panels.LAYOUT_TAPS, panels.LAYOUT_COLUMNS
#: The largest number of tiles that are multiplied by the same rows of weights.
MOST_TILES = product.MOST_TILES


cdef void divide_workspace(Product* p, Py_ssize_t itemsize, bint shared) noexcept:
    """Divide the scratchpad of a thread into arrays, and the memory that all threads share into panels."""
    cdef Sizes* s = &p.sizes
    cdef Py_ssize_t mr = p.kernel.rows, nr = p.kernel.vectors * p.kernel.lanes
    # Kernels read and write whole vectors, so they may access up to `nr` elements behind the last element of an array.
    cdef Py_ssize_t cells = 0, panel = s.mc * s.kc + nr
    cdef Scratchpad own = scratchpad_of(itemsize), common = scratchpad_of(itemsize)
    if s.mode != tiles.CONTIGUOUS:
        cells = s.block_channels * s.channel_pitch + 2 * nr + p.axes[2].halo
    s.block_at = book(&own, cells)
    if s.mode == tiles.SWAPPED:
        cells = s.block_images * p.axes[0].block * p.axes[1].block * p.axes[2].block
        s.panel_at = book(&own, nr * s.kc + nr)
        s.positions_at = book(&own, (cells + mr) * s.kc + MOST_LANES)
        s.edge_at = book(&own, mr * nr)
        s.transposed_at = book(&own, mr * nr + nr + MOST_LANES)
    else:
        s.panel_at = book(&own, panel)
        s.positions_at = book(&own, s.tiles * s.kc * nr + nr)
        s.edge_at = book(&own, mr * nr)
    s.scratchpad = own.size
    if shared:
        s.panels = s.groups * ceil_div(s.rows, s.mc) * ceil_div(s.channels, s.block_channels)
        s.panels *= ceil_div(s.block_channels * p.weights.taps, s.kc)
        book(&common, panel)
        s.panel_pitch = common.size
        book(&common, (s.panels - 1) * s.panel_pitch)
        s.states_at = book(&common, s.panels * <Py_ssize_t> sizeof(PanelState) // itemsize)
        s.shared = common.size


cdef class ProductPlan:
    """A plan that computes result = w @ columns(source) + b for all groups and blocks.

    `dtype` is 0 (float32) or 1 (float64). `problem`, `tiling` and `layout` are the objects of these names in
    fastconv.convolution. `weight_layout` says how the weights lie in memory. Neighbouring rows of weights are
    `row_step` elements apart, and neighbouring channels of a row are `channel_step` elements apart. `weight_offsets`
    has, for each tap, the offset of its weight from the first weight of the channel.

    `cell_offsets` has, for each channel of a block and each tap, the offset of the cell that output 0 reads. Channels
    are `channel_pitch` elements apart. If `shared` is set, threads share packed weights. `probing` tells `run` to
    return False if a weight may be inf or NaN.
    """

    #: The number of elements of the scratchpad of a thread, and of the memory that all threads share.
    cdef readonly Py_ssize_t workspace, shared
    #: The number of work items, which are divided among threads.
    cdef readonly Py_ssize_t items
    #: The bytes of the arrays that the plan keeps.
    cdef readonly Py_ssize_t nbytes
    cdef Product _product
    cdef tuple _arrays    # The tuple keeps the arrays alive, because `_product` has pointers into them.
    cdef int _dtype
    cdef bint _probing
    cdef Py_ssize_t _sources, _results   # the numbers of elements of the source and of the result

    def __init__(
        self, *, int dtype, int isa, problem, tiling, layout, Py_ssize_t channel_pitch, cell_offsets, int weight_layout,
        Py_ssize_t row_step, Py_ssize_t channel_step, weight_offsets, bint shared, bint probing,
    ):
        cdef Product* p = &self._product
        cdef Sizes* s = &p.sizes
        cdef Py_ssize_t i
        cdef const fc_microkernel_kernels* table = microkernel_for(dtype, isa)
        phases = layout.phases()
        self._arrays, self._dtype, self._probing = (phases, cell_offsets, weight_offsets), dtype, probing
        self.nbytes = phases.nbytes + cell_offsets.nbytes + weight_offsets.nbytes
        set_conv_axes(p.axes, layout, phases)
        p.kernel = kernels(dtype, isa)
        p.tiles[0][0], p.tiles[0][1] = table.tile_listed, table.tile
        p.tiles[1][0], p.tiles[1][1] = table.tile_rows_listed, table.tile_rows
        p.cell_offsets = index_pointer(cell_offsets)
        p.weights.layout, p.weights.row_step, p.weights.channel_step = weight_layout, row_step, channel_step
        p.weights.offsets, p.weights.taps = index_pointer(weight_offsets), len(weight_offsets)
        s.images, s.groups, s.rows, s.channels = problem.images, problem.groups, problem.rows, problem.channels
        s.mc, s.block_channels, s.kc, s.tiles = tiling.mc, tiling.block_channels, tiling.kc, tiling.tiles
        s.mode, s.packing = tiling.blocking.mode, tiling.blocking.packing
        s.block_images, s.image_pitch, s.channel_pitch = layout.images, layout.image_pitch, channel_pitch
        s.volume = p.axes[0].size * p.axes[1].size * p.axes[2].size
        s.positions = p.axes[0].output_size * p.axes[1].output_size * p.axes[2].output_size
        s.items = ceil_div(s.rows, s.mc) * s.groups * ceil_div(s.images, s.block_images)
        for i in range(3):
            s.items *= ceil_div(p.axes[i].out, p.axes[i].block)
        fc_check(len(cell_offsets) == s.block_channels * p.weights.taps and 0 < s.tiles <= MOST_TILES)
        self._sources = s.images * s.groups * s.channels * s.volume
        self._results = s.images * s.groups * s.rows * s.positions
        divide_workspace(p, 8 if dtype else 4, shared)
        self.items, self.workspace, self.shared = s.items, s.scratchpad, s.shared

    def run(self, source, w, b, result, workspace, queue):
        """Run the plan. All arrays have the dtype of the plan. `workspace` holds a scratchpad for each thread, followed
        by `shared` elements.

        `b` may be None. `queue` may be None if there are no workers. If `probing` is set, return False if the first
        result of any row is inf or NaN, and True otherwise. The first result is enough to find a weight that is inf or
        NaN, because every result of a row is a sum of products with all weights of that row. Even the product of such a
        weight with a zero of the padding is NaN.
        """
        cdef const Sizes* s = &self._product.sizes
        cdef ProductCall call
        cdef bint finite = True
        cdef Py_ssize_t itemsize = 8 if self._dtype else 4
        cdef fc_work_queue own
        cdef Buffer weights = contiguous_buffer(w, itemsize, False)
        cdef Buffer scratchpads = contiguous_buffer(workspace, itemsize, True)
        cdef Buffer sources = contiguous_buffer(source, itemsize, False)
        cdef Buffer results = contiguous_buffer(result, itemsize, True)
        call.plan = &self._product
        call.source, call.w, call.result = sources.at, weights.at, results.at
        call.bias = NULL if b is None else contiguous_buffer(b, itemsize, False).at
        call.group_step = weights.n // s.groups
        call.scratchpads, call.workers = scratchpads.at, (scratchpads.n - s.shared) // s.scratchpad
        call.panels = <char*> call.scratchpads + call.workers * s.scratchpad * itemsize
        call.states = <PanelState*> (<char*> call.panels + s.states_at * itemsize)
        memset(call.states, 0, s.panels * sizeof(PanelState))
        if queue is None:
            fc_serial_queue(&own)
            call.queue = &own
        else:
            call.queue = work_queue(queue)
        with nogil:
            fc_check(sources.n == self._sources and results.n == self._results)
            fc_parallel_for(call.queue, product_of_double if self._dtype else product_of_float, &call)
            if self._probing:
                if self._dtype:
                    finite = rows_begin_finite(&call, <double*> NULL)
                else:
                    finite = rows_begin_finite(&call, <float*> NULL)
        return finite
