/* Kernels that pad images with their own elements (mirrored, replicated or circular padding), and that compute the
 * gradient of this padding, for every instruction set. */
#ifndef FASTCONV_BORDERS_H
#define FASTCONV_BORDERS_H

#include <string.h>

#include "simd/isa.h"
#include "threads/team.h"

/* The sizes and index tables of an image with three axes and of its padded copy. Along axis i, the image has size[i]
 * elements, and the copy has padded[i] elements. Along the last axis, the image starts at index `lo` of the copy.
 *
 * For axes 0 and 1, index p of the copy repeats index cell[i][p] of the image. For the last axis, cell[2] has numbers
 * for the padding only: first for the padding before the image, then for the padding after the image.
 *
 * at[i] and shows[i] are the inverse of cell[i] for axes 0 and 1. Index c of the image is repeated at the indices
 * shows[i][j] of the copy, for at[i][c] <= j < at[i][c + 1]. */
typedef struct {
    ptrdiff_t size[3], padded[3], lo;
    const ptrdiff_t *cell[3], *at[2], *shows[2];
} fc_borders;

/* The number of padded rows that a thread adds to one image row between two checks for signals (such as Ctrl-C). */
enum { FC_ROWS_BETWEEN_POLLS = 64 };

/* fc_extend writes row `row` of the padded copy. fc_fold writes row `row` of dx, the gradient of the image: the sum of
 * those rows of `padded` that repeat this row. Rows are numbered across all channels of all images. */
typedef void (*fc_extend_t)(const void *x, void *padded, ptrdiff_t row, const fc_borders *borders);
typedef void (*fc_fold_t)(const void *padded, void *x, ptrdiff_t row, const fc_borders *borders, fc_work_queue *queue);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_extend_t extend;
    fc_fold_t fold;
} fc_borders_kernels;

FC_KERNELS(fc_borders_kernels, fc_borders_for);

#endif /* FASTCONV_BORDERS_H */
