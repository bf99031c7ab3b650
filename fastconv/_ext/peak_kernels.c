/* The kernels of peak.h: one object for each dtype and instruction set. */
#include "peak.h"

#define FC_TEMPLATE "peak_template.h"
#include "foreach.h"
