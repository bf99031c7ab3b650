/* The transforms of Winograd's minimal filtering F(m, r) for one dtype and instruction set: see winograd.h. */
#include "winograd/points.h"

/* Expand FC_CASE(points, n) for every supported pair. n is the number of taps or, for output transforms, the number of
 * outputs of a tile. */
#define FC_CASES  \
    FC_CASE(1, 1) \
    FC_CASE(4, 2) \
    FC_CASE(4, 3) \
    FC_CASE(6, 2) \
    FC_CASE(6, 3) \
    FC_CASE(6, 4) \
    FC_CASE(6, 5) \
    FC_CASE(8, 2) \
    FC_CASE(8, 3) \
    FC_CASE(8, 4) \
    FC_CASE(8, 5) \
    FC_CASE(8, 6) \
    FC_CASE(8, 7)

/* The address of element i of `from`: its offset is at[i], or i * pitch if `at` is NULL. */
#define FC_FROM(i) (from + (at ? at[i] : (i) * pitch))

/* Apply the image transform to tiles along one axis; each vector lane holds one tile. The value at interpolation point
 * i is stored at to[i * step]. */
FC_INLINE void FC_N(fc_input_of)(const int points, const FC_T *from, const ptrdiff_t *at, ptrdiff_t pitch, FC_T *to,
                                 ptrdiff_t step)
{
    FC_V d[8];
    int i;
    FC_UNROLL
    for (i = 0; i < points; i++)
        d[i] = FC_N(fc_load)(FC_FROM(i));
    FC_N(fc_to_points)(points, d);
    FC_UNROLL
    for (i = 0; i < points; i++)
        FC_N(fc_store)(to + i * step, d[i]);
}

/* Apply the kernel transform to kernels of `taps` taps along one axis; each vector lane holds one kernel. The value at
 * interpolation point i is stored at to[i * step]. */
FC_INLINE void FC_N(fc_weights_of)(const int points, const int taps, const FC_T *from, const ptrdiff_t *at,
                                   ptrdiff_t pitch, FC_T *to, ptrdiff_t step)
{
    FC_V g[8], u[8];
    int i;
    FC_UNROLL
    for (i = 0; i < taps; i++)
        g[i] = FC_N(fc_load)(FC_FROM(i));
    FC_N(fc_weigh_points)(points, taps, u, g);
    FC_UNROLL
    for (i = 0; i < points; i++)
        FC_N(fc_store)(to + i * step, u[i]);
}
#undef FC_FROM

/* Apply the output transform to products along one axis; each vector lane holds one tile. The product at interpolation
 * point i is read from from[i * pitch], and output i is stored at to[i * step]. */
FC_INLINE void FC_N(fc_output_of)(const int points, const int outputs, const FC_T *from, ptrdiff_t pitch, FC_T *to,
                                  ptrdiff_t step)
{
    FC_V m[8], y[8];
    int i;
    FC_UNROLL
    for (i = 0; i < points; i++)
        m[i] = FC_N(fc_load)(from + i * pitch);
    FC_N(fc_from_points)(points, outputs, y, m);
    FC_UNROLL
    for (i = 0; i < outputs; i++)
        FC_N(fc_store)(to + i * step, y[i]);
}

/* The next three functions transform `lines` rows or columns of a tile along one axis. They pass the sizes of the
 * transform on as compile-time constants. */
static void FC_N(fc_input_lines)(int points, const FC_T *from, const ptrdiff_t *at, ptrdiff_t pitch, FC_T *to,
                                 ptrdiff_t step, int lines, ptrdiff_t from_next, ptrdiff_t to_next)
{
    int i;
    for (i = 0; i < lines; i++, to += to_next) {
        const FC_T *line = at ? from : from + i * from_next;
        const ptrdiff_t *cells = at ? at + i * from_next : NULL;
        if (points == 8)
            FC_N(fc_input_of)(8, line, cells, pitch, to, step);
        else if (points == 6)
            FC_N(fc_input_of)(6, line, cells, pitch, to, step);
        else if (points == 4)
            FC_N(fc_input_of)(4, line, cells, pitch, to, step);
        else
            FC_N(fc_input_of)(1, line, cells, pitch, to, step);
    }
}

/* Each combination of the numbers of points and taps has a function of its own, because compiling one function for all
 * combinations would take much longer. The same holds for the numbers of points and outputs. */
#define FC_CASE(p, t)                                                                                                  \
    static FC_NOINLINE void FC_PASTE3(FC_N(fc_weights_lines), p, t)(const FC_T *from, const ptrdiff_t *at,             \
                                                                    ptrdiff_t pitch, FC_T *to, ptrdiff_t step,         \
                                                                    int lines, ptrdiff_t from_next, ptrdiff_t to_next) \
    {                                                                                                                  \
        int i;                                                                                                         \
        for (i = 0; i < lines; i++, to += to_next)                                                                     \
            FC_N(fc_weights_of)(p, t, at ? from : from + i * from_next, at ? at + i * from_next : NULL, pitch, to,     \
                                step);                                                                                 \
    }
FC_CASES
#undef FC_CASE

static void FC_N(fc_weights_lines)(int points, int taps, const FC_T *from, const ptrdiff_t *at, ptrdiff_t pitch,
                                   FC_T *to, ptrdiff_t step, int lines, ptrdiff_t from_next, ptrdiff_t to_next)
{
    switch (points * 8 + taps) {
#define FC_CASE(p, t)                                                                                  \
    case p * 8 + t:                                                                                    \
        FC_PASTE3(FC_N(fc_weights_lines), p, t)(from, at, pitch, to, step, lines, from_next, to_next); \
        break;
        FC_CASES
#undef FC_CASE
    default:
        fc_check(0);
    }
}

#define FC_CASE(p, o)                                                                                              \
    static FC_NOINLINE void FC_PASTE3(FC_N(fc_output_lines), p, o)(const FC_T *from, ptrdiff_t pitch, FC_T *to,    \
                                                                   ptrdiff_t step, int lines, ptrdiff_t from_next, \
                                                                   ptrdiff_t to_next)                              \
    {                                                                                                              \
        int i;                                                                                                     \
        for (i = 0; i < lines; i++, from += from_next, to += to_next)                                              \
            FC_N(fc_output_of)(p, o, from, pitch, to, step);                                                       \
    }
FC_CASES
#undef FC_CASE

static void FC_N(fc_output_lines)(int points, int outputs, const FC_T *from, ptrdiff_t pitch, FC_T *to, ptrdiff_t step,
                                  int lines, ptrdiff_t from_next, ptrdiff_t to_next)
{
    switch (points * 8 + outputs) {
#define FC_CASE(p, o)                                                                             \
    case p * 8 + o:                                                                               \
        FC_PASTE3(FC_N(fc_output_lines), p, o)(from, pitch, to, step, lines, from_next, to_next); \
        break;
        FC_CASES
#undef FC_CASE
    default:
        fc_check(0);
    }
}

/* Apply the image transform along both axes of a square tile. All loops have constant lengths. */
FC_INLINE void FC_N(fc_input_square)(const int points, const FC_T *patch, const ptrdiff_t *at, FC_T *v, ptrdiff_t pitch)
{
    FC_T half[64 * FC_VL];
    int i;
    for (i = 0; i < points; i++)
        FC_N(fc_input_of)(points, patch, at + i * points, 0, half + i * points * FC_VL, FC_VL);
    for (i = 0; i < points; i++)
        FC_N(fc_input_of)(points, half + i * FC_VL, NULL, points * FC_VL, v + i * pitch, points * pitch);
}

/* Apply the image transform along both axes, for a vector of channels. Element i of the tile is at patch + at[i]. */
static void FC_N(fc_wino_input)(int high, int wide, const void *patch_, const ptrdiff_t *at, void *v_, ptrdiff_t pitch)
{
    const FC_T *patch = (const FC_T *)patch_;
    FC_T *v = (FC_T *)v_, half[64 * FC_VL];
    if (high == wide && wide == 8) {
        FC_N(fc_input_square)(8, patch, at, v, pitch);
    } else if (high == wide && wide == 6) {
        FC_N(fc_input_square)(6, patch, at, v, pitch);
    } else if (high == wide && wide == 4) {
        FC_N(fc_input_square)(4, patch, at, v, pitch);
    } else if (high == 1) {
        FC_N(fc_input_lines)(wide, patch, at, 0, v, pitch, 1, 0, 0);
    } else {
        FC_N(fc_input_lines)(wide, patch, at, 0, half, FC_VL, high, wide, wide * FC_VL);
        FC_N(fc_input_lines)(high, half, NULL, wide * FC_VL, v, wide * pitch, wide, FC_VL, pitch);
    }
}

/* Transform a kernel along both axes, for a vector of filters. Tap i is at g + at[i]. For the gradient of the weights,
 * a tile of dout takes the place of the kernel. */
static void FC_N(fc_wino_weights)(int high, int taps_h, int wide, int taps_w, const void *g_, const ptrdiff_t *at,
                                  void *u_, ptrdiff_t pitch)
{
    const FC_T *g = (const FC_T *)g_;
    FC_T *u = (FC_T *)u_, half[64 * FC_VL];
    if (high == 1) {
        FC_N(fc_weights_lines)(wide, taps_w, g, at, 0, u, pitch, 1, 0, 0);
    } else {
        FC_N(fc_weights_lines)(wide, taps_w, g, at, 0, half, FC_VL, taps_h, taps_w, wide * FC_VL);
        FC_N(fc_weights_lines)(high, taps_h, half, NULL, wide * FC_VL, u, wide * pitch, wide, FC_VL, pitch);
    }
}

/* Transpose n vectors: to[lane * pitch + i] becomes lane `lane` of vector i. Up to FC_TL - 1 more elements of each row
 * of `to` may be written. */
FC_INLINE void FC_N(fc_transpose_lanes)(FC_T *to, const ptrdiff_t pitch, const FC_T *vectors, const int n)
{
    int lane, first, i;
    FC_UNROLL
    for (first = 0; first < n; first += FC_TL) {
        FC_UNROLL
        for (lane = 0; lane < FC_VL; lane += FC_TL) {
            FC_N(fc_t) square[FC_TL];
            FC_UNROLL
            for (i = 0; i < FC_TL; i++)
                square[i] = *(const FC_N(fc_tu) *)(vectors + (first + i < n ? first + i : first) * FC_VL + lane);
            FC_N(fc_transpose)(square);
            FC_UNROLL
            for (i = 0; i < FC_TL; i++)
                *(FC_N(fc_tu) *)(to + (lane + i) * pitch + first) = square[i];
        }
    }
}

/* Store the outputs [begin, end) of a row of a tile for some filters. This function is not inlined, because it is for
 * tiles at the edge of the result, and for results with a stride. */
static FC_NOINLINE void FC_N(fc_store_cells)(FC_T *to, ptrdiff_t filter_step, ptrdiff_t column_step, const FC_T *from,
                                             ptrdiff_t pitch, int filters, int begin, int end)
{
    int f, i;
    for (f = 0; f < filters; f++)
        for (i = begin; i < end; i++)
            to[f * filter_step + i * column_step] = from[f * pitch + i];
}

/* Apply the output transform to one row of a tile, and store its outputs [begin, end) in the result, for a vector of
 * filters. The row has `wide` points that are `step` elements apart.
 *
 * A lane of `check` becomes NaN if one of its outputs is inf or NaN: the sum of the outputs is then inf or NaN, and
 * zero times this sum is NaN. The sum may also overflow although all outputs are finite. That is harmless, because the
 * caller then only computes the image again. */
FC_INLINE void FC_N(fc_row_of)(const int wide, const int outputs, const FC_T *from, ptrdiff_t step, const FC_T *bias,
                               FC_T *to, ptrdiff_t filter_step, ptrdiff_t column_step, int filters, int begin, int end,
                               FC_V *check)
{
    FC_T rows[8 * FC_VL], transposed[8 * FC_VL];
    FC_V m[8], y[8], sum;
    int i, f;
    FC_UNROLL
    for (i = 0; i < wide; i++)
        m[i] = FC_N(fc_load)(from + i * step);
    FC_N(fc_from_points)(wide, outputs, y, m);
    if (bias) {
        const FC_V b = FC_N(fc_load)(bias);
        FC_UNROLL
        for (i = 0; i < outputs; i++)
            y[i] += b;
    }
    sum = y[0];
    FC_UNROLL
    for (i = 1; i < outputs; i++)
        sum += y[i];
    *check += sum * FC_N(fc_broadcast)(0);
    /* Transpose the vectors, whose lanes are filters, so that the outputs of each filter are contiguous. */
    if (outputs == 4 || outputs == 3) {
        const FC_V last = outputs == 4 ? y[3] : y[2];
        const FC_V a = FC_N(fc_interleave_lower_lanes)(y[0], y[2]), b = FC_N(fc_interleave_lower_lanes)(y[1], last);
        const FC_V p = FC_N(fc_interleave_upper_lanes)(y[0], y[2]), q = FC_N(fc_interleave_upper_lanes)(y[1], last);
        FC_N(fc_store)(transposed, FC_N(fc_interleave_lower_lanes)(a, b));
        FC_N(fc_store)(transposed + FC_VL, FC_N(fc_interleave_upper_lanes)(a, b));
        FC_N(fc_store)(transposed + 2 * FC_VL, FC_N(fc_interleave_lower_lanes)(p, q));
        FC_N(fc_store)(transposed + 3 * FC_VL, FC_N(fc_interleave_upper_lanes)(p, q));
    } else if (outputs == 2) {
        FC_N(fc_store)(transposed, FC_N(fc_interleave_lower_lanes)(y[0], y[1]));
        FC_N(fc_store)(transposed + FC_VL, FC_N(fc_interleave_upper_lanes)(y[0], y[1]));
    } else if (outputs == 1) {
        FC_N(fc_store)(transposed, y[0]);
    } else {
        FC_UNROLL
        for (i = 0; i < outputs; i++)
            FC_N(fc_store)(rows + i * FC_VL, y[i]);
        FC_N(fc_transpose_lanes)(transposed, 8, rows, outputs);
    }
    {
        const ptrdiff_t pitch = outputs == 3 ? 4 : outputs > 4 ? 8 : outputs;
        if (begin == 0 && end == outputs && column_step == 1) {
            for (f = 0; f < filters; f++)
                memcpy(to + f * filter_step, transposed + f * pitch, outputs * sizeof(FC_T));
        } else {
            FC_N(fc_store_cells)(to, filter_step, column_step, transposed, pitch, filters, begin, end);
        }
    }
}

/* Apply the output transform to the rows of a tile, and store the outputs. If the tile is square, first apply the
 * transform to the columns of the tile. If the tile is not square and has several rows, the caller has already
 * transformed the columns. */
#define FC_CASE(w, o)                                                                                               \
    static FC_NOINLINE void FC_PASTE3(FC_N(fc_output_rows), w, o)(                                                  \
        int square, const FC_T *m, ptrdiff_t pitch, FC_T *half, const FC_T *from, ptrdiff_t step, const FC_T *bias, \
        FC_T *to, ptrdiff_t filter_step, ptrdiff_t row_step, ptrdiff_t column_step, int filters, const int *box,    \
        FC_T *check_)                                                                                               \
    {                                                                                                               \
        FC_V check = FC_N(fc_load)(check_);                                                                         \
        int i, j;                                                                                                   \
        for (j = 0; j < w && square && w > 1; j++)                                                                  \
            FC_N(fc_output_of)(w, o, m + j * pitch, w * pitch, half + j * FC_VL, w * FC_VL);                        \
        for (i = box[0]; i < box[1]; i++)                                                                           \
            FC_N(fc_row_of)(w, o, from + i * w * step, step, bias, to + i * row_step, filter_step, column_step,     \
                            filters, box[2], box[3], &check);                                                       \
        FC_N(fc_store)(check_, check);                                                                              \
    }
FC_CASES
#undef FC_CASE

/* Apply the output transform to the products of one tile, and store the outputs in the result, for the first `filters`
 * lanes of a vector of filters. Only the outputs in `box` are stored: rows [box[0], box[1]) and columns [box[2],
 * box[3]). */
static void FC_N(fc_wino_output)(int high, int out_h, int wide, int out_w, const void *m_, ptrdiff_t pitch,
                                 const void *bias_, void *to_, ptrdiff_t filter_step, ptrdiff_t row_step,
                                 ptrdiff_t column_step, int filters, const int *box, void *check_)
{
    const FC_T *m = (const FC_T *)m_, *bias = (const FC_T *)bias_;
    FC_T *to = (FC_T *)to_, half[56 * FC_VL];
    const FC_T *from = high == 1 ? m : half;
    const ptrdiff_t step = high == 1 ? pitch : FC_VL;
    const int square = high == wide && out_h == out_w;
    if (high > 1 && !square)
        FC_N(fc_output_lines)(high, out_h, m, wide * pitch, half, wide * FC_VL, wide, pitch, FC_VL);
    switch (wide * 8 + out_w) {
#define FC_CASE(w, o)                                                                                              \
    case w * 8 + o:                                                                                                \
        FC_PASTE3(FC_N(fc_output_rows), w, o)(square, m, pitch, half, from, step, bias, to, filter_step, row_step, \
                                              column_step, filters, box, (FC_T *)check_);                          \
        break;
        FC_CASES
#undef FC_CASE
    default:
        fc_check(0);
    }
}

/* Apply the output transform to the gradient of a kernel, for the first `channels` lanes of a vector of channels. The
 * gradient of tap i is stored at to[lane * step + at[i]]; at[i] is -1 for a tap that the kernel does not have. `check`
 * is updated as in fc_row_of. */
static void FC_N(fc_wino_gradient)(int high, int taps_h, int wide, int taps_w, const void *m_, ptrdiff_t pitch,
                                   void *to_, ptrdiff_t step, const ptrdiff_t *at, int channels, void *check_)
{
    const FC_T *m = (const FC_T *)m_;
    FC_T *to = (FC_T *)to_, *check = (FC_T *)check_, half[56 * FC_VL], lanes[49 * FC_VL];
    FC_V sum = FC_N(fc_broadcast)(0);
    int i, c;
    if (high == 1) {
        FC_N(fc_output_lines)(wide, taps_w, m, pitch, lanes, FC_VL, 1, 0, 0);
    } else {
        FC_N(fc_output_lines)(high, taps_h, m, wide * pitch, half, wide * FC_VL, wide, pitch, FC_VL);
        FC_N(fc_output_lines)(wide, taps_w, half, FC_VL, lanes, FC_VL, taps_h, wide * FC_VL, taps_w * FC_VL);
    }
    for (i = 0; i < taps_h * taps_w; i++) {
        if (at[i] < 0)
            continue;
        sum += FC_N(fc_load)(lanes + i * FC_VL);
        for (c = 0; c < channels; c++)
            to[c * step + at[i]] = lanes[i * FC_VL + c];
    }
    FC_N(fc_store)(check, FC_N(fc_load)(check) + sum * FC_N(fc_broadcast)(0));
}
#undef FC_CASES
#undef FC_PAIRS

const fc_winograd_kernels FC_N(fc_winograd_kernels) = {
    .gradient = FC_N(fc_wino_gradient),
    .input = FC_N(fc_wino_input),
    .weights = FC_N(fc_wino_weights),
    .output = FC_N(fc_wino_output),
};
