/* The kernels that pool_running.h declares. The build compiles this file once for each dtype and instruction set. */
#include "pool/pool_running.h"

#define FC_TEMPLATE "pool/pool_running_template.h"
#include "simd/foreach.h"
