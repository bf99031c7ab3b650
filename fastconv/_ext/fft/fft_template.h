/* The transforms of strips, for one dtype and instruction set: see fft.h.
 *
 * A strip is FC_VL columns of complex numbers, one column in each lane. A row of a strip has the FC_VL real parts
 * first, then the imaginary parts. A transform runs along the column in each lane. Each forward pass of radix r splits
 * a block of n rows into r blocks of n / r rows (decimation in frequency). The frequencies are then in a permuted
 * order, which the inverse passes undo. Products of spectra do not depend on the order. */
#include "simd/lanes.h"

#undef FC_ROW
#define FC_ROW (2 * FC_VL)

/* Transform four complex numbers in each lane, in registers (a butterfly of radix 4). */
FC_INLINE void FC_N(fc_fft_butterfly_4)(FC_V *re, FC_V *im)
{
    const FC_V ar = re[0] + re[2], ai = im[0] + im[2], br = re[0] - re[2], bi = im[0] - im[2];
    const FC_V cr = re[1] + re[3], ci = im[1] + im[3], dr = re[1] - re[3], di = im[1] - im[3];
    re[0] = ar + cr, im[0] = ai + ci;
    re[1] = br + di, im[1] = bi - dr;
    re[2] = ar - cr, im[2] = ai - ci;
    re[3] = br - di, im[3] = bi + dr;
}

/* Transform `radix` complex numbers in each lane, in registers. Swap `re` and `im` for the inverse transform. */
FC_INLINE void FC_N(fc_fft_butterfly)(FC_V *re, FC_V *im, const int radix)
{
    if (radix == 2) {
        const FC_V r = re[0] - re[1], i = im[0] - im[1];
        re[0] += re[1], im[0] += im[1];
        re[1] = r, im[1] = i;
    } else if (radix == 3) {
        const FC_V half = FC_N(fc_broadcast)((FC_T)0.5), sine = FC_N(fc_broadcast)((FC_T)0.86602540378443864676);
        const FC_V r = re[1] + re[2], i = im[1] + im[2];
        const FC_V dr = (re[1] - re[2]) * sine, di = (im[1] - im[2]) * sine;
        const FC_V mr = re[0] - half * r, mi = im[0] - half * i;
        re[0] += r, im[0] += i;
        re[1] = mr + di, im[1] = mi - dr;
        re[2] = mr - di, im[2] = mi + dr;
    } else if (radix == 4) {
        FC_N(fc_fft_butterfly_4)(re, im);
    } else if (radix == 5) {
        const FC_V c1 = FC_N(fc_broadcast)((FC_T)0.30901699437494742410),
                   c2 = FC_N(fc_broadcast)((FC_T)-0.80901699437494742410);
        const FC_V s1 = FC_N(fc_broadcast)((FC_T)0.95105651629515357212),
                   s2 = FC_N(fc_broadcast)((FC_T)0.58778525229247312917);
        const FC_V ar = re[1] + re[4], ai = im[1] + im[4], br = re[2] + re[3], bi = im[2] + im[3];
        const FC_V dr = re[1] - re[4], di = im[1] - im[4], er = re[2] - re[3], ei = im[2] - im[3];
        const FC_V mr = re[0] + c1 * ar + c2 * br, mi = im[0] + c1 * ai + c2 * bi;
        const FC_V nr = re[0] + c2 * ar + c1 * br, ni = im[0] + c2 * ai + c1 * bi;
        const FC_V pr = s1 * dr + s2 * er, pi = s1 * di + s2 * ei;
        const FC_V qr = s2 * dr - s1 * er, qi = s2 * di - s1 * ei;
        re[0] += ar + br, im[0] += ai + bi;
        re[1] = mr + pi, im[1] = mi - pr;
        re[2] = nr + qi, im[2] = ni - qr;
        re[3] = nr - qi, im[3] = ni + qr;
        re[4] = mr - pi, im[4] = mi + pr;
    } else {
        const FC_V root = FC_N(fc_broadcast)((FC_T)0.70710678118654752440);
        FC_V er[4], ei[4], or_[4], oi[4];
        int k;
        FC_UNROLL
        for (k = 0; k < 4; k++) {
            er[k] = re[k] + re[k + 4], ei[k] = im[k] + im[k + 4];
            or_[k] = re[k] - re[k + 4], oi[k] = im[k] - im[k + 4];
        }
        {
            const FC_V r1 = or_[1], i1 = oi[1], r2 = or_[2], r3 = or_[3], i3 = oi[3];
            or_[1] = (r1 + i1) * root, oi[1] = (i1 - r1) * root;
            or_[2] = oi[2], oi[2] = -r2;
            or_[3] = (i3 - r3) * root, oi[3] = -(i3 + r3) * root;
        }
        FC_N(fc_fft_butterfly_4)(er, ei);
        FC_N(fc_fft_butterfly_4)(or_, oi);
        FC_UNROLL
        for (k = 0; k < 4; k++) {
            re[2 * k] = er[k], im[2 * k] = ei[k];
            re[2 * k + 1] = or_[k], im[2 * k + 1] = oi[k];
        }
    }
}

/* Run one pass over a strip of `length` rows, which is divided into blocks of n rows. `last` is set if n equals the
 * radix. `inverse` is set for a pass of the inverse transform. */
FC_INLINE void FC_N(fc_fft_pass)(FC_T *strip, ptrdiff_t n, ptrdiff_t length, const FC_T *factors, const int radix,
                                 const int last, const int inverse)
{
    const ptrdiff_t m = n / radix;
    const int of_re = inverse ? FC_VL : 0, of_im = inverse ? 0 : FC_VL;
    ptrdiff_t j, at;
    int k;
    for (j = 0; j < m; j++, factors += 2 * (radix - 1)) {
        for (at = j; at < length; at += n) {
            FC_T *row = strip + at * FC_ROW;
            FC_V re[8], im[8];
            FC_UNROLL
            for (k = 0; k < radix; k++) {
                re[k] = FC_N(fc_load)(row + k * m * FC_ROW + of_re);
                im[k] = FC_N(fc_load)(row + k * m * FC_ROW + of_im);
                if (inverse && !last && k > 0) {
                    const FC_V c = FC_N(fc_broadcast)(factors[2 * k - 2]), s = FC_N(fc_broadcast)(factors[2 * k - 1]),
                               r = re[k];
                    re[k] = r * c - im[k] * s;
                    im[k] = im[k] * c + r * s;
                }
            }
            FC_N(fc_fft_butterfly)(re, im, radix);
            FC_UNROLL
            for (k = 0; k < radix; k++) {
                if (!inverse && !last && k > 0) {
                    const FC_V c = FC_N(fc_broadcast)(factors[2 * k - 2]), s = FC_N(fc_broadcast)(factors[2 * k - 1]),
                               r = re[k];
                    re[k] = r * c - im[k] * s;
                    im[k] = im[k] * c + r * s;
                }
                FC_N(fc_store)(row + k * m * FC_ROW + of_re, re[k]);
                FC_N(fc_store)(row + k * m * FC_ROW + of_im, im[k]);
            }
        }
    }
}

#define FC_FFT_CASE(r, inverse)                                          \
    case r:                                                              \
        if (n == r)                                                      \
            FC_N(fc_fft_pass)(strip, r, length, factors, r, 1, inverse); \
        else                                                             \
            FC_N(fc_fft_pass)(strip, n, length, factors, r, 0, inverse); \
        break

static void FC_N(fc_fft_forward_pass)(FC_T *strip, ptrdiff_t n, ptrdiff_t length, const FC_T *factors, ptrdiff_t radix)
{
    switch (radix) {
        FC_FFT_CASE(2, 0);
        FC_FFT_CASE(3, 0);
        FC_FFT_CASE(4, 0);
        FC_FFT_CASE(5, 0);
        FC_FFT_CASE(8, 0);
    default:
        fc_check(0);
    }
}

static void FC_N(fc_fft_inverse_pass)(FC_T *strip, ptrdiff_t n, ptrdiff_t length, const FC_T *factors, ptrdiff_t radix)
{
    switch (radix) {
        FC_FFT_CASE(2, 1);
        FC_FFT_CASE(3, 1);
        FC_FFT_CASE(4, 1);
        FC_FFT_CASE(5, 1);
        FC_FFT_CASE(8, 1);
    default:
        fc_check(0);
    }
}
#undef FC_FFT_CASE

/* Run all forward passes over a strip of n rows. If the strip does not fit into the L1 cache, the passes after the
 * first one process one block at a time. */
static void FC_N(fc_fft_forward_passes)(FC_T *strip, ptrdiff_t n, const ptrdiff_t *radices, ptrdiff_t passes,
                                        const FC_T *factors)
{
    const ptrdiff_t length = n;
    for (; passes > 0; passes--, radices++) {
        const ptrdiff_t radix = *radices, m = n / radix;
        const int exceeds_l1 = n == length && passes > 1 && n * FC_ROW * FC_BYTES > FC_FFT_L1_BYTES;
        FC_N(fc_fft_forward_pass)(strip, n, length, factors, radix);
        factors += 2 * (radix - 1) * m;
        n = m;
        if (exceeds_l1) {
            ptrdiff_t k;
            for (k = 0; k < radix; k++)
                FC_N(fc_fft_forward_passes)(strip + k * m * FC_ROW, m, radices + 1, passes - 1, factors);
            return;
        }
    }
}

/* Run all inverse passes over a strip of n rows, in the reverse order of the forward passes. */
static void FC_N(fc_fft_inverse_passes)(FC_T *strip, ptrdiff_t n, const ptrdiff_t *radices, ptrdiff_t passes,
                                        const FC_T *factors)
{
    const ptrdiff_t length = n;
    ptrdiff_t blocks[FC_FFT_PASSES], i;
    const FC_T *of[FC_FFT_PASSES];
    fc_check(passes <= FC_FFT_PASSES);
    for (i = 0; i < passes; i++) {
        blocks[i] = n;
        of[i] = factors;
        factors += 2 * (radices[i] - 1) * (n / radices[i]);
        n /= radices[i];
    }
    if (passes > 1 && length * FC_ROW * FC_BYTES > FC_FFT_L1_BYTES) {
        for (i = 0; i < radices[0]; i++)
            FC_N(fc_fft_inverse_passes)(strip + i * blocks[1] * FC_ROW, blocks[1], radices + 1, passes - 1, of[1]);
        passes = 1;
    }
    while (passes-- > 0)
        FC_N(fc_fft_inverse_pass)(strip, blocks[passes], length, of[passes], radices[passes]);
}

static void FC_N(fc_fft_forward)(FC_T *strip, const fc_fft_axis *axis)
{
    FC_N(fc_fft_forward_passes)(strip, axis->length, axis->radices, axis->passes, (const FC_T *)axis->factors);
}

static void FC_N(fc_fft_inverse)(FC_T *strip, const fc_fft_axis *axis)
{
    FC_N(fc_fft_inverse_passes)(strip, axis->length, axis->radices, axis->passes, (const FC_T *)axis->factors);
}

/* Transpose a block of FC_VL x FC_VL elements. */
FC_INLINE void FC_N(fc_fft_transpose)(FC_V rows[FC_VL])
{
    FC_V next[FC_VL];
    int round, i;
    FC_UNROLL
    for (round = 1; round < FC_VL; round *= 2) {
        FC_UNROLL
        for (i = 0; i < FC_VL / 2; i++) {
            next[2 * i] = FC_N(fc_interleave_lower_lanes)(rows[i], rows[i + FC_VL / 2]);
            next[2 * i + 1] = FC_N(fc_interleave_upper_lanes)(rows[i], rows[i + FC_VL / 2]);
        }
        FC_UNROLL
        for (i = 0; i < FC_VL; i++)
            rows[i] = next[i];
    }
}

/* Transpose a strip, and store it in the transposed plane, whose strips have `width` rows each. The strip has `rows`
 * rows, and lane l of the strip is column `column` + l of the plane. fc_fft_load_transposed does the reverse. */
static void FC_N(fc_fft_store_transposed)(const FC_T *strip, ptrdiff_t rows, FC_T *plane, ptrdiff_t width,
                                          ptrdiff_t column)
{
    const ptrdiff_t lanes = width - column < FC_VL ? width - column : FC_VL;
    ptrdiff_t row;
    int part, i;
    for (row = 0; row < rows; row += FC_VL) {
        FC_T *to = plane + (row / FC_VL * width + column) * FC_ROW;
        for (part = 0; part < FC_ROW; part += FC_VL) {
            FC_V all[FC_VL];
            if (rows - row >= FC_VL) {
                FC_UNROLL
                for (i = 0; i < FC_VL; i++)
                    all[i] = FC_N(fc_load)(strip + (row + i) * FC_ROW + part);
            } else {
                for (i = 0; i < FC_VL; i++)
                    all[i] = row + i < rows ? FC_N(fc_load)(strip + (row + i) * FC_ROW + part) : FC_N(fc_broadcast)(0);
            }
            FC_N(fc_fft_transpose)(all);
            if (lanes == FC_VL) {
                FC_UNROLL
                for (i = 0; i < FC_VL; i++)
                    FC_N(fc_store)(to + i * FC_ROW + part, all[i]);
            } else {
                for (i = 0; i < lanes; i++)
                    FC_N(fc_store)(to + i * FC_ROW + part, all[i]);
            }
        }
    }
}

static void FC_N(fc_fft_load_transposed)(FC_T *strip, ptrdiff_t rows, const FC_T *plane, ptrdiff_t width,
                                         ptrdiff_t column)
{
    const ptrdiff_t lanes = width - column < FC_VL ? width - column : FC_VL;
    ptrdiff_t row;
    int part, i;
    for (row = 0; row < rows; row += FC_VL) {
        const FC_T *from = plane + (row / FC_VL * width + column) * FC_ROW;
        for (part = 0; part < FC_ROW; part += FC_VL) {
            FC_V all[FC_VL];
            if (lanes == FC_VL) {
                FC_UNROLL
                for (i = 0; i < FC_VL; i++)
                    all[i] = FC_N(fc_load)(from + i * FC_ROW + part);
            } else {
                for (i = 0; i < FC_VL; i++)
                    all[i] = i < lanes ? FC_N(fc_load)(from + i * FC_ROW + part) : FC_N(fc_broadcast)(0);
            }
            FC_N(fc_fft_transpose)(all);
            if (rows - row >= FC_VL) {
                FC_UNROLL
                for (i = 0; i < FC_VL; i++)
                    FC_N(fc_store)(strip + (row + i) * FC_ROW + part, all[i]);
            } else {
                for (i = 0; i < rows - row; i++)
                    FC_N(fc_store)(strip + (row + i) * FC_ROW + part, all[i]);
            }
        }
    }
}

/* Multiply each element of a strip by the corresponding element of `factors` or, if `conjugate` is set, by its complex
 * conjugate. */
FC_INLINE void FC_N(fc_fft_scale)(FC_T *strip, const FC_T *factors, ptrdiff_t rows, const int conjugate)
{
    ptrdiff_t i;
    for (i = 0; i < rows; i++, strip += FC_ROW, factors += FC_ROW) {
        const FC_V re = FC_N(fc_load)(strip), im = FC_N(fc_load)(strip + FC_VL);
        const FC_V c = FC_N(fc_load)(factors), s = FC_N(fc_load)(factors + FC_VL);
        FC_N(fc_store)(strip, conjugate ? re * c + im * s : re * c - im * s);
        FC_N(fc_store)(strip + FC_VL, conjugate ? im * c - re * s : im * c + re * s);
    }
}

#include "fft/tiles.h"

const fc_fft_kernels FC_N(fc_fft_kernels) = {
    .part = FC_N(fc_fft_part),
    .multiply = FC_N(fc_fft_multiply),
    .add = FC_N(fc_fft_add),
};
