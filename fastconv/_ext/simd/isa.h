/* Instruction sets and dtypes, and the macros by which each kernel is written only once for all of them.
 *
 * A family of kernels, for example `some`, has three files. some.h declares the type of each kernel, and the struct
 * fc_some_kernels, whose members are pointers to kernels. some_template.h has the code, and defines one constant of
 * that struct. some_kernels.c includes the template for each dtype and instruction set (see foreach.h).
 *
 * The build compiles some_kernels.c once for each pair of dtype and instruction set, and links all object files to one
 * extension module. If the file defines FC_BASELINE_ONLY, it is compiled for the baseline only. In the module,
 * fc_some_for(dtype, isa) returns the kernels of a pair. fc_best_isa() returns the fastest instruction set of this CPU.
 *
 * Inside a template, FC_T is the element type, and FC_V is the vector type. FC_VL is the number of lanes of a vector,
 * and FC_REGISTERS is the number of vector registers. FC_FUSED is 1 if the instruction set has a fused multiply-add.
 * FC_N(name) adds the dtype and the instruction set to the name of a function, for example name_f32_avx2. */
#ifndef FASTCONV_ISA_H
#define FASTCONV_ISA_H

#include "buffers/runs.h"

/* Choose the builtin that shuffles vectors. clang, and GCC since version 12, have __builtin_shufflevector. Older
 * versions of GCC have __builtin_shuffle. GCC has __has_builtin since version 10. Some compilers have neither builtin,
 * or cannot convert between vector types (GCC 8). For these compilers, a vector is one element, and kernels are plain
 * loops. FASTCONV_PLAIN forces plain loops for any compiler. */
#if defined(__GNUC__) && !defined(FASTCONV_PLAIN)
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && __has_builtin(__builtin_convertvector)
#define FC_CLANG_SHUFFLE 1
#elif __has_builtin(__builtin_shuffle) && __has_builtin(__builtin_convertvector)
#define FC_GCC_SHUFFLE 1
#endif
#elif __GNUC__ == 9 && !defined(__INTEL_COMPILER)
#define FC_GCC_SHUFFLE 1
#endif
#endif

/* FC_SHUFFLE selects elements of the vectors a and b by index. The indices 0 to FC_VL - 1 select from a, and the next
 * FC_VL indices select from b. `indices` is the vector type of the indices, which are integers of the same size as the
 * elements. */
#if defined(FC_CLANG_SHUFFLE)
#define FC_VECTORS 1
#define FC_SHUFFLE(indices, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#elif defined(FC_GCC_SHUFFLE)
#define FC_VECTORS 1
#define FC_SHUFFLE(indices, a, b, ...) __builtin_shuffle(a, b, (indices){__VA_ARGS__})
#else
#define FC_VECTORS 0
#endif

#if FC_VECTORS
#define FC_INLINE static inline __attribute__((always_inline))
#define FC_UNROLL _Pragma("GCC unroll 32")
#else
#if defined(_MSC_VER)
#define FC_INLINE static __forceinline
#else
#define FC_INLINE static inline
#endif
#define FC_UNROLL
#endif

#if FC_VECTORS && (defined(__x86_64__) || defined(__i386__))
#define FC_X86 1
#else
#define FC_X86 0
#endif

/* The instruction sets, from the slowest to the fastest. Each row has the enumerator, the name, and the vector size in
 * bytes. */
/* clang-format off */
#define FC_FOR_EACH_ISA(row, argument)       \
    row(argument, FC_BASELINE, baseline, 16) \
    row(argument, FC_AVX2, avx2, 32)         \
    row(argument, FC_AVX512, avx512, 64)
/* clang-format on */

#define FC_ENUMERATOR(argument, enumerator, name, bytes) enumerator,
enum { FC_FOR_EACH_ISA(FC_ENUMERATOR, ) FC_ISAS };

#define FC_NAME(argument, enumerator, name, bytes) #name,
static const char *const fc_isa_names[FC_ISAS] = {FC_FOR_EACH_ISA(FC_NAME, )};

/* Return whether kernels for `isa` were compiled and this CPU supports `isa`. */
static inline int fc_isa_usable(int isa)
{
    if (isa == FC_BASELINE)
        return 1;
#if FC_X86
    __builtin_cpu_init();
    if (isa == FC_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == FC_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
#endif
    return 0;
}

static inline int fc_isa_compiled(int isa) { return isa == FC_BASELINE || FC_X86; }

static inline int fc_best_isa(void)
{
    int isa = FC_ISAS - 1;
    while (!fc_isa_usable(isa))
        isa--;
    return isa;
}

/* Return the number of elements of a vector. */
static inline int fc_isa_lanes(int dtype, int isa)
{
#if FC_VECTORS
#define FC_VECTOR_BYTES(argument, enumerator, name, bytes) bytes,
    static const int vector_bytes[FC_ISAS] = {FC_FOR_EACH_ISA(FC_VECTOR_BYTES, )};
    return vector_bytes[isa] / (dtype ? 8 : 4);
#else
    (void)dtype;
    (void)isa;
    return 1;
#endif
}

#define FC_PASTE3_(a, b, c) a##_##b##_##c
#define FC_PASTE3(a, b, c) FC_PASTE3_(a, b, c)
#define FC_N(name) FC_PASTE3(name, FC_DTYPE, FC_ISA)

/* FC_DECLARE_VERSIONS declares the kernels of a family for one dtype and each instruction set. If FC_X86 is 0, only the
 * baseline kernels exist, and are used for all instruction sets. */
#if FC_X86
#define FC_VERSION(name, enumerator, isa, bytes) &name##_##isa,
#define FC_DECLARE_VERSIONS(type, dtype) FC_FOR_EACH_ISA(FC_DECLARE_##dtype, type)
#define FC_DECLARE_f32(type, enumerator, isa, bytes) extern const type type##_f32_##isa;
#define FC_DECLARE_f64(type, enumerator, isa, bytes) extern const type type##_f64_##isa;
#else
#define FC_VERSION(name, enumerator, isa, bytes) &name##_baseline,
#define FC_DECLARE_VERSIONS(type, dtype) extern const type type##_##dtype##_baseline;
#endif

/* Define the function find(dtype, isa), which returns the kernels of a family. dtype is 0 for float and 1 for double.
 * `type` is the struct of pointers to kernels. The template of the family defines FC_N(type), a constant of this
 * struct. */
#define FC_KERNELS(type, find)                                                                       \
    FC_DECLARE_VERSIONS(type, f32)                                                                   \
    FC_DECLARE_VERSIONS(type, f64)                                                                   \
    static inline const type *find(int dtype, int isa)                                               \
    {                                                                                                \
        static const type *const versions[2][FC_ISAS] = {{FC_FOR_EACH_ISA(FC_VERSION, type##_f32)},  \
                                                         {FC_FOR_EACH_ISA(FC_VERSION, type##_f64)}}; \
        return versions[dtype][isa];                                                                 \
    }                                                                                                \
    struct fc_no_semicolon

/* Like FC_KERNELS, for a family that has baseline kernels only (FC_BASELINE_ONLY in foreach.h). The function is
 * find(dtype). */
#define FC_BASELINE_KERNELS(type, find)                                                                       \
    extern const type type##_f32_baseline;                                                                    \
    extern const type type##_f64_baseline;                                                                    \
    static inline const type *find(int dtype) { return dtype ? &type##_f64_baseline : &type##_f32_baseline; } \
    struct fc_no_semicolon

#endif /* FASTCONV_ISA_H */
