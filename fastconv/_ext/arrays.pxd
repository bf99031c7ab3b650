# C-contiguous arrays of any shape as a pointer and a length. This takes a tenth of the time of a memoryview, which
# matters for small planes.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer


cdef struct Buffer:
    void* at
    Py_ssize_t n


cdef inline Buffer contiguous_buffer(object array, Py_ssize_t itemsize, bint writable) except *:
    """Return the elements of an array; raise an error unless it is C-contiguous.

    The caller keeps the array alive, and guarantees its dtype.
    """
    cdef Py_buffer buffer
    cdef Buffer run
    PyObject_GetBuffer(array, &buffer, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    run.at, run.n = buffer.buf, buffer.len // itemsize
    PyBuffer_Release(&buffer)
    return run


cdef inline Py_ssize_t* index_pointer(object array) except NULL:
    """Return the elements of an array of intp, whose type and length the caller guarantees."""
    return <Py_ssize_t*> contiguous_buffer(array, sizeof(Py_ssize_t), False).at
