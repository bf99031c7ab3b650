/* The kernels of lrn.h: one object for each dtype and instruction set. */
#include "norm/lrn.h"

#define FC_TEMPLATE "norm/lrn_template.h"
#include "simd/foreach.h"
