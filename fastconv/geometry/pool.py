"""Shape arithmetic of pooling. Windows may overlap, read padding, and reach past the end of the image."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fastconv.checks.messages import count
from fastconv.checks.options import as_bool, is_plain, per_axis
from fastconv.geometry.axis import Axis, CheckedFields, check_axes, data_shape, floor_out, span_text, windows
from fastconv.geometry.pads import PAD_NAMES, check_padded, resolve_pad
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

POOL_PAD_NAMES = PAD_NAMES[:3]


def taps_within(
    bounds: tuple[int, int], k: int, stride: int, lo: int, dilation: int, out: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays. They have, for each output along an axis, the first tap that reads a cell from ``bounds[0]``
    to ``bounds[1] - 1``, and the last such tap plus 1.
    """
    start = np.arange(out) * stride - lo
    first, end = (np.clip(-((start - bound) // dilation), 0, k) for bound in bounds)
    return first, end


@dataclass(frozen=True)
class PoolGeometry(CheckedFields):
    """All sizes of one pooling. With `ceil_mode` the last window may extend beyond the padding.

    Attributes
    ----------
    x_shape, out_shape : tuple of int
        ``(N, C, *spatial)``, ``(N, C, *out_spatial)``.
    axes : tuple of Axis
    planes : int
        The number of planes. A plane is one channel of one image.
    cells : int
        The number of cells of a plane of the input.
    """

    x_shape: tuple[int, ...]
    axes: tuple[Axis, ...]

    def _fault(self) -> str | None:
        fault = check_axes(self.x_shape, self.axes)
        if fault is not None:
            return fault
        if not self.x_shape[1]:
            return f"x_shape is {self.x_shape}, without channels"
        for i, axis in enumerate(self.axes):
            fits = windows(axis)
            if not (axis.out == fits or (axis.out == fits + 1 and _overhangs(axis))):
                return f"axes[{i}] is {axis}, of which {fits} windows fit"
            if max(axis.lo, axis.hi) >= axis.extent or _steps_over(axis):
                return f"axes[{i}] is {axis}, some window of which meets padding only"
        return None

    _DERIVED = ("_hash", "out_shape", "planes", "cells")

    def _derived(self) -> dict[str, Any]:
        return {
            "out_shape": (*self.x_shape[:2], *[axis.out for axis in self.axes]),
            "planes": math.prod(self.x_shape[:2]),
            "cells": math.prod(self.x_shape[2:]),
        }

    def for_planes(self, n: int) -> PoolGeometry:
        """Return the geometry of the same pooling for one image with `n` channels."""
        return plans.find(_of_planes, self, n)

    @property
    def squeezed(self) -> PoolGeometry:
        """The same pooling without spatial axes of size 1. Kernels are slow if the last axis has size 1."""
        rank = len(self.axes)
        kept = [i for i, a in enumerate(self.axes) if (a.size, a.k, a.lo, a.hi, a.out) != (1, 1, 0, 0, 1)] or [rank - 1]
        if len(kept) == rank:
            return self
        sizes = (self.x_shape[2 + i] for i in kept)
        return self.derive(x_shape=(*self.x_shape[:2], *sizes), axes=tuple(self.axes[i] for i in kept))

    @property
    def most_windows(self) -> int:
        """The maximum number of windows that can contain the same cell."""
        found = 1
        for axis in self.axes:
            _, k, stride, _, dilation, out = axis.row()
            found *= min(-(-k // (stride // math.gcd(stride, dilation))), out)
        return found

    @property
    def is_2x2_stride_2(self) -> bool:
        """Whether this is a 2 x 2 pooling with stride 2 and without padding, for which there are special kernels."""
        return len(self.axes) == 2 and all(
            (a.k, a.stride, a.lo, a.dilation) == (2, 2, 0, 1) and 2 * a.out <= a.size for a in self.axes
        )

    @property
    def is_global(self) -> bool:
        """Whether a single window covers the whole image."""
        return all((a.k, a.lo, a.hi, a.dilation) == (a.size, 0, 0, 1) for a in self.axes)

    def axis_counts(self, count_include_pad: bool) -> list[np.ndarray]:
        """Return one array per axis. It has, for each window, the number of cells along this axis.

        The number of cells of a window is the product of its numbers of cells along all axes.
        """
        counts = []
        for axis in self.axes:
            size, k, stride, lo, dilation, out = axis.row()
            bounds = (-lo, size + axis.hi) if count_include_pad else (0, size)
            first, end = taps_within(bounds, k, stride, lo, dilation, out)
            counts.append(end - first)
        return counts

    def window_sizes(self, count_include_pad: bool) -> np.ndarray:
        """Return the number of cells of each window, as an array with the spatial shape of the output."""
        return functools.reduce(np.multiply.outer, self.axis_counts(count_include_pad))


def _of_planes(geometry: PoolGeometry, n: int) -> PoolGeometry:
    return geometry.derive(x_shape=(1, n, *geometry.x_shape[2:]))


def resolve_pool(
    x_shape: tuple[int, ...], *, kernel_size: Any, stride: Any, pad: Any, dilation: Any, ceil_mode: Any
) -> PoolGeometry:
    """Check the options of a pooling of images of shape `x_shape`, and return its geometry."""
    settings = (kernel_size, stride, pad, dilation, ceil_mode)
    # The plan cache needs hashable options. Most options have plain types, which are hashable.
    if is_plain(settings):
        return plans.find_typed(_normalise_pool, x_shape, *settings)
    return _normalise_pool(x_shape, *settings)


def _normalise_pool(
    x_shape: tuple[int, ...], kernel_size: Any, stride: Any, pad: Any, dilation: Any, ceil_mode: Any
) -> PoolGeometry:
    data_shape("x", x_shape)
    if x_shape[1] < 1:
        raise ValueError(f"x {x_shape} must have at least one channel")
    rank = len(x_shape) - 2
    kernel = per_axis("kernel_size", kernel_size, rank, 1)
    return plans.find(
        _resolve_pool,
        x_shape,
        kernel,
        kernel if stride is None else per_axis("stride", stride, rank, 1),
        pad if isinstance(pad, str) else resolve_pad(pad, x_shape[2:], kernel, (), (), POOL_PAD_NAMES),
        per_axis("dilation", dilation, rank, 1),
        as_bool("ceil_mode", ceil_mode),
    )


def _resolve_pool(
    x_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pad: str | tuple[tuple[int, int], ...],
    dilations: tuple[int, ...],
    ceil_mode: bool,
) -> PoolGeometry:
    sizes = x_shape[2:]
    pads = resolve_pad(pad, sizes, kernel, strides, dilations, POOL_PAD_NAMES)
    check_padded(sizes, pads, x_shape[:2])
    axes = []
    for i, (size, k, s, (lo, hi), d) in enumerate(zip(sizes, kernel, strides, pads, dilations, strict=True)):
        extent = d * (k - 1) + 1
        if max(lo, hi) >= extent:
            raise ValueError(
                f"spatial axis {i}: pad ({lo}, {hi}) must be smaller than the {span_text(k, d)} the window covers, "
                "because otherwise a window could contain only padding"
            )
        axis = Axis(size, k, s, lo, hi, d, 1)
        out = windows(axis) + 1 if ceil_mode and _overhangs(axis) else floor_out(i, size, k, s, (lo, hi), d)
        axis = Axis(size, k, s, lo, hi, d, out)
        if _steps_over(axis):
            raise ValueError(
                f"spatial axis {i}: with dilation {d} a window would read no cell of the input, which has "
                f"{count(size, 'cell')}"
            )
        axes.append(axis)
    return PoolGeometry(x_shape, tuple(axes))


def _overhangs(axis: Axis) -> bool:
    """Return whether `ceil_mode` adds a window. An added window must not start in the padding at the end."""
    span, stride = axis.padded - axis.extent, axis.stride
    return span % stride != 0 and -stride < span and (span // stride + 1) * stride < axis.size + axis.lo


def _steps_over(axis: Axis) -> bool:
    """Return whether some window reads padding only. This is possible if the dilation is larger than the input."""
    if axis.size >= axis.dilation or axis.k == 1:
        return False
    # Check the windows that start in the padding before the image. The first tap after this padding reads cell
    # `start % dilation`, which must be inside the image. The first size + 1 windows suffice. If all their cells are
    # inside the image, two of these windows read the same cell, and the cells of later windows repeat.
    starts = np.arange(min(axis.outputs_before(0, 0), axis.size + 1)) * axis.row()[2] - axis.lo
    return bool(np.any(starts % axis.dilation >= axis.size))
