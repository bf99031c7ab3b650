"""What kernels execute, counted from their plans: the amounts of work that rates are measured for.

Operations on vectors are counted in the time of multiply-adds that keep both units of a core busy: two a cycle. A sum
in registers is not ready before `_LATENCY` of them have passed, and so a tile of few sums waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from fastconv import _threads
from fastconv.algorithms._blocks import Line, Problem, pieces
from fastconv.algorithms._cuts import GRID, PACKED, ROWS, TURNED, WHOLE, Parts

#: Multiply-adds that could have been started until the sum of one is ready: four cycles, two units.
_LATENCY = 8
#: Loads of vectors a cycle, against two multiply-adds: those of cells cross lines of the cache.
_LOADS = 1.4


def blocks(n: int, block: int) -> list[tuple[int, int]]:
    """The sizes of blocks that cut n, and how many there are of each."""
    whole, rest = divmod(n, block)
    return [(size, count) for size, count in ((block, whole), (rest, 1 if rest else 0)) if count]


def busiest(items: int, work: int, threads: int) -> float:
    """The part of all work that the thread with most items does, where little work is done by one alone.

    `work` is in bytes, as `_threads.words` takes it.
    """
    if items < 2 or _threads.is_little(work):
        return 1.0
    return pieces(items, min(threads, items)) / items


def panels(rows: int, tile_rows: int) -> list[tuple[int, int]]:
    """Rows of tiles, and how many tiles have as many."""
    return blocks(rows, tile_rows)


def tile_vectors(length: int, lanes: int, most: int) -> list[tuple[int, int]]:
    """Vectors of the tiles of so many positions, as `next_vectors` cuts them, and how many tiles have as many."""
    left, found = pieces(length, lanes), dict[int, int]()
    count = pieces(left, most)
    small, wider = divmod(left, count)
    for size, n in ((small, count - wider), (small + 1, wider)):
        if n:
            found[size] = found.get(size, 0) + n
    return list(found.items())


def multiplied(rows: list[tuple[int, int]], tiles: list[tuple[int, int]]) -> float:
    """Multiply-adds for each k of tiles of rows by vectors, where a row of a tile is half a load beside."""
    return sum(n * m * max(_LATENCY, r * v, (r + v) * 2 / _LOADS) for r, n in rows for v, m in tiles)


def _runs(n: int, most: int) -> list[tuple[int, int]]:
    """As fc_next cuts n: most at a time, and what is left in two halves."""
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
    vectors = pieces(n, lanes)
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
    return [widest] * pieces(vectors, widest)


def pair(rows: int, n: int, lanes: int) -> tuple[float, int]:
    """The same of two results in turns, for each pair of taps."""
    tiles = [(here, count * pieces(n, 2 * lanes)) for here, count in _runs(rows, 4)]
    return sum(count * 2 * max(_LATENCY, here * 2 / _LOADS) for here, count in tiles), sum(c for _, c in tiles)


def dots(rows: int, n: int, lanes: int, high: int, entries: int) -> tuple[float, int]:
    """Of `rows` rows of n gradients with all taps, `high` of them in each of the entries: multiply-adds, and tiles."""
    most = 2 if high == 5 else 3 if high == 3 else 9
    vectors, product, tiles = pieces(n, lanes), 0.0, 0
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
    return {"lines": rows, "cells": rows * pieces(width, lanes)}


def total(amounts: Mapping[str, float], part: float) -> dict[str, float]:
    """The amounts of the busiest thread."""
    return {kind: amount * part for kind, amount in amounts.items()}


#: Kinds of work of `implicit`.
IMPLICIT = (
    *("product", "tiles", "stored", "loose", "runs", "gathered", "planes", "lines", "cells", "apart"),
    *("packed", "blocks", "summed"),
)


def _fills(lines: tuple[Line, Line, Line], count: int, block: tuple[int, int, int], lanes: int) -> dict[str, float]:
    """Rows and vectors that a channel of a block is copied in, and cells that are copied one by one."""
    d, h, w = lines
    planes = count * (block[0] + d.reach) * math.prod(len(line.phases) for line in lines)
    rows = planes * (block[1] + h.reach)
    wide = block[2] + w.reach
    apart = rows * wide if w.stride > 2 and not w.spread else 0
    cells = rows * pieces(wide, lanes)
    return {"planes": float(planes), "lines": float(rows), "cells": float(cells), "apart": float(apart)}


def of_product(
    problem: Problem, parts: Parts, tile: tuple[int, int, int], block_rows: int, packings: int
) -> dict[str, float]:
    """Of all blocks of a product; its weights are packed `packings` times."""
    tile_rows, vectors, lanes = tile
    cut, block, k = parts.cut, parts.cut.block, problem.channels * math.prod(line.taps for line in parts.cut.lines)
    deep, high, wide = block
    stretches_of_k = pieces(problem.channels, parts.block_channels) * pieces(
        parts.block_channels * (k // problem.channels), parts.block_k
    )
    blocks, splits = cut.blocks(problem), pieces(problem.rows, block_rows)
    rows = [(r, n * splits) for r, n in panels(block_rows, tile_rows)]
    found = dict.fromkeys(IMPLICIT, 0.0)
    if cut.mode == TURNED:
        positions = cut.count * math.prod(block)
        of_rows = [(v, n * splits) for v, n in tile_vectors(block_rows, lanes, vectors)]
        of_positions = panels(positions, tile_rows)
        tiles = sum(n for _, n in of_rows) * sum(n for _, n in of_positions)
        found["product"] = k * multiplied(of_positions, of_rows)
        found["tiles"] = float(stretches_of_k * tiles)
        found["loose"] = float(stretches_of_k * positions * problem.rows)
        found["runs"] = float(stretches_of_k * cut.count * deep * high * sum(n for _, n in of_rows))
        found["gathered"] = float(k * positions * splits)
    else:
        stretches, length = {
            WHOLE: (1, wide),
            GRID: (cut.count * deep, (high - 1) * cut.row + wide),
            ROWS: (cut.count * deep * high, wide),
            PACKED: (1, cut.count * math.prod(block)),
        }[cut.mode]
        of_row = tile_vectors(length, lanes, vectors)
        count = stretches * sum(n for _, n in of_row)
        found["product"] = k * stretches * multiplied(rows, of_row)
        found["tiles"] = float(stretches_of_k * count * sum(n for _, n in rows))
        # Tiles that do not lie whole in one row of the result go through a buffer.
        line = cut.lines[2]
        joined = cut.row == wide == line.whole
        if line.jump > 1:
            part = 0.0
        elif joined or cut.mode in (WHOLE, ROWS) or deep == high == cut.count == 1:
            part = 1 - (stretches / count if length % lanes else 0)
        else:
            part = max(wide - vectors * lanes + 1, 0) / cut.row
        result = cut.count * math.prod(block) * problem.rows
        found["stored"] = part * stretches_of_k * result / lanes
        runs = cut.count * deep * (1 if joined else high)
        found["loose"] = (1 - part) * stretches_of_k * result
        found["runs"] = (1 - part) * stretches_of_k * (runs + count) * problem.rows
        if cut.mode == PACKED or cut.packing:
            each = count + runs if cut.mode == PACKED else count
            found["gathered"] = float(k * (each + pieces(cut.count * math.prod(block), lanes)) * splits)
    if cut.mode != WHOLE:
        fills = _fills(cut.lines, cut.count, block, lanes)
        found |= {kind: problem.channels * splits * amount for kind, amount in fills.items()}
    found["blocks"] = float(splits)
    found = total(found, blocks)
    found["packed"] = float(packings * problem.rows * k)
    return found


def of_weights(
    lines: tuple[Line, Line, Line],
    tile: tuple[int, int, int],
    blocks: int,
    count: int,
    block: tuple[int, int, int],
    filters: int,
    channels: int,
    taps: int,
    results: int,
) -> dict[str, float]:
    """Of all blocks of a gradient of the weights: [filters x positions] @ [positions x channels * taps]."""
    tile_rows, vectors, lanes = tile
    positions, columns = count * math.prod(block), channels * taps
    rows, tiles = panels(filters, tile_rows), tile_vectors(columns, lanes, vectors)
    number = sum(n for _, n in rows) * sum(n for _, n in tiles)
    found = dict.fromkeys(IMPLICIT, 0.0)
    found["product"] = positions * multiplied(rows, tiles)
    found["tiles"] = float(number)
    found["stored"] = float(filters * pieces(columns, lanes))
    found["loose"] = float(filters * (columns % (vectors * lanes)))
    found["gathered"] = float(positions * pieces(columns, lanes))
    found |= {kind: channels * amount for kind, amount in _fills(lines, count, block, lanes).items()}
    found["packed"] = float(positions * filters)
    whole = block[2] == lines[2].out
    of_dout = sum(n for _, n in rows) * (1 if whole else block[1])
    found["runs"] = float(count * block[0] * (of_dout + sum(n for _, n in tiles)))
    found["blocks"] = 1.0
    return total(found, blocks) | {"summed": float(results)}
