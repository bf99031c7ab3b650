/* Time separable.h: square kernels that are outer products, over one plane. */
#include "driver.h"
#include "separable/separable.h"

static void time_kernel(const driver_pair *pair, const fc_separable_kernels *kernels, ptrdiff_t size, ptrdiff_t cells)
{
    /* Along each axis, `phase` has the outputs, and the factors follow those of the axis before. Along D, the one
     * factor is 1. */
    const ptrdiff_t pad = size / 2, row = cells + size + pair->lanes;
    const fc_conv_axis deep = {.out = 1, .output_stride = 1, .dilation = 1, .taps = 1, .factors = 0};
    const fc_conv_axis high = {.out = cells, .output_stride = 1, .lo = pad, .dilation = 1, .taps = size, .factors = 1};
    const fc_conv_axis wide = {
        .out = cells, .output_stride = 1, .lo = pad, .dilation = 1, .taps = size, .factors = 1 + size};
    void *x = numbers(pair->dtype, cells * cells), *factors = numbers(pair->dtype, 1 + 2 * size);
    void *result = zeros(pair->dtype, cells * cells), *space = zeros(pair->dtype, (cells + 3) * row);
    const fc_separable call = {
        .axes = {{.size = 1, .output_size = 1, .stride = 1, .phases = 1, .out = 1, .block = 1, .phase = &deep},
                 {.size = cells,
                  .output_size = cells,
                  .stride = 1,
                  .phases = 1,
                  .out = cells,
                  .block = cells,
                  .pad = pad,
                  .halo = size - 1,
                  .phase = &high},
                 {.size = cells,
                  .output_size = cells,
                  .stride = 1,
                  .phases = 1,
                  .out = cells,
                  .block = cells,
                  .pad = pad,
                  .halo = size - 1,
                  .phase = &wide}},
        .images = 1,
        .channels = 1,
        .shared = 1,
        .sources = 1,
        .entries = 1 + 2 * size,
        .flat = 1,
        .border = FC_ZEROS,
        .pitch = row,
        .split_at = cells * row,
        .row_at = cells * row,
        .planes_at = (cells + 1) * row,
        .space = (cells + 3) * row,
        .x = x,
        .factors = factors,
        .result = result};
    set(pair->dtype, factors, 0, 1);
    TIME(pair, 4.0 * (double)(size * cells * cells), 0, kernels->block(&call, 0, space),
         "block, %td x %td taps, %td x %td cells", size, size, cells, cells);
    free(x), free(factors), free(result), free(space);
}

FAMILY(separable)
{
    time_kernel(pair, kernels, 3, 56);
    time_kernel(pair, kernels, 5, 56);
    time_kernel(pair, kernels, 11, 112);
}
