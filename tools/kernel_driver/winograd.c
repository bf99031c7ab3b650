/* Time winograd.h: the transforms of one tile, for 3 x 3 taps and the number of points that a tile may have.
 *
 * A transform of an image tile has a channel in each lane, and a transform of weights has a filter. */
#include "driver.h"
#include "winograd/winograd.h"

static void time_points(const driver_pair *pair, const fc_winograd_kernels *kernels, int points)
{
    enum { TAPS = 3, MOST = 64 };
    const int outs = points - TAPS + 1, cells = points * points;
    const int box[4] = {0, outs, 0, outs};
    void *d = numbers(pair->dtype, cells * pair->lanes), *v = zeros(pair->dtype, cells * pair->lanes);
    void *g = numbers(pair->dtype, TAPS * TAPS * pair->lanes), *bias = numbers(pair->dtype, pair->lanes);
    void *y = zeros(pair->dtype, cells * pair->lanes), *check = zeros(pair->dtype, pair->lanes);
    const double vector = pair->lanes * pair->item;
    ptrdiff_t at[MOST], i;
    for (i = 0; i < MOST; i++)
        at[i] = i * pair->lanes;
    TIME(pair, 0, 2 * cells * vector, kernels->input(points, points, d, at, v, pair->lanes), "input, %d x %d points",
         points, points);
    TIME(pair, 0, (TAPS * TAPS + cells) * vector, kernels->weights(points, TAPS, points, TAPS, g, at, v, pair->lanes),
         "weights, %d x %d points", points, points);
    TIME(pair, 0, (cells + outs * outs) * vector,
         kernels->output(points, outs, points, outs, v, pair->lanes, bias, y, outs * outs, outs, 1, pair->lanes, box,
                         check),
         "output, %d x %d points", points, points);
    free(d), free(v), free(g), free(bias), free(y), free(check);
}

FAMILY(winograd)
{
    int points;
    for (points = 4; points <= 8; points += 2)
        time_points(pair, kernels, points);
}
