# Grouping of the positions along an axis into segments: see toeplitz.h.

from fastconv._ext.toeplitz.matrix cimport Segment


cdef inline void merge_positions(
    Py_ssize_t n, Py_ssize_t k, const Py_ssize_t* at, const Py_ssize_t* by, const Py_ssize_t* tap,
    const Py_ssize_t* first, Segment* segment, Py_ssize_t* entry, Py_ssize_t* lists, Py_ssize_t* element_of_key,
    Py_ssize_t* made,
) noexcept nogil:
    cdef Py_ssize_t p, i, j, a, base, before = 0, entries = 0, n_lists = 0, n_elements = 0
    cdef Segment* s = segment - 1
    cdef bint alike
    for p in range(n):
        base, alike = at[by[0]], p > 0
        if alike:
            for i in range(k):
                alike = alike & (by[i] == by[i - k]) & (at[i] - base == at[i - k] - before)
        # In a segment, the entries of each position are the shifted entries of the previous position. The shift is the
        # same for all positions of the segment.
        if alike and (s.count == 1 or s.base_step == base - before):
            s.count += 1
            s.base_step = base - before
        else:
            s = s + 1
            s.start, s.step, s.count, s.base, s.base_step = first[0] + p, 1, 1, base, 0
            s.begin, s.key = first[1] + entries, ~(first[3] + n_elements)
            i = 0
            while i < k:
                a = at[by[i]]
                j = i + 1
                while j < k and at[by[j]] == a:
                    j += 1
                entry[0] = a - base
                if j == i + 1:
                    entry[1] = tap[by[i]]
                else:
                    # A list is stored as the number of its taps, followed by the taps.
                    entry[1] = ~(first[2] + n_lists)
                    lists[n_lists] = j - i
                    n_lists += 1
                    for a in range(i, j):
                        lists[n_lists] = tap[by[a]]
                        n_lists += 1
                i = j
                entry, entries = entry + 2, entries + 1
            s.end = first[1] + entries
            for i in range(k):
                element_of_key[n_elements + i] = at[i] - base
            n_elements += k
        at, by, before = at + k, by + k, base
    made[0], made[1], made[2], made[3] = s + 1 - segment, entries, n_lists, n_elements
