/* Runs: what every kernel does to a stretch of elements along the last axis.
 *
 * A run reads or writes `n` elements, one side contiguous, the other at a
 * stride. The common strides are spelled out so that the compiler vectorises
 * them; everything is `static inline`, so nothing is exported.
 */
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

/* A failed check ends the process: there is no exception to raise without the GIL. */
#if defined(FASTCONV_DEBUG)
#define fc_check(condition)                                                              \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "fastconv: out of bounds at %s:%d: %s\n", __FILE__, __LINE__, \
                    #condition);                                                         \
            abort();                                                                     \
        }                                                                                \
    } while (0)
#else
#define fc_check(condition) ((void)0)
#endif

/* The next `grain` items of the work that all threads of a call share. */
static inline ptrdiff_t fc_draw(ptrdiff_t *counter, ptrdiff_t grain)
{
#if defined(_MSC_VER) && defined(_WIN64)
    return (ptrdiff_t)_InterlockedExchangeAdd64((volatile __int64 *)counter, (__int64)grain);
#elif defined(_MSC_VER)
    return (ptrdiff_t)_InterlockedExchangeAdd((volatile long *)counter, (long)grain);
#else
    return __atomic_fetch_add(counter, grain, __ATOMIC_RELAXED);
#endif
}

/* Most runs are one image row, too short to pay for a call of memcpy each: below this many bytes
 * a plain loop is faster. (setup.py keeps the compiler from turning the loop back into the call.) */
#define FC_CALL_BYTES 1024

#if defined(__GNUC__)
#define FC_NOINLINE __attribute__((noinline))
#else
#define FC_NOINLINE
#endif

/* Clearing whole stretches is rare; out of line it leaves the registers to the copies. */
static FC_NOINLINE void fc_zero_bytes(char *dst, size_t bytes)
{
    memset(dst, 0, bytes);
}

/* `T` a floating type, `I` the integer that indexes a plane. */
#define FC_DEFINE_RUNS(T, suffix)                                                          \
    static inline void fc_copy_##suffix(T *FC_RESTRICT dst, const T *FC_RESTRICT src,      \
                                        ptrdiff_t n, ptrdiff_t stride)                     \
    {                                                                                      \
        ptrdiff_t i;                                                                       \
        if (stride == 1 && (size_t)n * sizeof(T) >= FC_CALL_BYTES)                         \
            memcpy(dst, src, (size_t)n * sizeof(T));                                       \
        else if (stride == 1)                                                              \
            for (i = 0; i < n; i++)                                                        \
                dst[i] = src[i];                                                           \
        else if (stride == 2)                                                              \
            for (i = 0; i < n; i++)                                                        \
                dst[i] = src[2 * i];                                                       \
        else if (stride == 4)                                                              \
            for (i = 0; i < n; i++)                                                        \
                dst[i] = src[4 * i];                                                       \
        else                                                                               \
            for (i = 0; i < n; i++)                                                        \
                dst[i] = src[i * stride];                                                  \
    }                                                                                      \
    /* One cell of each of `rows` image rows: what wrapped around a border. */               \
    static inline void fc_zero_column_##suffix(T *dst, ptrdiff_t rows, ptrdiff_t pitch)    \
    {                                                                                      \
        for (; rows > 0; rows--, dst += pitch)                                             \
            *dst = 0;                                                                      \
    }                                                                                      \
    static inline void fc_zero_short_##suffix(T *dst, ptrdiff_t n)                         \
    {                                                                                      \
        ptrdiff_t i;                                                                       \
        for (i = 0; i < n; i++)                                                            \
            dst[i] = 0;                                                                    \
    }                                                                                      \
    /* dst[i] += src[i * stride] */                                                        \
    static inline void fc_gather_add_##suffix(T *FC_RESTRICT dst, const T *FC_RESTRICT src, \
                                              ptrdiff_t n, ptrdiff_t stride)               \
    {                                                                                      \
        ptrdiff_t i;                                                                       \
        if (stride == 1)                                                                   \
            for (i = 0; i < n; i++)                                                        \
                dst[i] += src[i];                                                          \
        else if (stride == 2)                                                              \
            for (i = 0; i < n; i++)                                                        \
                dst[i] += src[2 * i];                                                      \
        else                                                                               \
            for (i = 0; i < n; i++)                                                        \
                dst[i] += src[i * stride];                                                 \
    }                                                                                      \
    /* dst[i * stride] += src[i] */                                                        \
    static inline void fc_scatter_add_##suffix(T *FC_RESTRICT dst, const T *FC_RESTRICT src, \
                                               ptrdiff_t n, ptrdiff_t stride)              \
    {                                                                                      \
        ptrdiff_t i;                                                                       \
        if (stride == 1)                                                                   \
            for (i = 0; i < n; i++)                                                        \
                dst[i] += src[i];                                                          \
        else                                                                               \
            for (i = 0; i < n; i++)                                                        \
                dst[i * stride] += src[i];                                                 \
    }

FC_DEFINE_RUNS(float, f32)
FC_DEFINE_RUNS(double, f64)

/* best[i], where[i] <- the larger of best[i] and x[i * stride], and its index.
 * `where[i] < 0` marks an output no tap has reached yet. NaN is taken unless a
 * NaN is held already, and an equal value never replaces an earlier one. */
#define FC_DEFINE_MAX(T, I, suffix)                                                        \
    static inline void fc_max_##suffix(T *FC_RESTRICT best, I *FC_RESTRICT where,          \
                                       const T *FC_RESTRICT x, ptrdiff_t n,                \
                                       ptrdiff_t stride, I first)                          \
    {                                                                                      \
        ptrdiff_t i;                                                                       \
        if (stride == 1)                                                                   \
            for (i = 0; i < n; i++) {                                                      \
                T value = x[i], held = best[i];                                            \
                int take = (where[i] < 0) | (!(value <= held) & (held == held));           \
                best[i] = take ? value : held;                                             \
                where[i] = take ? (I)(first + i) : where[i];                               \
            }                                                                              \
        else if (stride == 2)                                                              \
            for (i = 0; i < n; i++) {                                                      \
                T value = x[2 * i], held = best[i];                                        \
                int take = (where[i] < 0) | (!(value <= held) & (held == held));           \
                best[i] = take ? value : held;                                             \
                where[i] = take ? (I)(first + 2 * i) : where[i];                           \
            }                                                                              \
        else                                                                               \
            for (i = 0; i < n; i++) {                                                      \
                T value = x[i * stride], held = best[i];                                   \
                int take = (where[i] < 0) | (!(value <= held) & (held == held));           \
                best[i] = take ? value : held;                                             \
                where[i] = take ? (I)(first + i * stride) : where[i];                      \
            }                                                                              \
    }

FC_DEFINE_MAX(float, int32_t, f32_i32)
FC_DEFINE_MAX(float, int64_t, f32_i64)
FC_DEFINE_MAX(double, int32_t, f64_i32)
FC_DEFINE_MAX(double, int64_t, f64_i64)

#endif
