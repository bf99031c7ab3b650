/* Sums and maxima of planes, for one dtype and instruction set: see planes.h. */
#include "simd/lanes.h"

/* Return the sum of n numbers. Every lane computes short sums in the dtype, because a long sum would lose accuracy. The
 * short sums are added up in double, and the rounding errors of these additions are added to the result. */
static double FC_N(fc_total)(const void *from_, ptrdiff_t n)
{
    enum { SUMS = 4, ROUNDS = 32 };
    const FC_T *from = (const FC_T *)from_;
    double total = 0, lost = 0;
    ptrdiff_t i = 0;
    while (i + FC_VL <= n) {
        FC_V sums[SUMS];
        FC_T each[FC_VL];
        int round, k;
        FC_UNROLL
        for (k = 0; k < SUMS; k++)
            sums[k] = FC_N(fc_broadcast)(0);
        for (round = 0; round < ROUNDS && i + SUMS * FC_VL <= n; round++, i += SUMS * FC_VL) {
            FC_UNROLL
            for (k = 0; k < SUMS; k++)
                sums[k] += FC_N(fc_load)(from + i + k * FC_VL);
        }
        if (round < ROUNDS)
            for (; i + FC_VL <= n; i += FC_VL)
                sums[0] += FC_N(fc_load)(from + i);
        FC_N(fc_store)(each, (sums[0] + sums[1]) + (sums[2] + sums[3]));
        for (k = 0; k < FC_VL; k++)
            total = fc_two_sum(total, (double)each[k], &lost);
    }
    for (; i < n; i++)
        total = fc_two_sum(total, (double)from[i], &lost);
    return total - total == 0 ? total + lost : total;
}

/* Return the index of the first NaN among n > 0 numbers or, if none is NaN, of the first maximum. */
static ptrdiff_t FC_N(fc_highest)(const void *from_, ptrdiff_t n)
{
    enum { PARTS = 4 };
    const FC_T *from = (const FC_T *)from_;
    ptrdiff_t i = 0, at = 0;
    if (n >= PARTS * FC_VL) {
        FC_V best[PARTS];
        FC_I best_index[PARTS], here = FC_N(fc_broadcast_lanes)(0);
        int k, lane;
        for (k = 0; k < PARTS; k++) {
            best[k] = FC_N(fc_load)(from + k * FC_VL);
            best_index[k] = here;
        }
        for (i = PARTS * FC_VL; i + PARTS * FC_VL <= n; i += PARTS * FC_VL) {
            here += FC_N(fc_broadcast_lanes)(PARTS * FC_VL);
            FC_UNROLL
            for (k = 0; k < PARTS; k++) {
                const FC_V value = FC_N(fc_load)(from + i + k * FC_VL);
                const FC_I replaces = FC_N(fc_replaces_maximum)(value, best[k], 1);
                best[k] = FC_N(fc_select)(replaces, value, best[k]);
                best_index[k] = FC_N(fc_select_lanes)(replaces, here, best_index[k]);
            }
        }
        /* If several lanes hold the maximum, take the lowest of their indices. */
        for (k = 0; k < PARTS; k++) {
            FC_L indices[FC_VL];
            *(FC_N(fc_iu) *)indices = best_index[k];
            for (lane = 0; lane < FC_VL; lane++) {
                const ptrdiff_t index = (ptrdiff_t)indices[lane] + k * FC_VL + lane;
                const FC_T value = from[index], maximum = from[at];
                const int equal = value == maximum || (value != value && maximum != maximum);
                if (equal ? index < at : value > maximum || (value != value && maximum == maximum))
                    at = index;
            }
        }
    }
    for (; i < n; i++)
        if (!(from[i] <= from[at]) && from[at] == from[at])
            at = i;
    return at;
}

const fc_planes_kernels FC_N(fc_planes_kernels) = {
    .total = FC_N(fc_total),
    .highest = FC_N(fc_highest),
};
