"""Threads that wait for the next call without sleeping, for a moment."""

cdef extern from "team.h":
    int FC_GATE_WORDS, FC_OPEN, FC_AWAY, FC_SHUT
    void fc_help(Py_ssize_t* gate, Py_ssize_t turns) noexcept nogil


#: Words of a gate; all are 0 at first but the word `OPEN`, which is `SHUT`. A change of `AWAY` ends all `help`.
WORDS, OPEN, AWAY, SHUT = FC_GATE_WORDS, FC_OPEN, FC_AWAY, FC_SHUT


def help(Py_ssize_t[::1] gate, Py_ssize_t turns):
    """Join the calls that open the gate, until none has for so many turns."""
    with nogil:
        fc_help(&gate[0], turns)
