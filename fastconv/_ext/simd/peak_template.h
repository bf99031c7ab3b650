/* Multiply-adds that use registers only, for one dtype and instruction set: see peak.h. */

/* The number of independent chains of multiply-adds. It is enough to hide a latency of four cycles on a CPU with two
 * multiply-add units. */
#define FC_CHAINS (FC_REGISTERS - 4)

static int FC_N(fc_peak_width)(void) { return FC_CHAINS * FC_VL; }

/* Do `rounds` multiply-adds in each lane of each chain, and return the sum of all lanes.
 *
 * The compiler cannot drop a multiply-add, because the result depends on all of them. It cannot move a product out of
 * the loop, because each sum is a factor of the next product. */
static double FC_N(fc_peak)(ptrdiff_t rounds, double factor)
{
    const FC_V factors = FC_N(fc_broadcast)((FC_T)factor);
    FC_V sums[FC_CHAINS];
    FC_T lanes[FC_VL];
    double total = 0;
    ptrdiff_t round;
    int i;
    FC_UNROLL
    for (i = 0; i < FC_CHAINS; i++)
        sums[i] = FC_N(fc_broadcast)((FC_T)(i + 1));
    for (round = 0; round < rounds; round++) {
        FC_UNROLL
        for (i = 0; i < FC_CHAINS; i++)
            sums[i] += sums[i] * factors;
    }
    FC_UNROLL
    for (i = 1; i < FC_CHAINS; i++)
        sums[0] += sums[i];
    FC_N(fc_store)(lanes, sums[0]);
    for (i = 0; i < FC_VL; i++)
        total += lanes[i];
    return total;
}
#undef FC_CHAINS

const fc_peak_kernels FC_N(fc_peak_kernels) = {
    .width = FC_N(fc_peak_width),
    .peak = FC_N(fc_peak),
};
