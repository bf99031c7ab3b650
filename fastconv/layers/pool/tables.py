"""Tables for the pooling kernels that work row by row. Each geometry has a table for the forward and for the backward
pass.

A table is one array of integers: a header, then lists. The header has sizes, and the index at which each list begins.
``_ext/pool/pool.h`` explains the integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastconv.geometry.pool import PoolGeometry, taps_within
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans

#: A vector may read or write up to this many elements past the end of a workspace row (FC_SLACK in pool.h).
SLACK = 16
#: The approximate number of elements of a block. A block is a set of consecutive rows that fits into the L1 cache.
BLOCK_ELEMENTS = 3072
#: The maximum workspace of a thread, in elements. If windows need more, another kernel computes them.
_MOST_ELEMENTS = 1 << 16
#: The maximum number of taps of a window. Larger windows would have long tables, so another kernel computes them.
_MOST_TAPS = 1024
#: The maximum number of successive additions in the sum over a window. A kernel adds the taps of each row, and then the
#: sums of the rows. With this limit, the rounding error is about that of np.sum.
MOST_IN_TURN = 32

#: The approximate size of a band in bytes. A band is a range of rows of dx. A thread adds gradients to one band at a
#: time.
BAND_BYTES = 1 << 19
#: The number of elements of a page (FC_PAGE in pool.pyx). A page holds the rounding errors of `PAGE` cells of dx.
PAGE = 64
#: The maximum size of all pages of a thread together, in bytes. A page holds the rounding errors of `PAGE` cells of dx.
LOST_BYTES = 1 << 23

#: The names of the integers in the header, in the order in which _ext/pool/rows.pyx reads them. Before these integers,
#: the header has the sizes of the three axes.
HEADER = (
    *("block_rows", "space", "pitch", "rows", "n_phases", "phase_pitch", "phase_width", "left", "right"),
    *("range_d", "range_h", "phase", "tap_offset", "tap_distance", "first_inside", "count_d", "count_h", "count_w"),
    *("tap_end", "offset", "readers_end_d", "readers_end_h", "readers_d", "readers_h"),
    *("tables", "block", "batch"),
)

Rows = tuple[tuple[int, ...], ...]


def _lifted(geometry: PoolGeometry) -> Rows:
    return (*((1, 1, 1, 0, 1, 1),) * (3 - len(geometry.axes)), *(axis.row() for axis in geometry.axes))


def _round_up(n: int) -> int:
    return -(-n // SLACK) * SLACK


def _block_rows(outputs: int, row: int, stride: int, extent: int) -> int:
    """Return the number of rows of outputs in a block.

    A block has about `BLOCK_ELEMENTS` elements. If the stride is larger than a window, windows in neighbouring rows
    share no input, so a block has one row.
    """
    return max(1, min(outputs, (BLOCK_ELEMENTS // row - extent) // stride + 1)) if stride <= extent else 1


def _workspace(out: int, taps: int, block: int) -> dict[str, int]:
    """Return the sizes of the workspace of a thread. It consists of small tables and a batch of blocks. `batch` is the
    number of blocks. All other sizes are in elements.

    A thread first writes all blocks of a batch to its workspace, and then reads them. A batch has several blocks if
    blocks are small, because a thread that reads a block right after writing it would stall.
    """
    tables = _round_up(2 * (out + SLACK) + taps)
    batch = max(1, BLOCK_ELEMENTS // max(block, 1))
    return {"tables": tables, "block": block, "batch": batch, "space": SLACK + tables + batch * block}


def _table(axes: Rows, numbers: dict[str, int], lists: dict[str, Sequence[int] | np.ndarray]) -> np.ndarray:
    at = 18 + len(HEADER)
    parts = [np.ravel(np.asarray(part, np.intp)) for part in lists.values()]
    for name, part in zip(lists, parts, strict=True):
        numbers[name] = at
        at += len(part)
    head = [*np.transpose(axes).ravel(), *(numbers.get(name, 0) for name in HEADER)]
    table = np.concatenate([np.asarray(head, np.intp), *parts])
    table.flags.writeable = False
    return table


def _counts(geometry: PoolGeometry, include_pad: bool) -> dict[str, np.ndarray]:
    counts = [np.ones(1, np.intp)] * (3 - len(geometry.axes)) + geometry.axis_counts(include_pad)
    return dict(zip(("count_d", "count_h", "count_w"), counts, strict=True))


def forward(geometry: PoolGeometry, include_pad: bool) -> np.ndarray | None:
    """Return the table for the kernel `forward_rows`, or None if the windows are too large for this kernel."""
    axes = _lifted(geometry)
    d, h, (size, k, stride, lo, dilation, out) = axes
    if k * h[1] * d[1] > _MOST_TAPS:
        return None
    steps = np.arange(k) * dilation
    phases, place = np.unique(steps % stride, return_inverse=True)
    width = out + int((steps // stride).max())
    phase_pitch = _round_up(width + SLACK)
    pitch = len(phases) * phase_pitch
    extent = (h[1] - 1) * h[4] + 1
    block_rows = _block_rows(h[5], pitch * d[1], h[2], extent)
    rows = (block_rows - 1) * h[2] + extent
    sizes = _workspace(out, k * h[1], d[1] * rows * pitch)
    if sizes["space"] > _MOST_ELEMENTS:
        return None
    first = -((phases - lo) // stride)
    last = np.clip((size - 1 - phases + lo) // stride + 1, 0, width)
    ranges = [np.stack(taps_within((0, size), *rest), axis=1) for size, *rest in axes]
    return _table(
        axes,
        {
            "block_rows": block_rows,
            **sizes,
            "pitch": pitch,
            "rows": rows,
            "n_phases": len(phases),
            "phase_pitch": phase_pitch,
            "phase_width": width,
        },
        {
            "range_d": ranges[0],
            "range_h": ranges[1],
            "phase": np.stack([phases - lo, np.minimum(np.maximum(first, 0), last), last], axis=1),
            "tap_offset": np.add.outer(np.arange(h[1]) * h[4] * pitch, place.ravel() * phase_pitch + steps // stride),
            "tap_distance": np.add.outer(np.arange(h[1]) * h[4] * size, steps),
            "first_inside": ranges[2][:, 0] * dilation,
            **_counts(geometry, include_pad),
        },
    )


def _readers(size: int, k: int, stride: int, lo: int, dilation: int, out: int) -> tuple[list[int], list[int]]:
    """Return, for each cell along an axis, the outputs whose windows contain the cell.

    The result is two lists. The second list has the outputs of cell 0, then those of cell 1, and so on. The first list
    has, for each cell, the index at which its outputs end in the second list.
    """
    outputs: list[int] = []
    ends = []
    for cell in range(size):
        for tap in reversed(range(k)):
            o, rest = divmod(cell + lo - tap * dilation, stride)
            if not rest and 0 <= o < out:
                outputs.append(o)
        ends.append(len(outputs))
    return ends, outputs


def backward(geometry: PoolGeometry, include_pad: bool) -> np.ndarray | None:
    """Return the table for the kernel `backward_rows`. Return None if the windows are too large for this kernel, or the
    stride along W is above 2.
    """
    axes = _lifted(geometry)
    d, h, (size, k, stride, lo, dilation, out) = axes
    if k * h[1] * d[1] > _MOST_TAPS or stride > 2 or (h[0] + d[0]) * (h[1] + d[1]) > _MOST_ELEMENTS:
        return None
    # Along the width, output i + shift reads cell r + stride * i, for each shift in shifts[r]. Each tap that can read
    # such a cell gives one shift.
    shifts = [
        [(r + lo - tap * dilation) // stride for tap in reversed(range(k)) if not (r + lo - tap * dilation) % stride]
        for r in range(stride)
    ]
    left = max(0, *(-shift for shifts_of in shifts for shift in shifts_of))
    needed = [(size - 1 - r) // stride + 1 + left + max(of, default=0) for r, of in enumerate(shifts)]
    right = max(0, max(needed) - left - out)
    farthest = left + max((shift for of in shifts for shift in of), default=0)
    pitch = _round_up(max(left + out + right, _round_up(-(-size // stride)) + farthest) + SLACK)
    (ends_d, readers_d), (ends_h, readers_h) = _readers(*d), _readers(*h)
    deep = int(np.diff(ends_d, prepend=0).max())
    extent = (h[1] - 1) * h[4] + 1
    # A block has `block_rows` rows of dx. Along the height, at most `rows` outputs have windows that read these rows.
    block_rows = max(1, min(h[0], BLOCK_ELEMENTS // max(size, pitch // h[2])))
    rows = (block_rows + extent - 2) // h[2] + 1
    sizes = _workspace(out, 0, deep * rows * pitch)
    if sizes["space"] > _MOST_ELEMENTS:
        return None
    return _table(
        axes,
        {"block_rows": block_rows, **sizes, "pitch": pitch, "rows": rows, "left": left, "right": right},
        {
            "tap_end": np.cumsum([len(of) for of in shifts]),
            "offset": [shift + left for of in shifts for shift in of],
            "readers_end_d": ends_d,
            "readers_end_h": ends_h,
            "readers_d": readers_d,
            "readers_h": readers_h,
            **_counts(geometry, include_pad),
        },
    )


class RowsTable(NamedTuple):
    """The table that a row kernel reads, and the numbers that a call of the kernel needs.

    `space` is the workspace of a thread, in elements. `items` is the number of work items: the blocks of all planes.
    `width` is the number of elements of a row that the kernel computes in vectors.
    """

    table: np.ndarray
    space: int
    items: int
    width: int


#: Times in nanoseconds: `_TAP` for one tap of a vector of outputs, `_ROW` to start a row, `_READ` to read a vector, and
#: `_CELL` to read a single cell.
_TAP = {"max": 0.72, "sum": 0.36, "backward": 0.55}
_ROW, _READ, _CELL = 6.0, 0.5, 0.75


def time(geometry: PoolGeometry, direction: str, sums: bool, itemsize: int) -> float:
    """Return the estimated time of a row kernel, in nanoseconds, on one thread of an AVX-512 machine.

    If a sum would have more than `MOST_IN_TURN` successive additions, the time is inf, so another kernel is chosen.
    """
    d, h, w = _lifted(geometry)
    taps = d[1] * h[1] * w[1]
    if sums and w[1] + d[1] * h[1] > MOST_IN_TURN:
        return math.inf
    lanes = _isa.lanes(itemsize)
    cells, outputs = geometry.cells // w[0], math.prod(geometry.out_shape[2:]) // w[5]
    if direction == "backward":
        spread = taps / (d[2] * h[2] * w[2])
        return geometry.planes * cells * (_ROW + -(-w[0] // lanes) * (spread * _TAP["backward"] + _READ))
    vectors = -(-w[5] // lanes)
    read = -(-w[0] // lanes) * _READ * w[2] if w[2] <= 2 else min(w[0], w[5] * w[1]) * _CELL
    # `again` is the estimated number of times that an input row is read. It is above 1 if windows of different blocks
    # share rows.
    again = max(1.0, h[5] * min(h[1], h[0]) / h[0]) if h[2] > 1 else 1.0
    tap = _TAP["sum" if sums else "max"] * taps
    return geometry.planes * (outputs * (_ROW + vectors * tap) + cells * again * read)


def bands(geometry: PoolGeometry, itemsize: int, threads: int) -> tuple[np.ndarray, int]:
    """Divide a plane into bands along its first axis.

    Return a table with a row for each band, and the number of cells of the longest band. A row of the table has four
    indices: the first cell of the band, its last cell plus 1, the first output whose window may overlap the band, and
    the last such output plus 1. A band is at least half as long as a window. Shorter bands would be inefficient,
    because a thread would read many outputs for few cells.
    """
    return plans.find(_bands, geometry, itemsize, threads, BAND_BYTES)


def _bands(geometry: PoolGeometry, itemsize: int, threads: int, band_bytes: int) -> tuple[np.ndarray, int]:
    axis = geometry.axes[0]
    size, k, stride, lo, dilation, out = axis.row()
    extent = (k - 1) * dilation + 1
    cells, outputs = geometry.cells // size, math.prod(geometry.out_shape[3:])
    wanted = max(-(-geometry.cells * itemsize // band_bytes), -(-2 * threads // max(geometry.planes, 1)))
    pieces = max(1, min(wanted, 2 * size // extent, size))
    ends = np.arange(pieces + 1) * size // pieces
    begin, end = ends[:-1], ends[1:]
    first = np.clip(-((extent - 1 - begin - lo) // stride), 0, out)
    last = np.clip((end - 1 + lo) // stride + 1, first, out)
    table = np.ascontiguousarray(np.stack([begin * cells, end * cells, first * outputs, last * outputs], 1), np.intp)
    return table, int((end - begin).max()) * cells


def pages(longest: int, itemsize: int) -> tuple[int, int]:
    """Return the number of blocks of `PAGE` cells in the longest band, and the number of pages of a thread. A page
    holds the rounding errors of one block.
    """
    blocks = -(-longest // PAGE)
    return blocks, max(1, min(blocks, LOST_BYTES // (PAGE * itemsize)))


class Sizes2x2(NamedTuple):
    """The sizes for the kernel for 2 x 2 windows with stride 2.

    `height` and `width` are the sizes of x. `rows` is the number of rows of outputs in a block, and `items` is the
    number of blocks of all planes.
    """

    height: int
    width: int
    rows: int
    items: int


def plan(geometry: PoolGeometry, direction: str, include_pad: bool = True) -> RowsTable | None:
    """Return the `RowsTable` for one direction, or None if the row kernels do not support the windows."""
    return plans.find(_plan, geometry, direction, include_pad, BLOCK_ELEMENTS)


def _plan(geometry: PoolGeometry, direction: str, include_pad: bool, _block_elements: int) -> RowsTable | None:
    table = (forward if direction == "forward" else backward)(geometry, include_pad)
    shape = geometry.out_shape if direction == "forward" else geometry.x_shape
    if table is None:
        return None
    block_rows, space = table[18:20].tolist()
    width = shape[-1] if direction == "forward" else -(-shape[-1] // geometry.axes[-1].stride)
    return RowsTable(table, space, _blocks(shape, block_rows), width)


def _blocks(shape: tuple[int, ...], rows: int) -> int:
    *_, depth, height, _ = (1, 1, *shape[2:])
    return math.prod(shape[:2]) * depth * -(-height // rows)


def sizes_2x2(geometry: PoolGeometry) -> Sizes2x2 | None:
    """Return the sizes for 2 x 2 windows with stride 2 and without padding, or None for any other windows."""
    return plans.find(_sizes_2x2, geometry, BLOCK_ELEMENTS) if geometry.is_2x2_stride_2 else None


def _sizes_2x2(geometry: PoolGeometry, block_elements: int) -> Sizes2x2:
    high, wide = geometry.out_shape[2:]
    rows = max(1, min(high, block_elements // wide))
    height, width = geometry.x_shape[2:]
    return Sizes2x2(height, width, rows, math.prod(geometry.out_shape[:2]) * -(-high // rows))
