/* Time borders.h: a plane extended by two mirrored cells at each side, and the adjoint. */
#include "driver.h"
#include "lowering/borders.h"

enum { CELLS = 56, PAD = 2, PADDED = CELLS + 2 * PAD };

static void extend_plane(const fc_borders_kernels *kernels, const void *x, void *padded, const fc_borders *borders)
{
    ptrdiff_t row;
    for (row = 0; row < PADDED; row++)
        kernels->extend(x, padded, row, borders);
}

static void fold_plane(const fc_borders_kernels *kernels, const void *padded, void *x, const fc_borders *borders,
                       fc_work_queue *queue)
{
    ptrdiff_t row;
    for (row = 0; row < CELLS; row++)
        kernels->fold(padded, x, row, borders, queue);
}

/* The image cell that a cell of the copy repeats. */
static ptrdiff_t mirrored(ptrdiff_t p)
{
    const ptrdiff_t cell = p < PAD ? PAD - p : p - PAD;
    return cell < CELLS ? cell : 2 * (CELLS - 1) - cell;
}

FAMILY(borders)
{
    /* Along D there is one cell. The tables of W have the cells outside the image only. */
    static const ptrdiff_t zero[1] = {0}, ends[2] = {0, 1};
    ptrdiff_t rows[PADDED], columns[2 * PAD], at[CELLS + 1], shows[PADDED], p, c, n = 0, found = 0;
    const fc_borders borders = {.size = {1, CELLS, CELLS},
                                .padded = {1, PADDED, PADDED},
                                .lo = PAD,
                                .cell = {zero, rows, columns},
                                .at = {ends, at},
                                .shows = {zero, shows}};
    void *x = numbers(pair->dtype, CELLS * CELLS), *padded = numbers(pair->dtype, PADDED * PADDED);
    const double bytes = (CELLS * CELLS + PADDED * PADDED) * pair->item;
    fc_work_queue queue;
    for (p = 0; p < PADDED; p++) {
        rows[p] = mirrored(p);
        if (p < PAD || p >= PAD + CELLS)
            columns[n++] = mirrored(p);
    }
    for (c = 0; c < CELLS; c++) {
        at[c] = found;
        for (p = 0; p < PADDED; p++)
            if (rows[p] == c)
                shows[found++] = p;
    }
    at[CELLS] = found;
    fc_serial_queue(&queue);
    TIME(pair, 0, bytes, extend_plane(kernels, x, padded, &borders), "extend, %d x %d cells by %d", CELLS, CELLS, PAD);
    TIME(pair, 0, bytes, fold_plane(kernels, padded, x, &borders, &queue), "fold, %d x %d cells by %d", CELLS, CELLS,
         PAD);
    free(x), free(padded);
}
