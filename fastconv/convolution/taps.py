"""The gradient of the image, computed one kernel tap at a time, without products of weights and padding.

Other plans for dx also multiply weights by the padding of dout. If the weights are finite, these products are zero. If
a weight is inf or NaN, its products with zero are NaN, and would make elements of dx NaN. By definition, dx has no
products of weights and padding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.convolution.base import per_channel
from fastconv.convolution.cost.model import memory
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.wrappers import Make, batched
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry, conv_geometry

#: The products of one tap take at most this number of bytes at a time, unless the products of one image take more.
_PRODUCT_BYTES = 1 << 23


def plan_by_taps(case: Case, make: Make) -> Plan:
    """Return a plan that computes dx tap by tap. `make` returns the plan that multiplies dout by the weights of one
    tap.
    """
    return batched(case, _images_at_once(case), lambda part: TapByTap(part, make))


def data_by_taps(case: Case, dout: np.ndarray, w: np.ndarray, b: np.ndarray | None, dx: np.ndarray, make: Make) -> None:
    """Compute dx tap by tap, without multiplying weights by padding."""
    plan_by_taps(case, make).run(dout, w, b, dx)


class TapByTap(Plan):
    """dx = b + the sum over taps of w[:, :, tap].T @ dout. Each product is added to the elements that its tap reads."""

    def __init__(self, case: Case, make: Make) -> None:
        super().__init__(case)
        self._make = make
        self.layer = self._layer(case.geometry.x_shape[0])
        self.copy_properties(self.layer)

    def _layer(self, images: int) -> Plan:
        """Return the plan of the layer that multiplies dout by the weights of one tap, for `images` images."""
        geometry = self.case.geometry
        return self._make(
            self.case.dense.with_geometry(
                conv_geometry(
                    (images, geometry.x_shape[1], geometry.positions),
                    (*geometry.w_shape[:2], 1),
                    groups=geometry.groups,
                )
            )
        )

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the weights of a tap, of their product with dout, and of the workspace of this product."""
        layer = self.layer.case.geometry
        products = math.prod(layer.x_shape) + math.prod(layer.w_shape)
        return products * self.case.dtype.itemsize + self.layer.workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of multiplying dout by the weights of each tap, and of adding the products to dx."""
        case, geometry = self.case, self.case.geometry
        taps, (count, channels) = sum(1 for _ in effective_taps(geometry)), geometry.x_shape[:2]
        work = dict[str, float](memory(geometry, case.dtype, case.threads))
        images = _images_at_once(case)
        whole, rest = divmod(count, images)
        for n, times in ((images, whole), (rest, 1)):
            if n and times:
                for kind, amount in self._layer(n).work.items():
                    work[kind] = work.get(kind, 0.0) + taps * times * amount
        # NumPy adds the products to dx, and copies the weights of each tap to a contiguous array. It uses one thread.
        summed = taps * (count * channels * geometry.positions + math.prod(geometry.w_shape[:2]))
        return {**work, "summed": work.get("summed", 0.0) + summed}

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute dx. An inf or NaN in the sums causes no warning."""
        geometry = self.case.geometry
        product = np.empty(self.layer.case.geometry.x_shape, result.dtype)
        outputs = product.reshape(*product.shape[:2], *geometry.out_shape[2:])
        dout = first.reshape(len(first), -1, geometry.positions)
        result[...] = 0 if third is None else per_channel(third, geometry)
        for tap, within, cells in effective_taps(geometry):
            at: Any = (..., *tap)
            read: Any = (..., *within)
            into: Any = (..., *cells)
            # [channels x filters] @ [filters x positions], one product per image and group
            self.layer.run(dout, np.ascontiguousarray(second[at])[..., np.newaxis], None, product)
            with np.errstate(invalid="ignore", over="ignore"):
                result[into] += outputs[read]


def _images_at_once(case: Case) -> int:
    """Return the largest number of images for which the product of a tap takes at most `_PRODUCT_BYTES` bytes."""
    geometry = case.geometry
    each = geometry.x_shape[1] * geometry.positions * case.dtype.itemsize
    return max(1, min(geometry.x_shape[0], _PRODUCT_BYTES // each))


_Slices = tuple[slice, ...]


def effective_taps(geometry: ConvGeometry) -> Iterator[tuple[tuple[int, ...], _Slices, _Slices]]:
    """Yield each tap at which some output reads the image, not only padding. Also yield the slices of these outputs,
    and the slices of the image elements that they read.
    """
    per_axis = [[(t, *_met(axis, t)) for t in range(axis.k)] for axis in geometry.axes]
    per_axis = [[met for met in axis if met[1].start < met[1].stop] for axis in per_axis]
    for met in itertools.product(*per_axis):
        taps, outputs, cells = zip(*met, strict=True)
        yield taps, outputs, cells


def _met(axis: Axis, tap: int) -> tuple[slice, slice]:
    """Return two slices along an axis: the outputs that read the image (not padding) at a tap, and the image elements
    that these outputs read.
    """
    first, last = axis.outputs_before(tap, 0), axis.outputs_before(tap, axis.size)
    cell = first * axis.stride + tap * axis.dilation - axis.lo
    return slice(first, last), slice(cell, cell + (last - first - 1) * axis.stride + 1, axis.stride)
