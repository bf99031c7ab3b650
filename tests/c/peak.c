/* Check peak.h: the loop that measures the multiply-add rate. */
#include "check.h"
#include "simd/peak.h"

int main(void)
{
    int dtype, isa;
    EACH_COPY(dtype, isa)
    {
        const int lanes = fc_isa_lanes(dtype, isa), chains = fc_peak_for(dtype, isa)->width() / lanes;
        double wanted = 0;
        int i;
        for (i = 1; i <= chains; i++)
            wanted += lanes * i * 1.5 * 1.5;
        near_to("sum", dtype, isa, fc_peak_for(dtype, isa)->peak(2, 0.5), wanted, wanted);
    }
    return finish("peak");
}
