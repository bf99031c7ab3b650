/* Shared by the files of the kernel driver: see main.c.
 *
 * Each other file times the kernels of one family by the macro TIME, and calls its function `driver_FAMILY`. */
#ifndef FASTCONV_DRIVER_H
#define FASTCONV_DRIVER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arrays.h"
#include "simd/isa.h"

/* The dtype and the instruction set of the kernels that are timed, by number. */
typedef struct {
    int dtype, isa, lanes; /* `lanes` is the number of elements of a vector */
    double item;           /* the number of bytes of an element */
} driver_pair;

/* DRIVER_RUNS is the number of runs of a measurement. Before these runs, the field `run` of driver_timer is
 * DRIVER_FIRST if nothing has run yet, and DRIVER_SHORT while runs take too little time. */
enum { DRIVER_RUNS = 9, DRIVER_FIRST = -2, DRIVER_SHORT = -1 };

/* The measurement of one kernel. A run is a number of calls that together take long enough for the clock. Each run is
 * followed by a run of the yardstick: the multiply-adds of peak.h if `operations` is not 0, otherwise a copy of as many
 * bytes. A pair of runs gives a ratio, which does not depend on the clock rate of the CPU. */
typedef struct {
    const driver_pair *pair;
    double operations; /* floating-point operations of a call; a multiply-add counts as two */
    double bytes;      /* bytes that a call reads and writes */
    ptrdiff_t calls;   /* the number of calls of a run */
    int run;           /* the number of runs that are done, DRIVER_FIRST or DRIVER_SHORT */
    double begin;      /* the time at which the present run started, in seconds */
    double seconds[DRIVER_RUNS], shares[DRIVER_RUNS];
} driver_timer;

driver_timer driver_begin(const driver_pair *pair, double operations, double bytes);
int driver_next(driver_timer *timer);
void driver_end(driver_timer *timer, const char *format, ...);

/* Time `call`, an expression, and print a line that starts with a name in printf's format. */
#define TIME(pair, operations, bytes, call, ...)                           \
    do {                                                                   \
        driver_timer timer_ = driver_begin((pair), (operations), (bytes)); \
        while (driver_next(&timer_)) {                                     \
            ptrdiff_t left_;                                               \
            for (left_ = timer_.calls; left_ > 0; left_--)                 \
                call;                                                      \
        }                                                                  \
        driver_end(&timer_, __VA_ARGS__);                                  \
    } while (0)

/* The program may be linked with the kernels of some dtypes and instruction sets only. References to kernels are
 * therefore weak, and those that are not linked are NULL. */
#define PRAGMA(text) _Pragma(#text)
#define WEAK_f32(type, enumerator, isa, bytes) PRAGMA(weak type##_f32_##isa)
#define WEAK_f64(type, enumerator, isa, bytes) PRAGMA(weak type##_f64_##isa)
#define WEAK_KERNELS(type) FC_FOR_EACH_ISA(WEAK_f32, type) FC_FOR_EACH_ISA(WEAK_f64, type)
#define WEAK_BASELINE_KERNELS(type) PRAGMA(weak type##_f32_baseline) PRAGMA(weak type##_f64_baseline)

/* Define the function of a family, whose body follows. `kernels` is what fc_FAMILY_for returns. The function returns 0 if
 * these kernels are not linked. BASELINE_FAMILY is for a family that has baseline kernels only. */
#define FAMILY(name)                  \
    WEAK_KERNELS(fc_##name##_kernels) \
    FAMILY_FOUND_BY(name, fc_##name##_for(pair->dtype, pair->isa))
#define BASELINE_FAMILY(name)                  \
    WEAK_BASELINE_KERNELS(fc_##name##_kernels) \
    FAMILY_FOUND_BY(name, fc_##name##_for(pair->dtype))
#define FAMILY_FOUND_BY(name, found)                                                       \
    static void time_kernels(const driver_pair *pair, const fc_##name##_kernels *kernels); \
    int driver_##name(const driver_pair *pair)                                             \
    {                                                                                      \
        const fc_##name##_kernels *kernels = found;                                        \
        if (kernels != NULL)                                                               \
            time_kernels(pair, kernels);                                                   \
        return kernels != NULL;                                                            \
    }                                                                                      \
    static void time_kernels(const driver_pair *pair, const fc_##name##_kernels *kernels)

#define FOR_EACH_FAMILY(row)                                                                                       \
    row(activation) row(borders) row(copies) row(depthwise) row(fft) row(lrn) row(microkernel) row(norm) row(peak) \
        row(planes) row(pool) row(pool_running) row(separable) row(sparse) row(toeplitz) row(winograd)

/* A family is part of the program if its file is linked. */
#define DECLARE_FAMILY(name) int driver_##name(const driver_pair *pair) __attribute__((weak));
FOR_EACH_FAMILY(DECLARE_FAMILY)

#endif /* FASTCONV_DRIVER_H */
