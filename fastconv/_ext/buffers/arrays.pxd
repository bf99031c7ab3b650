# Access to the elements of a C-contiguous array by a pointer and a length. Making a memoryview would take ten times as
# long, which matters for small images.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer


cdef struct Buffer:
    void* at
    Py_ssize_t n


cdef inline Buffer contiguous_buffer(object array, Py_ssize_t itemsize, bint writable) except *:
    """Return the address and the number of elements of an array. Raise an error unless the array is C-contiguous.

    The caller has to keep the array alive, and to pass the `itemsize` of its dtype.
    """
    cdef Py_buffer buffer
    cdef Buffer run
    PyObject_GetBuffer(array, &buffer, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    run.at, run.n = buffer.buf, buffer.len // itemsize
    PyBuffer_Release(&buffer)
    return run


cdef inline Py_ssize_t* index_pointer(object array) except NULL:
    """Return the address of the elements of an array. The caller guarantees that the dtype is intp, and that the array
    is long enough."""
    return <Py_ssize_t*> contiguous_buffer(array, sizeof(Py_ssize_t), False).at
