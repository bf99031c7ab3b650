/* Check vectors.h and lanes.h: shuffles and masks. */
#include "check.h"

typedef struct {
    void (*run)(int dtype, int isa);
} checks_of;

FC_KERNELS(checks_of, checks_for);

#define FC_TEMPLATE "vectors_template.h"
#include "simd/foreach.h"

int main(void)
{
    int dtype, isa;
    EACH_COPY(dtype, isa)
    checks_for(dtype, isa)->run(dtype, isa);
    return finish("vectors");
}
