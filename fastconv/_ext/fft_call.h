/* The steps of a call by FFT, and the division of the tiles of all images, channels and filters among threads. This
 * file is included by fft.h. */

static inline ptrdiff_t fc_fft_pieces(ptrdiff_t n, ptrdiff_t block) { return (n + block - 1) / block; }

static inline ptrdiff_t fc_fft_least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Return the map from the positions of a tile to cells. `outer` is the index of the image or the filter, and `inner` is
 * the index of the channel in group t->g. `unit` is the index of the tile among the tiles of all phases of the outputs:
 * phi * t->tiles + tile. */
static fc_fft_view fc_fft_see(const fc_fft_task *t, const fc_fft_array *array, ptrdiff_t outer, ptrdiff_t inner,
                              ptrdiff_t tau, ptrdiff_t unit)
{
    fc_fft_view view;
    ptrdiff_t tile = unit % t->tiles, phi = unit / t->tiles, axis;
    view.at = array->at + (outer * array->outer + t->g * array->group + inner * array->inner) * t->itemsize;
    view.itemsize = t->itemsize;
    for (axis = 2; axis >= 0; axis--) {
        fc_fft_line *line = &view.lines[axis];
        line->size = array->size[axis];
        line->pitch = array->pitch[axis];
        line->step = array->step[axis];
        line->count = array->count[axis];
        line->border = array->border[axis];
        line->begin = array->origin[axis] + phi % t->phi[axis] * array->of_phi[axis] +
                      tau % t->tau[axis] * array->of_tau[axis];
        if (array->tiled) {
            const ptrdiff_t at = tile % t->tiles_of[axis] * t->tile[axis];
            line->begin += at * line->step;
            /* Exclude positions past the end of the axis, where a circular border would repeat cells of the first
             * tile. */
            line->count = fc_fft_least(line->count, array->whole[axis] - at);
        }
        tile /= t->tiles_of[axis];
        phi /= t->phi[axis];
        tau /= t->tau[axis];
    }
    return view;
}

static inline ptrdiff_t fc_fft_pairs(const fc_fft_task *t) { return (t->phis * t->tiles + 1) / 2; }

/* Set the views of both tiles of a pair, and return the index of the image. `pair` is the index of the pair among the
 * pairs of all images. If the pair has only one tile, views[1].at is set to NULL. */
static ptrdiff_t fc_fft_see_pair(const fc_fft_task *t, fc_fft_view *views, const fc_fft_array *array, ptrdiff_t pair,
                                 ptrdiff_t inner, ptrdiff_t tau)
{
    const ptrdiff_t pairs = fc_fft_pairs(t), image = pair / pairs, unit = pair % pairs * 2;
    views[0] = fc_fft_see(t, array, image, inner, tau, unit);
    views[1] = views[0];
    views[1].at = NULL;
    if (unit + 1 < t->phis * t->tiles)
        views[1] = fc_fft_see(t, array, image, inner, tau, unit + 1);
    return image;
}

static inline void fc_fft_see_weights(const fc_fft_task *t, fc_fft_view *views, ptrdiff_t row, ptrdiff_t column)
{
    const ptrdiff_t filter = t->back ? column : row, channel = t->back ? row : column;
    views[0] = fc_fft_see(t, &t->weights, filter, channel / t->taus, channel % t->taus, 0);
    views[1] = views[0];
    views[1].at = NULL;
}

static inline char *fc_fft_slot(const fc_fft_task *t, ptrdiff_t slot)
{
    return t->space + slot * t->slot_pitch * t->itemsize;
}

/* Return the number of work items of the parts FC_FFT_OUTER and FC_FFT_RESULT. fc_fft_inner_items returns the number
 * for the other parts. */
static inline ptrdiff_t fc_fft_outer_items(const fc_fft_task *t)
{
    return fc_fft_pieces(t->axes[2].length, t->lanes) * (t->axes[0].length > 1 ? t->axes[1].length : 1);
}

static inline ptrdiff_t fc_fft_inner_items(const fc_fft_task *t)
{
    return t->axes[0].length > 1 ? t->axes[0].length : fc_fft_pieces(t->axes[1].length, t->lanes);
}

/* Return the number of positions of one work item. An item is a strip, or a plane of a volume. */
static inline ptrdiff_t fc_fft_item_cells(const fc_fft_task *t, int part)
{
    const int deep = t->axes[0].length > 1;
    if (part == FC_FFT_OUTER || part == FC_FFT_RESULT)
        return t->lanes * t->axes[deep ? 0 : 1].length;
    return t->axes[2].length * (deep ? t->axes[1].length : t->lanes);
}

/* The number of positions (elements of tiles) that a thread transforms between two checks for signals. */
enum { FC_FFT_LOOK = 1 << 16 };

/* Process all work items of a part in this thread. */
static void fc_fft_all(const fc_fft_task *t, const fc_fft_job *job, int part, char *strip)
{
    const ptrdiff_t items =
        part == FC_FFT_OUTER || part == FC_FFT_RESULT ? fc_fft_outer_items(t) : fc_fft_inner_items(t);
    const ptrdiff_t every = 1 + FC_FFT_LOOK / fc_fft_item_cells(t, part);
    ptrdiff_t item;
    for (item = 0; item < items; item++) {
        if (item % every == 0 && fc_stopped(t->queue))
            return;
        t->part(t, job, part, item, strip);
    }
}

/* Set the views of the results of a pair of tiles, and the bias, for row `row` of the weight matrix. */
static void fc_fft_see_results(const fc_fft_task *t, fc_fft_job *job, ptrdiff_t pair, ptrdiff_t row)
{
    const ptrdiff_t inner = t->back ? row / t->taus : row, tau = t->back ? row % t->taus : 0;
    const ptrdiff_t image = fc_fft_see_pair(t, job->to, &t->result, pair, inner, tau);
    job->count = t->counts + image;
    job->bias = t->bias == NULL ? NULL : t->bias + (t->g * (t->back ? t->rows / t->taus : t->rows) + inner) * t->itemsize;
}

static void fc_fft_see_sources(const fc_fft_task *t, fc_fft_job *job, ptrdiff_t pair, ptrdiff_t column)
{
    const int phases = !t->back;
    fc_fft_see_pair(t, job->from, &t->source, pair, phases ? column / t->taus : column, phases ? column % t->taus : 0);
}

/* Prepare the transforms of a pair of tiles of x and of the same pair of dout, for groups of one channel and one
 * filter. The tiles of x are transformed in the workspace at `tiles`. The tiles of dout are transformed in the
 * workspace after it. */
static void fc_fft_see_gradient(const fc_fft_task *t, fc_fft_job *of_x, fc_fft_job *of_dout, ptrdiff_t pair, char *tiles)
{
    const ptrdiff_t columns = fc_fft_pieces(t->axes[2].length, t->lanes);
    const ptrdiff_t rows = t->axes[0].length * t->axes[1].length * columns + 1;
    const int deep = t->axes[0].length > 1;
    memset(of_x, 0, sizeof *of_x);
    memset(of_dout, 0, sizeof *of_dout);
    of_x->spectrum = of_x->volume = tiles;
    of_dout->spectrum = tiles + (deep ? rows * 2 * t->lanes : t->pitch) * t->itemsize;
    of_x->other = of_x->other_volume = of_dout->volume = of_dout->spectrum;
    fc_fft_see_sources(t, of_x, pair, 0);
    fc_fft_see_pair(t, of_dout->from, &t->result, pair, 0, 0);
}

/* Compute partial sum `part` of the gradient of group t->g in this thread. The products of x and dout are summed over a
 * part of the pairs of tiles. */
static void fc_fft_sum_part(const fc_fft_task *t, ptrdiff_t part, char *strip, char *sum)
{
    const ptrdiff_t pairs = fc_fft_pairs(t) * t->images, begin = part * pairs / t->parts;
    const ptrdiff_t end = (part + 1) * pairs / t->parts, at = t->axes[0].length > 1 ? t->volume_at : t->flat_at;
    fc_fft_job of_x, of_dout;
    ptrdiff_t pair;
    for (pair = begin; pair < end && !fc_stopped(t->queue); pair++) {
        fc_fft_see_gradient(t, &of_x, &of_dout, pair, strip + at * t->itemsize);
        of_x.sum = sum;
        of_x.first = pair == begin;
        fc_fft_all(t, &of_dout, FC_FFT_OUTER, strip);
        fc_fft_all(t, &of_x, FC_FFT_OUTER, strip);
        fc_fft_all(t, &of_x, FC_FFT_SUM, strip);
    }
}

static void fc_fft_item(fc_fft_task *shared, ptrdiff_t item, ptrdiff_t slot)
{
    fc_fft_task *t = shared;
    const ptrdiff_t bytes = t->itemsize, spectrum = t->pitch * bytes;
    char *strip = fc_fft_slot(t, slot);
    fc_fft_job job;
    if (t->step == FC_FFT_SHARED) {
        t->part(t, &t->job, t->now, item, strip);
        return;
    }
    if (t->step == FC_FFT_MULTIPLY) {
        const ptrdiff_t rows = t->pitch / (2 * t->lanes);
        t->multiply(&t->product, item * rows / t->total, (item + 1) * rows / t->total);
        return;
    }
    if (t->step == FC_FFT_ADD) {
        const ptrdiff_t rows = t->pitch / (2 * t->lanes), begin = item * rows / t->total;
        const ptrdiff_t end = (item + 1) * rows / t->total, at = begin * 2 * t->lanes * bytes;
        ptrdiff_t part;
        for (part = 1; part < t->parts; part++)
            t->add(t->of_result + at, t->of_result + part * spectrum + at, end - begin);
        return;
    }
    memset(&job, 0, sizeof job);
    job.volume = strip + t->volume_at * bytes;
    switch (t->step) {
    case FC_FFT_WEIGHTS:
        job.spectrum = t->of_weights + item * spectrum;
        if (t->fused) {
            fc_fft_task own = *t;
            own.g = t->g + item;
            fc_fft_see_weights(&own, job.from, 0, 0);
            break;
        }
        fc_fft_see_weights(t, job.from, t->row + item / t->n_columns, t->column + item % t->n_columns);
        break;
    case FC_FFT_SOURCES:
        job.spectrum = t->of_source + item * spectrum;
        fc_fft_see_sources(t, &job, t->pair + item / t->n_columns, t->column + item % t->n_columns);
        break;
    case FC_FFT_GRADIENTS:
        job.spectrum = t->of_weights + item * spectrum;
        fc_fft_see_pair(t, job.from, &t->result, t->pair + item / t->n_rows, t->row + item % t->n_rows, 0);
        break;
    case FC_FFT_RESULTS:
        job.spectrum = t->of_result + item * spectrum;
        if (t->gradient) {
            fc_fft_see_weights(t, job.to, t->row + item / t->n_columns, t->column + item % t->n_columns);
            job.count = t->counts;
        } else {
            fc_fft_see_results(t, &job, t->pair + item / t->n_rows, t->row + item % t->n_rows);
        }
        fc_fft_all(t, &job, FC_FFT_INVERSE, strip);
        fc_fft_all(t, &job, FC_FFT_RESULT, strip);
        return;
    case FC_FFT_PARTS: {
        /* If there are several partial sums, a work item is one partial sum of a group. Otherwise, a work item is a
         * whole group. */
        fc_fft_task own = *t;
        if (t->parts > 1) {
            fc_fft_sum_part(t, item, strip, t->of_result + item * spectrum);
            return;
        }
        own.g = item;
        job.spectrum = t->of_result + slot * spectrum;
        fc_fft_sum_part(&own, 0, strip, (char *)job.spectrum);
        fc_fft_see_weights(&own, job.to, 0, 0);
        job.count = t->counts;
        fc_fft_all(t, &job, FC_FFT_INVERSE, strip);
        fc_fft_all(t, &job, FC_FFT_RESULT, strip);
        return;
    }
    default: {
        /* A work item is one pair of tiles of one group. The index of the group is set in a copy of the task. */
        const ptrdiff_t each = fc_fft_pairs(t) * t->images;
        fc_fft_task own = *t;
        own.g = t->g + item / each;
        job.spectrum = strip + t->flat_at * bytes;
        job.kernel = t->of_weights + item / each * spectrum;
        fc_fft_see_sources(&own, &job, item % each, 0);
        fc_fft_see_results(&own, &job, item % each, 0);
        fc_fft_all(t, &job, FC_FFT_OUTER, strip);
        fc_fft_all(t, &job, FC_FFT_FUSED, strip);
        fc_fft_all(t, &job, FC_FFT_RESULT, strip);
        return;
    }
    }
    fc_fft_all(t, &job, FC_FFT_OUTER, strip);
    fc_fft_all(t, &job, FC_FFT_FORWARD, strip);
}

static void fc_fft_work(void *task)
{
    fc_fft_task *t = (fc_fft_task *)task;
    fc_worker worker = fc_new_worker(t->queue);
    const ptrdiff_t grain = t->queue->grain;
    ptrdiff_t begin = fc_next_chunk(t->queue, &worker, t->total), item;
    while (begin < t->total) {
        for (item = begin; item < fc_fft_least(begin + grain, t->total) && !fc_stopped(t->queue); item++)
            fc_fft_item(t, item, worker.id);
        begin = fc_next_chunk(t->queue, &worker, t->total);
    }
}

/* Run one step in all threads, and wait until it is finished. Return -1 if a signal handler raised an exception. */
static int fc_fft_do(fc_fft_task *t, int step, ptrdiff_t total)
{
    const ptrdiff_t draws = t->queue->slot ? 8 * (t->queue->helpers_wanted + 1) : 16;
    t->step = step;
    t->total = total;
    t->queue->chunks_taken = t->queue->workers = t->queue->taken_from_end = 0;
    t->queue->grain = total > draws ? total / draws : 1;
    return fc_parallel_for(t->queue, fc_fft_work, t);
}

/* Process one part of the work on the pair of tiles t->job. All threads share this work. */
static int fc_fft_do_part(fc_fft_task *t, int part)
{
    t->now = part;
    return fc_fft_do(t, FC_FFT_SHARED,
                     part == FC_FFT_OUTER || part == FC_FFT_RESULT ? fc_fft_outer_items(t) : fc_fft_inner_items(t));
}

/* Run a call whose groups have one filter and one channel. Compute the spectra of the weights first. Then compute the
 * results of one pair of tiles at a time, while the spectrum of the pair is in the cache. */
static int fc_fft_run_fused(fc_fft_task *t)
{
    const ptrdiff_t bytes = t->itemsize, pairs = fc_fft_pairs(t) * t->images;
    char *const common = t->space + t->shared_at * bytes;
    ptrdiff_t group, n, i;
    t->of_weights = t->space + t->spectra_at * bytes;
    for (group = 0; group < t->groups; group += t->of_groups) {
        n = fc_fft_least(t->of_groups, t->groups - group);
        t->g = group;
        if (n > 1) {
            if (fc_fft_do(t, FC_FFT_WEIGHTS, n) < 0)
                return -1;
        } else {
            memset(&t->job, 0, sizeof t->job);
            t->job.volume = t->shared ? common : fc_fft_slot(t, 0) + t->volume_at * bytes;
            t->job.spectrum = t->of_weights;
            fc_fft_see_weights(t, t->job.from, 0, 0);
            if (fc_fft_do_part(t, FC_FFT_OUTER) < 0 || fc_fft_do_part(t, FC_FFT_FORWARD) < 0)
                return -1;
        }
        if (!t->shared) {
            if (fc_fft_do(t, FC_FFT_WHOLE, n * pairs) < 0)
                return -1;
            continue;
        }
        for (i = 0; i < pairs; i++) {
            memset(&t->job, 0, sizeof t->job);
            t->job.volume = t->job.spectrum = common;
            t->job.kernel = t->of_weights;
            fc_fft_see_sources(t, &t->job, i, 0);
            fc_fft_see_results(t, &t->job, i, 0);
            if (fc_fft_do_part(t, FC_FFT_OUTER) < 0 || fc_fft_do_part(t, FC_FFT_FUSED) < 0 ||
                fc_fft_do_part(t, FC_FFT_RESULT) < 0)
                return -1;
        }
    }
    return 0;
}

/* Multiply the spectra in all threads. A work item is a block of about 8 rows of all spectra, which fits into a
 * cache. */
static int fc_fft_do_multiply(fc_fft_task *t)
{
    const ptrdiff_t rows = t->pitch / (2 * t->lanes);
    return fc_fft_do(t, FC_FFT_MULTIPLY, fc_fft_pieces(rows, 8));
}

/* Run a forward or backward_data call in blocks of rows, pairs of tiles, and columns. The spectra of a block fit into
 * the workspace. The rows of the weight matrix are filters, and the columns are channels; for backward_data, it is the
 * reverse. */
static int fc_fft_run_blocks(fc_fft_task *t)
{
    const ptrdiff_t pairs = fc_fft_pairs(t) * t->images, pitch = t->pitch, bytes = t->itemsize;
    const int whole = t->of_columns >= t->columns, all = whole && t->of_pairs >= pairs;
    fc_fft_product *const m = &t->product;
    memset(m, 0, sizeof *m);
    t->of_weights = t->space + t->spectra_at * bytes;
    t->of_source = t->of_weights + t->of_rows * t->of_columns * pitch * bytes;
    t->of_result = t->of_source + t->of_pairs * t->of_columns * pitch * bytes;
    for (t->g = 0; t->g < t->groups; t->g++)
        for (t->row = 0; t->row < t->rows; t->row += t->of_rows) {
            t->n_rows = fc_fft_least(t->of_rows, t->rows - t->row);
            for (t->pair = 0; t->pair < pairs; t->pair += t->of_pairs) {
                t->n_pairs = fc_fft_least(t->of_pairs, pairs - t->pair);
                for (t->column = 0; t->column < t->columns; t->column += t->of_columns) {
                    t->n_columns = fc_fft_least(t->of_columns, t->columns - t->column);
                    if ((!whole || t->pair == 0) && fc_fft_do(t, FC_FFT_WEIGHTS, t->n_rows * t->n_columns) < 0)
                        return -1;
                    if ((!all || t->row == 0) && fc_fft_do(t, FC_FFT_SOURCES, t->n_pairs * t->n_columns) < 0)
                        return -1;
                    m->x = t->of_source, m->k = t->of_weights, m->out = t->of_result;
                    m->of_x = t->n_pairs, m->of_k = t->n_rows, m->n = t->n_columns;
                    m->x_pitch = m->k_pitch = t->n_columns * pitch;
                    m->x_step = m->k_step = pitch;
                    m->out_x = t->n_rows * pitch, m->out_k = pitch;
                    m->add = t->column > 0;
                    if (fc_fft_do_multiply(t) < 0)
                        return -1;
                }
                if (fc_fft_do(t, FC_FFT_RESULTS, t->n_pairs * t->n_rows) < 0)
                    return -1;
            }
        }
    return 0;
}

/* Run a backward_weights call whose groups have one filter and one channel. The product of each pair of tiles is added
 * to the sum while the pair is in the cache. */
static int fc_fft_run_sums(fc_fft_task *t)
{
    const ptrdiff_t pairs = fc_fft_pairs(t) * t->images;
    ptrdiff_t pair;
    t->of_result = t->space + t->spectra_at * t->itemsize;
    if (!t->shared && t->parts == 1)
        return fc_fft_do(t, FC_FFT_PARTS, t->groups);
    for (t->g = 0; t->g < t->groups; t->g++) {
        if (!t->shared) {
            if (fc_fft_do(t, FC_FFT_PARTS, t->parts) < 0 ||
                fc_fft_do(t, FC_FFT_ADD, fc_fft_inner_items(t)) < 0)
                return -1;
        } else {
            for (pair = 0; pair < pairs; pair++) {
                fc_fft_job of_x, of_dout;
                fc_fft_see_gradient(t, &of_x, &of_dout, pair, t->space + t->shared_at * t->itemsize);
                of_x.sum = t->of_result;
                of_x.first = pair == 0;
                t->job = of_dout;
                if (fc_fft_do_part(t, FC_FFT_OUTER) < 0)
                    return -1;
                t->job = of_x;
                if (fc_fft_do_part(t, FC_FFT_OUTER) < 0 || fc_fft_do_part(t, FC_FFT_SUM) < 0)
                    return -1;
            }
        }
        memset(&t->job, 0, sizeof t->job);
        t->job.spectrum = t->of_result;
        t->job.volume = t->shared ? t->space + t->shared_at * t->itemsize
                                  : fc_fft_slot(t, 0) + t->volume_at * t->itemsize;
        t->job.count = t->counts;
        fc_fft_see_weights(t, t->job.to, 0, 0);
        if (fc_fft_do_part(t, FC_FFT_INVERSE) < 0 || fc_fft_do_part(t, FC_FFT_RESULT) < 0)
            return -1;
    }
    return 0;
}

/* Run a backward_weights call. Products of x and dout are summed over all pairs of tiles. The real part of a product is
 * the sum over both tiles of the pair, because one tile is the real part and the other tile is the imaginary part. */
static int fc_fft_run_gradient(fc_fft_task *t)
{
    const ptrdiff_t pairs = fc_fft_pairs(t) * t->images, pitch = t->pitch, bytes = t->itemsize;
    fc_fft_product *const m = &t->product;
    memset(m, 0, sizeof *m);
    t->of_result = t->space + t->spectra_at * bytes;
    t->of_source = t->of_result + t->of_rows * t->of_columns * pitch * bytes;
    t->of_weights = t->of_source + t->of_pairs * t->of_columns * pitch * bytes;
    for (t->g = 0; t->g < t->groups; t->g++)
        for (t->row = 0; t->row < t->rows; t->row += t->of_rows)
            for (t->column = 0; t->column < t->columns; t->column += t->of_columns) {
                t->n_rows = fc_fft_least(t->of_rows, t->rows - t->row);
                t->n_columns = fc_fft_least(t->of_columns, t->columns - t->column);
                for (t->pair = 0; t->pair < pairs; t->pair += t->of_pairs) {
                    t->n_pairs = fc_fft_least(t->of_pairs, pairs - t->pair);
                    if (fc_fft_do(t, FC_FFT_SOURCES, t->n_pairs * t->n_columns) < 0 ||
                        fc_fft_do(t, FC_FFT_GRADIENTS, t->n_pairs * t->n_rows) < 0)
                        return -1;
                    m->x = t->of_source, m->k = t->of_weights, m->out = t->of_result;
                    m->of_x = t->n_columns, m->of_k = t->n_rows, m->n = t->n_pairs;
                    m->x_pitch = m->k_pitch = pitch;
                    m->x_step = t->n_columns * pitch, m->k_step = t->n_rows * pitch;
                    m->out_x = pitch, m->out_k = t->n_columns * pitch;
                    m->add = t->pair > 0;
                    if (fc_fft_do_multiply(t) < 0)
                        return -1;
                }
                if (fc_fft_do(t, FC_FFT_RESULTS, t->n_rows * t->n_columns) < 0)
                    return -1;
            }
    return 0;
}

static inline int fc_fft_run(fc_fft_task *t)
{
    if (t->gradient)
        return t->fused ? fc_fft_run_sums(t) : fc_fft_run_gradient(t);
    return t->fused ? fc_fft_run_fused(t) : fc_fft_run_blocks(t);
}
