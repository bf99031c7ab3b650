"""The gradient of the image tap by tap, without any product by padding.

A kernel that runs over a padded grid of dout also multiplies weights by the
zeros beyond the edges of dout. With finite weights these products are zero. But
inf or NaN times zero is NaN, and would appear in cells whose sum has no such
product.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv._axis import Axis
from fastconv.algorithms.base import per_channel
from fastconv.geometry import ConvGeometry, conv_geometry

#: Bytes of images whose products with one tap are held at a time.
_PRODUCT_BYTES = 1 << 23


def data_by_taps(
    dout: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    geometry: ConvGeometry,
    dx: np.ndarray,
    threads: int,
    backward_data: Callable[..., Any],
) -> None:
    """dx = b + the sum over taps of w[:, :, tap].T @ dout, each added to the cells that its outputs read.

    `backward_data`, an algorithm's method, multiplies. It is called for layers of one tap, which have no padding.
    """
    (count, channels), positions = geometry.x_shape[:2], geometry.positions
    images = max(1, min(count, _PRODUCT_BYTES // (channels * positions * dx.itemsize)))
    product = np.empty((images, channels, positions), dx.dtype)
    dx[...] = 0 if b is None else per_channel(b, geometry)
    for tap in itertools.product(*(range(axis.k) for axis in geometry.axes)):
        met = [_met(axis, t) for axis, t in zip(geometry.axes, tap, strict=True)]
        if any(outputs.stop <= outputs.start for outputs, _ in met):
            continue
        outputs, cells = (tuple(slices) for slices in zip(*met, strict=True))
        at: Any = (..., *tap)
        weights = np.ascontiguousarray(w[at])[..., np.newaxis]
        for begin in range(0, count, images):
            chunk: Any = slice(begin, min(begin + images, count))
            part = product[: chunk.stop - chunk.start]
            layer = conv_geometry(part.shape, weights.shape, groups=geometry.groups)
            # [C/G x F/G] @ [F/G x L], one product per image and group
            backward_data(dout[chunk].reshape(len(part), -1, positions), weights, layer, part, threads)
            part = part.reshape(*part.shape[:2], *geometry.out_shape[2:])
            with np.errstate(invalid="ignore", over="ignore"):
                dx[(chunk, slice(None), *cells)] += part[(..., *outputs)]


def _met(axis: Axis, tap: int) -> tuple[slice, slice]:
    """The outputs that read a cell of the image at a tap, and those cells."""
    first, last = axis.outputs_before(tap, 0), axis.outputs_before(tap, axis.size)
    cell = first * axis.stride + tap * axis.dilation - axis.lo
    return slice(first, last), slice(cell, cell + (last - first - 1) * axis.stride + 1, axis.stride)
