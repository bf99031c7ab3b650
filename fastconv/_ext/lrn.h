/* Local response normalisation, for every instruction set. */
#ifndef FASTCONV_LRN_H
#define FASTCONV_LRN_H

#include <math.h>

#include "isa.h"

/* A layer: each channel is divided by (k + alpha * the sum of squares over the channels `lo` before it to `hi`
 * after it) to the power of beta. alpha is already divided by the size of the window. */
typedef struct {
    ptrdiff_t channels, pitch, lo, hi;
    double alpha, beta, k;
} fc_response;

/* Exponents that square roots can compute, and the general one. */
enum { FC_THREE_QUARTERS, FC_HALF, FC_ONE, FC_POWER };

static inline int fc_power_of(double beta)
{
    return beta == 0.75 ? FC_THREE_QUARTERS : beta == 0.5 ? FC_HALF : beta == 1 ? FC_ONE : FC_POWER;
}

/* What a pass over the windows computes: the output; or dout / scale^beta and the terms that are then summed over
 * windows; or the rest of the gradient. */
enum { FC_RESPOND, FC_WEIGH, FC_SPREAD };

#define FC_TEMPLATE "lrn_template.h"
#include "foreach.h"

typedef void (*fc_lrn_t)(const void *x, void *y, ptrdiff_t n, const fc_response *layer, void *space);
typedef void (*fc_lrn_gradient_t)(const void *dout, const void *x, void *dx, ptrdiff_t n, const fc_response *layer,
                                  void *space);
FC_TABLE(fc_lrn_t, fc_lrn);
FC_TABLE(fc_lrn_gradient_t, fc_lrn_gradient);

#endif /* FASTCONV_LRN_H */
