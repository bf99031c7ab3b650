/* Convolution with pruned weights, for every instruction set. For each nonzero weight, rows of the image are multiplied
 * by the weight, and are added to rows of the result. */
#ifndef FASTCONV_SPARSE_H
#define FASTCONV_SPARSE_H

#include "simd/isa.h"

/* The nonzero weights of some rows of the weight matrix and of some channels, with one list for each row. List i starts
 * where list i - 1 ends. Short lists come first: neighbouring lists then have about the same length, so the CPU
 * predicts the end of the loop over a list well. */
typedef struct {
    int32_t *rows;   /* for each list: the index of its row in the weight matrix */
    int32_t *counts; /* for each list: the number of its weights */
    /* for each weight: the distance, in vectors, from an output to the image element that the weight multiplies */
    int32_t *offsets;
    void *values; /* the weights of all lists */
} fc_nonzeros_list;

/* The weights of some rows of the weight matrix. */
typedef struct {
    const void *w;
    ptrdiff_t rows;     /* the number of rows */
    ptrdiff_t row_step; /* the distance between two rows, in elements */
    ptrdiff_t runs;     /* the number of runs of contiguous weights of a row */
    ptrdiff_t run_step; /* the distance between two runs, in elements */
    ptrdiff_t n;        /* the number of weights of a run */
    /* for each weight of a row: the element of `offsets` in fc_nonzeros_list, or -1 if the weight is not used */
    const int32_t *tap_offsets;
} fc_weights;

/* Lists of fewer than FC_LENGTHS - 1 weights are sorted by length. Longer lists follow in the order of their rows. */
enum { FC_LENGTHS = 512 };

/* The largest number of elements that a kernel may write past the end of a list of nonzero weights. */
enum { FC_LIST_SPARE = 16 };

/* Where one lane of a row of vectors is stored in the result. Each lane has the outputs of another part of the
 * image. */
typedef struct {
    ptrdiff_t offset; /* the offset of the row in the result, in elements */
    ptrdiff_t count;  /* the number of outputs of the row that are inside the result array, which may be 0 */
} fc_row_location;

/* Prefetch `rows` rows of `bytes` bytes each. The rows are `pitch` bytes apart. */
static inline void fc_prefetch_rows(const char *from, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t bytes)
{
    ptrdiff_t i;
    for (; rows > 0; rows--, from += pitch)
        for (i = 0; i < bytes; i += 64)
            FC_PREFETCH(from + i, 0);
}

typedef void (*fc_prune_t)(const fc_weights *weights, const fc_nonzeros_list *to, const fc_nonzeros_list *space);
typedef void (*fc_to_lanes_t)(void *to, ptrdiff_t to_pitch, const void *from, ptrdiff_t from_pitch, const ptrdiff_t *at,
                              ptrdiff_t rows, ptrdiff_t n);
typedef void (*fc_add_rows_t)(int height, int width, const void *x, const ptrdiff_t *row_offsets,
                              const fc_nonzeros_list *pruned, ptrdiff_t rows, void *sums, ptrdiff_t pitch,
                              ptrdiff_t row_pitch, const void *initial, int add);
typedef void (*fc_from_lanes_t)(void *to, const fc_row_location *locations, ptrdiff_t step, const void *sums,
                                ptrdiff_t rows, ptrdiff_t width, ptrdiff_t next_row);
typedef void (*fc_dot_rows_t)(int height, int width, const void *x, const ptrdiff_t *row_offsets,
                              const fc_nonzeros_list *pruned, ptrdiff_t rows, const void *dout, ptrdiff_t pitch,
                              ptrdiff_t row_pitch, const void *mask);
typedef int (*fc_gradient_to_lanes_t)(void *to, void *mask, const void *from, const fc_row_location *locations,
                                      ptrdiff_t rows, ptrdiff_t width);
typedef void (*fc_clear_t)(const void *w, void *dw, ptrdiff_t n);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_prune_t prune;
    fc_to_lanes_t to_lanes;
    fc_add_rows_t add_rows;
    fc_from_lanes_t from_lanes;
    fc_dot_rows_t dot_rows;
    fc_gradient_to_lanes_t gradient_to_lanes;
    fc_clear_t clear;
} fc_sparse_kernels;

FC_KERNELS(fc_sparse_kernels, fc_sparse_for);

/* Return the largest number of vectors of a tile. Each vector takes one register. At least two more registers hold
 * operands or, if `dots` is set, at least six more. */
static inline int fc_sparse_sums(int isa, int dots)
{
#if defined(__aarch64__)
    (void)isa;
    return dots ? 24 : 28;
#else
    return isa == FC_AVX512 ? (dots ? 24 : 28) : dots ? 10 : 14;
#endif
}

#endif /* FASTCONV_SPARSE_H */
