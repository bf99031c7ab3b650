/* Maxima, means and norms of 2 x 2 windows with stride 2 and no padding, by far the most common poolings. These kernels
 * read the image directly, without the workspace of pool.h. The argument `cell` is the index in the plane of the first
 * image element that a kernel processes. */

/* Load 2 * FC_VL elements, and split them into the elements with even and with odd indices. Only the first `readable`
 * elements may be read; the other elements are set to 0. */
FC_INLINE void FC_N(fc_load_evens_odds)(const FC_T *from, ptrdiff_t readable, FC_V *evens, FC_V *odds)
{
    FC_T padded[2 * FC_VL];
    FC_V a, b;
    if (readable < 2 * FC_VL) {
        ptrdiff_t i;
        for (i = 0; i < 2 * FC_VL; i++)
            padded[i] = i < readable ? from[i] : 0;
        from = padded;
    }
    a = FC_N(fc_load)(from);
    b = FC_N(fc_load)(from + FC_VL);
    *evens = FC_N(fc_even_lanes)(a, b);
    *odds = FC_N(fc_odd_lanes)(a, b);
}

FC_INLINE void FC_N(fc_update_maximum)(FC_V value, ptrdiff_t index, FC_V *best, FC_I *best_index)
{
    const FC_I take = FC_N(fc_replaces_maximum)(value, *best, 1);
    *best = FC_N(fc_select)(take, value, *best);
    *best_index = FC_N(fc_select_lanes)(take, FC_N(fc_broadcast_lanes)((FC_L)index), *best_index);
}

static void FC_N(fc_pool_2x2_forward)(const void *x, const void *x_end, ptrdiff_t width, ptrdiff_t cell, void *out_,
                                      int32_t *indices, const void *out_end, ptrdiff_t rows)
{
    const FC_T *row = (const FC_T *)x;
    const ptrdiff_t out_width = width / 2;
    const FC_I twice = FC_N(fc_iota)() * FC_N(fc_broadcast_lanes)(2);
    FC_T *out = (FC_T *)out_;
    for (; rows > 0; rows--, row += 2 * width, cell += 2 * width) {
        ptrdiff_t i;
        for (i = 0; i < out_width; i += FC_VL) {
            const FC_T *from = row + 2 * i;
            const ptrdiff_t readable = (const FC_T *)x_end - from, n = out_width - i < FC_VL ? out_width - i : FC_VL;
            FC_V best, right, low, low_right;
            FC_I best_index = FC_N(fc_broadcast_lanes)(0);
            FC_N(fc_load_evens_odds)(from, readable, &best, &right);
            FC_N(fc_load_evens_odds)(from + width, readable - width, &low, &low_right);
            FC_N(fc_update_maximum)(right, 1, &best, &best_index);
            FC_N(fc_update_maximum)(low, width, &best, &best_index);
            FC_N(fc_update_maximum)(low_right, width + 1, &best, &best_index);
            best_index += twice + FC_N(fc_broadcast_lanes)((FC_L)(cell + 2 * i));
            FC_N(fc_store_indices)(indices + i, best_index, n, (const FC_T *)out_end - (out + i));
            FC_N(fc_store_some)(out + i, best, n, (const FC_T *)out_end);
        }
        out += out_width;
        indices += out_width;
    }
}

/* Compute the rows of dx that belong to `rows` rows of outputs. If the width is odd, the last column is set to 0. An
 * index that is outside its window is ignored, and the function then returns 1. `dout` may be read up to `dout_end`,
 * and `indices` up to the same element. */
static int FC_N(fc_pool_2x2_backward)(const void *dout_, const void *dout_end, const int32_t *indices, ptrdiff_t width,
                                      ptrdiff_t cell, void *dx_, const void *dx_end, ptrdiff_t rows)
{
    const FC_T *dout = (const FC_T *)dout_;
    const ptrdiff_t out_width = width / 2;
    const FC_I iota = FC_N(fc_iota)(), twice = iota * FC_N(fc_broadcast_lanes)(2);
    const FC_I one = FC_N(fc_broadcast_lanes)(1), row_below = FC_N(fc_broadcast_lanes)((FC_L)width);
    FC_I out_of_window = FC_N(fc_broadcast_lanes)(0);
    FC_T *dx = (FC_T *)dx_;
    for (; rows > 0; rows--, cell += 2 * width, dout += out_width, indices += out_width) {
        int low;
        /* Write the upper row first, because its last vector may overwrite the lower row and later rows. */
        for (low = 0; low < 2; low++, dx += width) {
            ptrdiff_t i, left;
            for (i = 0; i < out_width; i += FC_VL) {
                const ptrdiff_t readable = (const FC_T *)dout_end - (dout + i);
                FC_V value;
                FC_I index;
                left = width - 2 * i;
                if (readable >= FC_VL) {
                    value = FC_N(fc_load)(dout + i);
                    index = FC_N(fc_load_int32)(indices + i);
                } else {
                    FC_T padded[FC_VL];
                    int32_t indices_of[FC_VL];
                    ptrdiff_t t;
                    for (t = 0; t < FC_VL; t++) {
                        padded[t] = t < readable ? dout[i + t] : 0;
                        indices_of[t] = t < readable ? indices[i + t] : -1;
                    }
                    value = FC_N(fc_load)(padded);
                    index = FC_N(fc_load_int32)((const int32_t *)indices_of);
                }
                index -= twice + FC_N(fc_broadcast_lanes)((FC_L)(cell + 2 * i));
                if (low) {
                    index -= row_below;
                } else {
                    const FC_I upper = FC_N(fc_equal)(index | one, one);
                    const FC_I lower = FC_N(fc_equal)((index - row_below) | one, one);
                    const FC_I outputs =
                        FC_N(fc_broadcast_lanes)((FC_L)(out_width - i < FC_VL ? out_width - i : FC_VL));
                    out_of_window |= ~(upper | lower) & FC_N(fc_less)(iota, outputs);
                }
                {
                    const FC_V zero = FC_N(fc_broadcast)(0);
                    const FC_V evens = FC_N(fc_select)(FC_N(fc_equal)(index, one - one), value, zero);
                    const FC_V odds = FC_N(fc_select)(FC_N(fc_equal)(index, one), value, zero);
                    FC_N(fc_store_some)(dx + 2 * i, FC_N(fc_interleave_lower_lanes)(evens, odds),
                                        left < FC_VL ? left : FC_VL, (const FC_T *)dx_end);
                    if (left > FC_VL)
                        FC_N(fc_store_some)(dx + 2 * i + FC_VL, FC_N(fc_interleave_upper_lanes)(evens, odds),
                                            left < 2 * FC_VL ? left - FC_VL : FC_VL, (const FC_T *)dx_end);
                }
            }
            if (width > 2 * out_width)
                dx[width - 1] = 0;
        }
    }
    return FC_N(fc_any)(out_of_window);
}

/* Compute the L2 norm of each window if `norm` is set, and the mean if not. */
FC_INLINE void FC_N(fc_pool_2x2_sum)(const int norm, const void *x, const void *x_end, ptrdiff_t width, void *out_,
                                     const void *out_end, ptrdiff_t rows)
{
    const FC_T *row = (const FC_T *)x;
    const ptrdiff_t out_width = width / 2;
    const FC_V quarter = FC_N(fc_broadcast)((FC_T)0.25);
    FC_T *out = (FC_T *)out_;
    for (; rows > 0; rows--, row += 2 * width, out += out_width) {
        ptrdiff_t i;
        for (i = 0; i < out_width; i += FC_VL) {
            const FC_T *from = row + 2 * i;
            const ptrdiff_t readable = (const FC_T *)x_end - from, n = out_width - i < FC_VL ? out_width - i : FC_VL;
            FC_V left, right, low, low_right, sum;
            FC_N(fc_load_evens_odds)(from, readable, &left, &right);
            FC_N(fc_load_evens_odds)(from + width, readable - width, &low, &low_right);
            if (norm)
                sum = FC_N(fc_root)(left * left + right * right + low * low + low_right * low_right);
            else
                sum = (left + right + low + low_right) * quarter;
            FC_N(fc_store_some)(out + i, sum, n, (const FC_T *)out_end);
        }
    }
}

static void FC_N(fc_pool_2x2_mean)(const void *x, const void *x_end, ptrdiff_t width, void *out, const void *out_end,
                                   ptrdiff_t rows)
{
    FC_N(fc_pool_2x2_sum)(0, x, x_end, width, out, out_end, rows);
}

static void FC_N(fc_pool_2x2_norm)(const void *x, const void *x_end, ptrdiff_t width, void *out, const void *out_end,
                                   ptrdiff_t rows)
{
    FC_N(fc_pool_2x2_sum)(1, x, x_end, width, out, out_end, rows);
}

/* Compute dx of L2 pooling if `by_norm` is set, and of average pooling if not. If the width is odd, the last column is
 * set to 0. The gradient of the norm is dout divided by the norm, times x. */
FC_INLINE void FC_N(fc_pool_2x2_sum_backward)(const int by_norm, const void *dout_, const void *dout_end,
                                              const void *norm_, ptrdiff_t width, const void *x_, const void *x_end,
                                              void *dx_, const void *dx_end, ptrdiff_t rows)
{
    const FC_T *dout = (const FC_T *)dout_, *norm = (const FC_T *)norm_, *x = (const FC_T *)x_;
    const ptrdiff_t out_width = width / 2;
    const FC_V quarter = FC_N(fc_broadcast)((FC_T)0.25);
    FC_T *dx = (FC_T *)dx_;
    ptrdiff_t at = 0, from = 0;
    for (; rows > 0; rows--, at += out_width) {
        int low;
        for (low = 0; low < 2; low++, from += width) {
            ptrdiff_t i;
            for (i = 0; i < out_width; i += FC_VL) {
                const ptrdiff_t readable = (const FC_T *)dout_end - (dout + at + i), left = width - 2 * i;
                const ptrdiff_t to = from + 2 * i;
                FC_V value = FC_N(fc_load_some)(dout + at + i, readable), first, second;
                if (by_norm)
                    value = FC_N(fc_over_norm)(value, FC_N(fc_load_some)(norm + at + i, readable));
                else
                    value *= quarter;
                first = FC_N(fc_interleave_lower_lanes)(value, value),
                second = FC_N(fc_interleave_upper_lanes)(value, value);
                if (by_norm) {
                    const ptrdiff_t cells = (const FC_T *)x_end - (x + to);
                    first *= FC_N(fc_load_some)(x + to, cells);
                    second *= FC_N(fc_load_some)(x + to + FC_VL, cells - FC_VL);
                }
                FC_N(fc_store_some)(dx + to, first, left < FC_VL ? left : FC_VL, (const FC_T *)dx_end);
                if (left > FC_VL)
                    FC_N(fc_store_some)(dx + to + FC_VL, second, left < 2 * FC_VL ? left - FC_VL : FC_VL,
                                        (const FC_T *)dx_end);
            }
            if (width > 2 * out_width)
                dx[from + width - 1] = 0;
        }
    }
}

static void FC_N(fc_pool_2x2_mean_backward)(const void *dout, const void *dout_end, const void *norm, ptrdiff_t width,
                                            const void *x, const void *x_end, void *dx, const void *dx_end,
                                            ptrdiff_t rows)
{
    FC_N(fc_pool_2x2_sum_backward)(0, dout, dout_end, norm, width, x, x_end, dx, dx_end, rows);
}

static void FC_N(fc_pool_2x2_norm_backward)(const void *dout, const void *dout_end, const void *norm, ptrdiff_t width,
                                            const void *x, const void *x_end, void *dx, const void *dx_end,
                                            ptrdiff_t rows)
{
    FC_N(fc_pool_2x2_sum_backward)(1, dout, dout_end, norm, width, x, x_end, dx, dx_end, rows);
}
