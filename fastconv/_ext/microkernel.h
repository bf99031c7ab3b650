/* The register-blocked micro-kernel of a matrix product, and the packing of its operands, for every instruction set. */
#ifndef FASTCONV_MICROKERNEL_H
#define FASTCONV_MICROKERNEL_H

#include "isa.h"

/* A run of `n` contiguous output positions of a tile. It starts at lane `lane` of the tile, and at offset `at` in the
 * padded image or the result. */
typedef struct {
    ptrdiff_t at, lane, n;
} fc_run;

/* The largest k that `fc_row_kept` supports. */
#define FC_FEW 4

typedef void (*fc_tile_t)(int rows, int vectors, ptrdiff_t k, const void *a, ptrdiff_t step, const void *b,
                          const ptrdiff_t *at, void *c, ptrdiff_t pitch, const void *bias, int add);
typedef void (*fc_row_kept_t)(int k, const void *a, ptrdiff_t apart, const void *b, void *c, const void *kept,
                              ptrdiff_t n);
typedef void (*fc_interleave_t)(void *to, ptrdiff_t width, const void *from, const ptrdiff_t *at, ptrdiff_t rows,
                                ptrdiff_t n);
typedef void (*fc_gather_t)(void *to, ptrdiff_t width, const void *from, const ptrdiff_t *at, ptrdiff_t k,
                            const fc_run *runs, ptrdiff_t count, int spare);
typedef void (*fc_scatter_t)(void *to, ptrdiff_t pitch, ptrdiff_t step, const void *from, ptrdiff_t width,
                             ptrdiff_t rows, const fc_run *runs, ptrdiff_t count, int add);
typedef void (*fc_cells_of_t)(void *to, ptrdiff_t pitch, const void *from, ptrdiff_t from_pitch, ptrdiff_t rows,
                              ptrdiff_t n, ptrdiff_t stride);
typedef void (*fc_shape_t)(int *rows, int *vectors, int *lanes);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_shape_t shape;
    fc_gather_t gather;
    fc_scatter_t scatter;
    fc_cells_of_t cells_of;
    fc_tile_t tile_listed;
    fc_tile_t tile;
    fc_tile_t tile_kept_listed;
    fc_tile_t tile_kept;
    fc_row_kept_t row_kept;
    fc_tile_t tile_apart;
    fc_tile_t tile_rows_listed;
    fc_tile_t tile_rows;
    fc_interleave_t interleave;
} fc_microkernel_kernels;

FC_KERNELS(fc_microkernel_kernels, fc_microkernel_for);

#endif /* FASTCONV_MICROKERNEL_H */
