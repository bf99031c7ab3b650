/* The kernels that fft.h declares. The build compiles this file once for each dtype and instruction set. */
#include "fft/fft.h"

#define FC_TEMPLATE "fft/fft_template.h"
#include "simd/foreach.h"
