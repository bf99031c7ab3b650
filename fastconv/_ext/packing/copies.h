/* Kernels that copy arrays and transpose two axes, for every instruction set. */
#ifndef FASTCONV_COPIES_H
#define FASTCONV_COPIES_H

#include "simd/isa.h"

/* A plane is an array of two axes, which are transposed by the copy: to[i * to_pitch + j] = from[i * step + j * pitch]
 * for i < rows and j < columns. */
typedef struct {
    ptrdiff_t step;        /* the distance between two rows of the source, in elements */
    ptrdiff_t pitch;       /* the distance between two columns of the source, in elements */
    ptrdiff_t to_pitch;    /* the distance between two rows of the copy, in elements */
    ptrdiff_t rows;        /* the number of rows of the copy */
    ptrdiff_t columns;     /* the number of columns of the copy */
    ptrdiff_t nontemporal; /* whether stores bypass the caches, if the instruction set has such stores */
} fc_plane;

typedef void (*fc_copy_t)(const void *from, void *to, const fc_plane *plane);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_copy_t copy;
} fc_copies_kernels;

FC_KERNELS(fc_copies_kernels, fc_copies_for);

#endif /* FASTCONV_COPIES_H */
