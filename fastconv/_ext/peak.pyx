"""The machine's multiply-add peak, for benchmarks: a loop that touches registers only."""

from fastconv._ext.runs cimport fc_draw


cdef extern from "peak.h":
    ctypedef int (*fc_peak_width_t)() noexcept nogil
    ctypedef double (*fc_peak_t)(Py_ssize_t rounds, double factor) noexcept nogil

    const fc_peak_width_t[2][3] fc_peak_width_table
    const fc_peak_t[2][3] fc_peak_table


cdef enum:
    ROUNDS = 10_000   # of an item: some tens of microseconds


def operations(int dtype, int isa):
    """Floating-point operations of an item, in dtype 0 (float32) or 1 (float64)."""
    return 2 * ROUNDS * fc_peak_width_table[dtype][isa]()


def multiply_add(
    Py_ssize_t items, int dtype, int isa, double[::1] sums, Py_ssize_t[::1] counter, Py_ssize_t grain,
):
    """Do `items` items, with whoever else draws from the counter."""
    cdef Py_ssize_t begin, slot
    cdef double total = 0
    with nogil:
        slot = fc_draw(&counter[1], 1)
        begin = fc_draw(&counter[0], grain)
        while begin < items:
            # A factor so small that the sums keep their value, and no product is denormal.
            total += fc_peak_table[dtype][isa](min(grain, items - begin) * ROUNDS, 1e-30)
            begin = fc_draw(&counter[0], grain)
        sums[slot % sums.shape[0]] = total
