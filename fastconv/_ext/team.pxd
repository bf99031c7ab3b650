# Declarations of team.h, by which kernels divide their work among threads.

cdef extern from "team.h" nogil:
    enum:
        FC_DRAWN
        FC_THREADS
        FC_WANTED
        FC_GATE
        FC_GRAIN
        FC_POLL
        FC_DUE
        FC_CALLER
        FC_STOP
        FC_PERIOD
        FC_WORDS
        FC_OPEN
        FC_SHUT
        FC_FINISHED
        FC_NAPS
        FC_GATE_WORDS

    ctypedef struct fc_member:
        Py_ssize_t slot

    ctypedef void (*fc_work)(void* task) noexcept nogil
    void fc_alone(Py_ssize_t* words) noexcept
    int fc_share(Py_ssize_t* words, fc_work work, void* task) except -1
    bint fc_stopped(Py_ssize_t* words) noexcept
    fc_member fc_enrol(Py_ssize_t* words) noexcept
    Py_ssize_t fc_next(Py_ssize_t* words, fc_member* member, Py_ssize_t total) noexcept
    Py_ssize_t fc_take(Py_ssize_t* words, Py_ssize_t total) noexcept
    Py_ssize_t fc_peek(const Py_ssize_t* word) noexcept
    Py_ssize_t fc_swap(Py_ssize_t* word, Py_ssize_t n) noexcept
    void fc_help(Py_ssize_t* gate, Py_ssize_t turns) noexcept
    size_t fc_milliseconds() noexcept
