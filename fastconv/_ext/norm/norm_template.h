/* Kernels of normalisation for one dtype and instruction set: see norm.h.
 *
 * Long sums in the dtype would lose accuracy. So every lane computes short sums in the dtype, and the short sums are
 * added up in double. A mean is a double, but kernels subtract the mean rounded to the dtype. The sums are then
 * corrected for this rounding, in double. */
#include "simd/lanes.h"

#undef FC_PART
/* The number of elements that are summed in the dtype before the sum is added to a double: 32 elements in each lane of
 * four vectors. */
#define FC_PART (128 * FC_VL)

/* The sums that are computed over a group.
 * - FC_SUM_OF_X: the sum of x.
 * - FC_SUM_OF_SQUARES: the sum of (x - mean)^2, and the sum of x - mean.
 * - FC_SUM_OF_PRODUCTS: the sum of dout, and the sum of dout * (x - mean).
 * - FC_SUM_OF_WEIGHTED: the sums of FC_SUM_OF_PRODUCTS, with gamma * dout in place of dout. */
#ifndef FC_SUM_OF_X
#define FC_SUM_OF_X 0
#define FC_SUM_OF_SQUARES 1
#define FC_SUM_OF_PRODUCTS 2
#define FC_SUM_OF_WEIGHTED 3
#endif

typedef struct {
    const FC_T *x, *dout, *gamma;
    FC_V mean, first[4], second[4];
} FC_N(fc_sum);

/* Add the terms of the vector that starts at element i to the sums first[k] and second[k]. `sum_kind` is one of
 * FC_SUM_OF_*. If `masked` is 1, lanes outside `mask` add nothing. */
FC_INLINE void FC_N(fc_add_vector)(FC_N(fc_sum) *s, ptrdiff_t i, int k, const int sum_kind, const int masked, FC_I mask)
{
    const FC_V zero = FC_N(fc_broadcast)(0), x = FC_N(fc_load)(s->x + i), centered = x - s->mean;
    FC_V term = sum_kind == FC_SUM_OF_X ? x : centered;
    if (sum_kind >= FC_SUM_OF_PRODUCTS)
        term = FC_N(fc_load)(s->dout + i);
    if (sum_kind == FC_SUM_OF_WEIGHTED)
        term *= FC_N(fc_load)(s->gamma + i);
    if (masked)
        term = FC_N(fc_select)(mask, term, zero);
    if (sum_kind == FC_SUM_OF_SQUARES) {
        s->first[k] += term * term;
        s->second[k] += term;
    } else {
        s->first[k] += term;
        /* Clear the lanes outside the mask instead of multiplying them by 0, because they may hold inf. */
        if (sum_kind >= FC_SUM_OF_PRODUCTS)
            s->second[k] += term * (masked ? FC_N(fc_select)(mask, centered, zero) : centered);
    }
}

/* Add up four vectors lane by lane. If the sum has more than FC_TL lanes, add its upper half to its lower half, because
 * fc_transpose needs vectors of FC_TL lanes. */
FC_INLINE FC_N(fc_t) FC_N(fc_fold_vectors)(const FC_V v[4])
{
    FC_T lanes[FC_VL];
    FC_N(fc_t) folded;
    FC_N(fc_store)(lanes, (v[0] + v[1]) + (v[2] + v[3]));
    folded = *(const FC_N(fc_tu) *)lanes;
    if (FC_VL > FC_TL)
        folded += *(const FC_N(fc_tu) *)(lanes + FC_VL - FC_TL);
    return folded;
}

/* Return the sum of all lanes of four vectors. The upper half of the lanes is added to the lower half until one lane is
 * left, because a chain of dependent additions would take longer. */
FC_INLINE double FC_N(fc_lanes_total)(const FC_V v[4])
{
    FC_T folded[FC_TL];
    double sums[FC_TL];
    int i, half;
    *(FC_N(fc_tu) *)folded = FC_N(fc_fold_vectors)(v);
    for (i = 0; i < FC_TL; i++)
        sums[i] = folded[i];
    FC_UNROLL
    for (half = FC_TL / 2; half > 0; half /= 2) {
        FC_UNROLL
        for (i = 0; i < half; i++)
            sums[i] += sums[i + half];
    }
    return sums[0];
}

/* Compute the sums over a part of a group: `runs` runs of n elements, whose starts are `pitch` elements apart. A part
 * has at most about FC_PART elements. If runs are shorter than a vector, their elements are summed in *first and
 * *second. Otherwise, elements are summed in the vectors of the returned struct. */
FC_INLINE FC_N(fc_sum) FC_N(fc_gather)(const FC_T *x, const FC_T *dout, const FC_T *gamma, ptrdiff_t runs, ptrdiff_t n,
                                       ptrdiff_t pitch, FC_T mean, const int sum_kind, double *first, double *second)
{
    FC_N(fc_sum) s;
    /* The last vector of a run ends at the end of the run. The mask excludes the lanes that were already summed. */
    const FC_I rest_mask = FC_N(fc_less)(FC_N(fc_broadcast_lanes)((FC_L)(FC_VL - 1 - n % FC_VL)), FC_N(fc_iota)());
    double tail_first = 0, tail_second = 0;
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
                FC_N(fc_add_vector)(&s, i + k * FC_VL, k, sum_kind, 0, rest_mask);
        }
        FC_UNROLL
        for (k = 0; k < 3; k++)
            if (i + FC_VL <= n) {
                FC_N(fc_add_vector)(&s, i, k, sum_kind, 0, rest_mask);
                i += FC_VL;
            }
        if (i < n && n >= FC_VL) {
            FC_N(fc_add_vector)(&s, n - FC_VL, 3, sum_kind, 1, rest_mask);
        } else {
            for (; i < n; i++) {
                const double centered = (double)s.x[i] - mean;
                const double weight = sum_kind == FC_SUM_OF_WEIGHTED ? (double)gamma[i] : 1;
                const double d = sum_kind < FC_SUM_OF_PRODUCTS ? 0 : s.dout[i] * weight;
                if (sum_kind == FC_SUM_OF_X)
                    tail_first += s.x[i];
                else
                    tail_first += sum_kind == FC_SUM_OF_SQUARES ? centered * centered : d;
                tail_second += sum_kind == FC_SUM_OF_SQUARES ? centered : d * centered;
            }
        }
    }
    *first = tail_first;
    *second = tail_second;
    return s;
}

/* Compute the sums over a part of a group, and add them to *first and *second. */
FC_INLINE void FC_N(fc_add_part)(const FC_T *x, const FC_T *dout, const FC_T *gamma, ptrdiff_t runs, ptrdiff_t n,
                                 ptrdiff_t pitch, FC_T mean, const int sum_kind, double *first, double *second)
{
    double tail_first, tail_second;
    const FC_N(fc_sum) s = FC_N(fc_gather)(x, dout, gamma, runs, n, pitch, mean, sum_kind, &tail_first, &tail_second);
    *first += tail_first + FC_N(fc_lanes_total)(s.first);
    if (sum_kind != FC_SUM_OF_X)
        *second += tail_second + FC_N(fc_lanes_total)(s.second);
}

/* Return whether the groups are short. In a short group, adding up the lanes of a vector of sums takes as long as
 * computing the vector. So fc_short_sums adds up the lanes of several short groups together, but in another order. This
 * changes the last bits of the sums, which must not depend on the number of threads.
 *
 * If each group has its own mean, the groups are divided among threads, so groups.count depends on the number of
 * threads, and this function ignores it. If the groups share a mean, groups.count does not depend on the number of
 * threads. A single group is then not short, because there is no other group to add up together with it. */
FC_INLINE int FC_N(fc_is_short)(fc_norm_groups groups)
{
    return (groups.count > 1 || !groups.shared_mean) && groups.runs * groups.n <= 8 * FC_VL;
}

/* Compute the sums of `count` short groups, where count <= FC_TL. The vectors of partial sums are transposed and then
 * added, so that lane c has the sum of group c. */
FC_INLINE void FC_N(fc_short_sums)(const FC_T *x, const FC_T *dout, fc_norm_groups groups, ptrdiff_t count,
                                   const FC_T *means, const int sum_kind, double *first, double *second)
{
    FC_N(fc_t) first_lanes[FC_TL], second_lanes[FC_TL];
    FC_T first_totals[FC_TL], second_totals[FC_TL];
    ptrdiff_t c;
    int i;
    memset(first_lanes, 0, sizeof first_lanes);
    memset(second_lanes, 0, sizeof second_lanes);
    for (c = 0; c < count; c++) {
        const ptrdiff_t at = c * groups.group_pitch;
        const FC_N(fc_sum) s = FC_N(fc_gather)(x + at, dout + at, x, groups.runs, groups.n, groups.run_pitch, means[c],
                                               sum_kind, first + c, second + c);
        first_lanes[c] = FC_N(fc_fold_vectors)(s.first);
        second_lanes[c] = FC_N(fc_fold_vectors)(s.second);
    }
    FC_N(fc_transpose)(first_lanes);
    FC_N(fc_transpose)(second_lanes);
    FC_UNROLL
    for (i = 1; i < FC_TL; i++) {
        first_lanes[0] += first_lanes[i];
        second_lanes[0] += second_lanes[i];
    }
    *(FC_N(fc_tu) *)first_totals = first_lanes[0];
    *(FC_N(fc_tu) *)second_totals = second_lanes[0];
    for (c = 0; c < count; c++) {
        first[c] += first_totals[c];
        second[c] += second_totals[c];
    }
}

/* Compute the mean and the variance of one group. Each part of the group is read twice, while it is in the cache: first
 * for its mean, then for its variance. The mean and the variance of the part are then combined with those of the
 * earlier parts (T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
 * variances"). */
FC_INLINE void FC_N(fc_group_moments)(const FC_T *x, fc_norm_groups groups, double *mean, double *variance)
{
    const ptrdiff_t block = groups.n < FC_PART ? groups.n : FC_PART, rows = groups.runs == 1 ? 1 : FC_PART / block;
    double count = 0, running_mean = 0, squares = 0;
    ptrdiff_t r, at;
    for (r = 0; r < groups.runs; r += rows)
        for (at = 0; at < groups.n; at += block) {
            const FC_T *part = x + r * groups.run_pitch + at;
            const ptrdiff_t runs = rows < groups.runs - r ? rows : groups.runs - r;
            const ptrdiff_t n = block < groups.n - at ? block : groups.n - at;
            const double k = (double)runs * (double)n;
            double sum = 0, part_squares = 0, residual = 0, mean_step;
            FC_T rounded_mean;
            FC_N(fc_add_part)(part, part, part, runs, n, groups.run_pitch, 0, FC_SUM_OF_X, &sum, &residual);
            /* `rounded_mean` is the mean of the part, rounded to the dtype. Its rounding error is the mean of the
             * differences x - rounded_mean, which is residual / k. This error is added to `rounded_mean`. */
            rounded_mean = (FC_T)(sum / k);
            FC_N(fc_add_part)(part, part, part, runs, n, groups.run_pitch, rounded_mean, FC_SUM_OF_SQUARES,
                              &part_squares, &residual);
            mean_step = rounded_mean + residual / k - running_mean;
            squares += part_squares - residual * (residual / k) + mean_step * mean_step * (count * k / (count + k));
            count += k;
            running_mean += mean_step * (k / count);
        }
    *mean = running_mean;
    *variance = squares > 0 ? squares / count : squares * 0; /* This keeps NaN. */
}

FC_INLINE void FC_N(fc_short_moments)(const FC_T *x, fc_norm_groups groups, ptrdiff_t count, double *mean,
                                      double *variance)
{
    const double inverse_count = 1 / ((double)groups.runs * (double)groups.n);
    FC_T rounded_mean[FC_TL] = {0};
    double residual[FC_TL];
    ptrdiff_t c;
    FC_N(fc_short_sums)(x, x, groups, count, rounded_mean, FC_SUM_OF_X, mean, residual);
    for (c = 0; c < count; c++)
        rounded_mean[c] = (FC_T)(mean[c] * inverse_count);
    FC_N(fc_short_sums)(x, x, groups, count, rounded_mean, FC_SUM_OF_SQUARES, variance, residual);
    for (c = 0; c < count; c++) {
        const double mean_residual = residual[c] * inverse_count,
                     moment = variance[c] * inverse_count - mean_residual * mean_residual;
        mean[c] = rounded_mean[c] + mean_residual;
        variance[c] = moment > 0 ? moment : moment * 0;
    }
}

static void FC_N(fc_moments)(const void *x_, fc_norm_groups groups, double *mean, double *variance)
{
    const FC_T *x = (const FC_T *)x_;
    const ptrdiff_t step = FC_N(fc_is_short)(groups) ? FC_TL : 1;
    ptrdiff_t c;
    for (c = 0; c < groups.count; c += step) {
        if (step == FC_TL && FC_TL > 1)
            FC_N(fc_short_moments)(x + c * groups.group_pitch, groups,
                                   step < groups.count - c ? step : groups.count - c, mean + c, variance + c);
        else
            FC_N(fc_group_moments)(x + c * groups.group_pitch, groups, mean + c, variance + c);
    }
}

/* Compute y = (x - mean) * factor + shift for n elements. If `row` is 1, y is then multiplied by `gamma`, and `beta` is
 * added. If n is not a multiple of the vector length, the last vector overlaps the previous vector. */
FC_INLINE void FC_N(fc_scale_run)(const FC_T *x, const FC_T *gamma, const FC_T *beta, FC_T *y, ptrdiff_t n, double mean,
                                  double factor, double shift, const int row)
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

static void FC_N(fc_scale)(const void *x_, void *y_, fc_norm_groups groups, const double *mean, const double *scale,
                           const double *gamma, const double *beta)
{
    ptrdiff_t c, r;
    for (c = 0; c < groups.count; c++) {
        const ptrdiff_t mean_index = groups.shared_mean ? 0 : c;
        const double group_mean = mean[mean_index], factor = scale[mean_index] * gamma[c], shift = beta[c];
        const FC_T *x = (const FC_T *)x_ + c * groups.group_pitch;
        FC_T *y = (FC_T *)y_ + c * groups.group_pitch;
        for (r = 0; r < groups.runs; r++)
            FC_N(fc_scale_run)(x + r * groups.run_pitch, NULL, NULL, y + r * groups.run_pitch, groups.n, group_mean,
                               factor, shift, 0);
    }
}

static void FC_N(fc_scale_row)(const void *x, const void *gamma, const void *beta, void *y, ptrdiff_t n, double mean,
                               double factor)
{
    FC_N(fc_scale_run)((const FC_T *)x, (const FC_T *)gamma, (const FC_T *)beta, (FC_T *)y, n, mean, factor, 0, 1);
}

/* Write the sum of dout and the sum of dout * (x - mean) over one group to `sums`. For FC_SUM_OF_WEIGHTED, dout is
 * first multiplied by gamma. */
FC_INLINE void FC_N(fc_add_products)(const FC_T *dout, const FC_T *x, const FC_T *gamma, fc_norm_groups groups,
                                     double mean, double *sums, const int sum_kind)
{
    const ptrdiff_t block = groups.n < FC_PART ? groups.n : FC_PART, rows = groups.runs == 1 ? 1 : FC_PART / block;
    const FC_T m = (FC_T)mean;
    ptrdiff_t r, at;
    sums[0] = sums[1] = 0;
    for (r = 0; r < groups.runs; r += rows)
        for (at = 0; at < groups.n; at += block) {
            const ptrdiff_t begin = r * groups.run_pitch + at, runs = rows < groups.runs - r ? rows : groups.runs - r;
            const ptrdiff_t n = block < groups.n - at ? block : groups.n - at;
            FC_N(fc_add_part)(x + begin, dout + begin, gamma + begin, runs, n, groups.run_pitch, m, sum_kind, sums,
                              sums + 1);
        }
    sums[1] -= (mean - m) * sums[0];
}

/* For each group, compute the sum of dout and the sum of dout * (x - mean) * scale. */
static void FC_N(fc_products)(const void *dout_, const void *x_, fc_norm_groups groups, const double *mean,
                              const double *scale, double *sums)
{
    const FC_T *dout = (const FC_T *)dout_, *x = (const FC_T *)x_;
    const ptrdiff_t step = FC_N(fc_is_short)(groups) ? FC_TL : 1;
    ptrdiff_t c, i;
    for (c = 0; c < groups.count; c += step) {
        const ptrdiff_t at = c * groups.group_pitch, mean_index = groups.shared_mean ? 0 : c;
        if (step == FC_TL && FC_TL > 1) {
            const ptrdiff_t count = step < groups.count - c ? step : groups.count - c;
            FC_T rounded_mean[FC_TL];
            double first[FC_TL], second[FC_TL];
            for (i = 0; i < count; i++)
                rounded_mean[i] = (FC_T)mean[groups.shared_mean ? 0 : c + i];
            FC_N(fc_short_sums)(x + at, dout + at, groups, count, rounded_mean, FC_SUM_OF_PRODUCTS, first, second);
            for (i = 0; i < count; i++) {
                const double residual = mean[groups.shared_mean ? 0 : c + i] - rounded_mean[i];
                sums[2 * (c + i)] = first[i];
                sums[2 * (c + i) + 1] = (second[i] - residual * first[i]) * scale[groups.shared_mean ? 0 : c + i];
            }
        } else {
            FC_N(fc_add_products)(dout + at, x + at, x, groups, mean[mean_index], sums + 2 * c, FC_SUM_OF_PRODUCTS);
            sums[2 * c + 1] *= scale[mean_index];
        }
    }
}

static void FC_N(fc_products_row)(const void *dout, const void *x, const void *gamma, ptrdiff_t n, double mean,
                                  double *sums)
{
    const fc_norm_groups groups = {1, n, n, 1, n, 0};
    FC_N(fc_add_products)((const FC_T *)dout, (const FC_T *)x, (const FC_T *)gamma, groups, mean, sums,
                          FC_SUM_OF_WEIGHTED);
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

/* Compute dx = scale * gamma * dout + of_x * (x - mean) + shift for each group. */
static void FC_N(fc_combine)(const void *dout_, const void *x_, void *dx_, fc_norm_groups groups, const double *mean,
                             const double *scale, const double *gamma, const double *of_x, const double *shift)
{
    ptrdiff_t c, r;
    for (c = 0; c < groups.count; c++) {
        const ptrdiff_t mean_index = groups.shared_mean ? 0 : c, at = c * groups.group_pitch;
        const double group_mean = mean[mean_index], factor = scale[mean_index] * gamma[c],
                     group_of_x = of_x[mean_index], group_shift = shift[mean_index];
        for (r = 0; r < groups.runs; r++) {
            const ptrdiff_t run = at + r * groups.run_pitch;
            FC_N(fc_combine_run)((const FC_T *)dout_ + run, (const FC_T *)x_ + run, NULL, (FC_T *)dx_ + run, groups.n,
                                 group_mean, factor, group_of_x, group_shift, 0);
        }
    }
}

static void FC_N(fc_combine_row)(const void *dout, const void *x, const void *gamma, void *dx, ptrdiff_t n, double mean,
                                 double of_dout, double of_x, double shift)
{
    FC_N(fc_combine_run)((const FC_T *)dout, (const FC_T *)x, (const FC_T *)gamma, (FC_T *)dx, n, mean, of_dout, of_x,
                         shift, 1);
}
