"""Threads that wait for the next call without sleeping, for a moment."""

cdef extern from "team.h":
    int FC_WANTED, FC_GATE, FC_GATE_WORDS, FC_OPEN, FC_AWAY, FC_SHUT
    void fc_help(Py_ssize_t* gate, Py_ssize_t turns) noexcept nogil
    void fc_ring(Py_ssize_t* gate, Py_ssize_t helpers) noexcept nogil
    Py_ssize_t fc_add(Py_ssize_t* word, Py_ssize_t n) noexcept nogil


#: Words of a gate; all are 0 at first but the word `OPEN`, which is `SHUT`. A change of `AWAY` ends all `help`.
GATE_WORDS, OPEN, AWAY, SHUT = FC_GATE_WORDS, FC_OPEN, FC_AWAY, FC_SHUT
#: Words of a call; all are 0 at first but those its caller knows.
WORDS, WANTED, GATE, GRAIN = FC_WORDS, FC_WANTED, FC_GATE, FC_GRAIN


def help(Py_ssize_t[::1] gate, Py_ssize_t turns):
    """Join the calls that open the gate, until called away; after so many turns without one asleep, or not at all."""
    with nogil:
        fc_help(&gate[0], turns)


def call_away(Py_ssize_t[::1] gate, Py_ssize_t helpers):
    """End all `help`; those who sleep wake up for it."""
    fc_add(&gate[FC_AWAY], 1)
    fc_ring(&gate[0], helpers)
