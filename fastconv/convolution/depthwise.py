"""Depthwise convolution: direct sums of products for groups of few channels and filters.

The outputs of an image are divided into blocks. For each block, the compiled kernel makes a padded copy of the image
elements that the outputs of the block read. It then computes the block in sweeps. A sweep computes some rows of one
plane of the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastconv._ext.depthwise import depthwise as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import Algorithm, per_channel
from fastconv.convolution.blocking import (
    ConvAxis,
    Layout,
    align_up,
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
#: The approximate size, in bytes, of the padded copy that belongs to a block. The copy shares the first-level cache
#: with rows of the result.
_BLOCK_BYTES = 1 << 14
#: The largest size, in bytes, of the partial sums of dw that a thread computes at a time. Each weight has one partial
#: sum in each vector lane.
_TOTALS_BYTES = 1 << 14
#: Blocks are not divided further than to a width of `_WIDE_VECTORS` vectors and a height of `_HIGH` rows, because the
#: halo would be large compared with a smaller block.
_WIDE_VECTORS, _HIGH = 64, 8
#: For convolution kernels of these heights, each row of the image is read only once for all taps of a kernel column.
_HEIGHTS = (3, 5)
#: The padded copy of a block may take `_MOST_BYTES` bytes or, if this is more, `_MOST_TIMES` times the bytes of the
#: arguments and the result. A copy takes at most `_OVER` times the bytes that one output reads. So the limit is checked
#: only for kernels of a very large extent.
_MOST_BYTES, _MOST_TIMES, _OVER = 1 << 26, 2, 64
#: The compiled kernels may read or clear this number of vectors past the end of a padded copy.
_LANES_PAST = 2
#: The time of one multiply-add, relative to the time in which a plain copy moves one element.
_PRODUCT_BYTES = 0.06
#: The number of integers that describe one copy into a padded block. A sweep, which is a step of the compiled kernel,
#: is described by the same number of integers.
_LIST = 7


@dataclass(frozen=True)
class DepthwiseTables:
    """The tables for one call of the compiled kernel, whose `items` work items are divided among threads.

    The workspace of a thread has `space` elements and `lists` integers. If `parts` is above 1, that many arrays hold
    partial sums of dw. `covers` is true if the compiled kernel writes every element of the result.
    """

    tables: tuple[np.ndarray, ...]
    space: int
    lists: int
    items: int
    isa: int
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
            plan = _plan(case.op, geometry, dtype, 1)
            nbytes = 0 if plan is None else plan.space * dtype.itemsize
            if nbytes > max(_MOST_BYTES, _MOST_TIMES * total_bytes(geometry, dtype)):
                dilation = tuple(axis.dilation for axis in geometry.axes)
                return (
                    f"a padded block of the image for the kernel {geometry.kernel} with dilation {dilation} would take "
                    f"{nbytes} bytes; use 'im2col' or 'auto'"
                )
        return None

    def plan(self, case: Case) -> Plan:
        """Return the plan for a case."""
        return DepthwisePlan(case)


class DepthwisePlan(Plan):
    """A plan that calls the compiled kernel once."""

    algorithm = Depthwise.name

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        geometry = case.geometry
        #: The estimated time of the call, as the number of bytes that a plain copy moves in that time.
        self.copied = int(
            multiply_adds(geometry) * case.dtype.itemsize * _PRODUCT_BYTES + total_bytes(geometry, case.dtype)
        )

    @cached_property
    def tables(self) -> DepthwiseTables | None:
        """The tables of the compiled kernel, or None if no output reads the image. In this case, dx is zero."""
        return _plan(self.case.op, self.case.geometry, self.case.dtype, self.case.threads)

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the padded blocks of all threads, and of the partial sums of dw."""
        plan, case = self.tables, self.case
        if plan is None:
            return 0
        partial = math.prod(case.geometry.w_shape) * (plan.parts if plan.parts > 1 else 0)
        return (case.threads * plan.space + partial) * case.dtype.itemsize + case.threads * plan.lists * 8

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the thread with the most work items: multiply-adds, tiles, and copies into padded blocks."""
        plan, case = self.tables, self.case
        memory_work = memory(case.geometry, case.dtype, case.threads) | {"call": 1.0}
        if plan is None:
            return memory_work
        part = _counts.largest_share(plan.items, self.copied, case.threads)
        return _counts.total(plan.amounts, part) | memory_work

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Run the compiled kernel, which also adds the bias. For dx, all stride phases read the same padded copy of
        dout.
        """
        if self.case.op == "backward_weights":
            self._sum_weights(first, second, result)
            return
        plan, case = self.tables, self.case
        gradient = case.op == "backward_data"
        if gradient and (plan is None or not plan.covers):  # the compiled kernel does not write all elements of dx
            result[...] = 0 if third is None else per_channel(third, case.geometry)
        if plan is None:
            return
        self._share(
            _ext.product,
            plan,
            (
                first.reshape(-1),
                second.reshape(-1),
                (result if third is None else third).reshape(-1)[: 0 if third is None else None],
                result.reshape(-1),
                *plan.tables,
            ),
        )
        # The compiled kernel also multiplies weights by the padding of dout. This gives NaN if a weight is inf or NaN.
        # So dx is then computed again, without padding.
        if gradient and not (case.geometry.pointwise or _ext.all_finite(second)):
            data_by_taps(case, first, second, third, result, DepthwisePlan)

    def _sum_weights(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """Compute dw. Each thread computes whole groups. If groups are few, threads share the blocks of a group."""
        plan = self.tables
        assert plan is not None
        parts = dw.reshape(1, -1) if plan.parts == 1 else _memory.empty((plan.parts, dw.size), dw.dtype)
        self._share(_ext.weights, plan, (x.reshape(-1), dout.reshape(-1), parts, *plan.tables))
        if plan.parts > 1:
            np.sum(parts, axis=0, out=dw.reshape(-1))

    def _share(self, kernel: Callable[..., Any], plan: DepthwiseTables, arrays: tuple[np.ndarray, ...]) -> None:
        threads = self.case.threads
        workers = min(threads, plan.items)
        lists = np.empty((workers, plan.lists), np.intp)
        with _workspace.workspace("blocks of the image", (workers, plan.space), self.case.dtype) as space:
            arguments = _arrays.DTYPES[self.case.dtype], *arrays, space, lists, plan.isa
            _threads.share(kernel, arguments, items=plan.items, work=self.copied, threads=threads)


def _plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> DepthwiseTables | None:
    return plans.find(_make_plan, op, geometry, dtype, threads, _isa.current)


def _make_plan(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int
) -> DepthwiseTables | None:
    return (_weights_plan if op == "backward_weights" else _product_plan)(op, geometry, dtype, threads)


def _vectors(dtype: np.dtype, width: int) -> tuple[int, int]:
    """Return the instruction set for rows of `width` outputs, and the number of lanes of its vectors.

    If a row fills at most half a vector, an instruction set with narrower vectors is returned.
    """
    isa = _isa.narrow(width * dtype.itemsize)
    return isa, _ext.lanes(_arrays.DTYPES[dtype], isa)


def _layout(conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis], channels: int, itemsize: int, lanes: int) -> Layout:
    """Return the layout of padded blocks that fit the first-level cache. A block has whole rows, unless rows are very
    long.
    """
    budget = _BLOCK_BYTES // itemsize // channels
    d, h, w = conv_axes
    n_phases = math.prod(len(conv_axis.phases) for conv_axis in conv_axes)
    wide = balanced_block(w.out, max(_WIDE_VECTORS * lanes, 2 * w.halo))
    row = n_phases * (wide + w.halo)
    high = balanced_block(h.out, max(budget // (row * (1 + d.halo)) - h.halo, _HIGH, 2 * h.halo))
    deep = 1
    if high == h.out:
        deep = balanced_block(d.out, max(budget // (row * (high + h.halo)) - d.halo, 2 * d.halo, 1))
    return Layout(conv_axes, 1, (deep, high, wide), wide + w.halo)


def _entries(
    at: np.ndarray, places: np.ndarray, shared: bool, channels: int, channel_pitch: int, channel_step: int
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Divide the taps of all channels into entries. An entry is a whole kernel column of taps, or a single tap.

    Return two arrays with one element for each entry, and two integers:

    - the offset, in the padded block, of the element that the first tap of the entry reads
    - the index of the weight of this tap
    - the number of taps of an entry
    - the distance between the weights of neighbouring taps of an entry
    """
    high = at.shape[1] if shared and at.shape[1] in _HEIGHTS else 1
    step = 0
    if high > 1:
        step = int(places[0, 1, 0] - places[0, 0, 0])
        at, places = at[:, :1], places[:, :1]
    channel = np.arange(channels)[:, None]
    return (
        (channel * channel_pitch + at.ravel()).ravel().astype(np.intp),
        (channel * channel_step + places.ravel()).ravel().astype(np.intp),
        high,
        step,
    )


def _segments(layout: Layout) -> int:
    """Return the number of copies that fill one channel of a padded block: one for each plane and stride phase."""
    d, h, w = layout.conv_axes
    return len(d.phases) * (layout.block[0] + d.halo) * len(h.phases) * len(w.phases)


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


def _product_plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> DepthwiseTables | None:
    itemsize = dtype.itemsize
    groups, taps = geometry.groups, geometry.taps
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
    isa, lanes = _vectors(dtype, conv_axes[2].out)
    layout = _layout(conv_axes, sources, itemsize, lanes)
    pitch = layout.channel_pitch(itemsize)

    paired = op == "backward_data" and conv_axes[2].output_stride == 2 and len(axes[-1]) == 2
    planes = geometry.x_shape[0] * groups
    amounts = {kind: planes * sources * amount for kind, amount in _copies(layout, lanes).items()}
    amounts |= {"product": 0.0, "tiles": 0.0, "scattered": 0.0}
    table, ats, places_of, at_begin = [], [], [], 0
    # The results of `_tiles`, by the number of taps of an entry. Stride phases with equal entries have equal results.
    counted: dict[int, tuple[float, float]] = {}
    for i, phase in enumerate(phases):
        shape = tuple(conv_axis.taps for conv_axis in phase)
        if op == "forward":
            at = layout.taps().reshape(shape)
        else:
            d, h, w = (
                _cells(conv_axis, common) * p
                for conv_axis, common, p in zip(phase, conv_axes, layout.pitches, strict=True)
            )
            at = d[:, None, None] + h[:, None] + w
        places = kernel_weights(phase, geometry.kernel).reshape(shape)
        shared = phase[1].stride == phase[1].dilation == 1 and not paired
        at, places, high, step = _entries(at, places, shared, sources, pitch, source_step)
        outs, starts = [conv_axis.out for conv_axis in phase], [conv_axis.output_offset for conv_axis in phase]
        if not paired or i % 2 == 0:
            each = (
                (lambda rows, n: _counts.pair(rows, 2 * n, lanes))
                if paired
                else partial(_counts.sweep, lanes=lanes, high=high)
            )
            if high not in counted:
                counted[high] = _tiles(layout, each)
            product, tiles = counted[high]
            amounts["product"] += planes * rows * outs[0] * product * len(at)
            amounts["tiles"] += planes * rows * outs[0] * tiles
        table.append([*outs, *starts, len(at), high, step, at_begin])
        ats.append(at)
        places_of.append(places)
        at_begin += len(at)

    scatter_at = align_up(sources * pitch + _LANES_PAST * lanes + layout.row)
    segments, sweeps = _segments(layout), len(phases) * layout.block[0]
    scattered = conv_axes[2].output_stride > 1 and not paired
    scatter_elements = layout.block[1] * layout.block[2] + lanes if scattered else 0
    if scattered:
        amounts["scattered"] = float(planes * rows * math.prod(conv_axis.output_size for conv_axis in conv_axes))
    sizes = [geometry.x_shape[0], groups, rows, row_step, sources, pitch, scatter_at, segments, sweeps, paired]
    blocks = math.prod(-(-conv_axis.out // n) for conv_axis, n in zip(conv_axes, layout.block, strict=True))
    written = sum(math.prod(conv_axis.out for conv_axis in phase) for phase in phases)
    return DepthwiseTables(
        (
            layout.axes(),
            layout.phases(),
            np.array(sizes, np.intp),
            np.array(table, np.intp),
            np.concatenate(ats),
            np.concatenate(places_of),
        ),
        space=align_up(2 * scatter_at + scatter_elements),
        lists=_LIST * (segments + 2 * sweeps),
        items=blocks * geometry.x_shape[0] * groups,
        isa=isa,
        amounts=amounts,
        covers=written == math.prod(conv_axis.output_size for conv_axis in conv_axes),
    )


def _weights_plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> DepthwiseTables:
    itemsize = dtype.itemsize
    groups, channels, taps = geometry.groups, geometry.w_shape[1], geometry.taps
    filters, images = geometry.w_shape[0] // groups, geometry.x_shape[0]
    conv_axes = forward_axes(geometry)
    isa, lanes = _vectors(dtype, conv_axes[2].out)
    layout = _layout(conv_axes, channels, itemsize, lanes)
    pitch = layout.channel_pitch(itemsize)
    shape = tuple(conv_axis.taps for conv_axis in conv_axes)
    shared = conv_axes[1].stride == conv_axes[1].dilation == 1
    places = kernel_weights(conv_axes, geometry.kernel).reshape(shape)
    at, first, high, step = _entries(layout.taps().reshape(shape), places, shared, 1, pitch, taps)
    places = (first[:, None] + np.arange(high) * step).ravel()
    blocks = images * math.prod(-(-conv_axis.out // n) for conv_axis, n in zip(conv_axes, layout.block, strict=True))
    totals = filters * channels * taps * lanes
    block_groups = max(1, min(_TOTALS_BYTES // (totals * itemsize), groups // (8 * threads)))
    items = -(-groups // block_groups)
    parts = 1
    if items % threads and items < 4 * threads:
        parts = min(threads, blocks)
    dout_at = align_up(channels * pitch + _LANES_PAST * lanes + layout.row)
    short = layout.block[1] * lanes if conv_axes[2].out % layout.block[2] or layout.block[2] < lanes else 0
    totals_at = align_up(2 * dout_at + short + lanes)
    sizes = [images, groups, block_groups, filters, channels, pitch, len(at), high, parts, dout_at, totals_at]
    amounts = {kind: images * groups * channels * amount for kind, amount in _copies(layout, lanes).items()}
    product, tiles = _tiles(layout, partial(_counts.dots, lanes=lanes, high=high, entries=len(at)))
    times = images * groups * filters * channels * conv_axes[0].out
    amounts |= {
        "product": times * product,
        "tiles": times * tiles,
        "totals": float(groups * filters * channels * taps * parts),
    }
    return DepthwiseTables(
        (layout.axes(), layout.phases(), np.array(sizes, np.intp), at, places),
        space=align_up(totals_at + block_groups * totals),
        lists=_LIST * _segments(layout),
        items=items * parts,
        isa=isa,
        amounts=amounts,
        parts=parts,
    )
