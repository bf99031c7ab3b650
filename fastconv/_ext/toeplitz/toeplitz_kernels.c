/* The kernels that toeplitz.h declares. The build compiles this file once for each dtype and instruction set. */
#include "toeplitz/toeplitz.h"

#define FC_TEMPLATE "toeplitz/toeplitz_template.h"
#include "simd/foreach.h"
