/* The kernels of pool_running.h: one object for each dtype and instruction set. */
#include "pool/pool_running.h"

#define FC_TEMPLATE "pool/pool_running_template.h"
#include "simd/foreach.h"
