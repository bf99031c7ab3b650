/* The kernels of toeplitz.h for one dtype. */

/* Compute the sum of the weights of one channel that read the same image element. If taps[i] is negative, it stands for
 * several taps along axis i: see AxisPattern in toeplitz/pattern.py. Return whether any of the weights is nonzero. */
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
                const FC_T v =
                    w[list[0][i] * row->axis[0].weight_pitch + list[1][j] * row->axis[1].weight_pitch + list[2][k]];
                total += (double)v;
                present |= v != 0;
            }
    *value = (FC_T)total;
    return present;
}

/* Return the number of nonzero weights of one filter or, for the transposed matrix, of one channel. */
static ptrdiff_t FC_N(fc_count_nonzeros)(const void *w_, const fc_weights *at)
{
    const FC_T *w = (const FC_T *)w_;
    ptrdiff_t q, i, j, k, n = 0;
    if (at->keys[0] * at->keys[1] * at->keys[2] == at->taps) {
        const int contiguous = at->col_step == at->taps;
        const ptrdiff_t run = contiguous ? at->cols * at->taps : at->taps;
        for (q = 0; q < (contiguous ? 1 : at->cols); q++, w += at->col_step)
            for (k = 0; k < run; k++)
                n += w[k] != 0;
        return n;
    }
    for (q = 0; q < at->cols; q++, w += at->col_step)
        for (i = 0; i < at->keys[0]; i++)
            for (j = 0; j < at->keys[1]; j++) {
                const FC_T *line = w + at->key[0][i] * at->pitch[0] + at->key[1][j] * at->pitch[1];
                for (k = 0; k < at->keys[2]; k++)
                    n += line[at->key[2][k]] != 0;
            }
    return n;
}

/* Build the tree of the nonzero weights of one filter or, for the transposed matrix, of one channel: see
 * fc_nonzeros. */
static void FC_N(fc_build_tree)(const void *w_, const fc_weights *at, fc_nonzeros *nonzeros)
{
    const FC_T *w = (const FC_T *)w_;
    FC_T *value = (FC_T *)nonzeros->value;
    ptrdiff_t q, i, j, k, channels = 0, planes = 0, lines = 0, n = 0;
    for (q = 0; q < at->cols; q++, w += at->col_step) {
        const ptrdiff_t plane = planes;
        for (i = 0; i < at->keys[0]; i++) {
            const ptrdiff_t line = lines;
            for (j = 0; j < at->keys[1]; j++) {
                const FC_T *from = w + at->key[0][i] * at->pitch[0] + at->key[1][j] * at->pitch[1];
                const ptrdiff_t first = n;
                for (k = 0; k < at->keys[2]; k++) {
                    const FC_T v = from[at->key[2][k]];
                    nonzeros->tap[n] = k;
                    value[n] = v;
                    n += v != 0;
                }
                nonzeros->level[2][lines].key = j;
                nonzeros->level[2][lines].first = first;
                lines += n > first;
            }
            nonzeros->level[1][planes].key = i;
            nonzeros->level[1][planes].first = line;
            planes += lines > line;
        }
        nonzeros->level[0][channels].key = q;
        nonzeros->level[0][channels].first = plane;
        channels += planes > plane;
    }
    nonzeros->level[0][channels].first = planes;
    nonzeros->level[1][planes].first = lines;
    nonzeros->level[2][lines].first = n;
    nonzeros->channels = channels;
}

#define FC_INDEX int32_t
#define FC_UNSIGNED uint32_t
#define FC_I_(name) FC_N(name##_i32)
#include "toeplitz/index.h"
#undef FC_INDEX
#undef FC_UNSIGNED
#undef FC_I_

#define FC_INDEX int64_t
#define FC_UNSIGNED uint64_t
#define FC_I_(name) FC_N(name##_i64)
#include "toeplitz/index.h"
#undef FC_INDEX
#undef FC_UNSIGNED
#undef FC_I_

const fc_toeplitz_kernels FC_N(fc_toeplitz_kernels) = {
    .list_i32 = FC_N(fc_list_i32),
    .list_i64 = FC_N(fc_list_i64),
    .list_nonzeros_i32 = FC_N(fc_list_nonzeros_i32),
    .list_nonzeros_i64 = FC_N(fc_list_nonzeros_i64),
    .list_ordered_i32 = FC_N(fc_list_ordered_i32),
    .list_ordered_i64 = FC_N(fc_list_ordered_i64),
    .write_mirrored_rows_i32 = FC_N(fc_write_mirrored_rows_i32),
    .write_mirrored_rows_i64 = FC_N(fc_write_mirrored_rows_i64),
    .count_nonzeros = FC_N(fc_count_nonzeros),
    .build_tree = FC_N(fc_build_tree),
    .repeat_i32 = FC_N(fc_repeat_i32),
    .repeat_i64 = FC_N(fc_repeat_i64),
};
