# How a kernel shares its work: see team.h.

cdef extern from "team.h" nogil:
    enum:
        FC_DRAWN
        FC_THREADS
        FC_GRAIN
        FC_WORDS

    ctypedef struct fc_member:
        Py_ssize_t slot

    ctypedef void (*fc_work)(void* task) noexcept nogil
    void fc_alone(Py_ssize_t* words) noexcept
    void fc_share(Py_ssize_t* words, fc_work work, void* task) noexcept
    fc_member fc_enrol(Py_ssize_t* words) noexcept
    Py_ssize_t fc_next(Py_ssize_t* words, fc_member* member, Py_ssize_t total) noexcept
    Py_ssize_t fc_peek(const Py_ssize_t* word) noexcept
    Py_ssize_t fc_swap(Py_ssize_t* word, Py_ssize_t n) noexcept
