/* The kernels that load, transform, multiply and store tiles, for one dtype and instruction set: see fft.h. */

/* Return the array elements at the positions p to p + FC_VL - 1 of a row of a tile. The result is 0 at positions that
 * have no array element, and at positions from p + lanes on. */
static FC_V FC_N(fc_fft_gather)(const FC_T *row, const fc_fft_tile_axis *tile_axis, ptrdiff_t p, ptrdiff_t lanes)
{
    FC_T some[FC_VL];
    ptrdiff_t i, first;
    const int run = lanes < FC_VL ? 0 : fc_fft_run_at(tile_axis, p, FC_VL, &first);
    if (run > 0)
        return FC_N(fc_load)(row + first);
    if (run < 0)
        for (i = 0; i < FC_VL; i++)
            some[i] = row[first - i];
    else
        for (i = 0; i < FC_VL; i++) {
            const ptrdiff_t cell = i < lanes ? fc_fft_cell(tile_axis, p + i) : -1;
            some[i] = cell < 0 ? 0 : row[cell];
        }
    return FC_N(fc_load)(some);
}

FC_INLINE int FC_N(fc_fft_inside)(const fc_fft_tile_axis *tile_axis, ptrdiff_t p)
{
    const ptrdiff_t cell = tile_axis->begin + p;
    return tile_axis->step == 1 && cell >= 0 && cell + FC_VL <= tile_axis->size && p + FC_VL <= tile_axis->count;
}

/* Load a strip of a tile as the real parts (`part` is 0) or as the imaginary parts (`part` is FC_VL). Return 0 if the
 * whole strip lies outside the array and is filled with zeros, and 1 otherwise. */
static int FC_N(fc_fft_load)(FC_T *strip, int part, ptrdiff_t rows, const fc_fft_view *view,
                             const fc_fft_location *location)
{
    const fc_fft_tile_axis *w_axis = &view->axes[2], *axis = location->axis < 0 ? NULL : &view->axes[location->axis];
    const FC_T *from = fc_fft_base(view, location);
    ptrdiff_t r, p = location->p;
    int has_cells = 0;
    if (from == NULL || (axis != NULL && !fc_fft_has_cell(w_axis, p, FC_VL))) {
        for (r = 0; r < rows; r++)
            FC_N(fc_store)(strip + r * FC_ROW + part, FC_N(fc_broadcast)(0));
        return 0;
    }
    for (r = 0; r < rows; r++, p += location->row_step) {
        const FC_T *row = from;
        FC_V v = FC_N(fc_broadcast)(0);
        if (axis != NULL) {
            const ptrdiff_t cell = fc_fft_cell(axis, r);
            row = cell < 0 ? NULL : from + cell * axis->pitch;
        }
        if (row != NULL) {
            has_cells = 1;
            v = FC_N(fc_fft_inside)(w_axis, p) ? FC_N(fc_load)(row + w_axis->begin + p)
                                               : FC_N(fc_fft_gather)(row, w_axis, p, location->lanes);
        }
        FC_N(fc_store)(strip + r * FC_ROW + part, v);
    }
    return has_cells;
}

/* Store the results v at the positions p to p + FC_VL - 1 of a row of a tile. Nothing is stored at positions that have
 * no array element, and at positions from p + lanes on. Return v with zeros in the lanes that were not stored. */
static FC_V FC_N(fc_fft_scatter)(FC_T *row, const fc_fft_tile_axis *tile_axis, ptrdiff_t p, ptrdiff_t lanes, FC_V v)
{
    FC_T some[FC_VL];
    ptrdiff_t i, first;
    if (lanes >= FC_VL && fc_fft_run_at(tile_axis, p, FC_VL, &first) > 0) {
        FC_N(fc_store)(row + first, v);
        return v;
    }
    FC_N(fc_store)(some, v);
    for (i = 0; i < FC_VL; i++) {
        const ptrdiff_t cell = i < lanes ? fc_fft_cell(tile_axis, p + i) : -1;
        if (cell < 0)
            some[i] = 0;
        else
            row[cell] = some[i];
    }
    return FC_N(fc_load)(some);
}

/* Scale a strip of results, add the bias, and store the results. Return whether all stored results are finite. */
static int FC_N(fc_fft_store_results)(const FC_T *strip, int part, ptrdiff_t rows, const fc_fft_view *view,
                                      const fc_fft_location *location, FC_T scale, const FC_T *bias)
{
    const fc_fft_tile_axis *w_axis = &view->axes[2], *axis = location->axis < 0 ? NULL : &view->axes[location->axis];
    FC_T *to = (FC_T *)fc_fft_base(view, location);
    const FC_V scales = FC_N(fc_broadcast)(scale), biases = FC_N(fc_broadcast)(bias == NULL ? 0 : *bias);
    FC_V not_finite = FC_N(fc_broadcast)(0);
    ptrdiff_t r, p = location->p;
    if (to == NULL || (axis != NULL && !fc_fft_has_cell(w_axis, p, FC_VL)))
        return 1;
    for (r = 0; r < rows; r++, p += location->row_step) {
        FC_T *row = to;
        FC_V v;
        if (axis != NULL) {
            const ptrdiff_t cell = fc_fft_cell(axis, r);
            if (cell < 0)
                continue;
            row = to + cell * axis->pitch;
        }
        v = FC_N(fc_load)(strip + r * FC_ROW + part) * scales + biases;
        if (FC_N(fc_fft_inside)(w_axis, p))
            FC_N(fc_store)(row + w_axis->begin + p, v);
        else
            v = FC_N(fc_fft_scatter)(row, w_axis, p, location->lanes, v);
        not_finite += v * 0;
    }
    return !FC_N(fc_any)(FC_N(fc_is_nan)(not_finite));
}

/* Process a strip of the transposed plane for the part FC_FFT_FORWARD, FC_FFT_FUSED or FC_FFT_INVERSE. FC_FFT_FUSED
 * multiplies by the conjugate of `kernel`, the spectrum of the weights. `twiddles` has the twiddle factors of a signal;
 * for images with more axes it is NULL. */
static void FC_N(fc_fft_process_strip)(const fc_fft_task *t, FC_T *strip, const FC_T *twiddles, const FC_T *kernel,
                                       int part)
{
    const ptrdiff_t width = t->axes[2].length;
    if (part != FC_FFT_INVERSE) {
        if (twiddles != NULL)
            FC_N(fc_fft_scale)(strip, twiddles, width, 0);
        FC_N(fc_fft_forward)(strip, &t->axes[2]);
    }
    if (part == FC_FFT_FUSED)
        FC_N(fc_fft_scale)(strip, kernel, width, 1);
    if (part != FC_FFT_FORWARD) {
        FC_N(fc_fft_inverse)(strip, &t->axes[2]);
        if (twiddles != NULL)
            FC_N(fc_fft_scale)(strip, twiddles, width, 1);
    }
}

/* Transform a strip of x and a strip of dout (d), and add the product of x and the conjugate of d to `sum`. If
 * `overwrite` is set, store the product instead. */
static void FC_N(fc_fft_sum)(const fc_fft_task *t, FC_T *x, FC_T *d, FC_T *sum, const FC_T *twiddles, int overwrite)
{
    const ptrdiff_t width = t->axes[2].length;
    ptrdiff_t i;
    FC_N(fc_fft_process_strip)(t, d, twiddles, NULL, FC_FFT_FORWARD);
    FC_N(fc_fft_process_strip)(t, x, twiddles, NULL, FC_FFT_FORWARD);
    for (i = 0; i < width; i++, x += FC_ROW, d += FC_ROW, sum += FC_ROW) {
        const FC_V xr = FC_N(fc_load)(x), xi = FC_N(fc_load)(x + FC_VL);
        const FC_V dr = FC_N(fc_load)(d), di = FC_N(fc_load)(d + FC_VL);
        FC_V re = xr * dr + xi * di, im = xi * dr - xr * di;
        if (!overwrite) {
            re += FC_N(fc_load)(sum);
            im += FC_N(fc_load)(sum + FC_VL);
        }
        FC_N(fc_store)(sum, re);
        FC_N(fc_store)(sum + FC_VL, im);
    }
}

/* Add `rows` rows of the spectrum `more` to the spectrum `sum`. */
static void FC_N(fc_fft_add)(void *sum_, const void *more_, ptrdiff_t rows)
{
    FC_T *sum = (FC_T *)sum_;
    const FC_T *more = (const FC_T *)more_;
    ptrdiff_t i;
    for (i = 0; i < rows * FC_ROW; i += FC_VL)
        FC_N(fc_store)(sum + i, FC_N(fc_load)(sum + i) + FC_N(fc_load)(more + i));
}

/* Transform a plane of a volume along its columns, and store the transposed result in `flat`. A strip without any array
 * element is filled with zeros, and is not transformed. */
static void FC_N(fc_fft_transform_plane)(const fc_fft_task *t, const fc_fft_view *views, FC_T *plane, FC_T *flat)
{
    const ptrdiff_t height = t->axes[1].length, width = t->axes[2].length;
    ptrdiff_t column;
    for (column = 0; column < width; column += FC_VL, plane += height * FC_ROW) {
        if (views == NULL || fc_fft_has_cell(&views[0].axes[2], column, FC_VL) ||
            (views[1].at != NULL && fc_fft_has_cell(&views[1].axes[2], column, FC_VL)))
            FC_N(fc_fft_forward)(plane, &t->axes[1]);
        FC_N(fc_fft_store_transposed)(plane, height, flat, width, column);
    }
}

/* Process work item `item` of one part of the work on a pair of tiles. `space` is the scratchpad of the thread. */
static void FC_N(fc_fft_part)(const fc_fft_task *t, const fc_fft_job *job, int part, ptrdiff_t item, void *space)
{
    const ptrdiff_t depth = t->axes[0].length, height = t->axes[1].length, width = t->axes[2].length;
    const ptrdiff_t strips = (height + FC_VL - 1) / FC_VL, columns = (width + FC_VL - 1) / FC_VL;
    const ptrdiff_t plane = strips * width * FC_ROW, rows = depth > 1 ? depth : height;
    FC_T *strip = (FC_T *)space, *volume = (FC_T *)job->volume;
    fc_fft_location location;
    ptrdiff_t i;
    if (part == FC_FFT_OUTER || part == FC_FFT_RESULT) {
        const ptrdiff_t column = (depth > 1 ? item / height : item) * FC_VL;
        location.h = depth > 1 ? item % height : 0;
        location.axis = t->plan->is_signal ? -1 : depth > 1 ? 0 : 1;
        location.p = column;
        location.row_step = t->plan->is_signal ? width : 0;
        location.lanes = width - column;
        /* For a volume, the strip has one row in each plane. */
        volume += (column / FC_VL * height + location.h) * FC_ROW;
    }
    if (part == FC_FFT_OUTER) {
        int has_cells = FC_N(fc_fft_load)(strip, 0, rows, &job->from[0], &location);
        has_cells |= FC_N(fc_fft_load)(strip, FC_VL, rows, &job->from[1], &location);
        if (has_cells)
            FC_N(fc_fft_forward)(strip, depth > 1 ? &t->axes[0] : &t->axes[1]);
        if (depth == 1)
            FC_N(fc_fft_store_transposed)(strip, height, (FC_T *)job->spectrum, width, location.p);
        else
            for (i = 0; i < depth; i++) {
                FC_T *to = volume + i * columns * height * FC_ROW;
                FC_N(fc_store)(to, FC_N(fc_load)(strip + i * FC_ROW));
                FC_N(fc_store)(to + FC_VL, FC_N(fc_load)(strip + i * FC_ROW + FC_VL));
            }
    } else if (part == FC_FFT_RESULT) {
        const FC_T scale = (FC_T)t->plan->scale;
        int finite;
        if (depth == 1)
            FC_N(fc_fft_load_transposed)(strip, height, (const FC_T *)job->spectrum, width, location.p);
        else
            for (i = 0; i < depth; i++) {
                const FC_T *from = volume + i * columns * height * FC_ROW;
                FC_N(fc_store)(strip + i * FC_ROW, FC_N(fc_load)(from));
                FC_N(fc_store)(strip + i * FC_ROW + FC_VL, FC_N(fc_load)(from + FC_VL));
            }
        FC_N(fc_fft_inverse)(strip, depth > 1 ? &t->axes[0] : &t->axes[1]);
        finite = FC_N(fc_fft_store_results)(strip, 0, rows, &job->to[0], &location, scale, (const FC_T *)job->bias);
        finite &=
            FC_N(fc_fft_store_results)(strip, FC_VL, rows, &job->to[1], &location, scale, (const FC_T *)job->bias);
        if (!finite)
            fc_fetch_add_ordered(job->count, 1);
    } else if (depth == 1) {
        const FC_T *twiddles = (const FC_T *)t->twiddles, *kernel = (const FC_T *)job->kernel;
        const ptrdiff_t at = item * width * FC_ROW;
        if (part == FC_FFT_SUM) {
            FC_N(fc_fft_sum)(t, (FC_T *)job->spectrum + at, (FC_T *)job->other + at, (FC_T *)job->sum + at,
                             twiddles == NULL ? NULL : twiddles + at, job->overwrite_sum);
            return;
        }
        FC_N(fc_fft_process_strip)(t, (FC_T *)job->spectrum + at, twiddles == NULL ? NULL : twiddles + at,
                                   kernel == NULL ? NULL : kernel + at, part);
    } else {
        FC_T *flat = part == FC_FFT_FUSED ? strip + t->plan->flat_at : (FC_T *)job->spectrum + item * plane;
        const FC_T *kernel = part == FC_FFT_FUSED ? (const FC_T *)job->kernel + item * plane : NULL;
        volume += item * columns * height * FC_ROW;
        if (part == FC_FFT_SUM) {
            FC_T *x_plane = strip + t->plan->flat_at, *other_plane = strip + t->plan->other_flat_at;
            FC_N(fc_fft_transform_plane)(t, job->from, volume, x_plane);
            FC_N(fc_fft_transform_plane)(t, NULL, (FC_T *)job->other_volume + item * columns * height * FC_ROW,
                                         other_plane);
            for (i = 0; i < strips; i++)
                FC_N(fc_fft_sum)(t, x_plane + i * width * FC_ROW, other_plane + i * width * FC_ROW,
                                 (FC_T *)job->sum + item * plane + i * width * FC_ROW, NULL, job->overwrite_sum);
            return;
        }
        if (part != FC_FFT_INVERSE)
            FC_N(fc_fft_transform_plane)(t, job->from, volume, flat);
        for (i = 0; i < strips; i++)
            FC_N(fc_fft_process_strip)(t, flat + i * width * FC_ROW, NULL,
                                       kernel == NULL ? NULL : kernel + i * width * FC_ROW, part);
        if (part != FC_FFT_FORWARD)
            for (i = 0; i < columns; i++) {
                FC_N(fc_fft_load_transposed)(volume + i * height * FC_ROW, height, flat, width, i * FC_VL);
                FC_N(fc_fft_inverse)(volume + i * height * FC_ROW, &t->axes[1]);
            }
    }
}

/* Compute out[a][b] of fc_fft_product for a < n_x and b < n_k, in the rows [begin, end) of the spectra. */
FC_INLINE void FC_N(fc_fft_multiply_tile)(const fc_fft_product *m, const FC_T *x, const FC_T *k, FC_T *out,
                                          ptrdiff_t begin, ptrdiff_t end, const int n_x, const int n_k)
{
    ptrdiff_t p, n;
    int a, b;
    for (p = begin * FC_ROW; p < end * FC_ROW; p += FC_ROW) {
        FC_V re[2][4], im[2][4];
        FC_UNROLL
        for (a = 0; a < n_x; a++)
            FC_UNROLL
        for (b = 0; b < n_k; b++) {
            const FC_T *at = out + a * m->out_x + b * m->out_k + p;
            re[a][b] = m->add ? FC_N(fc_load)(at) : FC_N(fc_broadcast)(0);
            im[a][b] = m->add ? FC_N(fc_load)(at + FC_VL) : FC_N(fc_broadcast)(0);
        }
        for (n = 0; n < m->n; n++) {
            FC_V xr[2], xi[2];
            FC_UNROLL
            for (a = 0; a < n_x; a++) {
                xr[a] = FC_N(fc_load)(x + a * m->x_pitch + n * m->x_step + p);
                xi[a] = FC_N(fc_load)(x + a * m->x_pitch + n * m->x_step + p + FC_VL);
            }
            FC_UNROLL
            for (b = 0; b < n_k; b++) {
                const FC_V kr = FC_N(fc_load)(k + b * m->k_pitch + n * m->k_step + p);
                const FC_V ki = FC_N(fc_load)(k + b * m->k_pitch + n * m->k_step + p + FC_VL);
                FC_UNROLL
                for (a = 0; a < n_x; a++) {
                    re[a][b] += xr[a] * kr;
                    im[a][b] += xi[a] * kr;
                    re[a][b] += xi[a] * ki;
                    im[a][b] -= xr[a] * ki;
                }
            }
        }
        FC_UNROLL
        for (a = 0; a < n_x; a++)
            FC_UNROLL
        for (b = 0; b < n_k; b++) {
            FC_T *at = out + a * m->out_x + b * m->out_k + p;
            FC_N(fc_store)(at, re[a][b]);
            FC_N(fc_store)(at + FC_VL, im[a][b]);
        }
    }
}

#undef FC_FFT_TILE_K
#if FC_REGISTERS >= 32
#define FC_FFT_TILE_K 4
#else
#define FC_FFT_TILE_K 2
#endif

static void FC_N(fc_fft_multiply)(const fc_fft_product *m, ptrdiff_t begin, ptrdiff_t end)
{
    ptrdiff_t a, b;
    for (b = 0; b < m->n_k; b += b + FC_FFT_TILE_K <= m->n_k ? FC_FFT_TILE_K : 1) {
        const int full_tile = b + FC_FFT_TILE_K <= m->n_k;
        for (a = 0; a < m->n_x; a += 2) {
            const FC_T *x = (const FC_T *)m->x + a * m->x_pitch, *k = (const FC_T *)m->k + b * m->k_pitch;
            FC_T *out = (FC_T *)m->out + a * m->out_x + b * m->out_k;
            if (full_tile && a + 2 <= m->n_x)
                FC_N(fc_fft_multiply_tile)(m, x, k, out, begin, end, 2, FC_FFT_TILE_K);
            else if (full_tile)
                FC_N(fc_fft_multiply_tile)(m, x, k, out, begin, end, 1, FC_FFT_TILE_K);
            else if (a + 2 <= m->n_x)
                FC_N(fc_fft_multiply_tile)(m, x, k, out, begin, end, 2, 1);
            else
                FC_N(fc_fft_multiply_tile)(m, x, k, out, begin, end, 1, 1);
        }
    }
}
