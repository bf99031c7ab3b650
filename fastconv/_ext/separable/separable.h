/* Separable convolution for every instruction set. The kernel is an outer product, so it is applied axis by axis. */
#ifndef FASTCONV_SEPARABLE_H
#define FASTCONV_SEPARABLE_H

#include "simd/isa.h"
#include "threads/team.h"

/* The outputs of one stride phase of the result along one axis. Output o is the sum over t < taps of
 * source[o * stride + t * dilation - lo] times factor number `factors` + t. It is stored at index
 * output_offset + o * output_stride of the result. `stride` is a field of fc_phased_axis. */
typedef struct {
    ptrdiff_t out;           /* the number of outputs */
    ptrdiff_t output_offset; /* the index of output 0 in the result */
    ptrdiff_t output_stride; /* the distance between two outputs in the result */
    ptrdiff_t lo;            /* the padding before the source, in elements */
    ptrdiff_t dilation;      /* the distance between two taps, in elements */
    ptrdiff_t taps;          /* the number of taps */
    ptrdiff_t factors;       /* the index of the factor of tap 0 */
} fc_conv_axis;

/* One axis of the convolution. A block that starts at output b reads no source element before index b * stride - pad.
 * Output b reads no source element after index b * stride - pad + halo. */
typedef struct {
    ptrdiff_t size;            /* the size of the source */
    ptrdiff_t output_size;     /* the size of the result */
    ptrdiff_t stride;          /* the distance, in the source, between two neighbouring outputs of a phase */
    ptrdiff_t phases;          /* the number of stride phases of the result */
    ptrdiff_t out;             /* the largest number of outputs of a phase */
    ptrdiff_t block;           /* the number of outputs of a block */
    ptrdiff_t pad;             /* the padding before the source, for all phases */
    ptrdiff_t halo;            /* output b reads no source element after index b * stride - pad + halo */
    const fc_conv_axis *phase; /* the stride phases */
} fc_phased_axis;

/* The border modes, which determine the values outside an image. FC_ZEROS is supported for all images. The other modes
 * need an image with two axes (`flat`), rows that are not divided into blocks, and results that are contiguous in each
 * row. */
enum { FC_ZEROS, FC_REFLECT, FC_REPLICATE, FC_CIRCULAR };

/* The arguments of a call. The axes are (D, H, W). If `flat` is set, the image has no axis D. Pitches and offsets are
 * in elements.
 *
 * `channels` is the number of channels of the result. In the forward pass, each channel of the source is read by
 * `shared` channels of the result; otherwise `shared` is 1. In the backward pass, each channel of the result is a sum
 * over `sources` channels of the source; otherwise `sources` is 1. `entries` is the number of factors of a filter.
 *
 * The workspace starts with rows of sums along H, which are `pitch` elements apart. At `split_at`, the workspace has
 * room for one row that is split into stride phases. At `row_at`, it has room for one row of results. Unless `flat` is
 * set, the planes of sums along D follow at `planes_at`. */
typedef struct {
    fc_phased_axis axes[3];
    ptrdiff_t images, channels, shared, sources, entries, flat, border;
    ptrdiff_t pitch, split_at, phase_pitch, row_at, planes_at, space;
    const void *x, *factors, *bias;
    void *result;
    fc_work_queue *queue; /* The work queue of the call, or NULL. */
} fc_separable;

static inline ptrdiff_t fc_blocks(const fc_phased_axis *axis)
{
    return axis->phases * ((axis->out + axis->block - 1) / axis->block);
}

static inline ptrdiff_t fc_separable_items(const fc_separable *call)
{
    return call->images * call->channels * fc_blocks(&call->axes[0]) * fc_blocks(&call->axes[1]) *
           ((call->axes[2].out + call->axes[2].block - 1) / call->axes[2].block);
}

static inline ptrdiff_t fc_limit(ptrdiff_t n, ptrdiff_t least, ptrdiff_t most)
{
    return n < least ? least : n > most ? most : n;
}

/* Find the taps of an output that read one of the source elements [first, end). `at` is the index of the element that
 * tap 0 reads. Set *tap to the first of these taps, and *taps to their number. */
static inline void fc_taps_inside(const fc_conv_axis *phase, ptrdiff_t at, ptrdiff_t first, ptrdiff_t end,
                                  ptrdiff_t *tap, ptrdiff_t *taps)
{
    const ptrdiff_t d = phase->dilation;
    *tap = at >= first ? 0 : fc_limit((first - at + d - 1) / d, 0, phase->taps);
    *taps = end <= at ? 0 : fc_limit((end - at + d - 1) / d, 0, phase->taps) - *tap;
    *taps = *taps < 0 ? 0 : *taps;
}

/* Map the indices at, at + step, at + 2 * step, and so on to the image elements that they repeat in the border mode
 * `border`. The first indices map to an arithmetic sequence of elements. Return the length of this sequence, at most
 * `most`. Set *first to its first element, and *distance to its step. */
static inline ptrdiff_t fc_border_run(ptrdiff_t at, ptrdiff_t size, ptrdiff_t step, ptrdiff_t most, ptrdiff_t border,
                                      ptrdiff_t *first, ptrdiff_t *distance)
{
    ptrdiff_t count = most;
    *distance = step;
    if (border == FC_CIRCULAR)
        at = (at % size + size) % size;
    if (at >= 0 && at < size) {
        *first = at;
        count = (size - 1 - at) / step + 1;
    } else {
        if (at < 0)
            count = (-1 - at) / step + 1;
        *first = border == FC_REPLICATE ? (at < 0 ? 0 : size - 1) : at < 0 ? -at : 2 * (size - 1) - at;
        *distance = border == FC_REPLICATE ? 0 : -step;
    }
    return count < most ? count : most;
}

/* The rows that sums are computed from: rows [first, end) of an axis. */
typedef struct {
    const void *from;     /* row `first` */
    ptrdiff_t pitch;      /* the distance between two rows, in elements */
    ptrdiff_t first, end; /* the range of rows */
    ptrdiff_t n;          /* the number of elements of a row */
    ptrdiff_t border;     /* the border mode; if it is not FC_ZEROS, the rows are all rows of the axis */
} fc_source_rows;

typedef int (*fc_separable_t)(const fc_separable *call, ptrdiff_t item, void *space);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_separable_t block;
} fc_separable_kernels;

FC_KERNELS(fc_separable_kernels, fc_separable_for);

#endif /* FASTCONV_SEPARABLE_H */
