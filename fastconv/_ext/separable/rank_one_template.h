/* The functions of rank_one.h for one dtype. */

/* Return the index of the first weight of largest magnitude, -1 if a weight is inf or NaN, or -2 if all weights are
 * zero. */
static ptrdiff_t FC_F(fc_pivot)(const FC_T *w, ptrdiff_t n)
{
    const FC_T infinity = (FC_T)INFINITY;
    FC_BITS most = 0, bits, infinite;
    ptrdiff_t i;
    /* Compare magnitudes by their bit patterns, in which inf and NaN are larger than all other numbers. */
    memcpy(&infinite, &infinity, sizeof bits);
    for (i = 0; i < n; i++) {
        memcpy(&bits, &w[i], sizeof bits);
        bits &= FC_MAGNITUDE;
        most = bits > most ? bits : most;
    }
    if (most >= infinite || most == 0)
        return most ? -1 : -2;
    for (i = 0;; i++) {
        memcpy(&bits, &w[i], sizeof bits);
        if ((bits & FC_MAGNITUDE) == most)
            return i;
    }
}

/* Return the difference between a weight `value` and the product (a + a_low) * (c + c_low). The terms a_low and c_low
 * extend the precision of doubles; for floats they are not needed. */
static inline double FC_F(fc_error)(double value, double a, double a_low, double c, double c_low)
{
    const double product = a * c;
    if (sizeof(FC_T) == 4)
        return value - product;
    return (value - product) - fma(a, c, -product) - (a * c_low + a_low * c);
}

/* Return the largest allowed difference between the weight `value` and the product of the factors. `most` is the
 * largest magnitude of a weight. Let r be the number of axes, and eps the distance from 1 to the next number of the
 * dtype.
 *
 * `tolerance` is r * r * eps. Each weight of an outer product was rounded at most r times: in r - 1 products, and in a
 * possible division of the kernel by its sum. Each rounding is a relative error of at most eps / 2. The comparison uses
 * 2 * r weights, so the two sides differ by at most r * r * eps times the weight.
 *
 * A weight of a Gaussian may also be exp(t), where t is a rounded sum of squares. The error of t is at most eps * |t|,
 * and is a relative error of the weight. The weights of the factors together have an error of the same size. So a
 * further error of 2 * eps * |t| times the weight is allowed, where t is log(weight / largest weight). Even a weight
 * that is 1e-19 times the largest must then agree in all but two digits.
 *
 * `least` is r * r times the smallest positive number of the dtype. If all weights are so small that this number
 * matters, `least` is 0. */
static inline double FC_F(fc_allowed)(double value, double most, double tolerance, double least)
{
    const double magnitude = fabs(value), unit = ldexp(1, 1 - FC_MANTISSA);
    if (magnitude == 0)
        return least;
    return (tolerance + 2 * unit * log(most / magnitude)) * magnitude + least;
}

/* Compute factors whose products are exact, if the weights of the kernel are integers times a power of two. Return
 * whether such factors exist. `from` is the concatenation of the fibres (see fc_factor) of the three axes. The factors
 * are written to `to` in the same order; `to` may be equal to `from`. `at` is the index of the pivot along each
 * axis. */
static int FC_F(fc_exact_factors)(const double *from, double *to, const ptrdiff_t k[3], const ptrdiff_t at[3])
{
    double divisor = 1;
    ptrdiff_t axis, i;
    for (axis = 0; axis < 3; from += k[axis], to += k[axis], axis++) {
        if (axis < 2 && k[axis] == 1) {
            to[0] = 1;
            continue;
        }
        for (i = 0; i < k[axis]; i++) {
            const double entry = from[i], part = entry / divisor;
            if ((double)(FC_T)part != part || fma(part, divisor, -entry) != 0)
                return 0;
            to[i] = part;
        }
        if (axis < 2 && !fc_primitive(to, k[axis], FC_MANTISSA))
            return 0;
        divisor *= axis < 2 ? to[at[axis]] : 1;
    }
    return 1;
}

/* Multiply the three factors by powers of two whose product is 1, so that the largest entries of the factors have about
 * the same magnitude. No multiplication overflows or underflows. */
static void FC_F(fc_balance)(double *factors, const ptrdiff_t k[3])
{
    int exponents[3], sum = 0, axes = 0;
    ptrdiff_t axis, i, begin;
    for (axis = begin = 0; axis < 3; begin += k[axis++]) {
        double most = 0;
        for (i = 0; i < k[axis]; i++)
            most = fabs(factors[begin + i]) > most ? fabs(factors[begin + i]) : most;
        (void)frexp(most, &exponents[axis]);
        axes += k[axis] > 1;
        sum += k[axis] > 1 ? exponents[axis] : 0;
    }
    for (axis = begin = 0; axis < 3; begin += k[axis++])
        if (k[axis] > 1) {
            const int share = sum / axes--;
            sum -= share;
            for (i = 0; i < k[axis]; i++)
                factors[begin + i] = ldexp(factors[begin + i], share - exponents[axis]);
        }
}

/* Compute the factors of the kernel w, which has the shape (k[0], k[1], k[2]).
 *
 * Return 0 if w is an outer product, up to rounding in its dtype (see fc_allowed). Then to[i] is element order[i] of
 * the concatenated factors of the three axes. Return 1 if w is not an outer product. Then *mismatch is set to the
 * weight that differs most from the product of the factors, unless `mismatch` is NULL. Return 2 if w has an inf or NaN.
 *
 * The pivot is the weight of largest magnitude. The fibre of an axis consists of all weights on the line through the
 * pivot along that axis. The factors are the fibres, divided by the pivot on all axes but one. For example, in a kernel
 * with two axes and its pivot at (p, q), w[i, j] is compared with w[i, q] * w[p, j] / w[p, q]. */
static int FC_F(fc_factor)(const FC_T *w, const ptrdiff_t k[3], const ptrdiff_t *order, ptrdiff_t entries, FC_T *to,
                           double *space, fc_mismatch *mismatch)
{
    const ptrdiff_t total = k[0] + k[1] + k[2], pivot = FC_F(fc_pivot)(w, k[0] * k[1] * k[2]);
    const ptrdiff_t steps[3] = {k[1] * k[2], k[2], 1};
    const int axes = (k[0] > 1) + (k[1] > 1) + (k[2] > 1), squared = axes ? axes * axes : 1;
    const ptrdiff_t base = k[0] > 1 ? 0 : k[1] > 1 ? 1 : 2;
    const double tolerance = squared * ldexp(1, 1 - FC_MANTISSA);
    double *high = space, *low = space + total, *c, *c_low, p, worst = -1, least = squared * FC_LEAST, up = 1, most;
    const ptrdiff_t bases = base == 0 ? 0 : base == 1 ? k[0] : k[0] + k[1];
    ptrdiff_t i, j, l, axis, begin, at[3];
    if (pivot == -1)
        return 2;
    for (i = 0; pivot == -2 && i < entries; i++)
        to[i] = 0;
    if (pivot == -2)
        return 0;
    p = (double)w[pivot];
    if (fabs(p) < ldexp(FC_LEAST, 2 * FC_MANTISSA)) {
        least = 0;
        /* Scale the weights up, because products of very small doubles would lose digits. */
        up = sizeof(FC_T) == 8 ? ldexp(1, 4 * FC_MANTISSA) : 1;
    }
    p *= up;
    most = fabs(p);
    for (axis = begin = 0; axis < 3; begin += k[axis++]) {
        at[axis] = pivot / steps[axis] % k[axis];
        for (i = 0; i < k[axis]; i++) {
            const double entry = (double)w[pivot + (i - at[axis]) * steps[axis]] * up;
            high[begin + i] = axis == base ? entry : entry / p;
            low[begin + i] = axis == base ? 0 : fma(-high[begin + i], p, entry) / p;
        }
    }
    c = high + k[0] + k[1], c_low = low + k[0] + k[1];
    for (i = 0; i < k[0]; i++)
        for (j = 0; j < k[1]; j++) {
            const FC_T *row = w + (i * k[1] + j) * k[2];
            const double d = high[i], b = high[k[0] + j], a = d * b;
            const double a_low = fma(d, b, -a) + (d * low[k[0] + j] + low[i] * b);
            int exceeds = 0;
            for (l = 0; l < k[2]; l++) {
                const double value = (double)row[l] * up, error = FC_F(fc_error)(value, a, a_low, c[l], c_low[l]);
                exceeds |= !(fabs(error) <= tolerance * fabs(value) + least);
            }
            for (l = 0; exceeds && l < k[2]; l++) {
                const double value = (double)row[l] * up;
                const double error = fabs(FC_F(fc_error)(value, a, a_low, c[l], c_low[l]));
                if (error <= tolerance * fabs(value) + least ||
                    error <= FC_F(fc_allowed)(value, most, tolerance, least))
                    continue;
                if (mismatch == NULL)
                    return 1;
                if (error > worst) {
                    worst = error;
                    mismatch->index = row + l - w, mismatch->value = (double)row[l], mismatch->product = a * c[l] / up;
                }
            }
        }
    if (worst >= 0)
        return 1;
    if (entries == 0)
        return 0;
    for (axis = begin = 0; axis < 3; begin += k[axis++])
        for (i = 0; i < k[axis]; i++)
            low[begin + i] = (double)w[pivot + (i - at[axis]) * steps[axis]];
    /* After this loop, `high` holds the fibres and `low` holds the factors. */
    for (i = 0; i < total; i++) {
        const double fibre = low[i];
        low[i] = i >= bases && i < bases + k[base] ? high[i] / up : high[i];
        high[i] = fibre;
    }
    if (FC_F(fc_exact_factors)(high, high, k, at))
        low = high;
    FC_F(fc_balance)(low, k);
    for (i = 0; i < entries; i++)
        to[i] = (FC_T)low[order[i]];
    return 0;
}
