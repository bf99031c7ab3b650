/* Check vectors.h and lanes.h: shuffles and masks. */
#include "check.h"

#define FC_TEMPLATE "vectors_template.h"
#include "foreach.h"

typedef void (*run_t)(int dtype, int isa);
FC_TABLE(run_t, run);

int main(void)
{
    int dtype, isa;
    EACH_COPY(dtype, isa)
        run_table[dtype][isa](dtype, isa);
    return finish("vectors");
}
