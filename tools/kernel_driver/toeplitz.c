/* Time toeplitz.h: the product of a sparse matrix with the columns of a dense one. */
#include "driver.h"
#include "toeplitz/toeplitz.h"

FAMILY(toeplitz)
{
    enum { ROWS = 64, COLUMNS = 256 };
    static const ptrdiff_t widths[] = {16, 64}, entries[] = {9, 72};
    ptrdiff_t row, i, j, k;
    for (i = 0; i < 2; i++)
        for (j = 0; j < 2; j++) {
            const ptrdiff_t width = widths[i], count = entries[j];
            int32_t *indices = malloc((size_t)(ROWS * count) * sizeof *indices), starts[ROWS + 1];
            void *data = numbers(pair->dtype, ROWS * count), *x = numbers(pair->dtype, COLUMNS * width);
            void *y = zeros(pair->dtype, ROWS * width);
            const fc_spmm product = {.data = data,
                                     .indices = indices,
                                     .indptr = starts,
                                     .x = x,
                                     .y = y,
                                     .width = width,
                                     .x_pitch = width,
                                     .y_pitch = width};
            if (indices == NULL)
                abort();
            for (row = 0; row <= ROWS; row++)
                starts[row] = (int32_t)(row * count);
            for (k = 0; k < ROWS * count; k++)
                indices[k] = (int32_t)((k / count + k % count * 3) % COLUMNS);
            TIME(pair, 2.0 * (double)(ROWS * count * width), 0, kernels->spmm_i32(&product, 0, ROWS),
                 "spmm_i32, %td entries a row, %td columns", count, width);
            free(indices), free(data), free(x), free(y);
        }
}
