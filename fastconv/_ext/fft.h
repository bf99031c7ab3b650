/* Correlation by the FFT of overlap-save tiles, for every instruction set.
 *
 * Two tiles of the same image are transformed together, as the real and imaginary parts of complex numbers. Positions
 * of a tile outside the array are zeros. The weights are real, so the product with their spectrum keeps the two tiles
 * separate. Along an axis that is not contiguous, a transform processes a strip of FC_VL neighbouring columns, one in
 * each lane (fft_template.h). Between the transforms, the plane is transposed in strips of FC_VL rows, so that the
 * contiguous axis can be transformed in the same way. A strip is loaded once for its transform, the product and the
 * inverse transform. A volume is transformed along its depth first, and then plane by plane. A signal is treated as a
 * plane, and between the transforms of its two axes each number is multiplied by a twiddle factor
 * (Cooley and Tukey). */
#ifndef FASTCONV_FFT_H
#define FASTCONV_FFT_H

#include "isa.h"
#include "team.h"

enum { FC_FFT_PASSES = 24, FC_FFT_NEAR = 1 << 15 };

/* The transform along one axis: its length, the radices of its passes, and the twiddle factors of each pass. */
typedef struct {
    ptrdiff_t length, passes;
    const ptrdiff_t *radices;
    const void *factors;
} fc_fft_axis;

enum { FC_FFT_ZEROS, FC_FFT_REFLECT, FC_FFT_REPLICATE, FC_FFT_CIRCULAR };

/* One axis of a tile: for p < count, position p of the tile is cell begin + p * step of an array with `size` cells. */
typedef struct {
    ptrdiff_t size, pitch, step, begin, count, border;
} fc_fft_line;

/* A tile in an array. `at` is NULL if there is no tile. */
typedef struct {
    char *at;
    ptrdiff_t itemsize;
    fc_fft_line lines[3];
} fc_fft_view;

/* The place of a strip in a tile. `down` is the axis of the transform, 0 or 1, or -1 for a signal. The lanes start at
 * position p of the last axis; for a signal, p grows by `turn` with each row. If `down` is 0, h is the position of the
 * strip along axis 1. */
typedef struct {
    ptrdiff_t down, h, p, turn, lanes;
} fc_fft_place;

/* Return the cell that a cell outside the array repeats, or -1. Only a cell more than one period away needs a
 * division. */
static inline ptrdiff_t fc_fft_shown(const fc_fft_line *line, ptrdiff_t cell)
{
    const ptrdiff_t size = line->size, period = line->border == FC_FFT_REFLECT && size > 1 ? 2 * (size - 1) : size;
    switch (line->border) {
    case FC_FFT_REFLECT:
        cell = cell < 0 ? -cell : cell;
        cell = cell < period ? cell : cell % period;
        return cell < size ? cell : period - cell;
    case FC_FFT_REPLICATE:
        return cell < 0 ? 0 : size - 1;
    case FC_FFT_CIRCULAR:
        cell = cell < 0 ? cell + size : cell - size;
        return cell >= 0 && cell < size ? cell : (cell % size + size) % size;
    default:
        return -1;
    }
}

/* Return the cell at a position of a tile, or -1 if there is none. */
static inline ptrdiff_t fc_fft_cell(const fc_fft_line *line, ptrdiff_t p)
{
    const ptrdiff_t cell = line->begin + p * line->step;
    if (p >= line->count)
        return -1;
    return cell >= 0 && cell < line->size ? cell : fc_fft_shown(line, cell);
}

/* Return whether the cells at positions p to p + n - 1 are contiguous: 1 if they ascend from *first, -1 if they
 * descend, else 0. If a mirror changes the direction between them, the distance from the first cell to the last is less
 * than n - 1. A circular border never changes the direction, but may wrap to the cell at which a descending row would
 * end. */
static inline int fc_fft_run_at(const fc_fft_line *line, ptrdiff_t p, ptrdiff_t n, ptrdiff_t *first)
{
    ptrdiff_t ahead;
    if ((line->step != 1 && line->step != -1) || p + n > line->count)
        return 0;
    *first = fc_fft_cell(line, p);
    ahead = fc_fft_cell(line, p + n - 1);
    if (*first < 0 || ahead < 0)
        return 0;
    ahead -= *first;
    if (line->border != FC_FFT_REFLECT && ahead * line->step < 0)
        return 0;
    return ahead == n - 1 ? 1 : ahead == 1 - n ? -1 : 0;
}

/* Return whether at least one of the positions p to p + n - 1 has a cell. */
static inline int fc_fft_meets(const fc_fft_line *line, ptrdiff_t p, ptrdiff_t n)
{
    const ptrdiff_t last = p + n < line->count ? p + n - 1 : line->count - 1;
    const ptrdiff_t a = line->begin + p * line->step, b = line->begin + last * line->step;
    if (last < p)
        return 0;
    return line->border != FC_FFT_ZEROS || ((a < b ? a : b) < line->size && (a < b ? b : a) >= 0);
}

/* Return the first element of the row of a view at a place, or NULL. */
static inline void *fc_fft_base(const fc_fft_view *view, const fc_fft_place *place)
{
    ptrdiff_t axis, at = 0;
    if (view->at == NULL)
        return NULL;
    for (axis = 0; axis < 2; axis++)
        if (axis != place->down) {
            const ptrdiff_t cell = fc_fft_cell(&view->lines[axis], axis == 1 ? place->h : 0);
            if (cell < 0)
                return NULL;
            at += cell * view->lines[axis].pitch;
        }
    return view->at + at * view->itemsize;
}

/* Parts of the work on a tile. FC_FFT_OUTER and FC_FFT_RESULT transform along the outermost axis. The others process
 * each strip of a plane, or each plane of a volume. FC_FFT_FORWARD transforms it and FC_FFT_INVERSE transforms it back.
 * FC_FFT_FUSED does both, and multiplies by `kernel` between. FC_FFT_SUM transforms this tile and `other`, and adds
 * their product to `sum`. */
enum { FC_FFT_OUTER, FC_FFT_FORWARD, FC_FFT_FUSED, FC_FFT_INVERSE, FC_FFT_SUM, FC_FFT_RESULT };

/* A pair of tiles with its source, its result and its workspace. */
typedef struct {
    fc_fft_view from[2], to[2];
    void *spectrum, *volume, *other, *other_volume, *sum;
    const void *kernel, *bias;
    int first; /* Whether this is the first product in `sum`. */
    ptrdiff_t *count; /* The number of results that are not finite. */
} fc_fft_job;

/* out[a][b] (+)= sum over n of x[a][n] * conj(k[b][n]), where each element is a spectrum. Pitches are in elements. */
typedef struct {
    const void *x, *k;
    void *out;
    ptrdiff_t of_x, of_k, n, x_pitch, x_step, k_pitch, k_step, out_x, out_k, add;
} fc_fft_product;

/* The layout of the planes of an array, and the map from positions of tiles and phases to cells: see
 * fastconv.convolution.fft.phase_axes. */
typedef struct {
    char *at;
    ptrdiff_t outer, group, inner, tiled;
    ptrdiff_t size[3], pitch[3], step[3], origin[3], of_phi[3], of_tau[3], count[3], border[3], whole[3];
} fc_fft_array;

/* Steps of a call. In FC_FFT_SHARED all threads work on the same pair; in the other steps each item belongs to one
 * thread. */
enum {
    FC_FFT_SHARED,
    FC_FFT_WEIGHTS,
    FC_FFT_SOURCES,
    FC_FFT_GRADIENTS,
    FC_FFT_MULTIPLY,
    FC_FFT_RESULTS,
    FC_FFT_WHOLE,
    FC_FFT_PARTS,
    FC_FFT_ADD
};

typedef struct fc_fft_task {
    fc_fft_axis axes[3];
    ptrdiff_t line, itemsize, gradient, back;
    const void *between;
    double scale;
    /* The numbers of groups, images, rows and columns of the weights, phases of the weights, phases of the results, and
     * tiles. */
    ptrdiff_t groups, images, rows, columns, taus, phis, tiles;
    ptrdiff_t tau[3], phi[3], tile[3], tiles_of[3];
    /* The numbers of rows, columns, pairs and groups that are in memory at a time. */
    ptrdiff_t of_rows, of_columns, of_pairs, of_groups;
    ptrdiff_t shared, fused, parts, lanes;
    fc_fft_array source, weights, result; /* For the gradient of the weights these are x, dw and dout. */
    char *bias;
    ptrdiff_t *counts;
    char *space;
    ptrdiff_t slot_pitch, flat_at, volume_at, shared_at, spectra_at, pitch; /* all in elements */
    fc_work_queue *queue;
    void (*part)(const struct fc_fft_task *, const fc_fft_job *, int, ptrdiff_t, void *);
    void (*multiply)(const fc_fft_product *, ptrdiff_t, ptrdiff_t);
    void (*add)(void *, const void *, ptrdiff_t);
    /* What the threads are computing now. */
    int step, now;
    ptrdiff_t total, g, row, n_rows, column, n_columns, pair, n_pairs;
    char *of_weights, *of_source, *of_result;
    fc_fft_job job;
    fc_fft_product product;
} fc_fft_task;

typedef void (*fc_fft_part_t)(const fc_fft_task *, const fc_fft_job *, int, ptrdiff_t, void *);
typedef void (*fc_fft_multiply_t)(const fc_fft_product *, ptrdiff_t, ptrdiff_t);
typedef void (*fc_fft_add_t)(void *, const void *, ptrdiff_t);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_fft_part_t part;
    fc_fft_multiply_t multiply;
    fc_fft_add_t add;
} fc_fft_kernels;

FC_KERNELS(fc_fft_kernels, fc_fft_for);

#if FC_X86
static const ptrdiff_t fc_fft_lanes[2][FC_ISAS] = {{4, 8, 16}, {2, 4, 8}};
#elif FC_VECTORS
static const ptrdiff_t fc_fft_lanes[2][FC_ISAS] = {{4, 4, 4}, {2, 2, 2}};
#else
static const ptrdiff_t fc_fft_lanes[2][FC_ISAS] = {{1, 1, 1}, {1, 1, 1}};
#endif

#include "fft_call.h"
#include "fft_read.h"

#endif /* FASTCONV_FFT_H */
