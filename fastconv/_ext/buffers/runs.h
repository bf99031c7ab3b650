/* Operations on runs: copies and sums of n elements along the last axis.
 *
 * One of the two operands is contiguous, and the other may have a stride. The common strides are compile-time
 * constants, so that compilers may vectorise the loops. All functions are `static inline`, so that the module exports
 * no symbols. */
#ifndef FASTCONV_RUNS_H
#define FASTCONV_RUNS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_MSC_VER)
#include <intrin.h>
#define FC_RESTRICT __restrict
#else
#define FC_RESTRICT __restrict__
#endif

/* Prefetch the cache line at p, which will be read or written soon. Use this for addresses that the hardware cannot
 * predict. An invalid address has no effect. */
#if defined(__GNUC__)
#define FC_PREFETCH(p, write) __builtin_prefetch((p), (write))
#else
#define FC_PREFETCH(p, write) ((void)(p))
#endif

/* Prefetch all cache lines of the `bytes` bytes at `from`. */
static inline void fc_prefetch(const void *from, ptrdiff_t bytes)
{
    ptrdiff_t i;
    for (i = 0; i < bytes; i += 64)
        FC_PREFETCH((const char *)from + i, 0);
}

/* Debug builds check conditions. A failed check ends the process, because no exception can be raised without the
 * GIL. */
#if defined(FASTCONV_DEBUG)
#define FC_CHECKED 1
#define fc_check(condition)                                                                            \
    do {                                                                                               \
        if (!(condition)) {                                                                            \
            fprintf(stderr, "fastconv: out of bounds at %s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                                   \
        }                                                                                              \
    } while (0)
#else
#define FC_CHECKED 0
#define fc_check(condition) ((void)0)
#endif

/* Add `grain` to a counter that all threads of a call share, and return the old value. */
static inline ptrdiff_t fc_fetch_add(ptrdiff_t *counter, ptrdiff_t grain)
{
#if defined(_MSC_VER) && defined(_WIN64)
    return (ptrdiff_t)_InterlockedExchangeAdd64((volatile __int64 *)counter, (__int64)grain);
#elif defined(_MSC_VER)
    return (ptrdiff_t)_InterlockedExchangeAdd((volatile long *)counter, (long)grain);
#else
    return __atomic_fetch_add(counter, grain, __ATOMIC_RELAXED);
#endif
}

/* Runs of at least this number of bytes are copied by memcpy. For shorter runs, such as a short row of an image, a loop
 * is faster than a function call. setup.py sets a compiler option that keeps the compiler from replacing such a loop by
 * a call. */
#define FC_CALL_BYTES 1024

/* Copy a short run vector by vector. The last vector overlaps the previous vector, so that no loop over single elements
 * is needed. */
#if defined(__GNUC__)
typedef char fc_vector __attribute__((vector_size(16), aligned(1), may_alias));

static inline void fc_copy_short(char *FC_RESTRICT dst, const char *FC_RESTRICT src, ptrdiff_t bytes)
{
    ptrdiff_t i;
    if (bytes < 16) {
        for (i = 0; i < bytes; i += 4)
            memcpy(dst + i, src + i, 4);
        return;
    }
    for (i = 0; i < bytes - 16; i += 16)
        *(fc_vector *)(dst + i) = *(const fc_vector *)(src + i);
    *(fc_vector *)(dst + bytes - 16) = *(const fc_vector *)(src + bytes - 16);
}
#else
static inline void fc_copy_short(char *FC_RESTRICT dst, const char *FC_RESTRICT src, ptrdiff_t bytes)
{
    memcpy(dst, src, (size_t)bytes);
}
#endif

#if defined(__GNUC__)
#define FC_NOINLINE __attribute__((noinline, unused))
#else
#define FC_NOINLINE
#endif

/* Set a run to 0. This function is not inlined, because an inlined function would take registers from the loops that
 * copy, and long runs are rarely set to 0. */
static FC_NOINLINE void fc_zero_bytes(char *dst, size_t bytes) { memset(dst, 0, bytes); }

/* Run a statement for every i < n. In the statement, S is the stride. If S is 1, 2 or 4, it is a compile-time
 * constant. */
#define FC_EACH(n, stride, statement)     \
    do {                                  \
        ptrdiff_t i;                      \
        if ((stride) == 1) {              \
            enum { S = 1 };               \
            for (i = 0; i < (n); i++)     \
                statement;                \
        } else if ((stride) == 2) {       \
            enum { S = 2 };               \
            for (i = 0; i < (n); i++)     \
                statement;                \
        } else if ((stride) == 4) {       \
            enum { S = 4 };               \
            for (i = 0; i < (n); i++)     \
                statement;                \
        } else {                          \
            const ptrdiff_t S = (stride); \
            for (i = 0; i < (n); i++)     \
                statement;                \
        }                                 \
    } while (0)

/* Define functions that process arrays in vectors of 16 bytes, because most modules that call them are compiled without
 * automatic vectorisation. For a compiler without vector extensions, the functions are plain loops. */
#if defined(__GNUC__)
typedef float fc_vector_f32 __attribute__((vector_size(16), aligned(4), may_alias));
typedef double fc_vector_f64 __attribute__((vector_size(16), aligned(8), may_alias));
typedef int32_t fc_mask_f32 __attribute__((vector_size(16)));
typedef int64_t fc_mask_f64 __attribute__((vector_size(16)));
#define FC_DEFINE_SCANS(T, suffix)                                                                \
    /* Add n elements to others. */                                                               \
    static inline void fc_add_##suffix(T *FC_RESTRICT dst, const T *FC_RESTRICT src, ptrdiff_t n) \
    {                                                                                             \
        enum { LANES = 16 / sizeof(T) };                                                          \
        ptrdiff_t i;                                                                              \
        for (i = 0; i + LANES <= n; i += LANES)                                                   \
            *(fc_vector_##suffix *)(dst + i) += *(const fc_vector_##suffix *)(src + i);           \
        for (; i < n; i++)                                                                        \
            dst[i] += src[i];                                                                     \
    }                                                                                             \
    /* Return whether no element is inf or NaN. */                                                \
    static inline int fc_all_finite_##suffix(const T *x, ptrdiff_t n)                             \
    {                                                                                             \
        enum { LANES = 16 / sizeof(T) };                                                          \
        fc_mask_##suffix wrong = {0}, more = {0};                                                 \
        int found = 0;                                                                            \
        ptrdiff_t i;                                                                              \
        for (i = 0; i + 2 * LANES <= n; i += 2 * LANES) {                                         \
            const fc_vector_##suffix a = *(const fc_vector_##suffix *)(x + i);                    \
            const fc_vector_##suffix b = *(const fc_vector_##suffix *)(x + i + LANES);            \
            wrong |= a - a != 0, more |= b - b != 0;                                              \
        }                                                                                         \
        for (; i < n; i++)                                                                        \
            found |= x[i] - x[i] != 0;                                                            \
        wrong |= more;                                                                            \
        for (i = 0; i < LANES; i++)                                                               \
            found |= wrong[i] != 0;                                                               \
        return !found;                                                                            \
    }
#else
#define FC_DEFINE_SCANS(T, suffix)                                                                \
    static inline void fc_add_##suffix(T *FC_RESTRICT dst, const T *FC_RESTRICT src, ptrdiff_t n) \
    {                                                                                             \
        ptrdiff_t i;                                                                              \
        for (i = 0; i < n; i++)                                                                   \
            dst[i] += src[i];                                                                     \
    }                                                                                             \
    static inline int fc_all_finite_##suffix(const T *x, ptrdiff_t n)                             \
    {                                                                                             \
        int found = 0;                                                                            \
        ptrdiff_t i;                                                                              \
        for (i = 0; i < n; i++)                                                                   \
            found |= x[i] - x[i] != 0;                                                            \
        return !found;                                                                            \
    }
#endif

FC_DEFINE_SCANS(float, f32)
FC_DEFINE_SCANS(double, f64)

/* Define the operations on runs for a floating type T. */
#define FC_DEFINE_RUNS(T, suffix)                                                                                    \
    static inline void fc_copy_##suffix(T *FC_RESTRICT dst, const T *FC_RESTRICT src, ptrdiff_t n, ptrdiff_t stride) \
    {                                                                                                                \
        if (stride == 1 && (size_t)n * sizeof(T) >= FC_CALL_BYTES)                                                   \
            memcpy(dst, src, (size_t)n * sizeof(T));                                                                 \
        else if (stride == 1)                                                                                        \
            fc_copy_short((char *)dst, (const char *)src, n * (ptrdiff_t)sizeof(T));                                 \
        else                                                                                                         \
            FC_EACH(n, stride, dst[i] = src[i * S]);                                                                 \
    }                                                                                                                \
    static inline void fc_scatter_add_##suffix(T *FC_RESTRICT dst, const T *FC_RESTRICT src, ptrdiff_t n,            \
                                               ptrdiff_t stride)                                                     \
    {                                                                                                                \
        if (stride == 1)                                                                                             \
            fc_add_##suffix(dst, src, n);                                                                            \
        else                                                                                                         \
            FC_EACH(n, stride, dst[i * S] += src[i]);                                                                \
    }                                                                                                                \
    /* Set one element in each of `rows` rows to 0, because it is padding. */                                        \
    static inline void fc_zero_column_##suffix(T *dst, ptrdiff_t rows, ptrdiff_t pitch)                              \
    {                                                                                                                \
        for (; rows > 0; rows--, dst += pitch)                                                                       \
            *dst = 0;                                                                                                \
    }                                                                                                                \
    static inline void fc_zero_short_##suffix(T *dst, ptrdiff_t n)                                                   \
    {                                                                                                                \
        for (; n > 0; n--)                                                                                           \
            *dst++ = 0;                                                                                              \
    }

FC_DEFINE_RUNS(float, f32)
FC_DEFINE_RUNS(double, f64)

#endif
