"""A cache of calls. It maps the shapes, dtype and options of a call to what the caller resolved for them.

Checking all arguments again would take longer than convolving a small image.
"""

from cpython.buffer cimport PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize


cdef enum:
    MOST_ARRAYS = 4
    MOST_AXES = 6
    NUMBERS = MOST_ARRAYS * (MOST_AXES + 1) + 1


cdef class CallCache:
    """A table of at most `most` calls whose arrays are of type `ndarray` and can be read by kernels without a copy.

    `dtypes` are the dtypes of 4 and 8 bytes. All arrays of a call must have the same dtype.

    For any other call, `get` returns None. The caller then resolves the call, and may store the result with `put`.
    """

    cdef dict _calls
    cdef object _ndarray
    cdef tuple _dtypes
    cdef Py_ssize_t _most

    def __init__(self, object ndarray, tuple dtypes, Py_ssize_t most):
        self._calls, self._ndarray, self._dtypes, self._most = {}, ndarray, dtypes, most

    def get(self, tuple arrays, dict options):
        """Return the value stored for such arrays (some may be None) and options, or None."""
        key = self._key(arrays, options)
        return None if key is None else self._calls.get(key)

    def put(self, tuple arrays, dict options, found):
        """Store the value, if such arrays and options can be keys of the table."""
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
            # True equals 1, but does not mean the same.
            if type(value) is bool:
                key.append(bool)
        return tuple(key)


cdef Py_ssize_t shape_of(object array, Py_ssize_t* numbers, Py_ssize_t n, Py_ssize_t itemsize) noexcept:
    """Write the number of axes and the shape of an array to `numbers`, from index `n` on.

    Returns the index after them, or -1 if the array is not C-contiguous and aligned.
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
    """Return whether equal values always mean the same: ints, strings, bools, None, and tuples of ints or of tuples of
    ints.
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
