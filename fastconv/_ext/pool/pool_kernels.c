/* The kernels of pool.h: one object for each dtype and instruction set. */
#include "pool/pool.h"

#define FC_TEMPLATE "pool/pool_template.h"
#include "simd/foreach.h"
