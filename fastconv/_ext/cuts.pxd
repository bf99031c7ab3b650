# How work is cut: blocks of n, and which of them an index means.

cdef inline Py_ssize_t pieces(Py_ssize_t n, Py_ssize_t block) noexcept nogil:
    return (n + block - 1) // block


cdef inline Py_ssize_t cut(Py_ssize_t* begin, Py_ssize_t index, Py_ssize_t n, Py_ssize_t block) noexcept nogil:
    """Where piece `index % pieces` of n begins; returns what is left of the index."""
    cdef Py_ssize_t count = pieces(n, block)
    begin[0] = index % count * block
    return index // count
