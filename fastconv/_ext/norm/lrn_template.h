/* Kernels of local response normalisation for one dtype and instruction set: see lrn.h.
 *
 * The kernels are plain loops, which compilers vectorise. They process n positions of an image, channel by channel. */
#undef FC_SQRT
#undef FC_POW
#if FC_BYTES == 4
#define FC_SQRT sqrtf
#define FC_POW powf
#else
#define FC_SQRT sqrt
#define FC_POW pow
#endif

/* Return scale^-beta. */
FC_INLINE FC_T FC_N(fc_inverse_power)(FC_T scale, const int power, FC_T beta)
{
    if (power == FC_THREE_QUARTERS) {
        const FC_T root = FC_SQRT(scale);
        return 1 / (root * FC_SQRT(root));
    }
    if (power == FC_HALF)
        return 1 / FC_SQRT(scale);
    if (power == FC_ONE)
        return 1 / scale;
    return FC_POW(scale, -beta);
}

/* Compute the result of one pass (see FC_RESPOND in lrn.h) for one channel. The sum over the window of the channel is
 * suffix + prefix. The pass FC_WEIGH also fills `products` with the terms that FC_SPREAD sums later. */
FC_INLINE void FC_N(fc_lrn_row)(const FC_T *dout, const FC_T *x, FC_T *to, FC_T *products, const FC_T *suffix,
                                const FC_T *prefix, ptrdiff_t n, const fc_response *layer, const int pass,
                                const int power)
{
    const FC_T k = (FC_T)layer->k, alpha = (FC_T)layer->alpha, beta = (FC_T)layer->beta;
    const FC_T twice = (FC_T)(-2 * layer->alpha * layer->beta);
    ptrdiff_t j;
    for (j = 0; j < n; j++) {
        const FC_T window = suffix[j] + prefix[j];
        if (pass == FC_SPREAD) {
            to[j] += twice * x[j] * window;
        } else {
            const FC_T scale = k + alpha * window, factor = FC_N(fc_inverse_power)(scale, power, beta);
            if (pass == FC_RESPOND) {
                to[j] = x[j] * factor;
            } else {
                const FC_T weighed = dout[j] * factor;
                to[j] = weighed;
                products[j] = weighed * x[j] / scale;
            }
        }
    }
}

/* Compute to = sums + row^2 or, for FC_SPREAD, to = sums + row, where `row` is one channel. If `inside` is 0, the
 * channel is outside the image, and nothing is added. */
FC_INLINE void FC_N(fc_lrn_add)(const FC_T *row, const FC_T *sums, FC_T *to, ptrdiff_t n, int inside, const int pass)
{
    ptrdiff_t j;
    if (inside)
        for (j = 0; j < n; j++)
            to[j] = sums[j] + (pass == FC_SPREAD ? row[j] : row[j] * row[j]);
    else if (to != sums)
        for (j = 0; j < n; j++)
            to[j] = sums[j];
}

/* Run one pass (see FC_RESPOND in lrn.h) for n positions. The channels are divided into blocks that are as long as a
 * window. So each window is a suffix of one block and a prefix of the next block. The sums of all suffixes of a block
 * are computed first. The sum of the prefix is then updated from window to window. So a window of any size takes three
 * additions, and nothing is ever subtracted (M. van Herk, 1992). */
FC_INLINE void FC_N(fc_lrn_pass)(const FC_T *dout, const FC_T *x, FC_T *to, FC_T *products, FC_T *space, ptrdiff_t n,
                                 const fc_response *layer, const int pass, const int power)
{
    const ptrdiff_t lo = pass == FC_SPREAD ? layer->hi : layer->lo, C = layer->channels, pitch = layer->pitch;
    const ptrdiff_t size = layer->lo + layer->hi + 1, source_pitch = pass == FC_SPREAD ? n : pitch;
    const FC_T *from = pass == FC_SPREAD ? products : x;
    FC_T *prefix = space, *suffix = space + n;
    ptrdiff_t begin, i, j;
    for (begin = 0; begin < C; begin += size) {
        for (j = 0; j < n; j++)
            prefix[j] = suffix[size * n + j] = 0;
        for (i = size - 1; i >= 0; i--) {
            const ptrdiff_t c = begin + i - lo;
            FC_N(fc_lrn_add)(from + c * source_pitch, suffix + (i + 1) * n, suffix + i * n, n, c >= 0 && c < C, pass);
        }
        for (i = 0; i < size && begin + i < C; i++) {
            const ptrdiff_t c = begin + i, next = c + size - lo;
            FC_N(fc_lrn_row)(dout + c * pitch, x + c * pitch, to + c * pitch, products + c * n, suffix + i * n, prefix,
                             n, layer, pass, power);
            FC_N(fc_lrn_add)(from + next * source_pitch, prefix, prefix, n, next < C, pass);
        }
    }
}

/* Compute the output for n positions. `space` has room for lo + hi + 3 rows of n elements. */
static void FC_N(fc_lrn)(const void *x_, void *y_, ptrdiff_t n, const fc_response *layer, void *space)
{
    const FC_T *x = (const FC_T *)x_;
    FC_T *y = (FC_T *)y_, *rows = (FC_T *)space;
    switch (fc_power_of(layer->beta)) {
    case FC_THREE_QUARTERS:
        FC_N(fc_lrn_pass)(x, x, y, rows, rows, n, layer, FC_RESPOND, FC_THREE_QUARTERS);
        break;
    case FC_HALF:
        FC_N(fc_lrn_pass)(x, x, y, rows, rows, n, layer, FC_RESPOND, FC_HALF);
        break;
    case FC_ONE:
        FC_N(fc_lrn_pass)(x, x, y, rows, rows, n, layer, FC_RESPOND, FC_ONE);
        break;
    default:
        FC_N(fc_lrn_pass)(x, x, y, rows, rows, n, layer, FC_RESPOND, FC_POWER);
    }
}

/* Compute dx = dout / scale^beta - 2 * alpha * beta * x * sum for n positions. The sum runs over the channels whose
 * windows include the channel of dx. Its terms are dout * x / scale^(beta + 1) of these channels. `space` has room for
 * channels + lo + hi + 3 rows of n elements. */
static void FC_N(fc_lrn_gradient)(const void *dout_, const void *x_, void *dx_, ptrdiff_t n, const fc_response *layer,
                                  void *space)
{
    const FC_T *dout = (const FC_T *)dout_, *x = (const FC_T *)x_;
    FC_T *dx = (FC_T *)dx_, *products = (FC_T *)space, *rows = products + layer->channels * n;
    switch (fc_power_of(layer->beta)) {
    case FC_THREE_QUARTERS:
        FC_N(fc_lrn_pass)(dout, x, dx, products, rows, n, layer, FC_WEIGH, FC_THREE_QUARTERS);
        break;
    case FC_HALF:
        FC_N(fc_lrn_pass)(dout, x, dx, products, rows, n, layer, FC_WEIGH, FC_HALF);
        break;
    case FC_ONE:
        FC_N(fc_lrn_pass)(dout, x, dx, products, rows, n, layer, FC_WEIGH, FC_ONE);
        break;
    default:
        FC_N(fc_lrn_pass)(dout, x, dx, products, rows, n, layer, FC_WEIGH, FC_POWER);
    }
    FC_N(fc_lrn_pass)(dout, x, dx, products, rows, n, layer, FC_SPREAD, FC_ONE);
}

const fc_lrn_kernels FC_N(fc_lrn_kernels) = {
    .forward = FC_N(fc_lrn),
    .gradient = FC_N(fc_lrn_gradient),
};
