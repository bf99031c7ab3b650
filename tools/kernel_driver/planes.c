/* Time planes.h: a sum and a maximum of a plane. */
#include "driver.h"
#include "elementwise/planes.h"

FAMILY(planes)
{
    static const ptrdiff_t lengths[] = {49, 784, 12544};
    int i;
    for (i = 0; i < 3; i++) {
        const ptrdiff_t n = lengths[i];
        void *x = numbers(pair->dtype, n);
        TIME(pair, 0, (double)n * pair->item, kernels->total(x, n), "total, %td elements", n);
        TIME(pair, 0, (double)n * pair->item, kernels->highest(x, n), "highest, %td elements", n);
        free(x);
    }
}
