/* Check borders.h: images extended by tables of cells, and the adjoint. */
#include "lowering/borders.h"
#include "check.h"

/* The cell that cell p of an axis shows, found by reflecting p at one end after the other. */
static ptrdiff_t mirrored(ptrdiff_t p, ptrdiff_t size)
{
    p = p < 0 ? -p : p;
    return p < size ? p : 2 * (size - 1) - p;
}

static void check_size(int dtype, int isa, const ptrdiff_t *size, const ptrdiff_t *lo, const ptrdiff_t *hi)
{
    enum { PLANES = 2, MOST = 64 };
    static ptrdiff_t cells[3][MOST], at[2][MOST], shows[2][MOST];
    fc_work_queue queue;
    ptrdiff_t i, p, c, n = PLANES, m = PLANES, row;
    fc_borders b;
    void *x, *padded, *folded, *sums;
    fc_serial_queue(&queue);
    b.lo = lo[2];
    for (i = 0; i < 3; i++) {
        ptrdiff_t found = 0;
        b.size[i] = size[i];
        b.padded[i] = lo[i] + size[i] + hi[i];
        n *= b.size[i];
        m *= b.padded[i];
        for (p = 0; p < b.padded[i]; p++)
            if (i < 2 || p < lo[i] || p >= lo[i] + size[i])
                cells[i][found++] = mirrored(p - lo[i], size[i]);
        b.cell[i] = cells[i];
    }
    for (i = 0; i < 2; i++) {
        ptrdiff_t found = 0;
        for (c = 0; c < size[i]; c++) {
            at[i][c] = found;
            shows[i][found++] = lo[i] + c;
            for (p = 0; p < b.padded[i]; p++)
                if (cells[i][p] == c && p != lo[i] + c)
                    shows[i][found++] = p;
        }
        at[i][size[i]] = found;
        b.at[i] = at[i];
        b.shows[i] = shows[i];
    }
    x = numbers(dtype, n);
    padded = zeros(dtype, m);
    folded = zeros(dtype, n);
    sums = zeros(dtype, n);
    for (row = 0; row < m / b.padded[2]; row++)
        fc_borders_for(dtype, isa)->extend(x, padded, row, &b);
    for (p = 0; p < m; p++) {
        const ptrdiff_t w = p % b.padded[2], h = p / b.padded[2] % b.padded[1];
        const ptrdiff_t d = p / b.padded[2] / b.padded[1] % b.padded[0];
        const ptrdiff_t plane = p / b.padded[2] / b.padded[1] / b.padded[0];
        c = ((plane * size[0] + mirrored(d - lo[0], size[0])) * size[1] + mirrored(h - lo[1], size[1])) * size[2] +
            mirrored(w - lo[2], size[2]);
        same("extended", dtype, isa, get(dtype, padded, p), get(dtype, x, c));
        set(dtype, padded, p, number());
        set(dtype, sums, c, get(dtype, sums, c) + get(dtype, padded, p));
    }
    for (row = 0; row < n / size[2]; row++)
        fc_borders_for(dtype, isa)->fold(padded, folded, row, &b, &queue);
    for (c = 0; c < n; c++)
        same("folded", dtype, isa, get(dtype, folded, c), get(dtype, sums, c));
    free(x);
    free(padded);
    free(folded);
    free(sums);
}

int main(void)
{
    static const ptrdiff_t sizes[][3][3] = {
        /* size, cells before, cells after */
        {{1, 1, 5}, {0, 0, 4}, {0, 0, 4}},
        {{1, 4, 7}, {0, 3, 0}, {0, 1, 6}},
        {{3, 2, 33}, {2, 1, 17}, {1, 0, 3}},
        {{2, 3, 1}, {1, 2, 0}, {1, 2, 0}},
    };
    int dtype, isa;
    size_t i;
    EACH_COPY(dtype, isa)
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_size(dtype, isa, sizes[i][0], sizes[i][1], sizes[i][2]);
    return finish("borders");
}
