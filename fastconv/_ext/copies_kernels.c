/* The kernels of copies.h: one object for each dtype and instruction set. */
#include "copies.h"

#define FC_TEMPLATE "copies_template.h"
#include "foreach.h"
