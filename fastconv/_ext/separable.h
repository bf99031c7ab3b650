/* Separable convolution, with kernels that are outer products, axis by axis, for every instruction set. */
#ifndef FASTCONV_SEPARABLE_H
#define FASTCONV_SEPARABLE_H

#include "isa.h"
#include "team.h"

/* A line: outputs along one axis, written to the result cells `start`, `start` + `output_stride`, ... Output o is the
 * sum over t
 * < taps of the source cell o * stride + t * dilation - lo times factor `factors` + t; `stride` is a
 * field of fc_side. */
typedef struct {
    ptrdiff_t out, output_offset, output_stride, lo, dilation, taps, factors;
} fc_conv_axis;

/* One axis: `size` cells of the source, `output_size` cells of the result, `phases` lines of at most `out` outputs, and
 * blocks of `block` outputs. The first output of a block reads at most `pad` cells before cell begin * stride of the
 * source, and `halo` is the distance from its first cell to its last. */
typedef struct {
    ptrdiff_t size, output_size, stride, phases, out, block, pad, halo;
    const fc_conv_axis *phase;
} fc_phased_axis;

/* How cells outside an axis are filled. Borders other than zeros need images of two axes (`flat`), undivided rows, and
 * contiguous results. */
enum { FC_ZEROS, FC_REFLECT, FC_REPLICATE, FC_CIRCULAR };

/* A call. Axes are (D, H, W). `channels` is the number of result channels of an image, `shared` how many of them share
 * a source (forward), `sources` how many sources one result sums over (backward), and `entries` the number of entries
 * of the factors of a filter. The workspace, in elements: rows of sums along H from 0 on, one row split into stride
 * phases, one row of results, and the sums along D unless `flat`. */
typedef struct {
    fc_phased_axis axes[3];
    ptrdiff_t images, channels, shared, sources, entries, flat, border;
    ptrdiff_t pitch, split_at, phase_pitch, row_at, planes_at, space;
    const void *x, *factors, *bias;
    void *result;
    fc_work_queue *queue; /* the shared state of the call, or NULL */
} fc_separable;

static inline ptrdiff_t fc_blocks(const fc_phased_axis *axis)
{
    return axis->phases * ((axis->out + axis->block - 1) / axis->block);
}

static inline ptrdiff_t fc_separable_items(const fc_separable *call)
{
    return call->images * call->channels * fc_blocks(&call->axes[0]) * fc_blocks(&call->axes[1]) *
           ((call->axes[2].out + call->axes[2].block - 1) / call->axes[2].block);
}

static inline ptrdiff_t fc_limit(ptrdiff_t n, ptrdiff_t least, ptrdiff_t most)
{
    return n < least ? least : n > most ? most : n;
}

/* Find the taps of output o of a line that read the source cells [first, end). */
static inline void fc_taps_inside(const fc_conv_axis *phase, ptrdiff_t at, ptrdiff_t first, ptrdiff_t end,
                                  ptrdiff_t *tap,
                                  ptrdiff_t *taps)
{
    const ptrdiff_t d = phase->dilation;
    *tap = at >= first ? 0 : fc_limit((first - at + d - 1) / d, 0, phase->taps);
    *taps = end <= at ? 0 : fc_limit((end - at + d - 1) / d, 0, phase->taps) - *tap;
    *taps = *taps < 0 ? 0 : *taps;
}

/* Cells outside the image repeat cells of the image. Return how many of the `most` cells `at`, `at` + `step`, ...
 * repeat cells that form one arithmetic sequence, and set the first cell and the step of that sequence. */
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

/* The rows to sum over, `pitch` apart in memory: cells [first, end) of an axis with `n` elements each, the first at
 * `from`. With a border other than zeros these are all cells of the axis. */
typedef struct {
    const void *from;
    ptrdiff_t pitch, first, end, n, border;
} fc_rows_of;

typedef int (*fc_separable_t)(const fc_separable *call, ptrdiff_t item, void *space);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_separable_t block;
} fc_separable_kernels;

FC_KERNELS(fc_separable_kernels, fc_separable_for);

#endif /* FASTCONV_SEPARABLE_H */
