/* Time toeplitz.h: the copies of a list of matrix entries to several rows. */
#include "driver.h"
#include "toeplitz/toeplitz.h"

BASELINE_FAMILY(toeplitz)
{
    enum { ROWS = 256 };
    static const ptrdiff_t entries[] = {9, 72, 576};
    ptrdiff_t i, k;
    for (i = 0; i < 3; i++) {
        const ptrdiff_t count = entries[i];
        int32_t *columns = calloc((size_t)(count + FC_CHUNK), sizeof *columns);
        int32_t *indices = calloc((size_t)(ROWS * count), sizeof *indices);
        void *values = numbers(pair->dtype, count + FC_CHUNK), *data = zeros(pair->dtype, ROWS * count);
        if (columns == NULL || indices == NULL)
            abort();
        for (k = 0; k < count; k++)
            columns[k] = (int32_t)(3 * k);
        TIME(pair, 0, (double)(ROWS * count) * (pair->item + sizeof *indices),
             kernels->repeat_i32(values, columns, count, data, indices, ROWS, 0, 1), "repeat_i32, %td entries a row",
             count);
        free(columns), free(indices), free(values), free(data);
    }
}
