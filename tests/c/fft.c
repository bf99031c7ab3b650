/* Check fft.h: transforms of strips, borders, products, and whole correlations and gradients, of planes and volumes. */
#include "check.h"
#include "fft/fft.h"

enum { MOST = 128 };

/* The factors of all passes, one after another. */
static ptrdiff_t factors_of(int dtype, void *to, ptrdiff_t at, ptrdiff_t n, const ptrdiff_t *radices, ptrdiff_t passes)
{
    ptrdiff_t i, j, k;
    for (i = 0; i < passes; n /= radices[i++])
        for (j = 0; j < n / radices[i]; j++)
            for (k = 1; k < radices[i]; k++, at += 2) {
                const double angle = -2 * acos(-1.0) * (double)(j * k % n) / (double)n;
                set(dtype, to, at, cos(angle));
                set(dtype, to, at + 1, sin(angle));
            }
    return at;
}

/* The lengths of the transforms below, and their radices. */
static const ptrdiff_t transforms[][4] = {{1, 0}, {6, 2, 3}, {20, 5, 4}, {24, 3, 8}, {16, 2, 8}, {40, 5, 8}};

static ptrdiff_t passes_of(const ptrdiff_t *transform) { return transform[0] == 1 ? 0 : 2; }

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
    const ptrdiff_t taps[3] = {of[0][0] > 1 ? 2 : 1, of[1][0] / 3, of[2][0] / 2};
    ptrdiff_t sizes[3], outs[3], tile[3], n[3] = {1, 1, 1}, at = 0, i, p, q, t, rows, x_count = 1, out_count = 1, w_count = 1;
    fc_work_queue queue;
    ptrdiff_t counts[1] = {0};
    const ptrdiff_t lanes = fc_isa_lanes(dtype, isa);
    void *factors = zeros(dtype, 4 * MOST), *x, *w, *out, *space;
    double *sums, *scales;
    fc_fft_task task;
    fc_fft_array *arrays[3] = {&task.source, &task.weights, &task.result};
    memset(&task, 0, sizeof task);
    task.scale = 1;
    for (i = 0; i < 3; i++) {
        task.axes[i].length = of[i][0];
        task.axes[i].passes = passes_of(of[i]);
        task.axes[i].radices = of[i] + 1;
        task.axes[i].factors = (char *)factors + (size_t)at * size_of(dtype);
        at = factors_of(dtype, factors, at, of[i][0], of[i] + 1, passes_of(of[i]));
        task.scale /= (double)of[i][0];
        tile[i] = of[i][0] - taps[i] + 1;
        outs[i] = of[i][0] > 1 ? tile[i] + 2 : 1;
        sizes[i] = outs[i] + taps[i] - 1;
        n[i] = fc_fft_ceil_div(outs[i], tile[i]);
        x_count *= sizes[i], out_count *= outs[i], w_count *= taps[i];
        task.tau[i] = task.phi[i] = 1;
        task.tile[i] = tile[i];
        task.tiles_along[i] = n[i];
    }
    x = numbers(dtype, x_count), w = numbers(dtype, w_count), out = numbers(dtype, out_count);
    task.itemsize = (ptrdiff_t)size_of(dtype);
    task.groups = task.images = task.rows = task.columns = task.taus = task.phis = 1;
    task.tiles = n[0] * n[1] * n[2];
    task.block_rows = task.block_columns = task.block_pairs = task.block_groups = task.parts = 1;
    task.gradient = gradient, task.shared = shared, task.fused = 1, task.lanes = lanes;
    for (i = 0; i < 3; i++) {
        const ptrdiff_t *const sizes_of[3] = {sizes, taps, outs};
        fc_fft_array *array = arrays[i];
        array->tiled = i != 1;
        array->at = (char *)(i == 0 ? x : i == 1 ? w : out);
        for (p = 2, q = 1; p >= 0; p--) {
            array->size[p] = sizes_of[i][p];
            array->pitch[p] = q;
            array->step[p] = 1;
            array->positions[p] = PTRDIFF_MAX;
            array->count[p] = i == 0 ? of[p][0] : i == 1 ? taps[p] : tile[p];
            q *= sizes_of[i][p];
        }
    }
    rows = of[0][0] * fc_fft_ceil_div(of[1][0], lanes) * of[2][0] + 1;
    task.pitch = rows * 2 * lanes;
    q = (of[0][0] * of[1][0] * fc_fft_ceil_div(of[2][0], lanes) + 1) * 2 * lanes;
    task.flat_at = (of[0][0] > 1 ? of[0][0] : of[1][0]) * 2 * lanes;
    task.volume_at = task.flat_at + 2 * task.pitch;
    task.slot_pitch = task.volume_at + 2 * q;
    task.shared_at = task.slot_pitch;
    task.spectra_at = task.shared_at + 2 * (q > task.pitch ? q : task.pitch);
    /* This memory is not aligned to vectors, which no load may require. */
    space = zeros(dtype, task.spectra_at + task.pitch);
    task.space = (char *)space;
    task.counts = counts;
    fc_serial_queue(&queue);
    task.queue = &queue;
    task.part = fc_fft_for(dtype, isa)->part;
    task.multiply = fc_fft_for(dtype, isa)->multiply;
    task.add = fc_fft_for(dtype, isa)->add;

    sums = (double *)zeros(1, gradient ? w_count : out_count);
    scales = (double *)zeros(1, 1);
    for (p = 0; p < out_count; p++)
        for (t = 0; t < w_count; t++) {
            const ptrdiff_t d = p / (outs[1] * outs[2]) + t / (taps[1] * taps[2]);
            const ptrdiff_t h = p / outs[2] % outs[1] + t / taps[2] % taps[1], c = p % outs[2] + t % taps[2];
            const double cell = get(dtype, x, (d * sizes[1] + h) * sizes[2] + c);
            sums[gradient ? t : p] += cell * get(dtype, gradient ? out : w, gradient ? p : t);
        }
    for (p = 0; p < (gradient ? w_count : out_count); p++)
        scales[0] = fmax(scales[0], fabs(sums[p]));
    same("a call", dtype, isa, fc_fft_run(&task), 0);
    for (p = 0; p < (gradient ? w_count : out_count); p++)
        near_to(gradient ? "a gradient" : "a correlation", dtype, isa, get(dtype, gradient ? w : out, p), sums[p],
                1 + scales[0]);
    same("finite", dtype, isa, (double)counts[0], 0);
    free(factors), free(x), free(w), free(out), free(space), free(sums), free(scales);
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
