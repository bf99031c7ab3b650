/* The kernels of microkernel.h: one object for each dtype and instruction set. */
#include "microkernel.h"

#define FC_TEMPLATE "microkernel_template.h"
#include "foreach.h"
