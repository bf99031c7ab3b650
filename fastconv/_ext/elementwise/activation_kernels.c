/* The kernels of activation.h: one object for each dtype and instruction set. */
#include "elementwise/activation.h"

#define FC_TEMPLATE "elementwise/activation_template.h"
#include "simd/foreach.h"
