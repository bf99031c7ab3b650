/* The kernels that pool.h declares. The build compiles this file once for each dtype and instruction set. */
#include "pool/pool.h"

#define FC_TEMPLATE "pool/pool_template.h"
#include "simd/foreach.h"
