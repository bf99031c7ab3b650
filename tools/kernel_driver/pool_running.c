/* Time pool_running.h: windows of six cells, along a row and from row to row. */
#include "driver.h"
#include "pool/pool_running.h"

FAMILY(pool_running)
{
    /* Sums over six cells are made from sums over 1, 2 and 3 cells, and maxima from maxima over 1, 2 and 4 cells. */
    static const ptrdiff_t shifts[2][3] = {{1, 1, 3}, {1, 2, 2}}, plus[2][3] = {{0, 1, 0}, {0, 0, 0}};
    enum { WIDE = 112, WINDOW = 6, OUT = WIDE - WINDOW + 1, PITCH = WIDE + 64, RINGS = 5 };
    static const char *const names[2] = {"sum", "maximum"};
    const fc_target_range range = {.begin = 0, .end = OUT, .source = 0, .n = WIDE};
    char *x = numbers(pair->dtype, PITCH), *space = zeros(pair->dtype, 2 * PITCH), *to = zeros(pair->dtype, 2 * PITCH);
    char *rings = zeros(pair->dtype, 2 * RINGS * PITCH), *early = zeros(pair->dtype, 2 * PITCH);
    int i, l;
    for (i = 0; i < 2; i++) {
        const fc_running_width w = {.size = WIDE,
                                    .levels = 3,
                                    .stride = 1,
                                    .dilation = 1,
                                    .taps = WINDOW,
                                    .step = 1,
                                    .copies_sources = i == 0,
                                    .shift = shifts[i],
                                    .plus = plus[i],
                                    .ranges = {&range.begin, &range.end, &range.source, &range.n}};
        fc_running_merge_step step = {.depth = 3, .levels = 3, .early = -1, .plus = plus[i]};
        const int op = i ? FC_RUNNING_MAX : FC_RUNNING_SUM;
        /* A row of maxima is followed by the row of their indices. */
        const double bytes = (1 + i) * pair->item;
        for (l = 0; l < 3; l++)
            step.ring_row[l] = rings + (size_t)(l * (1 + i) * PITCH) * size_of(pair->dtype);
        TIME(pair, 0, (WIDE + OUT * (1 + i)) * pair->item,
             kernels->row(&w, op, FC_INPUT_CELLS, &range, space, PITCH, x, NULL, NULL, 1, to, PITCH, 0, 1, WIDE),
             "row, %s of %d cells, %d outputs", names[i], WINDOW, OUT);
        TIME(pair, 0, 8 * WIDE * bytes, kernels->merge(&step, op, to, early, space, WIDE, PITCH),
             "merge, %s of %d rows, %d outputs", names[i], WINDOW, WIDE);
    }
    free(x), free(space), free(to), free(rings), free(early);
}
