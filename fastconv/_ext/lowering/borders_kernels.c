/* The kernels of borders.h: one object for each dtype and instruction set. */
#include "lowering/borders.h"

#define FC_TEMPLATE "lowering/borders_template.h"
#include "simd/foreach.h"
