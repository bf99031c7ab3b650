/* Lists of the weights that are not zero, and their products: sparse.h. */
#include "check.h"
#include "sparse/sparse.h"

enum { ROWS = 5 };

static void check_products(int dtype, int isa, ptrdiff_t n)
{
    const int lanes = fc_isa_lanes(dtype, isa);
    void *w = numbers(dtype, ROWS * n), *x = numbers(dtype, n * lanes), *start = numbers(dtype, ROWS);
    void *sums = zeros(dtype, ROWS * lanes), *dout = numbers(dtype, ROWS * lanes);
    int32_t *at = malloc((size_t)n * sizeof *at);
    fc_weights weights = {w, ROWS, n, 1, 0, n, at};
    fc_nonzeros_list lists[2];
    const ptrdiff_t row_offsets[4] = {0, 0, 0, 0};
    ptrdiff_t row, i, entry, done = 0;
    int lane, copy;
    for (i = 0; i < n; i++)
        at[i] = i % 7 == 3 ? -1 : (int32_t)(n - 1 - i);
    for (i = 0; i < ROWS * n; i += 2)
        set(dtype, w, i, 0);
    for (copy = 0; copy < 2; copy++) {
        lists[copy].rows = calloc(ROWS, sizeof(int32_t));
        lists[copy].counts = calloc(ROWS, sizeof(int32_t));
        lists[copy].offsets = calloc((size_t)(ROWS * n + FC_LIST_SPARE), sizeof(int32_t));
        lists[copy].values = zeros(dtype, ROWS * n + FC_LIST_SPARE);
    }
    fc_sparse_for(dtype, isa)->prune(&weights, &lists[0], &lists[1]);
    fc_sparse_for(dtype, isa)->add_rows(1, 1, x, row_offsets, &lists[0], ROWS, sums, lanes, 0, start, 0);
    for (row = 0; row < ROWS; row++)
        for (lane = 0; lane < lanes; lane++) {
            double sum = get(dtype, start, row);
            for (i = 0; i < n; i++)
                if (at[i] >= 0)
                    sum += get(dtype, w, row * n + i) * get(dtype, x, at[i] * lanes + lane);
            near_to("rows", dtype, isa, get(dtype, sums, row * lanes + lane), sum, 16.0 * (double)n);
        }
    memset(lists[0].values, 0, (size_t)(ROWS * n) * size_of(dtype));
    fc_sparse_for(dtype, isa)->dot_rows(1, 1, x, row_offsets, &lists[0], ROWS, dout, lanes, 0, NULL);
    for (entry = 0; entry < ROWS; entry++)
        for (i = 0; i < lists[0].counts[entry]; i++, done++) {
            double sum = 0;
            for (lane = 0; lane < lanes; lane++)
                sum += get(dtype, dout, lists[0].rows[entry] * lanes + lane) *
                       get(dtype, x, lists[0].offsets[done] * lanes + lane);
            near_to("dots", dtype, isa, get(dtype, lists[0].values, done), sum, 256);
        }
    for (copy = 0; copy < 2; copy++)
        free(lists[copy].rows), free(lists[copy].counts), free(lists[copy].offsets), free(lists[copy].values);
    free(w), free(x), free(start), free(sums), free(dout), free(at);
}

/* Copy an image to the lanes, and back. */
static void check_copies(int dtype, int isa, ptrdiff_t n)
{
    enum { OUT_ROWS = 2, SLACK = 8 };
    const int lanes = fc_isa_lanes(dtype, isa);
    const ptrdiff_t pitch = lanes * n;
    void *from = numbers(dtype, OUT_ROWS * pitch + SLACK), *back = zeros(dtype, OUT_ROWS * pitch);
    void *to = zeros(dtype, OUT_ROWS * pitch);
    ptrdiff_t at[16], row, p;
    fc_row_location locations[OUT_ROWS * 16];
    int lane;
    for (lane = 0; lane < lanes; lane++)
        at[lane] = (lanes - 1 - lane) * n;
    for (row = 0; row < OUT_ROWS; row++)
        for (lane = 0; lane < lanes; lane++) {
            locations[row * lanes + lane].offset = row * pitch + at[lane];
            locations[row * lanes + lane].count = n;
        }
    fc_sparse_for(dtype, isa)->to_lanes(to, pitch, from, pitch, at, OUT_ROWS, n);
    for (row = 0; row < OUT_ROWS; row++)
        for (p = 0; p < n; p++)
            for (lane = 0; lane < lanes; lane++)
                same("into lanes", dtype, isa, get(dtype, to, row * pitch + p * lanes + lane),
                     get(dtype, from, row * pitch + at[lane] + p));
    fc_sparse_for(dtype, isa)->from_lanes(back, locations, 1, to, OUT_ROWS, n, 0);
    for (p = 0; p < OUT_ROWS * pitch; p++)
        same("out of lanes", dtype, isa, get(dtype, back, p), get(dtype, from, p));
    free(from), free(back), free(to);
}

int main(void)
{
    int dtype, isa;
    ptrdiff_t n;
    EACH_COPY(dtype, isa)
    for (n = 1; n < 40; n++) {
        check_products(dtype, isa, n);
        check_copies(dtype, isa, n);
    }
    return finish("sparse");
}
