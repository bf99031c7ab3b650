"""What the row kernels of pooling read of a geometry: one table for each direction, made once.

A table is one array of numbers: the `HEADER`, which says where each list begins, and the lists. ``_ext/pool.h``
explains them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastconv.geometry.pool import PoolGeometry, taps_within
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans

#: Elements past a row of the workspace that the longest vector may touch: FC_SLACK in pool.h.
SLACK = 16
#: A plane's block in the workspace, in elements: so few that most blocks stay in the first-level cache.
BLOCK_ELEMENTS = 3072
#: Other kernels take windows that need a larger workspace a thread, in elements.
_MOST_ELEMENTS = 1 << 16
#: Other kernels also take windows with more taps, because their tables would be long.
_MOST_TAPS = 1024
#: These kernels add up the taps of a row in turn, then the rows in turn: no more numbers than np.sum, whose pairwise
#: sum adds up to 16 in turn, then eight of these, then blocks of 128.
MOST_IN_TURN = 32

#: Gradients of maxima are added up in so many bytes of a plane at a time.
BAND_BYTES = 1 << 19
#: A thread keeps what the roundings of these sums lose in pages of so many cells: FC_PAGE in pool.pyx.
PAGE = 64
#: And has so many bytes of pages.
LOST_BYTES = 1 << 23

#: By place, as _ext/pool_rows.pyx reads them; the sizes of the three axes come first.
HEADER = (
    *("block_rows", "space", "pitch", "rows", "n_phases", "phase_pitch", "width", "left", "right"),
    *("range_d", "range_h", "phase", "at", "delta", "first", "count_d", "count_h", "count_w"),
    *("tap_end", "offset", "seen_end_d", "seen_end_h", "seen_d", "seen_h"),
    *("lanes", "block", "batch"),
)

Rows = tuple[tuple[int, ...], ...]


def _lifted(geometry: PoolGeometry) -> Rows:
    return (*((1, 1, 1, 0, 1, 1),) * (3 - len(geometry.axes)), *(axis.row() for axis in geometry.axes))


def _round_up(n: int) -> int:
    return -(-n // SLACK) * SLACK


def _block_rows(outputs: int, row: int, stride: int, extent: int) -> int:
    """Rows of a block: as many as fill `BLOCK_ELEMENTS` of the workspace; one where windows do not overlap."""
    return max(1, min(outputs, (BLOCK_ELEMENTS // row - extent) // stride + 1)) if stride <= extent else 1


def _workspace(out: int, taps: int, block: int) -> dict[str, int]:
    """A thread's workspace: what all windows share, and blocks, several where they are small.

    Small blocks come several at a time, because a read right after the write of the same block would wait for it.
    """
    lanes = _round_up(2 * (out + SLACK) + taps)
    batch = max(1, BLOCK_ELEMENTS // max(block, 1))
    return {"lanes": lanes, "block": block, "batch": batch, "space": SLACK + lanes + batch * block}


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
    """The table for `forward_rows`, or None where the windows are too long for it."""
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
            "width": width,
        },
        {
            "range_d": ranges[0],
            "range_h": ranges[1],
            "phase": np.stack([phases - lo, np.minimum(np.maximum(first, 0), last), last], axis=1),
            "at": np.add.outer(np.arange(h[1]) * h[4] * pitch, place.ravel() * phase_pitch + steps // stride),
            "delta": np.add.outer(np.arange(h[1]) * h[4] * size, steps),
            "first": ranges[2][:, 0] * dilation,
            **_counts(geometry, include_pad),
        },
    )


def _seen(size: int, k: int, stride: int, lo: int, dilation: int, out: int) -> tuple[list[int], list[int]]:
    """For every cell the outputs that see it, ascending; and where the list of each ends."""
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
    """The table for `backward_rows`, or None for windows that are too long for it, or strides above 2."""
    axes = _lifted(geometry)
    d, h, (size, k, stride, lo, dilation, out) = axes
    if k * h[1] * d[1] > _MOST_TAPS or stride > 2 or (h[0] + d[0]) * (h[1] + d[1]) > _MOST_ELEMENTS:
        return None
    # Along the width, cell r + stride * i is seen at some taps, by output i + shift.
    shifts = [
        [(r + lo - tap * dilation) // stride for tap in reversed(range(k)) if not (r + lo - tap * dilation) % stride]
        for r in range(stride)
    ]
    left = max(0, *(-shift for shifts_of in shifts for shift in shifts_of))
    needed = [(size - 1 - r) // stride + 1 + left + max(of, default=0) for r, of in enumerate(shifts)]
    right = max(0, max(needed) - left - out)
    farthest = left + max((shift for of in shifts for shift in of), default=0)
    pitch = _round_up(max(left + out + right, _round_up(-(-size // stride)) + farthest) + SLACK)
    (ends_d, seen_d), (ends_h, seen_h) = _seen(*d), _seen(*h)
    deep = int(np.diff(ends_d, prepend=0).max())
    extent = (h[1] - 1) * h[4] + 1
    # Rows of the input to a block, and rows of outputs that see some of them.
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
            "seen_end_d": ends_d,
            "seen_end_h": ends_h,
            "seen_d": seen_d,
            "seen_h": seen_h,
            **_counts(geometry, include_pad),
        },
    )


class Plan(NamedTuple):
    """A table, elements of workspace a thread, blocks in all, and cells along the width that are one vector's."""

    table: np.ndarray
    space: int
    items: int
    width: int


#: Nanoseconds of a tap, of a row of outputs or of cells, and of reading a vector or a cell one by one.
_TAP = {"max": 0.72, "sum": 0.36, "backward": 0.55}
_ROW, _READ, _CELL = 6.0, 0.5, 0.75


def time(geometry: PoolGeometry, direction: str, sums: bool, itemsize: int) -> float:
    """Nanoseconds that these kernels take in one thread of an AVX-512 machine; inf where a sum would drift."""
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
    # Each block reads its rows once; blocks of a single row of high windows read the same rows again and again.
    again = max(1.0, h[5] * min(h[1], h[0]) / h[0]) if h[2] > 1 else 1.0
    tap = _TAP["sum" if sums else "max"] * taps
    return geometry.planes * (outputs * (_ROW + vectors * tap) + cells * again * read)


def bands(geometry: PoolGeometry, itemsize: int, threads: int) -> tuple[np.ndarray, int]:
    """Planes cut along their first axis: of each band its cells and the outputs that may see them; the longest's cells.

    A band has at least half as many rows as a window, because all outputs that see a band are read for it.
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
    """Blocks of `PAGE` cells that a band has at most, and pages of a thread for those that gradients go to."""
    blocks = -(-longest // PAGE)
    return blocks, max(1, min(blocks, LOST_BYTES // (PAGE * itemsize)))


class Sizes2x2(NamedTuple):
    """Of 2 x 2 windows at a stride of 2: the image's sizes, rows of outputs to a block, and blocks in all."""

    height: int
    width: int
    rows: int
    items: int


def plan(geometry: PoolGeometry, direction: str, include_pad: bool = True) -> Plan | None:
    """What a call in one direction needs; None where another kernel takes the windows."""
    return plans.find(_plan, geometry, direction, include_pad, BLOCK_ELEMENTS)


def _plan(geometry: PoolGeometry, direction: str, include_pad: bool, _block_elements: int) -> Plan | None:
    table = (forward if direction == "forward" else backward)(geometry, include_pad)
    shape = geometry.out_shape if direction == "forward" else geometry.x_shape
    if table is None:
        return None
    block_rows, space = table[18:20].tolist()
    width = shape[-1] if direction == "forward" else -(-shape[-1] // geometry.axes[-1].stride)
    return Plan(table, space, _blocks(shape, block_rows), width)


def _blocks(shape: tuple[int, ...], rows: int) -> int:
    *_, depth, height, _ = (1, 1, *shape[2:])
    return math.prod(shape[:2]) * depth * -(-height // rows)


def sizes_2x2(geometry: PoolGeometry) -> Sizes2x2 | None:
    """What a call needs for windows of 2 x 2 within the image; None for others."""
    return plans.find(_sizes_2x2, geometry, BLOCK_ELEMENTS) if geometry.is_2x2_stride_2 else None


def _sizes_2x2(geometry: PoolGeometry, block_elements: int) -> Sizes2x2:
    high, wide = geometry.out_shape[2:]
    rows = max(1, min(high, block_elements // wide))
    height, width = geometry.x_shape[2:]
    return Sizes2x2(height, width, rows, math.prod(geometry.out_shape[:2]) * -(-high // rows))
