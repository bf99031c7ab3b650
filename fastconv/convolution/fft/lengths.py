"""The lengths of the transforms of `fft`, the radices of their passes, and the twiddle factors between passes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from fastconv.runtime import memory as _memory

#: Approximate costs, in cycles, of one row of a transform. A row is a vector of real parts and a vector of imaginary
#: parts. `_PASS` is the cost of a pass, by its radix. `MOVE` is the cost to load, transpose and store the row.
_PASS = {2: 2.5, 3: 3.6, 4: 2.7, 5: 4.8, 8: 4.0}
MOVE = 6.0
#: With the widest vectors, a row has 128 bytes, and `_SHORT` rows fit the first-level cache. If a transform has more
#: rows, its passes take `_LONG` times as long.
_SHORT, _LONG = 192, 1.12
#: `fast_length` tries lengths up to about this factor times the shortest sufficient length.
_LONGER = 1.2
#: The largest length that may have the prime factors 3 and 5. Larger lengths are powers of two.
_LONGEST = 1 << 20
#: Tables of twiddle factors up to this number of bytes are cached for several plans. Larger tables are cached for the
#: last plan only.
_MANY_BYTES = 1 << 18


def radices(length: int) -> tuple[int, ...]:
    """Return the radices of the passes of a transform, in order. `length` may have the prime factors 2, 3 and 5."""
    found = []
    for odd in (5, 3):
        while length % odd == 0:
            found.append(odd)
            length //= odd
    twos = length.bit_length() - 1
    assert length == 1 << twos
    eights = max(twos // 3 - (twos % 3 == 1 and twos > 1), 0)
    rest = twos - 3 * eights
    return (*found, *((4,) * (rest // 2)), *((2,) * (rest % 2)), *((8,) * eights))


def row_cost(length: int) -> float:
    """Return the cost, in cycles, of one row in all passes of a transform."""
    return sum(_PASS[radix] for radix in radices(length)) * (_LONG if length > _SHORT else 1.0)


# The table is cached because it has more than a thousand numbers, and every plan of a signal needs it.
@functools.lru_cache(maxsize=1)
def _fast_lengths() -> tuple[int, ...]:
    most = _LONGEST
    found = [1]
    for prime in (2, 3, 5):
        more = []
        for n in found:
            while n <= most:
                more.append(n)
                n *= prime
        found = more
    return tuple(sorted(found))


def is_fast(length: int) -> bool:
    """Return whether `length` has only the prime factors 2, 3 and 5, as the length of a transform must have."""
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    return length == 1


def fast_length(least: int, lanes: int) -> int:
    """Return the length of the cheapest transform of at least `least` elements.

    Multiples of `lanes` (the number of lanes of a vector) are cheaper, because they fill all vectors.
    """
    lengths = _fast_lengths()
    if least > lengths[-1]:
        return 1 << (least - 1).bit_length()
    low, high = 0, len(lengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if lengths[middle] < least else (low, middle)
    best, cost = lengths[low], math.inf
    for length in lengths[low:]:
        if length > least * _LONGER + 2:
            break
        filled = -(-length // lanes) * lanes
        each = (length + filled) * (row_cost(length) + 2 * MOVE)
        if each < cost:
            best, cost = length, each
    return best


# The results are cached because planning a signal takes 0.4 ms with this cache and 2 ms without. A result depends on no
# setting, so this cache is not cleared with the plan cache.
@functools.lru_cache(maxsize=4096)
def split(length: int, lanes: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of the plane into which a one-dimensional tile of `length` elements is
    folded.

    Both axes of the plane are transformed. The number of columns is a multiple of `lanes`.
    """
    best, cost = (1, length), math.inf
    for columns in _fast_lengths():
        rows = length // columns
        if rows * columns == length and columns % lanes == 0 and is_fast(rows):
            each = row_cost(rows) + row_cost(columns) + max(rows, columns) / min(rows, columns) * 0.1
            each *= -(-rows // lanes) * lanes / rows
            if each < cost:
                best, cost = (rows, columns), each
    return best


def signal_lengths(least: int, most: int, lanes: int) -> Iterator[int]:
    """Yield the lengths to try for tiles of a signal, in ascending order.

    No length is below `least`. The last length is the only one that may exceed `most`.
    """
    step = max(lanes, 1)
    while True:
        for times in (8, 10, 12):
            length = step * times // 8 if step * times % 8 == 0 else 0
            if length >= least and length % lanes == 0:
                yield length
                if length >= most:
                    return
        step *= 2


def factor_count(length: int) -> int:
    """Return the number of elements of the twiddle factors of all passes of a transform."""
    count, n = 0, length
    for radix in radices(length):
        count += 2 * (radix - 1) * (n // radix)
        n //= radix
    return count


def _roots(powers: np.ndarray, length: int) -> np.ndarray:
    """Return exp(-2 pi i * power / length) in float64. Angles are reduced to an eighth of a turn for accuracy."""
    powers = powers % length
    eighth, rest = np.divmod(8 * powers, length)
    odd = eighth % 2 == 1
    angle = np.where(odd, length - rest, rest) * (np.pi / 4 / length)
    c, s = np.cos(angle), np.sin(angle)
    c, s = np.where(odd, s, c), np.where(odd, c, s)
    # The angle of c + 1j * s is less than a quarter of a turn. Each further quarter turn is a multiplication by i.
    turns = np.array([1, 1j, -1, -1j])[eighth // 2]
    return np.conj((c + 1j * s) * turns)


def factors(tables: tuple[tuple[int, ...], ...], itemsize: int) -> tuple[np.ndarray, ...]:
    """Return one array of twiddle factors for each item of `tables`.

    The item ``(length,)`` stands for the factors between the passes of a transform. An item with three numbers has the
    arguments of `_between`: it stands for the factors between the two axes of a folded signal.
    """
    return (_few_factors if factors_count(tables) * itemsize <= _MANY_BYTES else _many_factors)(tables, itemsize)


def factors_count(tables: tuple[tuple[int, ...], ...]) -> int:
    """Return the number of elements of all arrays that `factors` returns."""
    return sum(map(_count, tables))


def _count(table: tuple[int, ...]) -> int:
    return factor_count(table[0]) if len(table) == 1 else 2 * -(-table[0] // table[2]) * table[1] * table[2]


def _factors(table: tuple[int, ...], itemsize: int) -> np.ndarray:
    found, at = np.empty(_count(table), f"f{itemsize}"), 0
    for part in _between(*table) if len(table) > 1 else _of_passes(table[0]):
        found[at : at + part.size] = part
        at += part.size
    return found


# The factors have a cache of their own, because `release` frees the factors but keeps the plan cache. Plans do not
# store factors, because several plans use the same factors, and hundreds of plans are cached.
@functools.lru_cache(maxsize=64)
def _few_factors(tables: tuple[tuple[int, ...], ...], itemsize: int) -> tuple[np.ndarray, ...]:
    return tuple(_factors(table, itemsize) for table in tables)


@functools.lru_cache(maxsize=1)
def _many_factors(tables: tuple[tuple[int, ...], ...], itemsize: int) -> tuple[np.ndarray, ...]:
    return tuple(_factors(table, itemsize) for table in tables)


_memory.at_release(_few_factors.cache_clear)
_memory.at_release(_many_factors.cache_clear)


def _of_passes(length: int) -> Iterator[np.ndarray]:
    n = length
    for radix in radices(length):
        powers = np.arange(n // radix)[:, None] * np.arange(1, radix)
        yield _roots(powers, n).reshape(-1).view(np.float64)
        n //= radix


def _order(length: int) -> np.ndarray:
    """Return the frequency of each row after a transform, because a transform changes the order of the rows."""
    order, step = np.zeros(1, np.intp), 1
    for radix in radices(length):
        order = (order[:, None] + step * np.arange(radix)).reshape(-1)
        step *= radix
    return order


def _between(rows: int, columns: int, lanes: int) -> Iterator[np.ndarray]:
    """Yield the twiddle factors between the transforms along the two axes of a folded signal.

    Each array has the factors of `lanes` rows of the folded signal. For each column, it has the real parts of the
    factors of these rows, followed by the imaginary parts.
    """
    order = np.zeros(-(-rows // lanes) * lanes, np.intp)
    order[:rows] = _order(rows)
    for strip in order.reshape(-1, lanes):
        roots = _roots(strip * np.arange(columns)[:, None], rows * columns)
        yield np.stack([roots.real, roots.imag], axis=1).reshape(-1)
