/* The kernels of copies.h for one dtype and instruction set. */
#undef FC_SQUARES
#if FC_TL * FC_BYTES < 64
#define FC_SQUARES 2
#else
#define FC_SQUARES 1
#endif

/* Element by element, some planes of few rows with their number known. */
FC_INLINE void FC_N(fc_copy_each)(const FC_T *FC_RESTRICT from, FC_T *FC_RESTRICT to, const ptrdiff_t step,
                                  const ptrdiff_t pitch, ptrdiff_t to_pitch, const ptrdiff_t high, ptrdiff_t wide)
{
    ptrdiff_t i, j;
    for (i = 0; i < high; i++)
        for (j = 0; j < wide; j++)
            to[i * to_pitch + j] = from[i * step + j * pitch];
}

/* `count` squares side by side, which fill lines of the copy: rows of a copy may lie so many pages apart that few of
 * their lines fit the first-level cache at a time, and half a line would be fetched again for the other half. */
FC_INLINE void FC_N(fc_copy_squares)(const FC_T *from, FC_T *to, ptrdiff_t pitch, ptrdiff_t to_pitch, const int count)
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
            *(FC_N(fc_tu) *)(to + k * to_pitch + s * FC_TL) = squares[s][k];
    }
}

/* Squares in registers, where elements that are neighbours in a column of the plane are so in memory. */
static void FC_N(fc_copy)(const void *from_, void *to_, const fc_plane *plane)
{
    const FC_T *from = (const FC_T *)from_;
    FC_T *to = (FC_T *)to_;
    const ptrdiff_t step = plane->step, pitch = plane->pitch, to_pitch = plane->to_pitch;
    const ptrdiff_t high = plane->high, wide = plane->wide;
    ptrdiff_t i = 0, j;
    if (step == 1 && pitch == high && high <= 4) {
        if (high == 2)
            FC_N(fc_copy_each)(from, to, 1, 2, to_pitch, 2, wide);
        else if (high == 3)
            FC_N(fc_copy_each)(from, to, 1, 3, to_pitch, 3, wide);
        else
            FC_N(fc_copy_each)(from, to, 1, pitch, to_pitch, high, wide);
        return;
    }
    if (step == 1)
        for (; i + FC_TL <= high; i += FC_TL) {
            for (j = 0; j + FC_SQUARES * FC_TL <= wide; j += FC_SQUARES * FC_TL)
                FC_N(fc_copy_squares)(from + i + j * pitch, to + i * to_pitch + j, pitch, to_pitch, FC_SQUARES);
            for (; j + FC_TL <= wide; j += FC_TL)
                FC_N(fc_copy_squares)(from + i + j * pitch, to + i * to_pitch + j, pitch, to_pitch, 1);
            FC_N(fc_copy_each)(from + i + j * pitch, to + i * to_pitch + j, 1, pitch, to_pitch, FC_TL, wide - j);
        }
    FC_N(fc_copy_each)(from + i * step, to + i * to_pitch, step, pitch, to_pitch, high - i, wide);
}
