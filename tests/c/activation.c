/* Check activation.h: functions of each element. */
#include "check.h"
#include "elementwise/activation.h"

static double rectify(double x, double slope) { return (void)slope, x > 0 ? x : 0; }
static double leak(double x, double slope) { return x > 0 ? x : slope * x; }
static double sigmoid(double x, double slope) { return (void)slope, 1 / (1 + exp(-x)); }
static double hyperbolic(double x, double slope) { return (void)slope, tanh(x); }

static void check(const char *what, int dtype, int isa, fc_each_t each, double (*wanted)(double, double))
{
    ptrdiff_t n, i;
    for (n = 1; n <= 70; n += n < 20 ? 1 : 25) {
        void *x = numbers(dtype, n), *to = zeros(dtype, n);
        each(x, x, to, n, 0.125);
        for (i = 0; i < n; i++)
            near_to(what, dtype, isa, get(dtype, to, i), wanted(get(dtype, x, i), 0.125), 1);
        free(x), free(to);
    }
}

int main(void)
{
    int dtype, isa;
    EACH_COPY(dtype, isa)
    {
        check("rectify", dtype, isa, fc_activation_for(dtype, isa)->rectify, rectify);
        check("leak", dtype, isa, fc_activation_for(dtype, isa)->leak, leak);
        check("sigmoid", dtype, isa, fc_activation_for(dtype, isa)->sigmoid, sigmoid);
        check("tanh", dtype, isa, fc_activation_for(dtype, isa)->tanh, hyperbolic);
    }
    return finish("activation");
}
