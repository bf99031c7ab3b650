/* The kernels of depthwise.h: one object for each dtype and instruction set. */
#include "depthwise.h"

#define FC_TEMPLATE "depthwise_template.h"
#include "foreach.h"
