"""Lengths of the transforms of `fft`, the radices of their passes, and the factors between passes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from fastconv.runtime import memory as _memory

#: What a pass of each radix takes for each row, in cycles or so, and what loading, storing and turning a row takes.
_PASS = {2: 2.5, 3: 3.6, 4: 2.7, 5: 4.8, 8: 4.0}
MOVE = 6.0
#: Rows of a strip, of 128 bytes for the widest vectors, that the first-level cache holds; and how much slower more are.
_SHORT, _LONG = 192, 1.12
#: Lengths up to so many times the least are looked at.
_LONGER = 1.2
#: Longer ones are powers of two.
_LONGEST = 1 << 20
#: Tables of more bytes are kept for the last plan alone.
_MANY_BYTES = 1 << 18


@functools.lru_cache(maxsize=1024)
def radices(length: int) -> tuple[int, ...]:
    """Of the passes of a transform, the first one's first, for a length of prime factors 2, 3 and 5."""
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


@functools.lru_cache(maxsize=1024)
def row_cost(length: int) -> float:
    """Of all passes of a transform, for each row."""
    return sum(_PASS[radix] for radix in radices(length)) * (_LONG if length > _SHORT else 1.0)


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
    """Whether there is a transform of exactly this length."""
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    return length == 1


@functools.lru_cache(maxsize=4096)
def fast_length(least: int, lanes: int) -> int:
    """The cheapest length of at least so many; lengths that fill vectors are cheaper."""
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


@functools.lru_cache(maxsize=4096)
def split(length: int, lanes: int) -> tuple[int, int]:
    """Rows and columns of a signal's tile: columns fill vectors, and both are transformed."""
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
    """Lengths of a signal's tiles from the least to the first that is enough for all of it."""
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
    """Elements of the factors of all passes of a transform."""
    count, n = 0, length
    for radix in radices(length):
        count += 2 * (radix - 1) * (n // radix)
        n //= radix
    return count


def _roots(powers: np.ndarray, length: int) -> np.ndarray:
    """exp(-2 pi i * power / length) in double, from angles of at most an eighth of a turn, so that none is off."""
    powers = powers % length
    eighth, rest = np.divmod(8 * powers, length)
    odd = eighth % 2 == 1
    angle = np.where(odd, length - rest, rest) * (np.pi / 4 / length)
    c, s = np.cos(angle), np.sin(angle)
    c, s = np.where(odd, s, c), np.where(odd, c, s)
    # The first quarter of a turn; each quarter more is a factor of i.
    turns = np.array([1, 1j, -1, -1j])[eighth // 2]
    return np.conj((c + 1j * s) * turns)


def factors(tables: tuple[tuple[int, ...], ...], itemsize: int) -> np.ndarray:
    """All factors of a plan, one table after another: a length for its passes, or what `_between` takes."""
    return (_few_factors if factors_count(tables) * itemsize <= _MANY_BYTES else _many_factors)(tables, itemsize)


def factors_count(tables: tuple[tuple[int, ...], ...]) -> int:
    """Elements of `factors`."""
    return sum(
        factor_count(table[0]) if len(table) == 1 else 2 * -(-table[0] // table[2]) * table[1] * table[2]
        for table in tables
    )


@functools.lru_cache(maxsize=64)
def _few_factors(tables: tuple[tuple[int, ...], ...], itemsize: int) -> np.ndarray:
    found = np.empty(factors_count(tables), f"f{itemsize}")
    at = 0
    for table in tables:
        for part in _between(*table) if len(table) > 1 else _of_passes(table[0]):
            found[at : at + part.size] = part
            at += part.size
    return found


@functools.lru_cache(maxsize=1)
def _many_factors(tables: tuple[tuple[int, ...], ...], itemsize: int) -> np.ndarray:
    return _few_factors.__wrapped__(tables, itemsize)


_memory.at_release(_few_factors.cache_clear)
_memory.at_release(_many_factors.cache_clear)


def _of_passes(length: int) -> Iterator[np.ndarray]:
    n = length
    for radix in radices(length):
        powers = np.arange(n // radix)[:, None] * np.arange(1, radix)
        yield _roots(powers, n).reshape(-1).view(np.float64)
        n //= radix


def _order(length: int) -> np.ndarray:
    """Which frequency each row of a transformed strip has."""
    order, step = np.zeros(1, np.intp), 1
    for radix in radices(length):
        order = (order[:, None] + step * np.arange(radix)).reshape(-1)
        step *= radix
    return order


def _between(rows: int, columns: int, lanes: int) -> Iterator[np.ndarray]:
    """Factors between the two transforms of a signal's tile, as its plane lies: strips of columns, lanes, re and im."""
    order = np.zeros(-(-rows // lanes) * lanes, np.intp)
    order[:rows] = _order(rows)
    for strip in order.reshape(-1, lanes):
        roots = _roots(strip * np.arange(columns)[:, None], rows * columns)
        yield np.stack([roots.real, roots.imag], axis=1).reshape(-1)
