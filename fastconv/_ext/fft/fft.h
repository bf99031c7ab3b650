/* Correlation by the FFT of overlap-save tiles, for every instruction set.
 *
 * A signal is an image with one axis, a plane has two axes, and a volume has three. A position is one element of a
 * tile. Positions outside the image and its border are zero.
 *
 * Two tiles of one image are a pair. They are transformed together, as the real and the imaginary parts of complex
 * numbers. The weights are real, so the product with their spectrum keeps the two tiles separate.
 *
 * A strip is FC_VL neighbouring columns of a plane, one in each lane of a vector. A transform along the columns
 * processes one strip at a time. Then the plane is transposed, so that the transform along the rows also processes
 * strips. For each of these strips, the transform, the product and the inverse transform follow one another while the
 * strip is in the cache. A volume is transformed along its depth first, and then plane by plane. A signal is treated as
 * a plane, whose elements are multiplied by twiddle factors between the transforms of its two axes (Cooley and Tukey).
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

/* The border modes, which determine the values outside an array. */
enum { FC_FFT_ZEROS, FC_FFT_REFLECT, FC_FFT_REPLICATE, FC_FFT_CIRCULAR };

/* The map from one axis of a tile to the same axis of an array. Position p of the tile is element begin + p * step of
 * the array. Positions from `count` on are loaded as zeros, and are never stored. */
typedef struct {
    ptrdiff_t size;   /* the number of array elements along the axis */
    ptrdiff_t pitch;  /* the distance in memory between two neighbouring array elements along the axis, in elements */
    ptrdiff_t step;   /* the distance between two neighbouring positions, in array elements along the axis */
    ptrdiff_t begin;  /* the index of the array element at position 0 */
    ptrdiff_t count;  /* the number of positions that are inside the array or its border */
    ptrdiff_t border; /* the border mode, which determines the values outside the array */
} fc_fft_tile_axis;

/* The map from the positions of a tile to the elements of an array. `at` is the address of the array, or NULL if there
 * is no tile. */
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

/* Return the index of the array element that is repeated at index `cell` outside the array, or -1 if the border mode is
 * FC_FFT_ZEROS. The function divides only if `cell` is more than one period outside the array. */
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

/* Return 1 if the array indices at positions p to p + n - 1 are *first, *first + 1, *first + 2, and so on. Return -1 if
 * they are *first, *first - 1, *first - 2, and so on. Otherwise, return 0.
 *
 * Only the first and the last index are compared. If a reflecting border reverses the direction between them, they
 * differ by less than n - 1, so the result is 0. With the other borders, indices grow if the step is 1, and fall if the
 * step is -1. If the last index is on the wrong side of the first, the positions cross a circular border, and the
 * result is 0, too. */
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

/* Return the address of a strip in the array, or NULL if the strip has no array element. The address does not include
 * the offsets along the last axis and along the axis of the transform. */
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

/* The parts of the work on a pair of tiles. `kernel`, `other` and `sum` are fields of fc_fft_job.
 * - FC_FFT_OUTER loads the tiles, and transforms them along the outermost axis.
 * - FC_FFT_RESULT applies the inverse transform along the outermost axis, and stores the results.
 *
 * A work item of any other part is a strip of a plane, or a plane of a volume.
 * - FC_FFT_FORWARD transforms the item, and FC_FFT_INVERSE applies the inverse transform.
 * - FC_FFT_FUSED transforms the item, multiplies it by `kernel`, and applies the inverse transform.
 * - FC_FFT_SUM transforms the item and the same item of `other`, and adds their product to `sum`. */
enum { FC_FFT_OUTER, FC_FFT_FORWARD, FC_FFT_FUSED, FC_FFT_INVERSE, FC_FFT_SUM, FC_FFT_RESULT };

/* The work on a pair of tiles. The tiles are read at `from`, and the results are stored at `to`. The other pointers are
 * workspaces, the spectrum of the weights (`kernel`) and the bias. */
typedef struct {
    fc_fft_view from[2], to[2];
    void *spectrum, *volume, *other, *other_volume, *sum;
    const void *kernel, *bias;
    int overwrite_sum; /* Whether the next product overwrites `sum`, because it is the first term. */
    ptrdiff_t *count;  /* The counter of work items with a result that is inf or NaN. */
} fc_fft_job;

/* A product of spectra. Each element of x, k and out is a spectrum. out[a][b] is the sum over i < n of
 * x[a][i] * conj(k[b][i]). If `add` is set, the sum is added to out[a][b]. */
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

/* One axis of an array that is read or written through tiles. phi is the index of a phase of the outputs, and tau is the
 * index of a phase of the taps. */
typedef struct {
    fc_fft_tile_axis first; /* the map of the first tile, for phi = tau = 0 */
    ptrdiff_t phi_step;     /* the distance between two neighbouring phases of the outputs (phi), in array elements */
    ptrdiff_t tau_step;     /* the distance between two neighbouring phases of the taps (tau), in array elements */
    ptrdiff_t positions;    /* the number of positions of all tiles together */
} fc_fft_array_axis;

/* The layout of an array in memory, and the map from positions of tiles to array elements. */
typedef struct {
    ptrdiff_t outer; /* the distance between two images (or filters), in elements */
    ptrdiff_t group; /* the distance between two groups, in elements */
    ptrdiff_t inner; /* the distance between two channels, in elements */
    ptrdiff_t tiled; /* whether the array is divided into tiles */
    fc_fft_array_axis axes[3];
} fc_fft_layout;

/* An array of a call: its address and its layout. */
typedef struct {
    char *at;
    const fc_fft_layout *layout;
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

typedef struct fc_fft_task fc_fft_task;

typedef void (*fc_fft_part_t)(const fc_fft_task *, const fc_fft_job *, int, ptrdiff_t, void *);
typedef void (*fc_fft_multiply_t)(const fc_fft_product *, ptrdiff_t, ptrdiff_t);
typedef void (*fc_fft_add_t)(void *, const void *, ptrdiff_t);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_fft_part_t part;
    fc_fft_multiply_t multiply;
    fc_fft_add_t add;
} fc_fft_kernels;

/* What all calls of a plan share. The sizes of the weight matrix are explained at fc_fft_run_blocks. */
typedef struct {
    fc_fft_axis axes[3];                   /* the transforms; `factors` is set in the task */
    ptrdiff_t radices[3][FC_FFT_PASSES];   /* the radix of each pass along each axis */
    fc_fft_layout source, weights, result; /* for the gradient of the weights: x, dw and dout */
    const fc_fft_kernels *kernels;
    double scale;            /* the factor on all results, which makes the inverse transform an inverse */
    ptrdiff_t itemsize;      /* the number of bytes of an element */
    ptrdiff_t lanes;         /* the number of elements of a vector */
    ptrdiff_t threads;       /* the largest number of threads of a call */
    ptrdiff_t is_signal;     /* whether the image has one axis */
    ptrdiff_t is_volume;     /* whether the image has three axes, and transforms along depth are longer than 1 */
    ptrdiff_t gradient;      /* whether the call computes the gradient of the weights */
    ptrdiff_t backward_data; /* whether the call computes the gradient of the image */
    ptrdiff_t groups;
    ptrdiff_t images;
    ptrdiff_t rows;           /* the number of rows of the weight matrix of a group */
    ptrdiff_t columns;        /* the number of columns of the weight matrix of a group */
    ptrdiff_t taus;           /* the number of phases of the taps */
    ptrdiff_t phis;           /* the number of phases of the outputs */
    ptrdiff_t tiles;          /* the number of tiles of a phase of an image */
    ptrdiff_t tau[3];         /* the number of phases of the taps along each axis */
    ptrdiff_t phi[3];         /* the number of phases of the outputs along each axis */
    ptrdiff_t tile[3];        /* the number of results of a tile along each axis */
    ptrdiff_t tiles_along[3]; /* the number of tiles along each axis */
    /* The numbers of rows, columns, pairs and groups whose spectra are in the workspace at the same time. */
    ptrdiff_t block_rows, block_columns, block_pairs, block_groups;
    ptrdiff_t fused;  /* whether products are computed strip by strip, while a tile is in the cache */
    ptrdiff_t shared; /* whether all threads work on the same pair of tiles */
    ptrdiff_t parts;  /* the number of partial sums of the gradient of the weights */
    ptrdiff_t pitch;  /* the distance between two spectra, in elements */
    /* Offsets in the scratchpad of a thread, in elements. A strip is at its start. */
    ptrdiff_t flat_at;         /* a tile of a plane, or a transformed plane of a volume */
    ptrdiff_t other_flat_at;   /* for the gradient of the weights: the same for dout */
    ptrdiff_t volume_at;       /* a tile of a volume */
    ptrdiff_t other_volume_at; /* for the gradient of the weights: the same for dout */
    ptrdiff_t slot_pitch;      /* the distance between the scratchpads of two threads, in elements */
    /* Offsets in the workspace of the call, in elements. The scratchpads of the threads are at its start. */
    ptrdiff_t shared_at;         /* the tile on which all threads work */
    ptrdiff_t other_shared_at;   /* for the gradient of the weights: the same for dout */
    ptrdiff_t weight_spectra_at; /* the spectra of the weights; for the gradient of the weights, of dout */
    ptrdiff_t source_spectra_at; /* the spectra of the source */
    ptrdiff_t result_spectra_at; /* the spectra of the results */
} fc_fft_plan;

/* One call of a plan. */
struct fc_fft_task {
    const fc_fft_plan *plan;
    fc_fft_axis axes[3];
    const void *twiddles; /* the twiddle factors between the two axes of a signal; NULL for other images */
    /* For the gradient of the weights, `source` is x, `weights` is dw, and `result` is dout. */
    fc_fft_array source, weights, result;
    char *bias;
    ptrdiff_t *counts; /* for each image, the number of work items with a result that is inf or NaN */
    char *space;
    fc_work_queue *queue;
    /* What all threads work on at present: the step (FC_FFT_SHARED, ...), the part (FC_FFT_OUTER, ...), the group, and
     * the ranges of rows, columns and pairs of tiles. */
    int step, current_part;
    ptrdiff_t total, g, row, n_rows, column, n_columns, pair, n_pairs;
    char *weight_spectra, *source_spectra, *result_spectra;
    fc_fft_job job;
    fc_fft_product product;
};

FC_KERNELS(fc_fft_kernels, fc_fft_for);

#include "fft/call.h"

#endif /* FASTCONV_FFT_H */
