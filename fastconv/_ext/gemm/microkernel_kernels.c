/* The kernels of microkernel.h: one object for each dtype and instruction set. */
#include "gemm/microkernel.h"

#define FC_TEMPLATE "gemm/microkernel_template.h"
#include "simd/foreach.h"
