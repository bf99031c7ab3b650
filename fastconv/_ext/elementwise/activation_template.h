/* Kernels of activations for one dtype and instruction set: see activation.h. */
#include "simd/lanes.h"

#undef FC_MAGIC
#undef FC_MANTISSA
#undef FC_BIAS
#undef FC_TERMS
#undef FC_FARTHEST
#if FC_BYTES == 4
/* FC_MAGIC is 1.5 * 2^FC_MANTISSA. Adding FC_MAGIC to a number rounds the number to an integer, and the lowest bits of
 * the sum are this integer. */
#define FC_MAGIC 12582912.0f
#define FC_MANTISSA 23
#define FC_BIAS 127
#define FC_TERMS 8
#define FC_FARTHEST 87.33654f /* exp(-FC_FARTHEST) is about the smallest normal number. */
#else
#define FC_MAGIC 6755399441055744.0
#define FC_MANTISSA 52
#define FC_BIAS 1023
#define FC_TERMS 14
#define FC_FARTHEST 708.396418532264
#endif

/* Reinterpret the bits of floating-point numbers as integers of the same size. fc_from_bits does the reverse. */
FC_INLINE FC_I FC_N(fc_bits)(FC_V v)
{
#if FC_VECTORS
    return (FC_I)v;
#else
    union {
        FC_T value;
        FC_L bits;
    } both;
    both.value = v;
    return both.bits;
#endif
}

FC_INLINE FC_V FC_N(fc_from_bits)(FC_I bits)
{
#if FC_VECTORS
    return (FC_V)bits;
#else
    union {
        FC_T value;
        FC_L bits;
    } both;
    both.bits = bits;
    return both.value;
#endif
}

FC_INLINE FC_V FC_N(fc_magnitude)(FC_V v)
{
    return FC_N(fc_from_bits)(FC_N(fc_bits)(v) & ~FC_N(fc_bits)(FC_N(fc_broadcast)((FC_T)-0.0)));
}

FC_INLINE FC_V FC_N(fc_with_sign_of)(FC_V v, FC_V of)
{
    return FC_N(fc_from_bits)(FC_N(fc_bits)(v) | (FC_N(fc_bits)(of) & FC_N(fc_bits)(FC_N(fc_broadcast)((FC_T)-0.0))));
}

/* Compute e^(-v) - 1 and e^(-v) for v >= 0. If v is NaN, both results are NaN.
 *
 * Let -v = n log(2) + r, where n is an integer and |r| <= log(2) / 2. Then e^(-v) = 2^n e^r. e^r is the sum of the
 * first FC_TERMS terms of 1 + r + r^2 / 2! + ..., because further terms would not change the sum. */
FC_INLINE void FC_N(fc_decay)(FC_V v, FC_V *less_one, FC_V *whole)
{
    /* high + low is log(2). `high` has so few bits that n * high is exact. */
#if FC_BYTES == 4
    const FC_T high = 0.693359375f, low = -2.12194440e-4f;
#else
    const FC_T high = 6.93145751953125e-1, low = 1.42860682030941723212e-6;
#endif
    /* clang-format off */
    static const FC_T inverse_factorials[15] = {
        (FC_T)1, (FC_T)1, (FC_T)(1. / 2), (FC_T)(1. / 6), (FC_T)(1. / 24), (FC_T)(1. / 120), (FC_T)(1. / 720),
        (FC_T)(1. / 5040), (FC_T)(1. / 40320), (FC_T)(1. / 362880), (FC_T)(1. / 3628800), (FC_T)(1. / 39916800),
        (FC_T)(1. / 479001600), (FC_T)(1. / 6227020800.), (FC_T)(1. / 87178291200.)};
    /* clang-format on */
    const FC_V magic = FC_N(fc_broadcast)(FC_MAGIC), farthest = FC_N(fc_broadcast)(FC_FARTHEST);
    const FC_V x = -FC_N(fc_select)(FC_N(fc_replaces_maximum)(v, farthest, 0), farthest, v);
    const FC_V rounded = x * FC_N(fc_broadcast)((FC_T)1.44269504088896340736) + magic, n = rounded - magic;
    const FC_V r = x - n * FC_N(fc_broadcast)(high) - n * FC_N(fc_broadcast)(low);
    const FC_V power = FC_N(fc_from_bits)((FC_N(fc_bits)(rounded) << FC_MANTISSA) +
                                          FC_N(fc_broadcast_lanes)((FC_L)FC_BIAS << FC_MANTISSA));
    FC_V series = FC_N(fc_broadcast)(inverse_factorials[FC_TERMS - 1]);
    int k;
    FC_UNROLL
    for (k = FC_TERMS - 2; k >= 2; k--)
        series = series * r + FC_N(fc_broadcast)(inverse_factorials[k]);
    series = series * r * r + r;
    *less_one = power * series + (power - FC_N(fc_broadcast)(1));
    *whole = power * series + power;
}

FC_INLINE FC_V FC_N(fc_sigmoid_of)(FC_V x)
{
    FC_V less_one, e;
    const FC_V one = FC_N(fc_broadcast)(1), size = FC_N(fc_magnitude)(x);
    FC_N(fc_decay)(size, &less_one, &e);
    /* If e^(-|x|) is below the smallest normal number, replace it by 0. */
    e = FC_N(fc_select)(FC_N(fc_replaces_maximum)(size, FC_N(fc_broadcast)(FC_FARTHEST), 0), FC_N(fc_broadcast)(0), e);
    return FC_N(fc_select)(FC_N(fc_replaces_maximum)(FC_N(fc_broadcast)(0), x, 0), e, one) / (one + e);
}

FC_INLINE FC_V FC_N(fc_tanh_of)(FC_V x)
{
    /* |tanh(x)| = (1 - e) / (1 + e), where e is exp(-2 |x|). fc_decay computes e - 1 (`less_one`) directly, because
     * subtracting 1 from e would lose digits for small x. */
    FC_V less_one, e;
    const FC_V size = FC_N(fc_magnitude)(x);
    FC_N(fc_decay)(size + size, &less_one, &e);
    return FC_N(fc_with_sign_of)(FC_N(fc_magnitude)(less_one / (FC_N(fc_broadcast)(1) + e)), x);
}

/* Select `from` in lanes where `sign` is above 0, and `other` elsewhere. If `nan` is set, `from` is also selected in
 * lanes where `sign` is NaN. */
FC_INLINE FC_V FC_N(fc_where_positive)(FC_V sign, FC_V from, FC_V other, const int nan)
{
    return FC_N(fc_select)(FC_N(fc_replaces_maximum)(sign, FC_N(fc_broadcast)(0), nan), from, other);
}

/* Define a kernel that processes one vector at a time. The second vector may overlap the first, so that all stores
 * after the first are aligned to the vector size. If the last vector is incomplete, it is copied to an array and filled
 * up with zeros. */
#define FC_FUNCTION(name, a, b, expression)                                                                   \
    static void FC_N(name)(const void *first_, const void *second_, void *to_, ptrdiff_t count, double slope) \
    {                                                                                                         \
        const FC_T *first = (const FC_T *)first_, *second = (const FC_T *)second_;                            \
        FC_T *to = (FC_T *)to_;                                                                               \
        const FC_V leak = FC_N(fc_broadcast)((FC_T)slope);                                                    \
        ptrdiff_t i = 0, next = FC_VL - (ptrdiff_t)((size_t)to / FC_BYTES % FC_VL);                           \
        (void)leak;                                                                                           \
        for (; i + FC_VL <= count; i = next, next += FC_VL) {                                                 \
            const FC_V a = FC_N(fc_load)(first + i), b = FC_N(fc_load)(second + i);                           \
            (void)b;                                                                                          \
            FC_N(fc_store)(to + i, expression);                                                               \
        }                                                                                                     \
        if (i < count) {                                                                                      \
            FC_T rest[3][FC_VL] = {{0}};                                                                      \
            ptrdiff_t k;                                                                                      \
            for (k = i; k < count; k++) {                                                                     \
                rest[0][k - i] = first[k];                                                                    \
                rest[1][k - i] = second[k];                                                                   \
            }                                                                                                 \
            {                                                                                                 \
                const FC_V a = FC_N(fc_load)(rest[0]), b = FC_N(fc_load)(rest[1]);                            \
                (void)b;                                                                                      \
                FC_N(fc_store)(rest[2], expression);                                                          \
            }                                                                                                 \
            for (k = i; k < count; k++)                                                                       \
                to[k] = rest[2][k - i];                                                                       \
        }                                                                                                     \
    }

FC_FUNCTION(fc_rectify, x, from, FC_N(fc_where_positive)(x, from, FC_N(fc_broadcast)(0), 1))
FC_FUNCTION(fc_rectify_gradient, x, dout, FC_N(fc_where_positive)(x, dout, FC_N(fc_broadcast)(0), 0))
FC_FUNCTION(fc_leak, x, from, FC_N(fc_where_positive)(x, from, from *leak, 0))
FC_FUNCTION(fc_sigmoid, x, same, FC_N(fc_sigmoid_of)(x))
FC_FUNCTION(fc_sigmoid_gradient, y, dout, dout * y * (FC_N(fc_broadcast)(1) - y))
FC_FUNCTION(fc_tanh, x, same, FC_N(fc_tanh_of)(x))
FC_FUNCTION(fc_tanh_gradient, y, dout, dout *(FC_N(fc_broadcast)(1) - y * y))
#undef FC_FUNCTION

const fc_activation_kernels FC_N(fc_activation_kernels) = {
    .rectify = FC_N(fc_rectify),
    .rectify_gradient = FC_N(fc_rectify_gradient),
    .leak = FC_N(fc_leak),
    .sigmoid = FC_N(fc_sigmoid),
    .sigmoid_gradient = FC_N(fc_sigmoid_gradient),
    .tanh = FC_N(fc_tanh),
    .tanh_gradient = FC_N(fc_tanh_gradient),
};
