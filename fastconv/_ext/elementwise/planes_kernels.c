/* The kernels of planes.h: one object for each dtype and instruction set. */
#include "elementwise/planes.h"

#define FC_TEMPLATE "elementwise/planes_template.h"
#include "simd/foreach.h"
