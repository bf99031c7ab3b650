/* The kernels of pool_running.h: one object for each dtype and instruction set. */
#include "pool_running.h"

#define FC_TEMPLATE "pool_running_template.h"
#include "foreach.h"
