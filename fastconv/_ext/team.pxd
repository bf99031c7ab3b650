# How a kernel shares its work: see team.h.

cdef extern from "team.h":
    enum:
        FC_DRAWN
        FC_THREADS
        FC_GRAIN
    ctypedef void (*fc_work)(void* task) noexcept nogil
    void fc_share(Py_ssize_t* words, fc_work work, void* task) noexcept nogil
