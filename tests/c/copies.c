/* Check copies.h: planes of sizes around those of a block, by rows or transposed, with and without bypassing caches. */
#include "check.h"
#include "packing/copies.h"

/* to[i][j] = from[i * step + j * pitch]. Bypassing the caches needs rows that begin at cache lines. */
static void check_plane(int dtype, int isa, ptrdiff_t high, ptrdiff_t wide, ptrdiff_t step, ptrdiff_t gap,
                        ptrdiff_t past)
{
    const ptrdiff_t line = 64 / (ptrdiff_t)size_of(dtype), pitch = step == 1 ? high + gap : 1;
    const ptrdiff_t to_pitch = past ? (wide + line - 1) / line * line : wide + gap;
    const fc_plane plane = {step, pitch, to_pitch, high, wide, past};
    void *from = numbers(dtype, (high - 1) * step + (wide - 1) * pitch + 1),
         *space = zeros(dtype, high * to_pitch + line);
    void *to = past ? (void *)(((uintptr_t)space + 63) / 64 * 64) : space;
    ptrdiff_t i, j;
    fc_copies_for(dtype, isa)->copy(from, to, &plane);
    for (i = 0; i < high; i++)
        for (j = 0; j < to_pitch; j++)
            same("a cell", dtype, isa, get(dtype, to, i * to_pitch + j),
                 j < wide ? get(dtype, from, i * step + j * pitch) : 0);
    free(from), free(space);
}

int main(void)
{
    static const ptrdiff_t sizes[] = {1, 2, 3, 4, 7, 16, 33};
    int dtype, isa, i, j, k;
    EACH_COPY(dtype, isa)
    for (i = 0; i < 7; i++)
        for (j = 0; j < 7; j++)
            for (k = 0; k < 4; k++) {
                check_plane(dtype, isa, sizes[i], sizes[j], 1, k / 2 * 3, k % 2);
                check_plane(dtype, isa, sizes[i], sizes[j], sizes[j] + k, 3, k % 2);
            }
    return finish("copies");
}
