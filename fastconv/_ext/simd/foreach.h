/* Include FC_TEMPLATE for every pair of dtype and instruction set: see isa.h.
 *
 * The build compiles one object file for each pair. It selects a pair by three macros, for example FC_ONLY,
 * FC_ONLY_avx2 and FC_ONLY_f32. Without FC_ONLY, all pairs are compiled to one object file.
 *
 * A family defines FC_BASELINE_ONLY if other instruction sets would not make its kernels faster. It is then compiled
 * for the baseline only. */
#include "simd/isa.h"

#if !defined(FC_ONLY) || defined(FC_ONLY_baseline) || defined(FC_BASELINE_ONLY)
#define FC_ISA baseline
#define FC_FUSED 0
#define FC_VB 16
#if defined(__aarch64__)
#define FC_REGISTERS 32
#else
#define FC_REGISTERS 16
#endif
#include "simd/foreach_dtype.h"
#undef FC_ISA
#undef FC_FUSED
#undef FC_VB
#undef FC_REGISTERS
#endif

#if FC_X86 && !defined(FC_BASELINE_ONLY) && (!defined(FC_ONLY) || defined(FC_ONLY_avx2))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define FC_ISA avx2
#define FC_FUSED 1
#define FC_VB 32
#define FC_REGISTERS 16
#include "simd/foreach_dtype.h"
#undef FC_ISA
#undef FC_FUSED
#undef FC_VB
#undef FC_REGISTERS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif /* avx2 */

#if FC_X86 && !defined(FC_BASELINE_ONLY) && (!defined(FC_ONLY) || defined(FC_ONLY_avx512))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define FC_ISA avx512
#define FC_FUSED 1
#define FC_VB 64
#define FC_REGISTERS 32
#include "simd/foreach_dtype.h"
#undef FC_ISA
#undef FC_FUSED
#undef FC_VB
#undef FC_REGISTERS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif /* avx512 */

#ifndef FC_VECTORS_DEFINED
#define FC_VECTORS_DEFINED
#endif
#undef FC_TEMPLATE
#undef FC_BASELINE_ONLY
