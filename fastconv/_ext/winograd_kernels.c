/* The kernels of winograd.h: one object for each dtype and instruction set. */
#include "winograd.h"

#define FC_TEMPLATE "winograd_template.h"
#include "foreach.h"
