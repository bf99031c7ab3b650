/* Correlation by the FFT of overlap-save tiles, for every instruction set.
 *
 * Two tiles of the same image are transformed together, as the real and imaginary parts of complex numbers. Positions
 * without a cell are zeros. Weights are real, so the product with their spectrum keeps the two tiles separate. Along an
 * axis of the tile that is not the contiguous one, FC_VL neighbouring columns are transformed in the lanes of vectors,
 * a strip at a time (fft_template.h). Between the transforms the plane is transposed, in strips of FC_VL of its rows,
 * so that the contiguous axis can be transformed in the same way. A strip is loaded once for its transform, the
 * product, and the transform back. A volume is transformed along its depth first, and then plane by plane. A signal is
 * treated as a plane; between the transforms of its two axes each number is multiplied by a factor (Cooley and Tukey). */
#ifndef FASTCONV_FFT_H
#define FASTCONV_FFT_H

#include "isa.h"
#include "team.h"

enum { FC_FFT_PASSES = 24, FC_FFT_NEAR = 1 << 15 };

/* The transform along an axis: its length, the radices of its passes, and the factors of the rows for each pass. */
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

/* The place of a strip in a tile. The strip goes down axis 0 or 1, or is of a signal (-1). Its lanes begin at position
 * p of the last axis; in a signal, p grows by `turn` with each row. If the strip goes down axis 0, h is its position
 * along axis 1. */
typedef struct {
    ptrdiff_t down, h, p, turn, lanes;
} fc_fft_place;

/* The cell of which a cell outside of the array is a copy, or -1. Only cells more than a period away need a division. */
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

/* The cell of a position, or -1 if there is none. */
static inline ptrdiff_t fc_fft_cell(const fc_fft_line *line, ptrdiff_t p)
{
    const ptrdiff_t cell = line->begin + p * line->step;
    if (p >= line->count)
        return -1;
    return cell >= 0 && cell < line->size ? cell : fc_fft_shown(line, cell);
}

/* Whether the cells of n positions from p on are contiguous: 1 if they ascend from *first, -1 if they descend, else 0.
 * If a mirror changes the direction between them, the last cell is nearer to the first than n - 1. A circular border
 * never changes the direction, but may wrap round to the cell where a descending row would end. */
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

/* Whether at least one of n positions from p on has a cell. */
static inline int fc_fft_meets(const fc_fft_line *line, ptrdiff_t p, ptrdiff_t n)
{
    const ptrdiff_t last = p + n < line->count ? p + n - 1 : line->count - 1;
    const ptrdiff_t a = line->begin + p * line->step, b = line->begin + last * line->step;
    if (last < p)
        return 0;
    return line->border != FC_FFT_ZEROS || ((a < b ? a : b) < line->size && (a < b ? b : a) >= 0);
}

/* The first element of the row of a view at a place, or NULL. */
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

/* Parts of the work on a tile. The first and last transform along the outermost axis. The others process each strip of
 * a plane, or each plane of a volume: transform it, transform it back, or do both with the product by `kernel` between.
 * The last but one transforms both this tile and `other`, and adds their product to `sum`. */
enum { FC_FFT_OUTER, FC_FFT_FORWARD, FC_FFT_FUSED, FC_FFT_INVERSE, FC_FFT_SUM, FC_FFT_RESULT };

/* A pair of tiles: its source, its result, and its workspace. */
typedef struct {
    fc_fft_view from[2], to[2];
    void *spectrum, *volume, *other, *other_volume, *sum;
    const void *kernel, *bias;
    int first; /* of those in `sum` */
    ptrdiff_t *count; /* counts results that are not finite */
} fc_fft_job;

/* out[a][b] (+)= sum over n of x[a][n] * conj(k[b][n]), of spectra that are so many elements apart. */
typedef struct {
    const void *x, *k;
    void *out;
    ptrdiff_t of_x, of_k, n, x_pitch, x_step, k_pitch, k_step, out_x, out_k, add;
} fc_fft_product;

/* The layout of the planes of an array, and the map from positions of tiles and phases to its cells: see
 * fastconv.convolution.fft.sides. */
typedef struct {
    char *at;
    ptrdiff_t outer, group, inner, tiled;
    ptrdiff_t size[3], pitch[3], step[3], origin[3], of_phi[3], of_tau[3], count[3], border[3], whole[3];
} fc_fft_array;

/* Steps of a call. Either all threads work on parts of one pair, or each thread works on a pair of its own. */
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
    /* The numbers of groups, images, rows and columns of the weights, phases of weights and of results, and tiles. */
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
    /* The current work of the threads. */
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
