"""Depthwise convolution: direct sums of products for groups of few channels and filters.

The outputs of an image are divided into blocks. For each block, the compiled kernel makes a padded copy of the image
elements that the outputs of the block read. It then computes the block in sweeps. A sweep computes some rows of one
plane of the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from fastconv._ext.depthwise import depthwise as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import Algorithm, per_channel
from fastconv.convolution.blocking import (
    ConvAxis,
    Layout,
    backward_axes,
    balanced_block,
    forward_axes,
    kernel_weights,
    lift,
)
from fastconv.convolution.cost import counts as _counts
from fastconv.convolution.cost.model import memory, multiply_adds, total_bytes
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.convolution.taps import data_by_taps
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The largest numbers of channels and of filters in a group. For larger groups, a matrix product is faster, because it
#: reads each image element less often.
_MOST_CHANNELS, _MOST_FILTERS = 4, 8
#: For convolution kernels of these heights, each row of the image is read only once for all taps of a kernel column.
_HEIGHTS = (3, 5)
#: The padded copy of a block may take `_MOST_BYTES` bytes or, if this is more, `_MOST_TIMES` times the bytes of the
#: arguments and the result. A copy takes at most `_OVER` times the bytes that one output reads. So the limit is checked
#: only for kernels of a very large extent.
_MOST_BYTES, _MOST_TIMES, _OVER = 1 << 26, 2, 64
#: The time of one multiply-add, relative to the time in which a plain copy moves one element.
_PRODUCT_BYTES = 0.06


@dataclass(frozen=True)
class Tuning:
    """Block sizes of the algorithm."""

    #: The approximate size of a padded block in bytes. The block shares the first-level cache with rows of the result.
    block_bytes: int = 1 << 14
    #: The largest size, in bytes, of the sums of dw that a thread computes at a time. Each weight has one sum in each
    #: vector lane.
    totals_bytes: int = 1 << 14
    #: The smallest width of a block, in vectors, and its smallest height, in rows. Blocks are not divided further,
    #: because the halo would be large compared with a smaller block.
    wide_vectors: int = 64
    high: int = 8


#: The default block sizes of a `Depthwise`, used if its caller passes none.
_TUNING = Tuning()


@dataclass(frozen=True)
class Columns:
    """The taps of all channels, divided into columns. A column is a whole kernel column of `high` taps, or a single
    tap.
    """

    #: For each column, the offset, in a padded block, of the element that its first tap reads for output 0.
    offsets: np.ndarray
    #: For each column, the index of the weight of its first tap.
    weights: np.ndarray
    #: The number of taps of a column.
    high: int
    #: The distance between the weights of neighbouring taps of a column.
    step: int

    @property
    def tap_weights(self) -> np.ndarray:
        """The index of the weight of each tap, column by column."""
        return (self.weights[:, None] + np.arange(self.high) * self.step).ravel()


@dataclass(frozen=True)
class Part:
    """One stride phase of the result: its three axes, and its taps. In the forward pass, the whole result is a part."""

    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]
    columns: Columns


@dataclass(frozen=True)
class Prepared:
    """A compiled plan, and what `DepthwisePlan` needs to know about it.

    If `parts` is above 1, that many arrays hold partial sums of dw. `covers` is true if the compiled plan writes every
    element of the result.
    """

    compiled: _ext.ConvolvePlan | _ext.WeightGradientPlan
    #: The amount of each kind of work, summed over all threads.
    amounts: dict[str, float]
    parts: int = 1
    covers: bool = True


class Depthwise(Algorithm):
    """Direct sums over the kernel taps, for groups of few channels and filters. A vector holds neighbouring outputs of
    a row.

    A part of the image is copied into a padded buffer in the first-level cache, and split into stride phases. The
    elements that a row of outputs reads at one tap are then contiguous. They are called the "row of the tap". Several
    rows of sums stay in registers, so each row of the buffer is read once for several kernel rows. For channel c and
    filter f of a group:

    - forward:          out[f] = sum of w[f, c, tap] * x[c, row of the tap]
    - backward_data:    dx[c] = sum of w[f, c, tap] * dout[f, row of the tap], for each stride phase of dx, with a
      flipped kernel; at stride 2, registers interleave the results of the two stride phases of a row
    - backward_weights: dw[f, c, tap] = sum of dout[f] * x[c, row of the tap], with a vector of sums for each tap

    References
    ----------
    A. G. Howard et al., "MobileNets: efficient convolutional neural networks
    for mobile vision applications", arXiv:1704.04861; P. Zhang, E. Lo, B. Lu,
    "High performance depthwise and pointwise convolutions on mobile devices",
    AAAI 2020 (sums in registers, rows read once).
    """

    name = "depthwise"

    def __init__(self, tuning: Tuning = _TUNING) -> None:
        self.tuning = tuning

    def unsupported(self, case: Case) -> str | None:
        """Refuse groups of many channels or filters, and kernels whose extent needs too much workspace."""
        geometry, dtype = case.geometry, case.dtype
        channels, filters = geometry.w_shape[1], geometry.w_shape[0] // geometry.groups
        if channels > _MOST_CHANNELS or filters > _MOST_FILTERS:
            return (
                f"groups may have at most {_MOST_CHANNELS} channels and {_MOST_FILTERS} filters, "
                f"got groups of {channels} channels and {filters} filters"
            )
        least = channels * math.prod(axis.extent for axis in geometry.axes) * dtype.itemsize
        if least * _OVER > _MOST_BYTES and math.prod(geometry.out_shape) > 0:
            prepared = _prepare(case.op, geometry, dtype, 1, self.tuning)
            nbytes = 0 if prepared is None else prepared.compiled.workspace * dtype.itemsize
            if nbytes > max(_MOST_BYTES, _MOST_TIMES * total_bytes(geometry, dtype)):
                dilation = tuple(axis.dilation for axis in geometry.axes)
                return (
                    f"a padded block of the image for the kernel {geometry.kernel} with dilation {dilation} would take "
                    f"{nbytes} bytes; use 'im2col' or 'auto'"
                )
        return None

    def plan(self, case: Case) -> Plan:
        """Return the plan for a case."""
        return DepthwisePlan(case, self.tuning)


class DepthwisePlan(Plan):
    """A plan that runs one compiled plan."""

    algorithm = Depthwise.name

    def __init__(self, case: Case, tuning: Tuning = _TUNING) -> None:
        super().__init__(case)
        self.tuning = tuning
        geometry = case.geometry
        #: The estimated time of the call, as the number of bytes that a plain copy moves in that time.
        self.copied = int(
            multiply_adds(geometry) * case.dtype.itemsize * _PRODUCT_BYTES + total_bytes(geometry, case.dtype)
        )

    @cached_property
    def prepared(self) -> Prepared | None:
        """The compiled plan, or None if no output reads the image. In this case, dx is zero."""
        return _prepare(self.case.op, self.case.geometry, self.case.dtype, self.case.threads, self.tuning)

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """The shape of the workspace: the number of threads, and the number of elements for each thread."""
        if self.prepared is None:
            return 0, 0
        compiled = self.prepared.compiled
        return min(self.case.threads, compiled.items), compiled.workspace

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the workspaces of all threads, and of the partial sums of dw."""
        if self.prepared is None:
            return 0
        parts = self.prepared.parts
        sums = math.prod(self.case.geometry.w_shape) * (parts if parts > 1 else 0)
        return (math.prod(self._shape) + sums) * self.case.dtype.itemsize

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the thread with the most work items: multiply-adds, tiles, and copies into padded blocks."""
        prepared, case = self.prepared, self.case
        memory_work = memory(case.geometry, case.dtype, case.threads) | {"call": 1.0}
        if prepared is None:
            return memory_work
        part = _counts.largest_share(prepared.compiled.items, self.copied, case.threads)
        return _counts.total(prepared.amounts, part) | memory_work

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Run the compiled plan, which also adds the bias. For dx, all stride phases read the same padded blocks."""
        prepared, case = self.prepared, self.case
        if case.op == "backward_weights":
            assert prepared is not None
            self._sum_weights(prepared, first, second, result)
            return
        gradient = case.op == "backward_data"
        # If no output reads some element of dx, the compiled plan does not write this element.
        if gradient and (prepared is None or not prepared.covers):
            result[...] = 0 if third is None else per_channel(third, case.geometry)
        if prepared is None:
            return
        self._share(prepared.compiled, first, second, third, result)
        # The compiled plan also multiplies weights by the padding of dout. This gives NaN if a weight is inf or NaN.
        # So dx is then computed again, without padding.
        if gradient and not (case.geometry.pointwise or _ext.all_finite(second)):
            data_by_taps(case, first, second, third, result, partial(DepthwisePlan, tuning=self.tuning))

    def _sum_weights(self, prepared: Prepared, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """Compute dw. Threads compute whole groups. If there are few groups, threads share the blocks of a group."""
        if prepared.parts == 1:
            self._share(prepared.compiled, x, dout, dw)
            return
        sums = _memory.empty((prepared.parts, dw.size), dw.dtype)
        self._share(prepared.compiled, x, dout, sums)
        np.sum(sums, axis=0, out=dw.reshape(-1))

    def _share(self, compiled: _ext.ConvolvePlan | _ext.WeightGradientPlan, *arrays: np.ndarray | None) -> None:
        """Run a compiled plan on the threads of the call."""
        with _workspace.workspace("blocks of the image", self._shape, self.case.dtype) as space:
            _threads.share(
                compiled.run, (*arrays, space), items=compiled.items, work=self.copied, threads=self.case.threads
            )


def _prepare(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, tuning: Tuning) -> Prepared | None:
    return plans.find(_make, op, geometry, dtype, threads, tuning, _isa.current)


def _make(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, tuning: Tuning, _isa_in_use: int
) -> Prepared | None:
    if op == "backward_weights":
        return _weight_gradient(geometry, dtype, threads, tuning)
    return _convolution(op, geometry, dtype, tuning)


def _vectors(dtype: np.dtype, width: int) -> tuple[int, int]:
    """Return the instruction set for rows of `width` outputs, and the number of lanes of its vectors.

    If a row fills at most half a vector, an instruction set with narrower vectors is returned.
    """
    isa = _isa.narrow(width * dtype.itemsize)
    return isa, _ext.lanes(dtype=_arrays.DTYPES[dtype], isa=isa)


def _layout(
    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis], channels: int, itemsize: int, lanes: int, tuning: Tuning
) -> Layout:
    """Return the layout of padded blocks that fit the first-level cache. A block has whole rows, unless rows are very
    long.
    """
    budget = tuning.block_bytes // itemsize // channels
    d, h, w = conv_axes
    n_phases = math.prod(len(conv_axis.phases) for conv_axis in conv_axes)
    wide = balanced_block(w.out, max(tuning.wide_vectors * lanes, 2 * w.halo))
    row = n_phases * (wide + w.halo)
    high = balanced_block(h.out, max(budget // (row * (1 + d.halo)) - h.halo, tuning.high, 2 * h.halo))
    deep = 1
    if high == h.out:
        deep = balanced_block(d.out, max(budget // (row * (high + h.halo)) - d.halo, 2 * d.halo, 1))
    return Layout(conv_axes, 1, (deep, high, wide), wide + w.halo)


def _columns(
    offsets: np.ndarray, weights: np.ndarray, shared: bool, channels: int, channel_pitch: int, channel_step: int
) -> Columns:
    """Divide the taps of all channels into columns.

    `offsets` and `weights` have one element for each tap of a channel, as in `Columns`. `shared` says whether the taps
    of a kernel column may share the rows that they read. The distance between two channels is `channel_pitch` in a
    padded block, and `channel_step` in the weights.
    """
    high = offsets.shape[1] if shared and offsets.shape[1] in _HEIGHTS else 1
    step = 0
    if high > 1:
        step = int(weights[0, 1, 0] - weights[0, 0, 0])
        offsets, weights = offsets[:, :1], weights[:, :1]
    channel = np.arange(channels)[:, None]
    return Columns(
        (channel * channel_pitch + offsets.ravel()).ravel().astype(np.intp),
        (channel * channel_step + weights.ravel()).ravel().astype(np.intp),
        high,
        step,
    )


def _copies(layout: Layout, lanes: int) -> dict[str, float]:
    """Return the work of copying one channel of an image into padded blocks.

    `lines` is the number of rows that are copied, and `cells` the number of vectors. `strided` is the number of
    elements that are copied one by one because of a stride. `segments` is the number of copies: one for each plane and
    stride phase of a block.
    """
    d, h, w = layout.conv_axes
    deep, high, wide = (
        _counts.blocks(conv_axis.out, n) for conv_axis, n in zip(layout.conv_axes, layout.block, strict=True)
    )
    planes = len(d.phases) * sum(n * (size + d.halo) for size, n in deep)
    rows = planes * len(h.phases) * len(w.phases) * sum(n * (size + h.halo) for size, n in high)
    cells = sum(n * (size + w.halo) for size, n in wide)
    of_plane = sum(n for _, n in high) * sum(n for _, n in wide)
    return {
        "lines": float(rows * sum(n for _, n in wide)),
        "cells": float(rows * sum(n * _counts.ceil_div(size + w.halo, lanes) for size, n in wide)),
        "strided": float(rows * cells if w.stride > 2 else 0),
        # If an image is a single block, all images use the same list of copies. So the time to make the list is not
        # counted.
        "segments": float(planes * len(h.phases) * len(w.phases) * of_plane if of_plane > 1 or len(deep) > 1 else 0),
    }


def _tiles(layout: Layout, each: Callable[[int, int], tuple[float, int]]) -> tuple[float, float]:
    """Return the number of multiply-adds and the number of tiles for one plane of the result.

    ``each(rows, results)`` returns the numbers of multiply-adds and tiles for a block of `rows` rows with `results`
    results each.
    """
    product = tiles = 0.0
    high, wide = (
        _counts.blocks(conv_axis.out, n) for conv_axis, n in zip(layout.conv_axes[1:], layout.block[1:], strict=True)
    )
    for rows, n in high:
        for results, m in wide:
            of_block = each(rows, results)
            product += n * m * of_block[0]
            tiles += n * m * of_block[1]
    return product, tiles


def _common_axis(conv_axes: list[ConvAxis]) -> ConvAxis:
    """Return an axis whose padded blocks contain all elements of dout that any stride phase of dx reads."""
    lo = max(conv_axis.lo for conv_axis in conv_axes)
    halo = max(lo - conv_axis.lo + conv_axis.halo for conv_axis in conv_axes)
    out, one = max(conv_axis.out for conv_axis in conv_axes), conv_axes[0]
    weights = (0, 1) if halo else (0,)
    return ConvAxis(one.size, 1, lo, max(halo, 1), out, 0, one.output_stride, one.output_size, weights)


def _cells(conv_axis: ConvAxis, common: ConvAxis) -> np.ndarray:
    """Return, for each tap of a stride phase of dx, the index on the axis `common` that output 0 reads."""
    return common.lo - conv_axis.lo + np.arange(conv_axis.taps) * conv_axis.dilation


def _convolution(op: Op, geometry: ConvGeometry, dtype: np.dtype, tuning: Tuning) -> Prepared | None:
    """Return the compiled plan of forward or backward_data, or None if the result is zero."""
    itemsize = dtype.itemsize
    groups, taps, paired = geometry.groups, geometry.taps, False
    filters, channels = geometry.w_shape[0] // groups, geometry.w_shape[1]
    if op == "forward":
        rows, row_step, sources, source_step = filters, channels * taps, channels, taps
        conv_axes = forward_axes(geometry)
        phases = [conv_axes]
    else:
        rows, row_step, sources, source_step = channels, taps, filters, channels * taps
        axes = [
            sorted(backward_axes(axis.row()), key=lambda conv_axis: conv_axis.output_offset) for axis in geometry.axes
        ]
        if not all(axes):
            return None
        conv_axes = lift([_common_axis(axis) for axis in axes])
        phases = [lift(phase) for phase in itertools.product(*axes)]
        paired = conv_axes[2].output_stride == 2 and len(axes[-1]) == 2
    isa, lanes = _vectors(dtype, conv_axes[2].out)
    layout = _layout(conv_axes, sources, itemsize, lanes, tuning)
    pitch = layout.channel_pitch(itemsize)

    parts = []
    for phase in phases:
        shape = tuple(conv_axis.taps for conv_axis in phase)
        if op == "forward":
            offsets = layout.taps().reshape(shape)
        else:
            d, h, w = (
                _cells(conv_axis, common) * p
                for conv_axis, common, p in zip(phase, conv_axes, layout.pitches, strict=True)
            )
            offsets = d[:, None, None] + h[:, None] + w
        weights = kernel_weights(phase, geometry.kernel).reshape(shape)
        shared = phase[1].stride == phase[1].dilation == 1 and not paired
        parts.append(Part(phase, _columns(offsets, weights, shared, sources, pitch, source_step)))

    images = geometry.x_shape[0]
    compiled = _ext.ConvolvePlan(
        dtype=_arrays.DTYPES[dtype],
        isa=isa,
        layout=layout,
        parts=parts,
        images=images,
        groups=groups,
        rows=rows,
        row_step=row_step,
        group_step=filters * channels * taps,
        channels=sources,
        channel_pitch=pitch,
        paired=paired,
    )
    planes = images * groups
    amounts = {kind: planes * sources * amount for kind, amount in _copies(layout, lanes).items()}
    amounts |= _sums(layout, parts, paired, planes * rows, lanes)
    volume = math.prod(conv_axis.output_size for conv_axis in conv_axes)
    if conv_axes[2].output_stride > 1 and not paired:
        amounts["scattered"] = float(planes * rows * volume)
    written = sum(math.prod(conv_axis.out for conv_axis in phase) for phase in phases)
    return Prepared(compiled, amounts, covers=written == volume)


def _sums(layout: Layout, parts: Sequence[Part], paired: bool, planes: int, lanes: int) -> dict[str, float]:
    """Return the work of computing `planes` channels of the result from padded blocks.

    `product` is the number of multiply-adds of vectors, and `tiles` the number of tiles. `scattered` is zero.
    """
    amounts = {"product": 0.0, "tiles": 0.0, "scattered": 0.0}
    # The results of `_tiles`, by the number of taps of a column. Stride phases with equal columns have equal results.
    counted: dict[int, tuple[float, float]] = {}
    for part in parts[:: 2 if paired else 1]:
        high = part.columns.high
        each = (
            (lambda rows, n: _counts.pair(rows, 2 * n, lanes))
            if paired
            else partial(_counts.sweep, lanes=lanes, high=high)
        )
        if high not in counted:
            counted[high] = _tiles(layout, each)
        product, tiles = counted[high]
        deep = part.conv_axes[0].out
        amounts["product"] += planes * deep * product * len(part.columns.offsets)
        amounts["tiles"] += planes * deep * tiles
    return amounts


def _weight_gradient(geometry: ConvGeometry, dtype: np.dtype, threads: int, tuning: Tuning) -> Prepared:
    """Return the compiled plan of backward_weights."""
    itemsize = dtype.itemsize
    groups, channels, taps = geometry.groups, geometry.w_shape[1], geometry.taps
    filters, images = geometry.w_shape[0] // groups, geometry.x_shape[0]
    conv_axes = forward_axes(geometry)
    isa, lanes = _vectors(dtype, conv_axes[2].out)
    layout = _layout(conv_axes, channels, itemsize, lanes, tuning)
    pitch = layout.channel_pitch(itemsize)
    shape = tuple(conv_axis.taps for conv_axis in conv_axes)
    shared = conv_axes[1].stride == conv_axes[1].dilation == 1
    weights = kernel_weights(conv_axes, geometry.kernel).reshape(shape)
    columns = _columns(layout.taps().reshape(shape), weights, shared, 1, pitch, taps)
    blocks = images * math.prod(-(-conv_axis.out // n) for conv_axis, n in zip(conv_axes, layout.block, strict=True))
    totals_bytes = filters * channels * taps * lanes * itemsize
    block_groups = max(1, min(tuning.totals_bytes // totals_bytes, groups // (8 * threads)))
    items = -(-groups // block_groups)
    # If there are too few items for the threads, each thread computes a partial sum over some blocks.
    parts = min(threads, blocks) if items % threads and items < 4 * threads else 1
    compiled = _ext.WeightGradientPlan(
        dtype=_arrays.DTYPES[dtype],
        isa=isa,
        layout=layout,
        columns=columns,
        images=images,
        groups=groups,
        block_groups=block_groups,
        filters=filters,
        channels=channels,
        channel_pitch=pitch,
        parts=parts,
    )
    amounts = {kind: images * groups * channels * amount for kind, amount in _copies(layout, lanes).items()}
    each = partial(_counts.dots, lanes=lanes, high=columns.high, entries=len(columns.offsets))
    product, tiles = _tiles(layout, each)
    times = images * groups * filters * channels * conv_axes[0].out
    amounts |= {
        "product": times * product,
        "tiles": times * tiles,
        "totals": float(groups * filters * channels * taps * parts),
    }
    return Prepared(compiled, amounts, parts=parts)
