/* The functions of norm_template.h for groups that are the columns of a matrix. The matrix has groups.runs rows and
 * groups.n columns, and groups.n <= FC_COLUMNS. */

#undef FC_ROWS
/* The number of rows that are summed in the dtype before the sums are added to doubles. */
#define FC_ROWS 64

static void FC_N(fc_column_moments)(const void *x_, fc_norm_groups groups, double *mean, double *variance)
{
    FC_T sum[FC_COLUMNS], squares[FC_COLUMNS], rounded_mean[FC_COLUMNS];
    double count = 0;
    ptrdiff_t begin, r, j;
    for (j = 0; j < groups.n; j++)
        mean[j] = variance[j] = 0;
    for (begin = 0; begin < groups.runs; begin += FC_ROWS) {
        const ptrdiff_t rows = FC_ROWS < groups.runs - begin ? FC_ROWS : groups.runs - begin;
        const FC_T *x = (const FC_T *)x_ + begin * groups.run_pitch;
        const double k = (double)rows;
        for (j = 0; j < groups.n; j++)
            sum[j] = 0;
        for (r = 0; r < rows; r++)
            for (j = 0; j < groups.n; j++)
                sum[j] += x[r * groups.run_pitch + j];
        for (j = 0; j < groups.n; j++) {
            rounded_mean[j] = (FC_T)(sum[j] / k);
            sum[j] = squares[j] = 0;
        }
        for (r = 0; r < rows; r++)
            for (j = 0; j < groups.n; j++) {
                const FC_T centered = x[r * groups.run_pitch + j] - rounded_mean[j];
                sum[j] += centered;
                squares[j] += centered * centered;
            }
        for (j = 0; j < groups.n; j++) {
            const double residual = sum[j] / k, centered = rounded_mean[j] + residual - mean[j];
            variance[j] += squares[j] - k * residual * residual + centered * centered * (count * k / (count + k));
            mean[j] += centered * (k / (count + k));
        }
        count += k;
    }
    for (j = 0; j < groups.n; j++)
        variance[j] = variance[j] > 0 ? variance[j] / count : variance[j] * 0; /* This keeps NaN. */
}

static void FC_N(fc_column_scale)(const void *x_, void *y_, fc_norm_groups groups, const double *mean,
                                  const double *factor, const double *shift)
{
    FC_T m[FC_COLUMNS], f[FC_COLUMNS], b[FC_COLUMNS];
    ptrdiff_t r, j;
    for (j = 0; j < groups.n; j++) {
        m[j] = (FC_T)mean[j];
        f[j] = (FC_T)factor[j];
        b[j] = (FC_T)(shift[j] - (mean[j] - m[j]) * factor[j]);
    }
    for (r = 0; r < groups.runs; r++) {
        const FC_T *x = (const FC_T *)x_ + r * groups.run_pitch;
        FC_T *y = (FC_T *)y_ + r * groups.run_pitch;
        for (j = 0; j < groups.n; j++)
            y[j] = (x[j] - m[j]) * f[j] + b[j];
    }
}

/* For each column, compute the sum of dout and the sum of dout * (x - mean) * factor. If `of_a_row` is 0, column j has
 * the mean mean[j] and the factor factor[j]. Otherwise, row r has the mean mean[r * of_a_row] and the factor
 * factor[r * of_a_row]. */
static void FC_N(fc_column_products)(const void *dout_, const void *x_, fc_norm_groups groups, const double *mean,
                                     const double *factor, ptrdiff_t of_a_row, double *sums)
{
    FC_T sum[FC_COLUMNS], product[FC_COLUMNS], m[FC_COLUMNS], f[FC_COLUMNS];
    ptrdiff_t begin, r, j;
    for (j = 0; j < groups.n; j++) {
        sums[2 * j] = sums[2 * j + 1] = 0;
        m[j] = of_a_row ? 0 : (FC_T)mean[j];
        f[j] = of_a_row ? 0 : (FC_T)factor[j];
    }
    for (begin = 0; begin < groups.runs; begin += FC_ROWS) {
        const ptrdiff_t end = begin + FC_ROWS < groups.runs ? begin + FC_ROWS : groups.runs;
        for (j = 0; j < groups.n; j++)
            sum[j] = product[j] = 0;
        for (r = begin; r < end; r++) {
            const FC_T *x = (const FC_T *)x_ + r * groups.run_pitch, *dout = (const FC_T *)dout_ + r * groups.run_pitch;
            if (of_a_row) {
                const FC_T row_mean = (FC_T)mean[r * of_a_row], row_factor = (FC_T)factor[r * of_a_row];
                for (j = 0; j < groups.n; j++) {
                    sum[j] += dout[j];
                    product[j] += dout[j] * ((x[j] - row_mean) * row_factor);
                }
            } else {
                for (j = 0; j < groups.n; j++) {
                    sum[j] += dout[j];
                    product[j] += dout[j] * ((x[j] - m[j]) * f[j]);
                }
            }
        }
        for (j = 0; j < groups.n; j++) {
            sums[2 * j] += sum[j];
            sums[2 * j + 1] += product[j];
        }
    }
    if (!of_a_row)
        for (j = 0; j < groups.n; j++)
            sums[2 * j + 1] -= (mean[j] - m[j]) * factor[j] * sums[2 * j];
}

static void FC_N(fc_column_combine)(const void *dout_, const void *x_, void *dx_, fc_norm_groups groups,
                                    const double *mean, const double *of_dout, const double *of_x, const double *shift)
{
    FC_T m[FC_COLUMNS], a[FC_COLUMNS], b[FC_COLUMNS], c[FC_COLUMNS];
    ptrdiff_t r, j;
    for (j = 0; j < groups.n; j++) {
        m[j] = (FC_T)mean[j];
        a[j] = (FC_T)of_dout[j];
        b[j] = (FC_T)of_x[j];
        c[j] = (FC_T)(shift[j] - (mean[j] - m[j]) * of_x[j]);
    }
    for (r = 0; r < groups.runs; r++) {
        const FC_T *dout = (const FC_T *)dout_ + r * groups.run_pitch, *x = (const FC_T *)x_ + r * groups.run_pitch;
        FC_T *dx = (FC_T *)dx_ + r * groups.run_pitch;
        for (j = 0; j < groups.n; j++)
            dx[j] = dout[j] * a[j] + ((x[j] - m[j]) * b[j] + c[j]);
    }
}

const fc_norm_kernels FC_N(fc_norm_kernels) = {
    .moments = FC_N(fc_moments),
    .scale = FC_N(fc_scale),
    .scale_row = FC_N(fc_scale_row),
    .products = FC_N(fc_products),
    .products_row = FC_N(fc_products_row),
    .combine = FC_N(fc_combine),
    .combine_row = FC_N(fc_combine_row),
    .column_moments = FC_N(fc_column_moments),
    .column_scale = FC_N(fc_column_scale),
    .column_products = FC_N(fc_column_products),
    .column_combine = FC_N(fc_column_combine),
};
