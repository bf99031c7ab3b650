/* Operations on masks and integers in vectors, for one dtype and instruction set: see isa.h. A lane of a mask is -1 for
 * true and 0 for false. */

#if FC_VECTORS
typedef FC_L FC_N(fc_iu) __attribute__((vector_size(FC_VB), aligned(FC_BYTES), may_alias));
typedef int32_t FC_N(fc_narrow) __attribute__((vector_size(FC_VL * 4)));
typedef int32_t FC_N(fc_narrow_u) __attribute__((vector_size(FC_VL * 4), aligned(4), may_alias));
#else
typedef FC_L FC_N(fc_iu);
#endif

FC_INLINE FC_I FC_N(fc_load_lanes)(const FC_L *p) { return *(const FC_N(fc_iu) *)p; }

FC_INLINE FC_I FC_N(fc_broadcast_lanes)(FC_L s)
{
#if FC_VECTORS
    return s - (FC_I){0};
#else
    return s;
#endif
}

/* Return a vector of the integers 0, 1, 2, ... */
FC_INLINE FC_I FC_N(fc_iota)(void)
{
#if FC_VECTORS
    FC_I v;
    int i;
    FC_UNROLL
    for (i = 0; i < FC_VL; i++)
        v[i] = i;
    return v;
#else
    return 0;
#endif
}

FC_INLINE FC_V FC_N(fc_select)(FC_I mask, FC_V yes, FC_V no)
{
#if FC_VECTORS
    return (FC_V)(((FC_I)yes & mask) | ((FC_I)no & ~mask));
#else
    return mask ? yes : no;
#endif
}

FC_INLINE FC_I FC_N(fc_select_lanes)(FC_I mask, FC_I yes, FC_I no) { return (yes & mask) | (no & ~mask); }

/* Return a mask of the lanes in which `value` is larger than `maximum`. If `nan` is set, the mask also includes lanes
 * in which `value` is NaN and `maximum` is a number. */
FC_INLINE FC_I FC_N(fc_replaces_maximum)(FC_V value, FC_V maximum, const int nan)
{
#if FC_VECTORS
    return nan ? ~(FC_I)(value <= maximum) & (FC_I)(maximum == maximum) : (FC_I)(value > maximum);
#else
    return -(FC_L)(nan ? !(value <= maximum) & (maximum == maximum) : value > maximum);
#endif
}

FC_INLINE FC_I FC_N(fc_is_nan)(FC_V v)
{
#if FC_VECTORS
    return (FC_I)(v != v);
#else
    return -(FC_L)(v != v);
#endif
}

/* Return whether any lane is true. */
FC_INLINE int FC_N(fc_any)(FC_I mask)
{
    FC_L all[FC_VL], any = 0;
    int i;
    *(FC_N(fc_iu) *)all = mask;
    FC_UNROLL
    for (i = 0; i < FC_VL; i++)
        any |= all[i];
    return any != 0;
}

FC_INLINE FC_I FC_N(fc_equal)(FC_I a, FC_I b)
{
#if FC_VECTORS
    return (FC_I)(a == b);
#else
    return -(FC_L)(a == b);
#endif
}

FC_INLINE FC_I FC_N(fc_equal_numbers)(FC_V a, FC_V b)
{
#if FC_VECTORS
    return (FC_I)(a == b);
#else
    return -(FC_L)(a == b);
#endif
}

FC_INLINE FC_I FC_N(fc_less)(FC_I a, FC_I b)
{
#if FC_VECTORS
    return (FC_I)(a < b);
#else
    return -(FC_L)(a < b);
#endif
}

/* Load one 32-bit integer into each lane. fc_store_int32 does the reverse. */
FC_INLINE FC_I FC_N(fc_load_int32)(const int32_t *p)
{
#if FC_VECTORS
    return __builtin_convertvector(*(const FC_N(fc_narrow_u) *)p, FC_I);
#else
    return *p;
#endif
}

FC_INLINE void FC_N(fc_store_int32)(int32_t *p, FC_I v)
{
#if FC_VECTORS
    *(FC_N(fc_narrow_u) *)p = __builtin_convertvector(v, FC_N(fc_narrow));
#else
    *p = (int32_t)v;
#endif
}

/* Store the first n elements of a vector, one by one. */
FC_INLINE void FC_N(fc_store_end)(FC_T *to, FC_V v, ptrdiff_t n)
{
    FC_T all[FC_VL];
    FC_N(fc_store)(all, v);
    for (; n > 0; n--)
        to[n - 1] = all[n - 1];
}

/* Store the first n elements of a vector. `end` is the end of the array. If the whole vector fits before `end`, the
 * whole vector is stored. Later stores overwrite the elements after the first n. */
FC_INLINE void FC_N(fc_store_some)(FC_T *to, FC_V v, ptrdiff_t n, const FC_T *end)
{
    if (end - to >= FC_VL) {
        FC_N(fc_store)(to, v);
    } else {
        fc_check(n <= end - to);
        FC_N(fc_store_end)(to, v, n);
    }
}

/* Load `readable` elements, one by one. The other lanes are zeros. */
FC_INLINE FC_V FC_N(fc_load_end)(const FC_T *from, ptrdiff_t readable)
{
    FC_T padded[FC_VL];
    ptrdiff_t i;
    for (i = 0; i < FC_VL; i++)
        padded[i] = i < readable ? from[i] : 0;
    return FC_N(fc_load)(padded);
}

/* Load a vector of which only the first `readable` elements may be read. The other lanes are zeros. */
FC_INLINE FC_V FC_N(fc_load_some)(const FC_T *from, ptrdiff_t readable)
{
    return readable >= FC_VL ? FC_N(fc_load)(from) : FC_N(fc_load_end)(from, readable);
}

/* Store the first n indices of a vector, one by one. */
FC_INLINE void FC_N(fc_store_indices_end)(int32_t *to, FC_I indices, ptrdiff_t n)
{
    int32_t all[FC_VL];
    FC_N(fc_store_int32)((int32_t *)all, indices);
    for (; n > 0; n--)
        to[n - 1] = all[n - 1];
}

/* Store the first n indices of a vector. `writable` is the number of elements from `to` to the end of the array. If the
 * whole vector fits, the whole vector is stored. Later stores overwrite the indices after the first n. */
FC_INLINE void FC_N(fc_store_indices)(int32_t *to, FC_I indices, ptrdiff_t n, ptrdiff_t writable)
{
    if (writable >= FC_VL) {
        FC_N(fc_store_int32)(to, indices);
    } else {
        fc_check(n <= writable);
        FC_N(fc_store_indices_end)(to, indices, n);
    }
}
