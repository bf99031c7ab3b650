/* Include FC_TEMPLATE for float and for double: see isa.h. */
#define FC_T float
#define FC_DTYPE f32
#define FC_BYTES 4
#include "vectors.h"
#include FC_TEMPLATE
#undef FC_T
#undef FC_DTYPE
#undef FC_BYTES

#define FC_T double
#define FC_DTYPE f64
#define FC_BYTES 8
#include "vectors.h"
#include FC_TEMPLATE
#undef FC_T
#undef FC_DTYPE
#undef FC_BYTES
