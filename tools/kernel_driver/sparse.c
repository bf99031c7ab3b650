/* Time sparse.h: lists of nonzero weights, their products with tiles of every shape, and the gradient. */
#include "driver.h"
#include "sparse/sparse.h"

/* The weights are a matrix of ROWS x N numbers, of which one in four is not zero. */
enum { ROWS = 16, N = 288, TALL = 4, WIDE = 7 };

static fc_nonzeros_list new_list(const driver_pair *pair)
{
    fc_nonzeros_list list = {calloc(ROWS, sizeof(int32_t)), calloc(ROWS, sizeof(int32_t)),
                             calloc(ROWS * N + FC_LIST_SPARE, sizeof(int32_t)),
                             zeros(pair->dtype, ROWS * N + FC_LIST_SPARE)};
    if (!list.rows || !list.counts || !list.offsets)
        abort();
    return list;
}

static void free_list(fc_nonzeros_list *list)
{
    free(list->rows), free(list->counts), free(list->offsets), free(list->values);
}

FAMILY(sparse)
{
    static const int shapes[][2] = {{1, 1}, {1, 4}, {1, 7}, {2, 4}, {2, 7}, {3, 4}, {4, 3}, {4, 7}};
    const ptrdiff_t row_pitch = WIDE * pair->lanes, cells = (N + WIDE) * pair->lanes, pitch = TALL * row_pitch;
    const ptrdiff_t row_offsets[TALL] = {0, cells, 2 * cells, 3 * cells};
    void *w = numbers(pair->dtype, ROWS * N), *x = numbers(pair->dtype, TALL * cells);
    void *sums = zeros(pair->dtype, ROWS * pitch), *dw = zeros(pair->dtype, ROWS * N);
    int32_t taps[N];
    const fc_weights weights = {.w = w, .rows = ROWS, .row_step = N, .runs = 1, .n = N, .tap_offsets = taps};
    fc_nonzeros_list list = new_list(pair), space = new_list(pair);
    ptrdiff_t i, nonzeros = 0;
    for (i = 0; i < N; i++)
        taps[i] = (int32_t)i;
    for (i = 0; i < ROWS * N; i++)
        if (i % 4 != 1)
            set(pair->dtype, w, i, 0);
    TIME(pair, 0, ROWS * N * pair->item, kernels->prune(&weights, &list, &space), "prune, %d x %d", ROWS, N);
    for (i = 0; i < ROWS; i++)
        nonzeros += list.counts[i];
    for (i = 0; i < (ptrdiff_t)(sizeof shapes / sizeof *shapes); i++) {
        const int height = shapes[i][0], width = shapes[i][1];
        const double operations = 2.0 * (double)(nonzeros * height * width * pair->lanes);
        if (height * width <= fc_sparse_sums(pair->isa, 0))
            TIME(pair, operations, 0,
                 kernels->add_rows(height, width, x, row_offsets, &list, ROWS, sums, pitch, row_pitch, NULL, 0),
                 "add_rows, %d x %d vectors", height, width);
        if (height * width <= fc_sparse_sums(pair->isa, 1))
            TIME(pair, operations, 0,
                 kernels->dot_rows(height, width, x, row_offsets, &list, ROWS, sums, pitch, row_pitch, NULL),
                 "dot_rows, %d x %d vectors", height, width);
    }
    TIME(pair, 0, 3 * ROWS * N * pair->item, kernels->clear(w, dw, ROWS * N), "clear, %d", ROWS * N);
    free_list(&list), free_list(&space), free(w), free(x), free(sums), free(dw);
}
