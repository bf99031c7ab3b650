/* Pooling with vectors along a row of outputs (forward) or of the input (backward), for every instruction set.
 *
 * Rows are first copied to a workspace with padding around them, and split into stride phases: phase p of a padded row
 * has the cells p, p + stride, p + 2 stride, ... Every tap then reads contiguous cells, for any stride, dilation and
 * padding. A plane is one channel of one image, and a cell is one element of a plane. A block is a group of consecutive
 * rows that are processed together. */
#ifndef FASTCONV_POOL_H
#define FASTCONV_POOL_H

#include <math.h>

#include "isa.h"

/* The number of elements past a row of the workspace that may be read or written. It is the number of lanes of the
 * longest vector. */
#define FC_SLACK 16
/* FC_UNITS is the largest number of vectors of outputs that are processed together. FC_PARTS is the largest number of
 * parts into which the taps of a window are divided. */
#define FC_UNITS 4
#define FC_PARTS 4

/* The result of a pooling. FC_POOL_MAX and FC_POOL_MAX_OR_NAN compute the maximum of a window; the first is faster, but
 * needs an input without NaN. FC_POOL_MEAN computes the mean, and FC_POOL_NORM the root of the sum of squares. */
enum { FC_POOL_MAX, FC_POOL_MAX_OR_NAN, FC_POOL_MEAN, FC_POOL_NORM };

/* A pooling by rows. fastconv.layers.pool.tables computes the fields. The axes of arrays of three are depth, height and
 * width. The workspace stores each stride phase of a padded row as `width` contiguous cells. At a tap with offset a,
 * output i of a row reads element a + i of the workspace. */
typedef struct {
    ptrdiff_t size[3], k[3], stride[3], lo[3], dilation[3], out[3];
    ptrdiff_t pitch;  /* the distance between two rows of the workspace, in elements */
    ptrdiff_t rows;   /* the number of rows of a block in the workspace, at each depth that the block reads */
    /* [0]: for each output depth, and [1]: for each output row, the range [first, last) of taps inside the image */
    const ptrdiff_t *tap_ranges[2];
    ptrdiff_t n_phases, phase_pitch;  /* the number of stored phases of a row; their distance in elements */
    ptrdiff_t width;  /* the number of cells of a phase */
    /* For each phase three numbers: the image cell that is cell 0 of the phase, and the range [a, b) of the cells of
     * the phase that are inside the image. */
    const ptrdiff_t *phase;
    /* For each tap of a window of one depth: its offset in the workspace, in elements, and its distance from the corner
     * of the window, in cells of the image. */
    const ptrdiff_t *at;
    const ptrdiff_t *delta;
    /* For each output along the width: the distance from the corner of its window to its first cell in the image. */
    const ptrdiff_t *first;
    const ptrdiff_t *count[3];  /* for each output along each axis: the number of cells of its window that count */
    /* The following fields are for the backward pass. */
    ptrdiff_t left, right;  /* the number of zeros before and after a row of outputs */
    /* tap_end[r]: the end of the range of `offset` for the cells with index r modulo the stride. */
    const ptrdiff_t *tap_end;
    /* For each tap: the element of a row of the workspace that has the output which reads cell 0 of a phase. Cell i of
     * the phase is read by the output i elements later. */
    const ptrdiff_t *offset;
    const ptrdiff_t *seen_end[2];  /* for each input depth [0] and input row [1]: the end of its range of `seen` */
    const ptrdiff_t *seen[2];  /* for each input depth [0] and input row [1]: the outputs that read it, ascending */
} fc_pool;

typedef void (*fc_pool_begin_t)(const fc_pool *g, int op, void *lanes);
typedef int (*fc_pool_load_t)(const fc_pool *g, int op, void *space, const void *plane, const void *plane_end,
                              ptrdiff_t od, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_pool_forward_t)(const fc_pool *g, int op, const void *space, const void *lanes, void *out,
                                  int32_t *where, const void *out_end, ptrdiff_t od, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_pool_share_t)(const fc_pool *g, void *space, const void *lanes, const void *dout,
                                const void *dout_end, const void *norm, ptrdiff_t id, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_pool_gather_t)(const fc_pool *g, const void *space, const void *x, const void *x_end, void *dx,
                                 const void *dx_end, ptrdiff_t id, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_pool_2x2_forward_t)(const void *x, const void *x_end, ptrdiff_t width, ptrdiff_t cell, void *out,
                                      int32_t *where, const void *out_end, ptrdiff_t rows);
typedef int (*fc_pool_2x2_backward_t)(const void *dout, const void *dout_end, const int32_t *where, ptrdiff_t width,
                                      ptrdiff_t cell, void *dx, const void *dx_end, ptrdiff_t rows);
typedef void (*fc_pool_2x2_sum_t)(const void *x, const void *x_end, ptrdiff_t width, void *out, const void *out_end,
                                  ptrdiff_t rows);
typedef void (*fc_pool_2x2_spread_t)(const void *dout, const void *dout_end, const void *norm, ptrdiff_t width,
                                     const void *x, const void *x_end, void *dx, const void *dx_end, ptrdiff_t rows);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_pool_begin_t begin;
    fc_pool_load_t load;
    fc_pool_forward_t forward;
    fc_pool_share_t share;
    fc_pool_gather_t gather;
    fc_pool_2x2_forward_t forward_2x2;
    fc_pool_2x2_backward_t backward_2x2;
    fc_pool_2x2_sum_t mean_2x2;
    fc_pool_2x2_sum_t norm_2x2;
    fc_pool_2x2_spread_t mean_spread_2x2;
    fc_pool_2x2_spread_t norm_spread_2x2;
} fc_pool_kernels;

FC_KERNELS(fc_pool_kernels, fc_pool_for);

#endif /* FASTCONV_POOL_H */
