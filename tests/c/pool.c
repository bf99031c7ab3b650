/* Check pool.h: pooling of 2 x 2 cells at a stride of 2. */
#include "check.h"
#include "pool/pool.h"

static void check(int dtype, int isa, ptrdiff_t width)
{
    enum { ROWS = 3 };
    const ptrdiff_t wide = width / 2, cells = 2 * ROWS * width, outputs = ROWS * wide;
    char *x = numbers(dtype, cells), *out = zeros(dtype, outputs), *x_end = x + (size_t)cells * size_of(dtype);
    char *out_end = out + (size_t)outputs * size_of(dtype);
    const fc_pool_kernels *kernels = fc_pool_for(dtype, isa);
    int32_t *where = malloc((size_t)outputs * sizeof *where);
    ptrdiff_t row, i, k;
    int op;
    set(dtype, x, width + 1, (double)NAN);
    kernels->forward_2x2(x, x_end, width, 100, out, where, out_end, ROWS);
    for (row = 0; row < ROWS; row++)
        for (i = 0; i < wide; i++) {
            const ptrdiff_t corner = 2 * row * width + 2 * i, window[] = {0, 1, width, width + 1};
            ptrdiff_t best = corner;
            for (k = 1; k < 4; k++) {
                const double value = get(dtype, x, corner + window[k]), held = get(dtype, x, best);
                if (!(value <= held) && held == held)
                    best = corner + window[k];
            }
            same("maximum", dtype, isa, get(dtype, out, row * wide + i), get(dtype, x, best));
            same("its place", dtype, isa, where[row * wide + i], (double)(100 + best));
        }
    for (op = 0; op < 2; op++) {
        (op ? kernels->norm_2x2 : kernels->mean_2x2)(x, x_end, width, out, out_end, ROWS);
        for (row = 0; row < ROWS; row++)
            for (i = 0; i < wide; i++) {
                const ptrdiff_t corner = 2 * row * width + 2 * i, window[] = {0, 1, width, width + 1};
                double sum = 0;
                for (k = 0; k < 4; k++)
                    sum += pow(get(dtype, x, corner + window[k]), op + 1);
                near_to(op ? "norm" : "mean", dtype, isa, get(dtype, out, row * wide + i), op ? sqrt(sum) : sum / 4, 8);
            }
    }
    free(x), free(out), free(where);
}

int main(void)
{
    int dtype, isa;
    ptrdiff_t width;
    EACH_COPY(dtype, isa)
    for (width = 2; width < 80; width++)
        check(dtype, isa, width);
    return finish("pool");
}
