/* Time lrn.h: local response normalisation over windows of five channels, and its gradient. */
#include "driver.h"
#include "norm/lrn.h"

FAMILY(lrn)
{
    enum { CHANNELS = 64, N = 64, LO = 2, HI = 2 };
    static const double powers[] = {0.75, 0.5, 1, 0.6};
    const double bytes = CHANNELS * N * pair->item;
    void *x = numbers(pair->dtype, CHANNELS * N), *dout = numbers(pair->dtype, CHANNELS * N);
    void *y = zeros(pair->dtype, CHANNELS * N), *space = zeros(pair->dtype, (2 * CHANNELS + LO + HI + 8) * N);
    int i;
    for (i = 0; i < 4; i++) {
        const fc_response layer = {
            .channels = CHANNELS, .pitch = N, .lo = LO, .hi = HI, .alpha = 2e-5, .beta = powers[i], .k = 1};
        TIME(pair, 0, 2 * bytes, kernels->forward(x, y, N, &layer, space), "forward, beta %g", powers[i]);
        TIME(pair, 0, 3 * bytes, kernels->gradient(dout, x, y, N, &layer, space), "gradient, beta %g", powers[i]);
    }
    free(x), free(dout), free(y), free(space);
}
