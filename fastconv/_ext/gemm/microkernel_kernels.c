/* The kernels that microkernel.h declares. The build compiles this file once for each dtype and instruction set. */
#include "gemm/microkernel.h"

#define FC_TEMPLATE "gemm/microkernel_template.h"
#include "simd/foreach.h"
