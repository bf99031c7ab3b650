/* The kernels of copies.h for one dtype and instruction set. */

/* Element by element, some planes of few rows with their number known. */
FC_INLINE void FC_N(fc_copy_each)(const FC_T *FC_RESTRICT from, FC_T *FC_RESTRICT to, const ptrdiff_t step,
                                  const ptrdiff_t pitch, ptrdiff_t to_pitch, const ptrdiff_t high, ptrdiff_t wide)
{
    ptrdiff_t i, j;
    for (i = 0; i < high; i++)
        for (j = 0; j < wide; j++)
            to[i * to_pitch + j] = from[i * step + j * pitch];
}

/* Squares in registers, where elements that are neighbours in a column of the plane are so in memory. */
static void FC_N(fc_copy)(const void *from_, void *to_, const fc_plane *plane)
{
    const FC_T *from = (const FC_T *)from_;
    FC_T *to = (FC_T *)to_;
    const ptrdiff_t step = plane->step, pitch = plane->pitch, to_pitch = plane->to_pitch;
    const ptrdiff_t high = plane->high, wide = plane->wide;
    ptrdiff_t i = 0, j, k;
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
            for (j = 0; j + FC_TL <= wide; j += FC_TL) {
                FC_N(fc_t) rows[FC_TL];
                FC_UNROLL
                for (k = 0; k < FC_TL; k++)
                    rows[k] = *(const FC_N(fc_tu) *)(from + i + (j + k) * pitch);
                FC_N(fc_transpose)(rows);
                FC_UNROLL
                for (k = 0; k < FC_TL; k++)
                    *(FC_N(fc_tu) *)(to + (i + k) * to_pitch + j) = rows[k];
            }
            FC_N(fc_copy_each)(from + i + j * pitch, to + i * to_pitch + j, 1, pitch, to_pitch, FC_TL, wide - j);
        }
    FC_N(fc_copy_each)(from + i * step, to + i * to_pitch, step, pitch, to_pitch, high - i, wide);
}
