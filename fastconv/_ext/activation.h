/* Elementwise functions and their gradients, compiled for every instruction set. */
#ifndef FASTCONV_ACTIVATION_H
#define FASTCONV_ACTIVATION_H

#include "isa.h"

#define FC_TEMPLATE "activation_template.h"
#include "foreach.h"

/* to[i] = f(first[i], second[i]) for i < n. For a function of one argument, `second` equals `first`. */
typedef void (*fc_each_t)(const void *first, const void *second, void *to, ptrdiff_t n, double slope);
FC_TABLE(fc_each_t, fc_rectify);
FC_TABLE(fc_each_t, fc_rectify_gradient);
FC_TABLE(fc_each_t, fc_leak);
FC_TABLE(fc_each_t, fc_sigmoid);
FC_TABLE(fc_each_t, fc_sigmoid_gradient);
FC_TABLE(fc_each_t, fc_tanh);
FC_TABLE(fc_each_t, fc_tanh_gradient);

#endif /* FASTCONV_ACTIVATION_H */
