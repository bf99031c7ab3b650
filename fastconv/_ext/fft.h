/* Correlation by the FFT of overlap-save tiles, for every instruction set.
 *
 * The words: a cell is one element of an array, and a position is one element of a tile. A position that has no cell is
 * zero. A pair is two tiles of one image, which are transformed together as the real and the imaginary parts of complex
 * numbers. The weights are real, so the product with their spectrum keeps the two tiles separate. A signal is an image
 * with one axis, a plane has two, and a volume has three.
 *
 * Along an axis that is not contiguous, a transform processes a strip of FC_VL neighbouring columns, one in each lane
 * (fft_template.h). Between the transforms, the plane is transposed in strips of FC_VL rows, so that the contiguous
 * axis can be transformed in the same way. A strip is loaded once for its transform, the product and the inverse
 * transform. A volume is transformed along its depth first, and then plane by plane. A signal is treated as a plane.
 * Between the transforms of the two axes of that plane, each number is multiplied by a twiddle factor (Cooley and
 * Tukey).
 *
 * An axis with stride or dilation is divided into phases (see fastconv.convolution.fft.phase_axes). phi is the index of
 * a phase of the outputs, and tau is the index of a phase of the taps. */
#ifndef FASTCONV_FFT_H
#define FASTCONV_FFT_H

#include "isa.h"
#include "team.h"

/* The largest number of passes of a transform, and the number of bytes of a strip that fits into the L1 cache. */
enum { FC_FFT_PASSES = 24, FC_FFT_NEAR = 1 << 15 };

/* The transform along one axis: the length, the radices of the passes, and the twiddle factors of all passes. */
typedef struct {
    ptrdiff_t length, passes;
    const ptrdiff_t *radices;
    const void *factors;
} fc_fft_axis;

/* The border modes, which determine the values of cells outside an array. */
enum { FC_FFT_ZEROS, FC_FFT_REFLECT, FC_FFT_REPLICATE, FC_FFT_CIRCULAR };

/* One axis of a tile. For p < count, position p of the tile is cell begin + p * step of an array with `size` cells,
 * which are `pitch` elements apart. `border` says which cell is repeated if that cell is outside the array. */
typedef struct {
    ptrdiff_t size, pitch, step, begin, count, border;
} fc_fft_line;

/* The view of a tile in an array. `at` is the address of the array, or NULL if there is no tile. */
typedef struct {
    char *at;
    ptrdiff_t itemsize;
    fc_fft_line lines[3];
} fc_fft_view;

/* The place of a strip in a tile. `down` is the axis of the transform, 0 or 1, or -1 for a signal. The lanes start at
 * position p of the last axis, and `lanes` positions are left from there. For a signal, p grows by `turn` with each
 * row. If `down` is 0, h is the position of the strip along axis 1. */
typedef struct {
    ptrdiff_t down, h, p, turn, lanes;
} fc_fft_place;

/* Return the cell of the array that a cell outside the array repeats, or -1 if the border is zeros. A division is
 * needed only if the cell is more than one period away. */
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

/* Return the cell at position p of a tile, or -1 if the position has no cell. */
static inline ptrdiff_t fc_fft_cell(const fc_fft_line *line, ptrdiff_t p)
{
    const ptrdiff_t cell = line->begin + p * line->step;
    if (p >= line->count)
        return -1;
    return cell >= 0 && cell < line->size ? cell : fc_fft_shown(line, cell);
}

/* Return 1 if the cells at positions p to p + n - 1 are contiguous and ascend from *first, -1 if they are contiguous
 * and descend from *first, and 0 otherwise.
 *
 * Only the first and the last cell are compared. If a reflecting border changes the direction between them, the
 * distance between these two cells is less than n - 1. Other borders never change the direction. If the last cell is in
 * the other direction nevertheless, the run crosses a circular border. */
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

/* Return the address of the first cell of the row at a place of a view, or NULL if the place has no cell. The axis of
 * the transform is not included. */
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

/* The parts of the work on a pair of tiles.
 *
 * FC_FFT_OUTER loads the tiles and transforms them along the outermost axis. FC_FFT_RESULT transforms them back along
 * that axis, and stores the results. The items of the other parts are the strips of a plane, or the planes of a volume.
 * FC_FFT_FORWARD transforms an item, and FC_FFT_INVERSE transforms it back. FC_FFT_FUSED does both, and between them
 * multiplies the item by `kernel`. FC_FFT_SUM transforms an item and the same item of `other`, and adds their product
 * to `sum`. */
enum { FC_FFT_OUTER, FC_FFT_FORWARD, FC_FFT_FUSED, FC_FFT_INVERSE, FC_FFT_SUM, FC_FFT_RESULT };

/* The work on a pair of tiles: the views of its source and of its result, and its workspace. */
typedef struct {
    fc_fft_view from[2], to[2];
    void *spectrum, *volume, *other, *other_volume, *sum;
    const void *kernel, *bias;
    int first; /* Whether `sum` is still empty. */
    ptrdiff_t *count; /* The counter of items with a result that is not finite. */
} fc_fft_job;

/* A product of spectra: out[a][b] is the sum over n of x[a][n] * conj(k[b][n]), where each element is a spectrum, or is
 * increased by this sum with `add`. `of_x` and `of_k` are the numbers of a and b. x[a] and x[a + 1] are `x_pitch`
 * elements apart, and x[a][n] and x[a][n + 1] are `x_step` elements apart. `out_x` and `out_k` are the distances
 * between out[a] and out[a + 1], and between out[a][b] and out[a][b + 1]. */
typedef struct {
    const void *x, *k;
    void *out;
    ptrdiff_t of_x, of_k, n, x_pitch, x_step, k_pitch, k_step, out_x, out_k, add;
} fc_fft_product;

/* The layout of an array in memory, and the map from positions of tiles to cells. `outer`, `group` and `inner` are the
 * distances between images (or filters), groups and channels, in elements. `tiled` says whether the array is divided
 * into tiles. Along an axis, position 0 of the first tile is cell origin + phi * of_phi + tau * of_tau, and `whole` is
 * the number of positions of all tiles together. The other arrays are those of fc_fft_line. */
typedef struct {
    char *at;
    ptrdiff_t outer, group, inner, tiled;
    ptrdiff_t size[3], pitch[3], step[3], origin[3], of_phi[3], of_tau[3], count[3], border[3], whole[3];
} fc_fft_array;

/* The steps of a call. In FC_FFT_SHARED, all threads work on the same pair. In the other steps, each thread works on
 * spectra or pairs of its own. */
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
    /* The numbers of groups, images, rows and columns of the weights, phases of the taps (taus), phases of the outputs
     * (phis), and tiles of an image. The arrays below have the same numbers along each axis. */
    ptrdiff_t groups, images, rows, columns, taus, phis, tiles;
    ptrdiff_t tau[3], phi[3], tile[3], tiles_of[3];
    /* The numbers of rows, columns, pairs and groups whose spectra are in memory at a time. */
    ptrdiff_t of_rows, of_columns, of_pairs, of_groups;
    ptrdiff_t shared, fused, parts, lanes;
    fc_fft_array source, weights, result; /* For the gradient of the weights, these are x, dw and dout. */
    char *bias;
    ptrdiff_t *counts;
    char *space;
    ptrdiff_t slot_pitch, flat_at, volume_at, shared_at, spectra_at, pitch; /* All are in elements. */
    fc_work_queue *queue;
    void (*part)(const struct fc_fft_task *, const fc_fft_job *, int, ptrdiff_t, void *);
    void (*multiply)(const fc_fft_product *, ptrdiff_t, ptrdiff_t);
    void (*add)(void *, const void *, ptrdiff_t);
    /* The step, part and range of rows, columns and pairs that the threads are computing now. */
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

#include "fft_call.h"
#include "fft_read.h"

#endif /* FASTCONV_FFT_H */
