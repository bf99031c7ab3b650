/* The kernels of separable.h for one dtype and instruction set. */

/* A tile of sums in registers has FC_SUM_ROWS rows of FC_SUM_VECTORS vectors. A single row of sums is computed in
 * blocks of FC_ROW_VECTORS vectors. */
#undef FC_SUM_ROWS
#undef FC_SUM_VECTORS
#undef FC_ROW_VECTORS
#define FC_SUM_ROWS 4
#if FC_REGISTERS >= 32
#define FC_SUM_VECTORS 4
#define FC_ROW_VECTORS 8
#else
#define FC_SUM_VECTORS 2
#define FC_ROW_VECTORS 6
#endif
/* The width of a block of columns, in elements. Each block is summed from top to bottom before the next block. So the
 * source rows that several outputs read stay in the L1 cache. */
#undef FC_COLUMN_BLOCK
#define FC_COLUMN_BLOCK (1024 / FC_BYTES)

/* Add one source row to the rows [begin, end) of a tile. For row r, the source row is multiplied by factors[-r]. */
FC_INLINE void FC_N(fc_add_source_row)(const FC_T *from, const FC_T *factors, FC_V sums[FC_SUM_ROWS][FC_SUM_VECTORS],
                                       const int begin, const int end, const int vectors)
{
    FC_V cells[FC_SUM_VECTORS], factor;
    int r, v;
    FC_UNROLL
    for (v = 0; v < vectors; v++)
        cells[v] = FC_N(fc_load)(from + v * FC_VL);
    FC_UNROLL
    for (r = begin; r < end; r++) {
        FC_BROADCAST(factor, factors[-r]);
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            FC_MULTIPLY_ADD(sums[r][v], cells[v], factor);
    }
}

/* Compute a tile of FC_SUM_ROWS neighbouring rows of sums, which share source rows. There must be at least
 * FC_SUM_ROWS - 1 taps. */
FC_INLINE void FC_N(fc_sum_tile)(const FC_T *from, ptrdiff_t pitch, const FC_T *factors, ptrdiff_t taps, FC_T *to,
                                 ptrdiff_t to_pitch, const int vectors)
{
    FC_V sums[FC_SUM_ROWS][FC_SUM_VECTORS];
    ptrdiff_t i;
    int r, v;
    FC_UNROLL
    for (r = 0; r < FC_SUM_ROWS; r++) {
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            sums[r][v] = FC_N(fc_broadcast)(0);
    }
    FC_UNROLL
    for (r = 0; r < FC_SUM_ROWS - 1; r++) {
        FC_N(fc_add_source_row)(from, factors + r, sums, 0, r + 1, vectors);
        from += pitch;
    }
    for (i = FC_SUM_ROWS - 1; i < taps; i++) {
        FC_N(fc_add_source_row)(from, factors + i, sums, 0, FC_SUM_ROWS, vectors);
        from += pitch;
    }
    FC_UNROLL
    for (r = 1; r < FC_SUM_ROWS; r++) {
        FC_N(fc_add_source_row)(from, factors + taps + r - 1, sums, r, FC_SUM_ROWS, vectors);
        from += pitch;
    }
    FC_UNROLL
    for (r = 0; r < FC_SUM_ROWS; r++) {
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            FC_N(fc_store)(to + r * to_pitch + v * FC_VL, sums[r][v]);
    }
}

/* Compute `vectors` vectors of one row of sums over source rows that are `pitch` elements apart. If `add` is set, the
 * sums are added to `to`. */
FC_INLINE void FC_N(fc_sum_row)(const FC_T *from, ptrdiff_t pitch, const FC_T *factors, ptrdiff_t taps, FC_T *to,
                                int add, const int vectors)
{
    FC_V sums[FC_ROW_VECTORS], factor;
    ptrdiff_t t;
    int v;
    FC_UNROLL
    for (v = 0; v < vectors; v++)
        sums[v] = add ? FC_N(fc_load)(to + v * FC_VL) : FC_N(fc_broadcast)(0);
    for (t = 0; t < taps; t++, from += pitch) {
        factor = FC_N(fc_broadcast)(factors[t]);
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            sums[v] += factor * FC_N(fc_load)(from + v * FC_VL);
    }
    FC_UNROLL
    for (v = 0; v < vectors; v++)
        FC_N(fc_store)(to + v * FC_VL, sums[v]);
}

/* Compute `n` columns of one row of sums. If `add` is set, the sums are added to `to`. */
static void FC_N(fc_sum_columns)(const FC_T *from, ptrdiff_t pitch, const FC_T *factors, ptrdiff_t taps, FC_T *to,
                                 ptrdiff_t n, int add)
{
    ptrdiff_t j = 0, t;
    for (; j + FC_ROW_VECTORS * FC_VL <= n; j += FC_ROW_VECTORS * FC_VL)
        FC_N(fc_sum_row)(from + j, pitch, factors, taps, to + j, add, FC_ROW_VECTORS);
    for (; j + 2 * FC_VL <= n; j += 2 * FC_VL)
        FC_N(fc_sum_row)(from + j, pitch, factors, taps, to + j, add, 2);
    for (; j + FC_VL <= n; j += FC_VL)
        FC_N(fc_sum_row)(from + j, pitch, factors, taps, to + j, add, 1);
    if (j < n && n >= FC_VL && !add) {
        FC_N(fc_sum_row)(from + n - FC_VL, pitch, factors, taps, to + n - FC_VL, 0, 1);
    } else {
        for (; j < n; j++) {
            FC_T sum = add ? to[j] : 0;
            for (t = 0; t < taps; t++)
                sum += factors[t] * from[t * pitch + j];
            to[j] = sum;
        }
    }
}

/* Compute the outputs [begin, begin + count) of one stride phase along D or H. Each output is a row of sums, and the
 * rows are `to_pitch` elements apart. */
static void FC_N(fc_sum_over)(const fc_source_rows *rows, const fc_conv_axis *phase, ptrdiff_t stride, ptrdiff_t begin,
                              ptrdiff_t count, const FC_T *factors, FC_T *to, ptrdiff_t to_pitch)
{
    const FC_T *from = (const FC_T *)rows->from;
    const ptrdiff_t pitch = rows->pitch, taps = phase->taps, n = rows->n;
    const int tiled = stride == 1 && phase->dilation == 1 && taps >= FC_SUM_ROWS - 1 && n >= FC_VL;
    ptrdiff_t column, r, j;
    for (column = 0; column < n; column += FC_COLUMN_BLOCK) {
        const ptrdiff_t width = n - column < FC_COLUMN_BLOCK ? n - column : FC_COLUMN_BLOCK;
        for (r = 0; r < count;) {
            const ptrdiff_t at = (begin + r) * stride - phase->lo;
            const FC_T *source = from + (at - rows->first) * pitch + column;
            FC_T *target = to + r * to_pitch + column;
            if (tiled && count - r >= FC_SUM_ROWS && at >= rows->first && at + taps + FC_SUM_ROWS - 1 <= rows->end) {
                for (j = 0; j + FC_SUM_VECTORS * FC_VL <= width; j += FC_SUM_VECTORS * FC_VL)
                    FC_N(fc_sum_tile)(source + j, pitch, factors, taps, target + j, to_pitch, FC_SUM_VECTORS);
                for (; j < width; j += FC_VL) {
                    /* The last vector overlaps the previous vector. */
                    const ptrdiff_t last = j + FC_VL <= width ? j : width - FC_VL;
                    FC_N(fc_sum_tile)(source + last, pitch, factors, taps, target + last, to_pitch, 1);
                }
                r += FC_SUM_ROWS;
            } else if (rows->border) {
                ptrdiff_t tap = 0, count_inside, cell, distance;
                for (; tap < taps; tap += count_inside) {
                    count_inside = fc_border_run(at + tap * phase->dilation, rows->end, phase->dilation, taps - tap,
                                                 rows->border, &cell, &distance);
                    FC_N(fc_sum_columns)(from + cell * pitch + column, distance * pitch, factors + tap, count_inside,
                                         target, width, tap > 0);
                }
                r++;
            } else {
                ptrdiff_t tap, count_inside;
                fc_taps_inside(phase, at, rows->first, rows->end, &tap, &count_inside);
                FC_N(fc_sum_columns)(count_inside ? source + tap * phase->dilation * pitch : from,
                                     phase->dilation * pitch, factors + tap, count_inside, target, width, 0);
                r++;
            }
        }
    }
}

/* The arguments of the sums along W. Result j of a row is the sum over t < taps of factors[t] times element
 * offset + j * stride + t * dilation of the padded row. If `stride` is not 1, the row is split into stride phases that
 * are `phase_pitch` elements apart. If `add` is set, the sums are added to `to`; otherwise, `bias` is added to them. */
typedef struct {
    const FC_T *from;
    ptrdiff_t pitch, rows, n, taps, dilation, stride, phase_pitch, offset;
    FC_T *to;
    ptrdiff_t to_pitch;
    const FC_T *factors;
    FC_T bias;
    int add;
} FC_N(fc_row_sums);

/* Compute `vectors` vectors of one row. If `left` is less than FC_VL, only `left` results are stored. `plain` means
 * that stride and dilation are 1. Return `not_finite`, in which a lane becomes NaN if one of the results in this lane
 * is inf or NaN. */
FC_INLINE FC_V FC_N(fc_sum_along)(const FC_N(fc_row_sums) *a, const FC_T *from, FC_T *to, FC_V not_finite,
                                  const int vectors, const int plain, const ptrdiff_t left)
{
    FC_V sums[FC_ROW_VECTORS], factor;
    ptrdiff_t t, at = a->offset, phase;
    int v;
    FC_T some[FC_VL];
    if (!a->add) {
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            sums[v] = FC_N(fc_broadcast)(a->bias);
    } else if (left >= FC_VL) {
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            sums[v] = FC_N(fc_load)(to + v * FC_VL);
    } else {
        for (t = 0; t < FC_VL; t++)
            some[t] = t < left ? to[t] : 0;
        sums[0] = FC_N(fc_load)(some);
    }
    if (plain) {
        for (t = 0; t < a->taps; t++) {
            factor = FC_N(fc_broadcast)(a->factors[t]);
            FC_UNROLL
            for (v = 0; v < vectors; v++)
                sums[v] += factor * FC_N(fc_load)(from + at + t + v * FC_VL);
        }
    } else {
        for (t = 0; t < a->taps; t++, at += a->dilation) {
            phase = a->stride == 1 ? at : at % a->stride * a->phase_pitch + at / a->stride;
            factor = FC_N(fc_broadcast)(a->factors[t]);
            FC_UNROLL
            for (v = 0; v < vectors; v++)
                sums[v] += factor * FC_N(fc_load)(from + phase + v * FC_VL);
        }
    }
    FC_UNROLL
    for (v = 0; v < vectors; v++)
        not_finite += sums[v] * FC_N(fc_broadcast)(0);
    if (left >= FC_VL) {
        FC_UNROLL
        for (v = 0; v < vectors; v++)
            FC_N(fc_store)(to + v * FC_VL, sums[v]);
    } else {
        FC_N(fc_store)(some, sums[0]);
        for (t = 0; t < left; t++)
            to[t] = some[t];
    }
    return not_finite;
}

FC_INLINE FC_V FC_N(fc_sum_rows_along)(const FC_N(fc_row_sums) *a, FC_V not_finite, const int plain)
{
    ptrdiff_t row, j;
    for (row = 0; row < a->rows; row++) {
        const FC_T *from = a->from + row * a->pitch;
        FC_T *to = a->to + row * a->to_pitch;
        for (j = 0; j + FC_ROW_VECTORS * FC_VL <= a->n; j += FC_ROW_VECTORS * FC_VL)
            not_finite = FC_N(fc_sum_along)(a, from + j, to + j, not_finite, FC_ROW_VECTORS, plain, FC_VL);
        for (; j + 4 * FC_VL <= a->n; j += 4 * FC_VL)
            not_finite = FC_N(fc_sum_along)(a, from + j, to + j, not_finite, 4, plain, FC_VL);
        for (; j + FC_VL <= a->n; j += FC_VL)
            not_finite = FC_N(fc_sum_along)(a, from + j, to + j, not_finite, 1, plain, FC_VL);
        if (j < a->n)
            not_finite = FC_N(fc_sum_along)(a, from + j, to + j, not_finite, 1, plain, a->n - j);
    }
    return not_finite;
}

/* Split a padded row into stride phases. */
static void FC_N(fc_split)(const FC_T *from, FC_T *to, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t phase_pitch)
{
    ptrdiff_t phase, i;
    for (phase = 0; phase < stride; phase++, to += phase_pitch) {
        const ptrdiff_t count = phase < n ? (n - phase + stride - 1) / stride : 0;
        if (stride == 2)
            for (i = 0; i < count; i++)
                to[i] = from[2 * i + phase];
        else
            for (i = 0; i < count; i++)
                to[i] = from[stride * i + phase];
        for (; i < phase_pitch; i++)
            to[i] = 0;
    }
}

/* Write elements [begin, end) of a padded row, which are padding before or after the image. The image starts at
 * row + pad. */
static void FC_N(fc_fill_border)(FC_T *row, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t pad, ptrdiff_t size,
                                 ptrdiff_t border)
{
    ptrdiff_t cell, distance, i, count;
    for (; begin < end; begin += count) {
        count = fc_border_run(begin - pad, size, 1, end - begin, border, &cell, &distance);
        for (i = 0; i < count; i++)
            row[begin + i] = row[pad + cell + i * distance];
    }
}

/* Sum the padded rows of one block along W, and store the results. Return a vector in which a lane is NaN if a result
 * in that lane is inf or NaN. */
static FC_V FC_N(fc_sum_block_along)(const fc_separable *call, FC_T *space, ptrdiff_t begin, ptrdiff_t rows,
                                     ptrdiff_t width, const FC_T *factors, FC_T bias, int add, FC_T *to,
                                     ptrdiff_t to_pitch, FC_V not_finite)
{
    const fc_phased_axis *w = &call->axes[2];
    FC_T *split = space + call->split_at, *row_results = space + call->row_at;
    ptrdiff_t row, l, i;
    for (l = 0; l < w->phases; l++) {
        const fc_conv_axis *phase = &w->phase[l];
        const ptrdiff_t n = fc_limit(phase->out - begin, 0, w->block);
        FC_T *target = to + phase->output_offset + begin * phase->output_stride;
        FC_N(fc_row_sums) a;
        a.n = n, a.taps = phase->taps, a.dilation = phase->dilation, a.stride = w->stride;
        a.phase_pitch = call->phase_pitch, a.offset = w->pad - phase->lo;
        a.factors = factors + phase->factors, a.bias = bias, a.add = add;
        if (w->stride == 1 && phase->output_stride == 1) {
            a.from = space, a.pitch = call->pitch, a.rows = rows;
            a.to = target, a.to_pitch = to_pitch;
            not_finite = phase->dilation == 1 ? FC_N(fc_sum_rows_along)(&a, not_finite, 1)
                                              : FC_N(fc_sum_rows_along)(&a, not_finite, 0);
            continue;
        }
        for (row = 0; row < rows; row++, target += to_pitch) {
            a.from = space + row * call->pitch, a.pitch = 0, a.rows = 1;
            a.to = phase->output_stride == 1 ? target : row_results, a.to_pitch = 0;
            if (w->stride > 1) {
                FC_N(fc_split)(a.from, split, width, w->stride, call->phase_pitch);
                a.from = split;
            }
            if (phase->output_stride > 1)
                for (i = 0; i < n && add; i++)
                    row_results[i] = target[i * phase->output_stride];
            not_finite = FC_N(fc_sum_rows_along)(&a, not_finite, 0);
            if (phase->output_stride > 1)
                for (i = 0; i < n; i++)
                    target[i * phase->output_stride] = row_results[i];
        }
    }
    return not_finite;
}

/* Return the stride phase of block `index` along an axis. Set *begin and *n so that the block consists of the outputs
 * [begin, begin + n) of the phase. */
static const fc_conv_axis *FC_N(fc_block_at)(const fc_phased_axis *axis, ptrdiff_t index, ptrdiff_t *begin,
                                             ptrdiff_t *n)
{
    const ptrdiff_t blocks = (axis->out + axis->block - 1) / axis->block;
    const fc_conv_axis *phase = &axis->phase[index / blocks];
    *begin = index % blocks * axis->block;
    *n = fc_limit(phase->out - *begin, 0, axis->block);
    return phase;
}

/* Compute one work item of a call. Return whether any result of the item is inf or NaN.
 *
 * An item is one channel of the result, restricted to a block of one stride phase along D, a block of one stride phase
 * along H, and a block of all stride phases along W. Sums along D are stored as planes in the workspace. Sums along H
 * are computed from these planes and stored as padded rows, which are then summed along W. */
static int FC_N(fc_separable_block)(const fc_separable *call, ptrdiff_t item, void *space_)
{
    const fc_phased_axis *d = &call->axes[0], *h = &call->axes[1], *w = &call->axes[2];
    const ptrdiff_t blocks_w = (w->out + w->block - 1) / w->block, blocks_h = fc_blocks(h);
    const ptrdiff_t blocks_d = fc_blocks(d), area = h->size * w->size;
    FC_T *space = (FC_T *)space_, *planes = space + call->planes_at;
    FC_V not_finite = FC_N(fc_broadcast)(0);
    FC_T all[FC_VL];
    ptrdiff_t begin_d, out_d, begin_h, out_h, begin_w, out_w, first, end, first_row, end_row, width, q, r, o, channel;
    int v, any = 0;
    const fc_conv_axis *phase_h = FC_N(fc_block_at)(h, item % blocks_h, &begin_h, &out_h), *phase_d;
    item /= blocks_h;
    begin_w = item % blocks_w * w->block;
    out_w = fc_limit(w->out - begin_w, 0, w->block);
    item /= blocks_w;
    phase_d = FC_N(fc_block_at)(d, item % blocks_d, &begin_d, &out_d);
    item /= blocks_d;
    channel = item % call->channels;
    if (out_d == 0 || out_h == 0 || out_w == 0)
        return 0;
    /* `width` is the number of elements of a padded row. The padded row contains the elements [first, end) of a row of
     * the source. */
    width = (out_w - 1) * w->stride + w->halo + 1;
    first = fc_limit(begin_w * w->stride - w->pad, 0, w->size);
    end = fc_limit(begin_w * w->stride - w->pad + width, first, w->size);
    /* The rows of the source that this block reads. */
    first_row = fc_limit(begin_h * h->stride - phase_h->lo, 0, h->size);
    end_row = fc_limit((begin_h + out_h - 1) * h->stride - phase_h->lo + (phase_h->taps - 1) * phase_h->dilation + 1,
                       first_row, h->size);
    if (call->border)
        first = first_row = 0, end = w->size, end_row = h->size;
    for (q = 0; q < call->sources; q++) {
        const ptrdiff_t image = item / call->channels,
                        filter = call->sources > 1 ? channel * call->sources + q : channel;
        const ptrdiff_t sources = call->channels * call->sources / call->shared;
        const ptrdiff_t source = image * sources + (call->shared > 1 ? channel / call->shared : filter);
        const FC_T *x = (const FC_T *)call->x + source * d->size * area;
        const FC_T *factors = (const FC_T *)call->factors + filter * call->entries;
        const FC_T bias = call->bias != NULL ? ((const FC_T *)call->bias)[channel] : 0;
        /* If the padded row contains no element of the source row, n is 0. */
        const ptrdiff_t before = fc_limit(first - (begin_w * w->stride - w->pad), 0, width), n = end - first;
        const ptrdiff_t plane = (end_row - first_row) * n;
        if (call->queue != NULL && fc_stopped(call->queue))
            return 0;
        if (!call->flat)
            for (r = 0; r < end_row - first_row; r++) {
                fc_source_rows rows = {x + (first_row + r) * w->size + first, area, 0, d->size, n, FC_ZEROS};
                FC_N(fc_sum_over)(&rows, phase_d, d->stride, begin_d, out_d, factors + phase_d->factors, planes + r * n,
                                  plane);
            }
        for (o = 0; o < out_d; o++) {
            fc_source_rows rows = {planes + o * plane, n, first_row, end_row, n, call->border};
            FC_T *to = (FC_T *)call->result + (((image * call->channels + channel) * d->output_size +
                                                phase_d->output_offset + (begin_d + o) * phase_d->output_stride) *
                                                   h->output_size +
                                               phase_h->output_offset + begin_h * phase_h->output_stride) *
                                                  w->output_size;
            if (call->flat) {
                rows.from = x + first_row * w->size + first;
                rows.pitch = w->size;
            }
            for (r = 0; r < out_h; r++) {
                FC_T *row = space + r * call->pitch;
                ptrdiff_t j;
                for (j = 0; j < before; j++)
                    row[j] = 0;
                for (j = before + n; j < call->pitch; j++)
                    row[j] = 0;
            }
            FC_N(fc_sum_over)(&rows, phase_h, h->stride, begin_h, out_h, factors + phase_h->factors, space + before,
                              call->pitch);
            for (r = 0; r < out_h && call->border; r++) {
                FC_N(fc_fill_border)(space + r * call->pitch, 0, before, before, n, call->border);
                FC_N(fc_fill_border)(space + r * call->pitch, before + n, width, before, n, call->border);
            }
            not_finite = FC_N(fc_sum_block_along)(call, space, begin_w, out_h, width, factors, bias, q > 0, to,
                                                  phase_h->output_stride * w->output_size, not_finite);
        }
    }
    FC_N(fc_store)(all, not_finite);
    for (v = 0; v < FC_VL; v++)
        any |= all[v] != all[v];
    return any;
}

const fc_separable_kernels FC_N(fc_separable_kernels) = {
    .block = FC_N(fc_separable_block),
};
