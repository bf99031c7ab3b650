/* Local response normalisation, for every instruction set. */
#ifndef FASTCONV_LRN_H
#define FASTCONV_LRN_H

#include <math.h>

#include "isa.h"

/* A layer divides each channel by (k + alpha * sum of squares)^beta. The sum runs over the channels from `lo` before it
 * to `hi` after it. alpha is already divided by the size of the window. */
typedef struct {
    ptrdiff_t channels, pitch, lo, hi;
    double alpha, beta, k;
} fc_response;

/* Exponents that square roots can compute, and FC_POWER for any other. */
enum { FC_THREE_QUARTERS, FC_HALF, FC_ONE, FC_POWER };

static inline int fc_power_of(double beta)
{
    return beta == 0.75 ? FC_THREE_QUARTERS : beta == 0.5 ? FC_HALF : beta == 1 ? FC_ONE : FC_POWER;
}

/* What a pass over the windows computes. FC_RESPOND: the output. FC_WEIGH: dout / scale^beta, and the terms that
 * FC_SPREAD sums over windows. FC_SPREAD: the rest of the gradient. */
enum { FC_RESPOND, FC_WEIGH, FC_SPREAD };

typedef void (*fc_lrn_t)(const void *x, void *y, ptrdiff_t n, const fc_response *layer, void *space);
typedef void (*fc_lrn_gradient_t)(const void *dout, const void *x, void *dx, ptrdiff_t n, const fc_response *layer,
                                  void *space);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_lrn_t forward;
    fc_lrn_gradient_t gradient;
} fc_lrn_kernels;

FC_KERNELS(fc_lrn_kernels, fc_lrn_for);

#endif /* FASTCONV_LRN_H */
