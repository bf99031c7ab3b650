"""The work of `implicit`, counted from the plans that its kernels execute."""

from __future__ import annotations

import math

from fastconv.convolution.blocking import Line, Problem, pieces
from fastconv.convolution.cost.counts import multiplied, panels, tile_vectors, total
from fastconv.convolution.implicit_gemm.tiling import GRID, PACKED, ROWS, TURNED, WHOLE, Parts

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
