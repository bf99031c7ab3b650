/* The register-blocked micro-kernels of matrix products, and the kernels that pack their operands, for every
 * instruction set. */
#ifndef FASTCONV_MICROKERNEL_H
#define FASTCONV_MICROKERNEL_H

#include "simd/isa.h"

/* A run of `n` output positions that are contiguous in memory. The run starts at lane `lane` of a tile, and at offset
 * `at`, in elements, of the padded image or of the result. */
typedef struct {
    ptrdiff_t at, lane, n;
} fc_run;

/* The largest number of rows of a tile with a mask. It is small, because the rows of a large result often map to the
 * same cache sets. */
#define FC_MASKED_TILE_ROWS 4

/* The largest k of a product that `row_masked` can compute. */
#define FC_MASKED_ROW_MAX_K 4

typedef void (*fc_tile_t)(int rows, int vectors, ptrdiff_t k, const void *a, ptrdiff_t step, const void *b,
                          const ptrdiff_t *at, void *c, ptrdiff_t pitch, const void *bias, int add);
typedef void (*fc_row_masked_t)(int k, const void *a, ptrdiff_t stride, const void *b, void *c, const void *mask,
                                ptrdiff_t n);
typedef void (*fc_interleave_t)(void *to, ptrdiff_t width, const void *from, const ptrdiff_t *at, ptrdiff_t rows,
                                ptrdiff_t n);
typedef void (*fc_gather_t)(void *to, ptrdiff_t width, const void *from, const ptrdiff_t *at, ptrdiff_t k,
                            const fc_run *runs, ptrdiff_t count, int spare);
typedef void (*fc_scatter_t)(void *to, ptrdiff_t pitch, ptrdiff_t step, const void *from, ptrdiff_t width,
                             ptrdiff_t rows, const fc_run *runs, ptrdiff_t count, int add);
typedef void (*fc_copy_rows_t)(void *to, ptrdiff_t pitch, const void *from, ptrdiff_t from_pitch, ptrdiff_t rows,
                               ptrdiff_t n, ptrdiff_t stride);
typedef void (*fc_shape_t)(int *rows, int *vectors, int *lanes);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_shape_t shape;
    fc_gather_t gather;
    fc_scatter_t scatter;
    fc_copy_rows_t copy_rows;
    fc_tile_t tile_listed;
    fc_tile_t tile;
    fc_tile_t tile_masked_listed;
    fc_tile_t tile_masked;
    fc_row_masked_t row_masked;
    fc_tile_t tile_strided;
    fc_tile_t tile_rows_listed;
    fc_tile_t tile_rows;
    fc_interleave_t interleave;
} fc_microkernel_kernels;

FC_KERNELS(fc_microkernel_kernels, fc_microkernel_for);

#endif /* FASTCONV_MICROKERNEL_H */
