/* The kernels of convolution with pruned weights for one dtype and instruction set: see sparse.h. */
#include "simd/lanes.h"

/* Write the nonzero weights among the n weights at `w` to `values_out`, and their offsets to `offsets_out`. Weights
 * whose offset is negative are left out. Return the number of weights that were written. */
FC_INLINE ptrdiff_t FC_N(fc_list_row_nonzeros)(const FC_T *FC_RESTRICT w, const int32_t *FC_RESTRICT tap_offsets,
                                               ptrdiff_t n, int32_t *FC_RESTRICT offsets_out,
                                               FC_T *FC_RESTRICT values_out)
{
    ptrdiff_t count = 0, i = 0;
#if FC_X86 && FC_VB == 64
    for (; i < n; i += FC_VL) {
#if FC_BYTES == 4
        const __mmask16 valid = n - i >= FC_VL ? (__mmask16)-1 : (__mmask16)((1u << (n - i)) - 1);
        const __m512 vector = _mm512_maskz_loadu_ps(valid, w + i);
        const __m512i offsets = _mm512_maskz_loadu_epi32(valid, tap_offsets + i);
        const __mmask16 nonzero = _mm512_mask_cmp_ps_mask(_mm512_cmpge_epi32_mask(offsets, _mm512_setzero_si512()),
                                                          vector, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        _mm512_storeu_ps(values_out + count, _mm512_maskz_compress_ps(nonzero, vector));
        _mm512_storeu_si512(offsets_out + count, _mm512_maskz_compress_epi32(nonzero, offsets));
#else
        const __mmask8 valid = n - i >= FC_VL ? (__mmask8)-1 : (__mmask8)((1u << (n - i)) - 1);
        const __m512d vector = _mm512_maskz_loadu_pd(valid, w + i);
        const __m256i offsets = _mm256_maskz_loadu_epi32(valid, tap_offsets + i);
        const __mmask8 nonzero = _mm512_mask_cmp_pd_mask(_mm256_cmpge_epi32_mask(offsets, _mm256_setzero_si256()),
                                                         vector, _mm512_setzero_pd(), _CMP_NEQ_UQ);
        _mm512_storeu_pd(values_out + count, _mm512_maskz_compress_pd(nonzero, vector));
        _mm256_storeu_si256((__m256i *)(offsets_out + count), _mm256_maskz_compress_epi32(nonzero, offsets));
#endif
        count += __builtin_popcount(nonzero);
    }
#else
    for (; i < n; i++) {
        values_out[count] = w[i];
        offsets_out[count] = tap_offsets[i];
        count += (w[i] != 0) & (tap_offsets[i] >= 0);
    }
#endif
    return count;
}

/* Write the lists of nonzero weights of `weights` to `to`, sorted by length. `space` is a workspace for the unsorted
 * lists. In `space`, the field `rows` has the start of each list. */
static void FC_N(fc_prune)(const fc_weights *weights, const fc_nonzeros_list *to, const fc_nonzeros_list *space)
{
    ptrdiff_t ends[FC_LENGTHS] = {0}, row, run, i, j, total = 0;
    const FC_T *w = (const FC_T *)weights->w;
    FC_T *unsorted_values = (FC_T *)space->values, *sorted_values = (FC_T *)to->values;
    int32_t *sorted_offsets = to->offsets;
    for (row = 0; row < weights->rows; row++, w += weights->row_step) {
        const FC_T *from = w;
        const int32_t *tap_offsets = weights->tap_offsets;
        const ptrdiff_t begin = total;
        for (run = 0; run < weights->runs; run++, from += weights->run_step, tap_offsets += weights->n)
            total += FC_N(fc_list_row_nonzeros)(from, tap_offsets, weights->n, space->offsets + total,
                                                unsorted_values + total);
        /* Prefetch the weights of a later row, because the hardware prefetcher does not continue from one row to the
         * next. */
        if (weights->runs == 1 && row + 4 < weights->rows)
            for (i = 0; i < weights->n; i += 64 / FC_BYTES)
                FC_PREFETCH(w + 4 * weights->row_step + i, 0);
        fc_check(begin <= INT32_MAX && total - begin <= INT32_MAX);
        space->rows[row] = (int32_t)begin;
        space->counts[row] = (int32_t)(total - begin);
        ends[total - begin < FC_LENGTHS ? total - begin : FC_LENGTHS - 1]++;
    }
    for (i = 1; i < FC_LENGTHS; i++)
        ends[i] += ends[i - 1];
    for (row = weights->rows - 1; row >= 0; row--) {
        const ptrdiff_t length = space->counts[row];
        i = --ends[length < FC_LENGTHS ? length : FC_LENGTHS - 1];
        to->rows[i] = (int32_t)row;
        to->counts[i] = (int32_t)length;
    }
    for (i = 0; i < weights->rows; i++) {
        const ptrdiff_t n = to->counts[i], begin = space->rows[to->rows[i]];
        for (j = 0; j < n; j += FC_VL) {
            /* The store may write past the end of a list, because the next list overwrites these elements. */
            FC_N(fc_store)(sorted_values + j, FC_N(fc_load)(unsorted_values + begin + j));
            memcpy(sorted_offsets + j, space->offsets + begin + j, FC_VL * sizeof(int32_t));
        }
        sorted_values += n;
        sorted_offsets += n;
    }
}

/* Copy rows of the padded image to vectors: to[row][p][lane] = from[row][at[lane] + p] for p < n. Up to FC_TL - 1
 * elements past the end of each row of `from` are read. */
static void FC_N(fc_to_lanes)(void *to_, ptrdiff_t to_pitch, const void *from_, ptrdiff_t from_pitch,
                              const ptrdiff_t *at, ptrdiff_t rows, ptrdiff_t n)
{
    ptrdiff_t row, p;
    int group, i;
    for (row = 0; row < rows; row++) {
        FC_T *to = (FC_T *)to_ + row * to_pitch;
        const FC_T *from = (const FC_T *)from_ + row * from_pitch;
        for (p = 0; p < n; p += FC_TL) {
            const ptrdiff_t here = n - p < FC_TL ? n - p : FC_TL;
            FC_UNROLL
            for (group = 0; group < FC_VL; group += FC_TL) {
                FC_N(fc_t) square[FC_TL];
                FC_UNROLL
                for (i = 0; i < FC_TL; i++)
                    square[i] = *(const FC_N(fc_tu) *)(from + at[group + i] + p);
                FC_N(fc_transpose)(square);
                if (here == FC_TL) {
                    FC_UNROLL
                    for (i = 0; i < FC_TL; i++)
                        *(FC_N(fc_tu) *)(to + (p + i) * FC_VL + group) = square[i];
                } else {
                    FC_UNROLL
                    for (i = 0; i < FC_TL - 1; i++)
                        if (i < here)
                            *(FC_N(fc_tu) *)(to + (p + i) * FC_VL + group) = square[i];
                }
            }
        }
    }
}

/* Store n elements that are `step` elements apart. This function is not inlined, because fc_from_lanes would contain it
 * once for each lane. */
static FC_NOINLINE void FC_N(fc_store_cells)(FC_T *to, ptrdiff_t step, const FC_T *from, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++)
        to[i * step] = from[i];
}

/* Copy sums from lanes to the result: the inverse of fc_to_lanes. For each row and lane with location l, and
 * p < l.count, to[l.offset + p * step] = sums[row][p][lane]. Elements of `to` that are `next_row` elements after the
 * stored elements are prefetched, because the next call writes them. */
static void FC_N(fc_from_lanes)(void *to_, const fc_row_location *locations, ptrdiff_t step, const void *sums_,
                                ptrdiff_t rows, ptrdiff_t width, ptrdiff_t next_row)
{
    FC_T *to = (FC_T *)to_;
    const FC_T *sums = (const FC_T *)sums_;
    ptrdiff_t row, p;
    int group, i;
    for (row = 0; row < rows; row++, sums += width * FC_VL, locations += FC_VL) {
        for (p = 0; p < width; p += FC_TL) {
            /* The last block overlaps the previous block. */
            const ptrdiff_t first = p + FC_TL <= width || width < FC_TL ? p : width - FC_TL;
            const ptrdiff_t here = width - first < FC_TL ? width - first : FC_TL;
            FC_UNROLL
            for (group = 0; group < FC_VL; group += FC_TL) {
                FC_N(fc_t) square[FC_TL];
                FC_UNROLL
                for (i = 0; i < FC_TL; i++)
                    square[i] = *(const FC_N(fc_tu) *)(sums + (first + (i < here ? i : 0)) * FC_VL + group);
                FC_N(fc_transpose)(square);
                FC_UNROLL
                for (i = 0; i < FC_TL; i++) {
                    const fc_row_location *location = &locations[group + i];
                    FC_T *cells = to + location->offset + first * step;
                    const ptrdiff_t left = location->count - first;
                    FC_PREFETCH(cells + next_row, 1);
                    if (left >= FC_TL && step == 1) {
                        *(FC_N(fc_tu) *)cells = square[i];
                    } else if (left > 0) {
                        FC_T all[FC_TL];
                        *(FC_N(fc_tu) *)all = square[i];
                        FC_N(fc_store_cells)(cells, step, all, left < here ? left : here);
                    }
                }
            }
        }
    }
}

/* For each row of the weight matrix, multiply the nonzero weights by the image elements of a tile, and store the sums
 * in `sums`. If `add` is set, add the sums to `sums`. A tile has `height` rows of `width` vectors, and its sums stay in
 * registers.
 *
 * Row r of the image elements is at x + row_offsets[r]. In `sums`, two rows of a tile are `row_pitch` elements apart,
 * and the sums of two rows of the weight matrix are `pitch` elements apart. If `add` is not set and `initial` is not
 * NULL, initial[i] is added to the sums of row i of the weight matrix. */
FC_INLINE void FC_N(fc_add_rows_of)(const int height, const int width, const FC_T *FC_RESTRICT x,
                                    const ptrdiff_t *row_offsets, const fc_nonzeros_list *pruned, ptrdiff_t rows,
                                    FC_T *FC_RESTRICT sums, ptrdiff_t pitch, ptrdiff_t row_pitch, const FC_T *initial,
                                    int add)
{
    const FC_T *cells[4] = {x, x, x, x}, *FC_RESTRICT values = (const FC_T *)pruned->values;
    const int32_t *FC_RESTRICT offsets = pruned->offsets;
    ptrdiff_t entry, i;
    int r, c;
    FC_UNROLL
    for (r = 0; r < height; r++)
        cells[r] = x + row_offsets[r];
    for (entry = 0; entry < rows; entry++) {
        const ptrdiff_t row = pruned->rows[entry], n = pruned->counts[entry];
        FC_T *to = sums + row * pitch;
        FC_V tile[4][7];
        if (add && n == 0)
            continue;
        FC_UNROLL
        for (r = 0; r < height; r++) {
            FC_UNROLL
            for (c = 0; c < width; c++)
                tile[r][c] = FC_N(fc_broadcast)(0);
        }
        for (i = 0; i < n; i++) {
            const ptrdiff_t at = (ptrdiff_t)offsets[i] * FC_VL;
            const FC_V value = FC_N(fc_broadcast)(values[i]);
            FC_UNROLL
            for (r = 0; r < height; r++) {
                FC_UNROLL
                for (c = 0; c < width; c++)
                    tile[r][c] += value * FC_N(fc_load)(cells[r] + at + c * FC_VL);
            }
        }
        offsets += n;
        values += n;
        if (add) {
            FC_UNROLL
            for (r = 0; r < height; r++) {
                FC_UNROLL
                for (c = 0; c < width; c++)
                    tile[r][c] += FC_N(fc_load)(to + r * row_pitch + c * FC_VL);
            }
        } else if (initial) {
            const FC_V first = FC_N(fc_broadcast)(initial[row]);
            FC_UNROLL
            for (r = 0; r < height; r++) {
                FC_UNROLL
                for (c = 0; c < width; c++)
                    tile[r][c] += first;
            }
        }
        FC_UNROLL
        for (r = 0; r < height; r++) {
            FC_UNROLL
            for (c = 0; c < width; c++)
                FC_N(fc_store)(to + r * row_pitch + c * FC_VL, tile[r][c]);
        }
    }
}

/* All tile sizes that fit into the registers. Each size has a function of its own with unrolled loops, because
 * compiling one function for all sizes would take much longer. */
/* clang-format off */
#define FC_ADD_ROWS_3(height) FC_ADD_ROWS(height, 1) FC_ADD_ROWS(height, 2) FC_ADD_ROWS(height, 3)
#define FC_ADD_ROWS_7(height) \
    FC_ADD_ROWS_3(height) FC_ADD_ROWS(height, 4) FC_ADD_ROWS(height, 5) FC_ADD_ROWS(height, 6) FC_ADD_ROWS(height, 7)
#if FC_REGISTERS >= 32
#define FC_ADD_ROWS_OF_ALL FC_ADD_ROWS_7(1) FC_ADD_ROWS_7(2) FC_ADD_ROWS_7(3) FC_ADD_ROWS_7(4)
#else
#define FC_ADD_ROWS_OF_ALL FC_ADD_ROWS_7(1) FC_ADD_ROWS_7(2) FC_ADD_ROWS_3(3) FC_ADD_ROWS(3, 4) FC_ADD_ROWS_3(4)
#endif
/* clang-format on */

#define FC_ADD_ROWS(height, width)                                                                               \
    static FC_NOINLINE void FC_PASTE3(FC_N(fc_add_rows), height, width)(                                         \
        const FC_T *x, const ptrdiff_t *row_offsets, const fc_nonzeros_list *pruned, ptrdiff_t rows, FC_T *sums, \
        ptrdiff_t pitch, ptrdiff_t row_pitch, const FC_T *initial, int add)                                      \
    {                                                                                                            \
        FC_N(fc_add_rows_of)(height, width, x, row_offsets, pruned, rows, sums, pitch, row_pitch, initial, add); \
    }
FC_ADD_ROWS_OF_ALL
#undef FC_ADD_ROWS

#define FC_ADD_ROWS(height, width)                                                                                \
    case (height) * 16 + (width):                                                                                 \
        FC_PASTE3(FC_N(fc_add_rows), height, width)                                                               \
        ((const FC_T *)x, row_offsets, pruned, rows, (FC_T *)sums, pitch, row_pitch, (const FC_T *)initial, add); \
        break;
static void FC_N(fc_add_rows)(int height, int width, const void *x, const ptrdiff_t *row_offsets,
                              const fc_nonzeros_list *pruned, ptrdiff_t rows, void *sums, ptrdiff_t pitch,
                              ptrdiff_t row_pitch, const void *initial, int add)
{
    switch (height * 16 + width) {
        FC_ADD_ROWS_OF_ALL
    default:
        fc_check(0);
    }
}
#undef FC_ADD_ROWS
#undef FC_ADD_ROWS_3
#undef FC_ADD_ROWS_7
#undef FC_ADD_ROWS_OF_ALL

/* Return the sum of the lanes of v. The order of the additions is fixed. */
FC_INLINE FC_T FC_N(fc_sum_lanes)(FC_V v)
{
#if FC_VL == 16
    v += FC_SHUFFLE(FC_I, v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += FC_SHUFFLE(FC_I, v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
    v += FC_SHUFFLE(FC_I, v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
    return v[0] + v[1];
#elif FC_VL == 8
    v += FC_SHUFFLE(FC_I, v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    v += FC_SHUFFLE(FC_I, v, v, 2, 3, 0, 1, 2, 3, 0, 1);
    return v[0] + v[1];
#elif FC_VL == 4
    v += FC_SHUFFLE(FC_I, v, v, 2, 3, 0, 1);
    return v[0] + v[1];
#elif FC_VL == 2
    return v[0] + v[1];
#else
    return v;
#endif
}

/* Add the products of dout and the image elements of a tile to the gradient of each nonzero weight. The gradients are
 * stored in `values`.
 *
 * The arguments are the same as for fc_add_rows_of, with dout in place of the sums. If `masked` is set, image elements
 * are replaced by 0 where `mask` is 0. At these places, dout was filled up with zeros, and zero times an infinite image
 * element would be NaN. */
FC_INLINE void FC_N(fc_dot_rows_of)(const int masked, const int height, const int width, const FC_T *FC_RESTRICT x,
                                    const ptrdiff_t *row_offsets, const fc_nonzeros_list *pruned, ptrdiff_t rows,
                                    const FC_T *FC_RESTRICT dout, ptrdiff_t pitch, ptrdiff_t row_pitch,
                                    const FC_L *mask)
{
    const FC_T *cells[4] = {x, x, x, x};
    FC_T *FC_RESTRICT values = (FC_T *)pruned->values;
    const int32_t *FC_RESTRICT offsets = pruned->offsets;
    ptrdiff_t entry, i;
    int r, c;
    FC_UNROLL
    for (r = 0; r < height; r++)
        cells[r] = x + row_offsets[r];
    for (entry = 0; entry < rows; entry++) {
        const FC_T *from = dout + pruned->rows[entry] * pitch;
        const ptrdiff_t n = pruned->counts[entry];
        FC_V tile[4][7];
        if (n == 0)
            continue;
        FC_UNROLL
        for (r = 0; r < height; r++) {
            FC_UNROLL
            for (c = 0; c < width; c++)
                tile[r][c] = FC_N(fc_load)(from + r * row_pitch + c * FC_VL);
        }
        for (i = 0; i < n; i++) {
            const ptrdiff_t at = (ptrdiff_t)offsets[i] * FC_VL;
            FC_V sums[4];
            FC_UNROLL
            for (r = 0; r < 4; r++)
                sums[r] = FC_N(fc_broadcast)(0);
            FC_UNROLL
            for (r = 0; r < height; r++) {
                FC_UNROLL
                for (c = 0; c < width; c++) {
                    FC_V cell = FC_N(fc_load)(cells[r] + at + c * FC_VL);
                    if (masked)
                        cell = FC_N(fc_select)(FC_N(fc_load_lanes)(mask + r * row_pitch + c * FC_VL), cell,
                                               FC_N(fc_broadcast)(0));
                    sums[(r * width + c) % 4] += tile[r][c] * cell;
                }
            }
            values[i] += FC_N(fc_sum_lanes)((sums[0] + sums[1]) + (sums[2] + sums[3]));
        }
        offsets += n;
        values += n;
    }
}

/* clang-format off */
#define FC_DOT_ROWS_3(height) FC_DOT_ROWS(height, 1) FC_DOT_ROWS(height, 2) FC_DOT_ROWS(height, 3)
#define FC_DOT_ROWS_6(height) FC_DOT_ROWS_3(height) FC_DOT_ROWS(height, 4) FC_DOT_ROWS(height, 5) FC_DOT_ROWS(height, 6)
#if FC_REGISTERS >= 32
#define FC_DOT_ROWS_OF_ALL                                                                                   \
    FC_DOT_ROWS_6(1) FC_DOT_ROWS(1, 7) FC_DOT_ROWS_6(2) FC_DOT_ROWS(2, 7) FC_DOT_ROWS_6(3) FC_DOT_ROWS(3, 7) \
    FC_DOT_ROWS_6(4)
#else
#define FC_DOT_ROWS_OF_ALL                                                                               \
    FC_DOT_ROWS_6(1) FC_DOT_ROWS(1, 7) FC_DOT_ROWS_3(2) FC_DOT_ROWS(2, 4) FC_DOT_ROWS(2, 5)              \
    FC_DOT_ROWS_3(3) FC_DOT_ROWS(4, 1) FC_DOT_ROWS(4, 2)
#endif
/* clang-format on */

#define FC_DOT_ROWS(height, width)                                                                                     \
    static FC_NOINLINE void FC_PASTE3(FC_N(fc_dot_rows), height, width)(                                               \
        const FC_T *x, const ptrdiff_t *row_offsets, const fc_nonzeros_list *pruned, ptrdiff_t rows, const FC_T *dout, \
        ptrdiff_t pitch, ptrdiff_t row_pitch, const FC_L *mask)                                                        \
    {                                                                                                                  \
        if (mask)                                                                                                      \
            FC_N(fc_dot_rows_of)(1, height, width, x, row_offsets, pruned, rows, dout, pitch, row_pitch, mask);        \
        else                                                                                                           \
            FC_N(fc_dot_rows_of)(0, height, width, x, row_offsets, pruned, rows, dout, pitch, row_pitch, NULL);        \
    }
FC_DOT_ROWS_OF_ALL
#undef FC_DOT_ROWS

#define FC_DOT_ROWS(height, width)                                                                              \
    case (height) * 16 + (width):                                                                               \
        FC_PASTE3(FC_N(fc_dot_rows), height, width)                                                             \
        ((const FC_T *)x, row_offsets, pruned, rows, (const FC_T *)dout, pitch, row_pitch, (const FC_L *)mask); \
        break;
static void FC_N(fc_dot_rows)(int height, int width, const void *x, const ptrdiff_t *row_offsets,
                              const fc_nonzeros_list *pruned, ptrdiff_t rows, const void *dout, ptrdiff_t pitch,
                              ptrdiff_t row_pitch, const void *mask)
{
    switch (height * 16 + width) {
        FC_DOT_ROWS_OF_ALL
    default:
        fc_check(0);
    }
}
#undef FC_DOT_ROWS
#undef FC_DOT_ROWS_3
#undef FC_DOT_ROWS_6
#undef FC_DOT_ROWS_OF_ALL

/* Copy dout to vectors. For each row and lane with location l, to[row][p][lane] is from[l.offset + p] if p < l.count,
 * and 0 otherwise. Return whether any such 0 was written. If `mask` is not NULL, it is set to -1 where an element of
 * dout was copied, and to 0 elsewhere. */
static int FC_N(fc_gradient_to_lanes)(void *to_, void *mask_, const void *from_, const fc_row_location *locations,
                                      ptrdiff_t rows, ptrdiff_t width)
{
    FC_T *to = (FC_T *)to_;
    FC_L *mask = (FC_L *)mask_;
    const FC_T *from = (const FC_T *)from_;
    ptrdiff_t row, p;
    int lane, missing = 0;
    for (row = 0; row < rows; row++, to += width * FC_VL, locations += FC_VL) {
        for (lane = 0; lane < FC_VL; lane++) {
            const FC_T *cells = from + locations[lane].offset;
            const ptrdiff_t n = locations[lane].count;
            missing |= n < width;
            for (p = 0; p < n; p++)
                to[p * FC_VL + lane] = cells[p];
            for (; p < width; p++)
                to[p * FC_VL + lane] = 0;
            if (mask)
                for (p = 0; p < width; p++)
                    mask[(row * width + p) * FC_VL + lane] = p < n ? -1 : 0;
        }
    }
    return missing;
}

/* Set dw to 0 where w is 0, even where dw is NaN, without a branch. */
static void FC_N(fc_clear)(const void *w_, void *dw_, ptrdiff_t n)
{
    const FC_T *FC_RESTRICT w = (const FC_T *)w_;
    FC_T *FC_RESTRICT dw = (FC_T *)dw_;
    const FC_V zero = FC_N(fc_broadcast)(0);
    ptrdiff_t i;
    for (i = 0; i + FC_VL <= n; i += FC_VL) {
        const FC_I zeros = FC_N(fc_equal_numbers)(FC_N(fc_load)(w + i), zero);
        FC_N(fc_store)(dw + i, FC_N(fc_select)(zeros, zero, FC_N(fc_load)(dw + i)));
    }
    for (; i < n; i++)
        dw[i] = w[i] != 0 ? dw[i] : 0;
}

const fc_sparse_kernels FC_N(fc_sparse_kernels) = {
    .prune = FC_N(fc_prune),
    .to_lanes = FC_N(fc_to_lanes),
    .add_rows = FC_N(fc_add_rows),
    .from_lanes = FC_N(fc_from_lanes),
    .dot_rows = FC_N(fc_dot_rows),
    .gradient_to_lanes = FC_N(fc_gradient_to_lanes),
    .clear = FC_N(fc_clear),
};
