/* Kernels of borders.h for one dtype and instruction set. */

static void FC_N(fc_extend)(const void *x_, void *padded_, ptrdiff_t row, const fc_borders *b)
{
    const ptrdiff_t W = b->size[2], PW = b->padded[2], PH = b->padded[1], PD = b->padded[0];
    const ptrdiff_t plane = row / PH / PD, d = b->cell[0][row / PH % PD], h = b->cell[1][row % PH];
    const ptrdiff_t *cell = b->cell[2];
    const FC_T *x = (const FC_T *)x_ + ((plane * b->size[0] + d) * b->size[1] + h) * W;
    FC_T *to = (FC_T *)padded_ + row * PW;
    ptrdiff_t p;
    for (p = 0; p < b->lo; p++)
        to[p] = x[cell[p]];
    memcpy(to + b->lo, x, (size_t)W * sizeof(FC_T));
    for (p = b->lo; p < PW - W; p++)
        to[p + W] = x[cell[p]];
}

/* Add the elements [first, end) of the padding of a row to the elements of x that they repeat. Consecutive copies of
 * one element are summed in double, because a long sum in float would lose accuracy. */
FC_INLINE void FC_N(fc_fold_cells)(const FC_T *from, FC_T *x, const ptrdiff_t *cell, ptrdiff_t first, ptrdiff_t end)
{
    ptrdiff_t p = first;
    while (p < end) {
        const ptrdiff_t at = cell[p];
        double sum = (double)from[p++];
        while (p < end && cell[p] == at)
            sum += (double)from[p++];
        x[at] += (FC_T)sum;
    }
}

static void FC_N(fc_fold)(const void *padded_, void *x_, ptrdiff_t row, const fc_borders *b, fc_work_queue *queue)
{
    const ptrdiff_t W = b->size[2], PW = b->padded[2], PH = b->padded[1], H = b->size[1], D = b->size[0];
    const ptrdiff_t plane = row / H / D, d = row / H % D, h = row % H;
    const FC_T *padded = (const FC_T *)padded_ + plane * b->padded[0] * PH * PW;
    FC_T *x = (FC_T *)x_ + row * W;
    ptrdiff_t i, j, k, summed = 0;
    for (i = b->at[0][d]; i < b->at[0][d + 1]; i++)
        for (j = b->at[1][h]; j < b->at[1][h + 1]; j++) {
            const FC_T *from = padded + (b->shows[0][i] * PH + b->shows[1][j]) * PW, *inside = from + b->lo;
            if (summed == 0)
                memcpy(x, inside, (size_t)W * sizeof(FC_T));
            else
                for (k = 0; k < W; k++)
                    x[k] += inside[k];
            FC_N(fc_fold_cells)(from, x, b->cell[2], 0, b->lo);
            FC_N(fc_fold_cells)(from + W, x, b->cell[2], b->lo, PW - W);
            if (++summed % FC_ROWS_BETWEEN_POLLS == 0 && fc_stopped(queue))
                return;
        }
}

const fc_borders_kernels FC_N(fc_borders_kernels) = {
    .extend = FC_N(fc_extend),
    .fold = FC_N(fc_fold),
};
