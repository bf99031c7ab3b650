"""Winograd's minimal filtering: one matrix product for each interpolation point.

`product` computes forward and backward_data, and `weights` computes backward_weights. The image is first transposed to
channels-last. So the vector lanes of the transforms hold channels, and are full even if planes are small.
fastconv.convolution.winograd.tiles divides the work into items, and makes all tables that are read here. `dtype` is 0
(float32) or 1 (float64).
"""

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer, index_pointer
from fastconv._ext.buffers.blocks cimport ceil_div
from fastconv._ext.gemm.microkernel cimport microkernel_for
from fastconv._ext.buffers.runs cimport fc_check
from fastconv._ext.threads.team cimport fc_parallel_for
from fastconv._ext.winograd.gradient cimport weights_of_double, weights_of_float
from fastconv._ext.winograd.product cimport product_of_double, product_of_float
from fastconv._ext.winograd.tiles cimport Call, Sizes, read_call, total


def product(
    int dtype, source, w, bias, result, axes, sizes, offsets, taps, starts, planes, overflows, space, int isa, queue,
):
    """Compute result = w * source + bias, where * is the convolution. `bias` may be empty. `planes` are
    the offsets of the channels of an image. `space` has a row for each thread.

    Return 0 if the whole result is finite. Otherwise overflows[n] is above 0 for each image n with an inf or NaN.
    """
    cdef Call call
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Buffer weights = contiguous_buffer(w, itemsize, False), of_bias = contiguous_buffer(bias, itemsize, False)
    read_call(&call, sizes, axes, offsets, taps, overflows, space, dtype, isa, queue)
    call.tile = microkernel_for(dtype, isa).tile_rows
    call.source = contiguous_buffer(source, itemsize, False).at
    call.result = contiguous_buffer(result, itemsize, True).at
    call.w, call.group_step = weights.at, weights.n // call.sizes.groups
    call.bias = of_bias.at if of_bias.n else NULL
    call.starts, call.planes = index_pointer(starts), index_pointer(planes)
    call.items = ceil_div(call.sizes.rows, call.sizes.block_rows) * call.sizes.groups * call.blocks
    with nogil:
        fc_check(call.counts == call.sizes.images)
        fc_parallel_for(call.queue, product_of_double if dtype else product_of_float, &call)
    return total(&call)


def weights(
    int dtype, source, dout, result, axes, sizes, offsets, taps, planes, filter_planes, overflows, space, int isa,
    queue,
):
    """Compute the gradient of w in partial sums. result[p] is the sum over the blocks p, p + parts, p + 2 * parts, and
    so on, where `parts` is the number of partial sums.

    Return 0 if all partial sums are finite, and a number above 0 otherwise.
    """
    cdef Call call
    cdef const Sizes* s = &call.sizes
    cdef Py_ssize_t itemsize = 8 if dtype else 4
    cdef Buffer sums = contiguous_buffer(result, itemsize, True)
    read_call(&call, sizes, axes, offsets, taps, overflows, space, dtype, isa, queue)
    call.tile = microkernel_for(dtype, isa).tile_strided
    call.source = contiguous_buffer(source, itemsize, False).at
    call.dout = contiguous_buffer(dout, itemsize, False).at
    call.result, call.part_pitch = sums.at, sums.n // s.parts
    call.planes, call.filter_planes = index_pointer(planes), index_pointer(filter_planes)
    call.items = s.parts * s.groups * ceil_div(s.rows, s.block_rows) * ceil_div(s.channels, s.block_channels)
    with nogil:
        fc_parallel_for(call.queue, weights_of_double if dtype else weights_of_float, &call)
    return total(&call)
