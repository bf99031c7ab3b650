/* Mean and variance of groups of elements, and normalisation with them, for every instruction set. */
#ifndef FASTCONV_NORM_H
#define FASTCONV_NORM_H

#include <string.h>

#include "simd/isa.h"

/* The largest number of columns of a matrix that are processed together. */
enum { FC_COLUMNS = 64 };

/* The layout of groups. A group is a set of elements that are summed together, such as one channel of all images. */
typedef struct {
    ptrdiff_t runs;        /* the number of runs (contiguous elements) of a group */
    ptrdiff_t n;           /* the number of elements of a run */
    ptrdiff_t run_pitch;   /* the distance between the starts of two runs, in elements */
    ptrdiff_t count;       /* the number of groups */
    ptrdiff_t group_pitch; /* the distance between the starts of two groups, in elements */
    ptrdiff_t shared_mean; /* whether all groups have the same mean and scale; otherwise each group has its own */
} fc_norm_groups;

typedef void (*fc_moments_t)(const void *x, fc_norm_groups groups, double *mean, double *variance);
typedef void (*fc_scale_t)(const void *x, void *y, fc_norm_groups groups, const double *mean, const double *scale,
                           const double *gamma, const double *beta);
typedef void (*fc_scale_row_t)(const void *x, const void *gamma, const void *beta, void *y, ptrdiff_t n, double mean,
                               double factor);
typedef void (*fc_products_t)(const void *dout, const void *x, fc_norm_groups groups, const double *mean,
                              const double *scale, double *sums);
typedef void (*fc_products_row_t)(const void *dout, const void *x, const void *gamma, ptrdiff_t n, double mean,
                                  double *sums);
typedef void (*fc_combine_t)(const void *dout, const void *x, void *dx, fc_norm_groups groups, const double *mean,
                             const double *scale, const double *gamma, const double *of_x, const double *shift);
typedef void (*fc_combine_row_t)(const void *dout, const void *x, const void *gamma, void *dx, ptrdiff_t n, double mean,
                                 double of_dout, double of_x, double shift);
typedef void (*fc_column_moments_t)(const void *x, fc_norm_groups groups, double *mean, double *variance);
typedef void (*fc_column_scale_t)(const void *x, void *y, fc_norm_groups groups, const double *mean,
                                  const double *factor, const double *shift);
typedef void (*fc_column_products_t)(const void *dout, const void *x, fc_norm_groups groups, const double *mean,
                                     const double *factor, ptrdiff_t of_a_row, double *sums);
typedef void (*fc_column_combine_t)(const void *dout, const void *x, void *dx, fc_norm_groups groups,
                                    const double *mean, const double *of_dout, const double *of_x, const double *shift);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_moments_t moments;
    fc_scale_t scale;
    fc_scale_row_t scale_row;
    fc_products_t products;
    fc_products_row_t products_row;
    fc_combine_t combine;
    fc_combine_row_t combine_row;
    fc_column_moments_t column_moments;
    fc_column_scale_t column_scale;
    fc_column_products_t column_products;
    fc_column_combine_t column_combine;
} fc_norm_kernels;

FC_KERNELS(fc_norm_kernels, fc_norm_for);

#endif /* FASTCONV_NORM_H */
