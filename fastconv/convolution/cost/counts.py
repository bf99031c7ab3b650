"""What kernels execute, counted from their plans: the amounts of work that rates are measured for.

Operations on vectors are counted in the time of multiply-adds that keep both units of a core busy: two a cycle. A sum
in registers is not ready before `_LATENCY` of them have passed, and so a tile of few sums waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastconv.convolution.blocking import ceil_div
from fastconv.runtime import threads as _threads

#: Multiply-adds that could have been started until the sum of one is ready: four cycles, two units.
_LATENCY = 8
#: The same where tiles are so short that the CPU starts the next one meanwhile.
_OVERLAPPED = 3
#: Loads of vectors a cycle, against two multiply-adds: those of cells cross lines of the cache.
_LOADS = 1.4


def blocks(n: int, block: int) -> list[tuple[int, int]]:
    """The sizes of blocks that cut n, and how many there are of each."""
    whole, rest = divmod(n, block)
    return [(size, count) for size, count in ((block, whole), (rest, 1 if rest else 0)) if count]


def largest_share(items: int, work: int, threads: int) -> float:
    """The part of all work that the thread with most items does, where little work is done by one alone.

    `work` is in bytes, as `_threads.work_queue` takes it.
    """
    if items < 2 or _threads.is_little(work):
        return 1.0
    return ceil_div(items, min(threads, items)) / items


def panels(rows: int, tile_rows: int) -> list[tuple[int, int]]:
    """Rows of tiles, and how many tiles have as many."""
    return blocks(rows, tile_rows)


def tile_vectors(length: int, lanes: int, most: int) -> list[tuple[int, int]]:
    """Vectors of the tiles of so many positions, as `next_vectors` cuts them, and how many tiles have as many."""
    left, found = ceil_div(length, lanes), dict[int, int]()
    count = ceil_div(left, most)
    small, wider = divmod(left, count)
    for size, n in ((small, count - wider), (small + 1, wider)):
        if n:
            found[size] = found.get(size, 0) + n
    return list(found.items())


def multiplied(rows: list[tuple[int, int]], tiles: list[tuple[int, int]]) -> float:
    """Multiply-adds for each k of tiles of rows by vectors, where a row of a tile is half a load beside."""
    return sum(n * m * max(_LATENCY, r * v, (r + v) * 2 / _LOADS) for r, n in rows for v, m in tiles)


def _runs(n: int, most: int) -> list[tuple[int, int]]:
    """As fc_rows_at_once cuts n: most at a time, and what is left in two halves."""
    if n <= most:
        return [(n, 1)]
    whole = (n - 2 * most) // most + 1 if n >= 2 * most else 0
    rest = n - whole * most
    found = [(most, whole)] if whole else []
    if rest > most:
        found += [((rest + 1) // 2, 1), (rest // 2, 1)]
    elif rest:
        found.append((rest, 1))
    return found


def _widths(vectors: int, rows: int) -> Iterator[int]:
    """Vectors of the tiles of a row, as fc_sweep takes them."""
    while vectors > 0:
        width = (
            8
            if vectors >= 8 and rows == 1
            else 4
            if vectors >= 4 and rows <= 2
            else 2
            if vectors >= 2 and rows <= 4
            else 1
        )
        yield width
        vectors -= width


def sweep(rows: int, n: int, lanes: int, high: int) -> tuple[float, int]:
    """Of `rows` rows of n results for each entry of `high` taps: multiply-adds, and tiles."""
    vectors = ceil_div(n, lanes)
    most = 8 if vectors == 1 else 4 if vectors < 4 or rows > 2 else rows
    product, tiles = 0.0, 0
    for here, count in _runs(rows, most):
        for width in _widths_of(vectors, here):
            product += count * max(_LATENCY * high, here * high * width, (here + high - 1) * width * 2 / _LOADS)
            tiles += count
    return product, tiles


def _widths_of(vectors: int, rows: int) -> list[int]:
    if vectors <= 64:
        return list(_widths(vectors, rows))
    widest = 8 if rows == 1 else 4 if rows == 2 else 2
    return [widest] * ceil_div(vectors, widest)


def pair(rows: int, n: int, lanes: int) -> tuple[float, int]:
    """The same of two results in turns, for each pair of taps."""
    tiles = [(here, count * ceil_div(n, 2 * lanes)) for here, count in _runs(rows, 4)]
    return sum(count * 2 * max(_OVERLAPPED, here * 2 / _LOADS) for here, count in tiles), sum(c for _, c in tiles)


def dots(rows: int, n: int, lanes: int, high: int, entries: int) -> tuple[float, int]:
    """Of `rows` rows of n gradients with all taps, `high` of them in each of the entries: multiply-adds, and tiles."""
    most = 2 if high == 5 else 3 if high == 3 else 9
    vectors, product, tiles = ceil_div(n, lanes), 0.0, 0
    heights = [(4, rows // 4), (2, rows % 4 // 2), (1, rows % 2)] if high > 1 else [(1, rows)]
    for count, groups in _runs(entries, most):
        for tall, times in heights:
            chain = _LATENCY * min(tall, high)
            loads = (tall + count * (tall + high - 1)) * 2 / _LOADS
            product += groups * times * vectors * max(chain, tall * high * count, loads)
        tiles += groups
    return product, tiles


def copied(rows: float, width: int, lanes: int) -> dict[str, float]:
    """Rows of cells into a block."""
    return {"lines": rows, "cells": rows * ceil_div(width, lanes)}


def total(amounts: Mapping[str, float], part: float) -> dict[str, float]:
    """The amounts of the busiest thread."""
    return {kind: amount * part for kind, amount in amounts.items()}
