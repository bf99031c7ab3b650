/* Kernels that copy arrays and transpose two axes, for every instruction set. */
#ifndef FASTCONV_COPIES_H
#define FASTCONV_COPIES_H

#include "simd/isa.h"

/* The strides and sizes of a copy with two axes: to[i * to_pitch + j] = from[i * step + j * pitch] for i < rows and
 * j < columns. If `step` is 1, this is a transposition. */
typedef struct {
    ptrdiff_t step;        /* the distance between two rows of the source, in elements */
    ptrdiff_t pitch;       /* the distance between two columns of the source, in elements */
    ptrdiff_t to_pitch;    /* the distance between two rows of the copy, in elements */
    ptrdiff_t rows;        /* the number of rows of the copy */
    ptrdiff_t columns;     /* the number of columns of the copy */
    ptrdiff_t nontemporal; /* whether to use stores that bypass the caches, if the instruction set has them */
} fc_plane;

typedef void (*fc_copy_t)(const void *from, void *to, const fc_plane *plane);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_copy_t copy;
} fc_copies_kernels;

FC_KERNELS(fc_copies_kernels, fc_copies_for);

#endif /* FASTCONV_COPIES_H */
