/* Kernels of normalisation for one dtype and instruction set: see norm.h.
 *
 * Every lane computes short sums in the dtype, and the short sums are added up in double, because long sums in the
 * dtype would lose accuracy. Means are doubles. A kernel rounds the mean to the dtype, and corrects in double the sums
 * that depend on the rounding. */
#include "lanes.h"

#undef FC_PART
/* The number of elements that are summed in the dtype before the sum is added to a double. It is 32 elements in each
 * lane of four vectors. */
#define FC_PART (128 * FC_VL)

/* The sums that are computed over a set. FC_SUM_OF_X: the sum of x. FC_SUM_OF_SQUARES: the sum of (x - mean)^2, and the
 * sum of x - mean. FC_SUM_OF_PRODUCTS: the sum of dout, and the sum of dout * (x - mean). FC_SUM_OF_WEIGHED: the sums
 * of FC_SUM_OF_PRODUCTS with gamma * dout in place of dout. */
#ifndef FC_SUM_OF_X
#define FC_SUM_OF_X 0
#define FC_SUM_OF_SQUARES 1
#define FC_SUM_OF_PRODUCTS 2
#define FC_SUM_OF_WEIGHED 3
#endif

typedef struct {
    const FC_T *x, *dout, *gamma;
    FC_V mean, first[4], second[4];
} FC_N(fc_sum);

/* Add the terms of the vector that starts at element i to the sums first[k] and second[k]. `what` is one of
 * FC_SUM_OF_*. If `masked` is 1, lanes outside `mask` add nothing. */
FC_INLINE void FC_N(fc_add_at)(FC_N(fc_sum) *s, ptrdiff_t i, int k, const int what, const int masked, FC_I mask)
{
    const FC_V zero = FC_N(fc_broadcast)(0), x = FC_N(fc_load)(s->x + i), off = x - s->mean;
    FC_V term = what == FC_SUM_OF_X ? x : off;
    if (what >= FC_SUM_OF_PRODUCTS)
        term = FC_N(fc_load)(s->dout + i);
    if (what == FC_SUM_OF_WEIGHED)
        term *= FC_N(fc_load)(s->gamma + i);
    if (masked)
        term = FC_N(fc_select)(mask, term, zero);
    if (what == FC_SUM_OF_SQUARES) {
        s->first[k] += term * term;
        s->second[k] += term;
    } else {
        s->first[k] += term;
        /* Clear the lanes outside the mask instead of multiplying them by 0, because they may hold inf. */
        if (what >= FC_SUM_OF_PRODUCTS)
            s->second[k] += term * (masked ? FC_N(fc_select)(mask, off, zero) : off);
    }
}

/* Add up four vectors lane by lane. If the result has more than FC_TL lanes, add its upper half to its lower half,
 * because larger vectors cannot be transposed. */
FC_INLINE FC_N(fc_t) FC_N(fc_fold)(const FC_V v[4])
{
    FC_T lanes[FC_VL];
    FC_N(fc_t) few;
    FC_N(fc_store)(lanes, (v[0] + v[1]) + (v[2] + v[3]));
    few = *(const FC_N(fc_tu) *)lanes;
    if (FC_VL > FC_TL)
        few += *(const FC_N(fc_tu) *)(lanes + FC_VL - FC_TL);
    return few;
}

/* Return the sum of all lanes of four vectors. The upper half of the lanes is added to the lower half until one lane is
 * left, because a chain of dependent additions would take longer. */
FC_INLINE double FC_N(fc_lanes_total)(const FC_V v[4])
{
    FC_T few[FC_TL];
    double sums[FC_TL];
    int i, half;
    *(FC_N(fc_tu) *)few = FC_N(fc_fold)(v);
    for (i = 0; i < FC_TL; i++)
        sums[i] = few[i];
    FC_UNROLL
    for (half = FC_TL / 2; half > 0; half /= 2) {
        FC_UNROLL
        for (i = 0; i < half; i++)
            sums[i] += sums[i + half];
    }
    return sums[0];
}

/* Compute the sums over a part of a set: `runs` runs of n elements, whose starts are `pitch` elements apart. A part has
 * at most about FC_PART elements. The elements of runs that are shorter than a vector are summed in *first and *second.
 * All other elements are summed in the vectors of the returned struct. */
FC_INLINE FC_N(fc_sum) FC_N(fc_gather)(const FC_T *x, const FC_T *dout, const FC_T *gamma, ptrdiff_t runs, ptrdiff_t n,
                                       ptrdiff_t pitch, FC_T mean, const int what, double *first, double *second)
{
    FC_N(fc_sum) s;
    /* The last vector of a run ends at the end of the run. The mask excludes the lanes that were already summed. */
    const FC_I rest = FC_N(fc_less)(FC_N(fc_broadcast_lanes)((FC_L)(FC_VL - 1 - n % FC_VL)), FC_N(fc_iota)());
    double few = 0, few_second = 0;
    ptrdiff_t r, i;
    int k;
    s.mean = FC_N(fc_broadcast)(mean);
    s.gamma = gamma;
    FC_UNROLL
    for (k = 0; k < 4; k++)
        s.first[k] = s.second[k] = FC_N(fc_broadcast)(0);
    for (r = 0; r < runs; r++) {
        s.x = x + r * pitch;
        s.dout = dout + r * pitch;
        for (i = 0; i + 4 * FC_VL <= n; i += 4 * FC_VL) {
            FC_UNROLL
            for (k = 0; k < 4; k++)
                FC_N(fc_add_at)(&s, i + k * FC_VL, k, what, 0, rest);
        }
        FC_UNROLL
        for (k = 0; k < 3; k++)
            if (i + FC_VL <= n) {
                FC_N(fc_add_at)(&s, i, k, what, 0, rest);
                i += FC_VL;
            }
        if (i < n && n >= FC_VL) {
            FC_N(fc_add_at)(&s, n - FC_VL, 3, what, 1, rest);
        } else {
            for (; i < n; i++) {
                const double off = (double)s.x[i] - mean;
                const double d = what < FC_SUM_OF_PRODUCTS ? 0 : what == FC_SUM_OF_WEIGHED ? (double)s.dout[i] * gamma[i]
                                                                                           : (double)s.dout[i];
                few += what == FC_SUM_OF_X ? s.x[i] : what == FC_SUM_OF_SQUARES ? off * off : d;
                few_second += what == FC_SUM_OF_SQUARES ? off : d * off;
            }
        }
    }
    *first = few;
    *second = few_second;
    return s;
}

/* Compute the sums over a part of a set, and add them to *first and *second. */
FC_INLINE void FC_N(fc_add_part)(const FC_T *x, const FC_T *dout, const FC_T *gamma, ptrdiff_t runs, ptrdiff_t n,
                                 ptrdiff_t pitch, FC_T mean, const int what, double *first, double *second)
{
    double few, few_second;
    const FC_N(fc_sum) s = FC_N(fc_gather)(x, dout, gamma, runs, n, pitch, mean, what, &few, &few_second);
    *first += few + FC_N(fc_lanes_total)(s.first);
    if (what != FC_SUM_OF_X)
        *second += few_second + FC_N(fc_lanes_total)(s.second);
}

/* Return whether sets are short. For a short set, adding up the lanes of its sums takes as long as the rest, so the
 * lanes of several short sets are added up together. The number of sets that a thread processes in one call must not
 * influence this choice, because the sums of a set would then depend on that number. */
FC_INLINE int FC_N(fc_is_short)(fc_set set)
{
    return (set.sets > 1 || !set.alike) && set.runs * set.n <= 8 * FC_VL;
}

/* Compute the sums of `count` short sets, where count <= FC_TL. The vectors of partial sums are transposed and then
 * added, so that lane c has the sum of set c. */
FC_INLINE void FC_N(fc_short_sums)(const FC_T *x, const FC_T *dout, fc_set set, ptrdiff_t count, const FC_T *means,
                                   const int what, double *first, double *second)
{
    FC_N(fc_t) lanes[FC_TL], more[FC_TL];
    FC_T totals[FC_TL], more_totals[FC_TL];
    ptrdiff_t c;
    int i;
    memset(lanes, 0, sizeof lanes);
    memset(more, 0, sizeof more);
    for (c = 0; c < count; c++) {
        const ptrdiff_t at = c * set.apart;
        const FC_N(fc_sum) s = FC_N(fc_gather)(x + at, dout + at, x, set.runs, set.n, set.pitch, means[c], what,
                                               first + c, second + c);
        lanes[c] = FC_N(fc_fold)(s.first);
        more[c] = FC_N(fc_fold)(s.second);
    }
    FC_N(fc_transpose)(lanes);
    FC_N(fc_transpose)(more);
    FC_UNROLL
    for (i = 1; i < FC_TL; i++) {
        lanes[0] += lanes[i];
        more[0] += more[i];
    }
    *(FC_N(fc_tu) *)totals = lanes[0];
    *(FC_N(fc_tu) *)more_totals = more[0];
    for (c = 0; c < count; c++) {
        first[c] += totals[c];
        second[c] += more_totals[c];
    }
}

/* Compute the mean and the variance of one set. The mean and the variance of each part of the set are computed while
 * the part is in the cache. They are then combined with the mean and the variance of the earlier parts (T. Chan, G.
 * Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"). */
FC_INLINE void FC_N(fc_moments_of_one)(const FC_T *x, fc_set set, double *mean, double *variance)
{
    const ptrdiff_t piece = set.n < FC_PART ? set.n : FC_PART, rows = set.runs == 1 ? 1 : FC_PART / piece;
    double count = 0, middle = 0, squares = 0;
    ptrdiff_t r, at;
    for (r = 0; r < set.runs; r += rows)
        for (at = 0; at < set.n; at += piece) {
            const FC_T *part = x + r * set.pitch + at;
            const ptrdiff_t runs = rows < set.runs - r ? rows : set.runs - r;
            const ptrdiff_t n = piece < set.n - at ? piece : set.n - at;
            const double k = (double)runs * (double)n;
            double sum = 0, own = 0, rest = 0, off;
            FC_T about;
            FC_N(fc_add_part)(part, part, part, runs, n, set.pitch, 0, FC_SUM_OF_X, &sum, &rest);
            /* `about` is the mean of the part, rounded to the dtype. The mean of x - about is the rounding error, so it
             * is added. */
            about = (FC_T)(sum / k);
            FC_N(fc_add_part)(part, part, part, runs, n, set.pitch, about, FC_SUM_OF_SQUARES, &own, &rest);
            off = about + rest / k - middle;
            squares += own - rest * (rest / k) + off * off * (count * k / (count + k));
            count += k;
            middle += off * (k / count);
        }
    *mean = middle;
    *variance = squares > 0 ? squares / count : squares * 0; /* This keeps NaN. */
}

FC_INLINE void FC_N(fc_short_moments)(const FC_T *x, fc_set set, ptrdiff_t count, double *mean, double *variance)
{
    const double share = 1 / ((double)set.runs * (double)set.n);
    FC_T about[FC_TL] = {0};
    double rest[FC_TL];
    ptrdiff_t c;
    FC_N(fc_short_sums)(x, x, set, count, about, FC_SUM_OF_X, mean, rest);
    for (c = 0; c < count; c++)
        about[c] = (FC_T)(mean[c] * share);
    FC_N(fc_short_sums)(x, x, set, count, about, FC_SUM_OF_SQUARES, variance, rest);
    for (c = 0; c < count; c++) {
        const double off = rest[c] * share, spread = variance[c] * share - off * off;
        mean[c] = about[c] + off;
        variance[c] = spread > 0 ? spread : spread * 0;
    }
}

static void FC_N(fc_moments)(const void *x_, fc_set set, double *mean, double *variance)
{
    const FC_T *x = (const FC_T *)x_;
    const ptrdiff_t step = FC_N(fc_is_short)(set) ? FC_TL : 1;
    ptrdiff_t c;
    for (c = 0; c < set.sets; c += step) {
        if (step == FC_TL && FC_TL > 1)
            FC_N(fc_short_moments)(x + c * set.apart, set, step < set.sets - c ? step : set.sets - c, mean + c,
                                   variance + c);
        else
            FC_N(fc_moments_of_one)(x + c * set.apart, set, mean + c, variance + c);
    }
}

/* Compute y = (x - mean) * factor + shift for n elements. If `row` is 1, each element is then multiplied by its gamma,
 * and its beta is added. If n is not a multiple of the vector length, the last vector overlaps the previous vector. */
FC_INLINE void FC_N(fc_scale_run)(const FC_T *x, const FC_T *gamma, const FC_T *beta, FC_T *y, ptrdiff_t n,
                                  double mean, double factor, double shift, const int row)
{
    const FC_T m = (FC_T)mean, f = (FC_T)factor, b = (FC_T)(shift - (mean - m) * factor);
    const FC_V vm = FC_N(fc_broadcast)(m), vf = FC_N(fc_broadcast)(f), vb = FC_N(fc_broadcast)(b);
    ptrdiff_t i;
    if (n < FC_VL) {
        for (i = 0; i < n; i++) {
            const FC_T scaled = (x[i] - m) * f + b;
            y[i] = row ? scaled * gamma[i] + beta[i] : scaled;
        }
        return;
    }
    for (i = 0; i < n; i += FC_VL) {
        FC_V v;
        if (i + FC_VL > n)
            i = n - FC_VL;
        v = (FC_N(fc_load)(x + i) - vm) * vf + vb;
        FC_N(fc_store)(y + i, row ? v * FC_N(fc_load)(gamma + i) + FC_N(fc_load)(beta + i) : v);
    }
}

static void FC_N(fc_scale)(const void *x_, void *y_, fc_set set, const double *mean, const double *scale,
                           const double *gamma, const double *beta)
{
    ptrdiff_t c, r;
    for (c = 0; c < set.sets; c++) {
        const ptrdiff_t own = set.alike ? 0 : c;
        const double middle = mean[own], factor = scale[own] * gamma[c], shift = beta[c];
        const FC_T *x = (const FC_T *)x_ + c * set.apart;
        FC_T *y = (FC_T *)y_ + c * set.apart;
        for (r = 0; r < set.runs; r++)
            FC_N(fc_scale_run)(x + r * set.pitch, NULL, NULL, y + r * set.pitch, set.n, middle, factor, shift, 0);
    }
}

static void FC_N(fc_scale_row)(const void *x, const void *gamma, const void *beta, void *y, ptrdiff_t n, double mean,
                               double factor)
{
    FC_N(fc_scale_run)((const FC_T *)x, (const FC_T *)gamma, (const FC_T *)beta, (FC_T *)y, n, mean, factor, 0, 1);
}

/* Write the sum of dout and the sum of dout * (x - mean) over one set to `sums`. For FC_SUM_OF_WEIGHED, dout is first
 * multiplied by gamma. */
FC_INLINE void FC_N(fc_add_products)(const FC_T *dout, const FC_T *x, const FC_T *gamma, fc_set set, double mean,
                                     double *sums, const int what)
{
    const ptrdiff_t piece = set.n < FC_PART ? set.n : FC_PART, rows = set.runs == 1 ? 1 : FC_PART / piece;
    const FC_T m = (FC_T)mean;
    ptrdiff_t r, at;
    sums[0] = sums[1] = 0;
    for (r = 0; r < set.runs; r += rows)
        for (at = 0; at < set.n; at += piece) {
            const ptrdiff_t begin = r * set.pitch + at, runs = rows < set.runs - r ? rows : set.runs - r;
            const ptrdiff_t n = piece < set.n - at ? piece : set.n - at;
            FC_N(fc_add_part)(x + begin, dout + begin, gamma + begin, runs, n, set.pitch, m, what, sums, sums + 1);
        }
    sums[1] -= (mean - m) * sums[0];
}

/* For each set, compute the sum of dout and the sum of dout * (x - mean) * scale. */
static void FC_N(fc_products)(const void *dout_, const void *x_, fc_set set, const double *mean, const double *scale,
                              double *sums)
{
    const FC_T *dout = (const FC_T *)dout_, *x = (const FC_T *)x_;
    const ptrdiff_t step = FC_N(fc_is_short)(set) ? FC_TL : 1;
    ptrdiff_t c, i;
    for (c = 0; c < set.sets; c += step) {
        const ptrdiff_t at = c * set.apart, own = set.alike ? 0 : c;
        if (step == FC_TL && FC_TL > 1) {
            const ptrdiff_t count = step < set.sets - c ? step : set.sets - c;
            FC_T middle[FC_TL];
            double first[FC_TL], second[FC_TL];
            for (i = 0; i < count; i++)
                middle[i] = (FC_T)mean[set.alike ? 0 : c + i];
            FC_N(fc_short_sums)(x + at, dout + at, set, count, middle, FC_SUM_OF_PRODUCTS, first, second);
            for (i = 0; i < count; i++) {
                const double cut = mean[set.alike ? 0 : c + i] - middle[i];
                sums[2 * (c + i)] = first[i];
                sums[2 * (c + i) + 1] = (second[i] - cut * first[i]) * scale[set.alike ? 0 : c + i];
            }
        } else {
            FC_N(fc_add_products)(dout + at, x + at, x, set, mean[own], sums + 2 * c, FC_SUM_OF_PRODUCTS);
            sums[2 * c + 1] *= scale[own];
        }
    }
}

static void FC_N(fc_products_row)(const void *dout, const void *x, const void *gamma, ptrdiff_t n, double mean,
                                  double *sums)
{
    const fc_set set = {1, n, n, 1, n, 0};
    FC_N(fc_add_products)((const FC_T *)dout, (const FC_T *)x, (const FC_T *)gamma, set, mean, sums, FC_SUM_OF_WEIGHED);
}

/* Compute dx = of_dout * dout + of_x * (x - mean) + shift for n elements. If `row` is 1, dout is first multiplied by
 * gamma. */
FC_INLINE void FC_N(fc_combine_run)(const FC_T *dout, const FC_T *x, const FC_T *gamma, FC_T *dx, ptrdiff_t n,
                                    double mean, double of_dout, double of_x, double shift, const int row)
{
    const FC_T m = (FC_T)mean, a = (FC_T)of_dout, b = (FC_T)of_x, c = (FC_T)(shift - (mean - m) * of_x);
    const FC_V vm = FC_N(fc_broadcast)(m), va = FC_N(fc_broadcast)(a), vb = FC_N(fc_broadcast)(b),
        vc = FC_N(fc_broadcast)(c);
    ptrdiff_t i;
    if (n < FC_VL) {
        for (i = 0; i < n; i++)
            dx[i] = (row ? dout[i] * gamma[i] : dout[i]) * a + ((x[i] - m) * b + c);
        return;
    }
    for (i = 0; i < n; i += FC_VL) {
        FC_V v;
        if (i + FC_VL > n)
            i = n - FC_VL;
        v = FC_N(fc_load)(dout + i);
        if (row)
            v *= FC_N(fc_load)(gamma + i);
        FC_N(fc_store)(dx + i, v * va + ((FC_N(fc_load)(x + i) - vm) * vb + vc));
    }
}

/* Compute dx = scale * gamma * dout + of_x * (x - mean) + shift for each set. */
static void FC_N(fc_combine)(const void *dout_, const void *x_, void *dx_, fc_set set, const double *mean,
                             const double *scale, const double *gamma, const double *of_x, const double *shift)
{
    ptrdiff_t c, r;
    for (c = 0; c < set.sets; c++) {
        const ptrdiff_t own = set.alike ? 0 : c, at = c * set.apart;
        const double middle = mean[own], factor = scale[own] * gamma[c], of_own_x = of_x[own], own_shift = shift[own];
        for (r = 0; r < set.runs; r++) {
            const ptrdiff_t run = at + r * set.pitch;
            FC_N(fc_combine_run)((const FC_T *)dout_ + run, (const FC_T *)x_ + run, NULL, (FC_T *)dx_ + run, set.n,
                                 middle, factor, of_own_x, own_shift, 0);
        }
    }
}

static void FC_N(fc_combine_row)(const void *dout, const void *x, const void *gamma, void *dx, ptrdiff_t n,
                                 double mean, double of_dout, double of_x, double shift)
{
    FC_N(fc_combine_run)((const FC_T *)dout, (const FC_T *)x, (const FC_T *)gamma, (FC_T *)dx, n, mean, of_dout, of_x,
                         shift, 1);
}
