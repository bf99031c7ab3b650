/* The peak rate of multiply-adds of a core, for every instruction set. Benchmarks compare kernels with this rate. */
#ifndef FASTCONV_PEAK_H
#define FASTCONV_PEAK_H

#include "isa.h"

#define FC_TEMPLATE "peak_template.h"
#include "foreach.h"

typedef int (*fc_peak_width_t)(void);
typedef double (*fc_peak_t)(ptrdiff_t rounds, double factor);
FC_TABLE(fc_peak_width_t, fc_peak_width);
FC_TABLE(fc_peak_t, fc_peak);

#endif /* FASTCONV_PEAK_H */
