/* The kernels that activation.h declares. The build compiles this file once for each dtype and instruction set. */
#include "elementwise/activation.h"

#define FC_TEMPLATE "elementwise/activation_template.h"
#include "simd/foreach.h"
