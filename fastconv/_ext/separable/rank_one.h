/* Functions that test whether a kernel is an outer product of one factor for each axis, and compute these factors. */
#ifndef FASTCONV_RANK_ONE_H
#define FASTCONV_RANK_ONE_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "buffers/runs.h"

/* A weight that differs from the product of the factors at the same index. */
typedef struct {
    ptrdiff_t index; /* the index of the weight in the kernel */
    double value;    /* the weight */
    double product;  /* the product of the factors at this index */
} fc_mismatch;

/* Return the number of doubles of the workspace that fc_factor_f32 and fc_factor_f64 need. */
static inline ptrdiff_t fc_factor_space(const ptrdiff_t k[3]) { return 2 * (k[0] + k[1] + k[2]); }

/* If all `k` numbers are integers of at most `bits` bits times a common power of two, divide them by their greatest
 * common divisor, and return the divisor. Otherwise, change nothing and return 0. */
static inline double fc_primitive(double *a, ptrdiff_t k, int bits)
{
    ptrdiff_t i;
    int low = INT32_MAX, high = INT32_MIN, exponent;
    uint64_t divisor = 0;
    for (i = 0; i < k; i++)
        if (a[i] != 0) {
            uint64_t integer = (uint64_t)ldexp(fabs(frexp(a[i], &exponent)), 53);
            high = exponent > high ? exponent : high;
            for (exponent -= 53; !(integer & 1); integer >>= 1)
                exponent++;
            low = exponent < low ? exponent : low;
            if (high - low > bits)
                return 0;
        }
    for (i = 0; i < k && divisor != 1; i++) {
        uint64_t remainder = (uint64_t)ldexp(fabs(a[i]), -low), swap;
        for (; remainder; divisor = remainder, remainder = swap)
            swap = divisor ? divisor % remainder : 0;
    }
    for (i = 0; i < k; i++)
        a[i] = ldexp(a[i], -low) / (double)divisor;
    return ldexp((double)divisor, low);
}

#define FC_T float
#define FC_BITS int32_t
#define FC_MANTISSA FLT_MANT_DIG
#define FC_MAGNITUDE INT32_MAX
#define FC_LEAST 1.401298464324817e-45
#define FC_F(name) name##_f32
#include "separable/rank_one_template.h"
#undef FC_T
#undef FC_BITS
#undef FC_MANTISSA
#undef FC_MAGNITUDE
#undef FC_LEAST
#undef FC_F

#define FC_T double
#define FC_BITS int64_t
#define FC_MANTISSA DBL_MANT_DIG
#define FC_MAGNITUDE INT64_MAX
#define FC_LEAST 4.9406564584124654e-324
#define FC_F(name) name##_f64
#include "separable/rank_one_template.h"
#undef FC_T
#undef FC_BITS
#undef FC_MANTISSA
#undef FC_MAGNITUDE
#undef FC_LEAST
#undef FC_F

#endif /* FASTCONV_RANK_ONE_H */
