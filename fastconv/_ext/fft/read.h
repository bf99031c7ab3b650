/* Functions that fill fc_fft_task with the integers that fastconv.convolution.fft.tables computes. This file is
 * included by fft.h. */

static inline const ptrdiff_t *fc_fft_read_three(ptrdiff_t *to, const ptrdiff_t *from)
{
    memcpy(to, from, 3 * sizeof *to);
    return from + 3;
}

static const ptrdiff_t *fc_fft_read_array(fc_fft_array *array, const ptrdiff_t *from)
{
    array->outer = from[0], array->group = from[1], array->inner = from[2], array->tiled = from[3];
    from = fc_fft_read_three(array->size, from + 4);
    from = fc_fft_read_three(array->pitch, from);
    from = fc_fft_read_three(array->step, from);
    from = fc_fft_read_three(array->origin, from);
    from = fc_fft_read_three(array->phi_step, from);
    from = fc_fft_read_three(array->tau_step, from);
    from = fc_fft_read_three(array->count, from);
    from = fc_fft_read_three(array->border, from);
    return fc_fft_read_three(array->positions, from);
}

static inline void fc_fft_read(fc_fft_task *t, const ptrdiff_t *from, const char *factors)
{
    ptrdiff_t *const fields[] = {&t->is_signal, &t->gradient, &t->backward_data, &t->groups, &t->images, &t->rows,
                                &t->columns, &t->taus, &t->phis, &t->tiles, &t->block_rows, &t->block_columns,
                                &t->block_pairs, &t->block_groups, &t->shared, &t->fused, &t->parts, &t->slot_pitch,
                                &t->flat_at, &t->volume_at, &t->shared_at, &t->spectra_at, &t->pitch};
    size_t i;
    for (i = 0; i < sizeof fields / sizeof *fields; i++)
        *fields[i] = *from++;
    t->twiddles = *from < 0 ? NULL : factors + *from * t->itemsize;
    from++;
    from = fc_fft_read_three(t->tau, from);
    from = fc_fft_read_three(t->phi, from);
    from = fc_fft_read_three(t->tile, from);
    from = fc_fft_read_three(t->tiles_along, from);
    from = fc_fft_read_array(&t->source, from);
    from = fc_fft_read_array(&t->weights, from);
    from = fc_fft_read_array(&t->result, from);
    for (i = 0; i < 3; i++) {
        t->axes[i].length = from[0];
        t->axes[i].passes = from[1];
        t->axes[i].factors = factors + from[2] * t->itemsize;
        t->axes[i].radices = from + 3;
        from += 3 + FC_FFT_PASSES;
    }
}
