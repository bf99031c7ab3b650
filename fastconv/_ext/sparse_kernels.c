/* The kernels of sparse.h: one object for each dtype and instruction set. */
#include "sparse.h"

#define FC_TEMPLATE "sparse_template.h"
#include "foreach.h"
