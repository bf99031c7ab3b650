/* The kernels of peak.h: one object for each dtype and instruction set. */
#include "simd/peak.h"

#define FC_TEMPLATE "simd/peak_template.h"
#include "simd/foreach.h"
