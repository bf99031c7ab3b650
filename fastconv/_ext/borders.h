/* Padding of images by their own cells (mirrored, replicated, circular), and its adjoint, for every instruction set. */
#ifndef FASTCONV_BORDERS_H
#define FASTCONV_BORDERS_H

#include <string.h>

#include "isa.h"
#include "team.h"

/* An image of three axes, and its extended copy: `size` cells along each, with the borders `padded`; the image begins
 * `lo` cells after the first along the last axis. `cell[i][p]` is the cell of the image that cell p of the copy shows
 * along axis i; along the last axis cells inside the image are left out. The cells of the copy that show cell c of
 * axis 0 or 1 are shows[i][at[i][c]] to before at[i][c + 1]. */
typedef struct {
    ptrdiff_t size[3], padded[3], lo;
    const ptrdiff_t *cell[3], *at[2], *shows[2];
} fc_borders;

/* Rows of the copy that are added to one row of the image between looks for signals. */
enum { FC_ROWS_A_LOOK = 64 };

#define FC_TEMPLATE "borders_template.h"
#include "foreach.h"

/* Row `row` of the copies of all planes; of the images of all planes. */
typedef void (*fc_extend_t)(const void *x, void *padded, ptrdiff_t row, const fc_borders *borders);
typedef void (*fc_fold_t)(const void *padded, void *x, ptrdiff_t row, const fc_borders *borders, ptrdiff_t *words);
FC_TABLE(fc_extend_t, fc_extend);
FC_TABLE(fc_fold_t, fc_fold);

#endif /* FASTCONV_BORDERS_H */
