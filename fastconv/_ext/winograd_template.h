/* The transforms of Winograd's minimal filtering for one dtype and instruction set: see winograd.h.
 *
 * Along an axis with `points` interpolation points: 6 are 0, +-3/4, +-3/2 and infinity, for 4 outputs of a
 * kernel of 3 or 2 of a kernel of 5; 4 are 0, +-1 and infinity, for 2 outputs of a kernel of 3; 1 is no
 * transform. These points keep float32 errors some four times below those of 0, +-1, +-2, and their squares are exact. */
#define FC_A ((FC_T)0.75)
#define FC_B ((FC_T)1.5)
#define FC_AA ((FC_T)0.5625)
#define FC_BB ((FC_T)2.25)

/* d <- B^T d, in place; `s` is from one element to the next. */
FC_INLINE void FC_N(fc_to_points)(const int points, FC_V *d, const int s)
{
    if (points == 6) {
        const FC_V a = d[4 * s] - FC_BB * d[2 * s], a_odd = FC_A * (d[3 * s] - FC_BB * d[s]);
        const FC_V b = d[4 * s] - FC_AA * d[2 * s], b_odd = FC_B * (d[3 * s] - FC_AA * d[s]);
        d[0] = d[4 * s] - (FC_AA + FC_BB) * d[2 * s] + (FC_AA * FC_BB) * d[0];
        d[5 * s] = d[5 * s] - (FC_AA + FC_BB) * d[3 * s] + (FC_AA * FC_BB) * d[s];
        d[s] = a + a_odd;
        d[2 * s] = a - a_odd;
        d[3 * s] = b + b_odd;
        d[4 * s] = b - b_odd;
    } else if (points == 4) {
        const FC_V one = d[s], two = d[2 * s];
        d[0] = two - d[0];
        d[3 * s] = d[3 * s] - one;
        d[s] = two + one;
        d[2 * s] = two - one;
    }
}

/* u <- G g for a kernel of `taps`; `s` and `t` are from one element to the next. */
FC_INLINE void FC_N(fc_weigh_points)(const int points, const int taps, FC_V *u, const int s, const FC_V *g,
                                     const int t)
{
    const FC_T of_zero = 1 / (FC_AA * FC_BB);
    const FC_T of_a = 1 / (2 * FC_AA * (FC_AA - FC_BB)), of_b = 1 / (2 * FC_BB * (FC_BB - FC_AA));
    if (points == 6) {
        FC_V even_a = g[0], odd_a = FC_A * g[t], even_b = g[0], odd_b = FC_B * g[t];
        if (taps > 2) {
            even_a += FC_AA * g[2 * t];
            even_b += FC_BB * g[2 * t];
        }
        if (taps > 3) {
            odd_a += (FC_A * FC_AA) * g[3 * t];
            odd_b += (FC_B * FC_BB) * g[3 * t];
        }
        if (taps > 4) {
            even_a += (FC_AA * FC_AA) * g[4 * t];
            even_b += (FC_BB * FC_BB) * g[4 * t];
        }
        u[0] = of_zero * g[0];
        u[s] = of_a * (even_a + odd_a);
        u[2 * s] = of_a * (even_a - odd_a);
        u[3 * s] = of_b * (even_b + odd_b);
        u[4 * s] = of_b * (even_b - odd_b);
        u[5 * s] = g[(taps - 1) * t];
    } else if (points == 4) {
        const FC_V even = (FC_T)0.5 * (taps > 2 ? g[0] + g[2 * t] : g[0]), odd = (FC_T)0.5 * g[t];
        u[0] = -g[0];
        u[s] = even + odd;
        u[2 * s] = even - odd;
        u[3 * s] = g[(taps - 1) * t];
    } else {
        u[0] = g[0];
    }
}

/* y <- A^T m, `outputs` of them. */
FC_INLINE void FC_N(fc_from_points)(const int points, const int outputs, FC_V *y, const int s, const FC_V *m,
                                    const int t)
{
    if (points == 6) {
        const FC_V even_a = m[t] + m[2 * t], odd_a = m[t] - m[2 * t];
        const FC_V even_b = m[3 * t] + m[4 * t], odd_b = m[3 * t] - m[4 * t];
        y[0] = m[0] + even_a + even_b;
        y[s] = FC_A * odd_a + FC_B * odd_b;
        if (outputs > 2)
            y[2 * s] = FC_AA * even_a + FC_BB * even_b;
        if (outputs > 3)
            y[3 * s] = (FC_A * FC_AA) * odd_a + (FC_B * FC_BB) * odd_b;
        if (outputs > 4)
            y[4 * s] = (FC_AA * FC_AA) * even_a + (FC_BB * FC_BB) * even_b;
        y[(outputs - 1) * s] += m[5 * t];
    } else if (points == 4) {
        y[0] = m[0] + m[t] + m[2 * t];
        y[s] = m[t] - m[2 * t];
        if (outputs > 2)
            y[2 * s] = m[t] + m[2 * t];
        y[(outputs - 1) * s] += m[3 * t];
    } else {
        y[0] = m[0];
    }
}

/* A tile, a vector of channels: patch + at[i] is its i-th cell. */
FC_INLINE void FC_N(fc_input_of)(const int high, const int wide, const FC_T *patch, const ptrdiff_t *at, FC_T *v,
                                 ptrdiff_t pitch)
{
    FC_V d[36];
    int i, j;
    for (i = 0; i < high; i++) {
        FC_UNROLL
        for (j = 0; j < wide; j++)
            d[i * wide + j] = FC_N(fc_load)(patch + at[i * wide + j]);
        FC_N(fc_to_points)(wide, d + i * wide, 1);
    }
    for (j = 0; j < wide; j++) {
        FC_N(fc_to_points)(high, d + j, wide);
        FC_UNROLL
        for (i = 0; i < high; i++)
            FC_N(fc_store)(v + (i * wide + j) * pitch, d[i * wide + j]);
    }
}

static void FC_N(fc_wino_input)(int high, int wide, const void *patch, const ptrdiff_t *at, void *v,
                                ptrdiff_t pitch)
{
#define FC_CASE(h, w)                                                                       \
    if (high == h && wide == w)                                                             \
        FC_N(fc_input_of)(h, w, (const FC_T *)patch, at, (FC_T *)v, pitch);
    FC_CASE(6, 6)
    FC_CASE(4, 4)
    FC_CASE(1, 6)
    FC_CASE(1, 4)
    FC_CASE(6, 1)
#undef FC_CASE
}

/* A kernel, or a tile of the gradient as a kernel, a vector of filters: its tap i is at g + at[i]. */
FC_INLINE void FC_N(fc_weights_of)(const int high, const int taps_h, const int wide, const int taps_w,
                                   const FC_T *g, const ptrdiff_t *at, FC_T *u, ptrdiff_t pitch)
{
    FC_V taps[25], half[30], all[36];
    int i, j;
    for (i = 0; i < taps_h * taps_w; i++)
        taps[i] = FC_N(fc_load)(g + at[i]);
    for (i = 0; i < taps_h; i++)
        FC_N(fc_weigh_points)(wide, taps_w, half + i * wide, 1, taps + i * taps_w, 1);
    for (j = 0; j < wide; j++) {
        FC_N(fc_weigh_points)(high, taps_h, all + j, wide, half + j, wide);
        FC_UNROLL
        for (i = 0; i < high; i++)
            FC_N(fc_store)(u + (i * wide + j) * pitch, all[i * wide + j]);
    }
}

static void FC_N(fc_wino_weights)(int high, int taps_h, int wide, int taps_w, const void *g, const ptrdiff_t *at, void *u,
                                  ptrdiff_t pitch)
{
#define FC_CASE(h, th, w, tw)                                                               \
    if (high == h && taps_h == th && wide == w && taps_w == tw)                             \
        FC_N(fc_weights_of)(h, th, w, tw, (const FC_T *)g, at, (FC_T *)u, pitch);
    FC_CASE(6, 3, 6, 3)
    FC_CASE(4, 3, 4, 3)
    FC_CASE(6, 5, 6, 5)
    FC_CASE(1, 1, 6, 3)
    FC_CASE(1, 1, 4, 3)
    FC_CASE(1, 1, 6, 5)
    FC_CASE(6, 3, 1, 1)
    FC_CASE(6, 5, 1, 1)
    FC_CASE(6, 4, 6, 4)
    FC_CASE(4, 2, 4, 2)
    FC_CASE(6, 2, 6, 2)
    FC_CASE(1, 1, 6, 4)
    FC_CASE(1, 1, 4, 2)
    FC_CASE(1, 1, 6, 2)
    FC_CASE(6, 4, 1, 1)
    FC_CASE(6, 2, 1, 1)
#undef FC_CASE
}

/* One tile, one vector of filters: `filters` of its lanes, `rows` by `columns` of its outputs belong to the result. */
FC_INLINE void FC_N(fc_output_of)(const int high, const int out_h, const int wide, const int out_w, const FC_T *m,
                                  ptrdiff_t pitch, const FC_T *bias, FC_T *to, ptrdiff_t filter_step,
                                  ptrdiff_t row_step, int filters, int rows, int columns)
{
    FC_V half[24], y[16];
    FC_T turned[4 * FC_VL];
    int i, j, f, c;
    for (j = 0; j < wide; j++) {
        FC_V all[6];
        FC_UNROLL
        for (i = 0; i < high; i++)
            all[i] = FC_N(fc_load)(m + (i * wide + j) * pitch);
        FC_N(fc_from_points)(high, out_h, half + j, wide, all, 1);
    }
    for (i = 0; i < out_h; i++) {
        FC_N(fc_from_points)(wide, out_w, y, 1, half + i * wide, 1);
        if (i >= rows)
            break;
        if (bias) {
            const FC_V b = FC_N(fc_load)(bias);
            FC_UNROLL
            for (j = 0; j < out_w; j++)
                y[j] += b;
        }
        /* Lanes are filters: turned, so that the outputs of each lie together. */
        if (out_w == 4) {
            const FC_V a = FC_N(fc_mix_low)(y[0], y[2]), b = FC_N(fc_mix_low)(y[1], y[3]);
            const FC_V p = FC_N(fc_mix_high)(y[0], y[2]), q = FC_N(fc_mix_high)(y[1], y[3]);
            FC_N(fc_store)(turned, FC_N(fc_mix_low)(a, b));
            FC_N(fc_store)(turned + FC_VL, FC_N(fc_mix_high)(a, b));
            FC_N(fc_store)(turned + 2 * FC_VL, FC_N(fc_mix_low)(p, q));
            FC_N(fc_store)(turned + 3 * FC_VL, FC_N(fc_mix_high)(p, q));
        } else if (out_w == 2) {
            FC_N(fc_store)(turned, FC_N(fc_mix_low)(y[0], y[1]));
            FC_N(fc_store)(turned + FC_VL, FC_N(fc_mix_high)(y[0], y[1]));
        } else {
            FC_N(fc_store)(turned, y[0]);
        }
        if (columns == out_w) {
            for (f = 0; f < filters; f++)
                memcpy(to + f * filter_step + i * row_step, turned + f * out_w, out_w * sizeof(FC_T));
        } else {
            for (f = 0; f < filters; f++)
                for (c = 0; c < columns; c++)
                    to[f * filter_step + i * row_step + c] = turned[f * out_w + c];
        }
    }
}

static void FC_N(fc_wino_output)(int high, int out_h, int wide, int out_w, const void *m, ptrdiff_t pitch,
                                 const void *bias, void *to, ptrdiff_t filter_step, ptrdiff_t row_step,
                                 int filters, int rows, int columns)
{
#define FC_CASE(h, oh, w, ow)                                                               \
    if (high == h && out_h == oh && wide == w && out_w == ow)                               \
        FC_N(fc_output_of)(h, oh, w, ow, (const FC_T *)m, pitch, (const FC_T *)bias, (FC_T *)to, filter_step, \
                           row_step, filters, rows, columns);
    FC_CASE(6, 4, 6, 4)
    FC_CASE(4, 2, 4, 2)
    FC_CASE(6, 2, 6, 2)
    FC_CASE(1, 1, 6, 4)
    FC_CASE(1, 1, 4, 2)
    FC_CASE(1, 1, 6, 2)
    FC_CASE(6, 4, 1, 1)
    FC_CASE(6, 2, 1, 1)
#undef FC_CASE
}
/* The gradient of a kernel, a vector of channels, `channels` of its lanes: to[lane * step + tap]. */
FC_INLINE void FC_N(fc_gradient_of)(const int high, const int taps_h, const int wide, const int taps_w, const FC_T *m,
                                    ptrdiff_t pitch, FC_T *to, ptrdiff_t step, int channels)
{
    FC_V half[30], y[5];
    FC_T lanes[25 * FC_VL];
    int i, j, c;
    for (j = 0; j < wide; j++) {
        FC_V all[6];
        FC_UNROLL
        for (i = 0; i < high; i++)
            all[i] = FC_N(fc_load)(m + (i * wide + j) * pitch);
        FC_N(fc_from_points)(high, taps_h, half + j, wide, all, 1);
    }
    for (i = 0; i < taps_h; i++) {
        FC_N(fc_from_points)(wide, taps_w, y, 1, half + i * wide, 1);
        FC_UNROLL
        for (j = 0; j < taps_w; j++)
            FC_N(fc_store)(lanes + (i * taps_w + j) * FC_VL, y[j]);
    }
    for (c = 0; c < channels; c++)
        for (i = 0; i < taps_h * taps_w; i++)
            to[c * step + i] = lanes[i * FC_VL + c];
}

static void FC_N(fc_wino_gradient)(int high, int taps_h, int wide, int taps_w, const void *m, ptrdiff_t pitch,
                                   void *to, ptrdiff_t step, int channels)
{
#define FC_CASE(h, th, w, tw)                                                               \
    if (high == h && taps_h == th && wide == w && taps_w == tw)                             \
        FC_N(fc_gradient_of)(h, th, w, tw, (const FC_T *)m, pitch, (FC_T *)to, step, channels);
    FC_CASE(6, 3, 6, 3)
    FC_CASE(4, 3, 4, 3)
    FC_CASE(6, 5, 6, 5)
    FC_CASE(1, 1, 6, 3)
    FC_CASE(1, 1, 4, 3)
    FC_CASE(1, 1, 6, 5)
    FC_CASE(6, 3, 1, 1)
    FC_CASE(6, 5, 1, 1)
#undef FC_CASE
}
#undef FC_A
#undef FC_B
#undef FC_AA
#undef FC_BB
