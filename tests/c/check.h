/* Shared by the checks of the kernels. Each check is a program of its own: it includes one header of kernels, runs
 * every copy that this CPU can run, and compares with plain loops in double. It returns 0 if all agree.
 *
 * Buffers end where a kernel may touch them last, so that AddressSanitizer finds every access past that. */
#ifndef FASTCONV_CHECK_H
#define FASTCONV_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arrays.h"
#include "simd/isa.h"

static int checks, failures;

#define EACH_COPY(dtype, isa)               \
    for (dtype = 0; dtype < 2; dtype++)     \
        for (isa = 0; isa < FC_ISAS; isa++) \
            if (fc_isa_compiled(isa) && fc_isa_usable(isa))

/* Equal up to the rounding errors of numbers as large as `scale`. NaN equals NaN here. */
static inline void near_to(const char *what, int dtype, int isa, double got, double wanted, double scale)
{
    const double bound = (dtype ? 1e-13 : 1e-5) * scale;
    checks++;
    if (fabs(got - wanted) <= bound || (got != got && wanted != wanted))
        return;
    if (failures++ < 20)
        fprintf(stderr, "%s, %s, %s: got %.17g, wanted %.17g\n", what, dtype ? "double" : "float", fc_isa_names[isa],
                got, wanted);
}

static inline void same(const char *what, int dtype, int isa, double got, double wanted)
{
    near_to(what, dtype, isa, got, wanted, 0);
}

static inline int finish(const char *name)
{
    int isa;
    printf("%s: %d checks, %d failed, by", name, checks, failures);
    for (isa = 0; isa < FC_ISAS; isa++)
        if (fc_isa_compiled(isa) && fc_isa_usable(isa))
            printf(" %s", fc_isa_names[isa]);
    printf("%s\n", FC_VECTORS ? "" : ", without vectors");
    return failures > 0 || checks == 0;
}

#endif /* FASTCONV_CHECK_H */
