/* Functions of rank_one.h for one dtype. */

/* Return the index of the first entry of largest magnitude, -1 if there is an inf or NaN, or -2 if all are zero. */
static ptrdiff_t FC_F(fc_pivot)(const FC_T *w, ptrdiff_t n)
{
    const FC_T infinity = (FC_T)INFINITY;
    FC_BITS most = 0, bits, infinite;
    ptrdiff_t i;
    /* Magnitudes compare like their bits, so inf and NaN are above all others. */
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

/* Return the difference of an entry from a * c, where a and c are sums of two numbers each. */
static inline double FC_F(fc_error)(double value, double a, double a_low, double c, double c_low)
{
    const double product = a * c;
    if (sizeof(FC_T) == 4)
        return value - product;
    return (value - product) - fma(a, c, -product) - (a * c_low + a_low * c);
}

/* Return how much an entry may differ from the product of the factors: slightly more than the error bound of
 * fc_factor. */
static inline double FC_F(fc_allowed)(double value, double most, double tolerance, double least)
{
    const double magnitude = fabs(value), unit = ldexp(1, 1 - FC_MANTISSA);
    if (magnitude == 0)
        return least;
    return (tolerance + 2 * unit * log(most / magnitude)) * magnitude + least;
}

/* Compute factors whose products are exact, for kernels of integers times a power of two. Returns whether such factors
 * exist. `from` holds the entries of the fibres, axis after axis, and `to` gets the factors in the same order; both may
 * be the same array. `at` is the index of the pivot along each axis. */
static int FC_F(fc_whole)(const double *from, double *to, const ptrdiff_t k[3], const ptrdiff_t at[3])
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

/* Multiply the factors by powers of two whose product is 1, so that their largest entries have the same magnitude. All
 * intermediate magnitudes lie between those of the input and the result, so none overflows or underflows. */
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

/* Compute the factors of w (k[0], k[1], k[2]). `to` gets their entries in the order of `order`, which indexes the
 * entries of the three axes in turn. Returns 0 if w is an outer product, up to rounding in its dtype. Returns 1 if it
 * is not, and sets *off, unless `off` is NULL, to the entry that differs most. Returns 2 if w has an inf or NaN.
 *
 * The factors are the fibres through the pivot, the entry of largest magnitude: w[i, j] is compared with w[i, q] * w[p,
 * j] / w[p, q]. Each entry of an outer product of r factors was rounded up to r times, in r - 1 products and in a
 * possible division of the kernel by its sum. The comparison uses 2 r entries. So the two sides differ by at most 2 r *
 * r * eps / 2 of the entry, where eps is the distance from 1 to the next number of the dtype, plus r * r times the
 * least number of the dtype.
 *
 * A Gaussian may also be exp(t), where t is a rounded sum of squares. The error of t, at most eps * |t|, is a relative
 * error of the entry, and the errors of the entries of the fibres add up to as much. As t = log(w / largest), a further
 * 2 * eps * |t| of the entry is allowed. Even an entry of 1e-19 of the largest must then agree in all but two digits.
 *
 * If the largest entry itself is so small that the least number matters, only relative errors are allowed. */
static int FC_F(fc_factor)(const FC_T *w, const ptrdiff_t k[3], const ptrdiff_t *order, ptrdiff_t entries, FC_T *to,
                           double *space, fc_off *off)
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
        up = sizeof(FC_T) == 8 ? ldexp(1, 4 * FC_MANTISSA) : 1; /* Otherwise products of doubles would lose digits. */
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
            int bad = 0;
            for (l = 0; l < k[2]; l++) {
                const double value = (double)row[l] * up, error = FC_F(fc_error)(value, a, a_low, c[l], c_low[l]);
                bad |= !(fabs(error) <= tolerance * fabs(value) + least);
            }
            for (l = 0; bad && l < k[2]; l++) {
                const double value = (double)row[l] * up;
                const double error = fabs(FC_F(fc_error)(value, a, a_low, c[l], c_low[l]));
                if (error <= tolerance * fabs(value) + least ||
                    error <= FC_F(fc_allowed)(value, most, tolerance, least))
                    continue;
                if (off == NULL)
                    return 1;
                if (error > worst) {
                    worst = error;
                    off->place = row + l - w, off->value = (double)row[l], off->product = a * c[l] / up;
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
    /* `high` becomes the fibres, and `low` their exact factors. */
    for (i = 0; i < total; i++) {
        const double fibre = low[i];
        low[i] = i >= bases && i < bases + k[base] ? high[i] / up : high[i];
        high[i] = fibre;
    }
    if (FC_F(fc_whole)(high, high, k, at))
        low = high;
    FC_F(fc_balance)(low, k);
    for (i = 0; i < entries; i++)
        to[i] = (FC_T)low[order[i]];
    return 0;
}
