/* The kernels of planes for one dtype and instruction set: see planes.h. */
#include "lanes.h"

/* to = from where sign is more than zero, or with `nan` NaN as well, and zero elsewhere. */
FC_INLINE void FC_N(fc_where_positive)(const FC_T *sign, const FC_T *from, FC_T *to, ptrdiff_t n, const int nan)
{
    const FC_V zero = FC_N(fc_splat)(0);
    /* The first vector reaches into the second, from which on none is stored across lines of the cache. */
    ptrdiff_t i = 0, next = FC_VL - (ptrdiff_t)((size_t)to / FC_BYTES % FC_VL);
    for (; i + FC_VL <= n; i = next, next += FC_VL) {
        const FC_V of = FC_N(fc_load)(sign + i);
        FC_N(fc_store)(to + i, FC_N(fc_pick)(FC_N(fc_takes)(of, zero, nan), FC_N(fc_load)(from + i), zero));
    }
    for (; i < n; i++)
        to[i] = (nan ? !(sign[i] <= 0) : sign[i] > 0) ? from[i] : 0;
}

static void FC_N(fc_rectify)(const void *sign, const void *from, void *to, ptrdiff_t n)
{
    FC_N(fc_where_positive)((const FC_T *)sign, (const FC_T *)from, (FC_T *)to, n, 1);
}

static void FC_N(fc_rectify_gradient)(const void *sign, const void *from, void *to, ptrdiff_t n)
{
    FC_N(fc_where_positive)((const FC_T *)sign, (const FC_T *)from, (FC_T *)to, n, 0);
}

/* The sum of n numbers: short ones of every lane, added up in double, so that a long float sum does not drift. */
static double FC_N(fc_total)(const void *from_, ptrdiff_t n)
{
    enum { SUMS = 4, ROUNDS = 32 };
    const FC_T *from = (const FC_T *)from_;
    double total = 0;
    ptrdiff_t i = 0;
    while (i + FC_VL <= n) {
        FC_V sums[SUMS];
        FC_T each[FC_VL];
        int round, k;
        FC_UNROLL
        for (k = 0; k < SUMS; k++)
            sums[k] = FC_N(fc_splat)(0);
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
            total += each[k];
    }
    for (; i < n; i++)
        total += from[i];
    return total;
}

/* Where the first maximum of n > 0 numbers is, or the first NaN. */
static ptrdiff_t FC_N(fc_highest)(const void *from_, ptrdiff_t n)
{
    enum { PARTS = 4 };
    const FC_T *from = (const FC_T *)from_;
    ptrdiff_t i = 0, at = 0;
    if (n >= PARTS * FC_VL) {
        FC_V best[PARTS];
        FC_I held[PARTS], here = FC_N(fc_splat_lanes)(0);
        int k, lane;
        for (k = 0; k < PARTS; k++) {
            best[k] = FC_N(fc_load)(from + k * FC_VL);
            held[k] = here;
        }
        for (i = PARTS * FC_VL; i + PARTS * FC_VL <= n; i += PARTS * FC_VL) {
            here += FC_N(fc_splat_lanes)(PARTS * FC_VL);
            FC_UNROLL
            for (k = 0; k < PARTS; k++) {
                const FC_V value = FC_N(fc_load)(from + i + k * FC_VL);
                const FC_I take = FC_N(fc_takes)(value, best[k], 1);
                best[k] = FC_N(fc_pick)(take, value, best[k]);
                held[k] = FC_N(fc_pick_lanes)(take, here, held[k]);
            }
        }
        /* Of equal ones in different lanes the first counts. */
        for (k = 0; k < PARTS; k++) {
            FC_L places[FC_VL];
            *(FC_N(fc_iu) *)places = held[k];
            for (lane = 0; lane < FC_VL; lane++) {
                const ptrdiff_t place = (ptrdiff_t)places[lane] + k * FC_VL + lane;
                const FC_T value = from[place], most = from[at];
                const int same = value == most || (value != value && most != most);
                if (same ? place < at : value > most || (value != value && most == most))
                    at = place;
            }
        }
    }
    for (; i < n; i++)
        if (!(from[i] <= from[at]) && from[at] == from[at])
            at = i;
    return at;
}
