"""Makes the tables that the kernel of `separable` reads: axes, stride phases, blocks and the order of factors."""

from __future__ import annotations

import itertools
import math
from functools import cached_property

import numpy as np

from fastconv._ext.separable import separable as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.blocking import (
    UNIT_AXIS,
    ConvAxis,
    align_up,
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

#: A block is first summed along all axes but the last. The rows of these sums take about `_ROWS_BYTES` bytes, so that
#: they fit the first-level cache together with rows of the image. For high kernels, the rows may take
#: `_MOST_ROWS_BYTES` bytes and stay in the second-level cache, because small blocks would read many rows of the image
#: twice.
_ROWS_BYTES, _MOST_ROWS_BYTES = 24 << 10, 160 << 10
#: A block of a volume is first summed along depth. The planes of these sums take about this number of bytes, so that
#: they stay in the second-level cache.
_PLANES_BYTES = 1 << 18
#: A row of a block has at most `_WIDE` results, unless the kernel is very wide. A block has at most `_DEEP` planes.
_WIDE, _DEEP = 4096, 4
#: If padded images are at most this wide, the compiled kernel supports all padding modes. The rows of a block are then
#: as long as the rows of the result.
_WIDEST = 1 << 14
_BORDERS = ("zeros", "reflect", "replicate", "circular")
#: The number of rows of results that are computed together, because they read many of the same rows of the image.
_HIGH = 4


@dataclass(frozen=True)
class SeparableTables:
    """The arguments of the compiled kernel, and the amounts of work.

    `order` lists the elements of the factors in the order in which the compiled kernel reads them. `space` is the
    number of elements of the workspace of a thread, and `items` the number of work items. `down` is the number of
    multiply-adds along all axes but the last, and `across` the number along the last axis. `single_cells` is the number
    of elements that are copied one by one because of a stride.
    """

    arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
    order: np.ndarray
    space: int
    items: int
    isa: int
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


def tables_for(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int) -> SeparableTables | None:
    """Return the tables of an op, or None if every output reads only padding."""
    return plans.find(_make_tables, op, geometry, dtype, threads, isa)


@dataclass(frozen=True)
class StridePhases:
    """One axis of a convolution. For backward_data, it has one `ConvAxis` for each stride phase of dx. Otherwise, it
    has a single `ConvAxis`.
    """

    conv_axes: tuple[ConvAxis, ...]

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


def _phased_axes(op: Op, geometry: ConvGeometry) -> tuple[StridePhases, StridePhases, StridePhases] | None:
    """Return three axes, or None if every output reads only padding."""
    if op == "forward":
        d, h, w = (StridePhases((conv_axis,)) for conv_axis in forward_axes(geometry))
        return d, h, w
    axes = [sorted(backward_axes(axis.row()), key=lambda conv_axis: conv_axis.output_offset) for axis in geometry.axes]
    if not all(axes):
        return None
    d, h, w = (StridePhases(tuple(conv_axes)) for conv_axes in [[UNIT_AXIS]] * (3 - len(axes)) + axes)
    return d, h, w


def border_of(op: Op, geometry: ConvGeometry) -> int:
    """Return the number of the padding mode, as separable.h defines it.

    The number is 0 for the mode 'zeros'. It is also 0 if the compiled kernel does not support the mode, because the
    image is then padded before the call.
    """
    widest = geometry.axes[-1].padded
    if op != "forward" or geometry.rank != 2 or widest > _WIDEST:
        return 0
    return _BORDERS.index(geometry.pad_mode)


def _blocks(
    d: StridePhases, h: StridePhases, w: StridePhases, flat: bool, whole: bool, itemsize: int, threads: int
) -> tuple[int, int, int]:
    """Return the number of outputs of a block along each axis. The sums of a block of this size stay in a cache.

    If `whole` is true, the rows of a block are as long as the rows of the result.
    """
    wide = balanced_block(w.out, max(_WIDE, 2 * w.halo) if flat else max(_WIDE // 8, 2 * w.halo))
    if whole:
        wide = w.out
    row = w.span(wide) * itemsize
    high = max(_HIGH, _ROWS_BYTES // row, min(h.halo // 4, _MOST_ROWS_BYTES // row))
    deep = 1
    if not flat:
        deep = min(d.out, _DEEP)
        cells = min(w.span(wide), w.conv_axes[0].size) * itemsize * deep
        fit = (_PLANES_BYTES // cells - h.halo) // h.conv_axes[0].stride
        high = max(_HIGH, min(max(fit, h.halo), _MOST_ROWS_BYTES // row))
    # There are at least two blocks for each thread. The height of a block is a multiple of `_HIGH`, if possible.
    high = min(high, max(_HIGH, ceil_div(h.out, 2 * threads)))
    return deep, balanced_block(h.out, high, _HIGH), wide


def _make_tables(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int
) -> SeparableTables | None:
    phased_axes, kernel = _phased_axes(op, geometry), lifted_kernel(geometry)
    if phased_axes is None:
        return None
    d, h, w = phased_axes
    itemsize, images, channels = dtype.itemsize, geometry.x_shape[0], geometry.groups
    filters = geometry.w_shape[0]
    isa = _isa.narrow(w.out * itemsize)
    lanes = _ext.lanes(_arrays.DTYPES[dtype], isa)
    flat, border = geometry.rank == 2, border_of(op, geometry)
    blocks = _blocks(d, h, w, flat, border > 0, itemsize, threads)
    deep, high, wide = blocks
    stride, whole = (
        w.conv_axes[0].stride,
        (w.conv_axes[0].output_size, h.conv_axes[0].output_size, d.conv_axes[0].output_size),
    )
    pitch = align_up(max(w.span(wide), w.pad + w.conv_axes[0].size if border else 0) + lanes)
    if pitch * itemsize % 4096 == 0:
        pitch += 64 // itemsize
    slot_pitch = ceil_div(w.span(wide), stride) + lanes if stride > 1 else 0
    split_at = align_up(high * pitch)
    row_at = split_at + align_up(stride * slot_pitch)
    planes_at = row_at + (
        align_up(wide + lanes) if any(conv_axis.output_stride > 1 for conv_axis in w.conv_axes) else 0
    )
    read = 0 if flat else min(h.span(high), h.conv_axes[0].size) * min(w.span(wide), w.conv_axes[0].size)
    space = planes_at + align_up(deep * read)
    if op == "forward":
        results, shared, sources = filters, filters // channels, 1
    else:
        results, shared, sources = channels, 1, filters // channels

    table, conv_axes = [], []
    order: list[int] = []
    for phased_axis, block, taps in zip(phased_axes, blocks, (0, *itertools.accumulate(kernel[:2])), strict=True):
        one = phased_axis.conv_axes[0]
        table.append(
            [
                one.size,
                one.output_size,
                one.stride,
                len(phased_axis.conv_axes),
                phased_axis.out,
                block,
                phased_axis.pad,
                phased_axis.halo,
            ]
        )
        for conv_axis in phased_axis.conv_axes:
            conv_axes.append(
                [
                    conv_axis.out,
                    conv_axis.output_offset,
                    conv_axis.output_stride,
                    conv_axis.lo,
                    conv_axis.dilation,
                    conv_axis.taps,
                    len(order),
                ]
            )
            order += [taps + weight for weight in conv_axis.weights]
    sizes = [images, results, shared, sources, len(order), flat]
    sizes += [pitch, split_at, slot_pitch, row_at, planes_at, space, border]

    planes = images * results * sources
    columns = min(w.span(w.out), w.conv_axes[0].size)
    of_rows = sum(conv_axis.out for conv_axis in h.conv_axes)
    of_planes = sum(conv_axis.out for conv_axis in d.conv_axes)
    # If several blocks read the same row, each of these blocks sums this row along depth.
    rows = 0 if flat else ceil_div(h.out, high) * min(h.span(high), h.conv_axes[0].size)
    down = planes * columns * (d.products * rows + of_planes * h.products)
    places = [
        ceil_div(phased_axis.out, block) * len(phased_axis.conv_axes)
        for phased_axis, block in zip((d, h), blocks[:2], strict=True)
    ]
    single = len(w.conv_axes) * w.out if len(w.conv_axes) > 1 else 0
    if stride > 1:
        single = w.span(w.out)
    return SeparableTables(
        (np.array(table, np.intp), np.array(conv_axes, np.intp), np.array(sizes, np.intp)),
        order=np.array(order, np.intp),
        space=space,
        items=images * results * math.prod(places) * ceil_div(w.out, wide),
        isa=isa,
        lanes=lanes,
        covers=all(
            sum(conv_axis.out for conv_axis in phased_axis.conv_axes) == n
            for phased_axis, n in zip((w, h, d), whole, strict=True)
        ),
        down=down,
        across=planes * of_planes * of_rows * w.products,
        rows=planes * of_planes * of_rows * ceil_div(w.out, wide) * len(w.conv_axes),
        single_cells=planes * of_planes * of_rows * single,
    )
