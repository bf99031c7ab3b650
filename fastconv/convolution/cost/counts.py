"""Counts the work of compiled kernels. The cost model multiplies each kind of work by a measured rate.

A tile is the part of a result that a compiled kernel sums in registers. Times are given in multiply-adds of vectors. A
core starts two multiply-adds per cycle. But a multiply-add to the same sum has to wait for the one before it, for the
time of `_LATENCY` multiply-adds. So a tile with fewer than `_LATENCY` vectors of sums leaves the core partly idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastconv.convolution.blocking import ceil_div
from fastconv.runtime import threads as _threads

#: The latency of a multiply-add is four cycles. In this time, a core can start eight multiply-adds.
_LATENCY = 8
#: This number replaces `_LATENCY` for short tiles, because the CPU starts the next tile before a short tile ends.
_OVERLAPPED = 3
#: The number of vectors that a core loads per cycle. It is below two, because many loads cross cache lines.
_LOADS = 1.4


def blocks(n: int, block: int) -> list[tuple[int, int]]:
    """Return the sizes of the blocks into which n elements are divided, and the number of blocks of each size."""
    whole, rest = divmod(n, block)
    return [(size, count) for size, count in ((block, whole), (rest, 1 if rest else 0)) if count]


def largest_share(items: int, work: int, threads: int) -> float:
    """Return the part of all work that the thread with the most work items does, for example 2 / 3 for 3 items in 2
    threads.

    `work` is the amount of work, as the number of bytes that a plain copy moves in the same time. If it is small, one
    thread does all the work, and the part is 1.
    """
    if items < 2 or _threads.is_little(work):
        return 1.0
    return ceil_div(items, min(threads, items)) / items


def panels(rows: int, tile_rows: int) -> list[tuple[int, int]]:
    """Return the heights of the tiles into which `rows` rows are divided, and the number of tiles of each height."""
    return blocks(rows, tile_rows)


def tile_vectors(length: int, lanes: int, most: int) -> list[tuple[int, int]]:
    """Return the widths of the tiles into which `length` positions are divided, and the number of tiles of each width.

    A width is a number of vectors, and at most `most`. The compiled function `next_vectors` divides rows in the same
    way.
    """
    left, found = ceil_div(length, lanes), dict[int, int]()
    count = ceil_div(left, most)
    small, wider = divmod(left, count)
    for size, n in ((small, count - wider), (small + 1, wider)):
        if n:
            found[size] = found.get(size, 0) + n
    return list(found.items())


def multiplied(rows: list[tuple[int, int]], tiles: list[tuple[int, int]]) -> float:
    """Return the time that all tiles of a matrix product take for one step along k, in multiply-adds.

    `rows` has pairs of a height and the number of tiles of this height. `tiles` has pairs of a width and the number of
    tiles of this width. The time of a tile is its latency, the time of its multiply-adds or the time of its loads,
    whichever is longest.
    """
    return sum(n * m * max(_LATENCY, r * v, (r + v) * 2 / _LOADS) for r, n in rows for v, m in tiles)


def _runs(n: int, most: int) -> list[tuple[int, int]]:
    """Return pairs of a tile height and the number of tiles of this height, if n rows are divided into tiles. The
    compiled function `fc_rows_at_once` divides rows in the same way.

    Tiles have `most` rows, except for the last two tiles, whose heights are about equal.
    """
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
    """Yield the width in vectors of each tile of a row, as the compiled function `fc_sweep` chooses it."""
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
    """Return the number of multiply-adds and the number of tiles for `rows` rows of n results and a kernel column of
    `high` taps.
    """
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
    """Count the work of `rows` rows of n results. In each row, the results of two stride phases alternate.

    Return the number of multiply-adds for two taps (one for each stride phase), and the number of tiles.
    """
    tiles = [(here, count * ceil_div(n, 2 * lanes)) for here, count in _runs(rows, 4)]
    return sum(count * 2 * max(_OVERLAPPED, here * 2 / _LOADS) for here, count in tiles), sum(c for _, c in tiles)


def dots(rows: int, n: int, lanes: int, high: int, entries: int) -> tuple[float, int]:
    """Return the number of multiply-adds and the number of tiles to compute a part of dw. The part has `entries`
    columns of `high` taps, and is summed over `rows` rows of n outputs.
    """
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
    """Return the work of copying `rows` rows of `width` elements into a padded block."""
    return {"lines": rows, "cells": rows * ceil_div(width, lanes)}


def total(amounts: Mapping[str, float], part: float) -> dict[str, float]:
    """Return the amounts of work of a thread that does the fraction `part` of all `amounts`."""
    return {kind: amount * part for kind, amount in amounts.items()}
