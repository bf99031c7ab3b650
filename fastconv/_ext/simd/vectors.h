/* The vector types and basic vector operations of one dtype and instruction set: see isa.h. If the compiler has no
 * vector extensions, a vector is one element, and every kernel is a plain loop. */
#undef FC_VL
#undef FC_TL
#undef FC_V
#undef FC_TILE_ROWS
#undef FC_TILE_VECTORS
#undef FC_L
#undef FC_I

/* The integer type of the same size as an element, for masks and indices. */
#if FC_BYTES == 4
#define FC_L int32_t
#else
#define FC_L int64_t
#endif

#if FC_VECTORS
#define FC_VL (FC_VB / FC_BYTES)
#if FC_VB / FC_BYTES > 8
#define FC_TL 8
#else
#define FC_TL FC_VL
#endif
typedef FC_T FC_N(fc_v) __attribute__((vector_size(FC_VB)));
typedef FC_T FC_N(fc_vu) __attribute__((vector_size(FC_VB), aligned(FC_BYTES), may_alias));
typedef FC_T FC_N(fc_t) __attribute__((vector_size(FC_TL * FC_BYTES)));
typedef FC_T FC_N(fc_tu) __attribute__((vector_size(FC_TL * FC_BYTES), aligned(FC_BYTES), may_alias));
typedef FC_L FC_N(fc_i) __attribute__((vector_size(FC_VB)));
typedef FC_L FC_N(fc_it) __attribute__((vector_size(FC_TL * FC_BYTES)));
#else
#define FC_VL 1
#define FC_TL 1
typedef FC_T FC_N(fc_v);
typedef FC_T FC_N(fc_vu);
typedef FC_T FC_N(fc_t);
typedef FC_T FC_N(fc_tu);
typedef FC_L FC_N(fc_i);
#endif
#define FC_V FC_N(fc_v)
#define FC_I FC_N(fc_i)

/* The largest size of a tile of a matrix product. The registers hold FC_TILE_ROWS x FC_TILE_VECTORS vectors of sums, a
 * row of operand b (FC_TILE_VECTORS vectors), and one broadcast element of operand a. */
#if FC_REGISTERS >= 32
#define FC_TILE_ROWS 8
#define FC_TILE_VECTORS 3
#elif FC_FUSED
#define FC_TILE_ROWS 4
#define FC_TILE_VECTORS 3
#else
#define FC_TILE_ROWS 6
#define FC_TILE_VECTORS 2
#endif

/* FC_BROADCAST sets every lane of v to s, and FC_MULTIPLY_ADD adds a * b to sum. They are written in assembly, because
 * compilers move broadcasts up in unrolled loops until no registers are left. */
#undef FC_BROADCAST
#undef FC_MULTIPLY_ADD
#if FC_FUSED && FC_BYTES == 4
#define FC_BROADCAST(v, s) __asm__ volatile("vbroadcastss %1, %0" : "=v"(v) : "m"(s))
#define FC_MULTIPLY_ADD(sum, a, b) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#elif FC_FUSED
#define FC_BROADCAST(v, s) __asm__ volatile("vbroadcastsd %1, %0" : "=v"(v) : "m"(s))
#define FC_MULTIPLY_ADD(sum, a, b) __asm__ volatile("vfmadd231pd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#else
#define FC_BROADCAST(v, s) ((v) = FC_N(fc_broadcast)(s))
#define FC_MULTIPLY_ADD(sum, a, b) ((sum) += (a) * (b))
#endif
/* FC_IN_ORDER is a barrier: the compiler does not move a later read before the barrier. FC_HIDE hides from the compiler
 * how a pointer was computed. Otherwise, the compiler would compute the pointer from a base pointer and an offset, and
 * the offset would take a register. */
#undef FC_IN_ORDER
#undef FC_HIDE
#if FC_FUSED
#define FC_IN_ORDER __asm__ volatile("" : : : "memory")
#define FC_HIDE(pointer) __asm__("" : "+r"(pointer))
#else
#define FC_IN_ORDER ((void)0)
#define FC_HIDE(pointer) ((void)0)
#endif

/* Define the following functions only once, because a file may include several templates. */
#ifndef FC_VECTORS_DEFINED
FC_INLINE FC_V FC_N(fc_load)(const FC_T *p) { return *(const FC_N(fc_vu) *)p; }
FC_INLINE void FC_N(fc_store)(FC_T *p, FC_V v) { *(FC_N(fc_vu) *)p = v; }
FC_INLINE FC_V FC_N(fc_broadcast)(FC_T s)
{
#if FC_VECTORS
    return s - (FC_V){0};
#else
    return s;
#endif
}

/* Interleave the lower halves of a and b: a[0], b[0], a[1], b[1], and so on. fc_interleave_upper interleaves the upper
 * halves. To transpose a block of FC_TL vectors, fc_transpose interleaves pairs of vectors log2(FC_TL) times. */
FC_INLINE FC_N(fc_t) FC_N(fc_interleave_lower)(FC_N(fc_t) a, FC_N(fc_t) b)
{
#if FC_TL == 8
    return FC_SHUFFLE(FC_N(fc_it), a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#elif FC_TL == 4
    return FC_SHUFFLE(FC_N(fc_it), a, b, 0, 4, 1, 5);
#elif FC_TL == 2
    return FC_SHUFFLE(FC_N(fc_it), a, b, 0, 2);
#else
    (void)b;
    return a;
#endif
}

FC_INLINE FC_N(fc_t) FC_N(fc_interleave_upper)(FC_N(fc_t) a, FC_N(fc_t) b)
{
#if FC_TL == 8
    return FC_SHUFFLE(FC_N(fc_it), a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif FC_TL == 4
    return FC_SHUFFLE(FC_N(fc_it), a, b, 2, 6, 3, 7);
#elif FC_TL == 2
    return FC_SHUFFLE(FC_N(fc_it), a, b, 1, 3);
#else
    (void)a;
    return b;
#endif
}

FC_INLINE void FC_N(fc_transpose)(FC_N(fc_t) rows[FC_TL])
{
    FC_N(fc_t) next[FC_TL];
    int round, i;
    FC_UNROLL
    for (round = 1; round < FC_TL; round *= 2) {
        FC_UNROLL
        for (i = 0; i < FC_TL / 2; i++) {
            next[2 * i] = FC_N(fc_interleave_lower)(rows[i], rows[i + FC_TL / 2]);
            next[2 * i + 1] = FC_N(fc_interleave_upper)(rows[i], rows[i + FC_TL / 2]);
        }
        FC_UNROLL
        for (i = 0; i < FC_TL; i++)
            rows[i] = next[i];
    }
}

/* Interleave vectors of type FC_V, like fc_interleave_lower and fc_interleave_upper. */
FC_INLINE FC_V FC_N(fc_interleave_lower_lanes)(FC_V a, FC_V b)
{
#if FC_VL == 16
    return FC_SHUFFLE(FC_I, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif FC_VL == 8
    return FC_SHUFFLE(FC_I, a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#elif FC_VL == 4
    return FC_SHUFFLE(FC_I, a, b, 0, 4, 1, 5);
#elif FC_VL == 2
    return FC_SHUFFLE(FC_I, a, b, 0, 2);
#else
    (void)b;
    return a;
#endif
}

FC_INLINE FC_V FC_N(fc_interleave_upper_lanes)(FC_V a, FC_V b)
{
#if FC_VL == 16
    return FC_SHUFFLE(FC_I, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif FC_VL == 8
    return FC_SHUFFLE(FC_I, a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif FC_VL == 4
    return FC_SHUFFLE(FC_I, a, b, 2, 6, 3, 7);
#elif FC_VL == 2
    return FC_SHUFFLE(FC_I, a, b, 1, 3);
#else
    (void)a;
    return b;
#endif
}

/* Concatenate a and b, and return the elements with even indices. fc_odd_lanes returns the elements with odd
 * indices. */
FC_INLINE FC_V FC_N(fc_even_lanes)(FC_V a, FC_V b)
{
#if FC_VL == 16
    return FC_SHUFFLE(FC_I, a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif FC_VL == 8
    return FC_SHUFFLE(FC_I, a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#elif FC_VL == 4
    return FC_SHUFFLE(FC_I, a, b, 0, 2, 4, 6);
#elif FC_VL == 2
    return FC_SHUFFLE(FC_I, a, b, 0, 2);
#else
    (void)b;
    return a;
#endif
}

FC_INLINE FC_V FC_N(fc_odd_lanes)(FC_V a, FC_V b)
{
#if FC_VL == 16
    return FC_SHUFFLE(FC_I, a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif FC_VL == 8
    return FC_SHUFFLE(FC_I, a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#elif FC_VL == 4
    return FC_SHUFFLE(FC_I, a, b, 1, 3, 5, 7);
#elif FC_VL == 2
    return FC_SHUFFLE(FC_I, a, b, 1, 3);
#else
    (void)a;
    return b;
#endif
}
#endif /* FC_VECTORS_DEFINED */
