/* The kernels that separable.h declares. The build compiles this file once for each dtype and instruction set. */
#include "separable/separable.h"

#define FC_TEMPLATE "separable/separable_template.h"
#include "simd/foreach.h"
