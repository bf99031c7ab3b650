/* The kernels of planes.h: one object for each dtype and instruction set. */
#include "planes.h"

#define FC_TEMPLATE "planes_template.h"
#include "foreach.h"
