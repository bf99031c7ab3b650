"""The gradient of the image, computed one kernel tap at a time, without products of weights and padding.

Other plans also multiply weights by the zeros beyond the edges of dout. With finite weights, these products are zero.
But inf or NaN times zero is NaN, and would appear in cells of dx whose sum has no such product.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastconv.convolution.base import per_channel
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry, conv_geometry

#: The largest size, in bytes, of the products of one tap with a chunk of images. A chunk of one image may take more.
_PRODUCT_BYTES = 1 << 23


def data_by_taps(
    case: Case, dout: np.ndarray, w: np.ndarray, b: np.ndarray | None, dx: np.ndarray, make: Callable[[Case], Plan]
) -> None:
    """Compute dx: set it to the bias, and for each tap add w[:, :, tap].T @ dout to the cells that the tap reads.

    `make` returns a plan for the product of one tap, which is a pointwise convolution without padding.
    """
    geometry = case.geometry
    positions = geometry.positions
    layers = [make(case.dense.with_geometry(layer)) for layer in tap_layers(geometry, dx.itemsize)]
    product = np.empty(layers[0].case.geometry.x_shape, dx.dtype)
    dx[...] = 0 if b is None else per_channel(b, geometry)
    for tap, outputs, cells in effective_taps(geometry):
        at: Any = (..., *tap)
        within: Any = (..., *outputs)
        weights = np.ascontiguousarray(w[at])[..., np.newaxis]
        begin = 0
        for layer in layers:
            part = product[: layer.case.geometry.x_shape[0]]
            chunk: Any = slice(begin, begin + len(part))
            begin = chunk.stop
            # [C/G x F/G] @ [F/G x L], one product per image and group
            layer.run(dout[chunk].reshape(len(part), -1, positions), weights, None, part)
            part = part.reshape(*part.shape[:2], *geometry.out_shape[2:])
            with np.errstate(invalid="ignore", over="ignore"):
                dx[(chunk, slice(None), *cells)] += part[within]


def tap_layers(geometry: ConvGeometry, itemsize: int) -> list[ConvGeometry]:
    """Return the pointwise convolutions that compute the products of a tap, one for each chunk of images.

    The last chunk may be smaller.
    """
    count, channels = geometry.x_shape[:2]
    images = max(1, min(count, _PRODUCT_BYTES // (channels * geometry.positions * itemsize)))
    return [
        conv_geometry(
            (min(images, count - begin), channels, geometry.positions),
            (*geometry.w_shape[:2], 1),
            groups=geometry.groups,
        )
        for begin in range(0, count, images)
    ]


_Slices = tuple[slice, ...]


def effective_taps(geometry: ConvGeometry) -> Iterator[tuple[tuple[int, ...], _Slices, _Slices]]:
    """Yield each tap at which some output reads the image, the slices of these outputs, and of the cells they read."""
    per_axis = [[(t, *_met(axis, t)) for t in range(axis.k)] for axis in geometry.axes]
    per_axis = [[met for met in axis if met[1].start < met[1].stop] for axis in per_axis]
    for met in itertools.product(*per_axis):
        taps, outputs, cells = zip(*met, strict=True)
        yield taps, outputs, cells


def _met(axis: Axis, tap: int) -> tuple[slice, slice]:
    """Return two slices: of the outputs that read the image, not the padding, at a tap, and of the cells they read."""
    first, last = axis.outputs_before(tap, 0), axis.outputs_before(tap, axis.size)
    cell = first * axis.stride + tap * axis.dilation - axis.lo
    return slice(first, last), slice(cell, cell + (last - first - 1) * axis.stride + 1, axis.stride)
