/* Include FC_TEMPLATE for float and for double, or for one of them: see foreach.h. */
#if !defined(FC_ONLY) || defined(FC_ONLY_f32)
#define FC_T float
#define FC_DTYPE f32
#define FC_BYTES 4
#include "simd/vectors.h"
#include FC_TEMPLATE
#undef FC_T
#undef FC_DTYPE
#undef FC_BYTES
#endif

#if !defined(FC_ONLY) || defined(FC_ONLY_f64)
#define FC_T double
#define FC_DTYPE f64
#define FC_BYTES 8
#include "simd/vectors.h"
#include FC_TEMPLATE
#undef FC_T
#undef FC_DTYPE
#undef FC_BYTES
#endif
