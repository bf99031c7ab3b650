/* Check pool_running.h: steps along a row and from row to row, against loops over windows. */
#include "check.h"
#include "pool/pool_running.h"

enum { SLACK = 64, WIDE = 61, PLANES = 2 };

/* Steps to a window of 6 cells: sums over 1, 2, 3, 6 cells, and maxima over 1, 2, 4, 6 cells. */
static const ptrdiff_t sums[] = {1, 1, 3}, plus[] = {0, 1, 0}, maxima[] = {1, 2, 2}, none[] = {0, 0, 0};

static void check_row(int dtype, int isa, ptrdiff_t stride, ptrdiff_t lo)
{
    const ptrdiff_t out = (WIDE + lo - 6) / stride + 1, n = (out - 1) * stride + 6, pitch = PLANES * n + SLACK;
    const fc_target_range range = {0, out, -lo, n};
    char *x = numbers(dtype, PLANES * WIDE), *space = zeros(dtype, 2 * pitch), *to = zeros(dtype, 2 * pitch);
    ptrdiff_t p, o, k;
    int maximum;
    set(dtype, x, WIDE / 2, (double)NAN);
    for (maximum = 0; maximum < 2; maximum++) {
        fc_running_width w = {.size = WIDE,
                              .levels = 3,
                              .stride = stride,
                              .lo = lo,
                              .dilation = 1,
                              .taps = 6,
                              .step = 1,
                              .copies_sources = !maximum,
                              .shift = maximum ? maxima : sums,
                              .plus = maximum ? none : plus,
                              .ranges = {&range.begin, &range.end, &range.source, &range.n}};
        const ptrdiff_t plane_pitch = fc_running_plane_pitch(&w, &range);
        const int op = maximum ? FC_RUNNING_MAX : FC_RUNNING_SUM;
        const int has_nan =
            fc_pool_running_for(dtype, isa)
                ->row(&w, op, FC_INPUT_CELLS, &range, space, pitch, x, NULL, NULL, 1, to, pitch, 0, PLANES, WIDE);
        same("NaN", dtype, isa, has_nan, maximum);
        for (p = 0; p < PLANES; p++)
            for (o = 0; o < out; o++) {
                double sum = 0, best = -(double)INFINITY;
                const double found = get(dtype, to, p * plane_pitch + o);
                for (k = 0; k < 6; k++) {
                    const ptrdiff_t cell = o * stride - lo + k;
                    const double value = cell < 0 || cell >= WIDE ? 0 : get(dtype, x, p * WIDE + cell);
                    sum += value;
                    if (cell >= 0 && cell < WIDE && !(value <= best) && best == best)
                        best = value;
                }
                if (maximum)
                    same("maximum", dtype, isa, found, best);
                else if (sum != sum)
                    same("sum of NaN", dtype, isa, found != found, 1);
                else
                    near_to("sum", dtype, isa, found, sum, 8);
            }
    }
    free(x), free(space), free(to);
}

static void check_rings(int dtype, int isa)
{
    enum { ROWS = 19, PITCH = 96 };
    const ptrdiff_t ring[] = {0, 1, 2};
    ptrdiff_t depth[ROWS], r, i, k;
    char *x = numbers(dtype, ROWS * PITCH), *rings = zeros(dtype, 5 * PITCH), *to = zeros(dtype, PITCH);
    fc_running_axis axis = {0};
    axis.levels = 3, axis.early = -1, axis.rows = 5;
    axis.shift = sums, axis.plus = plus, axis.ring = ring, axis.depth = depth;
    for (r = 0; r < ROWS; r++)
        depth[r] = 3;
    for (r = 0; r < ROWS; r++) {
        const fc_running_merge_step m = fc_running_merge_step_of(&axis, r, r, rings, PITCH * (ptrdiff_t)size_of(dtype));
        fc_pool_running_for(dtype, isa)
            ->merge(&m, FC_RUNNING_SUM, x + (size_t)(r * PITCH) * size_of(dtype), NULL, to, WIDE, PITCH);
        for (i = 0; r >= 5 && i < WIDE; i++) {
            double sum = 0;
            for (k = 0; k < 6; k++)
                sum += get(dtype, x, (r - k) * PITCH + i);
            near_to("sum of rows", dtype, isa, get(dtype, to, i), sum, 8);
        }
    }
    free(x), free(rings), free(to);
}

int main(void)
{
    int dtype, isa;
    ptrdiff_t stride, lo;
    EACH_COPY(dtype, isa)
    {
        for (stride = 1; stride < 6; stride++)
            for (lo = 0; lo < 6; lo++)
                check_row(dtype, isa, stride, lo);
        check_rings(dtype, isa);
    }
    return finish("pool_running");
}
