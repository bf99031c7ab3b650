/* Rows of a Toeplitz matrix, and its products, for every instruction set. */
#ifndef FASTCONV_TOEPLITZ_H
#define FASTCONV_TOEPLITZ_H

#include <stdint.h>
#include <string.h>

#include "isa.h"

/* Elements that a row is written by: lists have room for so many more. */
enum { FC_CHUNK = 16 };

/* What an axis adds to a row: entries (offset, tap), see _spans.py. */
typedef struct {
    const ptrdiff_t *entry;
    const ptrdiff_t *lists;
    ptrdiff_t n;
    ptrdiff_t index_pitch;
    ptrdiff_t weight_pitch;
} fc_span;

/* The entries of a row: those of three axes, in each of `cols` channels. */
typedef struct {
    fc_span axis[3];
    ptrdiff_t cols;
    ptrdiff_t index_step;
    ptrdiff_t weight_step;
} fc_row;

/* A product of CSR arrays and a matrix of `width` columns: whole vectors. */
typedef struct {
    const void *data;
    const void *indices;
    const void *indptr;
    const void *x;
    void *y;
    ptrdiff_t width;
    ptrdiff_t x_pitch;
    ptrdiff_t y_pitch;
} fc_spmm;

/* Outputs that see cells in the same pattern: see fc_contract. */
typedef struct {
    const int64_t *columns;
    const int64_t *slots;
    ptrdiff_t n;
    const void *x;
    const void *dy;
    ptrdiff_t width;
    ptrdiff_t x_step;
    ptrdiff_t dy_step;
    ptrdiff_t count;
    void *sums;
} fc_contraction;

#define FC_TEMPLATE "toeplitz_template.h"
#include "foreach.h"

typedef ptrdiff_t (*fc_list_t)(const void *w, const fc_row *row, void *values, void *columns);
typedef void (*fc_repeat_t)(const void *values, const void *columns, ptrdiff_t n, void *data, void *indices,
                            ptrdiff_t rows, ptrdiff_t first, ptrdiff_t step);
typedef void (*fc_spmm_t)(const fc_spmm *product, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_contract_t)(const fc_contraction *contraction);
typedef void (*fc_collect_t)(void *sums, double *totals, ptrdiff_t slots);
FC_TABLE(fc_list_t, fc_list_i32);
FC_TABLE(fc_list_t, fc_list_i64);
FC_TABLE(fc_repeat_t, fc_repeat_i32);
FC_TABLE(fc_repeat_t, fc_repeat_i64);
FC_TABLE(fc_spmm_t, fc_spmm_i32);
FC_TABLE(fc_spmm_t, fc_spmm_i64);
FC_TABLE(fc_contract_t, fc_contract);
FC_TABLE(fc_collect_t, fc_collect);

#endif /* FASTCONV_TOEPLITZ_H */
