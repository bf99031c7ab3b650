/* Check depthwise.h: few taps over the rows of an image, and the gradient of the taps. */
#include "check.h"
#include "depthwise/depthwise.h"

enum { K = 4, SLACK = 16 };

static void check(int dtype, int isa, ptrdiff_t high, ptrdiff_t rows, ptrdiff_t n)
{
    const int lanes = fc_isa_lanes(dtype, isa);
    const ptrdiff_t pitch = n + K, tall = rows + high, of[K] = {0, 1, 2, 3};
    const ptrdiff_t at[K] = {0, 1, pitch, pitch + 3}, place[5] = {0, 1, 2, 3, 4};
    void *x = numbers(dtype, tall * pitch + pitch + SLACK), *w = numbers(dtype, K * high), *bias = numbers(dtype, 1);
    void *to = zeros(dtype, rows * n + SLACK), *dout = numbers(dtype, rows * n + SLACK);
    void *totals = zeros(dtype, K * high * lanes), *dw = zeros(dtype, K * high);
    const fc_taps taps = {K, high, K, at, of, w, pitch, n};
    ptrdiff_t row, i, j, h;
    fc_depthwise_for(dtype, isa)->sweep(&taps, x, to, rows, n, bias, 0);
    for (row = 0; row < rows; row++)
        for (i = 0; i < n; i++) {
            double sum = get(dtype, bias, 0);
            for (j = 0; j < K; j++)
                for (h = 0; h < high; h++)
                    sum += get(dtype, w, of[j] + h * K) * get(dtype, x, at[j] + (row + h) * pitch + i);
            near_to("sweep", dtype, isa, get(dtype, to, row * n + i), sum, 400);
        }
    fc_depthwise_for(dtype, isa)->dots(&taps, x, dout, rows, n, totals);
    for (i = 0; i < K; i++)
        fc_depthwise_for(dtype, isa)
            ->lanes((char *)totals + (size_t)(i * high * lanes) * size_of(dtype), high, high, place,
                    (char *)dw + (size_t)(i * high) * size_of(dtype));
    for (j = 0; j < K; j++)
        for (h = 0; h < high; h++) {
            double sum = 0;
            for (row = 0; row < rows; row++)
                for (i = 0; i < n; i++)
                    sum += get(dtype, dout, row * n + i) * get(dtype, x, at[j] + (row + h) * pitch + i);
            near_to("dots", dtype, isa, get(dtype, dw, j * high + h), sum, 16.0 * (double)(rows * n));
        }
    free(x), free(w), free(bias), free(to), free(dout), free(totals), free(dw);
}

int main(void)
{
    int dtype, isa;
    ptrdiff_t high, rows, n;
    EACH_COPY(dtype, isa)
    for (high = 1; high <= 5; high += 2)
        for (rows = 1; rows < 8; rows++)
            for (n = 1; n < 140; n += n < 36 ? 1 : 17)
                check(dtype, isa, high, rows, n);
    return finish("depthwise");
}
