/* The transforms of Winograd's minimal filtering, for every instruction set. */
#ifndef FASTCONV_WINOGRAD_H
#define FASTCONV_WINOGRAD_H

#include "isa.h"

#define FC_TEMPLATE "winograd_template.h"
#include "foreach.h"

typedef void (*fc_wino_input_t)(int high, int wide, const void *patch, const ptrdiff_t *at, void *v,
                                ptrdiff_t pitch);
typedef void (*fc_wino_weights_t)(int high, int taps_h, int wide, int taps_w, const void *g, const ptrdiff_t *at,
                                  void *u, ptrdiff_t pitch);
typedef void (*fc_wino_output_t)(int high, int out_h, int wide, int out_w, const void *m, ptrdiff_t pitch,
                                 const void *bias, void *to, ptrdiff_t filter_step, ptrdiff_t row_step,
                                 ptrdiff_t column_step, int filters, const int *box);
typedef void (*fc_wino_gradient_t)(int high, int taps_h, int wide, int taps_w, const void *m, ptrdiff_t pitch,
                                   void *to, ptrdiff_t step, const ptrdiff_t *at, int channels);
FC_TABLE(fc_wino_gradient_t, fc_wino_gradient);
FC_TABLE(fc_wino_input_t, fc_wino_input);
FC_TABLE(fc_wino_weights_t, fc_wino_weights);
FC_TABLE(fc_wino_output_t, fc_wino_output);

/* Ask for bytes that will be read soon, where no hardware can guess them. */
static inline void fc_prefetch(const void *at, ptrdiff_t bytes)
{
#if defined(__GNUC__)
    ptrdiff_t i;
    for (i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)at + i);
#else
    (void)at;
    (void)bytes;
#endif
}

#endif /* FASTCONV_WINOGRAD_H */
