/* The kernels of pool.h: one object for each dtype and instruction set. */
#include "pool.h"

#define FC_TEMPLATE "pool_template.h"
#include "foreach.h"
