/* The kernels of depthwise convolution for one dtype and instruction set: see depthwise.h. */

#undef FC_M
#if FC_VECTORS
#if FC_BYTES == 4
typedef int32_t FC_N(fc_m) __attribute__((vector_size(FC_VB)));
typedef int32_t FC_N(fc_mu) __attribute__((vector_size(FC_VB), aligned(4), may_alias));
static const int32_t FC_N(fc_lane)[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
typedef int64_t FC_N(fc_m) __attribute__((vector_size(FC_VB)));
typedef int64_t FC_N(fc_mu) __attribute__((vector_size(FC_VB), aligned(8), may_alias));
static const int64_t FC_N(fc_lane)[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#endif
#define FC_M FC_N(fc_m)

/* Return a mask that is set in the lanes [first, last). */
FC_INLINE FC_M FC_N(fc_between)(ptrdiff_t first, ptrdiff_t last)
{
    const FC_M lane = *(const FC_N(fc_mu) *)FC_N(fc_lane), zero = {0};
    return (lane >= (int)first - zero) & (lane < (int)last - zero);
}
/* Return v with 0 in the lanes outside the mask, even where v is NaN. */
FC_INLINE FC_V FC_N(fc_keep)(FC_V v, FC_M mask) { return (FC_V)((FC_M)v & mask); }
#else
#define FC_M int
FC_INLINE int FC_N(fc_between)(ptrdiff_t first, ptrdiff_t last) { return first <= 0 && last > 0; }
FC_INLINE FC_V FC_N(fc_keep)(FC_V v, int mask) { return mask ? v : 0; }
#endif

/* Write n zeros. Up to FC_VL - 1 more zeros may be written past the end. */
FC_INLINE void FC_N(fc_clear)(FC_T *to, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i += FC_VL)
        FC_N(fc_store)(to + i, FC_N(fc_broadcast)(0));
}

/* Copy `n` elements that are `stride` elements apart. At most `room` elements of `from` are read. Up to FC_VL - 1
 * elements past the end of `to` may be written. */
FC_INLINE void FC_N(fc_cells)(FC_T *to, const FC_T *from, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t room)
{
    ptrdiff_t i;
    if (stride == 1 && n >= FC_VL) {
        for (i = 0; i < n - FC_VL; i += FC_VL)
            FC_N(fc_store)(to + i, FC_N(fc_load)(from + i));
        FC_N(fc_store)(to + n - FC_VL, FC_N(fc_load)(from + n - FC_VL));
    } else if (stride == 1 && room >= FC_VL) {
        FC_N(fc_store)(to, FC_N(fc_keep)(FC_N(fc_load)(from), FC_N(fc_between)(0, n)));
    } else if (stride == 2 && n >= FC_VL && room >= 2 * n) {
        for (i = 0;; i += FC_VL) {
            i = i < n - FC_VL ? i : n - FC_VL;
            FC_N(fc_store)(to + i,
                           FC_N(fc_even_lanes)(FC_N(fc_load)(from + 2 * i), FC_N(fc_load)(from + 2 * i + FC_VL)));
            if (i == n - FC_VL)
                break;
        }
    } else if (stride == 2 && n < FC_VL && room >= 2 * FC_VL) {
        const FC_V cells = FC_N(fc_even_lanes)(FC_N(fc_load)(from), FC_N(fc_load)(from + FC_VL));
        FC_N(fc_store)(to, FC_N(fc_keep)(cells, FC_N(fc_between)(0, n)));
    } else {
        for (i = 0; i < n; i++)
            to[i] = from[i * stride];
    }
}

/* Copy `rows` rows of one segment (see fc_copy_segment) to the padded copy of the image. At most `left` elements of
 * `from` are read. */
FC_INLINE void FC_N(fc_rows)(FC_T *to, ptrdiff_t width, const fc_copy_segment *segment, ptrdiff_t rows,
                             const FC_T *from, ptrdiff_t from_pitch, ptrdiff_t stride, ptrdiff_t left)
{
    const ptrdiff_t before = segment->before, n = segment->n, after = width - before - n;
    if (stride <= 2 && n <= FC_VL && before <= FC_VL && n + after <= FC_VL) {
        /* For short rows, one store writes both the elements of a row and the zeros after them. */
        const FC_M mask = FC_N(fc_between)(0, n);
        for (; rows > 0 && left >= stride * FC_VL; rows--) {
            FC_V cells = FC_N(fc_load)(from);
            if (stride == 2)
                cells = FC_N(fc_even_lanes)(cells, FC_N(fc_load)(from + FC_VL));
            if (before)
                FC_N(fc_store)(to, FC_N(fc_broadcast)(0));
            FC_N(fc_store)(to + before, FC_N(fc_keep)(cells, mask));
            to += width;
            from += from_pitch;
            left -= from_pitch;
        }
    }
    for (; rows > 0; rows--) {
        fc_check((n - 1) * stride < left);
        FC_N(fc_clear)(to, before);
        FC_N(fc_cells)(to + before, from, n, stride, left);
        FC_N(fc_clear)(to + before + n, after);
        to += width;
        from += from_pitch;
        left -= from_pitch;
    }
}

/* Copy both stride phases of the same rows together, for stride 2, so that each row is read once. `shift` is 0 if the
 * first phase starts one element before the second, and 1 if it starts one element after the second. */
static void FC_N(fc_both)(FC_T *block, ptrdiff_t width, const fc_copy_segment *first, const fc_copy_segment *second,
                          const FC_T *from, ptrdiff_t from_pitch, const int shift, ptrdiff_t left)
{
    const fc_copy_segment *segments[2] = {first, second};
    const ptrdiff_t n = first->n < second->n ? first->n : second->n;
    FC_T *to[2] = {block + first->to, block + second->to};
    FC_V begin = FC_N(fc_broadcast)(0);
    ptrdiff_t row, i;
    int side;
    for (side = 0; side < 2; side++) {
        FC_N(fc_clear)(to[side], first->top * width);
        to[side] += first->top * width;
    }
    for (row = 0; row < first->rows; row++) {
        FC_T *even = to[shift] + segments[shift]->before, *odd = to[1 - shift] + segments[1 - shift]->before;
        for (side = 0; side < 2; side++)
            FC_N(fc_clear)(to[side], segments[side]->before);
        for (i = 0; i + FC_VL <= n && 2 * (i + FC_VL) <= left; i += FC_VL) {
            const FC_V a = FC_N(fc_load)(from + 2 * i), b = FC_N(fc_load)(from + 2 * i + FC_VL);
            FC_N(fc_store)(even + i, FC_N(fc_even_lanes)(a, b));
            FC_N(fc_store)(odd + i, FC_N(fc_odd_lanes)(a, b));
        }
        for (side = 1; side >= 0; side--) {
            const ptrdiff_t before = segments[side]->before, cells = segments[side]->n, at = 2 * i + (side ^ shift);
            FC_N(fc_cells)(to[side] + before + i, from + at, cells - i, 2, left - at);
            FC_N(fc_clear)(to[side] + before + cells, width - before - cells);
            to[side] += width;
            /* Later stores of the first phase overwrite the start of the second phase. So save the start of the second
             * phase now, and restore it at the end. */
            if (row == 0 && side)
                begin = FC_N(fc_load)(block + second->to);
        }
        from += from_pitch;
        left -= from_pitch;
    }
    for (side = 0; side < 2; side++)
        FC_N(fc_clear)(to[side], first->bottom * width);
    FC_N(fc_store)(block + second->to, begin);
}

/* Copy `count` segments (see fc_copy_segment) to the padded copy of the image, whose rows have `width` elements.
 *
 * The segments must be in ascending order of their offsets, because up to FC_VL - 1 elements past the end of a segment
 * may be overwritten. At most `room` elements of `from` are read. */
static void FC_N(fc_pad)(void *to_, ptrdiff_t width, const fc_copy_segment *segments, ptrdiff_t count,
                         const void *from_, ptrdiff_t from_pitch, ptrdiff_t stride, ptrdiff_t room)
{
    const FC_T *from = (const FC_T *)from_;
    FC_T *block = (FC_T *)to_;
    for (; count > 0; count--, segments++) {
        FC_T *to = block + segments->to;
        const ptrdiff_t apart = count > 1 ? segments[1].from - segments->from : 0;
        if (stride == 2 && (apart == 1 || apart == -1) && segments->n > FC_VL && segments[1].n > FC_VL &&
            segments->top == segments[1].top && segments->rows == segments[1].rows &&
            segments->bottom == segments[1].bottom) {
            const ptrdiff_t at = apart == 1 ? segments->from : segments[1].from;
            FC_N(fc_both)(block, width, segments, segments + 1, from + at, from_pitch, apart != 1, room - at);
            count--;
            segments++;
            continue;
        }
        FC_N(fc_clear)(to, segments->top * width);
        to += segments->top * width;
        FC_N(fc_rows)(to, width, segments, segments->rows, from + segments->from, from_pitch, stride,
                      room - segments->from);
        to += segments->rows * width;
        FC_N(fc_clear)(to, segments->bottom * width);
    }
}

/* Copy `n` elements of each of `rows` rows, where n is less than 2 * FC_VL. Each row is copied in parts of FC_VL,
 * FC_VL / 2, ..., 1 elements, because the compiler inlines only copies of constant size. This function is not inlined,
 * because otherwise the function of each tile size would contain a copy of it. */
static FC_NOINLINE void FC_N(fc_store_rows)(FC_T *to, ptrdiff_t to_pitch, const FC_T *from, ptrdiff_t from_pitch,
                                            ptrdiff_t rows, ptrdiff_t n)
{
    for (; rows > 0; rows--, to += to_pitch, from += from_pitch) {
        FC_T *cells = to;
        const FC_T *lanes = from;
        int half;
        FC_UNROLL
        for (half = FC_VL; half; half /= 2) {
            if (n & half) {
                memcpy(cells, lanes, half * sizeof(FC_T));
                cells += half;
                lanes += half;
            }
        }
    }
}

/* Return the number of rows of the next tile. The `left` remaining rows are divided into tiles of about the same size,
 * each with at most `most` rows. */
FC_INLINE ptrdiff_t FC_N(fc_rows_at_once)(ptrdiff_t left, ptrdiff_t most)
{
    return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
}

/* Compute a tile of `rows` rows of `vectors` vectors in registers. The last vector of a row starts at element `last`.
 *
 * If a tile is one vector wide, only the first `lanes` lanes of each row are results. The rows before row `loose` are
 * stored as whole vectors anyway, because the rows after them overwrite the other lanes. */
FC_INLINE void FC_N(fc_sweep_of)(const int high, const int rows, const int vectors, const fc_taps *taps,
                                 const FC_T *FC_RESTRICT from, FC_T *FC_RESTRICT to, ptrdiff_t last, FC_T bias,
                                 ptrdiff_t lanes, ptrdiff_t loose)
{
    FC_V sums[8][8];
    const ptrdiff_t *at = taps->at;
    const ptrdiff_t pitch = taps->pitch, step = taps->step;
    ptrdiff_t j;
    int i, r, v;
    FC_UNROLL
    for (r = 0; r < rows; r++) {
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            sums[r][v] = FC_N(fc_broadcast)(0);
    }
    for (j = 0; j < taps->k; j++) {
        const FC_T *row = from + at[j], *w = (const FC_T *)taps->w + taps->of[j];
        FC_UNROLL
        for (i = 0; i < rows + high - 1; i++) {
            FC_UNROLL
            for (v = 0; v < vectors; v++) {
                FC_V x = FC_N(fc_load)(row + i * pitch + (v && v == vectors - 1 ? last : v * FC_VL));
                FC_HOLD(x);
                FC_UNROLL
                for (r = 0; r < rows; r++) {
                    if (i - r >= 0 && i - r < high)
                        sums[r][v] += FC_N(fc_broadcast)(w[(i - r) * step]) * x;
                }
            }
        }
    }
    /* Add the bias last, because a large first term would increase the rounding error of every later addition. */
    FC_UNROLL
    for (r = 0; r < rows; r++) {
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            sums[r][v] += FC_N(fc_broadcast)(bias);
    }
    if (vectors == 1 && lanes < FC_VL && loose < rows) {
        FC_T narrow[8 * FC_VL];
        const ptrdiff_t whole = loose > 0 ? loose : 0;
        FC_UNROLL
        for (r = 0; r < rows; r++)
            FC_N(fc_store)(r < whole ? to + r * taps->to_pitch : narrow + r * FC_VL, sums[r][0]);
        FC_N(fc_store_rows)(to + whole * taps->to_pitch, taps->to_pitch, narrow + whole * FC_VL, FC_VL, rows - whole,
                            lanes);
        return;
    }
    FC_UNROLL
    for (r = 0; r < rows; r++) {
        FC_T *row = to + r * taps->to_pitch;
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            FC_N(fc_store)(row + (v && v == vectors - 1 ? last : v * FC_VL), sums[r][v]);
    }
}

/* clang-format off */
#define FC_SWEEPS(high)                                                                                      \
    FC_SWEEP(high, 1, 1) FC_SWEEP(high, 2, 1) FC_SWEEP(high, 3, 1) FC_SWEEP(high, 4, 1) FC_SWEEP(high, 5, 1) \
    FC_SWEEP(high, 6, 1) FC_SWEEP(high, 7, 1) FC_SWEEP(high, 8, 1) FC_SWEEP(high, 1, 2) FC_SWEEP(high, 2, 2) \
    FC_SWEEP(high, 3, 2) FC_SWEEP(high, 4, 2) FC_SWEEP(high, 1, 4) FC_SWEEP(high, 2, 4) FC_SWEEP(high, 1, 8)
/* clang-format on */

/* Each tile size has a function of its own with unrolled loops, because compiling one function for all sizes would take
 * much longer. */
#define FC_SWEEP(high, rows, vectors)                                                                                 \
    static FC_NOINLINE void FC_PASTE3(FC_N(fc_sweep_##high), rows, vectors)(                                          \
        const fc_taps *taps, const FC_T *from, FC_T *to, ptrdiff_t last, FC_T bias, ptrdiff_t lanes, ptrdiff_t loose) \
    {                                                                                                                 \
        FC_N(fc_sweep_of)(high, rows, vectors, taps, from, to, last, bias, lanes, loose);                             \
    }
FC_SWEEPS(1)
FC_SWEEPS(3)
FC_SWEEPS(5)
#undef FC_SWEEP

#define FC_SWEEP(high, rows, vectors)                                                                           \
    case ((high) * 16 + (rows)) * 16 + (vectors):                                                               \
        FC_PASTE3(FC_N(fc_sweep_##high), rows, vectors)(taps, source, target, last, shift, lanes, whole - row); \
        break;

/* Compute `rows` rows of n results. Each result is the bias plus a sum over the taps of weight times image element.
 *
 * If n is less than FC_VL, stores to the first `whole` rows may go past the end of the row, because later rows
 * overwrite these elements. Up to FC_VL - 1 elements past the end of each row of the image may be read. */
static void FC_N(fc_sweep)(const fc_taps *taps, const void *from, void *to, ptrdiff_t rows, ptrdiff_t n,
                           const void *bias, ptrdiff_t whole)
{
    const FC_T shift = bias ? *(const FC_T *)bias : 0;
    const ptrdiff_t vectors = (n + FC_VL - 1) / FC_VL, lanes = n < FC_VL ? n : FC_VL;
    const ptrdiff_t most = vectors == 1 ? 8 : vectors < 4 || rows > 2 ? 4 : rows;
    ptrdiff_t row, here, v;
    for (row = 0; row < rows; row += here) {
        here = FC_N(fc_rows_at_once)(rows - row, most);
        for (v = 0; v < vectors;) {
            const ptrdiff_t left = vectors - v;
            const ptrdiff_t width = left >= 8 && here == 1   ? 8
                                    : left >= 4 && here <= 2 ? 4
                                    : left >= 2 && here <= 4 ? 2
                                                             : 1;
            /* The last vector of a row ends at the end of the row, so it may overlap the previous vector. */
            const ptrdiff_t end = (v + width) * FC_VL < n ? (v + width) * FC_VL : n;
            const ptrdiff_t at = width == 1 && n >= FC_VL ? end - FC_VL : v * FC_VL;
            const ptrdiff_t last = end - FC_VL - at;
            const FC_T *source = (const FC_T *)from + row * taps->pitch + at;
            FC_T *target = (FC_T *)to + row * taps->to_pitch + at;
            switch ((taps->high * 16 + here) * 16 + width) {
                FC_SWEEPS(1)
                FC_SWEEPS(3)
                FC_SWEEPS(5)
            default:
                fc_check(0);
            }
            v += width;
        }
    }
}
#undef FC_SWEEP
#undef FC_SWEEPS

/* Compute a tile of `rows` rows for fc_sweep_pair. */
FC_INLINE void FC_N(fc_pair_of)(const int rows, const fc_taps *a, const fc_taps *b, const FC_T *FC_RESTRICT from,
                                FC_T *FC_RESTRICT to, ptrdiff_t lanes, FC_T start, ptrdiff_t loose)
{
    FC_V sums[4][2];
    ptrdiff_t j;
    int r, side;
    FC_UNROLL
    for (side = 0; side < 2; side++) {
        const fc_taps *taps = side ? b : a;
        const FC_T *w = (const FC_T *)taps->w;
        FC_UNROLL
        for (r = 0; r < rows; r++)
            sums[r][side] = FC_N(fc_broadcast)(start);
        for (j = 0; j < taps->k; j++) {
            const FC_T *row = from + taps->at[j];
            const FC_V weight = FC_N(fc_broadcast)(w[taps->of[j]]);
            FC_UNROLL
            for (r = 0; r < rows; r++)
                sums[r][side] += weight * FC_N(fc_load)(row + r * a->pitch);
        }
    }
    {
        FC_T narrow[8 * FC_VL];
        const ptrdiff_t whole = lanes >= 2 * FC_VL || loose > rows ? rows : loose > 0 ? loose : 0;
        FC_UNROLL
        for (r = 0; r < rows; r++) {
            FC_T *row = r < whole ? to + r * a->to_pitch : narrow + 2 * r * FC_VL;
            FC_N(fc_store)(row, FC_N(fc_interleave_lower_lanes)(sums[r][0], sums[r][1]));
            FC_N(fc_store)(row + FC_VL, FC_N(fc_interleave_upper_lanes)(sums[r][0], sums[r][1]));
        }
        if (whole < rows)
            FC_N(fc_store_rows)(to + whole * a->to_pitch, a->to_pitch, narrow + 2 * whole * FC_VL, 2 * FC_VL,
                                rows - whole, lanes);
    }
}

/* Compute rows like fc_sweep, but with two lists of taps. Results with even indices are sums over the taps `a`, and
 * results with odd indices are sums over the taps `b`. */
static void FC_N(fc_sweep_pair)(const fc_taps *a, const fc_taps *b, const void *from, void *to, ptrdiff_t rows,
                                ptrdiff_t n, const void *bias, ptrdiff_t whole)
{
    const FC_T start = bias ? *(const FC_T *)bias : 0;
    ptrdiff_t row, here, at;
    for (row = 0; row < rows; row += here) {
        here = FC_N(fc_rows_at_once)(rows - row, 4);
        for (at = 0; at < n; at += 2 * FC_VL) {
            /* If n is even, the last two vectors end at the end of the row, so they may overlap the previous
             * vectors. */
            const ptrdiff_t begin = n % 2 == 0 && n >= 2 * FC_VL && at > n - 2 * FC_VL ? n - 2 * FC_VL : at;
            const FC_T *source = (const FC_T *)from + row * a->pitch + begin / 2;
            FC_T *target = (FC_T *)to + row * a->to_pitch + begin;
            switch (here) {
            case 1:
                FC_N(fc_pair_of)(1, a, b, source, target, n - begin, start, whole - row);
                break;
            case 2:
                FC_N(fc_pair_of)(2, a, b, source, target, n - begin, start, whole - row);
                break;
            case 3:
                FC_N(fc_pair_of)(3, a, b, source, target, n - begin, start, whole - row);
                break;
            default:
                FC_N(fc_pair_of)(4, a, b, source, target, n - begin, start, whole - row);
            }
        }
    }
}

#include "depthwise/dots.h"

const fc_depthwise_kernels FC_N(fc_depthwise_kernels) = {
    .pad = FC_N(fc_pad),
    .sweep = FC_N(fc_sweep),
    .sweep_pair = FC_N(fc_sweep_pair),
    .dots = FC_N(fc_dots),
    .lanes = FC_N(fc_lanes),
};
