/* The kernels that sparse.h declares. The build compiles this file once for each dtype and instruction set. */
#include "sparse/sparse.h"

/* Only the kernels for AVX-512 use intrinsics. For other instruction sets, the header is not included, because
 * compiling it takes longer than compiling many kernels. */
#if FC_X86 && (!defined(FC_ONLY) || defined(FC_ONLY_avx512))
#include <immintrin.h>
#endif

#define FC_TEMPLATE "sparse/sparse_template.h"
#include "simd/foreach.h"
