/* The kernels that lrn.h declares. The build compiles this file once for each dtype and instruction set. */
#include "norm/lrn.h"

#define FC_TEMPLATE "norm/lrn_template.h"
#include "simd/foreach.h"
