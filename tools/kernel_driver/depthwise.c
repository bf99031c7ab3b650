/* Time depthwise.h: square kernels over the rows of a padded block, and the gradient of their weights. */
#include "driver.h"
#include "depthwise/depthwise.h"

static void time_kernel(const driver_pair *pair, const fc_depthwise_kernels *kernels, ptrdiff_t size, ptrdiff_t n)
{
    enum { ROWS = 16, MOST = 5 };
    const ptrdiff_t pitch = n + size - 1, cells = (ROWS + size) * pitch + pair->lanes;
    ptrdiff_t at[MOST], of[MOST], i;
    void *x = numbers(pair->dtype, cells), *w = numbers(pair->dtype, size * size), *bias = numbers(pair->dtype, 1);
    void *out = zeros(pair->dtype, ROWS * n + pair->lanes);
    void *totals = zeros(pair->dtype, size * size * pair->lanes);
    const fc_taps taps = {
        .k = size, .high = size, .step = size, .at = at, .of = of, .w = w, .pitch = pitch, .to_pitch = n};
    const double operations = 2.0 * (double)(ROWS * n * size * size);
    for (i = 0; i < size; i++)
        at[i] = of[i] = i;
    TIME(pair, operations, 0, kernels->sweep(&taps, x, out, ROWS, n, bias, ROWS), "sweep, %td x %td taps, %d x %td",
         size, size, ROWS, n);
    TIME(pair, operations, 0, kernels->dots(&taps, x, out, ROWS, n, totals), "dots, %td x %td taps, %d x %td", size,
         size, ROWS, n);
    free(x), free(w), free(bias), free(out), free(totals);
}

FAMILY(depthwise)
{
    time_kernel(pair, kernels, 3, 14);
    time_kernel(pair, kernels, 3, 56);
    time_kernel(pair, kernels, 3, 112);
    time_kernel(pair, kernels, 5, 56);
}
