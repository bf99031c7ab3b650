/* The kernels of activation.h: one object for each dtype and instruction set. */
#include "activation.h"

#define FC_TEMPLATE "activation_template.h"
#include "foreach.h"
