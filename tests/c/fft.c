/* Check fft.h: transforms of strips, borders, products, and whole correlations and gradients, of planes and volumes. */
#include "check.h"
#include "fft_call.h"

/* The lengths of the transforms below, and their radices. */
static const ptrdiff_t transforms[][4] = {{1, 0}, {6, 2, 3}, {20, 5, 4}, {24, 3, 8}, {16, 2, 8}, {40, 5, 8}};

static void check_borders(void)
{
    fc_fft_tile_axis tile_axis = {5, 1, 2, -7, 12, FC_FFT_ZEROS};
    static const ptrdiff_t wanted[4][12] = {{-1, -1, -1, -1, 1, 3, -1, -1, -1, -1, -1, -1},
                                            {1, 3, 3, 1, 1, 3, 3, 1, 1, 3, 3, 1},
                                            {0, 0, 0, 0, 1, 3, 4, 4, 4, 4, 4, 4},
                                            {3, 0, 2, 4, 1, 3, 0, 2, 4, 1, 3, 0}};
    ptrdiff_t p;
    for (tile_axis.border = 0; tile_axis.border < 4; tile_axis.border++)
        for (p = 0; p < 12; p++)
            same("a cell", 0, 0, (double)fc_fft_cell(&tile_axis, p), (double)wanted[tile_axis.border][p]);
    tile_axis.border = FC_FFT_ZEROS;
    for (p = 0; p < 14; p++)
        same("any cell", 0, 0, fc_fft_has_cell(&tile_axis, p, 2), p >= 3 && p <= 5);
    same("no cell past the last position", 0, 0, (double)fc_fft_cell(&tile_axis, 12), -1);
}

/* result[p] = sum of source[p + t] * weights[t], or the gradient of the weights, in tiles of some size. */
static void check_call(int dtype, int isa, const ptrdiff_t *const *of, int gradient, int shared)
{
    fft_call call;
    double *sums, scale = 0;
    ptrdiff_t results, p, t;
    begin_fft_call(&call, dtype, isa, of, gradient, shared);
    results = gradient ? call.w_count : call.out_count;
    sums = (double *)zeros(1, results);
    for (p = 0; p < call.out_count; p++)
        for (t = 0; t < call.w_count; t++) {
            const ptrdiff_t *const outs = call.outs, *const taps = call.taps, *const sizes = call.sizes;
            const ptrdiff_t d = p / (outs[1] * outs[2]) + t / (taps[1] * taps[2]);
            const ptrdiff_t h = p / outs[2] % outs[1] + t / taps[2] % taps[1], c = p % outs[2] + t % taps[2];
            const double cell = get(dtype, call.x, (d * sizes[1] + h) * sizes[2] + c);
            sums[gradient ? t : p] += cell * get(dtype, gradient ? call.out : call.w, gradient ? p : t);
        }
    for (p = 0; p < results; p++)
        scale = fmax(scale, fabs(sums[p]));
    same("a call", dtype, isa, fc_fft_run(&call.task), 0);
    for (p = 0; p < results; p++)
        near_to(gradient ? "a gradient" : "a correlation", dtype, isa, get(dtype, gradient ? call.w : call.out, p),
                sums[p], 1 + scale);
    same("finite", dtype, isa, (double)call.counts[0], 0);
    end_fft_call(&call), free(sums);
}

static void check_products(int dtype, int isa)
{
    const ptrdiff_t lanes = fc_isa_lanes(dtype, isa), row = 2 * lanes, rows = 3;
    ptrdiff_t of_x, of_k, n, a, b, k, i;
    for (of_x = 1; of_x < 4; of_x++)
        for (of_k = 1; of_k < 7; of_k++)
            for (n = 1; n < 4; n++) {
                void *x = numbers(dtype, of_x * n * rows * row), *w = numbers(dtype, of_k * n * rows * row);
                void *out = numbers(dtype, of_x * of_k * rows * row);
                fc_fft_product m = {0};
                double first = get(dtype, out, row);
                m.x = x, m.k = w, m.out = out, m.n_x = of_x, m.n_k = of_k, m.n = n;
                m.x_pitch = m.k_pitch = n * rows * row;
                m.x_step = m.k_step = rows * row;
                m.out_x = of_k * rows * row, m.out_k = rows * row;
                m.add = n % 2;
                fc_fft_for(dtype, isa)->multiply(&m, 1, rows);
                for (a = 0; a < of_x; a++)
                    for (b = 0; b < of_k; b++)
                        for (i = row; i < rows * row; i += i % row == lanes - 1 ? lanes + 1 : 1) {
                            double re = 0, im = 0;
                            for (k = 0; k < n; k++) {
                                const ptrdiff_t at = (a * n + k) * rows * row + i, of = (b * n + k) * rows * row + i;
                                const double xr = get(dtype, x, at), xi = get(dtype, x, at + lanes);
                                const double kr = get(dtype, w, of), ki = get(dtype, w, of + lanes);
                                re += xr * kr + xi * ki;
                                im += xi * kr - xr * ki;
                            }
                            if (m.add && a + b > 0)
                                continue; /* only the first had a known value before */
                            if (m.add && i == row)
                                re += first;
                            else if (m.add)
                                continue;
                            near_to("a product", dtype, isa, get(dtype, out, (a * of_k + b) * rows * row + i), re, 200);
                            if (!m.add)
                                near_to("its imaginary part", dtype, isa,
                                        get(dtype, out, (a * of_k + b) * rows * row + i + lanes), im, 200);
                        }
                free(x), free(w), free(out);
            }
}

int main(void)
{
    int dtype, isa, high, wide, deep, shared, gradient;
    check_borders();
    EACH_COPY(dtype, isa)
    {
        check_products(dtype, isa);
        for (deep = 0; deep < 2; deep++)
            for (high = 1; high < 6; high++)
                for (wide = 1; wide < 6; wide++)
                    for (shared = 0; shared < 2; shared++)
                        for (gradient = 0; gradient < 2; gradient++) {
                            const ptrdiff_t *of[3] = {transforms[deep], transforms[high], transforms[wide]};
                            check_call(dtype, isa, of, gradient, shared);
                        }
    }
    return finish("fft");
}
