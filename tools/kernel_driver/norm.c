/* Time norm.h: moments of groups and of columns, scaling by them, and the gradient. */
#include "driver.h"
#include "norm/norm.h"

FAMILY(norm)
{
    /* Groups are channels of 8 images of 28 x 28 cells. Columns are features of 256 examples. */
    enum { COUNT = 4, RUNS = 8, N = 784, ROWS = 256, COLUMNS = FC_COLUMNS };
    const fc_norm_groups groups = {.runs = RUNS, .n = N, .run_pitch = COUNT * N, .count = COUNT, .group_pitch = N};
    const fc_norm_groups columns = {.runs = ROWS, .n = COLUMNS, .run_pitch = COLUMNS, .count = 1};
    const ptrdiff_t size = COUNT * RUNS * N;
    void *x = numbers(pair->dtype, size), *dout = numbers(pair->dtype, size), *y = zeros(pair->dtype, size);
    double mean[COLUMNS] = {0}, scale[COLUMNS] = {0}, sums[2 * COLUMNS];
    const double bytes = (double)size * pair->item, of_columns = ROWS * COLUMNS * pair->item;
    TIME(pair, 0, bytes, kernels->moments(x, groups, mean, scale), "moments, %d groups of %d", COUNT, RUNS * N);
    TIME(pair, 0, 2 * bytes, kernels->scale(x, y, groups, mean, scale, scale, mean), "scale");
    TIME(pair, 0, 2 * bytes, kernels->products(dout, x, groups, mean, scale, sums), "products");
    TIME(pair, 0, 3 * bytes, kernels->combine(dout, x, y, groups, mean, scale, scale, mean, mean), "combine");
    TIME(pair, 0, of_columns, kernels->column_moments(x, columns, mean, scale), "column_moments, %d x %d", ROWS,
         COLUMNS);
    TIME(pair, 0, 2 * of_columns, kernels->column_scale(x, y, columns, mean, scale, mean), "column_scale");
    TIME(pair, 0, 3 * of_columns, kernels->column_combine(dout, x, y, columns, mean, scale, scale, mean),
         "column_combine");
    free(x), free(dout), free(y);
}
