/* Padding of images by copies of their own cells (mirrored, replicated, circular) and its adjoint, for every
 * instruction set. */
#ifndef FASTCONV_BORDERS_H
#define FASTCONV_BORDERS_H

#include <string.h>

#include "isa.h"
#include "team.h"

/* An image with three axes and its padded copy. Along axis i the image has size[i] cells and the copy padded[i] cells.
 * Along the last axis, the image starts at cell `lo` of the copy. Cell p of the copy along axis i repeats cell
 * cell[i][p] of the image; for the last axis, the table leaves out the cells of the copy inside the image. Along axis 0
 * or 1, cell c of the image is repeated by the cells shows[i][j] of the copy, for at[i][c] <= j < at[i][c + 1]. */
typedef struct {
    ptrdiff_t size[3], padded[3], lo;
    const ptrdiff_t *cell[3], *at[2], *shows[2];
} fc_borders;

/* The number of padded rows that are added to one image row between two checks for signals. */
enum { FC_ROWS_BETWEEN_POLLS = 64 };

/* fc_extend writes row `row` of the padded copies of all planes; fc_fold writes row `row` of the images of all
 * planes. */
typedef void (*fc_extend_t)(const void *x, void *padded, ptrdiff_t row, const fc_borders *borders);
typedef void (*fc_fold_t)(const void *padded, void *x, ptrdiff_t row, const fc_borders *borders, fc_work_queue *queue);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_extend_t extend;
    fc_fold_t fold;
} fc_borders_kernels;

FC_KERNELS(fc_borders_kernels, fc_borders_for);

#endif /* FASTCONV_BORDERS_H */
