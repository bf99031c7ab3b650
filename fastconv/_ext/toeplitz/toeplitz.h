/* Kernels that build a Toeplitz matrix in CSR form.
 *
 * A matrix row belongs to one output position and one filter or, for the transposed matrix, one channel. An entry is an
 * element that a matrix row stores: a weight, in the column of the image element that it multiplies. A list has the
 * values and the columns of all entries of a matrix row.
 *
 * A segment is a set of output positions along one axis whose entries are equal, up to a shift of the columns (see
 * fastconv/convolution/toeplitz/pattern.py). A position is mirrored if its padding repeats image elements, so that it
 * reads elements in another order, or an element twice.
 *
 * The taps along an axis are numbered by keys, in ascending order of the image elements that they read. With circular
 * padding, this order may wrap around. A tap line consists of all taps along the last axis, for one channel and one tap
 * along each other axis. */
#ifndef FASTCONV_TOEPLITZ_H
#define FASTCONV_TOEPLITZ_H

#include <stdint.h>
#include <string.h>

#include "simd/isa.h"
#include "buffers/runs.h"

/* The number of matrix elements that are copied at a time. A list of elements has room for FC_CHUNK more elements past
 * its end. */
enum { FC_CHUNK = 16 };

/* The entries of a matrix row along one axis: see AxisPattern in toeplitz/pattern.py. Keys number the taps along the
 * axis, in ascending order of the image elements that they read. */
typedef struct {
    const ptrdiff_t *entry; /* a pair (offset, tap) for each entry */
    const ptrdiff_t *lists; /* lists of taps that read the same image element */
    ptrdiff_t n;            /* the number of entries */
    ptrdiff_t index_pitch;  /* the stride of the axis in the image, in elements */
    ptrdiff_t weight_pitch; /* the stride of the axis in the weights, in elements */
    /* If `element_of_key` is NULL, the taps of the entries have the keys `first_key`, `first_key` + 1, and so on,
     * modulo `keys`. Otherwise, the position is mirrored, for example by reflect padding. The tap with key i then reads
     * image element element_of_key[i], counted from the first image element that the segment reads. */
    const ptrdiff_t *element_of_key;
    ptrdiff_t first_key;
    ptrdiff_t keys; /* the number of keys */
} fc_span;

/* Output positions along one axis whose matrix rows have the same elements, up to a shift of the columns: see
 * AxisPattern in toeplitz/pattern.py. */
typedef struct {
    ptrdiff_t start;     /* the first position */
    ptrdiff_t step;      /* the distance between two neighbouring positions */
    ptrdiff_t count;     /* the number of positions */
    ptrdiff_t begin;     /* the index of the first entry */
    ptrdiff_t end;       /* the end of the entries */
    ptrdiff_t base;      /* the column of the first entry of the first position */
    ptrdiff_t base_step; /* the distance between the columns of two neighbouring positions */
    /* the key of the tap of the first entry; for a mirrored position (for example, with reflect padding), ~i, where the
     * image elements of the segment start at element_of_key[i] */
    ptrdiff_t key;
} fc_segment;

/* The entries of a matrix row: all combinations of the entries along three axes and of all channels. */
typedef struct {
    fc_span axis[3];
    ptrdiff_t cols;        /* the number of channels */
    ptrdiff_t index_step;  /* the stride of the channel axis in the image, in elements */
    ptrdiff_t weight_step; /* the stride of the channel axis in the weights, in elements */
} fc_row;

/* A node of the tree of nonzero weights (see fc_nonzeros). A node stands for a channel, for an index of the kernel
 * along D, or for a row of the kernel. `key` is the number of the channel or of the tap. `first` is the index of the
 * first child of the node. */
typedef struct {
    ptrdiff_t key;
    ptrdiff_t first;
} fc_node;

/* A tap line: all taps along the last axis, for one channel and one tap along each other axis. */
typedef struct {
    ptrdiff_t at;      /* the offset of the tap line from the first image element that the matrix row reads */
    ptrdiff_t channel; /* the index of the channel */
    ptrdiff_t first;   /* the index of the first nonzero weight of the tap line */
    ptrdiff_t end;     /* the end of the nonzero weights of the tap line */
} fc_tap_line;

/* A nonzero weight. */
typedef struct {
    ptrdiff_t at; /* the offset of the tap line from the first image element that the matrix row reads */
    /* the key of the tap along the last axis: its number in the order of the image elements that the taps read */
    ptrdiff_t key;
    ptrdiff_t source; /* the index of the weight in `value` of fc_nonzeros */
} fc_nonzero;

/* A range [begin, end) of nonzero weights (fc_nonzero) whose tap lines read the same row of the image. */
typedef struct {
    ptrdiff_t begin;
    ptrdiff_t end;
} fc_group;

/* A tree of the nonzero weights of one filter or, for the transposed matrix, of one channel.
 *
 * level[0] has a node for each channel. level[1] has a node for each pair of a channel and an index of the kernel along
 * D. level[2] has a node for each row of the kernel (tap line). Nodes without nonzero weights are left out. tap[i] is
 * the key, along the last axis, of nonzero weight i, and `value` has the weights. Nodes and weights are sorted by key.
 * Each level has one more node at its end, whose `first` is the size of the next level. */
typedef struct {
    fc_node *level[3];
    ptrdiff_t *tap;
    void *value;
    ptrdiff_t channels;
    /* The tap lines of a matrix row that have nonzero weights: see fc_list_tap_lines. */
    fc_tap_line *lines;
    ptrdiff_t n_lines;
    /* The following fields are used only if an axis has mirrored positions, for example with reflect padding.
     * fc_order_nonzeros sorts the nonzero weights in `sorted`, and writes the fields of the sorted weights to the
     * arrays `at`, `key` and `ordered`. */
    fc_nonzero *sorted;
    fc_nonzero *sort_space;
    ptrdiff_t *at;
    ptrdiff_t *key;
    void *ordered;
    fc_group *groups;
    ptrdiff_t n_sorted;
    ptrdiff_t n_groups;
    ptrdiff_t n_grouped;
    /* The workspace in which the columns and the values of a matrix row are sorted. */
    ptrdiff_t *spare_columns;
    void *spare_values;
    ptrdiff_t visits; /* The number of nodes and weights that were read. Tests check this number. */
} fc_nonzeros;

/* The layout of the weights of one filter or, for the transposed matrix, of one channel. There are `cols` channels (or
 * filters), and key[a][i] is the tap along axis a with key i. */
typedef struct {
    const ptrdiff_t *key[3];
    ptrdiff_t keys[3];
    ptrdiff_t pitch[3];
    ptrdiff_t taps;
    ptrdiff_t cols;
    ptrdiff_t col_step;
} fc_weights;

/* The keys [low, high) of a segment. The tap with key low + i reads the image element at offset[2 * i]. */
typedef struct {
    ptrdiff_t low;
    ptrdiff_t high;
    const ptrdiff_t *offset;
} fc_key_range;

/* Write the keys of a segment to `ranges`, as one range or, if the keys wrap around, as two ranges. Return the number
 * of ranges. */
static inline int fc_key_ranges(const fc_span *span, fc_key_range ranges[2])
{
    const ptrdiff_t end = span->first_key + span->n;
    ranges[0].low = span->first_key, ranges[0].offset = span->entry;
    ranges[0].high = end < span->keys ? end : span->keys;
    if (end <= span->keys)
        return 1;
    ranges[1].low = 0, ranges[1].high = end - span->keys;
    ranges[1].offset = span->entry + 2 * (span->keys - span->first_key);
    return 2;
}

/* Return the index of the first of the nodes [begin, end) whose key is at least `low`. The nodes are sorted by key. */
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

/* List the tap lines of a matrix row that have nonzero weights, in ascending order of the image elements that they
 * read. Nodes of the tree of nonzero weights are skipped if their keys are outside the segments. This function is for
 * axes without mirrored positions, for example with zero padding. */
static inline void fc_list_tap_lines(fc_nonzeros *nonzeros, const fc_row *row)
{
    const fc_node *channel = nonzeros->level[0], *plane = nonzeros->level[1], *line = nonzeros->level[2];
    const fc_span *d = &row->axis[0], *h = &row->axis[1];
    const ptrdiff_t zero = d->entry[0] * d->index_pitch + h->entry[0] * h->index_pitch;
    fc_tap_line *to = nonzeros->lines;
    fc_key_range ranges_d[2], ranges_h[2];
    const int n_ranges_d = fc_key_ranges(d, ranges_d), n_ranges_h = fc_key_ranges(h, ranges_h);
    ptrdiff_t q, i, j, n = 0;
    int a, b;
    for (q = 0; q < nonzeros->channels; q++) {
        const ptrdiff_t end_d = channel[q + 1].first, at_q = channel[q].key * row->index_step - zero;
        for (a = 0; a < n_ranges_d; a++) {
            const fc_key_range range_d = ranges_d[a];
            for (i = fc_first_node(plane, channel[q].first, end_d, range_d.low);
                 i < end_d && plane[i].key < range_d.high; i++) {
                const ptrdiff_t at_d = at_q + range_d.offset[2 * (plane[i].key - range_d.low)] * d->index_pitch;
                const ptrdiff_t end_h = plane[i + 1].first;
                nonzeros->visits++;
                for (b = 0; b < n_ranges_h; b++) {
                    const fc_key_range range_h = ranges_h[b];
                    j = fc_first_node(line, plane[i].first, end_h, range_h.low);
                    for (; j < end_h && line[j].key < range_h.high; j++, n++) {
                        to[n].at = at_d + range_h.offset[2 * (line[j].key - range_h.low)] * h->index_pitch;
                        to[n].channel = q;
                        to[n].first = line[j].first, to[n].end = line[j + 1].first;
                    }
                }
            }
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

/* Return the index of the image element that the tap with key `key` reads, counted from the first image element that
 * the segment reads. Every tap along the axis must read an image element. */
static inline ptrdiff_t fc_lookup_element(const fc_span *span, ptrdiff_t key)
{
    if (span->element_of_key)
        return span->element_of_key[key];
    key -= span->first_key;
    return span->entry[2 * (key < 0 ? key + span->keys : key)] - span->entry[0];
}

static inline int fc_is_after(const fc_nonzero *a, const fc_nonzero *b)
{
    return a->at > b->at || (a->at == b->at && a->key > b->key);
}

/* Sort `sorted` by the offset of the tap line, then by key. */
static inline void fc_sort_nonzeros(fc_nonzeros *nonzeros, ptrdiff_t n)
{
    enum { RUN = 12 };
    fc_nonzero *from = nonzeros->sorted, *to = nonzeros->sort_space;
    ptrdiff_t i, j, size;
    for (i = 0; i < n; i += RUN) {
        const ptrdiff_t end = i + RUN < n ? i + RUN : n;
        ptrdiff_t next;
        for (next = i + 1; next < end; next++) {
            const fc_nonzero moved = from[next];
            for (j = next; j > i && fc_is_after(&from[j - 1], &moved); j--)
                from[j] = from[j - 1];
            from[j] = moved;
        }
    }
    for (size = RUN; size < n; size *= 2) {
        fc_nonzero *const swap = from;
        for (i = 0; i < n; i += 2 * size) {
            const ptrdiff_t middle = i + size < n ? i + size : n, end = i + 2 * size < n ? i + 2 * size : n;
            ptrdiff_t a = i, b = middle, at;
            for (at = i; at < end; at++)
                to[at] = a == middle || (b < end && fc_is_after(&from[a], &from[b])) ? from[b++] : from[a++];
        }
        from = to, to = swap;
    }
    nonzeros->sorted = from, nonzeros->sort_space = to;
}

/* Sort the nonzero weights by the image row that they read, and by key for the same image row. The result is stored in
 * the sorted arrays of fc_nonzeros, and is used for all segments of the last axis. This function is for axes with
 * mirrored positions, for example with reflect padding. Every tap along such an axis reads an image element.
 *
 * For any two tap lines, either both read the same image row, or all elements that one reads come before all elements
 * that the other reads. So the segment of the last axis changes only the order of weights that read the same image
 * row. */
static inline void fc_order_nonzeros(fc_nonzeros *nonzeros, const fc_row *row, ptrdiff_t itemsize)
{
    const fc_node *channel = nonzeros->level[0], *plane = nonzeros->level[1], *line = nonzeros->level[2];
    const fc_span *d = &row->axis[0], *h = &row->axis[1];
    fc_nonzero *to = nonzeros->sorted;
    ptrdiff_t q, i, j, k, n = 0, groups = 0, grouped = 0;
    int ascending = 1;
    for (q = 0; q < nonzeros->channels; q++)
        for (i = channel[q].first; i < channel[q + 1].first; i++) {
            const ptrdiff_t at_d =
                channel[q].key * row->index_step + fc_lookup_element(d, plane[i].key) * d->index_pitch;
            for (j = plane[i].first; j < plane[i + 1].first; j++) {
                const ptrdiff_t at = at_d + fc_lookup_element(h, line[j].key) * h->index_pitch;
                for (k = line[j].first; k < line[j + 1].first; k++, n++) {
                    to[n].at = at, to[n].key = nonzeros->tap[k], to[n].source = k;
                    ascending &= n == 0 || !fc_is_after(&to[n - 1], &to[n]);
                }
            }
        }
    if (!ascending)
        fc_sort_nonzeros(nonzeros, n);
    to = nonzeros->sorted;
    for (i = 0; i < n; i = j) {
        for (j = i + 1; j < n && to[j].at == to[i].at; j++)
            ;
        if (j > i + 1)
            nonzeros->groups[groups].begin = i, nonzeros->groups[groups++].end = j, grouped += j - i;
    }
    for (i = 0; i < n; i++)
        nonzeros->at[i] = to[i].at, nonzeros->key[i] = to[i].key;
    if (itemsize == 8)
        for (i = 0; i < n; i++)
            ((double *)nonzeros->ordered)[i] = ((const double *)nonzeros->value)[to[i].source];
    else
        for (i = 0; i < n; i++)
            ((float *)nonzeros->ordered)[i] = ((const float *)nonzeros->value)[to[i].source];
    nonzeros->n_sorted = n, nonzeros->n_groups = groups, nonzeros->n_grouped = grouped;
    nonzeros->visits += n;
}

/* Return the number of image elements that the nonzero weights read in a segment, where the tap with key i reads
 * element element_of_key[i]. Return -1 if the weights that read one image row do not read its elements in ascending
 * order. The elements then have to be sorted before they can be counted. */
static inline ptrdiff_t fc_count_ascending_elements(const fc_nonzeros *nonzeros, const ptrdiff_t *element_of_key)
{
    const ptrdiff_t *key = nonzeros->key;
    ptrdiff_t n = nonzeros->n_sorted, g, k;
    int ascending = 1;
    for (g = 0; g < nonzeros->n_groups; g++) {
        const fc_group group = nonzeros->groups[g];
        ptrdiff_t before = element_of_key[key[group.begin]];
        for (k = group.begin + 1; k < group.end; k++) {
            const ptrdiff_t here = element_of_key[key[k]];
            n -= here == before;
            ascending &= here >= before;
            before = here;
        }
    }
    return ascending ? n : -1;
}

/* Return the number of image elements that the nonzero weights read in a segment, or -1 if these elements have to be
 * sorted before they can be counted. Also return -1 if two weights read the same image row and the segment has no
 * `element_of_key`. Such segments are rare, so sorting their elements takes little time. */
static inline ptrdiff_t fc_count_elements(fc_nonzeros *nonzeros, const fc_span *span)
{
    if (nonzeros->n_groups == 0)
        return nonzeros->n_sorted;
    if (!span->element_of_key)
        return -1;
    nonzeros->visits += nonzeros->n_grouped;
    return fc_count_ascending_elements(nonzeros, span->element_of_key);
}

typedef ptrdiff_t (*fc_list_t)(const void *w, const fc_row *row, void *values, void *columns);
typedef ptrdiff_t (*fc_list_nonzeros_t)(fc_nonzeros *nonzeros, const fc_row *row, void *values, void *columns);
typedef void (*fc_write_mirrored_rows_t)(fc_nonzeros *nonzeros, const fc_row *row, const fc_segment *segment,
                                         ptrdiff_t segments, const ptrdiff_t *element_of_key, const void *indptr,
                                         ptrdiff_t first, void *data, void *indices, void *values, void *columns);
typedef ptrdiff_t (*fc_count_nonzeros_t)(const void *w, const fc_weights *weights);
typedef void (*fc_build_tree_t)(const void *w, const fc_weights *weights, fc_nonzeros *nonzeros);
typedef void (*fc_repeat_t)(const void *values, const void *columns, ptrdiff_t n, void *data, void *indices,
                            ptrdiff_t rows, ptrdiff_t first, ptrdiff_t step);

/* The kernels of one dtype. */
typedef struct {
    fc_list_t list_i32;
    fc_list_t list_i64;
    fc_list_nonzeros_t list_nonzeros_i32;
    fc_list_nonzeros_t list_nonzeros_i64;
    fc_list_nonzeros_t list_ordered_i32;
    fc_list_nonzeros_t list_ordered_i64;
    fc_write_mirrored_rows_t write_mirrored_rows_i32;
    fc_write_mirrored_rows_t write_mirrored_rows_i64;
    fc_count_nonzeros_t count_nonzeros;
    fc_build_tree_t build_tree;
    fc_repeat_t repeat_i32;
    fc_repeat_t repeat_i64;
} fc_toeplitz_kernels;

FC_BASELINE_KERNELS(fc_toeplitz_kernels, fc_toeplitz_for);

#endif /* FASTCONV_TOEPLITZ_H */
