/* Pooling for every instruction set. In the forward pass, a vector holds neighbouring outputs of a row. In the backward
 * pass, a vector holds neighbouring elements of a row of dx.
 *
 * Rows are first copied to a workspace, with padding around them, and are split into stride phases. Phase p of a padded
 * row has the elements p, p + stride, p + 2 * stride, and so on. So every tap reads contiguous elements, for any
 * stride, dilation and padding.
 *
 * A plane is one channel of one image, and a cell is one element of a plane. A block is a set of consecutive rows that
 * are processed together. */
#ifndef FASTCONV_POOL_H
#define FASTCONV_POOL_H

#include <math.h>

#include "simd/isa.h"

/* The number of elements past the end of a workspace row that may be read or written. It is the number of lanes of the
 * longest vector. */
#define FC_SLACK 16
/* FC_UNITS is the largest number of vectors of outputs that are processed together. FC_PARTS is the largest number of
 * parts into which the taps of a window are divided. */
#define FC_UNITS 4
#define FC_PARTS 4

/* The kinds of pooling. FC_POOL_MAX and FC_POOL_MAX_OR_NAN compute the maximum of a window. FC_POOL_MAX is faster, but
 * needs an input without NaN. FC_POOL_MEAN computes the mean, and FC_POOL_NORM the root of the sum of squares. */
enum { FC_POOL_MAX, FC_POOL_MAX_OR_NAN, FC_POOL_MEAN, FC_POOL_NORM };

/* The sizes and lists of a pooling, which fastconv.layers.pool.rows computes. An array of three has one element for
 * each of the axes D, H and W. Each row is stored in the workspace as stride phases, each of `phase_width` contiguous
 * cells. If the offset of a tap is a, output i of a row reads cell a + i of the workspace. */
typedef struct {
    ptrdiff_t size[3];     /* the size of the input, in cells */
    ptrdiff_t k[3];        /* the number of taps of a window */
    ptrdiff_t stride[3];   /* the distance between two windows, in cells */
    ptrdiff_t lo[3];       /* the padding before the input, in cells */
    ptrdiff_t dilation[3]; /* the distance between two taps, in cells */
    ptrdiff_t out[3];      /* the number of outputs */
    ptrdiff_t pitch;       /* the distance between two rows of the workspace, in elements */
    ptrdiff_t rows;        /* the number of workspace rows for each index along D */
    /* For each output, the taps [tap_begin, tap_end) are inside the image: index 0 along D, and index 1 along H. */
    const ptrdiff_t *tap_begin[2], *tap_end[2];
    /* The number of stride phases of a row that are stored, and the distance between two phases in elements. */
    ptrdiff_t n_phases, phase_pitch;
    ptrdiff_t phase_width; /* the number of cells of one stride phase of a row */
    /* For each stride phase of a row: `phase_column` is the image column of cell 0 of the phase. The cells
     * [phase_begin, phase_end) of the phase are inside the image. */
    const ptrdiff_t *phase_column, *phase_begin, *phase_end;
    /* For each tap along H and W: `tap_offset` is the offset of the tap in the workspace, in elements. `tap_distance`
     * is the distance in the image from the first tap of the window to the tap, in elements. */
    const ptrdiff_t *tap_offset;
    const ptrdiff_t *tap_distance;
    /* For each output along W: the distance from the start of its window to the first cell of the window that is inside
     * the image. */
    const ptrdiff_t *first_inside;
    /* count[i][o] is the number of cells along axis i by which the mean of window o divides. */
    const ptrdiff_t *count[3];
    /* The offsets of the three tables of `fill_tables` from the start of the workspace of a thread, in elements. */
    ptrdiff_t first_inside_at, count_at, tap_distance_at;
    /* The following fields are for the backward pass. */
    ptrdiff_t left, right; /* the number of zeros before and after a row of outputs in the workspace */
    /* `offset` has one list for each stride phase of the input. The list has one element for each tap that reads the
     * phase. The list of phase r ends at index offset_end[r], where the list of phase r + 1 starts. */
    const ptrdiff_t *offset_end;
    /* For each tap that reads a stride phase of the input: an index in a workspace row of outputs. By this tap, the
     * output at this index reads cell 0 of the phase, the next output reads cell 1, and so on. */
    const ptrdiff_t *offset;
    /* `readers` has one list for each index of the input along D or H: the outputs that read this index. The list of
     * index i ends at readers_end[0][i] along D, and at readers_end[1][i] along H. */
    const ptrdiff_t *readers_end[2];
    /* For each index of the input, the outputs that read this index, in ascending order: readers[0] along D, and
     * readers[1] along H. */
    const ptrdiff_t *readers[2];
} fc_pool;

/* In these functions, `workspace` is the workspace of a thread, which starts with three tables, and `space` is the part
 * of the workspace that holds the rows of a block. */
typedef void (*fc_pool_fill_tables_t)(const fc_pool *g, int op, void *workspace);
typedef int (*fc_pool_load_t)(const fc_pool *g, int op, void *space, const void *plane, const void *plane_end,
                              ptrdiff_t od, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_pool_forward_t)(const fc_pool *g, int op, const void *space, const void *workspace, void *out,
                                  int32_t *indices, const void *out_end, ptrdiff_t od, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_pool_load_gradient_t)(const fc_pool *g, void *space, const void *workspace, const void *dout,
                                        const void *dout_end, const void *norm, ptrdiff_t id, ptrdiff_t begin,
                                        ptrdiff_t end);
typedef void (*fc_pool_gather_t)(const fc_pool *g, const void *space, const void *x, const void *x_end, void *dx,
                                 const void *dx_end, ptrdiff_t id, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_pool_2x2_forward_t)(const void *x, const void *x_end, ptrdiff_t width, ptrdiff_t cell, void *out,
                                      int32_t *indices, const void *out_end, ptrdiff_t rows);
typedef int (*fc_pool_2x2_backward_t)(const void *dout, const void *dout_end, const int32_t *indices, ptrdiff_t width,
                                      ptrdiff_t cell, void *dx, const void *dx_end, ptrdiff_t rows);
typedef void (*fc_pool_2x2_sum_t)(const void *x, const void *x_end, ptrdiff_t width, void *out, const void *out_end,
                                  ptrdiff_t rows);
typedef void (*fc_pool_2x2_sum_backward_t)(const void *dout, const void *dout_end, const void *norm, ptrdiff_t width,
                                           const void *x, const void *x_end, void *dx, const void *dx_end,
                                           ptrdiff_t rows);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_pool_fill_tables_t fill_tables;
    fc_pool_load_t load;
    fc_pool_forward_t forward;
    fc_pool_load_gradient_t load_gradient;
    fc_pool_gather_t gather;
    fc_pool_2x2_forward_t forward_2x2;
    fc_pool_2x2_backward_t backward_2x2;
    fc_pool_2x2_sum_t mean_2x2;
    fc_pool_2x2_sum_t norm_2x2;
    fc_pool_2x2_sum_backward_t mean_backward_2x2;
    fc_pool_2x2_sum_backward_t norm_backward_2x2;
} fc_pool_kernels;

FC_KERNELS(fc_pool_kernels, fc_pool_for);

#endif /* FASTCONV_POOL_H */
