/* Convolution of planes with kernels that are outer products, one axis after the other, for every instruction set. */
#ifndef FASTCONV_SEPARABLE_H
#define FASTCONV_SEPARABLE_H

#include "isa.h"
#include "team.h"

/* Some results along one axis, `jump` cells apart from cell `start` on: output o sums over t < taps the source cell
 * o * stride + t * dilation - lo times factor `factors` + t. The stride is the axis's. */
typedef struct {
    ptrdiff_t out, start, jump, lo, dilation, taps, factors;
} fc_line;

/* One axis: cells of the source and of the result, the lines that results are in, the outputs of a line and those of a
 * block; `pad` cells that the first output of a block meets at most before its own, and `reach` from the first cell
 * that a block's first output meets to the last. */
typedef struct {
    ptrdiff_t size, whole, stride, lines, out, block, pad, reach;
    const fc_line *line;
} fc_side;

/* What a cell past an end of an axis shows. Borders other than zeros are for images of two axes (`flat`), whose rows are
 * not cut, and for results that are neighbours. */
enum { FC_ZEROS, FC_REFLECT, FC_REPLICATE, FC_CIRCULAR };

/* A call: axes (D, H, W); result channels in an image, and how many of them share a source (forward) or how many sources
 * one sums over (backward); entries of a filter's factors. A workspace in elements: rows of sums along H from 0 on, one
 * row split into stride phases, one row of results, and the sums along D, which there are none of if `flat`. */
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

/* The taps that output o of a line meets cells at, of those that are in the source from `first` on to before `end`. */
static inline void fc_met(const fc_line *line, ptrdiff_t at, ptrdiff_t first, ptrdiff_t end, ptrdiff_t *tap,
                          ptrdiff_t *taps)
{
    const ptrdiff_t d = line->dilation;
    *tap = at >= first ? 0 : fc_limit((first - at + d - 1) / d, 0, line->taps);
    *taps = end <= at ? 0 : fc_limit((end - at + d - 1) / d, 0, line->taps) - *tap;
    *taps = *taps < 0 ? 0 : *taps;
}

/* How many of `most` cells, `step` apart from cell `at` on, show cells in one arithmetic sequence: the first, and the
 * distance from each to the next. */
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

/* Sums over rows that are `pitch` apart in memory: cells [first, end) of an axis, the first of them at `from`, `n`
 * elements each; all of the axis if there is a border. */
typedef struct {
    const void *from;
    ptrdiff_t pitch, first, end, n, border;
} fc_rows_of;

#define FC_TEMPLATE "separable_template.h"
#include "foreach.h"

typedef int (*fc_separable_t)(const fc_separable *call, ptrdiff_t item, void *space);
FC_TABLE(fc_separable_t, fc_separable_block);

/* Lanes of a vector, [dtype][isa]. */
static inline int fc_separable_lanes(int dtype, int isa)
{
#if FC_VECTORS
    return (isa == FC_AVX512 ? 64 : isa == FC_AVX2 ? 32 : 16) / (dtype ? 8 : 4);
#else
    (void)dtype;
    (void)isa;
    return 1;
#endif
}

#endif /* FASTCONV_SEPARABLE_H */
