"""Counts the amounts of work of the kernels of `implicit`, from the sizes of their tiles and blocks."""

from __future__ import annotations

import math

from fastconv.convolution.blocking import ConvAxis, Problem, ceil_div
from fastconv.convolution.cost.counts import multiplied, panels, tile_vectors, total
from fastconv.convolution.cost.model import NEAR_BYTES
from fastconv.convolution.implicit_gemm.tiling import ImplicitTiling
from fastconv.convolution.implicit_gemm.tuning import CONTIGUOUS, PACKED, PADDED_GRID, ROW_WISE, SWAPPED

#: The number of bytes of a cache line.
_LINE = 64
#: The kinds of work of `implicit`. The cost model has a measured rate (time per unit of work) for each kind.
IMPLICIT = (
    *("product", "tiles", "stored", "edge", "runs", "gathered", "planes", "lines", "cells", "strided"),
    *("packed", "blocks", "summed", "fetched", "scattered"),
)


def _fills(
    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis], count: int, block: tuple[int, int, int], lanes: int
) -> dict[str, float]:
    """Return the amounts of work to copy one channel of the image into a padded block.

    `planes`, `lines` and `cells` are the numbers of planes, of rows and of vectors that are copied. `strided` is the
    number of cells that are copied one by one because of a stride.
    """
    d, h, w = conv_axes
    planes = count * (block[0] + d.halo) * math.prod(len(conv_axis.phases) for conv_axis in conv_axes)
    rows = planes * (block[1] + h.halo)
    wide = block[2] + w.halo
    strided = rows * wide if w.stride > 2 and not w.unrolled else 0
    cells = rows * ceil_div(wide, lanes)
    return {"planes": float(planes), "lines": float(rows), "cells": float(cells), "strided": float(strided)}


def of_product(
    problem: Problem, tiling: ImplicitTiling, tile: tuple[int, int, int], packings: int, itemsize: int
) -> dict[str, float]:
    """Return the amounts of work of all blocks of a product. Each weight is packed `packings` times."""
    mr, vectors, lanes = tile
    blocking, block, mc = tiling.blocking, tiling.blocking.block, tiling.mc
    k = problem.channels * math.prod(conv_axis.taps for conv_axis in blocking.conv_axes)
    deep, high, wide = block
    blocks_of_k = ceil_div(problem.channels, tiling.block_channels) * ceil_div(
        tiling.block_channels * (k // problem.channels), tiling.kc
    )
    blocks, splits = blocking.blocks(problem), ceil_div(problem.rows, mc)
    rows = [(r, n * splits) for r, n in panels(mc, mr)]
    found = dict.fromkeys(IMPLICIT, 0.0)
    if blocking.mode == SWAPPED:
        positions = blocking.count * math.prod(block)
        of_rows = [(v, n * splits) for v, n in tile_vectors(mc, lanes, vectors)]
        of_positions = panels(positions, mr)
        tiles = sum(n for _, n in of_rows) * sum(n for _, n in of_positions)
        found["product"] = k * multiplied(of_positions, of_rows)
        found["tiles"] = float(blocks_of_k * tiles)
        found["edge"] = float(blocks_of_k * positions * problem.rows)
        found["runs"] = float(blocks_of_k * blocking.count * deep * high * sum(n for _, n in of_rows))
        found["gathered"] = float(k * positions * splits)
    else:
        stretches, length = {
            CONTIGUOUS: (1, wide),
            PADDED_GRID: (blocking.count * deep, (high - 1) * blocking.row + wide),
            ROW_WISE: (blocking.count * deep * high, wide),
            PACKED: (1, blocking.count * math.prod(block)),
        }[blocking.mode]
        of_row = tile_vectors(length, lanes, vectors)
        count = stretches * sum(n for _, n in of_row)
        found["product"] = k * stretches * multiplied(rows, of_row)
        found["tiles"] = float(blocks_of_k * count * sum(n for _, n in rows))
        # A tile that spans several rows of the result is first stored to a buffer, and then copied to the result.
        conv_axis = blocking.conv_axes[2]
        joined = blocking.row == wide == conv_axis.output_size
        if conv_axis.output_stride > 1:
            part = 0.0
        elif joined or blocking.mode in (CONTIGUOUS, ROW_WISE) or deep == high == blocking.count == 1:
            part = 1 - (stretches / count if length % lanes else 0)
        else:
            part = max(wide - vectors * lanes + 1, 0) / blocking.row
        result = blocking.count * math.prod(block) * problem.rows
        found["stored"] = part * blocks_of_k * result / lanes
        runs = blocking.count * deep * (1 if joined else high)
        found["edge"] = (1 - part) * blocks_of_k * result
        found["runs"] = (1 - part) * blocks_of_k * (runs + count) * problem.rows
        if blocking.mode != PACKED:
            # Several tiles, with different rows of weights, read the same cells. The first of these tiles brings the
            # cells into the first-level cache, where the other tiles find them.
            found["fetched"] = k * stretches * length * itemsize * splits / _LINE
        if blocking.mode == PACKED or blocking.packing:
            each = count + runs if blocking.mode == PACKED else count
            found["gathered"] = float(k * (each + ceil_div(blocking.count * math.prod(block), lanes)) * splits)
    if blocking.mode != CONTIGUOUS:
        fills = _fills(blocking.conv_axes, blocking.count, block, lanes)
        found |= {kind: problem.channels * splits * amount for kind, amount in fills.items()}
    found["blocks"] = float(splits)
    found = total(found, blocks)
    found["packed"] = float(packings * problem.rows * k)
    if blocking.mode == CONTIGUOUS:
        # Each tile reads a few cells of every channel from the image itself. The CPU cannot prefetch from so many
        # channels.
        source = problem.groups * problem.channels * problem.images * _outputs(blocking.conv_axes) * itemsize
        found["scattered"] = splits * max(source - NEAR_BYTES, 0.0) / _LINE
    return found


def _outputs(conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]) -> int:
    """Return the number of outputs of one filter and one image."""
    return math.prod(conv_axis.out for conv_axis in conv_axes)


def of_weights(
    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis],
    tile: tuple[int, int, int],
    blocks: int,
    count: int,
    block: tuple[int, int, int],
    filters: int,
    channels: int,
    taps: int,
    results: int,
) -> dict[str, float]:
    """Return the amounts of work of all blocks of dw. Each block is a product [filters x positions] @ [positions x
    channels * taps].

    `results` is the number of elements of all partial sums of dw, which are added up at the end.
    """
    mr, vectors, lanes = tile
    positions, columns = count * math.prod(block), channels * taps
    rows, tiles = panels(filters, mr), tile_vectors(columns, lanes, vectors)
    number = sum(n for _, n in rows) * sum(n for _, n in tiles)
    found = dict.fromkeys(IMPLICIT, 0.0)
    found["product"] = positions * multiplied(rows, tiles)
    found["tiles"] = float(number)
    found["stored"] = float(filters * ceil_div(columns, lanes))
    found["edge"] = float(filters * (columns % (vectors * lanes)))
    found["gathered"] = float(positions * ceil_div(columns, lanes))
    found |= {kind: channels * amount for kind, amount in _fills(conv_axes, count, block, lanes).items()}
    found["packed"] = float(positions * filters)
    whole = block[2] == conv_axes[2].out
    of_dout = sum(n for _, n in rows) * (1 if whole else block[1])
    found["runs"] = float(count * block[0] * (of_dout + sum(n for _, n in tiles)))
    found["blocks"] = 1.0
    return total(found, blocks) | {"summed": float(results)}
