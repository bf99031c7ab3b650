/* Check norm.h: moments of groups and of columns, and scaling by them. */
#include "check.h"
#include "norm/norm.h"

static double x_of(int dtype, const void *x, fc_norm_groups groups, ptrdiff_t c, ptrdiff_t r, ptrdiff_t i)
{
    return get(dtype, x, c * groups.group_pitch + r * groups.run_pitch + i);
}

static void check_groups(int dtype, int isa, fc_norm_groups groups)
{
    const ptrdiff_t size = (groups.count - 1) * groups.group_pitch + (groups.runs - 1) * groups.run_pitch + groups.n;
    void *x = numbers(dtype, size), *y = zeros(dtype, size);
    double mean[8], variance[8], gamma[8], beta[8];
    ptrdiff_t c, r, i;
    for (c = 0; c < groups.count; c++)
        gamma[c] = number(), beta[c] = number();
    fc_norm_for(dtype, isa)->moments(x, groups, mean, variance);
    fc_norm_for(dtype, isa)->scale(x, y, groups, mean, variance, gamma, beta);
    for (c = 0; c < groups.count; c++) {
        const double n = (double)(groups.runs * groups.n);
        double first = 0, second = 0;
        for (r = 0; r < groups.runs; r++)
            for (i = 0; i < groups.n; i++)
                first += x_of(dtype, x, groups, c, r, i) / n;
        for (r = 0; r < groups.runs; r++)
            for (i = 0; i < groups.n; i++)
                second += pow(x_of(dtype, x, groups, c, r, i) - first, 2) / n;
        near_to("mean", dtype, isa, mean[c], first, 4);
        near_to("variance", dtype, isa, variance[c], second, 64);
        for (r = 0; r < groups.runs; r++)
            for (i = 0; i < groups.n; i++)
                near_to("scale", dtype, isa, x_of(dtype, y, groups, c, r, i),
                        (x_of(dtype, x, groups, c, r, i) - first) * second * gamma[c] + beta[c], 1000);
    }
    free(x), free(y);
}

/* The bits of a group do not depend on the number of groups of a call, which depends on the number of threads. */
static void check_one_at_a_time(int dtype, int isa, fc_norm_groups groups)
{
    const ptrdiff_t size = (groups.count - 1) * groups.group_pitch + (groups.runs - 1) * groups.run_pitch + groups.n;
    char *x = numbers(dtype, size), *dout = numbers(dtype, size);
    double mean[8], variance[8], sums[16];
    fc_norm_groups one = groups;
    ptrdiff_t c;
    one.count = 1;
    fc_norm_for(dtype, isa)->moments(x, groups, mean, variance);
    fc_norm_for(dtype, isa)->products(dout, x, groups, mean, variance, sums);
    for (c = 0; c < groups.count; c++) {
        const size_t at = (size_t)(c * groups.group_pitch) * size_of(dtype);
        double own_mean, own_variance, own_sums[2];
        fc_norm_for(dtype, isa)->moments(x + at, one, &own_mean, &own_variance);
        fc_norm_for(dtype, isa)->products(dout + at, x + at, one, mean + c, variance + c, own_sums);
        same("mean of one group", dtype, isa, own_mean, mean[c]);
        same("variance of one group", dtype, isa, own_variance, variance[c]);
        same("sum of dout of one group", dtype, isa, own_sums[0], sums[2 * c]);
        same("sum of products of one group", dtype, isa, own_sums[1], sums[2 * c + 1]);
    }
    free(x), free(dout);
}

static void check_columns(int dtype, int isa, ptrdiff_t rows, ptrdiff_t columns)
{
    const fc_norm_groups groups = {rows, columns, columns + 2, 1, 0, 0};
    void *x = numbers(dtype, (rows - 1) * groups.run_pitch + columns);
    double mean[FC_COLUMNS], variance[FC_COLUMNS];
    ptrdiff_t r, j;
    fc_norm_for(dtype, isa)->column_moments(x, groups, mean, variance);
    for (j = 0; j < columns; j++) {
        double first = 0, second = 0;
        for (r = 0; r < rows; r++)
            first += x_of(dtype, x, groups, 0, r, j) / (double)rows;
        for (r = 0; r < rows; r++)
            second += pow(x_of(dtype, x, groups, 0, r, j) - first, 2) / (double)rows;
        near_to("column mean", dtype, isa, mean[j], first, 4);
        near_to("column variance", dtype, isa, variance[j], second, 64);
    }
    free(x);
}

int main(void)
{
    static const ptrdiff_t lengths[] = {1, 3, 8, 21, 70, 300};
    int dtype, isa, i;
    EACH_COPY(dtype, isa)
    for (i = 0; i < 6; i++) {
        const ptrdiff_t n = lengths[i];
        const fc_norm_groups one = {3, n, 2 * n, 1, 0, 0}, several = {2, n, 8 * n, 7, n, 0};
        check_groups(dtype, isa, one);
        check_groups(dtype, isa, several);
        check_one_at_a_time(dtype, isa, several);
        check_columns(dtype, isa, n, 5);
        check_columns(dtype, isa, 70, n < FC_COLUMNS ? n : FC_COLUMNS);
    }
    return finish("norm");
}
