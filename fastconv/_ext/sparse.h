/* Convolution with pruned weights, for every instruction set. Each nonzero weight scales rows of an image, and the
 * scaled rows are added up. */
#ifndef FASTCONV_SPARSE_H
#define FASTCONV_SPARSE_H

#include "isa.h"

/* The nonzero weights of some rows and channels, with a list for each row. Short lists come first, so that the CPU
 * predicts the end of the loop over a list well. List i has `counts[i]` weights of row `rows[i]`, and starts where list
 * i - 1 ends. `val` has the weights. `off` has, for each weight, the offset from the cell of an output to the cell that
 * the weight multiplies, in vectors. */
typedef struct {
    int32_t *rows, *counts, *off;
    void *val;
} fc_nonzeros_list;

/* The weights of some rows. The rows are `row_step` elements apart. Each row has `runs` runs of `n` contiguous weights,
 * and the runs are `run_step` elements apart. `at` has, for each weight of a row, the offset of fc_nonzeros_list, or a
 * negative number if the weight is not used. */
typedef struct {
    const void *w;
    ptrdiff_t rows, row_step, runs, run_step, n;
    const int32_t *at;
} fc_weights;

/* Lists of fewer than FC_LENGTHS - 1 weights are sorted by length. Longer lists follow in the order of their rows. */
enum { FC_LENGTHS = 512 };

/* The largest number of elements that a kernel may write past the end of a list. */
enum { FC_LIST_SPARE = 16 };

/* The place of a line of results of one lane (see sparse.pyx). `to` is the offset of the line in the result, in
 * elements. `n` is the number of cells of the line that are inside the result, which may be 0. */
typedef struct {
    ptrdiff_t to, n;
} fc_target;

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
                              ptrdiff_t lines, ptrdiff_t n);
typedef void (*fc_add_rows_t)(int high, int wide, const void *x, const ptrdiff_t *lines, const fc_nonzeros_list *pruned,
                              ptrdiff_t rows, void *sums, ptrdiff_t pitch, ptrdiff_t line_pitch, const void *initial,
                              int add);
typedef void (*fc_from_lanes_t)(void *to, const fc_target *targets, ptrdiff_t step, const void *sums, ptrdiff_t lines,
                                ptrdiff_t wide, ptrdiff_t next_row);
typedef void (*fc_dot_rows_t)(int high, int wide, const void *x, const ptrdiff_t *lines, const fc_nonzeros_list *pruned,
                              ptrdiff_t rows, const void *dout, ptrdiff_t pitch, ptrdiff_t line_pitch,
                              const void *mask);
typedef int (*fc_gradient_to_lanes_t)(void *to, void *mask, const void *from, const fc_target *targets, ptrdiff_t lines,
                                      ptrdiff_t wide);
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

/* Return the largest number of vectors of a tile. Each vector takes a register. Two more registers hold operands or,
 * with `dots`, six. */
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
