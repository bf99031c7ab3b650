/* Sums over output positions, for the gradient of the weights. This file is included by depthwise_template.h. */

/* For each tap, multiply a vector of dout in each of `rows` neighbouring rows by the image elements that the tap reads.
 * Add the products to the sum of the tap. The taps are `count` columns of `high` taps (see fc_taps). */
FC_INLINE void FC_N(fc_dots_at)(const int high, const int count, const int rows, const int masked, FC_V sums[10],
                                const ptrdiff_t *at, ptrdiff_t pitch, ptrdiff_t dout_pitch,
                                const FC_T *FC_RESTRICT from, const FC_T *FC_RESTRICT dout, FC_M mask)
{
    FC_V of_dout[4];
    int i, j, r;
    FC_UNROLL
    for (r = 0; r < rows; r++) {
        of_dout[r] = FC_N(fc_load)(dout + r * dout_pitch);
        if (masked)
            of_dout[r] = FC_N(fc_keep)(of_dout[r], mask);
    }
    FC_UNROLL
    for (j = 0; j < count; j++) {
        FC_UNROLL
        for (i = 0; i < rows + high - 1; i++) {
            FC_V x = FC_N(fc_load)(from + at[j] + i * pitch);
            /* Mask the image, too, because zero times NaN is NaN. */
            if (masked)
                x = FC_N(fc_keep)(x, mask);
            FC_HOLD(x);
            FC_UNROLL
            for (r = 0; r < rows; r++) {
                if (i - r >= 0 && i - r < high)
                    sums[j * high + i - r] += of_dout[r] * x;
            }
        }
    }
}

FC_INLINE void FC_N(fc_dots_of)(const int high, const int count, const fc_taps *taps, const ptrdiff_t *at,
                                const FC_T *from, const FC_T *dout, ptrdiff_t rows, ptrdiff_t n, FC_T *totals)
{
    FC_V sums[10];
    const ptrdiff_t pitch = taps->pitch, dout_pitch = taps->to_pitch;
    ptrdiff_t v, r;
    int i;
    FC_UNROLL
    for (i = 0; i < high * count; i++)
        sums[i] = FC_N(fc_broadcast)(0);
    for (v = 0; v + FC_VL <= n; v += FC_VL) {
        for (r = 0; high > 1 && r + 4 <= rows; r += 4)
            FC_N(fc_dots_at)(high, count, 4, 0, sums, at, pitch, dout_pitch, from + r * pitch + v,
                             dout + r * dout_pitch + v, FC_N(fc_between)(0, FC_VL));
        for (; high > 1 && r + 2 <= rows; r += 2)
            FC_N(fc_dots_at)(high, count, 2, 0, sums, at, pitch, dout_pitch, from + r * pitch + v,
                             dout + r * dout_pitch + v, FC_N(fc_between)(0, FC_VL));
        for (; r < rows; r++)
            FC_N(fc_dots_at)(high, count, 1, 0, sums, at, pitch, dout_pitch, from + r * pitch + v,
                             dout + r * dout_pitch + v, FC_N(fc_between)(0, FC_VL));
    }
    if (v < n) {
        /* If the row is at least one vector long, the last vector ends at the end of the row, and overlaps the previous
         * vector. The mask excludes the lanes that were already summed. If the row is shorter, the mask excludes the
         * lanes past its end. */
        const ptrdiff_t begin = n >= FC_VL ? n - FC_VL : 0;
        const FC_M mask = FC_N(fc_between)(v - begin, n - begin);
        for (r = 0; high > 1 && r + 4 <= rows; r += 4)
            FC_N(fc_dots_at)(high, count, 4, 1, sums, at, pitch, dout_pitch, from + r * pitch + begin,
                             dout + r * dout_pitch + begin, mask);
        for (; high > 1 && r + 2 <= rows; r += 2)
            FC_N(fc_dots_at)(high, count, 2, 1, sums, at, pitch, dout_pitch, from + r * pitch + begin,
                             dout + r * dout_pitch + begin, mask);
        for (; r < rows; r++)
            FC_N(fc_dots_at)(high, count, 1, 1, sums, at, pitch, dout_pitch, from + r * pitch + begin,
                             dout + r * dout_pitch + begin, mask);
    }
    FC_UNROLL
    for (i = 0; i < high * count; i++)
        FC_N(fc_store)(totals + i * FC_VL, FC_N(fc_load)(totals + i * FC_VL) + sums[i]);
}

/* Each pair of `high` and `count` has a function of its own, because compiling one function for all pairs would take
 * much longer. */
/* clang-format off */
#define FC_ALL_DOTS                                                                                   \
    FC_DOTS(1, 1) FC_DOTS(1, 2) FC_DOTS(1, 3) FC_DOTS(1, 4) FC_DOTS(1, 5) FC_DOTS(1, 6) FC_DOTS(1, 7) \
    FC_DOTS(1, 8) FC_DOTS(1, 9) FC_DOTS(3, 1) FC_DOTS(3, 2) FC_DOTS(3, 3) FC_DOTS(5, 1) FC_DOTS(5, 2)
/* clang-format on */

#define FC_DOTS(high, count)                                                                                          \
    static FC_NOINLINE void FC_PASTE3(FC_N(fc_dots), high, count)(const fc_taps *taps, const ptrdiff_t *at,           \
                                                                  const FC_T *from, const FC_T *dout, ptrdiff_t rows, \
                                                                  ptrdiff_t n, FC_T *totals)                          \
    {                                                                                                                 \
        FC_N(fc_dots_of)(high, count, taps, at, from, dout, rows, n, totals);                                         \
    }
FC_ALL_DOTS
#undef FC_DOTS

#define FC_DOTS(high, count)                                                                                      \
    case (high) * 16 + (count):                                                                                   \
        FC_PASTE3(FC_N(fc_dots), high, count)(taps, at, (const FC_T *)from, (const FC_T *)dout, rows, n, totals); \
        break;

/* For each tap, add the products of dout and the image to a vector of `totals`. Each lane has its own sum. fc_lanes
 * adds up the lanes later. */
static void FC_N(fc_dots)(const fc_taps *taps, const void *from, const void *dout, ptrdiff_t rows, ptrdiff_t n,
                          void *totals_)
{
    FC_T *totals = (FC_T *)totals_;
    const ptrdiff_t most = taps->high == 5 ? 2 : taps->high == 3 ? 3 : 9;
    ptrdiff_t j, here;
    for (j = 0; j < taps->k; j += here) {
        const ptrdiff_t *at = taps->at + j;
        here = FC_N(fc_rows_at_once)(taps->k - j, most);
        switch (taps->high * 16 + here) {
            FC_ALL_DOTS
        default:
            fc_check(0);
        }
        totals += here * taps->high * FC_VL;
    }
}
#undef FC_DOTS
#undef FC_ALL_DOTS

/* Sum the lanes of each of the n vectors of `totals`. Each filter has `taps` vectors in `totals` and `taps` weights in
 * `to`. The sum of vector i of a filter is stored at index weight_index[i] of the weights of this filter. */
static void FC_N(fc_lanes)(const void *totals_, ptrdiff_t n, ptrdiff_t taps, const ptrdiff_t *weight_index, void *to_)
{
    const FC_T *totals = (const FC_T *)totals_;
    FC_T *to = (FC_T *)to_;
    ptrdiff_t i, tap = 0;
    for (i = 0; i < n; i += FC_VL, totals += FC_VL * FC_VL) {
        FC_V rows[FC_VL];
        FC_T sums[FC_VL];
        int count, r;
        FC_UNROLL
        for (r = 0; r < FC_VL; r++)
            rows[r] = i + r < n ? FC_N(fc_load)(totals + r * FC_VL) : FC_N(fc_broadcast)(0);
        /* In each round, add neighbouring lanes of two vectors, which halves the number of vectors. In the end, lane r
         * of rows[0] is the sum of vector r. */
        FC_UNROLL
        for (count = FC_VL / 2; count; count /= 2) {
            FC_UNROLL
            for (r = 0; r < count; r++)
                rows[r] = FC_N(fc_even_lanes)(rows[2 * r], rows[2 * r + 1]) +
                          FC_N(fc_odd_lanes)(rows[2 * r], rows[2 * r + 1]);
        }
        FC_N(fc_store)(sums, rows[0]);
        for (r = 0; r < FC_VL && i + r < n; r++) {
            to[weight_index[tap]] = sums[r];
            if (++tap == taps) {
                tap = 0;
                to += taps;
            }
        }
    }
}
