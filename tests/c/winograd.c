/* Check winograd.h: minimal filtering of one tile, compared with the correlation that it replaces. */
#include "check.h"
#include "winograd/winograd.h"

/* One tile of high x wide points and one kernel; the lanes are channels of cells, and filters of kernels. */
static void check_tile(int dtype, int isa, int high, int taps_h, int wide, int taps_w)
{
    const int lanes = fc_isa_lanes(dtype, isa), out_h = high - taps_h + 1, out_w = wide - taps_w + 1;
    const int cells = high * wide, taps = taps_h * taps_w, outputs = out_h * out_w;
    const int box[4] = {0, out_h, 0, out_w};
    void *d = numbers(dtype, cells * lanes), *g = numbers(dtype, taps * lanes), *bias = numbers(dtype, lanes);
    void *seen = zeros(dtype, lanes), *v = zeros(dtype, cells * lanes), *u = zeros(dtype, cells * lanes),
         *y = zeros(dtype, outputs * lanes);
    ptrdiff_t at[64];
    int i, j, a, b, lane;
    for (i = 0; i < 64; i++)
        at[i] = i * lanes;
    fc_winograd_for(dtype, isa)->input(high, wide, d, at, v, lanes);
    fc_winograd_for(dtype, isa)->weights(high, taps_h, wide, taps_w, g, at, u, lanes);
    for (i = 0; i < cells * lanes; i++)
        set(dtype, v, i, get(dtype, v, i) * get(dtype, u, i));
    fc_winograd_for(dtype, isa)
        ->output(high, out_h, wide, out_w, v, lanes, bias, y, outputs, out_w, 1, lanes, box, seen);
    for (lane = 0; lane < lanes; lane++) {
        same("no overflow", dtype, isa, get(dtype, seen, lane) != get(dtype, seen, lane), 0);
        for (i = 0; i < out_h; i++)
            for (j = 0; j < out_w; j++) {
                double sum = get(dtype, bias, lane);
                for (a = 0; a < taps_h; a++)
                    for (b = 0; b < taps_w; b++)
                        sum += get(dtype, d, ((i + a) * wide + j + b) * lanes + lane) *
                               get(dtype, g, (a * taps_w + b) * lanes + lane);
                near_to("tile", dtype, isa, get(dtype, y, lane * outputs + i * out_w + j), sum, 4000);
            }
    }
    /* If one lane has an inf, the check must become NaN in that lane only. */
    set(dtype, v, lanes - 1, (double)INFINITY);
    fc_winograd_for(dtype, isa)
        ->output(high, out_h, wide, out_w, v, lanes, bias, y, outputs, out_w, 1, lanes, box, seen);
    for (lane = 0; lane < lanes; lane++)
        same("overflow", dtype, isa, get(dtype, seen, lane) != get(dtype, seen, lane), lane == lanes - 1);
    free(seen), free(d), free(g), free(bias), free(v), free(u), free(y);
}

int main(void)
{
    static const int sizes[][2] = {{1, 1}, {4, 2}, {4, 3}, {6, 2}, {6, 3}, {6, 4}, {6, 5},
                                   {8, 2}, {8, 3}, {8, 4}, {8, 5}, {8, 6}, {8, 7}};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    int dtype, isa, i, j;
    EACH_COPY(dtype, isa)
    for (i = 0; i < SIZES; i++)
        for (j = 1; j < SIZES; j++)
            check_tile(dtype, isa, sizes[i][0], sizes[i][1], sizes[j][0], sizes[j][1]);
    return finish("winograd");
}
