"""Implicit GEMM: the matrix product of weights and im2col columns. The matrix of columns is never built, because
packing reads the image itself.

This module computes forward and backward_data. Vector lanes hold positions, or filters if there are few positions.
fastconv.convolution.implicit_gemm.calls divides the work into items, and makes all tables that are read here.
"""

from libc.string cimport memset

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.gemm.product cimport MOST_TILES, Product, product_of_double, product_of_float, rows_begin_finite
from fastconv._ext.gemm.microkernel cimport fc_microkernel_kernels, kernels, microkernel_for
from fastconv._ext.packing.panels cimport read_sizes
from fastconv._ext.packing.patches cimport read_conv_axes
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport fc_parallel_for, fc_serial_queue, fc_work_queue, work_queue


cdef class Multiply:
    """A plan that computes result = w @ columns(source) + bias for all groups and blocks.

    `dtype` is 0 (float32) or 1 (float64). Each thread has `space_pitch` elements of the workspace.
    `probing` tells `run` to return False if a weight may be inf or NaN.
    """

    cdef Product _product
    cdef tuple _tables    # The tuple keeps the tables alive, because `_product` has pointers into them.
    cdef int _dtype
    cdef bint _probing
    cdef Py_ssize_t _sources, _results

    def __init__(self, int dtype, axes, phases, sizes, at, tap_of, Py_ssize_t space_pitch, int isa, bint probing):
        cdef Product* p = &self._product
        cdef Py_ssize_t i
        cdef const fc_microkernel_kernels* table = microkernel_for(dtype, isa)
        cdef Buffer of_phases = contiguous_buffer(phases, sizeof(Py_ssize_t), False)
        self._tables, self._dtype, self._probing = (axes, phases, sizes, at, tap_of), dtype, probing
        p.at, p.tap_of = index_pointer(at), index_pointer(tap_of)
        p.space_pitch = space_pitch
        p.sizes = read_sizes(index_pointer(sizes))
        fc_check(0 < p.sizes.tiles <= MOST_TILES)
        read_conv_axes(p.axes, index_pointer(axes), <Py_ssize_t*> of_phases.at, of_phases.n // 3)
        p.kernel = kernels(dtype, isa)
        p.tiles[0][0], p.tiles[0][1] = table.tile_listed, table.tile
        p.tiles[1][0], p.tiles[1][1] = table.tile_rows_listed, table.tile_rows
        p.volume = p.axes[0].size * p.axes[1].size * p.axes[2].size
        p.positions = p.axes[0].output_size * p.axes[1].output_size * p.axes[2].output_size
        p.items = ceil_div(p.sizes.rows, p.sizes.mc) * p.sizes.groups
        p.items *= ceil_div(p.sizes.images, p.sizes.block_images)
        for i in range(3):
            p.items *= ceil_div(p.axes[i].out, p.axes[i].block)
        self._sources = p.sizes.images * p.sizes.groups * p.sizes.channels * p.volume
        self._results = p.sizes.images * p.sizes.groups * p.sizes.rows * p.positions

    def run(self, source, w, bias, result, space, queue):
        """Run the plan. All arrays have the dtype of the plan. `space` holds a workspace for each thread, followed by
        the panels that threads share.

        `bias` may be None. `queue` may be None if there are no workers. If `probing` is set, return False if the
        first result of any row is inf or NaN, and True otherwise. The first result is enough to find a weight that is
        inf or NaN, because every result of a row is a sum of products with all weights of that row. Even the product of
        such a weight with a zero of the padding is NaN.
        """
        cdef Product p = self._product
        cdef bint finite = True
        cdef Py_ssize_t itemsize = 8 if self._dtype else 4, shared
        cdef fc_work_queue own
        cdef Buffer weights = contiguous_buffer(w, itemsize, False)
        cdef Buffer workspace = contiguous_buffer(space, itemsize, True)
        cdef Buffer sources = contiguous_buffer(source, itemsize, False)
        cdef Buffer results = contiguous_buffer(result, itemsize, True)
        p.source, p.w, p.result = sources.at, weights.at, results.at
        p.bias = NULL if bias is None else contiguous_buffer(bias, itemsize, False).at
        shared = p.sizes.panels * (p.sizes.panel_pitch + 2 * <Py_ssize_t> sizeof(Py_ssize_t) // itemsize)
        p.space, p.workspaces = workspace.at, (workspace.n - shared) // p.space_pitch
        p.shared = <char*> p.space + p.workspaces * p.space_pitch * itemsize
        p.flags = <Py_ssize_t*> (<char*> p.shared + p.sizes.panels * p.sizes.panel_pitch * itemsize)
        memset(p.flags, 0, 2 * p.sizes.panels * sizeof(Py_ssize_t))
        if queue is None:
            fc_serial_queue(&own)
            p.queue = &own
        else:
            p.queue = work_queue(queue)
        with nogil:
            p.group_step = weights.n // p.sizes.groups
            fc_check(sources.n == self._sources and results.n == self._results)
            fc_parallel_for(p.queue, product_of_double if self._dtype else product_of_float, &p)
            if self._probing:
                if self._dtype:
                    finite = rows_begin_finite(&p, <double*> NULL)
                else:
                    finite = rows_begin_finite(&p, <float*> NULL)
        return finite
