"""Makes the compiled plans of `separable`: axes, stride phases, blocks and the order of factors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fastconv._ext.separable import separable as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.blocking import (
    UNIT_AXIS,
    ConvAxis,
    backward_axes,
    balanced_block,
    ceil_div,
    forward_axes,
)
from fastconv.convolution.plan import Op
from fastconv.convolution.separable.factors import lifted_kernel
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: If padded images are at most this wide, the compiled plan supports all padding modes. The rows of a block are then
#: as long as the rows of the result.
_WIDEST = 1 << 14
#: The number of rows of results that are computed together, because they read many of the same rows of the image.
_HIGH = 4


@dataclass(frozen=True)
class Tuning:
    """Block sizes of the algorithm."""

    #: A block is first summed along all axes but the last. The rows of these sums take about `rows_bytes` bytes, and
    #: fit the first-level cache together with rows of the image. For high kernels, the rows may take `most_rows_bytes`
    #: bytes and stay in the second-level cache, because small blocks would read many rows of the image twice.
    rows_bytes: int = 24 << 10
    most_rows_bytes: int = 160 << 10
    #: A block of a volume is first summed along depth. The planes of these sums take about this number of bytes, so
    #: that they stay in the second-level cache.
    planes_bytes: int = 1 << 18
    #: A row of a block has at most this number of results, unless the kernel is very wide.
    wide: int = 4096
    #: A block has at most this number of planes.
    deep: int = 4


#: The default block sizes of a `Separable`, used if its caller passes none.
TUNING = Tuning()


@dataclass(frozen=True)
class Prepared:
    """A compiled plan, and what `SeparablePlan` needs to know about it.

    `order` lists the elements of the factors in the order in which the compiled plan reads them. `covers` is true if
    the compiled plan writes every element of the result. `down` is the number of multiply-adds along all axes but the
    last, and `across` the number along the last axis. `single_cells` is the number of elements that are copied one by
    one because of a stride.
    """

    compiled: _ext.ConvolvePlan
    order: np.ndarray
    lanes: int
    covers: bool
    down: int
    across: int
    rows: int
    single_cells: int

    @cached_property
    def copied(self) -> int:
        """The estimated time of the sums, as the number of bytes that a plain copy moves in that time."""
        return _isa.BYTES_PER_OPERATION * ((self.down + self.across) // self.lanes)


def prepare(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int, tuning: Tuning) -> Prepared | None:
    """Return the compiled plan of an op, or None if every output reads only padding."""
    return plans.find(_make, op, geometry, dtype, threads, isa, tuning)


@dataclass(frozen=True)
class StridePhases:
    """One axis of a convolution. For backward_data, it has one `ConvAxis` for each stride phase of dx. Otherwise, it
    has a single `ConvAxis`.

    For each stride phase, `factors` has the index in `Prepared.order` of the factor of its first tap.
    """

    conv_axes: tuple[ConvAxis, ...]
    factors: tuple[int, ...]

    @property
    def out(self) -> int:
        """The number of outputs of the longest stride phase."""
        return max(conv_axis.out for conv_axis in self.conv_axes)

    @property
    def pad(self) -> int:
        """The largest `lo` of all stride phases. The first element that output 0 of a stride phase reads has index
        ``-lo``.
        """
        return max(conv_axis.lo for conv_axis in self.conv_axes)

    @property
    def halo(self) -> int:
        """The distance from the first to the last element that output 0 of any stride phase reads."""
        return max((conv_axis.taps - 1) * conv_axis.dilation + self.pad - conv_axis.lo for conv_axis in self.conv_axes)

    @property
    def products(self) -> int:
        """The number of multiply-adds of all outputs along this axis."""
        return sum(conv_axis.out * conv_axis.taps for conv_axis in self.conv_axes)

    def span(self, block: int) -> int:
        """Return the number of elements, including padding, that `block` neighbouring outputs of each stride phase
        read.
        """
        return (block - 1) * self.conv_axes[0].stride + self.halo + 1


def _conv_axes(op: Op, geometry: ConvGeometry) -> list[list[ConvAxis]] | None:
    """Return the stride phases along each of three axes, or None if every output reads only padding."""
    if op == "forward":
        return [[conv_axis] for conv_axis in forward_axes(geometry)]
    axes = [sorted(backward_axes(axis.row()), key=lambda conv_axis: conv_axis.output_offset) for axis in geometry.axes]
    return [[UNIT_AXIS]] * (3 - len(axes)) + axes if all(axes) else None


def _with_factors(
    axes: Sequence[list[ConvAxis]], kernel: tuple[int, int, int]
) -> tuple[StridePhases, StridePhases, StridePhases, np.ndarray]:
    """Return the three axes, and the order of the factors (see `Prepared`)."""
    order: list[int] = []
    phased_axes = []
    for conv_axes, begin in zip(axes, (0, *itertools.accumulate(kernel[:2])), strict=True):
        first = []
        for conv_axis in conv_axes:
            first.append(len(order))
            order += [begin + weight for weight in conv_axis.weights]
        phased_axes.append(StridePhases(tuple(conv_axes), tuple(first)))
    d, h, w = phased_axes
    return d, h, w, np.array(order, np.intp)


def border_of(op: Op, geometry: ConvGeometry) -> str:
    """Return the padding mode for the compiled plan.

    It is 'zeros' if the compiled plan does not support the mode of the geometry, because the image is then padded
    before the call.
    """
    widest = geometry.axes[-1].padded
    return "zeros" if op != "forward" or geometry.rank != 2 or widest > _WIDEST else geometry.pad_mode


def _blocks(
    d: StridePhases,
    h: StridePhases,
    w: StridePhases,
    flat: bool,
    whole: bool,
    itemsize: int,
    threads: int,
    tuning: Tuning,
) -> tuple[int, int, int]:
    """Return the number of outputs of a block along each axis. The sums of a block of this size stay in a cache.

    If `whole` is true, the rows of a block are as long as the rows of the result.
    """
    wide = balanced_block(w.out, max(tuning.wide if flat else tuning.wide // 8, 2 * w.halo))
    if whole:
        wide = w.out
    row = w.span(wide) * itemsize
    high = max(_HIGH, tuning.rows_bytes // row, min(h.halo // 4, tuning.most_rows_bytes // row))
    deep = 1
    if not flat:
        deep = min(d.out, tuning.deep)
        cells = min(w.span(wide), w.conv_axes[0].size) * itemsize * deep
        fit = (tuning.planes_bytes // cells - h.halo) // h.conv_axes[0].stride
        high = max(_HIGH, min(max(fit, h.halo), tuning.most_rows_bytes // row))
    # There are at least two blocks for each thread. The height of a block is a multiple of `_HIGH`, if possible.
    high = min(high, max(_HIGH, ceil_div(h.out, 2 * threads)))
    return deep, balanced_block(h.out, high, _HIGH), wide


def _make(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int, tuning: Tuning
) -> Prepared | None:
    axes = _conv_axes(op, geometry)
    if axes is None:
        return None
    d, h, w, order = _with_factors(axes, lifted_kernel(geometry))
    images, groups, filters = geometry.x_shape[0], geometry.groups, geometry.w_shape[0]
    isa = _isa.narrow(w.out * dtype.itemsize)
    lanes = _ext.lanes(dtype=_arrays.DTYPES[dtype], isa=isa)
    flat, border = geometry.rank == 2, border_of(op, geometry)
    blocks = _blocks(d, h, w, flat, border != "zeros", dtype.itemsize, threads, tuning)
    if op == "forward":
        channels, shared, sources = filters, filters // groups, 1
    else:
        channels, shared, sources = groups, 1, filters // groups
    compiled = _ext.ConvolvePlan(
        dtype=_arrays.DTYPES[dtype],
        isa=isa,
        axes=(d, h, w),
        blocks=blocks,
        images=images,
        channels=channels,
        shared=shared,
        sources=sources,
        entries=len(order),
        flat=flat,
        border=border,
    )

    _, high, wide = blocks
    stride = w.conv_axes[0].stride
    planes = images * channels * sources
    columns = min(w.span(w.out), w.conv_axes[0].size)
    of_rows = sum(conv_axis.out for conv_axis in h.conv_axes)
    of_planes = sum(conv_axis.out for conv_axis in d.conv_axes)
    # If several blocks read the same row, each of these blocks sums this row along depth.
    rows = 0 if flat else ceil_div(h.out, high) * min(h.span(high), h.conv_axes[0].size)
    down = planes * columns * (d.products * rows + of_planes * h.products)
    single = len(w.conv_axes) * w.out if len(w.conv_axes) > 1 else 0
    if stride > 1:
        single = w.span(w.out)
    return Prepared(
        compiled,
        order,
        lanes=lanes,
        covers=all(
            sum(conv_axis.out for conv_axis in axis.conv_axes) == axis.conv_axes[0].output_size for axis in (d, h, w)
        ),
        down=down,
        across=planes * of_planes * of_rows * w.products,
        rows=planes * of_planes * of_rows * ceil_div(w.out, wide) * len(w.conv_axes),
        single_cells=planes * of_planes * of_rows * single,
    )
