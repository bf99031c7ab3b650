"""A cache that maps the shapes, dtype and options of a call to the value that the caller resolved for them.

Without the cache, checking all arguments of a call would take longer than convolving a small image.
"""

from cpython.buffer cimport PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize


cdef enum:
    MOST_ARRAYS = 4
    MOST_AXES = 6
    NUMBERS = MOST_ARRAYS * (MOST_AXES + 1) + 1


cdef class CallCache:
    """A cache of at most `most` calls. For a call that is not in the cache, `get` returns None. The caller then
    resolves the call, and may store the value with `put`.

    A call is stored only if kernels can read its arrays without a copy: the arrays have the type `ndarray`, are
    C-contiguous and aligned, and have one common dtype. `dtypes` are the two dtypes that kernels support, of 4 and of 8
    bytes.
    """

    cdef dict _calls
    cdef object _ndarray
    cdef tuple _dtypes
    cdef Py_ssize_t _most

    def __init__(self, object ndarray, tuple dtypes, Py_ssize_t most):
        self._calls, self._ndarray, self._dtypes, self._most = {}, ndarray, dtypes, most

    def get(self, tuple arrays, dict options):
        """Return the value that is stored for arrays of the same shapes and dtype and for equal options, or None if
        there is none.

        An element of `arrays` may be None.
        """
        key = self._key(arrays, options)
        return None if key is None else self._calls.get(key)

    def put(self, tuple arrays, dict options, found):
        """Store the value `found` for arrays of the same shapes and dtype and for equal options. Do nothing if the
        arrays do not meet the conditions of `CallCache`, or if an option has a type that `plain` does not accept.
        """
        key = self._key(arrays, options)
        if key is not None:
            if len(self._calls) >= self._most:
                self._calls.clear()
            self._calls[key] = found

    def clear(self):
        """Delete all entries."""
        self._calls.clear()

    cdef object _key(self, tuple arrays, dict options):
        cdef Py_ssize_t[NUMBERS] numbers
        cdef Py_ssize_t n = 1
        cdef object first = None
        cdef list key
        if len(arrays) > MOST_ARRAYS:
            return None
        numbers[0] = 0
        for array in arrays:
            if array is None:
                numbers[n] = -1
                n += 1
                continue
            if type(array) is not self._ndarray:
                return None
            dtype = array.dtype
            if first is None:
                first = dtype
                if dtype is self._dtypes[0]:
                    numbers[0] = 4
                elif dtype is self._dtypes[1]:
                    numbers[0] = 8
                else:
                    return None
            elif dtype is not first:
                return None
            n = shape_of(array, numbers, n, numbers[0])
            if n < 0:
                return None
        key = [PyBytes_FromStringAndSize(<char*> numbers, n * sizeof(Py_ssize_t))]
        for name, value in options.items():
            if not plain(value):
                return None
            key.append(name)
            key.append(value)
            # Mark a bool, because True and 1 compare equal as keys, but may mean different options.
            if type(value) is bool:
                key.append(bool)
        return tuple(key)


cdef Py_ssize_t shape_of(object array, Py_ssize_t* numbers, Py_ssize_t n, Py_ssize_t itemsize) noexcept:
    """Write the number of axes and the shape of an array to `numbers`, starting at index `n`.

    Return the index after the last number that was written. Return -1 if the array is not C-contiguous and aligned,
    or has more than MOST_AXES axes.
    """
    cdef Py_buffer buffer
    cdef Py_ssize_t i, ndim
    try:
        PyObject_GetBuffer(array, &buffer, PyBUF_ND)
    except Exception:
        return -1
    ndim = buffer.ndim
    if ndim <= MOST_AXES and <Py_ssize_t> buffer.buf % itemsize == 0:
        numbers[n] = ndim
        for i in range(ndim):
            numbers[n + 1 + i] = buffer.shape[i]
        n += ndim + 1
    else:
        n = -1
    PyBuffer_Release(&buffer)
    return n


cdef bint plain(object value):
    """Return whether a value can be part of a key: an int, str, bool or None, or a tuple of ints and of tuples of ints.
    """
    kind = type(value)
    if kind is int or kind is str or kind is bool or value is None:
        return True
    if kind is not tuple:
        return False
    for item in <tuple> value:
        kind = type(item)
        if kind is int:
            continue
        if kind is not tuple:
            return False
        for number in <tuple> item:
            if type(number) is not int:
                return False
    return True
