/* The kernels of toeplitz.h: one object for each dtype and instruction set. */
#include "toeplitz/toeplitz.h"

#define FC_TEMPLATE "toeplitz/toeplitz_template.h"
#include "simd/foreach.h"
