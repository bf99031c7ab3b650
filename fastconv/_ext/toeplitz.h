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

/* Where a line of taps meets the first cell of the matrix row, in which channel, and its taps from first to end. */
typedef struct {
    ptrdiff_t at;
    ptrdiff_t channel;
    ptrdiff_t first;
    ptrdiff_t end;
} fc_line;

/* The weights of a row that are not zero, by channel, plane, line and tap, in the order of the axes' keys. Behind the
 * last node of a level is one whose `first` ends the level below. */
typedef struct {
    fc_node *level[3];
    ptrdiff_t *tap;
    void *value;
    ptrdiff_t channels;
    /* Of some segments of the first two axes: see fc_lines. */
    fc_line *lines;
    ptrdiff_t n_lines;
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
    ptrdiff_t taps;
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

/* The lines of taps that a row meets, in the order of their cells, from a list of the weights that are not zero: of
 * each level only those whose keys the segments have. */
static void fc_lines(fc_nonzeros *nonzeros, const fc_row *row)
{
    const fc_node *channel = nonzeros->level[0], *plane = nonzeros->level[1], *line = nonzeros->level[2];
    const fc_span *d = &row->axis[0], *h = &row->axis[1];
    /* Entries are pairs of an offset and a tap, places are offsets. */
    const ptrdiff_t step_d = d->places ? 1 : 2, step_h = h->places ? 1 : 2;
    const ptrdiff_t zero = (d->places ? 0 : d->entry[0] * d->index_pitch) +
                           (h->places ? 0 : h->entry[0] * h->index_pitch);
    fc_line *to = nonzeros->lines;
    fc_keys parts_d[2], parts_h[2];
    const int many_d = fc_parts(d, parts_d), many_h = fc_parts(h, parts_h);
    ptrdiff_t q, i, j, k, n = 0;
    int a, b;
    for (q = 0; q < nonzeros->channels; q++) {
        const ptrdiff_t begin = n, end_d = channel[q + 1].first, at_q = channel[q].key * row->index_step - zero;
        for (a = 0; a < many_d; a++) {
            const fc_keys pd = parts_d[a];
            for (i = fc_first_node(plane, channel[q].first, end_d, pd.low); i < end_d && plane[i].key < pd.high; i++) {
                const ptrdiff_t at_d = at_q + pd.offset[(plane[i].key - pd.low) * step_d] * d->index_pitch;
                const ptrdiff_t end_h = plane[i + 1].first;
                nonzeros->visits++;
                for (b = 0; b < many_h; b++) {
                    const fc_keys ph = parts_h[b];
                    j = fc_first_node(line, plane[i].first, end_h, ph.low);
                    for (; j < end_h && line[j].key < ph.high; j++, n++) {
                        to[n].at = at_d + ph.offset[(line[j].key - ph.low) * step_h] * h->index_pitch;
                        to[n].channel = q;
                        to[n].first = line[j].first, to[n].end = line[j + 1].first;
                    }
                }
            }
        }
        /* Mirrored, they come in another order. */
        if (d->places || h->places)
            for (i = begin + 1; i < n; i++) {
                const fc_line moved = to[i];
                for (k = i; k > begin && to[k - 1].at > moved.at; k--)
                    to[k] = to[k - 1];
                to[k] = moved;
            }
    }
    nonzeros->n_lines = n;
    nonzeros->visits += n;
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
