/* The interpolation points of Winograd's F(m, r), and the transforms of vectors to and from the points. This file is
 * included by winograd_template.h.
 *
 * The interpolation points along an axis are 0, infinity and pairs of a and -a. With 4 points, a is 1. With 6 points, a
 * is 3/4 and 3/2, because 1 and 2 would cause four times larger errors. With 8 points, a is 1/2, 1 and 2. One point
 * means that the axis is not transformed. The squares of all points are exact.
 *
 * The values of a polynomial at a and -a differ only in the sign of the odd powers. So the functions below compute the
 * sum of the even powers and the sum of the odd powers once for both points. The even sum is a polynomial in S, the
 * square of a. The odd sum is a polynomial in S, times a. */

#define FC_PAIRS(points) ((points) / 2 - 1)

FC_INLINE FC_T FC_N(fc_point)(const int points, const int pair)
{
    if (points == 8)
        return pair == 0 ? (FC_T)0.5 : pair == 1 ? (FC_T)1 : (FC_T)2;
    if (points == 6)
        return pair == 0 ? (FC_T)0.75 : (FC_T)1.5;
    return 1;
}

FC_INLINE FC_T FC_N(fc_square)(const int points, const int pair)
{
    return FC_N(fc_point)(points, pair) * FC_N(fc_point)(points, pair);
}

/* Return the coefficient of x^k in the product of (x - S) over all pairs of points except pair `but`. S is the square
 * of the points of a pair. If `but` is -1, no pair is left out. The products are written out, so that every compiler
 * computes them at compile time. */
FC_INLINE FC_T FC_N(fc_coefficient)(const int points, const int but, const int k)
{
    const int n = FC_PAIRS(points) - (but >= 0);
    const FC_T a = FC_N(fc_square)(points, but == 0 ? 1 : 0), b = FC_N(fc_square)(points, but == 0 || but == 1 ? 2 : 1);
    const FC_T c = FC_N(fc_square)(points, 2);
    if (k == n)
        return 1;
    if (n == 1)
        return -a;
    if (n == 2)
        return k ? -(a + b) : a * b;
    return k == 2 ? -(a + b + c) : k ? a * b + a * c + b * c : -(a * b * c);
}

/* Return S^n for n <= 3, where S is the square of the points of the pair. */
FC_INLINE FC_T FC_N(fc_power)(const int points, const int pair, const int n)
{
    const FC_T square = FC_N(fc_square)(points, pair);
    return n == 0 ? 1 : n == 1 ? square : n == 2 ? square * square : square * square * square;
}

/* Replace d, a tile of the image, by B^T d, its values at the points. */
FC_INLINE void FC_N(fc_to_points)(const int points, FC_V *d)
{
    const int pairs = FC_PAIRS(points);
    FC_V zero, infinity, even[3], odd[3];
    int i, k;
    if (points == 1)
        return;
    zero = d[points - 2];
    infinity = d[points - 1];
    FC_UNROLL
    for (k = 0; k < pairs; k++) {
        zero += FC_N(fc_coefficient)(points, -1, k) * d[2 * k];
        infinity += FC_N(fc_coefficient)(points, -1, k) * d[2 * k + 1];
    }
    FC_UNROLL
    for (i = 0; i < pairs; i++) {
        even[i] = d[points - 2];
        odd[i] = d[points - 3];
        FC_UNROLL
        for (k = 0; k < pairs - 1; k++) {
            even[i] += FC_N(fc_coefficient)(points, i, k) * d[2 * k + 2];
            odd[i] += FC_N(fc_coefficient)(points, i, k) * d[2 * k + 1];
        }
    }
    d[0] = zero;
    d[points - 1] = infinity;
    FC_UNROLL
    for (i = 0; i < pairs; i++) {
        d[2 * i + 1] = even[i] + FC_N(fc_point)(points, i) * odd[i];
        d[2 * i + 2] = even[i] - FC_N(fc_point)(points, i) * odd[i];
    }
}

/* Compute u = G g, the values at the points of a kernel g with `taps` taps. */
FC_INLINE void FC_N(fc_weigh_points)(const int points, const int taps, FC_V *u, const FC_V *g)
{
    int i, k;
    if (points == 1) {
        u[0] = g[0];
        return;
    }
    u[0] = (1 / FC_N(fc_coefficient)(points, -1, 0)) * g[0];
    u[points - 1] = g[taps - 1];
    FC_UNROLL
    for (i = 0; i < FC_PAIRS(points); i++) {
        FC_T scale = 2 * FC_N(fc_square)(points, i);
        FC_V even = g[0], odd = g[1];
        FC_UNROLL
        for (k = 0; k < FC_PAIRS(points); k++)
            if (k != i)
                scale *= FC_N(fc_square)(points, i) - FC_N(fc_square)(points, k);
        FC_UNROLL
        for (k = 2; k < taps; k++) {
            if (k % 2)
                odd += FC_N(fc_power)(points, i, k / 2) * g[k];
            else
                even += FC_N(fc_power)(points, i, k / 2) * g[k];
        }
        even *= 1 / scale;
        odd *= FC_N(fc_point)(points, i) / scale;
        u[2 * i + 1] = even + odd;
        u[2 * i + 2] = even - odd;
    }
}

/* Compute y = A^T m, the `outputs` outputs of a tile. m has the products at the points. */
FC_INLINE void FC_N(fc_from_points)(const int points, const int outputs, FC_V *y, const FC_V *m)
{
    FC_V even[3], odd[3];
    int i, k;
    if (points == 1) {
        y[0] = m[0];
        return;
    }
    FC_UNROLL
    for (i = 0; i < FC_PAIRS(points); i++) {
        even[i] = m[2 * i + 1] + m[2 * i + 2];
        odd[i] = m[2 * i + 1] - m[2 * i + 2];
    }
    FC_UNROLL
    for (k = 0; k < outputs; k++) {
        FC_V sum = k % 2 ? FC_N(fc_point)(points, 0) * FC_N(fc_power)(points, 0, k / 2) * odd[0]
                         : FC_N(fc_power)(points, 0, k / 2) * even[0];
        FC_UNROLL
        for (i = 1; i < FC_PAIRS(points); i++)
            sum += k % 2 ? FC_N(fc_point)(points, i) * FC_N(fc_power)(points, i, k / 2) * odd[i]
                         : FC_N(fc_power)(points, i, k / 2) * even[i];
        if (k == 0)
            sum += m[0];
        if (k == outputs - 1)
            sum += m[points - 1];
        y[k] = sum;
    }
}
