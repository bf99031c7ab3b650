/* The kernel FC_TILE: a function for each size of a tile, with unrolled loops, and a function that calls one of them.
 * microkernel_template.h includes this file twice, for an operand b whose rows are listed or not (FC_LISTED). The
 * functions are separate, because a compiler takes much longer for one that contains all sizes. Only small tiles have a
 * mask. */
#define FC_TILE_SIZE(rows, vectors)                                                                               \
    static FC_NOINLINE void FC_PASTE3(FC_N(FC_TILE), rows, vectors)(                                              \
        ptrdiff_t k, const void *a, ptrdiff_t stride, ptrdiff_t next, const void *b, ptrdiff_t b_next,            \
        const ptrdiff_t *at, void *c, ptrdiff_t pitch, const void *bias, const void *mask, int add)               \
    {                                                                                                             \
        FC_N(fc_tile_of)(FC_LISTED, rows, vectors, k, (const FC_T *)a, stride, next, (const FC_T *)b, b_next, at, \
                         (FC_T *)c, pitch, (const FC_T *)bias,                                                    \
                         rows <= FC_MASKED_TILE_ROWS ? (const FC_T *)mask : NULL, add);                           \
    }
FC_ALL_SIZES
#undef FC_TILE_SIZE

#define FC_TILE_SIZE(rows, vectors)                                                                            \
    case (vectors) * 16 + (rows):                                                                              \
        FC_PASTE3(FC_N(FC_TILE), rows, vectors)(k, a, stride, next, b, b_next, at, c, pitch, bias, mask, add); \
        break;
static void FC_N(FC_TILE)(int rows, int vectors, ptrdiff_t k, const void *a, ptrdiff_t stride, ptrdiff_t next,
                          const void *b, ptrdiff_t b_next, const ptrdiff_t *at, void *c, ptrdiff_t pitch,
                          const void *bias, const void *mask, int add)
{
    switch (vectors * 16 + rows) {
        FC_ALL_SIZES
    default:
        fc_check(0);
    }
}
#undef FC_TILE_SIZE

#undef FC_TILE
#undef FC_LISTED
