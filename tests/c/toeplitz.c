/* The product of a sparse matrix and columns: toeplitz.h. */
#include "check.h"
#include "toeplitz/toeplitz.h"

static void check(int dtype, int isa, int wide_index, ptrdiff_t width)
{
    enum { ROWS = 6, CELLS = 11, MOST = ROWS * 13 };
    int32_t short_indices[MOST], short_starts[ROWS + 1];
    int64_t long_indices[MOST], long_starts[ROWS + 1];
    void *data = numbers(dtype, MOST), *x = numbers(dtype, CELLS * width), *y = zeros(dtype, ROWS * width);
    const fc_toeplitz_kernels *kernels = fc_toeplitz_for(dtype, isa);
    fc_spmm product = {data, NULL, NULL, x, y, width, width, width};
    ptrdiff_t row, i, j, n = 0;
    for (row = 0; row < ROWS; row++) {
        short_starts[row] = (int32_t)(long_starts[row] = n);
        for (i = 0; i < (row == 2 ? 0 : 2 * row + 3); i++, n++)
            short_indices[n] = (int32_t)(long_indices[n] = (i * 3 + row) % CELLS);
    }
    short_starts[ROWS] = (int32_t)(long_starts[ROWS] = n);
    product.indices = wide_index ? (const void *)long_indices : (const void *)short_indices;
    product.indptr = wide_index ? (const void *)long_starts : (const void *)short_starts;
    (wide_index ? kernels->spmm_i64 : kernels->spmm_i32)(&product, 0, ROWS);
    for (row = 0; row < ROWS; row++)
        for (j = 0; j < width; j++) {
            double sum = 0;
            for (i = short_starts[row]; i < short_starts[row + 1]; i++)
                sum += get(dtype, data, i) * get(dtype, x, short_indices[i] * width + j);
            near_to("product", dtype, isa, get(dtype, y, row * width + j), sum, 250);
        }
    free(data), free(x), free(y);
}

int main(void)
{
    int dtype, isa, index;
    ptrdiff_t width;
    EACH_COPY(dtype, isa)
    for (index = 0; index < 2; index++)
        for (width = 16; width <= 320; width += 16)
            check(dtype, isa, index, width);
    return finish("toeplitz");
}
