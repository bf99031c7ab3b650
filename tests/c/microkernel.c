/* Check microkernel.h: tiles of a matrix product, and packing. */
#include "check.h"
#include "gemm/microkernel.h"

enum { BESIDE, APART, ROWS, LISTED };

/* c (+)= a @ b + bias; `of_a` and `of_b` are the memory layouts of a and b. */
static void check_tile(int dtype, int isa, fc_tile_t tile, int of_a, int of_b, int rows, int vectors, int lanes,
                       ptrdiff_t k, int add)
{
    const ptrdiff_t n = vectors * lanes, pitch = n + 3, b_pitch = of_b == BESIDE ? n : n + 5;
    const ptrdiff_t step = of_a == ROWS ? k + 2 : rows + 2;
    void *a = numbers(dtype, of_a == ROWS ? rows * step : of_a == APART ? k * step : k * rows);
    void *b = numbers(dtype, k * b_pitch), *bias = numbers(dtype, rows);
    void *c = numbers(dtype, (rows - 1) * pitch + n), *before = zeros(dtype, (rows - 1) * pitch + n);
    ptrdiff_t *at = malloc((size_t)k * sizeof *at), p, i, j;
    memcpy(before, c, (size_t)((rows - 1) * pitch + n) * size_of(dtype));
    for (p = 0; p < k; p++)
        at[p] = of_b == APART ? b_pitch : (p + 1) % k * b_pitch;
    tile(rows, vectors, k, a, step, b, at, c, pitch, add ? NULL : bias, add);
    for (i = 0; i < rows; i++)
        for (j = 0; j < n; j++) {
            double sum = add ? get(dtype, before, i * pitch + j) : get(dtype, bias, i);
            for (p = 0; p < k; p++) {
                const ptrdiff_t of_row = of_a == ROWS ? i * step + p : p * (of_a == APART ? step : rows) + i;
                sum += get(dtype, a, of_row) * get(dtype, b, (of_b == LISTED ? at[p] : p * b_pitch) + j);
            }
            near_to("tile", dtype, isa, get(dtype, c, i * pitch + j), sum, 16.0 * (double)k);
        }
    free(a), free(b), free(bias), free(c), free(before), free(at);
}

static void check_tiles(int dtype, int isa)
{
    const fc_microkernel_kernels *kernels = fc_microkernel_for(dtype, isa);
    static const ptrdiff_t depths[] = {1, 3, 61, 230};
    int most_rows, most_vectors, lanes, rows, vectors, i, add;
    kernels->shape(&most_rows, &most_vectors, &lanes);
    for (rows = 1; rows <= most_rows; rows++)
        for (vectors = 1; vectors <= most_vectors; vectors++)
            for (i = 0; i < 4; i++)
                for (add = 0; add < 2; add++) {
                    const ptrdiff_t k = depths[i];
                    check_tile(dtype, isa, kernels->tile, BESIDE, BESIDE, rows, vectors, lanes, k, add);
                    check_tile(dtype, isa, kernels->tile_listed, BESIDE, LISTED, rows, vectors, lanes, k, add);
                    check_tile(dtype, isa, kernels->tile_rows, ROWS, BESIDE, rows, vectors, lanes, k, add);
                    check_tile(dtype, isa, kernels->tile_rows_listed, ROWS, LISTED, rows, vectors, lanes, k, add);
                    check_tile(dtype, isa, kernels->tile_strided, APART, APART, rows, vectors, lanes, k, add);
                }
}

static void check_interleave(int dtype, int isa)
{
    ptrdiff_t rows, n, i, p, at[19];
    for (rows = 1; rows <= 19; rows += 3)
        for (n = 1; n <= 20; n++) {
            void *from = numbers(dtype, rows * n), *to = zeros(dtype, rows * n + 8);
            for (i = 0; i < rows; i++)
                at[i] = (rows - 1 - i) * n;
            fc_microkernel_for(dtype, isa)->interleave(to, rows, from, at, rows, n);
            for (p = 0; p < n; p++)
                for (i = 0; i < rows; i++)
                    same("interleave", dtype, isa, get(dtype, to, p * rows + i), get(dtype, from, at[i] + p));
            free(from), free(to);
        }
}

static void check_runs(int dtype, int isa)
{
    enum { K = 5, WIDTH = 21, WIDE = 60, SLACK = 16 };
    const fc_run runs[3] = {{3, 0, 5}, {50, 5, 1}, {14, 6, 15}};
    const ptrdiff_t at[K] = {0, 2 * WIDE, WIDE, 4 * WIDE, 3 * WIDE};
    void *from = numbers(dtype, K * WIDE + SLACK);
    int spare, step, add;
    ptrdiff_t p, r, i;
    for (spare = 0; spare < 2; spare++) {
        void *to = zeros(dtype, K * WIDTH + SLACK);
        fc_microkernel_for(dtype, isa)->gather(to, WIDTH, from, at, K, runs, 3, spare);
        for (p = 0; p < K; p++)
            for (r = 0; r < 3; r++)
                for (i = 0; i < runs[r].n; i++)
                    same("gather", dtype, isa, get(dtype, to, p * WIDTH + runs[r].lane + i),
                         get(dtype, from, at[p] + runs[r].at + i));
        free(to);
    }
    for (step = 1; step < 3; step++)
        for (add = 0; add < 2; add++) {
            void *to = numbers(dtype, K * WIDE * step), *before = zeros(dtype, K * WIDE * step);
            memcpy(before, to, (size_t)(K * WIDE * step) * size_of(dtype));
            fc_microkernel_for(dtype, isa)->scatter(to, WIDE * step, step, from, WIDTH, K, runs, 3, add);
            for (p = 0; p < K; p++)
                for (r = 0; r < 3; r++)
                    for (i = 0; i < runs[r].n; i++) {
                        const ptrdiff_t place = p * WIDE * step + runs[r].at + i * step;
                        same("scatter", dtype, isa, get(dtype, to, place),
                             get(dtype, from, p * WIDTH + runs[r].lane + i) + (add ? get(dtype, before, place) : 0));
                    }
            free(to), free(before);
        }
    free(from);
}

static void check_cells(int dtype, int isa)
{
    ptrdiff_t n, stride, i, row;
    for (n = 1; n <= 70; n++)
        for (stride = 1; stride <= 5; stride++) {
            const ptrdiff_t wide = (n - 1) * stride + 1;
            void *from = numbers(dtype, 2 * wide), *to = zeros(dtype, 2 * n);
            fc_microkernel_for(dtype, isa)->copy_rows(to, n, from, wide, 2, n, stride);
            for (row = 0; row < 2; row++)
                for (i = 0; i < n; i++)
                    same("cells", dtype, isa, get(dtype, to, row * n + i), get(dtype, from, row * wide + i * stride));
            free(from), free(to);
        }
}

int main(void)
{
    int dtype, isa;
    EACH_COPY(dtype, isa)
    {
        check_tiles(dtype, isa);
        check_interleave(dtype, isa);
        check_runs(dtype, isa);
        check_cells(dtype, isa);
    }
    return finish("microkernel");
}
