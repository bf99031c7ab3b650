/* Pooling in vectors along a row of outputs (or, backward, of the input), for every instruction set.
 *
 * Rows are first copied to a workspace, with padding around them and split into stride phases. Every tap is then a load
 * at an offset, whatever the stride, dilation and padding. */
#ifndef FASTCONV_POOL_H
#define FASTCONV_POOL_H

#include <math.h>

#include "isa.h"

/* How many elements past a row of the workspace may be read or written: those of the longest vector. */
#define FC_SLACK 16
/* How many vectors of outputs are processed together, and in how many independent parts their taps are. */
#define FC_UNITS 4
#define FC_PARTS 4

/* What to compute of a window. A maximum is faster if no number is NaN. The last two are the sum of the numbers, and
 * the sum of their squares, whose root is the norm. */
enum { FC_POOL_MAX, FC_POOL_MAX_OR_NAN, FC_POOL_MEAN, FC_POOL_NORM };

/* A pooling by rows; fastconv.layers.pool.tables makes it. Axes are depth, height, width. `width` is the length of a
 * stride phase of the padded row: output i reads, for a tap, cell i from the offset of the tap on. */
typedef struct {
    ptrdiff_t size[3], k[3], stride[3], lo[3], dilation[3], out[3];
    ptrdiff_t pitch;              /* of a row of the workspace, in elements */
    ptrdiff_t rows;               /* rows of a block in the workspace, for each depth that it reads */
    const ptrdiff_t *reach[2];    /* for each output depth and row: the taps [first, last) in the image */
    ptrdiff_t slots, slot_pitch;  /* shares kept of a row */
    ptrdiff_t width;              /* cells of a share */
    const ptrdiff_t *slot;        /* for each: source cell of its cell 0, cells [a, b) in the image */
    const ptrdiff_t *at;          /* for each tap of a depth: its offset in the workspace */
    const ptrdiff_t *delta;       /* and its distance in cells from the window's corner */
    const ptrdiff_t *first;       /* for each output along the width: its first cell in the image */
    const ptrdiff_t *count[3];    /* the number of cells of a window that count, along each axis */
    /* backward */
    ptrdiff_t left, right;        /* cells to put before and after a row of outputs */
    const ptrdiff_t *tap_end;     /* for each residue of the stride: the end of its taps */
    const ptrdiff_t *offset;      /* for each tap: the distance from a cell of the phase to the output that reads it */
    const ptrdiff_t *seen_end[2]; /* for each input depth and row: the end of the outputs that read it */
    const ptrdiff_t *seen[2];     /* those outputs, ascending */
} fc_pool;

#define FC_TEMPLATE "pool_template.h"
#include "foreach.h"

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
FC_TABLE(fc_pool_begin_t, fc_pool_begin);
FC_TABLE(fc_pool_load_t, fc_pool_load);
FC_TABLE(fc_pool_forward_t, fc_pool_forward);
FC_TABLE(fc_pool_share_t, fc_pool_share);
FC_TABLE(fc_pool_gather_t, fc_pool_gather);
FC_TABLE(fc_pool_2x2_forward_t, fc_pool_2x2_forward);
FC_TABLE(fc_pool_2x2_backward_t, fc_pool_2x2_backward);
FC_TABLE(fc_pool_2x2_sum_t, fc_pool_2x2_mean);
FC_TABLE(fc_pool_2x2_sum_t, fc_pool_2x2_norm);
FC_TABLE(fc_pool_2x2_spread_t, fc_pool_2x2_mean_spread);
FC_TABLE(fc_pool_2x2_spread_t, fc_pool_2x2_norm_spread);

#endif /* FASTCONV_POOL_H */
