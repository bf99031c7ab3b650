/* The kernels of sparse.h: one object for each dtype and instruction set. */
#include "sparse.h"

/* Only the kernels for AVX-512 use intrinsics. The compiler needs longer for this header than for many kernels. */
#if FC_X86 && (!defined(FC_ONLY) || defined(FC_ONLY_avx512))
#include <immintrin.h>
#endif

#define FC_TEMPLATE "sparse_template.h"
#include "foreach.h"
