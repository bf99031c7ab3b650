"""Convolution with few channels and filters in a group, for example with groups == C.

The kernels compute sums over taps instead of a matrix product, and vectors run along the rows of an image. A padded
block of an image is copied to a workspace that stays in the L1 cache, and is split into stride phases (see
packing/patches.pxd). Rows of the result are then summed in registers.

`product` computes forward and backward_data, and `weights` computes backward_weights. fastconv.convolution.depthwise
divides the work into items, and makes all tables that are read here. `dtype` is 0 (float32) or 1 (float64). `space` and
`lists` have a row for each thread. `queue` is the shared state of the call, which distributes the work among threads:
see threads/team.h.
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.depthwise.blocks cimport blocks_of
from fastconv._ext.depthwise.gradient cimport Weights, read_weight_sizes, weights_of_double, weights_of_float
from fastconv._ext.depthwise.kernels cimport fc_isa_lanes
from fastconv._ext.depthwise.product cimport PART_COLUMNS, Product, product_of_double, product_of_float, read_sizes
from fastconv._ext.packing.patches cimport ConvAxis, read_conv_axes
from fastconv._ext.buffers.runs cimport fc_all_finite_f32, fc_all_finite_f64, fc_check
from fastconv._ext.threads.team cimport fc_parallel_for, work_queue


def lanes(int dtype, int isa):
    """Return the number of lanes of a vector."""
    return fc_isa_lanes(dtype, isa)


def all_finite(array):
    """Return whether no element of a C-contiguous float32 or float64 array is inf or NaN."""
    cdef Py_ssize_t itemsize = array.itemsize
    cdef Buffer run = contiguous_buffer(array, itemsize, False)
    if itemsize == 8:
        return bool(fc_all_finite_f64(<const double*> run.at, run.n))
    return bool(fc_all_finite_f32(<const float*> run.at, run.n))


cdef int read_axes(ConvAxis* axes, table, phases) except -1:
    cdef Buffer of_phases = contiguous_buffer(phases, sizeof(Py_ssize_t), False)
    read_conv_axes(axes, index_pointer(table), <const Py_ssize_t*> of_phases.at, of_phases.n // 3)
    return 0


def product(
    int dtype, source, w, bias, result, axes, phases, sizes, parts, at, places, space, lists, int isa, queue,
):
    """Compute result = w * source + bias, where * is the convolution. `bias` may be empty. A work item is a block
    of one group of one image.
    """
    cdef Product p
    cdef Py_ssize_t itemsize = 8 if dtype else 4, number = sizeof(Py_ssize_t)
    cdef Buffer image = contiguous_buffer(source, itemsize, False), of_w = contiguous_buffer(w, itemsize, False)
    cdef Buffer of_bias = contiguous_buffer(bias, itemsize, False), of_parts = contiguous_buffer(parts, number, False)
    cdef Buffer blocks = contiguous_buffer(space, itemsize, True), of_lists = contiguous_buffer(lists, number, True)
    p.sizes = read_sizes(index_pointer(sizes))
    read_axes(p.axes, axes, phases)
    p.source, p.sources = image.at, image.n
    p.w, p.group_step = of_w.at, of_w.n // p.sizes.groups
    p.bias = of_bias.at if of_bias.n else NULL
    p.result = contiguous_buffer(result, itemsize, True).at
    p.parts, p.parts_count = <const Py_ssize_t*> of_parts.at, of_parts.n // PART_COLUMNS
    p.at, p.places = index_pointer(at), index_pointer(places)
    p.workspaces = space.shape[0]
    p.space, p.space_pitch = blocks.at, blocks.n // p.workspaces
    p.lists, p.lists_pitch = <Py_ssize_t*> of_lists.at, of_lists.n // p.workspaces
    p.volume = p.axes[0].size * p.axes[1].size * p.axes[2].size
    p.positions = p.axes[0].output_size * p.axes[1].output_size * p.axes[2].output_size
    p.blocks = blocks_of(p.axes)
    p.total = p.blocks * p.sizes.images * p.sizes.groups
    p.isa, p.queue = isa, work_queue(queue)
    with nogil:
        fc_check(of_parts.n == p.parts_count * PART_COLUMNS)
        fc_check(p.sizes.segments * 7 + 2 * p.sizes.sweeps * 6 <= p.lists_pitch)
        fc_parallel_for(p.queue, product_of_double if dtype else product_of_float, &p)


def weights(int dtype, source, dout, result, axes, phases, sizes, at, places, space, lists, int isa, queue):
    """Compute the gradient of the weights in partial sums. result[p] is the sum over the blocks p, p + parts,
    p + 2 * parts, and so on. Blocks are counted over all images, and `parts` is the number of partial sums.
    """
    cdef Weights t
    cdef Py_ssize_t itemsize = 8 if dtype else 4, number = sizeof(Py_ssize_t)
    cdef Buffer image = contiguous_buffer(source, itemsize, False), upstream = contiguous_buffer(dout, itemsize, False)
    cdef Buffer sums = contiguous_buffer(result, itemsize, True)
    cdef Buffer blocks = contiguous_buffer(space, itemsize, True), of_lists = contiguous_buffer(lists, number, True)
    t.sizes = read_weight_sizes(index_pointer(sizes))
    read_axes(t.axes, axes, phases)
    t.source, t.sources, t.dout, t.douts = image.at, image.n, upstream.at, upstream.n
    t.result, t.result_pitch = sums.at, sums.n // t.sizes.parts
    t.at, t.places = index_pointer(at), index_pointer(places)
    t.workspaces = space.shape[0]
    t.space, t.space_pitch = blocks.at, blocks.n // t.workspaces
    t.lists, t.lists_pitch = <Py_ssize_t*> of_lists.at, of_lists.n // t.workspaces
    t.volume = t.axes[0].size * t.axes[1].size * t.axes[2].size
    t.blocks = blocks_of(t.axes)
    t.total = t.sizes.parts * ceil_div(t.sizes.groups, t.sizes.block_groups)
    t.isa, t.queue = isa, work_queue(queue)
    with nogil:
        fc_parallel_for(t.queue, weights_of_double if dtype else weights_of_float, &t)
