/* Kernels of copies.h for one dtype and instruction set. */
#undef FC_SQUARES
#if FC_TL * FC_BYTES < 64
#define FC_SQUARES 2
#else
#define FC_SQUARES 1
#endif

/* Store a vector without using the caches. A normal store first reads the cache line that it overwrites. This read is
 * wasted if the copy is larger than the caches. */
#undef FC_STORE_NONTEMPORAL
#undef FC_NONTEMPORAL_DONE
#if FC_X86 && FC_FUSED
#define FC_STORE_NONTEMPORAL(p, v) __asm__ volatile("vmovntps %1, %0" : "=m"(*(p)) : "v"(v))
#define FC_NONTEMPORAL_DONE __asm__ volatile("sfence" : : : "memory")
#else
#define FC_STORE_NONTEMPORAL(p, v) (*(p) = (v))
#define FC_NONTEMPORAL_DONE ((void)0)
#endif

/* Copy element by element. Some callers pass constants, so that the compiler can unroll the loop over rows. */
FC_INLINE void FC_N(fc_copy_each)(const FC_T *FC_RESTRICT from, FC_T *FC_RESTRICT to, const ptrdiff_t step,
                                  const ptrdiff_t pitch, ptrdiff_t to_pitch, const ptrdiff_t rows, ptrdiff_t columns)
{
    ptrdiff_t i, j;
    for (i = 0; i < rows; i++)
        for (j = 0; j < columns; j++)
            to[i * to_pitch + j] = from[i * step + j * pitch];
}

/* Copy interleaved elements, such as RGB pixels, to three planes. One loop writes all three planes, because the
 * compiler can then use vectors. */
FC_INLINE void FC_N(fc_copy_colours)(const FC_T *FC_RESTRICT from, FC_T *FC_RESTRICT red, FC_T *FC_RESTRICT green,
                                     FC_T *FC_RESTRICT blue, ptrdiff_t columns)
{
    ptrdiff_t j;
    for (j = 0; j < columns; j++) {
        red[j] = from[3 * j];
        green[j] = from[3 * j + 1];
        blue[j] = from[3 * j + 2];
    }
}

/* Transpose `count` adjacent blocks of FC_TL x FC_TL elements. FC_SQUARES blocks together fill whole cache lines of the
 * copy. With fewer blocks, a half-written cache line might be evicted from L1 and loaded again. This happens if the
 * rows of the copy are many pages apart, because few of their cache lines then fit into L1 at the same time. */
FC_INLINE void FC_N(fc_copy_squares)(const FC_T *from, FC_T *to, ptrdiff_t pitch, ptrdiff_t to_pitch, const int count,
                                     const int nontemporal)
{
    FC_N(fc_t) squares[FC_SQUARES][FC_TL];
    int s, k;
    FC_UNROLL
    for (s = 0; s < count; s++) {
        FC_UNROLL
        for (k = 0; k < FC_TL; k++)
            squares[s][k] = *(const FC_N(fc_tu) *)(from + (s * FC_TL + k) * pitch);
        FC_N(fc_transpose)(squares[s]);
    }
    FC_UNROLL
    for (k = 0; k < FC_TL; k++) {
        FC_UNROLL
        for (s = 0; s < count; s++)
            if (nontemporal)
                FC_STORE_NONTEMPORAL((FC_N(fc_tu) *)(to + k * to_pitch + s * FC_TL), squares[s][k]);
            else
                *(FC_N(fc_tu) *)(to + k * to_pitch + s * FC_TL) = squares[s][k];
    }
}

/* Copy a plane (see fc_plane). If the columns of the source are contiguous (`step` is 1), transpose square blocks in
 * registers. Otherwise, copy element by element. */
static void FC_N(fc_copy)(const void *from_, void *to_, const fc_plane *plane)
{
    const FC_T *from = (const FC_T *)from_;
    FC_T *to = (FC_T *)to_;
    const ptrdiff_t step = plane->step, pitch = plane->pitch, to_pitch = plane->to_pitch;
    const ptrdiff_t rows = plane->rows, columns = plane->columns;
    ptrdiff_t i = 0, j;
    if (step == 1 && pitch == rows && rows <= 4) {
        if (rows == 2)
            FC_N(fc_copy_each)(from, to, 1, 2, to_pitch, 2, columns);
        else if (rows == 3)
            FC_N(fc_copy_colours)(from, to, to + to_pitch, to + 2 * to_pitch, columns);
        else
            FC_N(fc_copy_each)(from, to, 1, pitch, to_pitch, rows, columns);
        return;
    }
    if (step == 1) {
        /* The inner loops run along the contiguous axis of the source, so that each cache line of the source is used
         * completely before it is evicted. */
        const ptrdiff_t down = rows - rows % FC_TL, side = FC_SQUARES * FC_TL;
        const int nontemporal = plane->nontemporal && ((uintptr_t)to | (uintptr_t)(to_pitch * FC_BYTES)) % 64 == 0;
        for (j = 0; j + side <= columns; j += side)
            if (nontemporal)
                for (i = 0; i < down; i += FC_TL)
                    FC_N(fc_copy_squares)(from + i + j * pitch, to + i * to_pitch + j, pitch, to_pitch, FC_SQUARES, 1);
            else
                for (i = 0; i < down; i += FC_TL)
                    FC_N(fc_copy_squares)(from + i + j * pitch, to + i * to_pitch + j, pitch, to_pitch, FC_SQUARES, 0);
        for (; j + FC_TL <= columns; j += FC_TL)
            for (i = 0; i < down; i += FC_TL)
                FC_N(fc_copy_squares)(from + i + j * pitch, to + i * to_pitch + j, pitch, to_pitch, 1, 0);
        for (i = 0; i < down; i += FC_TL)
            FC_N(fc_copy_each)(from + i + j * pitch, to + i * to_pitch + j, 1, pitch, to_pitch, FC_TL, columns - j);
        if (nontemporal)
            FC_NONTEMPORAL_DONE;
    }
    FC_N(fc_copy_each)(from + i * step, to + i * to_pitch, step, pitch, to_pitch, rows - i, columns);
}

const fc_copies_kernels FC_N(fc_copies_kernels) = {
    .copy = FC_N(fc_copy),
};
