/* The kernels of winograd.h: one object for each dtype and instruction set. */
#include "winograd/winograd.h"

#define FC_TEMPLATE "winograd/winograd_template.h"
#include "simd/foreach.h"
