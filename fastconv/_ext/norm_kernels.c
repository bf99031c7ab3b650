/* The kernels of norm.h: one object for each dtype and instruction set. */
#include "norm.h"

#define FC_TEMPLATE "norm_template.h"
#include "foreach.h"
#define FC_TEMPLATE "norm_columns_template.h"
#include "foreach.h"
