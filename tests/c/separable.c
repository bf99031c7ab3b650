/* Check separable.h and rank_one.h: blocks of convolutions with outer products, and the factors of these. */
#include "check.h"
#include "separable/rank_one.h"
#include "separable/separable.h"

enum { ENTRIES = 9 };

/* A volume of 6 x 11 x `wide` cells, padded by 1, kernel 2 x 4 x 3, in blocks of any size. */
static void convolve(int dtype, int isa, ptrdiff_t wide, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t block,
                     int flat)
{
    const ptrdiff_t k[3] = {flat ? 1 : 2, 4, 3}, size[3] = {flat ? 1 : 6, 11, wide}, pad[3] = {!flat, 1, 1};
    const ptrdiff_t begins[3] = {0, k[0], k[0] + k[1]}, lanes = fc_isa_lanes(dtype, isa);
    ptrdiff_t out[3], cells = 2, results = 2, axis, i, j, l, t, u, v, c, row, planes;
    fc_conv_axis phases[3];
    fc_separable call;
    void *x, *factors = numbers(dtype, 2 * ENTRIES), *bias = numbers(dtype, 2), *result, *space;
    for (axis = 0; axis < 3; axis++) {
        const ptrdiff_t step = flat && !axis ? 1 : stride, apart = flat && !axis ? 1 : dilation;
        const ptrdiff_t span = apart * (k[axis] - 1) + 1;
        out[axis] = (size[axis] + 2 * pad[axis] - span) / step + 1;
        if (out[axis] < 1 || size[axis] + 2 * pad[axis] < span) {
            free(factors), free(bias);
            return;
        }
        {
            const fc_conv_axis phase = {out[axis], 0, 1, pad[axis], apart, k[axis], begins[axis]};
            const fc_phased_axis phased_axis = {size[axis], out[axis], step,         1, out[axis], axis ? block : 2,
                                                pad[axis],  span - 1,  &phases[axis]};
            phases[axis] = phase;
            call.axes[axis] = phased_axis;
        }
        cells *= size[axis], results *= out[axis];
    }
    /* Elements of the padded rows of a block; with a stride, there is one more row, split into phases. */
    row = (block - 1) * call.axes[2].stride + call.axes[2].halo + 1 + lanes;
    planes = flat ? 0 : 2 * size[1] * size[2];
    call.images = 1, call.channels = 2, call.shared = 1, call.sources = 1, call.entries = ENTRIES, call.flat = flat,
    call.border = FC_ZEROS;
    call.pitch = row, call.split_at = block * row, call.phase_pitch = stride > 1 ? row : 0;
    call.row_at = call.split_at + stride * call.phase_pitch, call.planes_at = call.row_at;
    call.space = call.planes_at + planes;
    x = numbers(dtype, cells), result = zeros(dtype, results), space = numbers(dtype, call.space);
    for (c = 0; c < 2 && flat; c++)
        set(dtype, factors, c * ENTRIES, 1);
    call.x = x, call.factors = factors, call.bias = bias, call.result = result, call.queue = NULL;
    for (i = 0; i < fc_separable_items(&call); i++)
        same("finite", dtype, isa, fc_separable_for(dtype, isa)->block(&call, i, space), 0);
    for (c = 0; c < 2; c++)
        for (i = 0; i < out[0]; i++)
            for (j = 0; j < out[1]; j++)
                for (l = 0; l < out[2]; l++) {
                    double sum = get(dtype, bias, c);
                    for (t = 0; t < k[0]; t++)
                        for (u = 0; u < k[1]; u++)
                            for (v = 0; v < k[2]; v++) {
                                const ptrdiff_t z = i * call.axes[0].stride + t * phases[0].dilation - pad[0];
                                const ptrdiff_t y = j * stride + u * dilation - 1, w = l * stride + v * dilation - 1;
                                if (z < 0 || z >= size[0] || y < 0 || y >= size[1] || w < 0 || w >= size[2])
                                    continue;
                                sum += get(dtype, x, ((c * size[0] + z) * size[1] + y) * size[2] + w) *
                                       get(dtype, factors, c * ENTRIES + t) *
                                       get(dtype, factors, c * ENTRIES + begins[1] + u) *
                                       get(dtype, factors, c * ENTRIES + begins[2] + v);
                            }
                    near_to("block", dtype, isa, get(dtype, result, ((c * out[0] + i) * out[1] + j) * out[2] + l), sum,
                            800);
                }
    /* A cell that is not finite is seen by whichever block reads it. */
    set(dtype, x, cells - 1, INFINITY);
    for (i = t = 0; i < fc_separable_items(&call); i++)
        t += fc_separable_for(dtype, isa)->block(&call, i, space);
    {
        const double last = get(dtype, result, results - 1);
        checks++;
        if (t == 0 && !(last - last == 0) && failures++ < 20)
            fprintf(stderr, "a result that is not finite was not seen\n");
    }
    free(x), free(factors), free(bias), free(result), free(space);
}

static void factor(int dtype)
{
    const ptrdiff_t k[3] = {2, 3, 4}, order[ENTRIES] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    void *w = zeros(dtype, 24), *from = numbers(dtype, ENTRIES), *to = zeros(dtype, ENTRIES);
    double *space = (double *)malloc((size_t)fc_factor_space(k) * sizeof(double));
    fc_mismatch mismatch = {0, 0, 0};
    ptrdiff_t i, j, l, twice;
    if (space == NULL)
        abort();
    for (twice = 0; twice < 2; twice++) {
        int found;
        for (i = 0; i < 24; i++)
            set(dtype, w, i, get(dtype, from, i / 12) * get(dtype, from, 2 + i / 4 % 3) * get(dtype, from, 5 + i % 4));
        if (twice)
            set(dtype, w, 17, get(dtype, w, 17) + 0.5);
        found = dtype ? fc_factor_f64((double *)w, k, order, ENTRIES, (double *)to, space, &mismatch)
                      : fc_factor_f32((float *)w, k, order, ENTRIES, (float *)to, space, &mismatch);
        same("rank", dtype, 0, found, (double)twice);
        for (i = 0; i < 2 && !twice; i++)
            for (j = 0; j < 3; j++)
                for (l = 0; l < 4; l++)
                    same("factors", dtype, 0, get(dtype, to, i) * get(dtype, to, 2 + j) * get(dtype, to, 5 + l),
                         get(dtype, w, (i * 3 + j) * 4 + l));
    }
    free(w), free(from), free(to), free(space);
}

int main(void)
{
    int dtype, isa, i;
    ptrdiff_t wide, stride, dilation, block;
    for (dtype = 0; dtype < 2; dtype++)
        for (i = 0; i < 50; i++)
            factor(dtype);
    EACH_COPY(dtype, isa)
    for (wide = 1; wide < 150; wide += wide < 20 ? 1 : 29)
        for (stride = 1; stride < 4; stride++)
            for (dilation = 1; dilation < 3; dilation++)
                for (block = 3; block < 80; block += 70)
                    for (i = 0; i < 2; i++)
                        convolve(dtype, isa, wide, stride, dilation, block, i);
    return finish("separable");
}
