/* Correlation by overlap-save tiles and their spectra: for every instruction set.
 *
 * A tile is transformed whole, with zeros where no cell is: as one complex number for each cell, of which the real part
 * is one tile and the imaginary part another one of the same image. Weights are real, so the product with their spectrum
 * leaves the two apart. Along an axis of the tile that is not the contiguous one, FC_VL neighbouring columns are
 * transformed in the lanes of vectors, a strip at a time (fft_template.h). The plane between is kept transposed, in
 * strips of FC_VL of its rows, so that the contiguous axis is such an axis, too: there, back, and the product between is
 * one visit of a strip. A volume is transformed along its depth first, and then plane by plane. A signal is a plane of
 * rows one after another, with a factor for each number between the two transforms (Cooley and Tukey).
 */
#ifndef FASTCONV_FFT_H
#define FASTCONV_FFT_H

#include "isa.h"
#include "team.h"

enum { FC_FFT_PASSES = 24, FC_FFT_NEAR = 1 << 15 };

/* The transform along an axis: its length, the radices of its passes, and for each pass the factors of its rows. */
typedef struct {
    ptrdiff_t length, passes;
    const ptrdiff_t *radices;
    const void *factors;
} fc_fft_axis;

enum { FC_FFT_ZEROS, FC_FFT_REFLECT, FC_FFT_REPLICATE, FC_FFT_CIRCULAR };

/* Position p of a tile is cell begin + p * step of an array with `size` cells, for p below `count`. */
typedef struct {
    ptrdiff_t size, pitch, step, begin, count, border;
} fc_fft_line;

/* A tile in an array; none if `at` is NULL. */
typedef struct {
    char *at;
    ptrdiff_t itemsize;
    fc_fft_line lines[3];
} fc_fft_view;

/* Where a strip lies in a tile: down axis 0 or 1, or -1 in a signal; lanes from position p on of the last axis, which in
 * a signal moves by `turn` each row; and position h of axis 1 where the strip goes down axis 0. */
typedef struct {
    ptrdiff_t down, h, p, turn, lanes;
} fc_fft_place;

/* The cell that a cell outside of the array shows, or -1. A division is needed only more than a period away. */
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

/* The cell of a position, or -1. */
static inline ptrdiff_t fc_fft_cell(const fc_fft_line *line, ptrdiff_t p)
{
    const ptrdiff_t cell = line->begin + p * line->step;
    if (p >= line->count)
        return -1;
    return cell >= 0 && cell < line->size ? cell : fc_fft_shown(line, cell);
}

/* Whether n positions from p on have neighbouring cells: 1 if they ascend from *first, -1 if they descend, else 0. A
 * mirror changes the direction, and any change makes the last cell nearer than n - 1; a circle never turns, but may come
 * round to where a descending row would end. */
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

/* Whether any of n positions from p on has a cell. */
static inline int fc_fft_meets(const fc_fft_line *line, ptrdiff_t p, ptrdiff_t n)
{
    const ptrdiff_t last = p + n < line->count ? p + n - 1 : line->count - 1;
    const ptrdiff_t a = line->begin + p * line->step, b = line->begin + last * line->step;
    if (last < p)
        return 0;
    return line->border != FC_FFT_ZEROS || ((a < b ? a : b) < line->size && (a < b ? b : a) >= 0);
}

/* The first element of a view's rows at a place, or NULL. */
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

/* Parts of the work on a tile. The first and last go down the outermost axis; the others are, for each strip of a plane
 * or for each plane of a volume, its transform, its transform back, or both and the product with `kernel` between. The
 * last but one is the transform of both this and the `other`, and their product, added to `sum`. */
enum { FC_FFT_OUTER, FC_FFT_FORWARD, FC_FFT_FUSED, FC_FFT_INVERSE, FC_FFT_SUM, FC_FFT_RESULT };

/* A pair of tiles: where it comes from and goes to, and where it is meanwhile. */
typedef struct {
    fc_fft_view from[2], to[2];
    void *spectrum, *volume, *other, *other_volume, *sum;
    const void *kernel, *bias;
    int first; /* of those in `sum` */
    ptrdiff_t *count; /* of results that are not finite */
} fc_fft_job;

/* out[a][b] (+)= sum over n of x[a][n] * conj(k[b][n]), of spectra that lie so many elements apart. */
typedef struct {
    const void *x, *k;
    void *out;
    ptrdiff_t of_x, of_k, n, x_pitch, x_step, k_pitch, k_step, out_x, out_k, add;
} fc_fft_product;

/* How planes of an array lie, and how positions of tiles and phases are its cells: see fastconv.algorithms._fft_sides. */
typedef struct {
    char *at;
    ptrdiff_t outer, group, inner, tiled;
    ptrdiff_t size[3], pitch[3], step[3], origin[3], of_phi[3], of_tau[3], count[3], border[3], whole[3];
} fc_fft_array;

/* Steps of a call: parts of the one pair that all threads work on, or one pair a thread. */
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
    /* Groups, images, rows and columns of the weights, phases of weights and of results, tiles: all of them. */
    ptrdiff_t groups, images, rows, columns, taus, phis, tiles;
    ptrdiff_t tau[3], phi[3], tile[3], tiles_of[3];
    ptrdiff_t of_rows, of_columns, of_pairs, of_groups; /* held at a time */
    ptrdiff_t shared, fused, parts, lanes;
    fc_fft_array source, weights, result; /* x, dw and dout for the gradient of the weights */
    char *bias;
    ptrdiff_t *counts;
    char *space;
    ptrdiff_t slot_pitch, flat_at, volume_at, shared_at, spectra_at, pitch; /* in elements */
    ptrdiff_t *words;
    void (*part)(const struct fc_fft_task *, const fc_fft_job *, int, ptrdiff_t, void *);
    void (*multiply)(const fc_fft_product *, ptrdiff_t, ptrdiff_t);
    void (*add)(void *, const void *, ptrdiff_t);
    /* What the threads work on now. */
    int step, now;
    ptrdiff_t total, g, row, n_rows, column, n_columns, pair, n_pairs;
    char *of_weights, *of_source, *of_result;
    fc_fft_job job;
    fc_fft_product product;
} fc_fft_task;

#define FC_TEMPLATE "fft_template.h"
#include "foreach.h"

typedef void (*fc_fft_part_t)(const fc_fft_task *, const fc_fft_job *, int, ptrdiff_t, void *);
typedef void (*fc_fft_multiply_t)(const fc_fft_product *, ptrdiff_t, ptrdiff_t);
typedef void (*fc_fft_add_t)(void *, const void *, ptrdiff_t);
FC_TABLE(fc_fft_part_t, fc_fft_part);
FC_TABLE(fc_fft_multiply_t, fc_fft_multiply);
FC_TABLE(fc_fft_add_t, fc_fft_add);

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
