/* The kernels of separable.h: one object for each dtype and instruction set. */
#include "separable/separable.h"

#define FC_TEMPLATE "separable/separable_template.h"
#include "simd/foreach.h"
