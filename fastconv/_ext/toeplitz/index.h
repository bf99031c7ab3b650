/* The functions of toeplitz_template.h that depend on the type of the column indices. */

/* Write the nonzero entries of a matrix row to `values` and `columns`. The columns are relative to the first image
 * element that the row reads. Return the number of entries. */
static ptrdiff_t FC_I_(fc_list)(const void *w_, const fc_row *row, void *values_, void *columns_)
{
    const FC_T *w = (const FC_T *)w_;
    FC_T *values = (FC_T *)values_;
    FC_INDEX *columns = (FC_INDEX *)columns_;
    const fc_span d = row->axis[0], h = row->axis[1], l = row->axis[2];
    ptrdiff_t q, i, j, k, n = 0;
    for (q = 0; q < row->cols; q++, w += row->weight_step)
        for (i = 0; i < d.n; i++)
            for (j = 0; j < h.n; j++) {
                const ptrdiff_t td = d.entry[2 * i + 1], th = h.entry[2 * j + 1];
                const ptrdiff_t at = q * row->index_step + (d.entry[2 * i] - d.entry[0]) * d.index_pitch +
                                     (h.entry[2 * j] - h.entry[0]) * h.index_pitch - l.entry[0];
                if (td < 0 || th < 0) {
                    for (k = 0; k < l.n; k++) {
                        const ptrdiff_t taps[3] = {td, th, l.entry[2 * k + 1]};
                        columns[n] = (FC_INDEX)(at + l.entry[2 * k]);
                        n += FC_N(fc_merge)(w, row, taps, &values[n]);
                    }
                    continue;
                }
                for (k = 0; k < l.n; k++) {
                    const ptrdiff_t tw = l.entry[2 * k + 1];
                    columns[n] = (FC_INDEX)(at + l.entry[2 * k]);
                    if (tw < 0) {
                        const ptrdiff_t taps[3] = {td, th, tw};
                        n += FC_N(fc_merge)(w, row, taps, &values[n]);
                    } else {
                        const FC_T v = w[td * d.weight_pitch + th * h.weight_pitch + tw];
                        values[n] = v;
                        n += v != 0;
                    }
                }
            }
    return n;
}

/* Sort the entries [begin, n) of a list by column, and add up entries with equal columns. Return the new end of the
 * list. */
static ptrdiff_t FC_I_(fc_sort)(const fc_nonzeros *spare, FC_T *values, FC_INDEX *columns, ptrdiff_t begin, ptrdiff_t n)
{
    enum { RUN = 12 };
    FC_INDEX *from = columns + begin, *to = (FC_INDEX *)spare->spare_columns;
    FC_T *from_value = values + begin, *to_value = (FC_T *)spare->spare_values;
    const ptrdiff_t count = n - begin;
    ptrdiff_t i, j, size, n_distinct = begin;
    for (i = 0; i < count; i += RUN) {
        const ptrdiff_t end = i + RUN < count ? i + RUN : count;
        ptrdiff_t next;
        for (next = i + 1; next < end; next++) {
            const FC_INDEX column = from[next];
            const FC_T value = from_value[next];
            for (j = next; j > i && from[j - 1] > column; j--) {
                from[j] = from[j - 1];
                from_value[j] = from_value[j - 1];
            }
            from[j] = column;
            from_value[j] = value;
        }
    }
    for (size = RUN; size < count; size *= 2) {
        FC_INDEX *const swap = from;
        FC_T *const swap_value = from_value;
        for (i = 0; i < count; i += 2 * size) {
            const ptrdiff_t middle = i + size < count ? i + size : count;
            const ptrdiff_t end = i + 2 * size < count ? i + 2 * size : count;
            ptrdiff_t a = i, b = middle, at;
            for (at = i; at < end; at++) {
                const int second = a == middle || (b < end && from[b] < from[a]);
                const ptrdiff_t source = second ? b++ : a++;
                to[at] = from[source];
                to_value[at] = from_value[source];
            }
        }
        from = to, to = swap;
        from_value = to_value, to_value = swap_value;
    }
    for (i = 0; i < count; i = j) {
        double total = (double)from_value[i];
        for (j = i + 1; j < count && from[j] == from[i]; j++)
            total += (double)from_value[j];
        columns[n_distinct] = from[i];
        values[n_distinct++] = (FC_T)total;
    }
    return n_distinct;
}

/* Write the nonzero entries of a matrix row, like fc_list, but read only the nonzero weights. fc_list_tap_lines has
 * listed the tap lines of these weights. */
static ptrdiff_t FC_I_(fc_list_nonzeros)(fc_nonzeros *nonzeros, const fc_row *row, void *values_, void *columns_)
{
    FC_T *values = (FC_T *)values_;
    FC_INDEX *columns = (FC_INDEX *)columns_;
    const fc_tap_line *line = nonzeros->lines, *const last = line + nonzeros->n_lines;
    const ptrdiff_t *tap = nonzeros->tap;
    const FC_T *value = (const FC_T *)nonzeros->value;
    const ptrdiff_t zero = row->axis[2].entry[0];
    fc_key_range ranges[2];
    const int n_ranges = fc_key_ranges(&row->axis[2], ranges);
    ptrdiff_t n = 0;
    int c;
    for (; line < last; line++)
        for (c = 0; c < n_ranges; c++) {
            const fc_key_range range = ranges[c];
            const ptrdiff_t at = line->at - zero;
            ptrdiff_t k = fc_first_tap(tap, line->first, line->end, range.low);
            for (; k < line->end && tap[k] < range.high; k++, n++) {
                columns[n] = (FC_INDEX)(at + range.offset[2 * (tap[k] - range.low)]);
                values[n] = value[k];
            }
        }
    nonzeros->visits += n;
    return n;
}

/* Write the matrix entries of the `count` nonzero weights from index k on. No two entries may have the same column. */
FC_INLINE void FC_I_(fc_write_entries)(const fc_nonzeros *from, const ptrdiff_t *element_of_key, ptrdiff_t first,
                                       ptrdiff_t k, FC_T *values, FC_INDEX *columns, const int count)
{
    int i;
    memcpy(values, (const FC_T *)from->ordered + k, (size_t)count * sizeof(FC_T));
    FC_UNROLL
    for (i = 0; i < count; i++)
        columns[i] = (FC_INDEX)(first + from->at[k + i] + element_of_key[from->key[k + i]]);
}

/* Write the entries of the nonzero weights [begin, end). No two entries may have the same column. */
FC_INLINE void FC_I_(fc_write_distinct)(const fc_nonzeros *from, const ptrdiff_t *element_of_key, ptrdiff_t first,
                                        ptrdiff_t begin, ptrdiff_t end, FC_T *values, FC_INDEX *columns)
{
    const ptrdiff_t n = end - begin;
    ptrdiff_t k = 0;
#define FC_WRITE_ENTRIES(at, count) \
    FC_I_(fc_write_entries)(from, element_of_key, first, begin + (at), values + (at), columns + (at), count)
    for (; n - k >= 8; k += 8)
        FC_WRITE_ENTRIES(k, 8);
    if (k == n)
        return;
    /* The last chunk overlaps the chunk before it. */
    if (n >= 8) {
        FC_WRITE_ENTRIES(n - 8, 8);
    } else if (n >= 4) {
        FC_WRITE_ENTRIES(0, 4);
        FC_WRITE_ENTRIES(n - 4, 4);
    } else {
        for (; k < n; k++)
            FC_WRITE_ENTRIES(k, 1);
    }
#undef FC_WRITE_ENTRIES
}

/* Write the entries of a group of nonzero weights that read the same image row. Weights that read the same element are
 * added up to one entry. The group must read the elements in ascending order. Return the number of entries. */
FC_INLINE ptrdiff_t FC_I_(fc_write_merged)(const fc_nonzeros *from, const ptrdiff_t *element_of_key, ptrdiff_t first,
                                           fc_group group, FC_T *values, FC_INDEX *columns)
{
    ptrdiff_t k, n = 0, before = -1;
    double total = 0;
    for (k = group.begin; k < group.end; k++) {
        const ptrdiff_t here = element_of_key[from->key[k]];
        const double value = (double)((const FC_T *)from->ordered)[k];
        total = here == before ? total + value : value;
        n += here != before;
        before = here;
        columns[n - 1] = (FC_INDEX)(first + from->at[k] + here);
        values[n - 1] = (FC_T)total;
    }
    return n;
}

/* Write the nonzero entries of a matrix row, like fc_list, but read only the nonzero weights, in the order in which
 * fc_order_nonzeros has sorted them. */
static ptrdiff_t FC_I_(fc_list_ordered)(fc_nonzeros *nonzeros, const fc_row *row, void *values_, void *columns_)
{
    FC_T *values = (FC_T *)values_;
    FC_INDEX *columns = (FC_INDEX *)columns_;
    const fc_span span = row->axis[2];
    const ptrdiff_t *line_at = nonzeros->at, *key = nonzeros->key;
    const FC_T *ordered = (const FC_T *)nonzeros->ordered;
    ptrdiff_t g, k = 0, n = 0;
    nonzeros->visits += nonzeros->n_sorted;
    for (g = 0; g <= nonzeros->n_groups; g++) {
        const int last = g == nonzeros->n_groups;
        const ptrdiff_t begin = last ? nonzeros->n_sorted : nonzeros->groups[g].begin, start = n + begin - k;
        ptrdiff_t before = -1;
        int ascending = 1;
        for (; k < begin; k++, n++) {
            columns[n] = (FC_INDEX)(line_at[k] + fc_lookup_element(&span, key[k]));
            values[n] = ordered[k];
        }
        if (last)
            break;
        for (; k < nonzeros->groups[g].end; k++, n++) {
            const ptrdiff_t here = fc_lookup_element(&span, key[k]);
            ascending &= here > before;
            before = here;
            columns[n] = (FC_INDEX)(line_at[k] + here);
            values[n] = ordered[k];
        }
        if (!ascending)
            n = FC_I_(fc_sort)(nonzeros, values, columns, start, n);
    }
    return n;
}

/* Write the matrix rows of `segments` positions in one row of outputs. Each of these positions is a segment of its own,
 * because its padding makes it read image elements in another order, or an element twice. `indptr` has the starts of
 * the matrix rows of this row of outputs. `first` is the column of the first image element of the image row. `values`
 * and `columns` are a workspace for the entries of one matrix row. */
static void FC_I_(fc_write_mirrored_rows)(fc_nonzeros *nonzeros, const fc_row *row, const fc_segment *segment,
                                          ptrdiff_t segments, const ptrdiff_t *element_of_key, const void *indptr_,
                                          ptrdiff_t first, void *data_, void *indices_, void *values_, void *columns_)
{
    const FC_INDEX *indptr = (const FC_INDEX *)indptr_;
    /* Use a local copy, because the compiler then knows that no store changes it. */
    const fc_nonzeros from = *nonzeros;
    const ptrdiff_t count = from.n_sorted, groups = from.n_groups;
    ptrdiff_t i, j, g, k;
    fc_row here = *row;
    for (i = 0; i < segments; i++) {
        const ptrdiff_t start = indptr[segment[i].start];
        const ptrdiff_t at = first + segment[i].base, *elements = element_of_key + ~segment[i].key;
        FC_T *data = (FC_T *)data_ + start;
        FC_INDEX *indices = (FC_INDEX *)indices_ + start;
        const ptrdiff_t n = groups ? fc_count_ascending_elements(&from, elements) : count;
        if (n == count) {
            fc_check(indptr[segment[i].start + 1] == start + n);
            FC_I_(fc_write_distinct)(&from, elements, at, 0, count, data, indices);
        } else if (n >= 0) {
            for (g = k = 0; g < groups; g++) {
                const fc_group group = from.groups[g];
                FC_I_(fc_write_distinct)(&from, elements, at, k, group.begin, data, indices);
                data += group.begin - k, indices += group.begin - k;
                j = FC_I_(fc_write_merged)(&from, elements, at, group, data, indices);
                data += j, indices += j, k = group.end;
            }
            fc_check(data + count - k == (FC_T *)data_ + indptr[segment[i].start + 1]);
            FC_I_(fc_write_distinct)(&from, elements, at, k, count, data, indices);
        } else {
            const FC_INDEX *columns = (const FC_INDEX *)columns_;
            ptrdiff_t found;
            here.axis[2].element_of_key = elements;
            found = FC_I_(fc_list_ordered)(nonzeros, &here, values_, columns_);
            fc_check(indptr[segment[i].start + 1] == start + found);
            nonzeros->visits -= count;
            for (j = 0; j < found; j++)
                indices[j] = (FC_INDEX)(columns[j] + at);
            memcpy(data, values_, (size_t)found * sizeof(FC_T));
        }
    }
    nonzeros->visits += segments * (count + from.n_grouped);
}

/* Copy `count` entries to a matrix row, and add `base` to their columns. */
FC_INLINE void FC_I_(fc_write_chunk)(const FC_T *values, const FC_UNSIGNED *columns, FC_UNSIGNED base, FC_T *data,
                                     FC_UNSIGNED *indices, const int count)
{
    int i;
    memcpy(data, values, (size_t)count * sizeof(FC_T));
    FC_UNROLL
    for (i = 0; i < count; i++)
        indices[i] = columns[i] + base;
}

/* Write `rows` contiguous matrix rows of n entries each. All rows have the same values. The columns of row i are
 * `columns` plus first + i * step. */
static void FC_I_(fc_repeat)(const void *values_, const void *columns_, ptrdiff_t n, void *data_, void *indices_,
                             ptrdiff_t rows, ptrdiff_t first, ptrdiff_t step)
{
    const FC_T *values = (const FC_T *)values_;
    const FC_UNSIGNED *columns = (const FC_UNSIGNED *)columns_;
    FC_T *data = (FC_T *)data_, *const end = data + rows * n;
    FC_UNSIGNED *indices = (FC_UNSIGNED *)indices_, base = (FC_UNSIGNED)first;
    ptrdiff_t j, left;
#define FC_WRITE(at, count) \
    FC_I_(fc_write_chunk)(values + (at), columns + (at), base, data + (at), indices + (at), count)
    for (; data < end; data += n, indices += n, base += (FC_UNSIGNED)step) {
        /* The last chunk of a row may overwrite the start of the next row, which is written later. In the last row, no
         * chunk may pass the end. */
        for (j = 0; j < n && end - data - j >= FC_CHUNK; j += FC_CHUNK)
            FC_WRITE(j, FC_CHUNK);
        left = n - j;
        if (left <= 0)
            continue;
        /* In the last row, the last chunk overlaps the previous chunk. If a row is shorter than a chunk, smaller chunks
         * are copied. */
        if (n >= FC_CHUNK) {
            FC_WRITE(n - FC_CHUNK, FC_CHUNK);
        } else if (n >= 8) {
            FC_WRITE(0, 8);
            FC_WRITE(n - 8, 8);
        } else if (n >= 4) {
            FC_WRITE(0, 4);
            FC_WRITE(n - 4, 4);
        } else {
            for (; j < n; j++)
                FC_WRITE(j, 1);
        }
    }
#undef FC_WRITE
}
