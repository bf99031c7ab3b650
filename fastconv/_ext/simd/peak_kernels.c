/* The kernels that peak.h declares. The build compiles this file once for each dtype and instruction set. */
#include "simd/peak.h"

#define FC_TEMPLATE "simd/peak_template.h"
#include "simd/foreach.h"
