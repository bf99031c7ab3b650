/* Time pool.h: pooling of 2 x 2 cells at a stride of 2, and its gradient. `bench-kernel` times larger windows. */
#include "driver.h"
#include "pool/pool.h"

FAMILY(pool)
{
    static const ptrdiff_t widths[] = {14, 56, 224};
    enum { ROWS = 7 };
    int i;
    for (i = 0; i < 3; i++) {
        const ptrdiff_t width = widths[i], cells = 2 * ROWS * width, outputs = ROWS * (width / 2);
        const size_t item = size_of(pair->dtype);
        char *x = numbers(pair->dtype, cells), *dx = zeros(pair->dtype, cells), *x_end = x + (size_t)cells * item;
        char *out = zeros(pair->dtype, outputs), *out_end = out + (size_t)outputs * item;
        char *dx_end = dx + (size_t)cells * item;
        int32_t *indices = calloc((size_t)outputs, sizeof *indices);
        const double bytes = (double)(cells + outputs) * pair->item, of_indices = (double)outputs * sizeof *indices;
        if (indices == NULL)
            abort();
        TIME(pair, 0, bytes + of_indices, kernels->forward_2x2(x, x_end, width, 0, out, indices, out_end, ROWS),
             "forward_2x2, %d x %td outputs", ROWS, width / 2);
        TIME(pair, 0, bytes + of_indices, kernels->backward_2x2(out, out_end, indices, width, 0, dx, dx_end, ROWS),
             "backward_2x2, %d x %td outputs", ROWS, width / 2);
        TIME(pair, 0, bytes, kernels->mean_2x2(x, x_end, width, out, out_end, ROWS), "mean_2x2, %d x %td outputs", ROWS,
             width / 2);
        TIME(pair, 0, bytes, kernels->norm_2x2(x, x_end, width, out, out_end, ROWS), "norm_2x2, %d x %td outputs", ROWS,
             width / 2);
        free(x), free(dx), free(out), free(indices);
    }
}
