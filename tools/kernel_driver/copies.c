/* Time copies.h: transposed copies of planes. */
#include "driver.h"
#include "packing/copies.h"

static void time_plane(const driver_pair *pair, const fc_copies_kernels *kernels, ptrdiff_t rows, ptrdiff_t columns,
                       int transposed)
{
    const fc_plane plane = {.step = transposed ? 1 : columns,
                            .pitch = transposed ? rows : 1,
                            .to_pitch = columns,
                            .rows = rows,
                            .columns = columns};
    void *from = numbers(pair->dtype, rows * columns), *to = zeros(pair->dtype, rows * columns);
    TIME(pair, 0, 2.0 * (double)(rows * columns) * pair->item, kernels->copy(from, to, &plane), "%s, %td x %td",
         transposed ? "transposed" : "by rows", rows, columns);
    free(from), free(to);
}

FAMILY(copies)
{
    time_plane(pair, kernels, 64, 64, 0);
    time_plane(pair, kernels, 3, 4096, 1);
    time_plane(pair, kernels, 64, 64, 1);
    time_plane(pair, kernels, 64, 3136, 1);
    time_plane(pair, kernels, 512, 49, 1);
}
