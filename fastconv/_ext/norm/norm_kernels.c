/* The kernels that norm.h declares. The build compiles this file once for each dtype and instruction set. */
#include "norm/norm.h"

#define FC_TEMPLATE "norm/norm_template.h"
#include "simd/foreach.h"
#define FC_TEMPLATE "norm/norm_columns_template.h"
#include "simd/foreach.h"
