/* Define the kernel FC_TILE. Each tile size has a function of its own with unrolled loops, because compiling one
 * function for all sizes would take much longer. FC_TILE calls the function for the size that its arguments give.
 *
 * microkernel_template.h includes this file for several layouts of the operands (FC_OF_A and FC_OF_B), with a mask
 * (FC_MASKED is 1) or without. */
#if FC_MASKED
#define FC_SIZES FC_ALL_SIZES(FC_MASKED_TILE_SIZES)
#define FC_BIAS NULL
#define FC_MASK (const FC_T *)bias
#else
#define FC_SIZES FC_ALL_SIZES(FC_TILE_SIZES)
#define FC_BIAS (const FC_T *)bias
#define FC_MASK NULL
#endif

#define FC_TILE_SIZE(rows, vectors)                                                                                 \
    static FC_NOINLINE void FC_PASTE3(FC_N(FC_TILE), rows, vectors)(ptrdiff_t k, const void *a, ptrdiff_t step,     \
                                                                    const void *b, const ptrdiff_t *at, void *c,    \
                                                                    ptrdiff_t pitch, const void *bias, int add)     \
    {                                                                                                               \
        FC_N(fc_tile_of)(FC_OF_A, FC_OF_B, rows, vectors, k, (const FC_T *)a, step, (const FC_T *)b, at, (FC_T *)c, \
                         pitch, FC_BIAS, FC_MASK, add);                                                             \
    }
FC_SIZES
#undef FC_TILE_SIZE

#define FC_TILE_SIZE(rows, vectors)                                                      \
    case (vectors) * 16 + (rows):                                                        \
        FC_PASTE3(FC_N(FC_TILE), rows, vectors)(k, a, step, b, at, c, pitch, bias, add); \
        break;
static void FC_N(FC_TILE)(int rows, int vectors, ptrdiff_t k, const void *a, ptrdiff_t step, const void *b,
                          const ptrdiff_t *at, void *c, ptrdiff_t pitch, const void *bias, int add)
{
    switch (vectors * 16 + rows) {
        FC_SIZES
    default:
        fc_check(0);
    }
}
#undef FC_TILE_SIZE

#undef FC_SIZES
#undef FC_BIAS
#undef FC_MASK
#undef FC_TILE
#undef FC_MASKED
#undef FC_OF_A
#undef FC_OF_B
