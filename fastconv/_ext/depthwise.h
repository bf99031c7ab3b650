/* Depthwise convolution for every instruction set: sums of a few taps over rows of a padded image, without a matrix
 * product. */
#ifndef FASTCONV_DEPTHWISE_H
#define FASTCONV_DEPTHWISE_H

#include "isa.h"

/* The taps of one output. Entry j, for j < k, is a column of `high` taps. They read the image from at[j] on, one row
 * below the other, and their weights are `step` elements apart, from w[of[j]] on. `pitch` is the distance between rows
 * of the image, `to_pitch` between rows of the result. */
typedef struct {
    ptrdiff_t k, high, step;
    const ptrdiff_t *at, *of;
    const void *w;
    ptrdiff_t pitch, to_pitch;
} fc_taps;

/* A copy of one phase of one plane into a block. The copy has `top` rows of zeros, `rows` rows with `n` cells each
 * after `before` zeros, and `bottom` rows of zeros. `to` is its offset in the block, `from` the offset of its first
 * cell in the source. */
typedef struct {
    ptrdiff_t to, top, rows, bottom, from, before, n;
} fc_copy_segment;

/* Keep a vector in its register, because GCC would otherwise load it again for each use. */
#if FC_X86
#define FC_HOLD(v) __asm__("" : "+v"(v))
#elif FC_VECTORS && defined(__aarch64__)
#define FC_HOLD(v) __asm__("" : "+w"(v))
#else
#define FC_HOLD(v) ((void)0)
#endif

typedef void (*fc_pad_t)(void *to, ptrdiff_t width, const fc_copy_segment *segments, ptrdiff_t count, const void *from,
                         ptrdiff_t from_pitch, ptrdiff_t stride, ptrdiff_t room);
typedef void (*fc_sweep_t)(const fc_taps *taps, const void *from, void *to, ptrdiff_t rows, ptrdiff_t n,
                           const void *bias, ptrdiff_t whole);
typedef void (*fc_sweep_pair_t)(const fc_taps *a, const fc_taps *b, const void *from, void *to, ptrdiff_t rows,
                                ptrdiff_t n, const void *bias, ptrdiff_t whole);
typedef void (*fc_dots_t)(const fc_taps *taps, const void *from, const void *dout, ptrdiff_t rows, ptrdiff_t n,
                          void *totals);
typedef void (*fc_lanes_t)(const void *totals, ptrdiff_t n, ptrdiff_t taps, const ptrdiff_t *place, void *to);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_pad_t pad;
    fc_sweep_t sweep;
    fc_sweep_pair_t sweep_pair;
    fc_dots_t dots;
    fc_lanes_t lanes;
} fc_depthwise_kernels;

FC_KERNELS(fc_depthwise_kernels, fc_depthwise_for);

#endif /* FASTCONV_DEPTHWISE_H */
