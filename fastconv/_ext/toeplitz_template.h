/* Rows of a Toeplitz matrix and its products for one dtype and instruction set: see toeplitz.h. */

/* The sum of the weights that meet a cell; whether any of them is not zero. */
static FC_NOINLINE int FC_N(fc_merge)(const FC_T *w, const fc_row *row, const ptrdiff_t taps[3], FC_T *value)
{
    ptrdiff_t one[3][2], i, j, k;
    const ptrdiff_t *list[3];
    double total = 0;
    int present = 0;
    for (i = 0; i < 3; i++) {
        one[i][0] = 1;
        one[i][1] = taps[i];
        list[i] = taps[i] < 0 ? row->axis[i].lists + ~taps[i] : one[i];
    }
    for (i = 1; i <= list[0][0]; i++)
        for (j = 1; j <= list[1][0]; j++)
            for (k = 1; k <= list[2][0]; k++) {
                const FC_T v = w[list[0][i] * row->axis[0].weight_pitch + list[1][j] * row->axis[1].weight_pitch +
                                 list[2][k]];
                total += (double)v;
                present |= v != 0;
            }
    *value = (FC_T)total;
    return present;
}

#define FC_INDEX int32_t
#define FC_UNSIGNED uint32_t
#define FC_I_(name) FC_N(name##_i32)
#include "toeplitz_index.h"
#undef FC_INDEX
#undef FC_UNSIGNED
#undef FC_I_

#define FC_INDEX int64_t
#define FC_UNSIGNED uint64_t
#define FC_I_(name) FC_N(name##_i64)
#include "toeplitz_index.h"
#undef FC_INDEX
#undef FC_UNSIGNED
#undef FC_I_
