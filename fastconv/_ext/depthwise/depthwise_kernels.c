/* The kernels of depthwise.h: one object for each dtype and instruction set. */
#include "depthwise/depthwise.h"

#define FC_TEMPLATE "depthwise/depthwise_template.h"
#include "simd/foreach.h"
