/* The kernels that winograd.h declares. The build compiles this file once for each dtype and instruction set. */
#include "winograd/winograd.h"

#define FC_TEMPLATE "winograd/winograd_template.h"
#include "simd/foreach.h"
