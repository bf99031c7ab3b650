# Access to a list of integers that Python has made.

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.buffers.runs cimport fc_check


ctypedef const Py_ssize_t* numbers


cdef inline numbers list_of(object array, Py_ssize_t n) except NULL:
    """Return the address of the elements of a C-contiguous array of n intp."""
    cdef Buffer found = contiguous_buffer(array, sizeof(Py_ssize_t), False)
    fc_check(found.n == n)
    return <numbers> found.at
