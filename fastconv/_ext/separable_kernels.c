/* The kernels of separable.h: one object for each dtype and instruction set. */
#include "separable.h"

#define FC_TEMPLATE "separable_template.h"
#include "foreach.h"
