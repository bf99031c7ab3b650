/* The kernels that depthwise.h declares. The build compiles this file once for each dtype and instruction set. */
#include "depthwise/depthwise.h"

#define FC_TEMPLATE "depthwise/depthwise_template.h"
#include "simd/foreach.h"
