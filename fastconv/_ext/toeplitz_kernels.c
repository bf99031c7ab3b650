/* The kernels of toeplitz.h: one object for each dtype and instruction set. */
#include "toeplitz.h"

#define FC_TEMPLATE "toeplitz_template.h"
#include "foreach.h"
