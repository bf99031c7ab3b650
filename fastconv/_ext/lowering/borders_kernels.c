/* The kernels that borders.h declares. The build compiles this file once for each dtype and instruction set. */
#include "lowering/borders.h"

#define FC_TEMPLATE "lowering/borders_template.h"
#include "simd/foreach.h"
