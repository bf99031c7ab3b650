/* Time the loop of multiply-adds that is the yardstick of all other kernels: see driver.h. */
#include "driver.h"
#include "simd/peak.h"

FAMILY(peak)
{
    const ptrdiff_t rounds = 10000;
    TIME(pair, 2.0 * (double)rounds * kernels->width(), 0, kernels->peak(rounds, 1e-30), "peak");
}
