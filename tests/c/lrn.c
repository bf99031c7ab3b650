/* Check lrn.h: local response normalisation against its formula. */
#include "check.h"
#include "norm/lrn.h"

int main(void)
{
    static const double powers[] = {0.75, 0.5, 1, 0.6};
    enum { CHANNELS = 7, N = 9 };
    int dtype, isa, power;
    ptrdiff_t lo, hi, c, d, j;
    EACH_COPY(dtype, isa)
    for (power = 0; power < 4; power++)
        for (lo = 0; lo < 4; lo++)
            for (hi = 0; hi < 9; hi += 4) {
                const fc_response layer = {CHANNELS, N, lo, hi, 0.25, powers[power], 2};
                void *x = numbers(dtype, CHANNELS * N), *y = zeros(dtype, CHANNELS * N);
                void *space = zeros(dtype, (lo + hi + 3) * N);
                fc_lrn_for(dtype, isa)->forward(x, y, N, &layer, space);
                for (c = 0; c < CHANNELS; c++)
                    for (j = 0; j < N; j++) {
                        double sum = 0;
                        for (d = c - lo < 0 ? 0 : c - lo; d <= c + hi && d < CHANNELS; d++)
                            sum += get(dtype, x, d * N + j) * get(dtype, x, d * N + j);
                        near_to("lrn", dtype, isa, get(dtype, y, c * N + j),
                                get(dtype, x, c * N + j) / pow(2 + 0.25 * sum, powers[power]), 4);
                    }
                free(x), free(y), free(space);
            }
    return finish("lrn");
}
