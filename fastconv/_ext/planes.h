/* Sums and maxima of contiguous planes, for every instruction set. */
#ifndef FASTCONV_PLANES_H
#define FASTCONV_PLANES_H

#include "isa.h"

/* Return a + b, and add the rounding error to *lost (D. Knuth, The Art of Computer Programming 2, 4.2.2). */
static inline double fc_two_sum(double a, double b, double *lost)
{
    const double sum = a + b, part = sum - a;
    *lost += (a - (sum - part)) + (b - part);
    return sum;
}

#define FC_TEMPLATE "planes_template.h"
#include "foreach.h"

typedef double (*fc_total_t)(const void *from, ptrdiff_t n);
typedef ptrdiff_t (*fc_highest_t)(const void *from, ptrdiff_t n);
FC_TABLE(fc_total_t, fc_total);
FC_TABLE(fc_highest_t, fc_highest);

#endif /* FASTCONV_PLANES_H */
