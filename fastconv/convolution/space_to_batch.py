"""Space-to-batch: a dilated convolution as undilated convolutions of every d-th row and column.

With dilation d an output reads only cells that are a multiple of d apart, so d
neighbouring outputs share no cell. Each start is an image of its own, and an
algorithm without dilation can convolve these.
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
#: Bytes of the images that are taken apart at a time, source and result together.
_BATCH_BYTES = 1 << 23
#: The most parts of an image, because each is copied by itself.
_MOST_PARTS = 1 << 14


def _steps(geometry: ConvGeometry) -> tuple[int, ...]:
    return tuple(axis.dilation if axis.k > 1 else 1 for axis in geometry.axes)


def reason(geometry: ConvGeometry) -> str | None:
    """Why a convolution cannot be taken apart, or None where it can."""
    dilation = tuple(axis.dilation for axis in geometry.axes)
    for axis, step in zip(geometry.axes, _steps(geometry), strict=True):
        if step > axis.size:
            return f"the dilation is {dilation}, and the image has fewer cells than that"
        if axis.lo % step:
            return (
                f"the dilation is {dilation}, and it needs 1 or "
                f"padding in front that is a multiple of it, not {tuple(a.lo for a in geometry.axes)}"
            )
    if (parts := math.prod(_steps(geometry))) > _MOST_PARTS:
        return f"the dilation is {dilation}: an image would be copied in {parts} parts, and {_MOST_PARTS} are the most"
    return None


def _axis(axis: Axis, step: int) -> Axis:
    if step == 1:
        return axis
    size = -(-axis.size // step)
    return Axis(size, axis.k, 1, axis.lo // step, -(-(axis.size + axis.hi) // step) - size, 1, -(-axis.out // step))


@dataclass(frozen=True)
class SpaceToBatchGeometry:
    """A dilated convolution and the undilated one of its parts."""

    dilated: ConvGeometry
    steps: tuple[int, ...]

    @classmethod
    def of(cls, geometry: ConvGeometry) -> SpaceToBatchGeometry | None:
        """The decomposition; None if nothing is dilated."""
        steps = _steps(geometry)
        return None if math.prod(steps) == 1 else plans.find(cls, geometry, steps)

    @cached_property
    def images(self) -> int:
        """How many are taken apart at a time."""
        count = self.dilated.x_shape[0]
        return min(count, max(1, _BATCH_BYTES // (8 * sum(map(math.prod, self._shapes(1))))))

    def _shapes(self, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        part = self.part(count)
        return part.x_shape, part.out_shape

    @cached_property
    def geometry(self) -> ConvGeometry:
        """The geometry of the parts of `images` images."""
        return self.part(self.images)

    def part(self, count: int) -> ConvGeometry:
        """The undilated convolution of the parts of `count` images."""
        return plans.find(_part, self, count)

    def _each(self, array: np.ndarray, parts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For every part a view of `array` and a view of `parts`."""
        grid = parts.reshape(len(array), *self.steps, *parts.shape[1:])
        for starts in itertools.product(*map(range, self.steps)):
            every: Any = (slice(start, None, step) for start, step in zip(starts, self.steps, strict=True))
            view = array[(_ALL, _ALL, *every)]
            extent: Any = (slice(n) for n in view.shape[2:])
            yield view, grid[(_ALL, *starts, _ALL, *extent)]

    def space_to_batch(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The parts of `array`; those that are shorter than others end in zeros."""
        parts = np.zeros(shape, array.dtype)
        for view, part in self._each(array, parts):
            part[...] = view
        return parts

    def batch_to_space(self, parts: np.ndarray, array: np.ndarray) -> None:
        """Copy the parts back to `array`."""
        for view, part in self._each(array, parts):
            view[...] = part

    def copied(self, itemsize: int) -> int:
        """Bytes of the parts of all images."""
        return sum(map(math.prod, self._shapes(self.dilated.x_shape[0]))) * itemsize

    @property
    def parts(self) -> int:
        """How many images one becomes."""
        return math.prod(self.steps)

    def held(self, itemsize: int) -> int:
        """Bytes of the parts there are at a time."""
        return sum(map(math.prod, self._shapes(self.images))) * itemsize


def _part(batching: SpaceToBatchGeometry, count: int) -> ConvGeometry:
    axes = tuple(_axis(axis, step) for axis, step in zip(batching.dilated.axes, batching.steps, strict=True))
    shape = count * batching.parts, batching.dilated.x_shape[1], *(axis.size for axis in axes)
    return batching.dilated.derive(x_shape=shape, axes=axes)
