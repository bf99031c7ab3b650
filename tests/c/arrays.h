/* Arrays of either dtype, for the checks of kernels in this folder and for tools/kernel_driver. */
#ifndef FASTCONV_ARRAYS_H
#define FASTCONV_ARRAYS_H

#include <stddef.h>
#include <stdlib.h>

static unsigned seed = 1;

static inline size_t size_of(int dtype) { return dtype ? sizeof(double) : sizeof(float); }

static inline void *zeros(int dtype, ptrdiff_t n)
{
    void *made = calloc((size_t)(n ? n : 1), size_of(dtype));
    if (made == NULL)
        abort();
    return made;
}

static inline double get(int dtype, const void *from, ptrdiff_t i)
{
    return dtype ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static inline void set(int dtype, void *to, ptrdiff_t i, double value)
{
    if (dtype)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

/* Multiples of 1/8 between -4 and 4. They are exact in float, and so are most sums of their products. */
static inline double number(void)
{
    seed = seed * 1664525u + 1013904223u;
    return ((int)(seed >> 16 & 63) - 32) / 8.0;
}

static inline void *numbers(int dtype, ptrdiff_t n)
{
    void *made = zeros(dtype, n);
    ptrdiff_t i;
    for (i = 0; i < n; i++)
        set(dtype, made, i, number());
    return made;
}

#endif /* FASTCONV_ARRAYS_H */
