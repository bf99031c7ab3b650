/* The peak rate of multiply-adds of a core, for every instruction set. Benchmarks compare kernels with this rate. */
#ifndef FASTCONV_PEAK_H
#define FASTCONV_PEAK_H

#include "simd/isa.h"

typedef int (*fc_peak_width_t)(void);
typedef double (*fc_peak_t)(ptrdiff_t rounds, double factor);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_peak_width_t width;
    fc_peak_t peak;
} fc_peak_kernels;

FC_KERNELS(fc_peak_kernels, fc_peak_for);

#endif /* FASTCONV_PEAK_H */
