/* Padding of images by copies of their own cells (mirrored, replicated, circular), and the adjoint of this padding, for
 * every instruction set. */
#ifndef FASTCONV_BORDERS_H
#define FASTCONV_BORDERS_H

#include <string.h>

#include "simd/isa.h"
#include "threads/team.h"

/* An image with three axes and its padded copy. Along axis i, the image has size[i] elements, and the copy has
 * padded[i] elements. Along the last axis, the image starts at index `lo` of the copy.
 *
 * cell[i][p] is the index along axis i of the image element that is copied to index p. For the last axis, this table
 * has no numbers for the elements of the copy that are inside the image. `shows` is the inverse for axes 0 and 1: image
 * index c is copied to the indices shows[i][j] for at[i][c] <= j < at[i][c + 1]. */
typedef struct {
    ptrdiff_t size[3], padded[3], lo;
    const ptrdiff_t *cell[3], *at[2], *shows[2];
} fc_borders;

/* The number of padded rows that a thread adds to one image row between two checks for signals. */
enum { FC_ROWS_BETWEEN_POLLS = 64 };

/* fc_extend writes one row of the padded copy of each plane. fc_fold writes one row of the image of each plane. `row`
 * is the index of this row. */
typedef void (*fc_extend_t)(const void *x, void *padded, ptrdiff_t row, const fc_borders *borders);
typedef void (*fc_fold_t)(const void *padded, void *x, ptrdiff_t row, const fc_borders *borders, fc_work_queue *queue);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_extend_t extend;
    fc_fold_t fold;
} fc_borders_kernels;

FC_KERNELS(fc_borders_kernels, fc_borders_for);

#endif /* FASTCONV_BORDERS_H */
