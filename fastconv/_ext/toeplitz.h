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
    /* The first of its keys, of how many; or where each key is met: see fc_walk. */
    const ptrdiff_t *places;
    ptrdiff_t key;
    ptrdiff_t keys;
} fc_span;

/* The entries of a row: those of three axes, in each of `cols` channels. */
typedef struct {
    fc_span axis[3];
    ptrdiff_t cols;
    ptrdiff_t index_step;
    ptrdiff_t weight_step;
} fc_row;

/* The key of a channel, plane or line of taps, and its first child. */
typedef struct {
    ptrdiff_t key;
    ptrdiff_t first;
} fc_node;

/* The weights of a row that are not zero, by channel, plane, line and tap, in the order of the axes' keys. Behind the
 * last node of a level is one whose `first` ends the level below. */
typedef struct {
    fc_node *level[3];
    ptrdiff_t *tap;
    void *value;
    ptrdiff_t channels;
    /* Room for as many columns and values, where a list has to be sorted. */
    ptrdiff_t *spare_columns;
    void *spare_values;
    ptrdiff_t visits;
} fc_nonzeros;

/* Where a row's weights are: its channels, and the taps of the three axes by key. */
typedef struct {
    const ptrdiff_t *key[3];
    ptrdiff_t keys[3];
    ptrdiff_t pitch[3];
    ptrdiff_t cols;
    ptrdiff_t col_step;
} fc_weights;

/* Some keys of a segment that follow each other, and where they are met. */
typedef struct {
    ptrdiff_t low;
    ptrdiff_t high;
    const ptrdiff_t *offset;
} fc_keys;

/* The keys of a segment in the order of their cells, in one or two stretches; how many. */
static int fc_parts(const fc_span *span, fc_keys parts[2])
{
    const ptrdiff_t end = span->key + span->n;
    if (span->places) {
        parts[0].low = 0, parts[0].high = span->keys, parts[0].offset = span->places;
        return 1;
    }
    parts[0].low = span->key, parts[0].offset = span->entry;
    parts[0].high = end < span->keys ? end : span->keys;
    if (end <= span->keys)
        return 1;
    parts[1].low = 0, parts[1].high = end - span->keys;
    parts[1].offset = span->entry + 2 * (span->keys - span->key);
    return 2;
}

/* The first of the nodes from begin to end with a key of at least `low`. */
static inline ptrdiff_t fc_first_node(const fc_node *node, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t low)
{
    while (begin < end) {
        const ptrdiff_t middle = low ? (begin + end) / 2 : begin;
        if (node[middle].key >= low)
            end = middle;
        else
            begin = middle + 1;
    }
    return begin;
}

static inline ptrdiff_t fc_first_tap(const ptrdiff_t *tap, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t low)
{
    while (begin < end) {
        const ptrdiff_t middle = low ? (begin + end) / 2 : begin;
        if (tap[middle] >= low)
            end = middle;
        else
            begin = middle + 1;
    }
    return begin;
}

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
typedef ptrdiff_t (*fc_walk_t)(fc_nonzeros *nonzeros, const fc_row *row, void *values, void *columns);
typedef ptrdiff_t (*fc_numbers_t)(const void *w, const fc_weights *weights);
typedef void (*fc_find_t)(const void *w, const fc_weights *weights, fc_nonzeros *nonzeros);
typedef void (*fc_repeat_t)(const void *values, const void *columns, ptrdiff_t n, void *data, void *indices,
                            ptrdiff_t rows, ptrdiff_t first, ptrdiff_t step);
typedef void (*fc_spmm_t)(const fc_spmm *product, ptrdiff_t begin, ptrdiff_t end);
typedef void (*fc_contract_t)(const fc_contraction *contraction);
typedef void (*fc_collect_t)(void *sums, double *totals, ptrdiff_t slots);
FC_TABLE(fc_list_t, fc_list_i32);
FC_TABLE(fc_list_t, fc_list_i64);
FC_TABLE(fc_walk_t, fc_walk_i32);
FC_TABLE(fc_walk_t, fc_walk_i64);
FC_TABLE(fc_numbers_t, fc_number);
FC_TABLE(fc_find_t, fc_find);
FC_TABLE(fc_repeat_t, fc_repeat_i32);
FC_TABLE(fc_repeat_t, fc_repeat_i64);
FC_TABLE(fc_spmm_t, fc_spmm_i32);
FC_TABLE(fc_spmm_t, fc_spmm_i64);
FC_TABLE(fc_contract_t, fc_contract);
FC_TABLE(fc_collect_t, fc_collect);

#endif /* FASTCONV_TOEPLITZ_H */
