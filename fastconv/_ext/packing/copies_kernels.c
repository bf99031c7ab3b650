/* The kernels of copies.h: one object for each dtype and instruction set. */
#include "packing/copies.h"

#define FC_TEMPLATE "packing/copies_template.h"
#include "simd/foreach.h"
