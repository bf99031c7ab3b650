/* Correlation by the FFT of overlap-save tiles, for every instruction set.
 *
 * Words: a cell is one element of an array, and a position is one element of a tile. A position that is outside the
 * array and its border has no cell, and is zero. A pair is two tiles of one image, which are transformed together as
 * the real and the imaginary parts of complex numbers. The weights are real, so the product with their spectrum keeps
 * the two tiles separate. A signal is an image with one axis, a plane has two axes, and a volume has three.
 *
 * A strip is FC_VL neighbouring columns of a plane, one in each lane of a vector. Along an axis that is not contiguous,
 * a transform processes a strip at a time (fft_template.h). Between the transforms, the plane is transposed in strips
 * of FC_VL rows, so that the contiguous axis can be transformed in the same way. A strip is loaded once for its
 * transform, the product and the inverse transform. A volume is transformed along its depth first, and then plane by
 * plane. A signal is treated as a plane. Between the transforms of the two axes of that plane, each number is
 * multiplied by a twiddle factor (Cooley and Tukey).
 *
 * An axis with stride or dilation is divided into phases (see fastconv.convolution.fft.phase_axes). phi is the index of
 * a phase of the outputs, and tau is the index of a phase of the taps. */
#ifndef FASTCONV_FFT_H
#define FASTCONV_FFT_H

#include "simd/isa.h"
#include "threads/team.h"

/* FC_FFT_PASSES is the largest number of passes of a transform. FC_FFT_L1_BYTES is the size in bytes of the largest
 * strip that fits into the L1 cache. */
enum { FC_FFT_PASSES = 24, FC_FFT_L1_BYTES = 1 << 15 };

/* The transform along one axis. */
typedef struct {
    ptrdiff_t length;         /* the length of the transform, in complex numbers */
    ptrdiff_t passes;         /* the number of passes */
    const ptrdiff_t *radices; /* the radix of each pass */
    const void *factors;      /* the twiddle factors of all passes, one after another */
} fc_fft_axis;

/* The border modes, which determine the values of cells outside an array. */
enum { FC_FFT_ZEROS, FC_FFT_REFLECT, FC_FFT_REPLICATE, FC_FFT_CIRCULAR };

/* One axis of a tile. For p < count, position p of the tile is cell begin + p * step of the array. */
typedef struct {
    ptrdiff_t size;   /* the number of cells of the array */
    ptrdiff_t pitch;  /* the distance between two neighbouring cells, in elements */
    ptrdiff_t step;   /* the distance between two neighbouring positions, in cells */
    ptrdiff_t begin;  /* the cell of position 0 */
    ptrdiff_t count;  /* the number of positions of the tile that have a cell of the array */
    ptrdiff_t border; /* the border mode, which determines the cell that is read in place of a cell outside the array */
} fc_fft_tile_axis;

/* The map from the positions of a tile to the cells of an array. `at` is the address of the array, or NULL if there is
 * no tile. */
typedef struct {
    char *at;
    ptrdiff_t itemsize;
    fc_fft_tile_axis axes[3];
} fc_fft_view;

/* The location of a strip in a tile. */
typedef struct {
    ptrdiff_t axis;     /* the axis of the transform (0 or 1), or -1 for a signal */
    ptrdiff_t h;        /* if `axis` is 0: the position of the strip along axis 1 */
    ptrdiff_t p;        /* the position of lane 0 along the last axis */
    ptrdiff_t row_step; /* for a signal: the number of positions by which p grows with each row; otherwise 0 */
    ptrdiff_t lanes;    /* the number of positions from p to the end of the last axis */
} fc_fft_location;

/* Return the cell of the array that a cell outside the array repeats, or -1 if the border mode is FC_FFT_ZEROS. Only
 * cells that are more than one period outside the array need a division. */
static inline ptrdiff_t fc_fft_border_cell(const fc_fft_tile_axis *tile_axis, ptrdiff_t cell)
{
    const ptrdiff_t size = tile_axis->size,
        period = tile_axis->border == FC_FFT_REFLECT && size > 1 ? 2 * (size - 1) : size;
    switch (tile_axis->border) {
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

/* Return the index of the array element at position p of a tile, or -1 if the position has no array element. */
static inline ptrdiff_t fc_fft_cell(const fc_fft_tile_axis *tile_axis, ptrdiff_t p)
{
    const ptrdiff_t cell = tile_axis->begin + p * tile_axis->step;
    if (p >= tile_axis->count)
        return -1;
    return cell >= 0 && cell < tile_axis->size ? cell : fc_fft_border_cell(tile_axis, cell);
}

/* Return 1 if the cells at positions p to p + n - 1 are contiguous and ascend from *first, -1 if they are contiguous
 * and descend from *first, and 0 otherwise.
 *
 * Only the first and the last cell are compared. If a reflecting border reverses the direction between them, they are
 * less than n - 1 cells apart, so the result is 0. With any other border, the cells ascend if the step is 1, and
 * descend if the step is -1. If the order of the first and the last cell is the reverse, the positions cross a circular
 * border, and the result is 0, too. */
static inline int fc_fft_run_at(const fc_fft_tile_axis *tile_axis, ptrdiff_t p, ptrdiff_t n, ptrdiff_t *first)
{
    ptrdiff_t ahead;
    if ((tile_axis->step != 1 && tile_axis->step != -1) || p + n > tile_axis->count)
        return 0;
    *first = fc_fft_cell(tile_axis, p);
    ahead = fc_fft_cell(tile_axis, p + n - 1);
    if (*first < 0 || ahead < 0)
        return 0;
    ahead -= *first;
    if (tile_axis->border != FC_FFT_REFLECT && ahead * tile_axis->step < 0)
        return 0;
    return ahead == n - 1 ? 1 : ahead == 1 - n ? -1 : 0;
}

/* Return whether at least one of the positions p to p + n - 1 of a tile has an array element. */
static inline int fc_fft_has_cell(const fc_fft_tile_axis *tile_axis, ptrdiff_t p, ptrdiff_t n)
{
    const ptrdiff_t last = p + n < tile_axis->count ? p + n - 1 : tile_axis->count - 1;
    const ptrdiff_t a = tile_axis->begin + p * tile_axis->step, b = tile_axis->begin + last * tile_axis->step;
    if (last < p)
        return 0;
    return tile_axis->border != FC_FFT_ZEROS || ((a < b ? a : b) < tile_axis->size && (a < b ? b : a) >= 0);
}

/* Return the address of the first array element of a row of a strip, or NULL if the row has no array element. The
 * position along the axis of the transform is not included in the address. */
static inline void *fc_fft_base(const fc_fft_view *view, const fc_fft_location *location)
{
    ptrdiff_t axis, at = 0;
    if (view->at == NULL)
        return NULL;
    for (axis = 0; axis < 2; axis++)
        if (axis != location->axis) {
            const ptrdiff_t cell = fc_fft_cell(&view->axes[axis], axis == 1 ? location->h : 0);
            if (cell < 0)
                return NULL;
            at += cell * view->axes[axis].pitch;
        }
    return view->at + at * view->itemsize;
}

/* The parts of the work on a pair of tiles.
 *
 * FC_FFT_OUTER loads the tiles and transforms them along the outermost axis. FC_FFT_RESULT applies the inverse
 * transform along the outermost axis, and stores the results. A work item of any other part is a strip of a plane, or a
 * plane of a volume. FC_FFT_FORWARD transforms an item, and FC_FFT_INVERSE applies the inverse transform. FC_FFT_FUSED
 * transforms an item, multiplies it by `kernel`, and applies the inverse transform. FC_FFT_SUM transforms an item and
 * the same item of `other`, and adds their product to `sum`. */
enum { FC_FFT_OUTER, FC_FFT_FORWARD, FC_FFT_FUSED, FC_FFT_INVERSE, FC_FFT_SUM, FC_FFT_RESULT };

/* The work on a pair of tiles: where the tiles are read (`from`) and the results are stored (`to`), and the
 * workspaces. */
typedef struct {
    fc_fft_view from[2], to[2];
    void *spectrum, *volume, *other, *other_volume, *sum;
    const void *kernel, *bias;
    int overwrite_sum; /* Whether the next product overwrites `sum`, because it is the first term of the sum. */
    ptrdiff_t *count; /* The counter of work items with a result that is inf or NaN. */
} fc_fft_job;

/* A product of spectra. Each element of x, k and out is a spectrum. out[a][b] is set to the sum over i < n of x[a][i] *
 * conj(k[b][i]) or, if `add` is set, increased by this sum. */
typedef struct {
    const void *x, *k;
    void *out;
    ptrdiff_t n_x;     /* the number of indices a */
    ptrdiff_t n_k;     /* the number of indices b */
    ptrdiff_t n;       /* the number of terms of a sum */
    ptrdiff_t x_pitch; /* the distance between x[a] and x[a + 1], in elements */
    ptrdiff_t x_step;  /* the distance between x[a][i] and x[a][i + 1], in elements */
    ptrdiff_t k_pitch; /* the distance between k[b] and k[b + 1], in elements */
    ptrdiff_t k_step;  /* the distance between k[b][i] and k[b][i + 1], in elements */
    ptrdiff_t out_x;   /* the distance between out[a] and out[a + 1], in elements */
    ptrdiff_t out_k;   /* the distance between out[a][b] and out[a][b + 1], in elements */
    ptrdiff_t add;     /* whether the sums are added to `out` */
} fc_fft_product;

/* The layout of an array in memory, and the map from positions of tiles to cells. phi is the index of a phase of the
 * outputs, and tau is the index of a phase of the taps. Along each axis, position 0 of the first tile is cell origin +
 * phi * phi_step + tau * tau_step. */
typedef struct {
    char *at;
    ptrdiff_t outer;        /* the distance between two images (or filters), in elements */
    ptrdiff_t group;        /* the distance between two groups, in elements */
    ptrdiff_t inner;        /* the distance between two channels, in elements */
    ptrdiff_t tiled;        /* whether the array is divided into tiles */
    ptrdiff_t size[3];      /* see fc_fft_tile_axis */
    ptrdiff_t pitch[3];     /* see fc_fft_tile_axis */
    ptrdiff_t step[3];      /* see fc_fft_tile_axis */
    ptrdiff_t origin[3];    /* the cell of position 0 of the first tile, for phi = tau = 0 */
    ptrdiff_t phi_step[3];  /* the distance between two neighbouring phases of the outputs (phi), in cells */
    ptrdiff_t tau_step[3];  /* the distance between two neighbouring phases of the taps (tau), in cells */
    ptrdiff_t count[3];     /* see fc_fft_tile_axis */
    ptrdiff_t border[3];    /* see fc_fft_tile_axis */
    ptrdiff_t positions[3]; /* the number of positions of all tiles together */
} fc_fft_array;

/* The steps of a call. In FC_FFT_SHARED, all threads work on the same pair of tiles. In the other steps, each thread
 * works on different spectra or pairs. */
enum {
    FC_FFT_SHARED,
    FC_FFT_WEIGHTS,
    FC_FFT_SOURCES,
    FC_FFT_GRADIENTS,
    FC_FFT_MULTIPLY,
    FC_FFT_RESULTS,
    FC_FFT_PAIRS,
    FC_FFT_PARTS,
    FC_FFT_ADD
};

typedef struct fc_fft_task {
    fc_fft_axis axes[3];
    ptrdiff_t is_signal, itemsize, gradient, backward_data;
    const void *twiddles;
    double scale;
    /* The total numbers of groups, of images, of rows of the weight matrix, of its columns, of phases of the taps
     * (tau), of phases of the outputs (phi), and of tiles of an image. In the next line, tau[i], phi[i] and
     * tiles_along[i] are the numbers of phases and tiles along axis i, and tile[i] is the size of a tile. */
    ptrdiff_t groups, images, rows, columns, taus, phis, tiles;
    ptrdiff_t tau[3], phi[3], tile[3], tiles_along[3];
    /* The numbers of rows, columns, pairs and groups whose spectra are in the workspace at the same time. */
    ptrdiff_t block_rows, block_columns, block_pairs, block_groups;
    ptrdiff_t shared, fused, parts, lanes;
    /* For the gradient of the weights, `source` is x, `weights` is dw, and `result` is dout. */
    fc_fft_array source, weights, result;
    char *bias;
    ptrdiff_t *counts;
    char *space;
    /* The offsets and distances in the next line are in elements. */
    ptrdiff_t slot_pitch, flat_at, volume_at, shared_at, spectra_at, pitch;
    fc_work_queue *queue;
    void (*part)(const struct fc_fft_task *, const fc_fft_job *, int, ptrdiff_t, void *);
    void (*multiply)(const fc_fft_product *, ptrdiff_t, ptrdiff_t);
    void (*add)(void *, const void *, ptrdiff_t);
    /* What all threads work on at present: the step (FC_FFT_SHARED, ...), the part (FC_FFT_OUTER, ...), the group, and
     * the ranges of rows, columns and pairs of tiles. */
    int step, current_part;
    ptrdiff_t total, g, row, n_rows, column, n_columns, pair, n_pairs;
    char *weight_spectra, *source_spectra, *result_spectra;
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

#include "fft/call.h"
#include "fft/read.h"

#endif /* FASTCONV_FFT_H */
