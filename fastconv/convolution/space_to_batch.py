"""Space-to-batch: a dilated convolution as undilated convolutions of every d-th row and column.

With dilation d, an output reads image elements whose indices differ by multiples of d. So an image is split into d
parts along each axis: part i has the elements i, i + d, i + 2 * d and so on. Each part is convolved as an image of its
own, without dilation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

_ALL: Any = slice(None)
#: A few images are split at a time. These images and their outputs take at most this number of bytes, unless one image
#: takes more.
_BATCH_BYTES = 1 << 23
#: The largest number of parts into which an image is split. There is a limit, because each part is copied separately.
_MOST_PARTS = 1 << 14


def _steps(geometry: ConvGeometry) -> tuple[int, ...]:
    return tuple(axis.dilation if axis.k > 1 else 1 for axis in geometry.axes)


def reason(geometry: ConvGeometry) -> str | None:
    """Return why the images of a convolution cannot be split into parts, or None if they can."""
    dilation = tuple(axis.dilation for axis in geometry.axes)
    for axis, step in zip(geometry.axes, _steps(geometry), strict=True):
        if step > axis.size:
            return f"the dilation {dilation} is larger than the image along some axis"
        if axis.lo % step:
            return (
                f"the padding in front of an axis must be a multiple of its dilation: the padding is "
                f"{tuple(a.lo for a in geometry.axes)}, the dilation {dilation}"
            )
    if (parts := math.prod(_steps(geometry))) > _MOST_PARTS:
        return f"with dilation {dilation}, an image would be split into {parts} parts; at most {_MOST_PARTS} are legal"
    return None


def _axis(axis: Axis, step: int) -> Axis:
    if step == 1:
        return axis
    size = -(-axis.size // step)
    return Axis(size, axis.k, 1, axis.lo // step, -(-(axis.size + axis.hi) // step) - size, 1, -(-axis.out // step))


@dataclass(frozen=True)
class SpaceToBatchGeometry:
    """Describes a dilated convolution as an undilated convolution of the parts of its images."""

    dilated: ConvGeometry
    steps: tuple[int, ...]

    @classmethod
    def of(cls, geometry: ConvGeometry) -> SpaceToBatchGeometry | None:
        """Return how a convolution is split into undilated convolutions, or None if no axis is dilated."""
        steps = _steps(geometry)
        return None if math.prod(steps) == 1 else plans.find(cls, geometry, steps)

    @cached_property
    def images(self) -> int:
        """The number of images that are split at a time."""
        count = self.dilated.x_shape[0]
        return min(count, max(1, _BATCH_BYTES // (8 * sum(map(math.prod, self._shapes(1))))))

    def _shapes(self, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        part = self.part(count)
        return part.x_shape, part.out_shape

    @cached_property
    def geometry(self) -> ConvGeometry:
        """The undilated convolution of the parts of `images` images."""
        return self.part(self.images)

    def part(self, count: int) -> ConvGeometry:
        """Return the undilated convolution of the parts of `count` images."""
        return plans.find(_part, self, count)

    def _each(self, array: np.ndarray, parts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield two views for each part: its elements in `array`, and its place in `parts`."""
        grid = parts.reshape(len(array), *self.steps, *parts.shape[1:])
        for starts in itertools.product(*map(range, self.steps)):
            every: Any = (slice(start, None, step) for start, step in zip(starts, self.steps, strict=True))
            view = array[(_ALL, _ALL, *every)]
            extent: Any = (slice(n) for n in view.shape[2:])
            yield view, grid[(_ALL, *starts, _ALL, *extent)]

    def space_to_batch(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the parts of `array`. Shorter parts are padded with zeros, so that all parts have the same size."""
        parts = np.zeros(shape, array.dtype)
        for view, part in self._each(array, parts):
            part[...] = view
        return parts

    def batch_to_space(self, parts: np.ndarray, array: np.ndarray) -> None:
        """Copy the parts back to `array`."""
        for view, part in self._each(array, parts):
            view[...] = part

    @property
    def parts(self) -> int:
        """The number of parts into which an image is split."""
        return math.prod(self.steps)


def _part(batching: SpaceToBatchGeometry, count: int) -> ConvGeometry:
    axes = tuple(_axis(axis, step) for axis, step in zip(batching.dilated.axes, batching.steps, strict=True))
    shape = count * batching.parts, batching.dilated.x_shape[1], *(axis.size for axis in axes)
    return batching.dilated.derive(x_shape=shape, axes=axes)
