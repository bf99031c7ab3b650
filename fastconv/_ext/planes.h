/* Sums and maxima of planes, each one run of numbers: for every instruction set. */
#ifndef FASTCONV_PLANES_H
#define FASTCONV_PLANES_H

#include "isa.h"

#define FC_TEMPLATE "planes_template.h"
#include "foreach.h"

typedef double (*fc_total_t)(const void *from, ptrdiff_t n);
typedef ptrdiff_t (*fc_highest_t)(const void *from, ptrdiff_t n);
FC_TABLE(fc_total_t, fc_total);
FC_TABLE(fc_highest_t, fc_highest);

#endif /* FASTCONV_PLANES_H */
