/* The kernels that planes.h declares. The build compiles this file once for each dtype and instruction set. */
#include "elementwise/planes.h"

#define FC_TEMPLATE "elementwise/planes_template.h"
#include "simd/foreach.h"
