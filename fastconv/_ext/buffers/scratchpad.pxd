# The workspace of a thread, divided into arrays. A plan books each array once, when it is made, and keeps the offset in
# a field with the name of the array. So no other code computes an offset.
#
#     sizes.v_at = book(&scratchpad, points * sizes.v_pitch)
#     sizes.m_at = book(&scratchpad, points * sizes.m_pitch)
#
# A thread then finds v at `workspace + sizes.v_at`. All numbers are numbers of elements.

cdef struct Scratchpad:
    Py_ssize_t size         # the number of elements that are booked
    Py_ssize_t alignment    # each array begins at a multiple of this number of elements


cdef inline Scratchpad scratchpad_of(Py_ssize_t itemsize) noexcept nogil:
    """Return an empty scratchpad for elements of `itemsize` bytes. Each array begins at a cache line of 64 bytes."""
    cdef Scratchpad pad
    pad.size, pad.alignment = 0, 64 // itemsize
    return pad


cdef inline Py_ssize_t book(Scratchpad* pad, Py_ssize_t n) noexcept nogil:
    """Book an array of n elements, and return its offset from the start of the workspace."""
    cdef Py_ssize_t at = pad.size
    pad.size += (n + pad.alignment - 1) // pad.alignment * pad.alignment
    return at
