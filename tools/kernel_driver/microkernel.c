/* Time microkernel.h: output tiles of every shape, and packing. */
#include "driver.h"
#include "gemm/microkernel.h"

enum { K = 256, WIDE = 64 };

/* Time one tile: [rows x K] @ [K x vectors * lanes]. */
static void time_tile(const driver_pair *pair, const char *name, fc_tile_t tile, int rows, int vectors)
{
    const ptrdiff_t n = vectors * pair->lanes;
    void *a = numbers(pair->dtype, rows * K), *b = numbers(pair->dtype, K * n), *c = zeros(pair->dtype, rows * n);
    ptrdiff_t at[K], p;
    for (p = 0; p < K; p++)
        at[p] = strstr(name, "listed") ? p * n : n;
    /* Rows of a are K elements apart, and columns are `rows` elements apart. */
    TIME(pair, 2.0 * (double)(rows * n * K), 0,
         tile(rows, vectors, K, a, strstr(name, "rows") ? K : rows, b, at, c, n, NULL, 0), "%s, %d x %d vectors, k %d",
         name, rows, vectors, K);
    free(a), free(b), free(c);
}

static void time_packing(const driver_pair *pair, const fc_microkernel_kernels *kernels, int rows)
{
    const ptrdiff_t n = 24, pitch = WIDE;
    const fc_run run = {.at = 3, .lane = 0, .n = n};
    void *from = numbers(pair->dtype, K * WIDE + 64), *to = zeros(pair->dtype, K * WIDE + 64);
    ptrdiff_t at[K], i;
    for (i = 0; i < K; i++)
        at[i] = i * WIDE;
    TIME(pair, 0, 2.0 * rows * WIDE * pair->item, kernels->interleave(to, rows, from, at, rows, WIDE),
         "interleave, %d rows of %d", rows, WIDE);
    TIME(pair, 0, 2.0 * (double)(K * n) * pair->item, kernels->gather(to, n, from, at, K, &run, 1, 1),
         "gather, %d rows of %td", K, n);
    TIME(pair, 0, 2.0 * (double)(K * n) * pair->item, kernels->scatter(to, pitch, 1, from, n, K, &run, 1, 0),
         "scatter, %d rows of %td", K, n);
    TIME(pair, 0, 2.0 * (double)(K * n) * pair->item, kernels->copy_rows(to, n, from, pitch, K, n, 2),
         "copy_rows, %d rows of %td, stride 2", K, n);
    free(from), free(to);
}

FAMILY(microkernel)
{
    int most_rows, most_vectors, lanes, rows, vectors;
    kernels->shape(&most_rows, &most_vectors, &lanes);
    for (rows = 1; rows <= most_rows; rows++)
        for (vectors = 1; vectors <= most_vectors; vectors++)
            time_tile(pair, "tile", kernels->tile, rows, vectors);
    time_tile(pair, "tile_listed", kernels->tile_listed, most_rows, most_vectors);
    time_tile(pair, "tile_rows", kernels->tile_rows, most_rows, most_vectors);
    time_tile(pair, "tile_rows_listed", kernels->tile_rows_listed, most_rows, most_vectors);
    time_tile(pair, "tile_strided", kernels->tile_strided, most_rows, most_vectors);
    time_packing(pair, kernels, most_rows);
}
