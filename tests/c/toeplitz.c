/* The copies of a list of matrix entries to several rows: toeplitz.h. */
#include "check.h"
#include "toeplitz/toeplitz.h"

/* Each row has the same values. The columns of each row are those of the list, plus first + row * step. */
static void check(int dtype, int isa, int wide_index, ptrdiff_t n)
{
    enum { ROWS = 5, FIRST = 7, STEP = 3 };
    const fc_toeplitz_kernels *kernels = fc_toeplitz_for(dtype);
    void *values = numbers(dtype, n + FC_CHUNK), *data = zeros(dtype, ROWS * n);
    int64_t *columns = (int64_t *)calloc((size_t)(n + FC_CHUNK), 8),
            *indices = (int64_t *)calloc((size_t)(ROWS * n), 8);
    ptrdiff_t row, i;
    for (i = 0; i < n; i++) {
        if (wide_index)
            columns[i] = 2 * i;
        else
            ((int32_t *)columns)[i] = (int32_t)(2 * i);
    }
    (wide_index ? kernels->repeat_i64 : kernels->repeat_i32)(values, columns, n, data, indices, ROWS, FIRST, STEP);
    for (row = 0; row < ROWS; row++)
        for (i = 0; i < n; i++) {
            const ptrdiff_t at = row * n + i;
            const double column = wide_index ? (double)indices[at] : (double)((int32_t *)indices)[at];
            near_to("value", dtype, isa, get(dtype, data, at), get(dtype, values, i), 0);
            near_to("column", dtype, isa, column, (double)(2 * i + FIRST + row * STEP), 0);
        }
    free(values), free(data), free(columns), free(indices);
}

int main(void)
{
    int dtype, isa, index;
    ptrdiff_t n;
    EACH_COPY(dtype, isa)
    for (index = 0; index < 2; index++)
        for (n = 1; n <= 70; n++)
            check(dtype, isa, index, n);
    return finish("toeplitz");
}
