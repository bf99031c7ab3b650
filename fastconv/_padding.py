"""Padding that is not zeros, as slices: the image extended past its borders, and the adjoint of that.

Kernels know zero padding only. Whatever else is asked for becomes a larger
image with its padding in it, whose gradient is folded back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastconv._axis import Axis
from fastconv.geometry import ConvGeometry


def _borders(axis: Axis, pad_mode: str) -> Iterator[tuple[slice, slice, bool]]:
    """(border, source, all from one cell) of the two sides, in cells of the padded axis."""
    lo, end = axis.lo, axis.lo + axis.size
    if pad_mode == "reflect":
        sides = (slice(2 * lo, lo, -1), slice(end - 2, end - 2 - axis.hi if end - 2 >= axis.hi else None, -1))
    elif pad_mode == "circular":
        sides = (slice(axis.size, end), slice(lo, lo + axis.hi))
    else:
        sides = (slice(lo, lo + 1), slice(end - 1, end))
    for border, source in zip((slice(0, lo), slice(end, axis.padded)), sides, strict=True):
        if border.stop > border.start:
            yield border, source, pad_mode == "replicate"


def _along(array: np.ndarray, i: int, cells: slice) -> np.ndarray:
    return array[(slice(None),) * (2 + i) + (cells,)]


def extend(x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """x (N, C, *spatial) with the padding of `geometry` around it, (N, C, *padded)."""
    padded = np.empty((*x.shape[:2], *(axis.padded for axis in geometry.axes)), x.dtype)
    # Axis after axis, so that corners are taken from borders that are filled already.
    filled = [slice(axis.lo, axis.lo + axis.size) for axis in geometry.axes]
    padded[(slice(None), slice(None), *filled)] = x
    for i, axis in enumerate(geometry.axes):
        part = padded[(slice(None), slice(None), *(slice(None) if j <= i else filled[j] for j in range(len(filled))))]
        for border, source, _ in _borders(axis, geometry.pad_mode):
            _along(part, i, border)[...] = _along(part, i, source)
    return padded


def fold(dpadded: np.ndarray, geometry: ConvGeometry, dx: np.ndarray) -> None:
    """The adjoint of `extend` into dx: every border cell added to the cell it was taken from. Uses up dpadded."""
    filled = [slice(axis.lo, axis.lo + axis.size) for axis in geometry.axes]
    for i, axis in reversed(tuple(enumerate(geometry.axes))):
        part = dpadded[(slice(None), slice(None), *(slice(None) if j <= i else filled[j] for j in range(len(filled))))]
        for border, source, single in _borders(axis, geometry.pad_mode):
            gradient = _along(part, i, border)
            with np.errstate(all="ignore"):  # inf - inf is NaN by definition
                _along(part, i, source)[...] += gradient.sum(axis=2 + i, keepdims=True) if single else gradient
    dx[...] = dpadded[(slice(None), slice(None), *filled)]
