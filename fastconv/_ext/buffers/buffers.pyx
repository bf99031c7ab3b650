# cython: freethreading_compatible=False
"""A pool that keeps the memory of deleted large results for new results.

A `PooledBuffer` owns the memory of one result. When the last view of the result is deleted, the buffer returns the
memory to its `Pool`.

This code is compiled, because Python runs signal handlers only between Python instructions. In a `__del__` written in
Python, a handler might raise an exception, and the exception would be lost. The GIL protects the pool, because no
function here releases the GIL. So a free-threaded interpreter has to turn the GIL on when it imports this module.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
from libc.stdlib cimport free as free_bytes, malloc

cimport cython


cdef extern from "buffers/buffers.h" nogil:
    const bint FC_MAPS
    char* fc_map(size_t nbytes, bint large) noexcept
    void fc_unmap(char* at, size_t nbytes) noexcept
    bint fc_offer(char* at, size_t nbytes) noexcept
    bint fc_limited() noexcept
    void fc_trim() noexcept


#: Whether this system has the mmap and madvise that the pool needs.
MAPS = bool(FC_MAPS)

cdef enum:
    PAGE = 1 << 21        # The number of bytes of a huge page. The sizes of large mappings are multiples of it.
    SMALL_PAGE = 1 << 16  # The sizes of small mappings are multiples of this number of bytes.

cdef Py_ssize_t MOST = (<size_t> -1 >> 1) - PAGE


# A mapping of memory. A mapping is either in use, or in the list of free mappings of its pool.
cdef struct Mapping:
    char* at
    Py_ssize_t nbytes
    bint large
    Mapping* older
    Mapping* newer


cdef struct FreeList:
    Mapping* oldest
    Mapping* newest
    Py_ssize_t nbytes


cdef void add(FreeList* free, Mapping* mapping) noexcept:
    mapping.older, mapping.newer = free.newest, NULL
    if free.newest is NULL:
        free.oldest = mapping
    else:
        free.newest.newer = mapping
    free.newest = mapping
    free.nbytes += mapping.nbytes


cdef void remove(FreeList* free, Mapping* mapping) noexcept:
    if mapping.older is NULL:
        free.oldest = mapping.newer
    else:
        mapping.older.newer = mapping.newer
    if mapping.newer is NULL:
        free.newest = mapping.older
    else:
        mapping.newer.older = mapping.older
    free.nbytes -= mapping.nbytes


cdef void unmap(Mapping* mapping) noexcept:
    fc_unmap(mapping.at, mapping.nbytes)
    free_bytes(mapping)


cdef void evict(FreeList* free, Py_ssize_t most) noexcept:
    """Unmap the mappings that have been free longest, until the free mappings have at most `most` bytes in total."""
    cdef Mapping* oldest
    while free.oldest is not NULL and free.nbytes > most:
        oldest = free.oldest
        remove(free, oldest)
        unmap(oldest)


cdef list sizes(const FreeList* free):
    cdef const Mapping* mapping = free.oldest
    found = []
    while mapping is not NULL:
        found.append(mapping.nbytes)
        mapping = mapping.newer
    return found


@cython.final
cdef class Pool:
    """A pool that keeps at most `keep` bytes of free memory. If the process has an address limit, the pool keeps none.

    If the free mappings exceed the limit, the pool unmaps the mapping that has been free longest. A mapping of at least
    `large` bytes is a large mapping: the system may take its pages while the mapping is free.
    """

    cdef FreeList _free
    cdef Py_ssize_t _keep
    cdef Py_ssize_t _large

    def __cinit__(self, Py_ssize_t keep, *, Py_ssize_t large = 1 << 24):
        self._keep, self._large = keep, large

    def __dealloc__(self):
        self.clear()

    def take(self, Py_ssize_t nbytes):
        """Return a `PooledBuffer` of `nbytes` bytes, or None if no memory is left or the pool is turned off."""
        cdef Mapping* mapping
        cdef PooledBuffer buffer
        cdef Py_ssize_t mapped
        if not FC_MAPS or self._keep == 0 or not 0 < nbytes <= MOST:
            return None
        mapped = (nbytes + SMALL_PAGE - 1) // SMALL_PAGE * SMALL_PAGE
        if mapped >= self._large:
            mapped = (mapped + PAGE - 1) // PAGE * PAGE
        buffer = PooledBuffer.__new__(PooledBuffer)
        mapping = self.find(nbytes, mapped >= self._large)
        if mapping is NULL:
            mapping = self.map(mapped)
            if mapping is NULL:
                return None
        buffer.pool, buffer.mapping, buffer.nbytes = self, mapping, nbytes
        return buffer

    def release(self):
        """Unmap all free mappings."""
        self.clear()

    @property
    def free(self):
        """The sizes of the free mappings in bytes. The mapping that has been free longest is first."""
        return sizes(&self._free)

    cdef void clear(self) noexcept:
        evict(&self._free, 0)

    cdef Mapping* find(self, Py_ssize_t nbytes, bint large) noexcept:
        """Return a free mapping of at least `nbytes` bytes and at most 1.25 * nbytes bytes plus a page. If there is
        none, return NULL.

        If several mappings have such a size, return the mapping that was freed last, because its memory may still be in
        a cache.
        """
        cdef Py_ssize_t slack = nbytes // 4 + (PAGE if large else SMALL_PAGE)
        cdef Mapping* mapping = self._free.newest
        while mapping is not NULL:
            if mapping.large == large and nbytes <= mapping.nbytes and mapping.nbytes - nbytes <= slack:
                remove(&self._free, mapping)
                return mapping
            mapping = mapping.older
        return NULL

    cdef Mapping* map(self, Py_ssize_t nbytes) noexcept:
        cdef Mapping* mapping = <Mapping*> malloc(sizeof(Mapping))
        if mapping is NULL:
            return NULL
        if fc_limited():
            self.clear()
        mapping.large = nbytes >= self._large
        mapping.at = fc_map(nbytes, mapping.large)
        if mapping.at is NULL:
            # Unmap all free mappings and try again, because free mappings count against limits of the process.
            self.clear()
            mapping.at = fc_map(nbytes, mapping.large)
        if mapping.at is NULL:
            free_bytes(mapping)
            return NULL
        mapping.nbytes = nbytes
        return mapping

    cdef void put(self, Mapping* mapping) noexcept:
        """Keep a mapping that is no longer used, or unmap it if it is too large to keep."""
        if fc_limited():
            self.clear()
            unmap(mapping)
        elif mapping.nbytes > self._keep or (mapping.large and not fc_offer(mapping.at, mapping.nbytes)):
            unmap(mapping)
        else:
            add(&self._free, mapping)
            evict(&self._free, self._keep)


@cython.final
@cython.no_gc
cdef class PooledBuffer:
    """The memory of one result. The memory returns to the pool when the last view is deleted, and not before."""

    cdef Pool pool
    cdef Mapping* mapping
    cdef readonly Py_ssize_t nbytes

    def __init__(self):
        raise TypeError("only Pool.take makes a PooledBuffer")

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if self.mapping is NULL:
            raise BufferError("this PooledBuffer has no memory")
        buffer.buf, buffer.len, buffer.obj = self.mapping.at, self.nbytes, self
        buffer.itemsize, buffer.ndim, buffer.readonly = 1, 1, 0
        buffer.format = buffer.shape = buffer.strides = buffer.suboffsets = buffer.internal = NULL
        if flags & PyBUF_FORMAT:
            buffer.format = b"B"
        if flags & PyBUF_ND:
            buffer.shape = &self.nbytes
        if flags & PyBUF_STRIDES == PyBUF_STRIDES:
            buffer.strides = &buffer.itemsize

    def __dealloc__(self):
        if self.mapping is not NULL:
            self.pool.put(self.mapping)


def limited():
    """Return whether the process has an address limit, RLIMIT_AS (ulimit -v) or RLIMIT_DATA (ulimit -d)."""
    return bool(fc_limited())


def trim():
    """Return the unused memory of the allocator to the system."""
    fc_trim()
