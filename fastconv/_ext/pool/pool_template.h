/* Kernels of pooling for one dtype and instruction set: see pool.h. */
#include "simd/lanes.h"

/* Convert the fields `first_inside`, `count[2]` and `tap_distance` of fc_pool to numbers of the size of a vector lane,
 * and write the three tables to the workspace of a thread. All windows of a call use these tables. FC_SLACK elements
 * follow each of the first two tables. */
static void FC_N(fc_pool_fill_tables)(const fc_pool *g, int op, void *workspace)
{
    FC_L *first_inside = (FC_L *)workspace + g->first_inside_at;
    FC_T *count = (FC_T *)workspace + g->count_at;
    FC_L *tap_distance = (FC_L *)workspace + g->tap_distance_at;
    ptrdiff_t i;
    for (i = 0; op == FC_POOL_MAX && i < g->k[1] * g->k[2]; i++)
        tap_distance[i] = (FC_L)g->tap_distance[i];
    for (i = 0; i < g->out[2] + FC_SLACK; i++) {
        first_inside[i] = op == FC_POOL_MAX && i < g->out[2] ? (FC_L)g->first_inside[i] : 0;
        count[i] = op == FC_POOL_MEAN && i < g->out[2] ? (FC_T)g->count[2][i] : 1;
    }
}

/* Return the square root of every lane. */
FC_INLINE FC_V FC_N(fc_root)(FC_V v)
{
    FC_T all[FC_VL];
    int i;
    FC_N(fc_store)(all, v);
    for (i = 0; i < FC_VL; i++)
        all[i] = FC_BYTES == 4 ? (FC_T)sqrtf((float)all[i]) : (FC_T)sqrt((double)all[i]);
    return FC_N(fc_load)(all);
}

/* Copy n elements, or their squares. If elements past the end of `from` may be read, whole vectors are copied. Whole
 * vectors may go past the end of `to`, because later stores overwrite these elements. Return a mask of the lanes in
 * which an element is NaN. */
FC_INLINE FC_I FC_N(fc_pool_copy)(const int square, FC_T *FC_RESTRICT to, const FC_T *FC_RESTRICT from, ptrdiff_t n,
                                  ptrdiff_t stride, const FC_T *from_end)
{
    FC_I has_nan = FC_N(fc_broadcast_lanes)(0);
    ptrdiff_t i;
    if (stride == 1 && from_end - from >= n + FC_VL - 1) {
        for (i = 0; i < n; i += FC_VL) {
            const FC_V v = FC_N(fc_load)(from + i);
            FC_N(fc_store)(to + i, square ? v * v : v);
            has_nan |= FC_N(fc_is_nan)(v);
        }
    } else {
        for (i = 0; i < n; i++)
            to[i] = square ? from[i * stride] * from[i * stride] : from[i * stride];
        for (i = 0; i < n; i++)
            has_nan |= FC_N(fc_broadcast_lanes)(-(FC_L)(to[i] != to[i]));
    }
    return has_nan;
}

/* Copy one row of the image to the workspace, for any stride. Return a mask of the lanes in which an element is NaN. */
FC_INLINE FC_I FC_N(fc_pool_fill)(const int square, const fc_pool *g, FC_T *row, const FC_T *from, const FC_T *from_end)
{
    const ptrdiff_t stride = g->stride[2];
    FC_I has_nan = FC_N(fc_broadcast_lanes)(0);
    ptrdiff_t phase;
    for (phase = 0; phase < g->n_phases; phase++) {
        const ptrdiff_t begin = g->phase_begin[phase], n = g->phase_end[phase] - begin;
        const ptrdiff_t at = g->phase_column[phase] + begin * stride;
        if (n <= 0)
            continue;
        fc_check(at >= 0 && at + (n - 1) * stride < g->size[2]);
        has_nan |= FC_N(fc_pool_copy)(square, row + phase * g->phase_pitch + begin, from + at, n, stride, from_end);
    }
    return has_nan;
}

/* Copy to the workspace all cells of a plane that the output rows [begin, end) at depth `od` read. Return whether any
 * of these cells is NaN. */
FC_INLINE int FC_N(fc_pool_load_of)(const int square, const fc_pool *pool, int op, void *space, const void *plane,
                                    const void *plane_end, ptrdiff_t od, ptrdiff_t begin, ptrdiff_t end)
{
    /* Use a local copy, because the compiler then knows that no store changes it. */
    const fc_pool own = *pool, *g = &own;
    const ptrdiff_t height = g->size[1], width = g->size[2], pitch = g->pitch;
    const ptrdiff_t top = begin * g->stride[1] - g->lo[1], front = od * g->stride[0] - g->lo[0];
    const ptrdiff_t needed_rows = (end - 1 - begin) * g->stride[1] + (g->k[1] - 1) * g->dilation[1] + 1;
    const ptrdiff_t first = top < 0 ? -top : 0, rows = top + needed_rows < height ? needed_rows : height - top;
    const ptrdiff_t kd_begin = g->tap_begin[0][od], kd_end = g->tap_end[0][od];
    /* With stride 2, a row is split into its even and its odd cells. If the left padding is odd, cell 0 of the image is
     * an odd cell of the padded row. */
    const int by_two = g->stride[2] == 2 && g->n_phases == 2;
    const ptrdiff_t evens = g->lo[2] & 1, odds = 1 - evens;
    const ptrdiff_t even = by_two ? evens * g->phase_pitch + g->phase_begin[evens] : 0;
    const ptrdiff_t odd = by_two ? odds * g->phase_pitch + g->phase_begin[odds] : 0;
    const ptrdiff_t n_evens = by_two ? g->phase_end[evens] - g->phase_begin[evens] : 0;
    const ptrdiff_t n_odds = by_two ? g->phase_end[odds] - g->phase_begin[odds] : 0;
    const ptrdiff_t pairs = n_evens > n_odds ? n_evens : n_odds;
    const FC_T pad = op == FC_POOL_MAX ? (FC_T)-INFINITY : 0;
    FC_I nan = FC_N(fc_broadcast_lanes)(0);
    ptrdiff_t kd, row, phase, i;
    fc_check(needed_rows <= g->rows && kd_begin < kd_end);
    for (kd = kd_begin; kd < kd_end; kd++) {
        const FC_T *image = (const FC_T *)plane + ((front + kd * g->dilation[0]) * height + top) * width;
        const ptrdiff_t readable = (const FC_T *)plane_end - (image + (rows - 1) * width);
        FC_T *to = (FC_T *)space + kd * g->rows * pitch;
        fc_check(front + kd * g->dilation[0] >= 0 && front + kd * g->dilation[0] < g->size[0]);
        if (by_two && readable >= 2 * (pairs + FC_VL - 1)) {
            for (row = first; row < rows; row++) {
                const FC_T *from = image + row * width;
                FC_T *at = to + row * pitch;
                for (i = 0; i < pairs; i += FC_VL) {
                    const FC_V a = FC_N(fc_load)(from + 2 * i), b = FC_N(fc_load)(from + 2 * i + FC_VL);
                    const FC_V evens_of = FC_N(fc_even_lanes)(a, b), odds_of = FC_N(fc_odd_lanes)(a, b);
                    FC_N(fc_store)(at + even + i, square ? evens_of * evens_of : evens_of);
                    FC_N(fc_store)(at + odd + i, square ? odds_of * odds_of : odds_of);
                    nan |= FC_N(fc_is_nan)(a) | FC_N(fc_is_nan)(b);
                }
            }
        } else {
            for (row = first; row < rows; row++)
                nan |= FC_N(fc_pool_fill)(square, g, to + row * pitch, image + row * width, (const FC_T *)plane_end);
        }
        /* Write the padding around the rows last, because the copies may have overwritten it. */
        for (phase = 0; phase < g->n_phases; phase++) {
            const ptrdiff_t before = g->phase_begin[phase], after = g->phase_end[phase], all = g->phase_width;
            FC_T *phase_row = to + phase * g->phase_pitch;
            if (before == 0 && after == all)
                continue;
            for (row = first; row < rows; row++) {
                for (i = 0; i < before; i++)
                    phase_row[row * pitch + i] = pad;
                for (i = after; i < all; i++)
                    phase_row[row * pitch + i] = pad;
            }
        }
    }
    return FC_N(fc_any)(nan);
}

static int FC_N(fc_pool_load)(const fc_pool *g, int op, void *space, const void *plane, const void *plane_end,
                              ptrdiff_t od, ptrdiff_t begin, ptrdiff_t end)
{
    if (op == FC_POOL_NORM)
        return FC_N(fc_pool_load_of)(1, g, op, space, plane, plane_end, od, begin, end);
    return FC_N(fc_pool_load_of)(0, g, op, space, plane, plane_end, od, begin, end);
}

/* A vector of n outputs. `from` points to the cells that the first tap of the windows reads. `out` and `indices` point
 * to the places where the results and their indices are stored. `corner` is the index, in the plane, of the first cell
 * of the first window. */
typedef struct {
    const FC_T *from;
    FC_T *out;
    int32_t *indices;
    ptrdiff_t n, corner;
    FC_I first_inside;
    FC_V count;
} FC_N(fc_output_vector);

/* Compute `units` vectors of outputs whose windows have the same taps inside the image. A running maximum is a chain of
 * operations that depend on one another, so the CPU is only fast with several independent chains. If there are few
 * vectors, the taps are divided into `parts` parts of equal length, each with its own chain. Parts may overlap, because
 * only a larger number replaces a maximum. */
FC_INLINE void FC_N(fc_pool_units)(const int op, const int units, const int parts, const fc_pool *g,
                                   const FC_N(fc_output_vector) *unit, const FC_L *tap_distance, ptrdiff_t kd_begin,
                                   ptrdiff_t kd_end, ptrdiff_t t0, ptrdiff_t t1, const FC_T *out_end)
{
    const int nan = op == FC_POOL_MAX_OR_NAN, sums = op == FC_POOL_MEAN || op == FC_POOL_NORM;
    const ptrdiff_t taps = (t1 - t0 + parts - 1) / parts;
    FC_V best[FC_UNITS][FC_PARTS];
    FC_I best_index[FC_UNITS][FC_PARTS];
    ptrdiff_t begin[FC_PARTS], kd, t, w;
    int u, p;
    FC_UNROLL
    for (p = 0; p < parts; p++) {
        begin[p] = p * taps < t1 - t0 - taps ? t0 + p * taps : t1 - taps;
        FC_UNROLL
        for (u = 0; u < units; u++) {
            best[u][p] = FC_N(fc_broadcast)(sums ? 0 : (FC_T)-INFINITY);
            best_index[u][p] = unit[u].first_inside;
        }
    }
    for (kd = kd_begin; kd < kd_end; kd++) {
        const ptrdiff_t depth_plane = kd * g->rows * g->pitch;
        const FC_I depth_offset = FC_N(fc_broadcast_lanes)((FC_L)(kd * g->dilation[0] * g->size[1] * g->size[2]));
        if (sums) {
            /* Sum the taps of each row separately, so that chains of additions are short. */
            for (t = t0; t < t1; t += g->k[2]) {
                FC_V row[FC_UNITS];
                FC_UNROLL
                for (u = 0; u < units; u++)
                    row[u] = FC_N(fc_load)(unit[u].from + depth_plane + g->tap_offset[t]);
                for (w = 1; w < g->k[2]; w++) {
                    FC_UNROLL
                    for (u = 0; u < units; u++)
                        row[u] += FC_N(fc_load)(unit[u].from + depth_plane + g->tap_offset[t + w]);
                }
                FC_UNROLL
                for (u = 0; u < units; u++)
                    best[u][0] += row[u];
            }
            continue;
        }
        for (t = 0; t < taps; t++) {
            FC_UNROLL
            for (p = 0; p < parts; p++) {
                const ptrdiff_t at = depth_plane + g->tap_offset[begin[p] + t];
                const FC_I cell = FC_N(fc_broadcast_lanes)(tap_distance[begin[p] + t]) + depth_offset;
                FC_UNROLL
                for (u = 0; u < units; u++) {
                    const FC_V value = FC_N(fc_load)(unit[u].from + at);
                    const FC_I take = FC_N(fc_replaces_maximum)(value, best[u][p], nan);
                    best[u][p] = FC_N(fc_select)(take, value, best[u][p]);
                    best_index[u][p] = FC_N(fc_select_lanes)(take, cell, best_index[u][p]);
                }
            }
        }
        if (parts > 1) {
            /* Combine the maxima of all parts of the taps. At the next index of the window along D, all parts continue
             * from the combined maximum. */
            FC_UNROLL
            for (u = 0; u < units; u++) {
                FC_UNROLL
                for (p = 1; p < parts; p++) {
                    const FC_I take = FC_N(fc_replaces_maximum)(best[u][p], best[u][0], nan);
                    best[u][0] = FC_N(fc_select)(take, best[u][p], best[u][0]);
                    best_index[u][0] = FC_N(fc_select_lanes)(take, best_index[u][p], best_index[u][0]);
                }
                FC_UNROLL
                for (p = 1; p < parts; p++) {
                    best[u][p] = best[u][0];
                    best_index[u][p] = best_index[u][0];
                }
            }
        }
    }
    FC_UNROLL
    for (u = 0; u < units; u++) {
        if (!sums) {
            const FC_I steps = FC_N(fc_iota)() * FC_N(fc_broadcast_lanes)((FC_L)g->stride[2]);
            const FC_I cells = best_index[u][0] + steps + FC_N(fc_broadcast_lanes)((FC_L)unit[u].corner);
            FC_N(fc_store_indices)(unit[u].indices, cells, unit[u].n, out_end - unit[u].out);
            FC_N(fc_store_some)(unit[u].out, best[u][0], unit[u].n, out_end);
        } else if (op == FC_POOL_NORM) {
            FC_N(fc_store_some)(unit[u].out, FC_N(fc_root)(best[u][0]), unit[u].n, out_end);
        } else {
            FC_N(fc_store_some)(unit[u].out, best[u][0] / unit[u].count, unit[u].n, out_end);
        }
    }
}

/* Compute the output rows [begin, end) at depth `od` from the workspace. `indices` is used for the maximum only.
 *
 * A vector may be written past the end of its row, but not past `out_end`, the end of the outputs of this chunk. */
FC_INLINE void FC_N(fc_pool_rows)(const int op, const fc_pool *pool, const FC_T *space, const FC_T *workspace,
                                  FC_T *out, int32_t *indices, const FC_T *out_end, ptrdiff_t od, ptrdiff_t begin,
                                  ptrdiff_t end)
{
    const fc_pool own = *pool, *g = &own;
    const int sums = op == FC_POOL_MEAN || op == FC_POOL_NORM;
    const ptrdiff_t height = g->size[1], width = g->size[2], out_width = g->out[2];
    const ptrdiff_t front = od * g->stride[0] - g->lo[0];
    const ptrdiff_t kd_begin = g->tap_begin[0][od], kd_end = g->tap_end[0][od];
    const FC_L *first_inside = (const FC_L *)workspace + g->first_inside_at;
    const FC_T *count = workspace + g->count_at;
    const FC_L *tap_distance = (const FC_L *)workspace + g->tap_distance_at;
    FC_N(fc_output_vector) unit[FC_UNITS];
    ptrdiff_t oh, i;
    int units = 0;
    for (oh = begin; oh < end; oh++) {
        const ptrdiff_t kh_begin = g->tap_begin[1][oh], kh_end = g->tap_end[1][oh];
        const FC_T *from = space + (oh - begin) * g->stride[1] * g->pitch;
        const ptrdiff_t corner = (front * height + oh * g->stride[1] - g->lo[1]) * width - g->lo[2];
        const ptrdiff_t skipped = (kd_begin * g->dilation[0] * height + kh_begin * g->dilation[1]) * width;
        const FC_T shared = op == FC_POOL_MEAN ? (FC_T)(g->count[0][od] * g->count[1][oh]) : 1;
        const int ends_run = oh + 1 == end || g->tap_begin[1][oh + 1] != kh_begin || g->tap_end[1][oh + 1] != kh_end;
        fc_check(kh_begin < kh_end &&
                 (from - space) + g->tap_offset[kh_end * g->k[2] - 1] + out_width + FC_SLACK <= g->rows * g->pitch);
        for (i = 0; i < out_width; i += FC_VL) {
            FC_N(fc_output_vector) *u = unit + units++;
            u->from = from + i;
            u->out = out + i;
            u->n = out_width - i < FC_VL ? out_width - i : FC_VL;
            if (!sums) {
                u->indices = indices + i;
                u->corner = corner + i * g->stride[2];
                /* If no number in the window is above -inf, the first cell of the window is the maximum. */
                u->first_inside = FC_N(fc_load_lanes)(first_inside + i) + FC_N(fc_broadcast_lanes)((FC_L)skipped);
            } else if (op == FC_POOL_MEAN) {
                u->count = FC_N(fc_load)(count + i) * FC_N(fc_broadcast)(shared);
            }
            if (units < FC_UNITS && !(ends_run && i + FC_VL >= out_width))
                continue;
#define FC_UNITS_OF(n, parts)                                                                                     \
    case n:                                                                                                       \
        FC_N(fc_pool_units)(op, n, sums ? 1 : parts, g, unit, tap_distance, kd_begin, kd_end, kh_begin * g->k[2], \
                            kh_end * g->k[2], out_end);                                                           \
        break;
            switch (units) {
                FC_UNITS_OF(1, 4)
                FC_UNITS_OF(2, 2)
                FC_UNITS_OF(3, 1)
                FC_UNITS_OF(4, 1)
            }
#undef FC_UNITS_OF
            units = 0;
        }
        out += out_width;
        indices += sums ? 0 : out_width;
    }
}

/* Each kind of pooling has a function of its own, because compiling one function for all kinds would take much
 * longer. */
#define FC_ROWS_OF(name, op)                                                                                  \
    static FC_NOINLINE void FC_N(name)(const fc_pool *g, const void *space, const void *workspace, void *out, \
                                       int32_t *indices, const void *out_end, ptrdiff_t od, ptrdiff_t begin,  \
                                       ptrdiff_t end)                                                         \
    {                                                                                                         \
        FC_N(fc_pool_rows)(op, g, (const FC_T *)space, (const FC_T *)workspace, (FC_T *)out, indices,         \
                           (const FC_T *)out_end, od, begin, end);                                            \
    }
FC_ROWS_OF(fc_pool_max_rows, FC_POOL_MAX)
FC_ROWS_OF(fc_pool_max_or_nan_rows, FC_POOL_MAX_OR_NAN)
FC_ROWS_OF(fc_pool_mean_rows, FC_POOL_MEAN)
FC_ROWS_OF(fc_pool_norm_rows, FC_POOL_NORM)
#undef FC_ROWS_OF

static void FC_N(fc_pool_forward)(const fc_pool *g, int op, const void *space, const void *workspace, void *out,
                                  int32_t *indices, const void *out_end, ptrdiff_t od, ptrdiff_t begin, ptrdiff_t end)
{
    if (op == FC_POOL_MAX)
        FC_N(fc_pool_max_rows)(g, space, workspace, out, indices, out_end, od, begin, end);
    else if (op == FC_POOL_MAX_OR_NAN)
        FC_N(fc_pool_max_or_nan_rows)(g, space, workspace, out, indices, out_end, od, begin, end);
    else if (op == FC_POOL_MEAN)
        FC_N(fc_pool_mean_rows)(g, space, workspace, out, indices, out_end, od, begin, end);
    else
        FC_N(fc_pool_norm_rows)(g, space, workspace, out, indices, out_end, od, begin, end);
}

/* Return dout divided by the norm, or 0 where the norm is 0. */
FC_INLINE FC_V FC_N(fc_over_norm)(FC_V dout, FC_V norm)
{
    const FC_V zero = FC_N(fc_broadcast)(0);
    return FC_N(fc_select)(FC_N(fc_replaces_maximum)(norm, zero, 1), dout / norm, zero);
}

/* Find the output rows that read rows [begin, end) of the input. Return the first of these output rows, and set *last
 * to the last of them. */
FC_INLINE ptrdiff_t FC_N(fc_find_reading_rows)(const fc_pool *g, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t *last)
{
    const ptrdiff_t *h = g->readers[1] + (begin ? g->readers_end[1][begin - 1] : 0);
    const ptrdiff_t *h_end = g->readers[1] + g->readers_end[1][end - 1];
    ptrdiff_t low = g->out[1];
    for (*last = -1; h < h_end; h++) {
        low = *h < low ? *h : low;
        *last = *h > *last ? *h : *last;
    }
    fc_check(*last - low < g->rows);
    return low;
}

/* For all outputs that read rows [begin, end) of the input at depth `id`, write dout to the workspace. For the mean,
 * each element of dout is divided by the number of cells of its window. For the norm, it is divided by the norm of its
 * window. */
static void FC_N(fc_pool_load_gradient)(const fc_pool *pool, void *space, const void *workspace, const void *dout,
                                        const void *dout_end, const void *norm, ptrdiff_t id, ptrdiff_t begin,
                                        ptrdiff_t end)
{
    const fc_pool own = *pool, *g = &own;
    const ptrdiff_t out_width = g->out[2];
    const FC_T *count = (const FC_T *)workspace + g->count_at;
    const ptrdiff_t first = id ? g->readers_end[0][id - 1] : 0;
    ptrdiff_t last, d, oh, i;
    const ptrdiff_t low = FC_N(fc_find_reading_rows)(g, begin, end, &last);
    for (d = first; d < g->readers_end[0][id]; d++) {
        const ptrdiff_t od = g->readers[0][d];
        FC_T *row = (FC_T *)space + (d - first) * g->rows * g->pitch;
        for (oh = low; oh <= last; oh++, row += g->pitch) {
            const ptrdiff_t at = (od * g->out[1] + oh) * out_width;
            const FC_T *from = (const FC_T *)dout + at;
            const FC_T shared = (FC_T)(g->count[0][od] * g->count[1][oh]);
            FC_T *to = row + g->left;
            if (norm) {
                for (i = 0; i < out_width; i += FC_VL) {
                    const ptrdiff_t readable = (const FC_T *)dout_end - (from + i);
                    const FC_V norms = FC_N(fc_load_some)((const FC_T *)norm + at + i, readable);
                    FC_N(fc_store)(to + i, FC_N(fc_over_norm)(FC_N(fc_load_some)(from + i, readable), norms));
                }
            } else if ((const FC_T *)dout_end - from >= out_width + FC_VL - 1) {
                for (i = 0; i < out_width; i += FC_VL)
                    FC_N(fc_store)(to + i,
                                   FC_N(fc_load)(from + i) / (FC_N(fc_load)(count + i) * FC_N(fc_broadcast)(shared)));
            } else {
                for (i = 0; i < out_width; i++)
                    to[i] = from[i] / (count[i] * shared);
            }
            for (i = 0; i < g->left; i++)
                row[i] = 0;
            for (i = 0; i < g->right; i++)
                to[out_width + i] = 0;
        }
    }
}

/* Compute rows [begin, end) of dx at depth `id` of a plane from the workspace, for a stride of 1 or 2 along W. Each
 * cell of dx is the sum over the outputs that read it. So each cell is written once, and no two threads write the same
 * cell. If x is not NULL, the sum is multiplied by x. */
static void FC_N(fc_pool_gather)(const fc_pool *pool, const void *space, const void *x_, const void *x_end, void *dx_,
                                 const void *dx_end, ptrdiff_t id, ptrdiff_t begin, ptrdiff_t end)
{
    const fc_pool own = *pool, *g = &own;
    const ptrdiff_t width = g->size[2], stride = g->stride[2], depth_plane = g->rows * g->pitch;
    const ptrdiff_t depths = g->readers_end[0][id] - (id ? g->readers_end[0][id - 1] : 0);
    ptrdiff_t last, ih, i, d, t;
    const ptrdiff_t low = FC_N(fc_find_reading_rows)(g, begin, end, &last);
    const ptrdiff_t *high = g->readers[1] + (begin ? g->readers_end[1][begin - 1] : 0), *h;
    const FC_T *x = (const FC_T *)x_;
    FC_T *dx = (FC_T *)dx_;
    for (ih = begin; ih < end; ih++, dx += width) {
        const ptrdiff_t *high_end = g->readers[1] + g->readers_end[1][ih];
        for (i = 0; i * stride < width; i += FC_VL) {
            const FC_T *from = (const FC_T *)space + i;
            const ptrdiff_t left = width - i * stride;
            FC_V sums[2] = {FC_N(fc_broadcast)(0), FC_N(fc_broadcast)(0)};
            int r;
            for (r = 0; r < stride; r++) {
                FC_V sum = FC_N(fc_broadcast)(0);
                for (d = 0; d < depths; d++)
                    for (h = high; h < high_end; h++) {
                        /* Sum the taps of each row separately, so that chains of additions are short. */
                        FC_V row = FC_N(fc_broadcast)(0);
                        for (t = r ? g->offset_end[0] : 0; t < g->offset_end[r]; t++)
                            row += FC_N(fc_load)(from + d * depth_plane + (*h - low) * g->pitch + g->offset[t]);
                        sum += row;
                    }
                sums[r] = sum;
            }
            if (stride == 2) {
                const FC_V low_half = FC_N(fc_interleave_lower_lanes)(sums[0], sums[1]);
                sums[1] = FC_N(fc_interleave_upper_lanes)(sums[0], sums[1]);
                sums[0] = low_half;
            }
            if (x) {
                const FC_T *factors = x + stride * i;
                for (r = 0; r < stride; r++, factors += FC_VL)
                    sums[r] *= FC_N(fc_load_some)(factors, (const FC_T *)x_end - factors);
            }
            if (stride == 1) {
                FC_N(fc_store_some)(dx + i, sums[0], left < FC_VL ? left : FC_VL, (const FC_T *)dx_end);
            } else {
                FC_N(fc_store_some)(dx + 2 * i, sums[0], left < FC_VL ? left : FC_VL, (const FC_T *)dx_end);
                if (left > FC_VL)
                    FC_N(fc_store_some)(dx + 2 * i + FC_VL, sums[1], left < 2 * FC_VL ? left - FC_VL : FC_VL,
                                        (const FC_T *)dx_end);
            }
        }
        high = high_end;
        x = x ? x + width : x;
    }
}

#include "pool/pool_2x2_template.h"

const fc_pool_kernels FC_N(fc_pool_kernels) = {
    .fill_tables = FC_N(fc_pool_fill_tables),
    .load = FC_N(fc_pool_load),
    .forward = FC_N(fc_pool_forward),
    .load_gradient = FC_N(fc_pool_load_gradient),
    .gather = FC_N(fc_pool_gather),
    .forward_2x2 = FC_N(fc_pool_2x2_forward),
    .backward_2x2 = FC_N(fc_pool_2x2_backward),
    .mean_2x2 = FC_N(fc_pool_2x2_mean),
    .norm_2x2 = FC_N(fc_pool_2x2_norm),
    .mean_backward_2x2 = FC_N(fc_pool_2x2_mean_backward),
    .norm_backward_2x2 = FC_N(fc_pool_2x2_norm_backward),
};
