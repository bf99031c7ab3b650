/* Separable convolution (by kernels that are outer products), axis by axis, for every instruction set. */
#ifndef FASTCONV_SEPARABLE_H
#define FASTCONV_SEPARABLE_H

#include "isa.h"
#include "team.h"

/* Some results along one axis, `jump` cells apart from cell `start` on: output o sums over t < taps the source cell
 * o * stride + t * dilation - lo times factor `factors` + t. The stride is the axis's. */
typedef struct {
    ptrdiff_t out, start, jump, lo, dilation, taps, factors;
} fc_line;

/* One axis: the numbers of cells of the source and of the result, of lines, of outputs of a line, and of outputs of a
 * block. `pad` is how many cells before its own the first output of a block reads at most, and `reach` the distance
 * from the first cell that this output reads to the last. */
typedef struct {
    ptrdiff_t size, whole, stride, lines, out, block, pad, reach;
    const fc_line *line;
} fc_side;

/* What cells outside of an axis hold. Borders other than zeros need images of two axes (`flat`), undivided rows, and
 * contiguous results. */
enum { FC_ZEROS, FC_REFLECT, FC_REPLICATE, FC_CIRCULAR };

/* A call: axes (D, H, W); result channels in an image, and how many of them share a source (forward) or how many
 * sources one sums over (backward); entries of a filter's factors. The workspace, in elements: rows of sums along H
 * from 0 on, one row split into stride phases, one row of results, and the sums along D unless `flat`. */
typedef struct {
    fc_side sides[3];
    ptrdiff_t images, channels, shared, sources, entries, flat, border;
    ptrdiff_t pitch, split_at, slot_pitch, row_at, planes_at, space;
    const void *x, *factors, *bias;
    void *result;
    ptrdiff_t *words; /* of the call, or NULL */
} fc_separable;

static inline ptrdiff_t fc_blocks(const fc_side *side)
{
    return side->lines * ((side->out + side->block - 1) / side->block);
}

static inline ptrdiff_t fc_separable_items(const fc_separable *call)
{
    return call->images * call->channels * fc_blocks(&call->sides[0]) * fc_blocks(&call->sides[1]) *
           ((call->sides[2].out + call->sides[2].block - 1) / call->sides[2].block);
}

static inline ptrdiff_t fc_limit(ptrdiff_t n, ptrdiff_t least, ptrdiff_t most)
{
    return n < least ? least : n > most ? most : n;
}

/* The taps of output o of a line that read the source cells [first, end). */
static inline void fc_met(const fc_line *line, ptrdiff_t at, ptrdiff_t first, ptrdiff_t end, ptrdiff_t *tap,
                          ptrdiff_t *taps)
{
    const ptrdiff_t d = line->dilation;
    *tap = at >= first ? 0 : fc_limit((first - at + d - 1) / d, 0, line->taps);
    *taps = end <= at ? 0 : fc_limit((end - at + d - 1) / d, 0, line->taps) - *tap;
    *taps = *taps < 0 ? 0 : *taps;
}

/* How many of `most` cells, `step` apart from cell `at` on, are copies of cells in one arithmetic sequence. Sets its
 * first cell and its step. */
static inline ptrdiff_t fc_shown(ptrdiff_t at, ptrdiff_t size, ptrdiff_t step, ptrdiff_t most, ptrdiff_t border,
                                 ptrdiff_t *first, ptrdiff_t *distance)
{
    ptrdiff_t count = most;
    *distance = step;
    if (border == FC_CIRCULAR)
        at = (at % size + size) % size;
    if (at >= 0 && at < size) {
        *first = at;
        count = (size - 1 - at) / step + 1;
    } else {
        if (at < 0)
            count = (-1 - at) / step + 1;
        *first = border == FC_REPLICATE ? (at < 0 ? 0 : size - 1) : at < 0 ? -at : 2 * (size - 1) - at;
        *distance = border == FC_REPLICATE ? 0 : -step;
    }
    return count < most ? count : most;
}

/* The rows over which to sum, `pitch` apart in memory: cells [first, end) of an axis, with `n` elements each, the first
 * at `from`. With a border these are all cells of the axis. */
typedef struct {
    const void *from;
    ptrdiff_t pitch, first, end, n, border;
} fc_rows_of;

#define FC_TEMPLATE "separable_template.h"
#include "foreach.h"

typedef int (*fc_separable_t)(const fc_separable *call, ptrdiff_t item, void *space);
FC_TABLE(fc_separable_t, fc_separable_block);

#endif /* FASTCONV_SEPARABLE_H */
