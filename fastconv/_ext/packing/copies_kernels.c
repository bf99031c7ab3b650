/* The kernels that copies.h declares. The build compiles this file once for each dtype and instruction set. */
#include "packing/copies.h"

#define FC_TEMPLATE "packing/copies_template.h"
#include "simd/foreach.h"
