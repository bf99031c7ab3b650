/* Means and variances of sets of numbers, and normalisation by them, for every instruction set. */
#ifndef FASTCONV_NORM_H
#define FASTCONV_NORM_H

#include <string.h>

#include "isa.h"

/* The largest number of columns that are processed together. */
enum { FC_COLUMNS = 64 };

/* The layout of sets of numbers. A set has `runs` runs of `n` numbers, which start `pitch` apart. There are `sets`
 * sets, which start `apart` from each other. Each set has its own mean and variance; if `alike`, all
 * sets share them. */
typedef struct {
    ptrdiff_t runs, n, pitch, sets, apart, alike;
} fc_set;

#define FC_TEMPLATE "norm_template.h"
#include "foreach.h"
#define FC_TEMPLATE "norm_columns_template.h"
#include "foreach.h"

typedef void (*fc_moments_t)(const void *x, fc_set set, double *mean, double *variance);
typedef void (*fc_scale_t)(const void *x, void *y, fc_set set, const double *mean, const double *scale,
                           const double *gamma, const double *beta);
typedef void (*fc_scale_row_t)(const void *x, const void *gamma, const void *beta, void *y, ptrdiff_t n, double mean,
                               double factor);
typedef void (*fc_products_t)(const void *dout, const void *x, fc_set set, const double *mean, const double *scale,
                              double *sums);
typedef void (*fc_products_row_t)(const void *dout, const void *x, const void *gamma, ptrdiff_t n, double mean,
                                  double *sums);
typedef void (*fc_combine_t)(const void *dout, const void *x, void *dx, fc_set set, const double *mean,
                             const double *scale, const double *gamma, const double *of_x, const double *shift);
typedef void (*fc_combine_row_t)(const void *dout, const void *x, const void *gamma, void *dx, ptrdiff_t n,
                                 double mean, double of_dout, double of_x, double shift);
typedef void (*fc_column_moments_t)(const void *x, fc_set set, double *mean, double *variance);
typedef void (*fc_column_scale_t)(const void *x, void *y, fc_set set, const double *mean, const double *factor,
                                  const double *shift);
typedef void (*fc_column_products_t)(const void *dout, const void *x, fc_set set, const double *mean,
                                     const double *factor, ptrdiff_t of_a_row, double *sums);
typedef void (*fc_column_combine_t)(const void *dout, const void *x, void *dx, fc_set set, const double *mean,
                                    const double *of_dout, const double *of_x, const double *shift);
FC_TABLE(fc_moments_t, fc_moments);
FC_TABLE(fc_scale_t, fc_scale);
FC_TABLE(fc_scale_row_t, fc_scale_row);
FC_TABLE(fc_products_t, fc_products);
FC_TABLE(fc_products_row_t, fc_products_row);
FC_TABLE(fc_combine_t, fc_combine);
FC_TABLE(fc_combine_row_t, fc_combine_row);
FC_TABLE(fc_column_moments_t, fc_column_moments);
FC_TABLE(fc_column_scale_t, fc_column_scale);
FC_TABLE(fc_column_products_t, fc_column_products);
FC_TABLE(fc_column_combine_t, fc_column_combine);

#endif /* FASTCONV_NORM_H */
