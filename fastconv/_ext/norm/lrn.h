/* Local response normalisation, for every instruction set. */
#ifndef FASTCONV_LRN_H
#define FASTCONV_LRN_H

#include <math.h>

#include "simd/isa.h"

/* The layer divides each element by (k + alpha * sum of squares)^beta. The squares are those of the elements at the
 * same position in a window of neighbouring channels. */
typedef struct {
    ptrdiff_t channels; /* the number of channels */
    ptrdiff_t pitch;    /* the number of elements of a channel */
    ptrdiff_t lo, hi;   /* the number of channels of a window before and after the channel that is divided */
    double alpha;       /* the factor of the sum, already divided by the size of the window */
    double beta, k;
} fc_response;

/* The exponent beta: 3/4, 1/2, 1, or any other number (FC_POWER). For the first three, the power is computed with
 * square roots and divisions. */
enum { FC_THREE_QUARTERS, FC_HALF, FC_ONE, FC_POWER };

static inline int fc_power_of(double beta)
{
    return beta == 0.75 ? FC_THREE_QUARTERS : beta == 0.5 ? FC_HALF : beta == 1 ? FC_ONE : FC_POWER;
}

/* The passes over the windows. `scale` is k + alpha * sum of squares.
 * - FC_RESPOND computes the output.
 * - FC_WEIGH computes dout / scale^beta, the first term of dx, and the products dout * x / scale^(beta + 1).
 * - FC_SPREAD sums these products over windows for the second term of dx, and adds it to the first term. */
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
