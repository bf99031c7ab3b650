# The C kernels of depthwise convolution, for each dtype and instruction set.

cdef extern from "depthwise/depthwise.h":
    int FC_ISAS

    ctypedef struct fc_taps:
        Py_ssize_t k
        Py_ssize_t high
        Py_ssize_t step
        const Py_ssize_t* at
        const Py_ssize_t* of
        const void* w
        Py_ssize_t pitch
        Py_ssize_t to_pitch

    ctypedef struct fc_copy_segment:
        Py_ssize_t to
        Py_ssize_t top
        Py_ssize_t rows
        Py_ssize_t bottom
        Py_ssize_t source "from"
        Py_ssize_t before
        Py_ssize_t n

    ctypedef void (*fc_pad_t)(
        void* to, Py_ssize_t width, const fc_copy_segment* segments, Py_ssize_t count, const void* source,
        Py_ssize_t source_pitch, Py_ssize_t stride, Py_ssize_t room,
    ) noexcept nogil
    ctypedef void (*fc_sweep_t)(
        const fc_taps* taps, const void* source, void* to, Py_ssize_t rows, Py_ssize_t n, const void* bias,
        Py_ssize_t whole,
    ) noexcept nogil
    ctypedef void (*fc_sweep_pair_t)(
        const fc_taps* a, const fc_taps* b, const void* source, void* to, Py_ssize_t rows, Py_ssize_t n,
        const void* bias, Py_ssize_t whole,
    ) noexcept nogil
    ctypedef void (*fc_dots_t)(
        const fc_taps* taps, const void* source, const void* dout, Py_ssize_t rows, Py_ssize_t n, void* totals,
    ) noexcept nogil
    ctypedef void (*fc_lanes_t)(
        const void* totals, Py_ssize_t n, Py_ssize_t taps, const Py_ssize_t* place, void* to,
    ) noexcept nogil

    ctypedef struct fc_depthwise_kernels:
        fc_pad_t pad
        fc_sweep_t sweep
        fc_sweep_pair_t sweep_pair
        fc_dots_t dots
        fc_lanes_t lanes

    const fc_depthwise_kernels* fc_depthwise_for(int dtype, int isa) noexcept nogil
    int fc_isa_lanes(int dtype, int isa) noexcept nogil
