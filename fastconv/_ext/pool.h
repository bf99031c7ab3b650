/* Pooling with vectors along a row of outputs (forward) or of the input (backward), for every instruction set.
 *
 * Rows are first copied to a workspace, with padding around them and split into stride phases. Every tap is then a load
 * at an offset, whatever the stride, dilation and padding. */
#ifndef FASTCONV_POOL_H
#define FASTCONV_POOL_H

#include <math.h>

#include "isa.h"

/* The number of elements past a row of the workspace that may be read or written: the lanes of the longest vector. */
#define FC_SLACK 16
/* The number of vectors of outputs that are processed together, and the number of independent parts of their taps. */
#define FC_UNITS 4
#define FC_PARTS 4

/* The op of a pooling. FC_POOL_MAX is faster, but needs an input without NaN. FC_POOL_MEAN sums the numbers, and
 * FC_POOL_NORM sums their squares and takes the root. */
enum { FC_POOL_MAX, FC_POOL_MAX_OR_NAN, FC_POOL_MEAN, FC_POOL_NORM };

/* A pooling by rows, made by fastconv.layers.pool.tables. Axes are depth, height, width. The workspace stores each
 * stride phase of a padded row as `width` contiguous cells: at each tap, output i reads cell i after
 * the tap's offset. */
typedef struct {
    ptrdiff_t size[3], k[3], stride[3], lo[3], dilation[3], out[3];
    ptrdiff_t pitch;              /* elements from one row of the workspace to the next */
    ptrdiff_t rows;               /* rows of a block in the workspace, for each depth that it reads */
    const ptrdiff_t *tap_ranges[2]; /* for each output depth and each output row: the taps [first, last) in the image */
    ptrdiff_t n_phases, phase_pitch;  /* number of stored phases of a row, and their distance */
    ptrdiff_t width;              /* cells of a phase */
    const ptrdiff_t *phase; /* for each phase: the source cell of its cell 0, and its cells [a, b) in the image */
    const ptrdiff_t *at;          /* for each tap of a depth: its offset in the workspace */
    const ptrdiff_t *delta;       /* for each tap of a depth: its distance in cells from the corner of the window */
    const ptrdiff_t *first;       /* for each output along the width: its first cell in the image */
    const ptrdiff_t *count[3];    /* the number of cells of a window that count, along each axis */
    /* backward */
    ptrdiff_t left, right;        /* cells to add before and after a row of outputs */
    const ptrdiff_t *tap_end;     /* for each residue of the stride: the end of its taps */
    const ptrdiff_t *offset;      /* for each tap: the distance from a cell of the phase to the output that reads it */
    const ptrdiff_t *seen_end[2]; /* for each input depth and row: the end of its part of `seen` */
    const ptrdiff_t *seen[2];     /* for each input depth and row: the outputs that read it, ascending */
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
