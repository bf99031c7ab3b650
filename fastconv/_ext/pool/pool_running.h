/* Maxima and sums over windows, computed axis by axis. The number of steps grows only with the logarithm of the window
 * size.
 *
 * A sum over k cells is built in steps. One step joins two adjacent windows of v cells to a window of 2 v cells. If
 * needed, another step adds one more cell. For example, sums over 7 cells are built from sums over 1, 2, 3 and 6 cells.
 * So a sum takes about log2(k) to 2 log2(k) steps, and its rounding error is as small as that of a pairwise sum.
 * Nothing is ever subtracted, so an inf or a NaN affects only the windows that contain it. For maxima, the joined
 * windows may overlap, so ceil(log2(k)) steps are enough. If several cells are equal, the first one is the maximum.
 *
 * The algorithm of van Herk ("A fast algorithm for local minimum and maximum filters on rectangular and octagonal
 * kernels", 1992) and of Gil and Werman ("Computing 2-D min, median, and max filters", 1993) takes three steps for any
 * k. But for sums, it adds up k cells one after another, which has larger rounding errors. Its steps along a row cannot
 * be vectorised.
 *
 * Along W, each step processes one row, in vectors, in the L1 cache. Along H and D, rows are read in order, and all
 * steps are done for each new row. Each step has a ring buffer with the earlier rows that it still needs. All ring
 * buffers of an axis together have about k rows.
 *
 * Sources are the elements that a kernel reads, and targets are the elements that it writes. In the forward pass, the
 * sources are the cells of the image, and the targets are the outputs. In the backward pass of a sum, the sources are
 * the elements of dout, and the targets are the elements of dx. */
#ifndef FASTCONV_POOL_RUNNING_H
#define FASTCONV_POOL_RUNNING_H

#include <math.h>

#include "simd/isa.h"
#include "threads/team.h"

enum { FC_RUNNING_MAX, FC_RUNNING_MAX_OR_NAN, FC_RUNNING_SUM };
/* The terms of a sum.
 * - FC_INPUT_CELLS: the elements that are read.
 * - FC_INPUT_SQUARES: the squares of these elements.
 * - FC_INPUT_OVER_COUNT: the elements of dout, each divided by the number of cells of its window.
 * - FC_INPUT_OVER_NORM: the elements of dout, each divided by the norm of its window. */
enum { FC_INPUT_CELLS, FC_INPUT_SQUARES, FC_INPUT_OVER_COUNT, FC_INPUT_OVER_NORM };
/* The result that is computed from a sum.
 * - FC_RESULT_SUMS: the sum.
 * - FC_RESULT_OVER_COUNT: the sum divided by the number of cells of the window.
 * - FC_RESULT_ROOT: the square root of the sum.
 * - FC_RESULT_TIMES: the sum times the element of x at the same index. */
enum { FC_RESULT_SUMS, FC_RESULT_OVER_COUNT, FC_RESULT_ROOT, FC_RESULT_TIMES };
/* Where a row of results comes from.
 * - FC_FROM_LAST: from the sums or maxima after the last step.
 * - FC_FROM_EARLY: from the sums before the last step.
 * - FC_FROM_NOTHING: no element contributes to the row. */
enum { FC_FROM_LAST, FC_FROM_EARLY, FC_FROM_NOTHING };
enum {
    /* The number of elements past the end of a row that may be read or written. It is the number of lanes of the
     * largest vector. */
    FC_RUNNING_SLACK = 16,
    FC_RUNNING_LEVELS = 128 /* an upper bound of the number of steps along an axis */
};

/* A range of results along an axis (outputs or, in the backward pass, elements of dx), and the range of elements that
 * are read for these results. */
typedef struct {
    ptrdiff_t begin, end; /* the results [begin, end) */
    ptrdiff_t source;     /* the index of the first element that is read */
    ptrdiff_t n;          /* the number of elements that are read */
} fc_target_range;

/* All ranges of results into which an axis is divided. The lists have one element for each range. */
typedef struct {
    const ptrdiff_t *begin, *end, *source, *n;
} fc_target_ranges;

/* The steps along the axis W. If plus[l] is 0, step l joins two windows whose starts are shift[l] cells apart. If
 * plus[l] is 1, step l adds one cell to each window: the cell that is shift[l] cells after the last cell of the window.
 * In the forward pass, the window of output o starts at cell o * stride - lo. */
typedef struct {
    ptrdiff_t size;     /* the row length of the image or, in the backward pass, of dout */
    ptrdiff_t levels;   /* the number of steps */
    ptrdiff_t stride;   /* the stride of the windows, in cells */
    ptrdiff_t lo;       /* the padding before the image, in cells */
    ptrdiff_t dilation; /* the distance between two taps, in cells */
    /* The next four fields are for the backward pass of a sum. In the forward pass, `phases` is 0. The backward pass
     * computes each cell of dx as a sum over the outputs that read the cell. Let g = gcd(stride, dilation),
     * phases = stride / g, and step = dilation / g. For t < phases, cell o * stride + t * dilation - lo is read by the
     * outputs o, o - step, o - 2 * step, and so on. They read the cell by the taps t, t + phases, t + 2 * phases, and
     * so on. These taps are phase t. */
    ptrdiff_t phases;
    ptrdiff_t taps; /* the number of taps of a phase that has no additional tap */
    ptrdiff_t rest; /* the number of phases that have one additional tap */
    /* the distance between two outputs that read the same cell by neighbouring taps of a phase */
    ptrdiff_t step;
    /* whether each row is copied before the first step, because a later step needs its elements */
    ptrdiff_t copies_sources;
    const ptrdiff_t *shift;  /* for each step: the distance, in cells, to the window or the cell that is added */
    const ptrdiff_t *plus;   /* for each step: whether a single cell is added */
    fc_target_ranges ranges; /* the ranges of results into which the axis is divided */
} fc_running_width;

/* The steps along the axis H or D. Rows (along D: planes) are read in ascending order, and row 0 is index `first` of
 * the array. Rows outside the array are padding. After row i is read, the first depth[i] steps are done. depth[i] is -1
 * if no result needs row i. The results target[j] with ends[i - 1] <= j < ends[i] are complete after row i. from[j] is
 * the FC_FROM_* constant of result target[j]. */
typedef struct {
    ptrdiff_t size;    /* the number of elements along the axis, without padding */
    ptrdiff_t targets; /* the number of results along the axis */
    ptrdiff_t levels;  /* the number of steps */
    /* the number of steps after which the sums of FC_FROM_EARLY are complete, or -1 if no result needs these sums */
    ptrdiff_t early;
    ptrdiff_t first; /* the index in the array of the first row that is read */
    ptrdiff_t rows;  /* the number of rows of all ring buffers together */
    /* `shift` and `plus` are as in fc_running_width. The ring buffers follow one another in memory. Ring buffer l
     * starts at row ring[l] of this memory. */
    const ptrdiff_t *shift, *plus, *ring;
    const ptrdiff_t *depth, *ends, *target, *from;
    /* The ranges of results into which the axis is divided. In these ranges, `source` is counted from index `first`. */
    fc_target_ranges ranges;
} fc_running_axis;

/* The windows along one axis. A mean divides by the number of those cells of the window that are in [low, high). This
 * range is the image, with or without its padding. */
typedef struct {
    ptrdiff_t size;      /* the size of the image, in cells */
    ptrdiff_t k;         /* the number of taps */
    ptrdiff_t stride;    /* the distance between two windows, in cells */
    ptrdiff_t lo;        /* the padding before the image, in cells */
    ptrdiff_t dilation;  /* the distance between two taps, in cells */
    ptrdiff_t low, high; /* a mean counts only the cells [low, high) */
} fc_running_windows;

/* The steps to do along H or D after a row was read: the first `depth` of the `levels` steps. Each step has a ring
 * buffer of earlier rows. ring_row[l] is the row that the new row replaces in the ring buffer of step l. */
typedef struct {
    ptrdiff_t depth, levels, early;
    const ptrdiff_t *plus;
    void *ring_row[FC_RUNNING_LEVELS];
} fc_running_merge_step;

typedef int (*fc_running_row_t)(const fc_running_width *w, int op, int input_op, const fc_target_range *range,
                                void *space, ptrdiff_t pitch, const void *row, const void *norm, const void *count,
                                double shared, void *to, ptrdiff_t to_pitch, ptrdiff_t base, ptrdiff_t planes,
                                ptrdiff_t plane_step);
typedef void (*fc_running_merge_t)(const fc_running_merge_step *m, int op, const void *from, void *to0, void *to1,
                                   ptrdiff_t n, ptrdiff_t pitch);
typedef void (*fc_running_finish_t)(int result_op, const void *from, const void *by, double shared, void *to,
                                    ptrdiff_t n);
typedef void (*fc_running_finish_maxima_t)(const void *from, ptrdiff_t pitch, const fc_running_windows *windows,
                                           ptrdiff_t begin, ptrdiff_t origin, ptrdiff_t base, void *to, void *indices,
                                           int int64_indices, ptrdiff_t n);

static inline fc_target_range fc_target_range_at(const fc_target_ranges *ranges, ptrdiff_t i)
{
    const fc_target_range range = {ranges->begin[i], ranges->end[i], ranges->source[i], ranges->n[i]};
    return range;
}

/* Return a / b rounded down, for b > 0. */
static inline ptrdiff_t fc_floor_div(ptrdiff_t a, ptrdiff_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

/* Return the number of taps of the window of output o that read a cell with an index below `cell`. */
static inline ptrdiff_t fc_running_taps(const fc_running_windows *w, ptrdiff_t o, ptrdiff_t cell)
{
    const ptrdiff_t taps = fc_floor_div(cell - (o * w->stride - w->lo) + w->dilation - 1, w->dilation);
    return taps < 0 ? 0 : taps < w->k ? taps : w->k;
}

/* Return by how many cells a mean divides in window o: the number of cells of the window that are in [low, high). */
static inline ptrdiff_t fc_running_count(const fc_running_windows *w, ptrdiff_t o)
{
    return fc_running_taps(w, o, w->high) - fc_running_taps(w, o, w->low);
}

/* Return the index of the first cell of the window of output o that is inside the image. */
static inline ptrdiff_t fc_running_origin(const fc_running_windows *w, ptrdiff_t o)
{
    return o * w->stride - w->lo + fc_running_taps(w, o, 0) * w->dilation;
}

/* The steps along W process a row of each of several planes. Return the distance between the results of two
 * neighbouring planes, in elements. */
static inline ptrdiff_t fc_running_plane_pitch(const fc_running_width *w, const fc_target_range *range)
{
    return !w->phases && w->stride == 1 && w->levels ? range->n : range->end - range->begin;
}

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_running_row_t row;
    fc_running_merge_t merge;
    fc_running_finish_t finish;
    fc_running_finish_maxima_t finish_maxima;
} fc_pool_running_kernels;

FC_KERNELS(fc_pool_running_kernels, fc_pool_running_for);

/* The arguments of a call. fastconv.layers.pool.running computes the sizes and lists. */
typedef struct {
    fc_running_axis depth, height;
    fc_running_width width;
    ptrdiff_t n_ranges_w, n_ranges_h, n_ranges_d; /* the number of ranges of results along W, H and D */
    /* `row_pitch` is the length of a row that is read, and `pitch` is the length of a row of results, both in elements
     * of the workspace. `item_rows` is the number of rows of results of a work item. */
    ptrdiff_t row_pitch, pitch, item_rows;
    /* The offsets of the arrays of fc_running_space in the workspace of a thread, in elements, in ascending order. */
    ptrdiff_t row_at, counts_at, present_at, early_at, last_at, deep_early_at, deep_last_at, neutral_at, rings_at;
    ptrdiff_t deep_rings_at;
    fc_running_windows windows[3];
    ptrdiff_t sources, targets; /* the number of elements of a plane of the input, and of a plane of results */
    ptrdiff_t group, planes;    /* the number of planes of a work item, and the number of all planes */
    int dtype, isa, op, input_op, result_op, int64_indices;
    const char *source, *norms, *factors;
    char *target, *indices;
} fc_running;

/* The workspace of a thread. */
typedef struct {
    char *row, *present, *early, *last, *deep_early, *deep_last, *neutral, *counts, *rings, *deep_rings;
    ptrdiff_t item, pitch; /* the sizes, in bytes, of an element and of a row; a row of maxima includes the indices */
    /* the number of planes of the current item, and the distance between their rows in elements */
    ptrdiff_t planes, plane_pitch;
    /* a constant FC_RUNNING_*; at the first NaN of an item, FC_RUNNING_MAX is replaced by FC_RUNNING_MAX_OR_NAN */
    int op;
} fc_running_space;

/* Divide the workspace of a thread, and clear its single rows. */
static inline fc_running_space fc_running_begin(const fc_running *g, char *space)
{
    fc_running_space at;
    const ptrdiff_t arrays = g->op == FC_RUNNING_SUM ? 1 : 2;
    char *start = (char *)(((uintptr_t)space + 63) / 64 * 64);
    at.item = g->dtype ? 8 : 4;
    at.pitch = arrays * g->pitch * at.item;
    at.row = start + g->row_at * at.item, at.counts = start + g->counts_at * at.item;
    at.present = start + g->present_at * at.item;
    at.early = start + g->early_at * at.item, at.last = start + g->last_at * at.item;
    at.deep_early = start + g->deep_early_at * at.item, at.deep_last = start + g->deep_last_at * at.item;
    at.neutral = start + g->neutral_at * at.item;
    at.rings = start + g->rings_at * at.item, at.deep_rings = start + g->deep_rings_at * at.item;
    at.op = g->op;
    memset(at.row, 0, (size_t)(at.rings - at.row));
    if (arrays == 2) {
        ptrdiff_t i;
        for (i = 0; i < g->pitch; i++) {
            if (g->dtype)
                ((double *)at.neutral)[i] = -INFINITY;
            else
                ((float *)at.neutral)[i] = -INFINITY;
        }
    }
    return at;
}

/* Return the steps to do after row `arrival` of the axis was read. `row_index` is the number of this row, counted from
 * the first row that the work item reads. Steps are left out if their windows would start before the first row that the
 * work item reads. */
static inline fc_running_merge_step fc_running_merge_step_of(const fc_running_axis *axis, ptrdiff_t arrival,
                                                             ptrdiff_t row_index, char *rings, ptrdiff_t pitch)
{
    fc_running_merge_step m;
    ptrdiff_t l, extent = 0;
    m.levels = axis->levels, m.early = axis->early, m.plus = axis->plus;
    for (l = 0; l < axis->depth[arrival] && extent + axis->shift[l] <= row_index; l++)
        extent += axis->shift[l];
    m.depth = axis->depth[arrival] < l ? axis->depth[arrival] : l;
    for (l = 0; l <= m.depth && l < axis->levels; l++)
        m.ring_row[l] = rings + (axis->ring[l] + row_index % axis->shift[l]) * pitch;
    return m;
}

/* For each of the windows [begin, end) along W, write the number of cells along W by which a mean divides. The numbers
 * have the dtype of the kernel. */
static inline void fc_running_counts(const fc_running *g, char *to, ptrdiff_t begin, ptrdiff_t end)
{
    const fc_running_windows *w = g->windows + 2;
    /* In the windows `first` to `last`, inclusive, a mean counts all k cells. */
    const ptrdiff_t first = -fc_floor_div(-(w->low + w->lo), w->stride);
    const ptrdiff_t last = fc_floor_div(w->high - 1 - (w->k - 1) * w->dilation + w->lo, w->stride);
    ptrdiff_t i;
    for (i = begin; i < end; i++) {
        const ptrdiff_t count = i >= first && i <= last ? w->k : fc_running_count(w, i);
        if (g->dtype)
            ((double *)to)[i - begin] = (double)count;
        else
            ((float *)to)[i - begin] = (float)count;
    }
}

/* Return the number of cells, along D and H together, by which a mean divides in the window at (d, h). */
static inline double fc_running_count_dh(const fc_running *g, ptrdiff_t d, ptrdiff_t h)
{
    return (double)fc_running_count(g->windows, d) * (double)fc_running_count(g->windows + 1, h);
}

/* Do the steps along D for row h, whose steps along W and H are done. Then store the rows of results that are complete
 * after these steps. */
static inline void fc_running_add_depth_row(const fc_running *g, fc_running_space *at,
                                            const fc_running_merge_step *deep, ptrdiff_t arrival,
                                            const fc_target_range *range_d, const fc_target_range *range_h,
                                            const fc_target_range *range_w, ptrdiff_t h, char *row, ptrdiff_t base)
{
    const fc_running_axis *depth = &g->depth;
    const ptrdiff_t n = range_w->end - range_w->begin;
    char *early = row, *last = row;
    ptrdiff_t t, p;
    if (depth->levels && deep->depth >= 0) {
        fc_running_merge_step m = *deep;
        ptrdiff_t l;
        for (l = 0; l <= m.depth && l < m.levels; l++)
            m.ring_row[l] = (char *)m.ring_row[l] + (h - range_h->begin) * at->pitch;
        fc_pool_running_for(g->dtype, g->isa)
            ->merge(&m, at->op, row, at->deep_early, at->deep_last, (at->planes - 1) * at->plane_pitch + n, g->pitch);
        early = at->deep_early, last = at->deep_last;
    }
    for (t = arrival ? depth->ends[arrival - 1] : 0; t < depth->ends[arrival]; t++) {
        const ptrdiff_t d = depth->target[t];
        const ptrdiff_t to = (d * g->height.targets + h) * (g->targets / (depth->targets * g->height.targets));
        const char *from = depth->from[t] == FC_FROM_LAST    ? last
                           : depth->from[t] == FC_FROM_EARLY ? early
                                                             : at->neutral;
        if (d < range_d->begin || d >= range_d->end)
            continue;
        if (g->op != FC_RUNNING_SUM) {
            const ptrdiff_t origin =
                (fc_running_origin(g->windows, d) * g->height.size + fc_running_origin(g->windows + 1, h)) *
                g->width.size;
            for (p = 0; p < at->planes; p++) {
                const ptrdiff_t into = p * g->targets + to + range_w->begin;
                fc_pool_running_for(g->dtype, g->isa)
                    ->finish_maxima(from + p * at->plane_pitch * at->item, g->pitch, g->windows + 2, range_w->begin,
                                    origin, base - p * range_w->n, g->target + into * at->item,
                                    g->indices + into * (g->int64_indices ? 8 : 4), g->int64_indices, n);
            }
        } else {
            const double shared = g->result_op == FC_RESULT_OVER_COUNT ? fc_running_count_dh(g, d, h) : 1;
            for (p = 0; p < at->planes; p++) {
                const ptrdiff_t into = p * g->targets + to + range_w->begin;
                const char *by = g->result_op == FC_RESULT_TIMES        ? g->factors + into * at->item
                                 : g->result_op == FC_RESULT_OVER_COUNT ? at->counts
                                                                        : NULL;
                fc_pool_running_for(g->dtype, g->isa)
                    ->finish(g->result_op, from + p * at->plane_pitch * at->item, by, shared,
                             g->target + into * at->item, n);
            }
        }
    }
}

/* Do the steps along W and H for one row that is read. Then do the steps along D for each row that is complete along
 * H. */
static inline void fc_running_add_row(const fc_running *g, fc_running_space *at, const fc_running_merge_step *deep,
                                      ptrdiff_t deep_arrival, const fc_target_range *range_d,
                                      const fc_target_range *range_h, const fc_target_range *range_w, ptrdiff_t arrival,
                                      ptrdiff_t base)
{
    const fc_running_axis *height = &g->height;
    const ptrdiff_t d = deep_arrival + g->depth.first, h = arrival + height->first, row = d * height->size + h;
    fc_running_merge_step m =
        fc_running_merge_step_of(height, arrival, arrival - range_h->source, at->rings, at->pitch);
    char *present = at->neutral, *early, *last;
    ptrdiff_t t;
    if (m.depth >= 0 && h >= 0 && h < height->size) {
        const double shared = g->input_op == FC_INPUT_OVER_COUNT ? fc_running_count_dh(g, d, h) : 1;
        const int has_nan =
            fc_pool_running_for(g->dtype, g->isa)
                ->row(&g->width, at->op, g->input_op, range_w, at->row, g->row_pitch,
                      g->source + row * g->width.size * at->item,
                      g->norms ? g->norms + row * g->width.size * at->item : NULL, at->counts, shared, at->present,
                      g->pitch, row * g->width.size + range_w->source - base, at->planes, g->sources);
        present = at->present;
        if (has_nan)
            at->op = FC_RUNNING_MAX_OR_NAN;
    }
    early = last = present;
    if (height->levels && m.depth >= 0) {
        fc_pool_running_for(g->dtype, g->isa)
            ->merge(&m, at->op, present, at->early, at->last,
                    (at->planes - 1) * at->plane_pitch + range_w->end - range_w->begin, g->pitch);
        early = at->early, last = at->last;
    }
    for (t = arrival ? height->ends[arrival - 1] : 0; t < height->ends[arrival]; t++) {
        const ptrdiff_t target = height->target[t];
        if (target < range_h->begin || target >= range_h->end)
            continue;
        fc_running_add_depth_row(g, at, deep, deep_arrival, range_d, range_h, range_w, target,
                                 height->from[t] == FC_FROM_LAST    ? last
                                 : height->from[t] == FC_FROM_EARLY ? early
                                                                    : at->neutral,
                                 base);
    }
}

/* Compute one work item: a range of the outputs (in the backward pass, of dx) along each of the axes W, H and D, in one
 * or several planes. Items that differ only in the range along W have consecutive numbers. */
static inline void fc_running_item(fc_running *g, fc_running_space *at, ptrdiff_t item, fc_work_queue *queue)
{
    const ptrdiff_t index_w = item % g->n_ranges_w, index_h = item / g->n_ranges_w % g->n_ranges_h;
    const ptrdiff_t index_d = item / g->n_ranges_w / g->n_ranges_h % g->n_ranges_d;
    const ptrdiff_t plane = item / g->n_ranges_w / g->n_ranges_h / g->n_ranges_d * g->group;
    const fc_target_range range_d = fc_target_range_at(&g->depth.ranges, index_d);
    const fc_target_range range_h = fc_target_range_at(&g->height.ranges, index_h);
    const fc_target_range range_w = fc_target_range_at(&g->width.ranges, index_w);
    const ptrdiff_t d0 = range_d.source + g->depth.first, h0 = range_h.source + g->height.first;
    /* The index of the first cell that the item reads. Indices of maxima are relative to `base`, so that 32 bits are
     * enough. */
    const ptrdiff_t base = ((d0 > 0 ? d0 : 0) * g->height.size + (h0 > 0 ? h0 : 0)) * g->width.size + range_w.source;
    fc_running here = *g;
    ptrdiff_t d, h;
    here.source = g->source + plane * g->sources * at->item;
    here.norms = g->norms ? g->norms + plane * g->sources * at->item : NULL;
    here.factors = g->factors ? g->factors + plane * g->targets * at->item : NULL;
    here.target = g->target + plane * g->targets * at->item;
    here.indices = g->indices ? g->indices + plane * g->targets * (g->int64_indices ? 8 : 4) : NULL;
    at->op = g->op;
    at->planes = g->planes - plane < g->group ? g->planes - plane : g->group;
    at->plane_pitch = fc_running_plane_pitch(&g->width, &range_w);
    if (g->input_op == FC_INPUT_OVER_COUNT) {
        const ptrdiff_t begin = range_w.source > 0 ? range_w.source : 0, end = range_w.source + range_w.n;
        fc_running_counts(g, at->counts, begin, end < g->width.size ? end : g->width.size);
    } else if (g->result_op == FC_RESULT_OVER_COUNT) {
        fc_running_counts(g, at->counts, range_w.begin, range_w.end);
    }
    for (d = range_d.source; d < range_d.source + range_d.n; d++) {
        const fc_running_merge_step deep =
            fc_running_merge_step_of(&g->depth, d, d - range_d.source, at->deep_rings, at->pitch * g->item_rows);
        const int inside = d + g->depth.first >= 0 && d + g->depth.first < g->depth.size;
        if (deep.depth < 0 && (d ? g->depth.ends[d - 1] : 0) == g->depth.ends[d])
            continue;
        if (inside && deep.depth >= 0) {
            for (h = range_h.source; h < range_h.source + range_h.n; h++) {
                if (h % 16 == 0 && fc_stopped(queue))
                    return;
                fc_running_add_row(&here, at, &deep, d, &range_d, &range_h, &range_w, h, base);
            }
        } else {
            for (h = range_h.begin; h < range_h.end; h++)
                fc_running_add_depth_row(&here, at, &deep, d, &range_d, &range_h, &range_w, h, at->neutral, base);
        }
    }
}

#endif /* FASTCONV_POOL_RUNNING_H */
