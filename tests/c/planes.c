/* Check planes.h: sums and maxima of contiguous numbers. */
#include "check.h"
#include "elementwise/planes.h"

int main(void)
{
    int dtype, isa;
    ptrdiff_t n, i;
    EACH_COPY(dtype, isa)
    for (n = 1; n <= 600; n += n < 140 ? 1 : 51) {
        void *x = numbers(dtype, n);
        double total = 0;
        ptrdiff_t at = 0;
        for (i = 0; i < n; i++) {
            total += get(dtype, x, i);
            at = get(dtype, x, i) > get(dtype, x, at) ? i : at;
        }
        near_to("total", dtype, isa, fc_planes_for(dtype, isa)->total(x, n), total, 4.0 * (double)n);
        same("highest", dtype, isa, (double)fc_planes_for(dtype, isa)->highest(x, n), (double)at);
        set(dtype, x, n - 1, (double)NAN);
        set(dtype, x, n / 2, (double)NAN);
        same("the first NaN", dtype, isa, (double)fc_planes_for(dtype, isa)->highest(x, n), (double)(n / 2));
        free(x);
    }
    return finish("planes");
}
