/* Time activation.h: functions of each element. */
#include "driver.h"
#include "elementwise/activation.h"

static void time_each(const driver_pair *pair, const char *name, fc_each_t each, int arrays)
{
    enum { N = 4096 };
    void *x = numbers(pair->dtype, N), *dout = numbers(pair->dtype, N), *to = zeros(pair->dtype, N);
    TIME(pair, 0, arrays * N * pair->item, each(x, arrays == 3 ? dout : x, to, N, 0.125), "%s, %d elements", name, N);
    free(x), free(dout), free(to);
}

FAMILY(activation)
{
    time_each(pair, "rectify", kernels->rectify, 2);
    time_each(pair, "rectify_gradient", kernels->rectify_gradient, 3);
    time_each(pair, "leak", kernels->leak, 2);
    time_each(pair, "sigmoid", kernels->sigmoid, 2);
    time_each(pair, "sigmoid_gradient", kernels->sigmoid_gradient, 3);
    time_each(pair, "tanh", kernels->tanh, 2);
    time_each(pair, "tanh_gradient", kernels->tanh_gradient, 3);
}
