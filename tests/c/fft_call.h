/* A call of fft.h with one image and one filter, for the checks of this folder and for tools/kernel_driver. */
#ifndef FASTCONV_FFT_CALL_H
#define FASTCONV_FFT_CALL_H

#include <math.h>
#include <string.h>

#include "arrays.h"
#include "fft/fft.h"

/* The largest length of a transform. */
enum { MOST = 128 };

/* The arrays of a call, and their sizes along the axes D, H and W. The call computes a correlation of x with w or, if
 * `gradient` is set, the gradient of w. `*_count` is the number of elements of an array. */
typedef struct {
    fc_fft_plan plan;
    fc_fft_task task;
    fc_work_queue queue;
    ptrdiff_t counts[1]; /* the number of work items with a result that is inf or NaN */
    ptrdiff_t taps[3], sizes[3], outs[3];
    ptrdiff_t x_count, w_count, out_count;
    void *factors, *x, *w, *out, *space;
} fft_call;

static inline ptrdiff_t passes_of(const ptrdiff_t *transform) { return transform[0] == 1 ? 0 : 2; }

/* Write the factors of all passes, one after another, and return the end of the factors. */
static inline ptrdiff_t factors_of(int dtype, void *to, ptrdiff_t at, ptrdiff_t n, const ptrdiff_t *radices,
                                   ptrdiff_t passes)
{
    ptrdiff_t i, j, k;
    for (i = 0; i < passes; n /= radices[i++])
        for (j = 0; j < n / radices[i]; j++)
            for (k = 1; k < radices[i]; k++, at += 2) {
                const double angle = -2 * acos(-1.0) * (double)(j * k % n) / (double)n;
                set(dtype, to, at, cos(angle));
                set(dtype, to, at + 1, sin(angle));
            }
    return at;
}

/* Describe the arrays x, w and out of a call. */
static inline void describe_arrays(fft_call *call, const ptrdiff_t *const *of, const ptrdiff_t *tile)
{
    fc_fft_layout *const layouts[3] = {&call->plan.source, &call->plan.weights, &call->plan.result};
    fc_fft_array *const arrays[3] = {&call->task.source, &call->task.weights, &call->task.result};
    ptrdiff_t i, p, q;
    for (i = 0; i < 3; i++) {
        const ptrdiff_t *const sizes_of[3] = {call->sizes, call->taps, call->outs};
        fc_fft_layout *layout = layouts[i];
        layout->tiled = i != 1;
        arrays[i]->at = (char *)(i == 0 ? call->x : i == 1 ? call->w : call->out);
        for (p = 2, q = 1; p >= 0; p--) {
            fc_fft_tile_axis *first = &layout->axes[p].first;
            first->size = sizes_of[i][p];
            first->pitch = q;
            first->step = 1;
            first->count = i == 0 ? of[p][0] : i == 1 ? call->taps[p] : tile[p];
            layout->axes[p].positions = PTRDIFF_MAX;
            q *= sizes_of[i][p];
        }
    }
}

/* Make a call. of[i] has the length of the transform along axis i, and then its radices. The result has two more cells
 * along an axis than a tile, so that there are several tiles. `shared` is as in fc_fft_task. */
static inline void begin_fft_call(fft_call *call, int dtype, int isa, const ptrdiff_t *const *of, int gradient,
                                  int shared)
{
    const ptrdiff_t lanes = fc_isa_lanes(dtype, isa);
    fc_fft_task *task = &call->task;
    fc_fft_plan *plan = &call->plan;
    ptrdiff_t tile[3], at = 0, i, rows, q;
    memset(call, 0, sizeof *call);
    call->taps[0] = of[0][0] > 1 ? 2 : 1, call->taps[1] = of[1][0] / 3, call->taps[2] = of[2][0] / 2;
    call->x_count = call->w_count = call->out_count = 1;
    call->factors = zeros(dtype, 4 * MOST);
    plan->scale = 1;
    for (i = 0; i < 3; i++) {
        plan->axes[i].length = of[i][0];
        plan->axes[i].passes = passes_of(of[i]);
        plan->axes[i].radices = of[i] + 1;
        plan->axes[i].factors = (char *)call->factors + (size_t)at * size_of(dtype);
        at = factors_of(dtype, call->factors, at, of[i][0], of[i] + 1, passes_of(of[i]));
        plan->scale /= (double)of[i][0];
        tile[i] = of[i][0] - call->taps[i] + 1;
        call->outs[i] = of[i][0] > 1 ? tile[i] + 2 : 1;
        call->sizes[i] = call->outs[i] + call->taps[i] - 1;
        call->x_count *= call->sizes[i], call->out_count *= call->outs[i], call->w_count *= call->taps[i];
        plan->tau[i] = plan->phi[i] = 1;
        plan->tile[i] = tile[i];
        plan->tiles_along[i] = fc_fft_ceil_div(call->outs[i], tile[i]);
    }
    call->x = numbers(dtype, call->x_count), call->w = numbers(dtype, call->w_count);
    call->out = numbers(dtype, call->out_count);
    plan->itemsize = (ptrdiff_t)size_of(dtype);
    plan->groups = plan->images = plan->rows = plan->columns = plan->taus = plan->phis = 1;
    plan->tiles = plan->tiles_along[0] * plan->tiles_along[1] * plan->tiles_along[2];
    plan->block_rows = plan->block_columns = plan->block_pairs = plan->block_groups = plan->parts = 1;
    plan->gradient = gradient, plan->shared = shared, plan->fused = 1, plan->lanes = lanes;
    describe_arrays(call, of, tile);
    rows = of[0][0] * fc_fft_ceil_div(of[1][0], lanes) * of[2][0] + 1;
    plan->pitch = rows * 2 * lanes;
    q = (of[0][0] * of[1][0] * fc_fft_ceil_div(of[2][0], lanes) + 1) * 2 * lanes;
    plan->flat_at = (of[0][0] > 1 ? of[0][0] : of[1][0]) * 2 * lanes;
    plan->volume_at = plan->flat_at + 2 * plan->pitch;
    plan->slot_pitch = plan->volume_at + 2 * q;
    plan->shared_at = plan->slot_pitch;
    plan->other_flat_at = plan->flat_at + plan->pitch, plan->other_volume_at = plan->volume_at + q;
    plan->other_shared_at = plan->shared_at + (q > plan->pitch ? q : plan->pitch);
    plan->weight_spectra_at = plan->shared_at + 2 * (q > plan->pitch ? q : plan->pitch);
    plan->source_spectra_at = plan->result_spectra_at = plan->weight_spectra_at;
    plan->threads = 1;
    /* This memory is not aligned to vectors, which no load may require. */
    call->space = zeros(dtype, plan->weight_spectra_at + plan->pitch);
    task->space = (char *)call->space;
    task->counts = call->counts;
    fc_serial_queue(&call->queue);
    task->queue = &call->queue;
    plan->is_volume = of[0][0] > 1;
    plan->kernels = fc_fft_for(dtype, isa);
    task->plan = plan;
    memcpy(task->axes, plan->axes, sizeof task->axes);
}

static inline void end_fft_call(fft_call *call)
{
    free(call->factors), free(call->x), free(call->w), free(call->out), free(call->space);
}

#endif /* FASTCONV_FFT_CALL_H */
