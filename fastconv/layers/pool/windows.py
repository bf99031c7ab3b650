"""Copies of the windows of a pooling, for poolings without a compiled kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.pool import plan as _plan
from fastconv.runtime import memory as _memory


def _strides(geometry: PoolGeometry) -> tuple[int, ...]:
    """Return the strides of the windows. The stride of an axis with only one output has no effect, and may be huge. It
    is replaced by 1.
    """
    return tuple(axis.stride if axis.out > 1 else 1 for axis in geometry.axes)


def pad_planes(x: np.ndarray, geometry: PoolGeometry) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a slice that selects some planes, and a copy of these planes. The copy is padded with zeros, so that every
    window lies inside.
    """
    sizes = tuple(
        max(axis.lo + axis.size, (axis.out - 1) * stride + axis.extent)
        for axis, stride in zip(geometry.axes, _strides(geometry), strict=True)
    )
    if not math.prod(geometry.out_shape):
        return
    taps = tuple(axis.k for axis in geometry.axes)
    padded_bytes = _memory.check_array("the padded plane", sizes, x.dtype, "Pad less")
    each = max(padded_bytes, _memory.check_bytes("the windows", (*geometry.out_shape[2:], *taps), x.dtype))
    step = max(1, _plan.TUNING.window_bytes // each)
    cells = x.reshape(-1, *x.shape[2:])
    inside = tuple(slice(axis.lo, axis.lo + axis.size) for axis in geometry.axes)
    for begin in range(0, len(cells), step):
        planes = slice(begin, min(begin + step, len(cells)))
        padded = np.zeros((planes.stop - begin, *sizes), x.dtype)
        padded[(slice(None), *inside)] = cells[planes]
        yield planes, padded


def copy_windows(padded: np.ndarray, geometry: PoolGeometry) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Yield an index that selects some outputs, and a copy of their windows as an array (windows, taps)."""
    taps = math.prod(axis.k for axis in geometry.axes)
    outs = tuple(axis.out for axis in geometry.axes)
    room = max(1, _plan.TUNING.window_bytes // (len(padded) * taps * padded.itemsize))
    steps = zip(padded.strides[1:], _strides(geometry), geometry.axes, strict=True)
    by_output, by_tap = zip(*((n * stride, n * axis.dilation) for n, stride, axis in steps), strict=True)
    view = np.lib.stride_tricks.as_strided(
        padded,
        (len(padded), *outs, *(axis.k for axis in geometry.axes)),
        (padded.strides[0], *by_output, *by_tap),
        writeable=False,
    )
    # Do not divide a row of outputs unless its windows have more than eight times `window_bytes` bytes. A loop over
    # taps is slow on parts of rows.
    room = max(room, min(8 * room, math.prod(outs[1:])))
    pieces: list[list[slice]] = []
    for out in reversed(outs):
        step = min(room, out)
        pieces.insert(0, [slice(begin, min(begin + step, out)) for begin in range(0, out, step)])
        room //= step
    for chosen in itertools.product(*pieces):
        outputs = (slice(None), *chosen)
        yield outputs, np.array(view[outputs]).reshape(-1, taps)


def cells_by_tap(geometry: PoolGeometry, outputs: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield an index for each tap, in order. It selects the cells of padded planes that `outputs` read at this tap."""
    ranges = [(chosen.start, chosen.stop) for chosen in outputs[1:]]
    for tap in itertools.product(*(range(axis.k) for axis in geometry.axes)):
        cells = (
            slice(begin * stride + t * axis.dilation, (end - 1) * stride + t * axis.dilation + 1, stride)
            for (begin, end), stride, t, axis in zip(ranges, _strides(geometry), tap, geometry.axes, strict=True)
        )
        yield (slice(None), *cells)


class GradientSums:
    """Accurate sums of gradients in each cell. A second array sums the rounding errors (Knuth's two-sum)."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self._sums, self._lost = np.zeros(shape, dtype), np.zeros(shape, dtype)

    def add(self, where: tuple[slice, ...], values: np.ndarray) -> None:
        """Add `values` to the cells that `where` selects. No cell may be selected twice."""
        held = self._sums[where]
        with np.errstate(invalid="ignore", over="ignore"):
            total = held + values
            part = total - held
            self._lost[where] += (held - (total - part)) + (values - part)
        self._sums[where] = total

    def result(self) -> np.ndarray:
        """Return the sums plus their rounding errors. The error of an infinite or NaN sum is NaN, and is not added."""
        return np.where(np.isfinite(self._sums), self._sums + self._lost, self._sums)
