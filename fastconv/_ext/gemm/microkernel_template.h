/* The kernels of matrix products for one dtype and instruction set: see microkernel.h. */

static void FC_N(fc_shape)(int *rows, int *vectors, int *lanes)
{
    *rows = FC_TILE_ROWS;
    *vectors = FC_TILE_VECTORS;
    *lanes = FC_VL;
}

/* k is the number of products in each sum of a tile. Rounding errors grow with the length of a sum. So if k is large,
 * the sum is divided into partial sums, which are then added up. If k is above FC_K_BLOCK, there are as few partial
 * sums as possible, because the tile is read and written once for each. If k is from FC_K_HALVES + 1 to FC_K_BLOCK,
 * there are two partial sums. */
#define FC_K_BLOCK 100
#define FC_K_HALVES 60
/* How many iterations of the loop over k are unrolled, for a tile of `size` vectors. In a large tile, the loop overhead
 * is small, and more unrolling would mostly make the code longer. */
#define FC_K_UNROLL(size) ((size) < 8 ? 4 : 2)

/* Add the outer product of one column of a and one row of b to `sums`. The elements of the column are `stride` elements
 * apart in memory. */
FC_INLINE void FC_N(fc_tile_step)(const int rows, const int vectors, FC_V sums[FC_TILE_ROWS][FC_TILE_VECTORS],
                                  const FC_T *FC_RESTRICT a, ptrdiff_t stride, const FC_T *FC_RESTRICT b)
{
    FC_V of_b[FC_TILE_VECTORS];
    int i, j;
    FC_UNROLL
    for (j = 0; j < vectors; j++)
        of_b[j] = FC_N(fc_load)(b + j * FC_VL);
    FC_UNROLL
    for (i = 0; i < rows; i++) {
        FC_V of_a;
        FC_BROADCAST(of_a, a[i * stride]);
        FC_UNROLL
        for (j = 0; j < vectors; j++)
            FC_MULTIPLY_ADD(sums[i][j], of_a, of_b[j]);
    }
    FC_IN_ORDER;
}

/* Return a vector with the lanes of v where w is not 0, and with 0 elsewhere, even where v is NaN. */
FC_INLINE FC_V FC_N(fc_select_nonzero)(FC_V w, FC_V v)
{
#if FC_VECTORS
    return (FC_V)((FC_I)v & (FC_I)(w != FC_N(fc_broadcast)(0)));
#else
    return w != 0 ? v : 0;
#endif
}

/* Compute c = a @ b for one tile: [rows x k] @ [k x vectors * FC_VL]. If `add` is set, compute c += a @ b.
 *
 * The rows of operand a are `stride` elements apart, and its columns are `next` elements apart. Each row of operand b is
 * contiguous. If `listed` is set, row k is at b + at[k], and otherwise the rows are `b_next` elements apart. These
 * distances are variables, because with constants the tile would not be faster, and each layout would need functions of
 * its own. FC_HIDE keeps the compiler from computing the addresses of all rows of c and of the mask in advance, because
 * it would have to store them on the stack.
 *
 * `bias` is NULL or has one number for each row of c. The bias is added last, because a sum that starts with the bias
 * has a larger rounding error. `mask` is NULL or has the shape of c, and c becomes 0 where the mask is 0. The loop over
 * k is unrolled to execute fewer instructions, which matters on a core with two busy hardware threads. */
FC_INLINE void FC_N(fc_tile_of)(const int listed, const int rows, const int vectors, ptrdiff_t k,
                                const FC_T *FC_RESTRICT a, ptrdiff_t stride, ptrdiff_t next, const FC_T *FC_RESTRICT b,
                                ptrdiff_t b_next, const ptrdiff_t *FC_RESTRICT at, FC_T *FC_RESTRICT c, ptrdiff_t pitch,
                                const FC_T *bias, const FC_T *mask, int add)
{
    FC_V sums[FC_TILE_ROWS][FC_TILE_VECTORS];
    /* Compute the quotient only if k is above FC_K_BLOCK, because an integer division takes as long as a dozen
     * products. */
    const ptrdiff_t parts = k > FC_K_BLOCK ? (k + FC_K_BLOCK - 1) / FC_K_BLOCK : k > FC_K_HALVES ? 2 : 1;
    const ptrdiff_t part = parts > 1 ? (k + parts - 1) / parts : k;
    const int unroll = FC_K_UNROLL(rows * vectors);
    const FC_T *from;
    FC_T *to;
    ptrdiff_t left;
    int i, j;
    /* Prefetch the first and the last cache line of each row of c, because the rows are far apart and mostly not in a
     * cache. */
    FC_UNROLL
    for (i = 0, to = c; i < rows; i++, to += pitch) {
        FC_HIDE(to);
        FC_PREFETCH(to, 0);
        FC_PREFETCH(to + vectors * FC_VL - 1, 0);
    }
    if (mask) {
        FC_UNROLL
        for (i = 0, from = mask; i < rows; i++, from += pitch) {
            FC_HIDE(from);
            FC_UNROLL
            for (j = 0; j < vectors; j++)
                FC_PREFETCH(from + j * FC_VL, 0);
            FC_PREFETCH(from + vectors * FC_VL - 1, 0);
        }
    }
    do {
        left = part < k ? part : k;
        k -= left;
        FC_UNROLL
        for (i = 0; i < rows; i++) {
            FC_UNROLL
            for (j = 0; j < vectors; j++)
                sums[i][j] = FC_N(fc_broadcast)(0);
        }
        for (; left >= unroll; left -= unroll) {
            FC_UNROLL
            for (i = 0; i < unroll; i++) {
                const FC_T *row = listed ? b + at[i] : b;
                FC_HIDE(row);
                FC_N(fc_tile_step)(rows, vectors, sums, a, stride, row);
                a += next;
                b += b_next;
                FC_HIDE(a);
            }
            at += listed ? unroll : 0;
        }
        for (; left > 0; left--) {
            FC_N(fc_tile_step)(rows, vectors, sums, a, stride, listed ? b + at[0] : b);
            a += next;
            b += b_next;
            at += listed ? 1 : 0;
        }
        /* Each condition is tested once for the whole tile, because the compiler takes longer for a test per vector. Read
         * all rows before writing the first one. If rows are whole pages apart, a read waits for earlier writes to the
         * same offset in other pages. */
        if (add) {
            FC_UNROLL
            for (i = 0, from = c; i < rows; i++, from += pitch) {
                FC_HIDE(from);
                FC_UNROLL
                for (j = 0; j < vectors; j++)
                    sums[i][j] = FC_N(fc_load)(from + j * FC_VL) + sums[i][j];
            }
        }
        if (mask && k == 0) {
            FC_UNROLL
            for (i = 0, from = mask; i < rows; i++, from += pitch) {
                FC_HIDE(from);
                FC_UNROLL
                for (j = 0; j < vectors; j++)
                    sums[i][j] = FC_N(fc_select_nonzero)(FC_N(fc_load)(from + j * FC_VL), sums[i][j]);
            }
        }
        if (bias && k == 0) {
            FC_UNROLL
            for (i = 0; i < rows; i++) {
                const FC_V of_bias = FC_N(fc_broadcast)(bias[i]);
                FC_UNROLL
                for (j = 0; j < vectors; j++)
                    sums[i][j] += of_bias;
            }
        }
        FC_IN_ORDER;
        FC_UNROLL
        for (i = 0, to = c; i < rows; i++, to += pitch) {
            FC_HIDE(to);
            FC_UNROLL
            for (j = 0; j < vectors; j++)
                FC_N(fc_store)(to + j * FC_VL, sums[i][j]);
        }
        add = 1;
    } while (k > 0);
}

/* The sizes of tiles: 1 to FC_TILE_ROWS rows and 1 to FC_TILE_VECTORS vectors. */
#define FC_TILE_SIZES_4(v) FC_TILE_SIZE(1, v) FC_TILE_SIZE(2, v) FC_TILE_SIZE(3, v) FC_TILE_SIZE(4, v)
#if FC_TILE_ROWS == 8
#define FC_TILE_SIZES(v) FC_TILE_SIZES_4(v) FC_TILE_SIZE(5, v) FC_TILE_SIZE(6, v) FC_TILE_SIZE(7, v) FC_TILE_SIZE(8, v)
#elif FC_TILE_ROWS == 6
#define FC_TILE_SIZES(v) FC_TILE_SIZES_4(v) FC_TILE_SIZE(5, v) FC_TILE_SIZE(6, v)
#else
#define FC_TILE_SIZES(v) FC_TILE_SIZES_4(v)
#endif
#if FC_TILE_VECTORS == 3
#define FC_ALL_SIZES FC_TILE_SIZES(1) FC_TILE_SIZES(2) FC_TILE_SIZES(3)
#else
#define FC_ALL_SIZES FC_TILE_SIZES(1) FC_TILE_SIZES(2)
#endif

#define FC_TILE fc_tile_at_list
#define FC_LISTED 1
#include "gemm/microkernel_tile_template.h"
#define FC_TILE fc_tile_at_steps
#define FC_LISTED 0
#include "gemm/microkernel_tile_template.h"
#undef FC_TILE_SIZES
#undef FC_TILE_SIZES_4
#undef FC_ALL_SIZES

/* Define a kernel of microkernel.h, which passes the distances in its layouts of the operands on to a kernel of tiles.
 * `bias` is a mask if `masked` is set. */
#define FC_TILE_KERNEL(name, kernel, masked, stride, next, b_next)                                           \
    static void FC_N(name)(int rows, int vectors, ptrdiff_t k, const void *a, ptrdiff_t step, const void *b, \
                           const ptrdiff_t *at, void *c, ptrdiff_t pitch, const void *bias, int add)         \
    {                                                                                                        \
        (void)step;                                                                                          \
        FC_N(kernel)(rows, vectors, k, a, stride, next, b, b_next, at, c, pitch, masked ? NULL : bias,       \
                     masked ? bias : NULL, add);                                                             \
    }
FC_TILE_KERNEL(fc_tile_listed, fc_tile_at_list, 0, 1, rows, 0)
FC_TILE_KERNEL(fc_tile, fc_tile_at_steps, 0, 1, rows, (ptrdiff_t)vectors *FC_VL)
FC_TILE_KERNEL(fc_tile_masked_listed, fc_tile_at_list, 1, 1, rows, 0)
FC_TILE_KERNEL(fc_tile_masked, fc_tile_at_steps, 1, 1, rows, (ptrdiff_t)vectors *FC_VL)
FC_TILE_KERNEL(fc_tile_strided, fc_tile_at_steps, 0, 1, step, at[0])
FC_TILE_KERNEL(fc_tile_rows_listed, fc_tile_at_list, 0, step, 1, 0)
FC_TILE_KERNEL(fc_tile_rows, fc_tile_at_steps, 0, step, 1, (ptrdiff_t)vectors *FC_VL)
#undef FC_TILE_KERNEL

/* Compute one row of c = a @ b, and set c to 0 where `mask` is 0. k is at most FC_MASKED_ROW_MAX_K. The elements of a
 * are `stride` elements apart, and b is packed in panels that are one vector wide. If k is so small, memory accesses
 * take longer than the products. Writing c row by row is fastest, because the hardware then prefetches c. */
FC_INLINE void FC_N(fc_row_masked_of)(const int k, const FC_T *FC_RESTRICT a, ptrdiff_t stride,
                                      const FC_T *FC_RESTRICT b, FC_T *FC_RESTRICT c, const FC_T *FC_RESTRICT mask,
                                      ptrdiff_t n)
{
    FC_V of_a[FC_MASKED_ROW_MAX_K];
    ptrdiff_t i;
    int p;
    FC_UNROLL
    for (p = 0; p < k; p++)
        of_a[p] = FC_N(fc_broadcast)(a[p * stride]);
    for (i = 0; i < n; i += FC_VL, b += k * FC_VL) {
        FC_V sum = FC_N(fc_broadcast)(0);
        FC_UNROLL
        for (p = 0; p < k; p++)
            FC_MULTIPLY_ADD(sum, of_a[p], FC_N(fc_load)(b + p * FC_VL));
        if (i + FC_VL <= n) {
            FC_N(fc_store)(c + i, FC_N(fc_select_nonzero)(FC_N(fc_load)(mask + i), sum));
        } else {
            FC_T last[FC_VL];
            FC_N(fc_store)(last, sum);
            for (p = 0; i + p < n; p++)
                c[i + p] = mask[i + p] != 0 ? last[p] : 0;
        }
    }
}

static void FC_N(fc_row_masked)(int k, const void *a, ptrdiff_t stride, const void *b, void *c, const void *mask,
                                ptrdiff_t n)
{
    switch (k) {
#define FC_ROW_MASKED(k)                                                                                       \
    case k:                                                                                                    \
        FC_N(fc_row_masked_of)(k, (const FC_T *)a, stride, (const FC_T *)b, (FC_T *)c, (const FC_T *)mask, n); \
        break;
        /* clang-format off */
        FC_ROW_MASKED(1) FC_ROW_MASKED(2) FC_ROW_MASKED(3) FC_ROW_MASKED(4)
#undef FC_ROW_MASKED
    default:
        fc_check(0);
        /* clang-format on */
    }
}

/* Transpose `rows` rows of n elements: to[p * width + i] = from[at[i] + p] for p < n and i < rows <= width.
 *
 * Rows are transposed in groups of FC_TL rows, the last group first. Stores of the last group may go past the end of a
 * row of `to`. This is harmless, because the next row is written later. Up to FC_TL elements past the end of `to` may
 * be written. */
static void FC_N(fc_interleave)(void *to_, ptrdiff_t width, const void *from_, const ptrdiff_t *at, ptrdiff_t rows,
                                ptrdiff_t n)
{
    FC_T *to = (FC_T *)to_;
    const FC_T *from = (const FC_T *)from_;
    ptrdiff_t group, p;
    int i;
    for (group = (rows - 1) / FC_TL * FC_TL; group >= 0; group -= FC_TL) {
        const FC_T *row[FC_TL];
        for (i = 0; i < FC_TL; i++)
            row[i] = from + at[group + i < rows ? group + i : rows - 1];
        for (p = 0; p < n && n >= FC_TL; p += FC_TL) {
            FC_N(fc_t) square[FC_TL];
            /* The last block of FC_TL elements overlaps the previous block. */
            p = p + FC_TL <= n ? p : n - FC_TL;
            FC_UNROLL
            for (i = 0; i < FC_TL; i++)
                square[i] = *(const FC_N(fc_tu) *)(row[i] + p);
            FC_N(fc_transpose)(square);
            FC_UNROLL
            for (i = 0; i < FC_TL; i++)
                *(FC_N(fc_tu) *)(to + (p + i) * width + group) = square[i];
        }
        for (; p < n; p++)
            for (i = 0; i < FC_TL && group + i < rows; i++)
                to[p * width + group + i] = row[i][p];
    }
}

/* Copy k rows, each `vectors` vectors long, to contiguous memory. Also prefetch the first and the last cache line of
 * the next `vectors` vectors of each row, because the next tile reads them. With large images, the rows are in
 * different pages, so the hardware does not prefetch them. */
FC_INLINE void FC_N(fc_rows_of)(const int vectors, FC_T *FC_RESTRICT to, const FC_T *FC_RESTRICT from,
                                const ptrdiff_t *at, ptrdiff_t k)
{
    ptrdiff_t p;
    int j;
    for (p = 0; p < k; p++, to += vectors * FC_VL) {
        const FC_T *row = from + at[p];
        FC_UNROLL
        for (j = 0; j < vectors; j++)
            FC_N(fc_store)(to + j * FC_VL, FC_N(fc_load)(row + j * FC_VL));
        FC_PREFETCH(row + vectors * FC_VL, 0);
        FC_PREFETCH(row + 2 * vectors * FC_VL - 1, 0);
    }
}

/* Pack the elements of some runs into a panel of k rows: to[p * width + run.lane + i] = from[at[p] + run.at + i] for
 * p < k, every run, and i < run.n.
 *
 * If `spare` is set, reads and writes may go up to FC_VL - 1 elements past the end of a run. The next run or the next
 * row then overwrites these elements. */
static void FC_N(fc_gather)(void *to_, ptrdiff_t width, const void *from_, const ptrdiff_t *at, ptrdiff_t k,
                            const fc_run *runs, ptrdiff_t count, int spare)
{
    FC_T *to = (FC_T *)to_;
    const FC_T *from = (const FC_T *)from_;
    ptrdiff_t p, r, i, longest = 0;
    if (spare && count == 1 && runs->n == width && width <= FC_TILE_VECTORS * FC_VL && width % FC_VL == 0) {
        from += runs->at;
        if (width == FC_TILE_VECTORS * FC_VL)
            FC_N(fc_rows_of)(FC_TILE_VECTORS, to, from, at, k);
        else if (width == 2 * FC_VL)
            FC_N(fc_rows_of)(2, to, from, at, k);
        else
            FC_N(fc_rows_of)(1, to, from, at, k);
        return;
    }
    for (r = 0; r < count; r++)
        longest = runs[r].n > longest ? runs[r].n : longest;
    for (p = 0; p < k; p++, to += width) {
        const FC_T *row = from + at[p];
        if (spare && longest <= FC_VL) {
            for (r = 0; r < count; r++)
                FC_N(fc_store)(to + runs[r].lane, FC_N(fc_load)(row + runs[r].at));
        } else if (spare) {
            for (r = 0; r < count; r++)
                for (i = 0; i < runs[r].n; i += FC_VL)
                    FC_N(fc_store)(to + runs[r].lane + i, FC_N(fc_load)(row + runs[r].at + i));
        } else {
            for (r = 0; r < count; r++)
                for (i = 0; i < runs[r].n; i++)
                    to[runs[r].lane + i] = row[runs[r].at + i];
        }
    }
}

/* Copy each row of a tile (`width` elements) to a row of the result, or add it if `add` is set. A row of the result has
 * `count` runs of elements, which are `step` elements apart. Rows of the result are `pitch` elements apart. */
static void FC_N(fc_scatter)(void *to_, ptrdiff_t pitch, ptrdiff_t step, const void *from_, ptrdiff_t width,
                             ptrdiff_t rows, const fc_run *runs, ptrdiff_t count, int add)
{
    const FC_T *from = (const FC_T *)from_;
    ptrdiff_t row, r, i;
    for (row = 0; row < rows; row++, from += width) {
        for (r = 0; r < count; r++) {
            FC_T *FC_RESTRICT to = (FC_T *)to_ + row * pitch + runs[r].at;
            const FC_T *FC_RESTRICT lanes = from + runs[r].lane;
            const ptrdiff_t n = runs[r].n;
            if (step == 1 && !add) {
                for (i = 0; i + FC_VL <= n; i += FC_VL)
                    FC_N(fc_store)(to + i, FC_N(fc_load)(lanes + i));
                if (i < n && n >= FC_VL)
                    FC_N(fc_store)(to + n - FC_VL, FC_N(fc_load)(lanes + n - FC_VL));
                else
                    for (; i < n; i++)
                        to[i] = lanes[i];
            } else if (step == 1) {
                for (i = 0; i + FC_VL <= n; i += FC_VL)
                    FC_N(fc_store)(to + i, FC_N(fc_load)(to + i) + FC_N(fc_load)(lanes + i));
                for (; i < n; i++)
                    to[i] += lanes[i];
            } else if (add) {
                for (i = 0; i < n; i++)
                    to[i * step] += lanes[i];
            } else {
                for (i = 0; i < n; i++)
                    to[i * step] = lanes[i];
            }
        }
    }
}

/* Copy `n` elements that are `stride` elements apart, without reading past the last one. */
FC_INLINE void FC_N(fc_copy_row)(FC_T *FC_RESTRICT to, const FC_T *FC_RESTRICT from, ptrdiff_t n, ptrdiff_t stride)
{
    ptrdiff_t i = 0;
    if (stride == 1 && n >= FC_TL) {
        for (; i + FC_VL < n; i += FC_VL)
            FC_N(fc_store)(to + i, FC_N(fc_load)(from + i));
        for (; i + FC_TL < n; i += FC_TL)
            *(FC_N(fc_tu) *)(to + i) = *(const FC_N(fc_tu) *)(from + i);
        *(FC_N(fc_tu) *)(to + n - FC_TL) = *(const FC_N(fc_tu) *)(from + n - FC_TL);
        return;
    }
    /* The last two vectors that are loaded end at the last element to copy. So their odd lanes hold the elements to
     * copy. */
    if (stride == 2 && n > FC_VL) {
        for (; i + FC_VL < n; i += FC_VL)
            FC_N(fc_store)(to + i,
                           FC_N(fc_even_lanes)(FC_N(fc_load)(from + 2 * i), FC_N(fc_load)(from + 2 * i + FC_VL)));
        from += 2 * (n - FC_VL) - 1;
        FC_N(fc_store)(to + n - FC_VL, FC_N(fc_odd_lanes)(FC_N(fc_load)(from), FC_N(fc_load)(from + FC_VL)));
        return;
    }
    if (stride == 4 && n > FC_VL) {
        for (; i + FC_VL < n; i += FC_VL) {
            const FC_T *at = from + 4 * i;
            const FC_V a = FC_N(fc_even_lanes)(FC_N(fc_load)(at), FC_N(fc_load)(at + FC_VL));
            const FC_V b = FC_N(fc_even_lanes)(FC_N(fc_load)(at + 2 * FC_VL), FC_N(fc_load)(at + 3 * FC_VL));
            FC_N(fc_store)(to + i, FC_N(fc_even_lanes)(a, b));
        }
        from += 4 * (n - FC_VL) - 3;
        {
            const FC_V a = FC_N(fc_odd_lanes)(FC_N(fc_load)(from), FC_N(fc_load)(from + FC_VL));
            const FC_V b = FC_N(fc_odd_lanes)(FC_N(fc_load)(from + 2 * FC_VL), FC_N(fc_load)(from + 3 * FC_VL));
            FC_N(fc_store)(to + n - FC_VL, FC_N(fc_odd_lanes)(a, b));
        }
        return;
    }
    for (; i < n; i++)
        to[i] = from[i * stride];
}

/* Copy `rows` rows of `n` elements to the padded copy of the image. Strides 1 and 2 are passed as compile-time
 * constants. */
static void FC_N(fc_copy_rows)(void *to_, ptrdiff_t pitch, const void *from_, ptrdiff_t from_pitch, ptrdiff_t rows,
                               ptrdiff_t n, ptrdiff_t stride)
{
    FC_T *to = (FC_T *)to_;
    const FC_T *from = (const FC_T *)from_;
    if (stride == 1)
        for (; rows > 0; rows--, to += pitch, from += from_pitch)
            FC_N(fc_copy_row)(to, from, n, 1);
    else if (stride == 2)
        for (; rows > 0; rows--, to += pitch, from += from_pitch)
            FC_N(fc_copy_row)(to, from, n, 2);
    else
        for (; rows > 0; rows--, to += pitch, from += from_pitch)
            FC_N(fc_copy_row)(to, from, n, stride);
}

const fc_microkernel_kernels FC_N(fc_microkernel_kernels) = {
    .shape = FC_N(fc_shape),
    .gather = FC_N(fc_gather),
    .scatter = FC_N(fc_scatter),
    .copy_rows = FC_N(fc_copy_rows),
    .tile_listed = FC_N(fc_tile_listed),
    .tile = FC_N(fc_tile),
    .tile_masked_listed = FC_N(fc_tile_masked_listed),
    .tile_masked = FC_N(fc_tile_masked),
    .row_masked = FC_N(fc_row_masked),
    .tile_strided = FC_N(fc_tile_strided),
    .tile_rows_listed = FC_N(fc_tile_rows_listed),
    .tile_rows = FC_N(fc_tile_rows),
    .interleave = FC_N(fc_interleave),
};
