/* Depthwise convolution for every instruction set: each row of the result is a sum of weighted rows of a padded image.
 * No matrix product is needed. */
#ifndef FASTCONV_DEPTHWISE_H
#define FASTCONV_DEPTHWISE_H

#include "simd/isa.h"

/* The taps of one output, divided into `k` columns of `high` taps. The first tap of column j multiplies the image
 * element at offset at[j] by the weight w[of[j]]. Each further tap of the column reads the image one row further down,
 * and its weight is `step` elements further. Rows of the image are `pitch` elements apart, and rows of the result are
 * `to_pitch` elements apart. */
typedef struct {
    ptrdiff_t k, high, step;
    const ptrdiff_t *at, *of;
    const void *w;
    ptrdiff_t pitch, to_pitch;
} fc_taps;

/* A segment is one stride phase of one channel in the padded copy of the image. It consists of `top` rows of zeros,
 * `rows` rows that are copied from the source, and `bottom` rows of zeros. A copied row has `before` zeros, then `n`
 * elements of the source, then zeros up to the end of the row. `to` is the offset of the segment in the padded copy.
 * `from` is the offset in the source of the first element that is copied. Offsets are in elements. */
typedef struct {
    ptrdiff_t to, top, rows, bottom, from, before, n;
} fc_copy_segment;

/* FC_HOLD keeps a vector in its register, because GCC would otherwise load the vector again for each use. */
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
