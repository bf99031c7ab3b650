/* The kernels of fft.h: one object for each dtype and instruction set. */
#include "fft/fft.h"

#define FC_TEMPLATE "fft/fft_template.h"
#include "simd/foreach.h"
