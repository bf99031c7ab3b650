"""The layout of the pooling kernels that work row by row: the block sizes, and the lists that the compiled plans read.

``_ext/pool/pool.h`` explains the sizes and the lists. A block is a set of consecutive rows.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from fastconv._ext.pool import rows as _ext
from fastconv.geometry.axis import Axis
from fastconv.geometry.pool import taps_within
from fastconv.layers.pool.plan import PoolCase, Tuning, kernel_axes
from fastconv.runtime import isa as _isa
from fastconv.runtime.records import dataclass

#: The lengths of workspace rows are multiples of this number of elements. A vector may read or write up to this many
#: elements past the end of a row.
SLACK = _ext.SLACK
#: The maximum number of successive additions in the sum over a window. A kernel adds the taps of each row, and then the
#: sums of the rows. With this limit, the rounding error is about that of np.sum.
MOST_IN_TURN = 32

Axes: TypeAlias = tuple[Axis, Axis, Axis]
#: Keyword arguments of a compiled plan: sizes, and lists of integers.
Layout: TypeAlias = tuple[dict[str, int], dict[str, Any]]


def _round_up(n: int) -> int:
    return -(-n // SLACK) * SLACK


def _block_rows(outputs: int, row: int, stride: int, extent: int, block_elements: int) -> int:
    """Return the number of rows of outputs in a block of about `block_elements` elements.

    If the stride is larger than a window, windows in neighbouring rows share no input, so a block has one row.
    """
    return max(1, min(outputs, (block_elements // row - extent) // stride + 1)) if stride <= extent else 1


def _forward(axes: Axes, tuning: Tuning) -> Layout | None:
    """Return the layout of `ForwardRows`, or None if the rows of a block are too long."""
    d, h, w = axes
    steps = np.arange(w.k) * w.dilation
    phases, place = np.unique(steps % w.stride, return_inverse=True)
    width = w.out + int((steps // w.stride).max())
    phase_pitch = _round_up(width + SLACK)
    pitch = len(phases) * phase_pitch
    block_rows = _block_rows(h.out, pitch * d.k, h.stride, h.extent, tuning.block_elements)
    rows = (block_rows - 1) * h.stride + h.extent
    if rows * pitch > tuning.most_rows_workspace:
        return None
    first = -((phases - w.lo) // w.stride)
    last = np.clip((w.size - 1 - phases + w.lo) // w.stride + 1, 0, width)
    (begin_d, end_d), (begin_h, end_h), (begin_w, _) = (
        taps_within((0, axis.size), axis.k, axis.stride, axis.lo, axis.dilation, axis.out) for axis in axes
    )
    sizes = {
        "block_rows": block_rows,
        "pitch": pitch,
        "rows": rows,
        "phase_pitch": phase_pitch,
        "phase_width": width,
    }
    return sizes, {
        "tap_begin_d": begin_d,
        "tap_end_d": end_d,
        "tap_begin_h": begin_h,
        "tap_end_h": end_h,
        "phase_column": phases - w.lo,
        "phase_begin": np.minimum(np.maximum(first, 0), last),
        "phase_end": last,
        "tap_offset": np.add.outer(
            np.arange(h.k) * h.dilation * pitch, place.ravel() * phase_pitch + steps // w.stride
        ),
        "tap_distance": np.add.outer(np.arange(h.k) * h.dilation * w.size, steps),
        "first_inside": begin_w * w.dilation,
    }


def _readers(axis: Axis) -> tuple[list[int], list[int]]:
    """Return, for each cell along an axis, the outputs whose windows contain the cell.

    The result is two lists. The second list has the outputs of cell 0, then those of cell 1, and so on. The first list
    has, for each cell, the index at which its outputs end in the second list.
    """
    outputs: list[int] = []
    ends = []
    for cell in range(axis.size):
        for tap in reversed(range(axis.k)):
            o, rest = divmod(cell + axis.lo - tap * axis.dilation, axis.stride)
            if not rest and 0 <= o < axis.out:
                outputs.append(o)
        ends.append(len(outputs))
    return ends, outputs


def _backward(axes: Axes, tuning: Tuning) -> Layout | None:
    """Return the layout of `BackwardRows`. Return None if the rows of a block are too long, or the stride along W is
    above 2.
    """
    d, h, w = axes
    if w.stride > 2 or (h.size + d.size) * (h.k + d.k) > tuning.most_rows_workspace:
        return None
    # Along the width, output i + shift reads cell r + stride * i, for each shift in shifts[r]. Each tap that can read
    # such a cell gives one shift.
    starts = [[r + w.lo - tap * w.dilation for tap in reversed(range(w.k))] for r in range(w.stride)]
    shifts = [[start // w.stride for start in of if not start % w.stride] for of in starts]
    left = max(0, *(-shift for of in shifts for shift in of))
    needed = [(w.size - 1 - r) // w.stride + 1 + left + max(of, default=0) for r, of in enumerate(shifts)]
    right = max(0, max(needed) - left - w.out)
    farthest = left + max((shift for of in shifts for shift in of), default=0)
    pitch = _round_up(max(left + w.out + right, _round_up(-(-w.size // w.stride)) + farthest) + SLACK)
    # A block has `block_rows` rows of dx. Along the height, at most `rows` outputs have windows that read these rows.
    block_rows = max(1, min(h.size, tuning.block_elements // max(w.size, pitch // h.stride)))
    rows = (block_rows + h.extent - 2) // h.stride + 1
    if rows * pitch > tuning.most_rows_workspace:
        return None
    (ends_d, readers_d), (ends_h, readers_h) = _readers(d), _readers(h)
    return {"block_rows": block_rows, "pitch": pitch, "rows": rows, "left": left, "right": right}, {
        "offset_end": np.cumsum([len(of) for of in shifts]),
        "offset": [shift + left for of in shifts for shift in of],
        "readers_end_d": ends_d,
        "readers_d": readers_d,
        "readers_end_h": ends_h,
        "readers_h": readers_h,
    }


@dataclass(frozen=True)
class Rows:
    """The compiled plan of a pooling by rows, and the number of bytes of its lists."""

    kernel: _ext.ForwardRows | _ext.BackwardRows
    nbytes: int


def make_rows(case: PoolCase) -> Rows | None:
    """Return the compiled plan of a case, or None if the windows have too many taps or need too large a workspace, or
    if a gradient has a stride above 2.
    """
    geometry, tuning = case.geometry, case.tuning
    axes = kernel_axes(geometry)
    if math.prod(axis.k for axis in axes) > tuning.most_taps:
        return None
    layout = (_backward if case.is_gradient else _forward)(axes, tuning)
    if layout is None:
        return None
    sizes, lists = layout
    unit = [np.ones(1, np.intp)] * (3 - len(geometry.axes))
    counts = zip(("count_d", "count_h", "count_w"), unit + geometry.axis_counts(case.include_pad), strict=True)
    arrays = {name: np.ascontiguousarray(values, np.intp) for name, values in (*lists.items(), *counts)}
    # A row has this many elements that the kernel computes in vectors.
    width = -(-axes[2].size // geometry.axes[-1].stride) if case.is_gradient else axes[2].out
    make: Any = _ext.BackwardRows if case.is_gradient else _ext.ForwardRows
    kernel = make(
        dtype=case.dtype_index,
        isa=_isa.narrow(width * case.dtype.itemsize),
        op=case.op,
        planes=geometry.planes,
        axes=axes,
        batch_elements=tuning.block_elements,
        **sizes,
        **arrays,
    )
    if kernel.workspace > tuning.most_rows_workspace:
        return None
    return Rows(kernel, sum(array.nbytes for array in arrays.values()))


def make_2x2(case: PoolCase) -> _ext.Forward2x2 | _ext.Backward2x2:
    """Return the compiled plan of a case with 2 x 2 windows, stride 2 and no padding."""
    *_, out_height, out_width = case.geometry.out_shape
    *_, height, width = case.geometry.x_shape
    return (_ext.Backward2x2 if case.is_gradient else _ext.Forward2x2)(
        dtype=case.dtype_index,
        isa=_isa.narrow(width // 2 * case.dtype.itemsize),
        op=case.op,
        planes=case.geometry.planes,
        H=height,
        W=width,
        block_rows=max(1, min(out_height, case.tuning.block_elements // out_width)),
    )


#: Times in nanoseconds: `_TAP` for one tap of a vector of outputs, `_ROW` to start a row, `_READ` to read a vector, and
#: `_CELL` to read a single cell.
_TAP = {"max": 0.72, "sum": 0.36, "backward": 0.55}
_ROW, _READ, _CELL = 6.0, 0.5, 0.75


def time(case: PoolCase) -> float:
    """Return the estimated time of a row kernel, in nanoseconds, on one thread of an AVX-512 machine.

    If a sum would have more than `MOST_IN_TURN` successive additions, the time is inf, so another kernel is chosen.
    """
    geometry, sums = case.geometry, not case.finds_maxima
    d, h, w = kernel_axes(geometry)
    taps = d.k * h.k * w.k
    if sums and w.k + d.k * h.k > MOST_IN_TURN:
        return math.inf
    lanes = _isa.lanes(case.dtype.itemsize)
    cells, outputs = geometry.cells // w.size, math.prod(geometry.out_shape[2:]) // w.out
    if case.is_gradient:
        spread = taps / (d.stride * h.stride * w.stride)
        return geometry.planes * cells * (_ROW + -(-w.size // lanes) * (spread * _TAP["backward"] + _READ))
    vectors = -(-w.out // lanes)
    read = -(-w.size // lanes) * _READ * w.stride if w.stride <= 2 else min(w.size, w.out * w.k) * _CELL
    # `again` is the estimated number of times that an input row is read. It is above 1 if windows of different blocks
    # share rows.
    again = max(1.0, h.out * min(h.k, h.size) / h.size) if h.stride > 1 else 1.0
    tap = _TAP["sum" if sums else "max"] * taps
    return geometry.planes * (outputs * (_ROW + vectors * tap) + cells * again * read)
