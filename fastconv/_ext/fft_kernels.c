/* The kernels of fft.h: one object for each dtype and instruction set. */
#include "fft.h"

#define FC_TEMPLATE "fft_template.h"
#include "foreach.h"
