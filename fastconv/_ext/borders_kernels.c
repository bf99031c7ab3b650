/* The kernels of borders.h: one object for each dtype and instruction set. */
#include "borders.h"

#define FC_TEMPLATE "borders_template.h"
#include "foreach.h"
