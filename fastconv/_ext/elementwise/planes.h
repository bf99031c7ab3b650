/* Sums and maxima of contiguous planes, for every instruction set. A plane is one channel of one image. */
#ifndef FASTCONV_PLANES_H
#define FASTCONV_PLANES_H

#include "simd/isa.h"

/* Return a + b, and add the rounding error to *lost (D. Knuth, The Art of Computer Programming 2, 4.2.2). */
static inline double fc_two_sum(double a, double b, double *lost)
{
    const double sum = a + b, part = sum - a;
    *lost += (a - (sum - part)) + (b - part);
    return sum;
}

typedef double (*fc_total_t)(const void *from, ptrdiff_t n);
typedef ptrdiff_t (*fc_highest_t)(const void *from, ptrdiff_t n);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_total_t total;
    fc_highest_t highest;
} fc_planes_kernels;

FC_KERNELS(fc_planes_kernels, fc_planes_for);

#endif /* FASTCONV_PLANES_H */
