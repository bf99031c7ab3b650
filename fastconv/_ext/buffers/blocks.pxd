# Functions that divide n items into blocks of `block` items. The last block may have fewer items.

cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t block) noexcept nogil:
    return (n + block - 1) // block


cdef inline Py_ssize_t unravel_block(Py_ssize_t* begin, Py_ssize_t index, Py_ssize_t n,
                                     Py_ssize_t block) noexcept nogil:
    """Set `begin` to the index of the first item of block `index % count`, where `count` is the number of blocks.
    Return `index // count`.
    """
    cdef Py_ssize_t count = ceil_div(n, block)
    begin[0] = index % count * block
    return index // count
