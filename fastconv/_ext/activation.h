/* Elementwise functions and their gradients, for every instruction set. */
#ifndef FASTCONV_ACTIVATION_H
#define FASTCONV_ACTIVATION_H

#include "isa.h"

#define FC_TEMPLATE "activation_template.h"
#include "foreach.h"

/* to = f(first, second), of n numbers each; a function of one number is given it twice. */
typedef void (*fc_each_t)(const void *first, const void *second, void *to, ptrdiff_t n, double slope);
FC_TABLE(fc_each_t, fc_rectify);
FC_TABLE(fc_each_t, fc_rectify_gradient);
FC_TABLE(fc_each_t, fc_leak);
FC_TABLE(fc_each_t, fc_sigmoid);
FC_TABLE(fc_each_t, fc_sigmoid_gradient);
FC_TABLE(fc_each_t, fc_tanh);
FC_TABLE(fc_each_t, fc_tanh_gradient);

#endif /* FASTCONV_ACTIVATION_H */
