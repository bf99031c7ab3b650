/* Time fft.h: correlations of a plane in tiles, and products of spectra.
 *
 * A transform of n complex numbers counts as 5 n log2(n) operations. */
#include "driver.h"
#include "fft_call.h"

static void time_call(const driver_pair *pair, const ptrdiff_t *high, const ptrdiff_t *wide)
{
    static const ptrdiff_t one[] = {1, 0};
    const ptrdiff_t *of[3] = {one, high, wide};
    const double points = (double)(high[0] * wide[0]), transform = 5 * points * log2(points);
    double pairs;
    fft_call call;
    begin_fft_call(&call, pair->dtype, pair->isa, of, 0, 0);
    /* Two tiles are the real and the imaginary part of one transform. There is one more transform for the weights. */
    pairs = (double)((call.plan.tiles + 1) / 2);
    TIME(pair, (2 * pairs + 1) * transform + 6 * pairs * points, 0, fc_fft_run(&call.task),
         "correlation, tiles of %td x %td points", high[0], wide[0]);
    end_fft_call(&call);
}

static void time_products(const driver_pair *pair, const fc_fft_kernels *kernels, ptrdiff_t n_x, ptrdiff_t n_k,
                          ptrdiff_t n)
{
    /* A spectrum is some rows of two vectors each, the real and the imaginary parts. */
    const ptrdiff_t rows = 8, spectrum = rows * 2 * pair->lanes;
    void *x = numbers(pair->dtype, n_x * n * spectrum), *k = numbers(pair->dtype, n_k * n * spectrum);
    void *out = zeros(pair->dtype, n_x * n_k * spectrum);
    const fc_fft_product product = {.x = x,
                                    .k = k,
                                    .out = out,
                                    .n_x = n_x,
                                    .n_k = n_k,
                                    .n = n,
                                    .x_pitch = n * spectrum,
                                    .x_step = spectrum,
                                    .k_pitch = n * spectrum,
                                    .k_step = spectrum,
                                    .out_x = n_k * spectrum,
                                    .out_k = spectrum};
    TIME(pair, 8.0 * (double)(n_x * n_k * n * rows * pair->lanes), 0, kernels->multiply(&product, 0, rows),
         "multiply, %td x %td spectra, %td terms", n_x, n_k, n);
    free(x), free(k), free(out);
}

FAMILY(fft)
{
    static const ptrdiff_t lengths[][3] = {{16, 2, 8}, {32, 4, 8}, {64, 8, 8}};
    int i;
    for (i = 0; i < 3; i++)
        time_call(pair, lengths[i], lengths[i]);
    time_products(pair, kernels, 1, 1, 16);
    time_products(pair, kernels, 2, 4, 16);
    time_products(pair, kernels, 4, 8, 16);
}
