/* Activation functions, such as ReLU and sigmoid, and their gradients, compiled for every instruction set. */
#ifndef FASTCONV_ACTIVATION_H
#define FASTCONV_ACTIVATION_H

#include "simd/isa.h"

/* Compute to[i] = f(first[i], second[i]) for i < n. For a function of one argument, `second` equals `first`. Only the
 * leaky ReLU uses `slope`. */
typedef void (*fc_each_t)(const void *first, const void *second, void *to, ptrdiff_t n, double slope);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_each_t rectify;
    fc_each_t rectify_gradient;
    fc_each_t leak;
    fc_each_t sigmoid;
    fc_each_t sigmoid_gradient;
    fc_each_t tanh;
    fc_each_t tanh_gradient;
} fc_activation_kernels;

FC_KERNELS(fc_activation_kernels, fc_activation_for);

#endif /* FASTCONV_ACTIVATION_H */
