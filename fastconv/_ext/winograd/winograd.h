/* The transforms of Winograd's minimal filtering, for every instruction set. */
#ifndef FASTCONV_WINOGRAD_H
#define FASTCONV_WINOGRAD_H

#include "simd/isa.h"

typedef void (*fc_wino_input_t)(int high, int wide, const void *patch, const ptrdiff_t *at, void *v, ptrdiff_t pitch);
typedef void (*fc_wino_weights_t)(int high, int taps_h, int wide, int taps_w, const void *g, const ptrdiff_t *at,
                                  void *u, ptrdiff_t pitch);
typedef void (*fc_wino_output_t)(int high, int out_h, int wide, int out_w, const void *m, ptrdiff_t pitch,
                                 const void *bias, void *to, ptrdiff_t filter_step, ptrdiff_t row_step,
                                 ptrdiff_t column_step, int filters, const int *box, void *check);
typedef void (*fc_wino_gradient_t)(int high, int taps_h, int wide, int taps_w, const void *m, ptrdiff_t pitch, void *to,
                                   ptrdiff_t step, const ptrdiff_t *at, int channels, void *check);

/* The kernels of one dtype and instruction set. */
typedef struct {
    fc_wino_gradient_t gradient;
    fc_wino_input_t input;
    fc_wino_weights_t weights;
    fc_wino_output_t output;
} fc_winograd_kernels;

FC_KERNELS(fc_winograd_kernels, fc_winograd_for);

#endif /* FASTCONV_WINOGRAD_H */
