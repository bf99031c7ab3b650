/* Running maxima and sums for one dtype and instruction set: see pool_running.h. */
#include "simd/lanes.h"

FC_INLINE void FC_N(fc_store_lanes)(FC_L *p, FC_I v) { *(FC_N(fc_iu) *)p = v; }

/* Compute the terms of sums or maxima from n elements (see FC_INPUT_* in pool_running.h). Return a mask of the lanes in
 * which an element was NaN. */
FC_INLINE FC_I FC_N(fc_running_cells)(const int input_op, FC_T *FC_RESTRICT to, const FC_T *from, const FC_T *norm,
                                      const FC_T *count, FC_T shared, ptrdiff_t n)
{
    const FC_V zero = FC_N(fc_broadcast)(0), times = FC_N(fc_broadcast)(shared);
    FC_I nan = FC_N(fc_broadcast_lanes)(0);
    ptrdiff_t i, last;
    /* The last vector overlaps the previous vector. */
    for (i = 0; n >= FC_VL && i < n; i += FC_VL) {
        const ptrdiff_t at = i + FC_VL <= n ? i : n - FC_VL;
        FC_V v = FC_N(fc_load)(from + at);
        nan |= FC_N(fc_is_nan)(v);
        if (input_op == FC_INPUT_SQUARES)
            v *= v;
        if (input_op == FC_INPUT_OVER_COUNT)
            v /= FC_N(fc_load)(count + at) * times;
        if (input_op == FC_INPUT_OVER_NORM) {
            const FC_V norms = FC_N(fc_load)(norm + at);
            v = FC_N(fc_select)(FC_N(fc_replaces_maximum)(norms, zero, 1), v / norms, zero);
        }
        FC_N(fc_store)(to + at, v);
    }
    last = n >= FC_VL ? n : 0;
    for (i = last; i < n; i++) {
        FC_T v = from[i];
        nan |= FC_N(fc_broadcast_lanes)(-(FC_L)(v != v));
        if (input_op == FC_INPUT_SQUARES)
            v *= v;
        if (input_op == FC_INPUT_OVER_COUNT)
            v /= count[i] * shared;
        if (input_op == FC_INPUT_OVER_NORM)
            v = norm[i] <= 0 ? 0 : v / norm[i];
        to[i] = v;
    }
    return nan;
}

/* Do one step along a row: add the sums of two windows that are `shift` elements apart. If `more` is not 0, also add
 * the cell that is `more` elements after the start of the first window. `to` may be equal to `v`, because no vector
 * reads elements that an earlier vector has written. */
FC_INLINE void FC_N(fc_running_sums)(const FC_T *v, const FC_T *cells, FC_T *to, ptrdiff_t n, ptrdiff_t shift,
                                     ptrdiff_t more)
{
    ptrdiff_t i;
    if (more) {
        for (i = 0; i < n; i += FC_VL)
            FC_N(fc_store)(to + i,
                           (FC_N(fc_load)(v + i) + FC_N(fc_load)(v + i + shift)) + FC_N(fc_load)(cells + i + more));
    } else {
        for (i = 0; i < n; i += FC_VL)
            FC_N(fc_store)(to + i, FC_N(fc_load)(v + i) + FC_N(fc_load)(v + i + shift));
    }
}

/* Do one step along a row for maxima and their indices. If `first` is set, this is the first step, in which the index
 * of element i is i. */
FC_INLINE void FC_N(fc_running_maxima)(const int nan, const int first, const FC_T *v, const FC_L *best_index, FC_T *to,
                                       FC_L *to_index, ptrdiff_t n, ptrdiff_t shift, FC_L base)
{
    const FC_I step = FC_N(fc_broadcast_lanes)((FC_L)shift), bases = FC_N(fc_broadcast_lanes)(base);
    FC_I here = FC_N(fc_iota)();
    ptrdiff_t i;
    for (i = 0; i < n; i += FC_VL) {
        const FC_V a = FC_N(fc_load)(v + i), b = FC_N(fc_load)(v + i + shift);
        const FC_I replaces = FC_N(fc_replaces_maximum)(b, a, nan);
        const FC_I at_a = first ? here : FC_N(fc_load_lanes)(best_index + i);
        const FC_I at_b = first ? here + step : FC_N(fc_load_lanes)(best_index + i + shift);
        FC_N(fc_store)(to + i, FC_N(fc_select)(replaces, b, a));
        FC_N(fc_store_lanes)(to_index + i, FC_N(fc_select_lanes)(replaces, at_b, at_a) + bases);
        here += FC_N(fc_broadcast_lanes)(FC_VL);
    }
}

/* For the backward pass, compute each cell of a row of dx as a sum over the outputs that read the cell: see
 * fc_running_width. */
static void FC_N(fc_running_sum_readers)(const fc_running_width *w, const fc_target_range *range, const FC_T *sums,
                                         const FC_T *cells, FC_T *to)
{
    const ptrdiff_t begin = range->begin + w->lo, end = range->end + w->lo, stride = w->stride;
    ptrdiff_t phase, i;
    if (w->phases < stride)
        for (i = 0; i < range->end - range->begin; i++)
            to[i] = 0;
    for (phase = 0; phase < w->phases; phase++) {
        const ptrdiff_t at = phase * w->dilation;
        const ptrdiff_t first = fc_floor_div(begin - at + stride - 1, stride);
        const ptrdiff_t last = fc_floor_div(end - 1 - at, stride);
        const ptrdiff_t n = last - first + 1;
        const FC_T *from = sums + (first - (w->taps - 1) * w->step - range->source);
        const FC_T *one = cells + (first - w->taps * w->step - range->source);
        FC_T *target = to + (first * stride + at - begin);
        if (n <= 0)
            continue;
        fc_check(first * stride + at - begin >= 0 && last * stride + at < end);
        fc_check(last - range->source < range->n);
        if (phase < w->rest) {
            fc_check(first - w->taps * w->step >= range->source);
            if (w->taps)
                FC_EACH(n, stride, target[i * S] = one[i] + from[i]);
            else
                FC_EACH(n, stride, target[i * S] = one[i]);
        } else if (w->taps) {
            fc_check(first - (w->taps - 1) * w->step >= range->source);
            FC_EACH(n, stride, target[i * S] = from[i]);
        } else {
            FC_EACH(n, stride, target[i * S] = 0);
        }
    }
}

/* Do the steps along W for one row of each of `planes` planes, and write the results to `to`. For maxima, the indices
 * of the maxima, plus `base`, follow the results. In memory, the rows of two planes are `plane_step` elements apart,
 * but all rows are processed as one long row. So windows that overlap two planes are computed, too, but are not used.
 * For maxima, return whether an element of the rows is NaN. */
static int FC_N(fc_running_row)(const fc_running_width *w, int op, int input_op, const fc_target_range *range,
                                void *space, ptrdiff_t pitch, const void *row, const void *norm, const void *count,
                                double shared, void *to_, ptrdiff_t to_pitch, ptrdiff_t base, ptrdiff_t planes,
                                ptrdiff_t plane_step)
{
    const ptrdiff_t n = range->n, length = planes * n, out_width = range->end - range->begin, source = range->source;
    const ptrdiff_t stride = w->phases ? 1 : w->stride;
    const ptrdiff_t before = source < 0 ? (source + n < 0 ? n : -source) : 0;
    const ptrdiff_t end = w->size - source < n ? (w->size - source > before ? w->size - source : before) : n;
    const int sums = op == FC_RUNNING_SUM;
    const FC_T pad = sums ? 0 : (FC_T)-INFINITY;
    FC_T *v = (FC_T *)space, *cells = v + pitch, *to = (FC_T *)to_;
    FC_L *best_index = (FC_L *)cells, *to_index = (FC_L *)(to + to_pitch);
    ptrdiff_t p, i, l, extent = 0;
    FC_I nan = FC_N(fc_broadcast_lanes)(0);
    int has_nan;
    fc_check(length + 2 * FC_RUNNING_SLACK <= pitch &&
             (planes - 1) * fc_running_plane_pitch(w, range) + out_width + FC_RUNNING_SLACK <= to_pitch);
#define FC_INPUT_OF(how)                                                                                             \
    case how:                                                                                                        \
        for (p = 0; p < planes; p++)                                                                                 \
            nan |= FC_N(fc_running_cells)(how, v + p * n + before, from + p * plane_step,                            \
                                          norms ? norms + p * plane_step : norms, (const FC_T *)count, (FC_T)shared, \
                                          end - before);                                                             \
        break;
    if (end > before) {
        const FC_T *from = (const FC_T *)row + source + before;
        const FC_T *norms = norm ? (const FC_T *)norm + source + before : NULL;
        switch (input_op) {
            FC_INPUT_OF(FC_INPUT_CELLS)
            FC_INPUT_OF(FC_INPUT_SQUARES)
            FC_INPUT_OF(FC_INPUT_OVER_COUNT)
            FC_INPUT_OF(FC_INPUT_OVER_NORM)
        }
    }
#undef FC_INPUT_OF
    for (p = 0; p < planes; p++) {
        for (i = 0; i < before; i++)
            v[p * n + i] = pad;
        for (i = end; i < n; i++)
            v[p * n + i] = pad;
    }
    has_nan = !sums && FC_N(fc_any)(nan);
    if (sums && w->copies_sources)
        memcpy(cells, v, (size_t)length * sizeof(FC_T));
    for (l = 0; l < w->levels; l++) {
        const ptrdiff_t shift = w->shift[l];
        const int more = sums && l + 1 < w->levels && w->plus[l + 1];
        const int last = l + 1 + more == w->levels && stride == 1 && !w->phases;
        FC_T *into = last ? to : v;
        extent += shift;
        if (sums) {
            if (more)
                extent += w->shift[++l];
            FC_N(fc_running_sums)(v, cells, into, length - extent, shift, more ? extent : 0);
        } else {
            FC_L *into_index = last ? to_index : best_index;
            const FC_L from_base = last ? (FC_L)base : 0;
            if (has_nan && l)
                FC_N(fc_running_maxima)(1, 0, v, best_index, into, into_index, length - extent, shift, from_base);
            else if (has_nan)
                FC_N(fc_running_maxima)(1, 1, v, best_index, into, into_index, length - extent, shift, from_base);
            else if (l)
                FC_N(fc_running_maxima)(0, 0, v, best_index, into, into_index, length - extent, shift, from_base);
            else
                FC_N(fc_running_maxima)(0, 1, v, best_index, into, into_index, length - extent, shift, from_base);
        }
        if (last)
            return has_nan;
    }
    fc_check(w->phases || (out_width - 1) * stride + extent < n);
    for (p = 0; p < planes; p++, v += n, cells += n, best_index += n, to += out_width, to_index += out_width) {
        const FC_L start = (FC_L)(base + p * n);
        if (w->phases) {
            FC_N(fc_running_sum_readers)(w, range, v, cells, to);
            continue;
        }
        FC_EACH(out_width, stride, to[i] = v[i * S]);
        if (!sums && w->levels)
            FC_EACH(out_width, stride, to_index[i] = best_index[i * S] + (FC_L)base);
        else if (!sums)
            FC_EACH(out_width, stride, to_index[i] = (FC_L)(i * S) + start);
    }
    return has_nan;
}

/* Combine the current row with earlier rows, which are in the ring buffers. In each step, the current row replaces the
 * oldest row of a ring buffer. The sum (or the maximum) of these two rows is the current row of the next step. */
FC_INLINE void FC_N(fc_running_merge_of)(const int op, const fc_running_merge_step *m, const FC_T *from,
                                         FC_T *const *to, ptrdiff_t n, ptrdiff_t pitch)
{
    const int sums = op == FC_RUNNING_SUM, nan = op == FC_RUNNING_MAX_OR_NAN;
    const ptrdiff_t depth = m->depth, levels = m->levels;
    ptrdiff_t i, l;
    int u;
    enum { UNITS = 2 };
    for (i = 0; i < n; i += UNITS * FC_VL) {
        FC_V now[UNITS], cells[UNITS];
        FC_I best_index[UNITS];
        FC_UNROLL
        for (u = 0; u < UNITS; u++) {
            now[u] = cells[u] = FC_N(fc_load)(from + i + u * FC_VL);
            if (!sums)
                best_index[u] = FC_N(fc_load_lanes)((const FC_L *)(from + pitch) + i + u * FC_VL);
        }
        for (l = 0; l < depth; l++) {
            FC_T *ring_row = (FC_T *)m->ring_row[l] + i;
            FC_L *ring_index = (FC_L *)((FC_T *)m->ring_row[l] + pitch) + i;
            if (sums && l == m->early) {
                FC_UNROLL
                for (u = 0; u < UNITS; u++)
                    FC_N(fc_store)(to[0] + i + u * FC_VL, now[u]);
            }
            FC_UNROLL
            for (u = 0; u < UNITS; u++) {
                const FC_V old = FC_N(fc_load)(ring_row + u * FC_VL);
                FC_N(fc_store)(ring_row + u * FC_VL, now[u]);
                if (sums) {
                    now[u] = old + (m->plus[l] ? cells[u] : now[u]);
                } else {
                    const FC_I old_index = FC_N(fc_load_lanes)(ring_index + u * FC_VL);
                    const FC_I replaces = FC_N(fc_replaces_maximum)(now[u], old, nan);
                    FC_N(fc_store_lanes)(ring_index + u * FC_VL, best_index[u]);
                    now[u] = FC_N(fc_select)(replaces, now[u], old);
                    best_index[u] = FC_N(fc_select_lanes)(replaces, best_index[u], old_index);
                }
            }
        }
        {
            /* Store the row after `depth` steps: in to[1] if no step is left, and otherwise in a ring buffer. Sums
             * after `early` steps are also stored in to[0]. */
            FC_T *ring_row = depth < levels ? (FC_T *)m->ring_row[depth] : to[1];
            FC_UNROLL
            for (u = 0; u < UNITS; u++) {
                FC_N(fc_store)(ring_row + i + u * FC_VL, now[u]);
                if (sums && depth == m->early)
                    FC_N(fc_store)(to[0] + i + u * FC_VL, now[u]);
                if (!sums)
                    FC_N(fc_store_lanes)((FC_L *)(ring_row + pitch) + i + u * FC_VL, best_index[u]);
            }
        }
    }
}

static void FC_N(fc_running_merge)(const fc_running_merge_step *m, int op, const void *from, void *to0, void *to1,
                                   ptrdiff_t n, ptrdiff_t pitch)
{
    FC_T *const to[2] = {(FC_T *)to0, (FC_T *)to1};
    if (op == FC_RUNNING_SUM)
        FC_N(fc_running_merge_of)(FC_RUNNING_SUM, m, (const FC_T *)from, to, n, pitch);
    else if (op == FC_RUNNING_MAX)
        FC_N(fc_running_merge_of)(FC_RUNNING_MAX, m, (const FC_T *)from, to, n, pitch);
    else
        FC_N(fc_running_merge_of)(FC_RUNNING_MAX_OR_NAN, m, (const FC_T *)from, to, n, pitch);
}

/* Compute a vector of results from a vector of sums: see FC_RESULT_* in pool_running.h. */
FC_INLINE FC_V FC_N(fc_running_finished)(const int result_op, FC_V v, const FC_T *by, FC_V shared)
{
    if (result_op == FC_RESULT_OVER_COUNT)
        return v / (FC_N(fc_load)(by) * shared);
    if (result_op == FC_RESULT_TIMES)
        return v * FC_N(fc_load)(by);
    if (result_op == FC_RESULT_ROOT) {
        FC_T all[FC_VL];
        int i;
        FC_N(fc_store)(all, v);
        for (i = 0; i < FC_VL; i++)
            all[i] = FC_BYTES == 4 ? (FC_T)sqrtf((float)all[i]) : (FC_T)sqrt((double)all[i]);
        return FC_N(fc_load)(all);
    }
    return v;
}

/* Store n results. The last vector overlaps the previous vector, because the memory after the n results may be written
 * by other threads. */
FC_INLINE void FC_N(fc_running_finish_of)(const int result_op, const FC_T *from, const FC_T *by, FC_T shared, FC_T *to,
                                          ptrdiff_t n)
{
    const FC_V times = FC_N(fc_broadcast)(shared);
    ptrdiff_t i;
    if (n < FC_VL) {
        FC_T in[FC_VL], with[FC_VL];
        for (i = 0; i < FC_VL; i++) {
            in[i] = i < n ? from[i] : 0;
            with[i] = by && i < n ? by[i] : 1;
        }
        FC_N(fc_store)(in, FC_N(fc_running_finished)(result_op, FC_N(fc_load)(in), with, times));
        for (i = 0; i < n; i++)
            to[i] = in[i];
        return;
    }
    for (i = 0; i < n; i += FC_VL) {
        const ptrdiff_t at = i + FC_VL <= n ? i : n - FC_VL;
        FC_N(fc_store)(to + at,
                       FC_N(fc_running_finished)(result_op, FC_N(fc_load)(from + at), by ? by + at : by, times));
    }
}

static void FC_N(fc_running_finish)(int result_op, const void *from, const void *by, double shared, void *to,
                                    ptrdiff_t n)
{
#define FC_RESULT_OF(how)                                                                                   \
    case how:                                                                                               \
        FC_N(fc_running_finish_of)(how, (const FC_T *)from, (const FC_T *)by, (FC_T)shared, (FC_T *)to, n); \
        break;
    switch (result_op) {
        FC_RESULT_OF(FC_RESULT_SUMS)
        FC_RESULT_OF(FC_RESULT_OVER_COUNT)
        FC_RESULT_OF(FC_RESULT_ROOT)
        FC_RESULT_OF(FC_RESULT_TIMES)
    }
#undef FC_RESULT_OF
}

/* Store the maxima of the n outputs from output `begin` on, and the indices of the maxima. The index of a maximum is
 * `base` plus the index that the steps computed. If all cells of a window are -inf, the first cell of the window is the
 * maximum. Its index is computed from `origin`, the index of the start of its row. */
static void FC_N(fc_running_finish_maxima)(const void *from_, ptrdiff_t pitch, const fc_running_windows *windows,
                                           ptrdiff_t begin, ptrdiff_t origin, ptrdiff_t base, void *to_, void *indices,
                                           int int64_indices, ptrdiff_t n)
{
    const FC_T *from = (const FC_T *)from_;
    const FC_L *best_index = (const FC_L *)(from + pitch);
    FC_T *to = (FC_T *)to_;
    FC_I low = FC_N(fc_broadcast_lanes)(0);
    const FC_V least = FC_N(fc_broadcast)((FC_T)-INFINITY);
    ptrdiff_t i;
    if (int64_indices || n < FC_VL) {
        for (i = 0; i < n; i++) {
            const ptrdiff_t at = from[i] == (FC_T)-INFINITY ? origin + fc_running_origin(windows, begin + i)
                                                            : base + (ptrdiff_t)best_index[i];
            to[i] = from[i];
            if (int64_indices)
                ((int64_t *)indices)[i] = (int64_t)at;
            else
                ((int32_t *)indices)[i] = (int32_t)at;
        }
        return;
    }
    for (i = 0; i < n; i += FC_VL) {
        const ptrdiff_t at = i + FC_VL <= n ? i : n - FC_VL;
        const FC_V v = FC_N(fc_load)(from + at);
        low |= ~FC_N(fc_replaces_maximum)(v, least, 1);
        FC_N(fc_store)(to + at, v);
        FC_N(fc_store_int32)((int32_t *)indices + at,
                             FC_N(fc_load_lanes)(best_index + at) + FC_N(fc_broadcast_lanes)((FC_L)base));
    }
    if (FC_N(fc_any)(low))
        for (i = 0; i < n; i++)
            if (from[i] == (FC_T)-INFINITY)
                ((int32_t *)indices)[i] = (int32_t)(origin + fc_running_origin(windows, begin + i));
}

const fc_pool_running_kernels FC_N(fc_pool_running_kernels) = {
    .row = FC_N(fc_running_row),
    .merge = FC_N(fc_running_merge),
    .finish = FC_N(fc_running_finish),
    .finish_maxima = FC_N(fc_running_finish_maxima),
};
