/* The steps of a convolution by FFT, and their division among threads. This file is included by fft.h. */

static inline ptrdiff_t fc_fft_ceil_div(ptrdiff_t n, ptrdiff_t block) { return (n + block - 1) / block; }

static inline ptrdiff_t fc_fft_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Return the map from the positions of a tile to array elements. `outer` is the index of the image or the filter, and
 * `inner` is the index of the channel in group t->g. `unit` is the index of the tile among the tiles of all phases of
 * the outputs: phi * p->tiles + tile. */
static fc_fft_view fc_fft_make_view(const fc_fft_task *t, const fc_fft_array *array, ptrdiff_t outer, ptrdiff_t inner,
                                    ptrdiff_t tau, ptrdiff_t unit)
{
    const fc_fft_plan *const p = t->plan;
    const fc_fft_layout *const layout = array->layout;
    fc_fft_view view;
    ptrdiff_t tile = unit % p->tiles, phi = unit / p->tiles, i;
    view.at = array->at + (outer * layout->outer + t->g * layout->group + inner * layout->inner) * p->itemsize;
    view.itemsize = p->itemsize;
    for (i = 2; i >= 0; i--) {
        const fc_fft_array_axis *axis = &layout->axes[i];
        fc_fft_tile_axis *tile_axis = &view.axes[i];
        *tile_axis = axis->first;
        tile_axis->begin += phi % p->phi[i] * axis->phi_step + tau % p->tau[i] * axis->tau_step;
        if (layout->tiled) {
            const ptrdiff_t at = tile % p->tiles_along[i] * p->tile[i];
            tile_axis->begin += at * tile_axis->step;
            /* Exclude positions past the end of the axis. Otherwise, a circular border would repeat elements of the
             * first tile there. */
            tile_axis->count = fc_fft_min(tile_axis->count, axis->positions - at);
        }
        tile /= p->tiles_along[i];
        phi /= p->phi[i];
        tau /= p->tau[i];
    }
    return view;
}

static inline ptrdiff_t fc_fft_pairs(const fc_fft_plan *p) { return (p->phis * p->tiles + 1) / 2; }

/* Set views[0] and views[1] to the maps from the two tiles of a pair to the array, and return the index of the image.
 * `pair` is the index of the pair among the pairs of all images. If the pair has only one tile, views[1].at is set to
 * NULL. */
static ptrdiff_t fc_fft_set_views(const fc_fft_task *t, fc_fft_view *views, const fc_fft_array *array, ptrdiff_t pair,
                                  ptrdiff_t inner, ptrdiff_t tau)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t pairs = fc_fft_pairs(p), image = pair / pairs, unit = pair % pairs * 2;
    views[0] = fc_fft_make_view(t, array, image, inner, tau, unit);
    views[1] = views[0];
    views[1].at = NULL;
    if (unit + 1 < p->phis * p->tiles)
        views[1] = fc_fft_make_view(t, array, image, inner, tau, unit + 1);
    return image;
}

static inline void fc_fft_set_weight_views(const fc_fft_task *t, fc_fft_view *views, ptrdiff_t row, ptrdiff_t column)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t filter = p->backward_data ? column : row, channel = p->backward_data ? row : column;
    views[0] = fc_fft_make_view(t, &t->weights, filter, channel / p->taus, channel % p->taus, 0);
    views[1] = views[0];
    views[1].at = NULL;
}

static inline char *fc_fft_slot(const fc_fft_task *t, ptrdiff_t slot)
{
    fc_check(slot < t->plan->threads);
    return t->space + slot * t->plan->slot_pitch * t->plan->itemsize;
}

/* Return the number of work items of FC_FFT_OUTER and FC_FFT_RESULT. fc_fft_inner_items returns the number for
 * FC_FFT_FORWARD, FC_FFT_FUSED, FC_FFT_INVERSE and FC_FFT_SUM. */
static inline ptrdiff_t fc_fft_outer_items(const fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    return fc_fft_ceil_div(t->axes[2].length, p->lanes) * (p->is_volume ? t->axes[1].length : 1);
}

static inline ptrdiff_t fc_fft_inner_items(const fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    return p->is_volume ? t->axes[0].length : fc_fft_ceil_div(t->axes[1].length, p->lanes);
}

/* Return the number of positions (elements of tiles) of one work item, which is a strip of `lanes` columns or a plane
 * of a volume. */
static inline ptrdiff_t fc_fft_item_cells(const fc_fft_task *t, int part)
{
    const fc_fft_plan *const p = t->plan;
    const int is_volume = p->is_volume;
    if (part == FC_FFT_OUTER || part == FC_FFT_RESULT)
        return p->lanes * t->axes[is_volume ? 0 : 1].length;
    return t->axes[2].length * (is_volume ? t->axes[1].length : p->lanes);
}

/* The number of positions (elements of tiles) that a thread transforms between two checks for Ctrl-C. */
enum { FC_FFT_POLL_POSITIONS = 1 << 16 };

/* Process all work items of one part of the work on a pair of tiles (FC_FFT_OUTER, ...) in this thread. */
static void fc_fft_run_items(const fc_fft_task *t, const fc_fft_job *job, int part, char *strip)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t items =
        part == FC_FFT_OUTER || part == FC_FFT_RESULT ? fc_fft_outer_items(t) : fc_fft_inner_items(t);
    const ptrdiff_t every = 1 + FC_FFT_POLL_POSITIONS / fc_fft_item_cells(t, part);
    ptrdiff_t item;
    for (item = 0; item < items; item++) {
        if (item % every == 0 && fc_stopped(t->queue))
            return;
        p->kernels->part(t, job, part, item, strip);
    }
}

/* Set where the results of a pair of tiles are stored, and the bias that is added to them. The results belong to row
 * `row` of the weight matrix (see fc_fft_run_blocks). */
static void fc_fft_set_result_views(const fc_fft_task *t, fc_fft_job *job, ptrdiff_t pair, ptrdiff_t row)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t inner = p->backward_data ? row / p->taus : row, tau = p->backward_data ? row % p->taus : 0;
    const ptrdiff_t image = fc_fft_set_views(t, job->to, &t->result, pair, inner, tau);
    job->count = t->counts + image;
    job->bias = t->bias == NULL
                    ? NULL
                    : t->bias + (t->g * (p->backward_data ? p->rows / p->taus : p->rows) + inner) * p->itemsize;
}

static void fc_fft_set_source_views(const fc_fft_task *t, fc_fft_job *job, ptrdiff_t pair, ptrdiff_t column)
{
    const fc_fft_plan *const p = t->plan;
    const int phases = !p->backward_data;
    fc_fft_set_views(t, job->from, &t->source, pair, phases ? column / p->taus : column, phases ? column % p->taus : 0);
}

/* Prepare the transforms of a pair of tiles of x and of the same pair of dout, for groups of one channel and one
 * filter. The tiles of x are transformed in the workspace at `tiles`, and the tiles of dout at `other_tiles`. */
static void fc_fft_set_gradient_views(const fc_fft_task *t, fc_fft_job *x_job, fc_fft_job *dout_job, ptrdiff_t pair,
                                      char *tiles, char *other_tiles)
{
    memset(x_job, 0, sizeof *x_job);
    memset(dout_job, 0, sizeof *dout_job);
    x_job->spectrum = x_job->volume = tiles;
    dout_job->spectrum = dout_job->volume = x_job->other = x_job->other_volume = other_tiles;
    fc_fft_set_source_views(t, x_job, pair, 0);
    fc_fft_set_views(t, dout_job->from, &t->result, pair, 0, 0);
}

/* Compute partial sum `part` of the gradient of group t->g in this thread: the products of x and dout, summed over a
 * part of the pairs of tiles. */
static void fc_fft_sum_part(const fc_fft_task *t, ptrdiff_t part, char *strip, char *sum)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t pairs = fc_fft_pairs(p) * p->images, begin = part * pairs / p->parts;
    const ptrdiff_t end = (part + 1) * pairs / p->parts;
    char *const tiles = strip + (p->is_volume ? p->volume_at : p->flat_at) * p->itemsize;
    char *const other_tiles = strip + (p->is_volume ? p->other_volume_at : p->other_flat_at) * p->itemsize;
    fc_fft_job x_job, dout_job;
    ptrdiff_t pair;
    for (pair = begin; pair < end && !fc_stopped(t->queue); pair++) {
        fc_fft_set_gradient_views(t, &x_job, &dout_job, pair, tiles, other_tiles);
        x_job.sum = sum;
        x_job.overwrite_sum = pair == begin;
        fc_fft_run_items(t, &dout_job, FC_FFT_OUTER, strip);
        fc_fft_run_items(t, &x_job, FC_FFT_OUTER, strip);
        fc_fft_run_items(t, &x_job, FC_FFT_SUM, strip);
    }
}

static void fc_fft_item(fc_fft_task *shared, ptrdiff_t item, ptrdiff_t slot)
{
    fc_fft_task *t = shared;
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t bytes = p->itemsize, spectrum = p->pitch * bytes;
    char *strip = fc_fft_slot(t, slot);
    fc_fft_job job;
    if (t->step == FC_FFT_SHARED) {
        p->kernels->part(t, &t->job, t->current_part, item, strip);
        return;
    }
    if (t->step == FC_FFT_MULTIPLY) {
        const ptrdiff_t rows = p->pitch / (2 * p->lanes);
        p->kernels->multiply(&t->product, item * rows / t->total, (item + 1) * rows / t->total);
        return;
    }
    if (t->step == FC_FFT_ADD) {
        const ptrdiff_t rows = p->pitch / (2 * p->lanes), begin = item * rows / t->total;
        const ptrdiff_t end = (item + 1) * rows / t->total, at = begin * 2 * p->lanes * bytes;
        ptrdiff_t part;
        for (part = 1; part < p->parts; part++)
            p->kernels->add(t->result_spectra + at, t->result_spectra + part * spectrum + at, end - begin);
        return;
    }
    memset(&job, 0, sizeof job);
    job.volume = strip + p->volume_at * bytes;
    switch (t->step) {
    case FC_FFT_WEIGHTS:
        job.spectrum = t->weight_spectra + item * spectrum;
        if (p->fused) {
            fc_fft_task own = *t;
            own.g = t->g + item;
            fc_fft_set_weight_views(&own, job.from, 0, 0);
            break;
        }
        fc_fft_set_weight_views(t, job.from, t->row + item / t->n_columns, t->column + item % t->n_columns);
        break;
    case FC_FFT_SOURCES:
        job.spectrum = t->source_spectra + item * spectrum;
        fc_fft_set_source_views(t, &job, t->pair + item / t->n_columns, t->column + item % t->n_columns);
        break;
    case FC_FFT_GRADIENTS:
        job.spectrum = t->weight_spectra + item * spectrum;
        fc_fft_set_views(t, job.from, &t->result, t->pair + item / t->n_rows, t->row + item % t->n_rows, 0);
        break;
    case FC_FFT_RESULTS:
        job.spectrum = t->result_spectra + item * spectrum;
        if (p->gradient) {
            fc_fft_set_weight_views(t, job.to, t->row + item / t->n_columns, t->column + item % t->n_columns);
            job.count = t->counts;
        } else {
            fc_fft_set_result_views(t, &job, t->pair + item / t->n_rows, t->row + item % t->n_rows);
        }
        fc_fft_run_items(t, &job, FC_FFT_INVERSE, strip);
        fc_fft_run_items(t, &job, FC_FFT_RESULT, strip);
        return;
    case FC_FFT_PARTS: {
        /* If there are several partial sums, a work item is one partial sum of a group. Otherwise, a work item is a
         * whole group. */
        fc_fft_task own = *t;
        if (p->parts > 1) {
            fc_fft_sum_part(t, item, strip, t->result_spectra + item * spectrum);
            return;
        }
        own.g = item;
        job.spectrum = t->result_spectra + slot * spectrum;
        fc_fft_sum_part(&own, 0, strip, (char *)job.spectrum);
        fc_fft_set_weight_views(&own, job.to, 0, 0);
        job.count = t->counts;
        fc_fft_run_items(t, &job, FC_FFT_INVERSE, strip);
        fc_fft_run_items(t, &job, FC_FFT_RESULT, strip);
        return;
    }
    default: {
        /* A work item is one pair of tiles of one group. The group is set in a copy of the task, because all threads
         * share the task. */
        const ptrdiff_t each = fc_fft_pairs(p) * p->images;
        fc_fft_task own = *t;
        own.g = t->g + item / each;
        job.spectrum = strip + p->flat_at * bytes;
        job.kernel = t->weight_spectra + item / each * spectrum;
        fc_fft_set_source_views(&own, &job, item % each, 0);
        fc_fft_set_result_views(&own, &job, item % each, 0);
        fc_fft_run_items(t, &job, FC_FFT_OUTER, strip);
        fc_fft_run_items(t, &job, FC_FFT_FUSED, strip);
        fc_fft_run_items(t, &job, FC_FFT_RESULT, strip);
        return;
    }
    }
    fc_fft_run_items(t, &job, FC_FFT_OUTER, strip);
    fc_fft_run_items(t, &job, FC_FFT_FORWARD, strip);
}

static void fc_fft_items_worker(void *task)
{
    fc_fft_task *t = (fc_fft_task *)task;
    fc_worker worker = fc_new_worker(t->queue);
    const ptrdiff_t grain = t->queue->grain;
    ptrdiff_t begin = fc_next_chunk(t->queue, &worker, t->total), item;
    while (begin < t->total) {
        for (item = begin; item < fc_fft_min(begin + grain, t->total) && !fc_stopped(t->queue); item++)
            fc_fft_item(t, item, worker.id);
        begin = fc_next_chunk(t->queue, &worker, t->total);
    }
}

/* Run one step in all threads, and wait until it is finished. Return -1 if a signal handler raised an exception. */
static int fc_fft_run_step(fc_fft_task *t, int step, ptrdiff_t total)
{
    const ptrdiff_t draws = t->queue->slot ? 8 * (t->queue->helpers_wanted + 1) : 16;
    t->step = step;
    t->total = total;
    t->queue->chunks_taken = t->queue->workers = t->queue->taken_from_end = 0;
    t->queue->grain = total > draws ? total / draws : 1;
    return fc_parallel_for(t->queue, fc_fft_items_worker, t);
}

/* Process one part of the work on the pair of tiles t->job. All threads share this work. */
static int fc_fft_run_part(fc_fft_task *t, int part)
{
    t->current_part = part;
    return fc_fft_run_step(t, FC_FFT_SHARED,
                           part == FC_FFT_OUTER || part == FC_FFT_RESULT ? fc_fft_outer_items(t)
                                                                         : fc_fft_inner_items(t));
}

/* Run a call whose groups have one filter and one channel. Compute the spectra of the weights first. Then compute the
 * results of one pair of tiles at a time, while the spectrum of the pair is in the cache. */
static int fc_fft_run_fused(fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t bytes = p->itemsize, pairs = fc_fft_pairs(p) * p->images;
    char *const common = t->space + p->shared_at * bytes;
    ptrdiff_t group, n, i;
    for (group = 0; group < p->groups; group += p->block_groups) {
        n = fc_fft_min(p->block_groups, p->groups - group);
        t->g = group;
        if (n > 1) {
            if (fc_fft_run_step(t, FC_FFT_WEIGHTS, n) < 0)
                return -1;
        } else {
            memset(&t->job, 0, sizeof t->job);
            t->job.volume = p->shared ? common : fc_fft_slot(t, 0) + p->volume_at * bytes;
            t->job.spectrum = t->weight_spectra;
            fc_fft_set_weight_views(t, t->job.from, 0, 0);
            if (fc_fft_run_part(t, FC_FFT_OUTER) < 0 || fc_fft_run_part(t, FC_FFT_FORWARD) < 0)
                return -1;
        }
        if (!p->shared) {
            if (fc_fft_run_step(t, FC_FFT_PAIRS, n * pairs) < 0)
                return -1;
            continue;
        }
        for (i = 0; i < pairs; i++) {
            memset(&t->job, 0, sizeof t->job);
            t->job.volume = t->job.spectrum = common;
            t->job.kernel = t->weight_spectra;
            fc_fft_set_source_views(t, &t->job, i, 0);
            fc_fft_set_result_views(t, &t->job, i, 0);
            if (fc_fft_run_part(t, FC_FFT_OUTER) < 0 || fc_fft_run_part(t, FC_FFT_FUSED) < 0 ||
                fc_fft_run_part(t, FC_FFT_RESULT) < 0)
                return -1;
        }
    }
    return 0;
}

/* Multiply the spectra in all threads. A work item is about 8 rows of all spectra, which fit into a cache. */
static int fc_fft_run_multiply(fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t rows = p->pitch / (2 * p->lanes);
    return fc_fft_run_step(t, FC_FFT_MULTIPLY, fc_fft_ceil_div(rows, 8));
}

/* Run a forward or backward_data call. The rows of the weight matrix are filters, and its columns are channels. For
 * backward_data, the rows are channels, and the columns are filters. The call processes blocks of rows, columns and
 * pairs of tiles, so that the spectra of a block fit into the workspace. */
static int fc_fft_run_blocks(fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t pairs = fc_fft_pairs(p) * p->images, pitch = p->pitch;
    const int all_columns = p->block_columns >= p->columns, all_spectra = all_columns && p->block_pairs >= pairs;
    fc_fft_product *const m = &t->product;
    memset(m, 0, sizeof *m);
    for (t->g = 0; t->g < p->groups; t->g++)
        for (t->row = 0; t->row < p->rows; t->row += p->block_rows) {
            t->n_rows = fc_fft_min(p->block_rows, p->rows - t->row);
            for (t->pair = 0; t->pair < pairs; t->pair += p->block_pairs) {
                t->n_pairs = fc_fft_min(p->block_pairs, pairs - t->pair);
                for (t->column = 0; t->column < p->columns; t->column += p->block_columns) {
                    t->n_columns = fc_fft_min(p->block_columns, p->columns - t->column);
                    if ((!all_columns || t->pair == 0) &&
                        fc_fft_run_step(t, FC_FFT_WEIGHTS, t->n_rows * t->n_columns) < 0)
                        return -1;
                    if ((!all_spectra || t->row == 0) &&
                        fc_fft_run_step(t, FC_FFT_SOURCES, t->n_pairs * t->n_columns) < 0)
                        return -1;
                    m->x = t->source_spectra, m->k = t->weight_spectra, m->out = t->result_spectra;
                    m->n_x = t->n_pairs, m->n_k = t->n_rows, m->n = t->n_columns;
                    m->x_pitch = m->k_pitch = t->n_columns * pitch;
                    m->x_step = m->k_step = pitch;
                    m->out_x = t->n_rows * pitch, m->out_k = pitch;
                    m->add = t->column > 0;
                    if (fc_fft_run_multiply(t) < 0)
                        return -1;
                }
                if (fc_fft_run_step(t, FC_FFT_RESULTS, t->n_pairs * t->n_rows) < 0)
                    return -1;
            }
        }
    return 0;
}

/* Run a backward_weights call whose groups have one filter and one channel. The product of each pair of tiles is added
 * to the sum while the pair is in the cache. */
static int fc_fft_run_sums(fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t pairs = fc_fft_pairs(p) * p->images;
    char *const tiles = t->space + p->shared_at * p->itemsize;
    char *const other_tiles = t->space + p->other_shared_at * p->itemsize;
    ptrdiff_t pair;
    if (!p->shared && p->parts == 1)
        return fc_fft_run_step(t, FC_FFT_PARTS, p->groups);
    for (t->g = 0; t->g < p->groups; t->g++) {
        if (!p->shared) {
            if (fc_fft_run_step(t, FC_FFT_PARTS, p->parts) < 0 ||
                fc_fft_run_step(t, FC_FFT_ADD, fc_fft_inner_items(t)) < 0)
                return -1;
        } else {
            for (pair = 0; pair < pairs; pair++) {
                fc_fft_job x_job, dout_job;
                fc_fft_set_gradient_views(t, &x_job, &dout_job, pair, tiles, other_tiles);
                x_job.sum = t->result_spectra;
                x_job.overwrite_sum = pair == 0;
                t->job = dout_job;
                if (fc_fft_run_part(t, FC_FFT_OUTER) < 0)
                    return -1;
                t->job = x_job;
                if (fc_fft_run_part(t, FC_FFT_OUTER) < 0 || fc_fft_run_part(t, FC_FFT_SUM) < 0)
                    return -1;
            }
        }
        memset(&t->job, 0, sizeof t->job);
        t->job.spectrum = t->result_spectra;
        t->job.volume = p->shared ? tiles : fc_fft_slot(t, 0) + p->volume_at * p->itemsize;
        t->job.count = t->counts;
        fc_fft_set_weight_views(t, t->job.to, 0, 0);
        if (fc_fft_run_part(t, FC_FFT_INVERSE) < 0 || fc_fft_run_part(t, FC_FFT_RESULT) < 0)
            return -1;
    }
    return 0;
}

/* Run a backward_weights call. Products of x and dout are summed over all pairs of tiles. The real part of a product is
 * the sum over both tiles of the pair, because one tile is the real part and the other tile is the imaginary part. */
static int fc_fft_run_gradient(fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    const ptrdiff_t pairs = fc_fft_pairs(p) * p->images, pitch = p->pitch;
    fc_fft_product *const m = &t->product;
    memset(m, 0, sizeof *m);
    for (t->g = 0; t->g < p->groups; t->g++)
        for (t->row = 0; t->row < p->rows; t->row += p->block_rows)
            for (t->column = 0; t->column < p->columns; t->column += p->block_columns) {
                t->n_rows = fc_fft_min(p->block_rows, p->rows - t->row);
                t->n_columns = fc_fft_min(p->block_columns, p->columns - t->column);
                for (t->pair = 0; t->pair < pairs; t->pair += p->block_pairs) {
                    t->n_pairs = fc_fft_min(p->block_pairs, pairs - t->pair);
                    if (fc_fft_run_step(t, FC_FFT_SOURCES, t->n_pairs * t->n_columns) < 0 ||
                        fc_fft_run_step(t, FC_FFT_GRADIENTS, t->n_pairs * t->n_rows) < 0)
                        return -1;
                    m->x = t->source_spectra, m->k = t->weight_spectra, m->out = t->result_spectra;
                    m->n_x = t->n_columns, m->n_k = t->n_rows, m->n = t->n_pairs;
                    m->x_pitch = m->k_pitch = pitch;
                    m->x_step = t->n_columns * pitch, m->k_step = t->n_rows * pitch;
                    m->out_x = pitch, m->out_k = t->n_columns * pitch;
                    m->add = t->pair > 0;
                    if (fc_fft_run_multiply(t) < 0)
                        return -1;
                }
                if (fc_fft_run_step(t, FC_FFT_RESULTS, t->n_rows * t->n_columns) < 0)
                    return -1;
            }
    return 0;
}

/* Run a task whose plan, arrays, workspace and queue are set. Return -1 if a signal handler raised an exception. */
static inline int fc_fft_run(fc_fft_task *t)
{
    const fc_fft_plan *const p = t->plan;
    t->source.layout = &p->source, t->weights.layout = &p->weights, t->result.layout = &p->result;
    t->weight_spectra = t->space + p->weight_spectra_at * p->itemsize;
    t->source_spectra = t->space + p->source_spectra_at * p->itemsize;
    t->result_spectra = t->space + p->result_spectra_at * p->itemsize;
    if (p->gradient)
        return p->fused ? fc_fft_run_sums(t) : fc_fft_run_gradient(t);
    return p->fused ? fc_fft_run_fused(t) : fc_fft_run_blocks(t);
}
