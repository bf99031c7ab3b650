/* The kernels that toeplitz.h declares. The build compiles this file once for each dtype. */
#include "toeplitz/toeplitz.h"

/* The kernels mostly search lists and store integers, so wider vectors do not make them faster. */
#define FC_BASELINE_ONLY

#define FC_TEMPLATE "toeplitz/toeplitz_template.h"
#include "simd/foreach.h"
