/* The kernels of lrn.h: one object for each dtype and instruction set. */
#include "lrn.h"

#define FC_TEMPLATE "lrn_template.h"
#include "foreach.h"
