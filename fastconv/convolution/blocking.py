"""The memory layout of padded blocks, which `implicit`, `depthwise` and `sparse` read.

A padded block is a copy of a part of an image, with its padding. For backward_data, it is a copy of a part of dout. The
array that is copied is called the source.

Along an axis with stride s, a block is split into s stride phases. Phase p has the padded elements p, p + s, p + 2 * s
and so on. At each tap, neighbouring outputs then read neighbouring elements of one phase. ``packing/patches.pxd``
explains the arithmetic.

The gradient of the image, dx, has stride phases, too. With stride s, phase p has the elements p, p + s, p + 2 * s and
so on of dx.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from fastconv.convolution.plan import Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The bytes of a cache line. Each channel of a padded block takes an odd number of cache lines, so that neighbouring
#: channels do not compete for the same cache sets.
_LINE = 64


@dataclass(frozen=True)
class ConvAxis:
    """One axis of a convolution: at tap t, output o reads index ``o * stride + t * dilation - lo`` of the source.

    The source is the image or, for backward_data, dout. `size` is its length without padding, and `out` the number of
    outputs. Output o is written to index ``output_offset + o * output_stride`` of a result of length `output_size`. The
    weight of tap t has index ``weights[t]`` in the kernel.

    If `unrolled` is true, a padded block stores one copy of each row for each tap. Element o of a copy is the element
    that output o reads at this tap.
    """

    size: int
    stride: int
    lo: int
    dilation: int
    out: int
    output_offset: int
    output_stride: int
    output_size: int
    weights: tuple[int, ...]
    unrolled: bool = False

    @cached_property
    def taps(self) -> int:
        """The number of taps along this axis."""
        return len(self.weights)

    @cached_property
    def phases(self) -> list[int]:
        """The first padded index of each stride phase that some tap reads, in ascending order.

        For example, three taps with dilation 1 and stride 2 read the phases [0, 1]. If `unrolled` is true, each tap has
        a phase of its own.
        """
        steps = range(0, self.taps * self.dilation, self.dilation)
        return list(steps) if self.unrolled else sorted({step % self.stride for step in steps})

    @cached_property
    def halo(self) -> int:
        """The number of elements of a stride phase minus the number of outputs: for 3 taps with stride 1, it is 2."""
        return 0 if self.unrolled else (self.taps - 1) * self.dilation // self.stride

    @cached_property
    def kind(self) -> ConvAxis:
        """A copy of this axis in which `output_offset` and `weights` are zeros. Axes with equal copies can share a
        `Layout`.
        """
        return replace(self, output_offset=0, weights=(0,) * self.taps)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where output 0 reads at each tap, as two arrays with one element per tap.

        The first array has the stride phase, as an index into `phases`. The second array has the index within the
        phase.
        """
        steps = np.arange(self.taps) * self.dilation
        if self.unrolled:
            return np.arange(self.taps), np.zeros(self.taps, np.intp)
        return np.searchsorted(self.phases, steps % self.stride), steps // self.stride

    @property
    def leaves_source(self) -> bool:
        """Whether an output reads padding at some tap."""
        last = (self.out - 1) * self.stride + (self.taps - 1) * self.dilation - self.lo
        return self.lo > 0 or last >= self.size


UNIT_AXIS = ConvAxis(1, 1, 0, 1, 1, 0, 1, 1, (0,))


def lift(conv_axes: Sequence[ConvAxis]) -> tuple[ConvAxis, ConvAxis, ConvAxis]:
    """Return three axes: `conv_axes`, preceded by axes of size 1 if there are fewer than three."""
    one, two, three = (*(UNIT_AXIS,) * (3 - len(conv_axes)), *conv_axes)
    return one, two, three


def forward_axes(geometry: ConvGeometry) -> tuple[ConvAxis, ConvAxis, ConvAxis]:
    """Return the three axes (depth, height, width) of the forward convolution."""
    conv_axes = []
    for axis in geometry.axes:
        size, k, stride, lo, dilation, out = axis.row()
        conv_axes.append(ConvAxis(size, stride, lo, dilation, out, 0, 1, out, tuple(range(k))))
    return lift(conv_axes)


def backward_axes(axis_row: tuple[int, ...]) -> list[ConvAxis]:
    """Return one axis for each stride phase of dx. Convolving dout along this axis gives this phase.

    Tap t contributes to element i of dx only if ``i + lo - t * dilation`` is a multiple of the stride. So each stride
    phase of dx uses every `period`-th tap. For example, with stride 2 and dilation 1, one phase uses the even taps, and
    the other phase the odd taps. The taps are in reverse order, because the kernel is flipped.
    """
    size, k, stride, lo, dilation, out = axis_row
    period = stride // math.gcd(stride, dilation)
    step = period * dilation // stride
    conv_axes = []
    for tap in range(min(period, k)):
        # Only this tap and every `period`-th tap after it contribute to this stride phase of dx.
        phase = (tap * dilation - lo) % stride
        if phase >= size:
            continue
        weights = tuple(range(tap, k, period))[::-1]
        first = (phase + lo - tap * dilation) // stride - (len(weights) - 1) * step
        count = (size - phase - 1) // stride + 1
        conv_axes.append(ConvAxis(out, 1, -first, step, count, phase, stride, size, weights))
    return conv_axes


@dataclass(frozen=True)
class Problem:
    """A convolution, described as one matrix product per group.

    The left factor has `rows` rows of weights. The right factor has `channels` channels of the image or, for
    backward_data, of dout.

    In the array of weights, `row_step` is the distance in elements between neighbouring rows, and `channel_step` the
    distance between neighbouring channels of a row.
    """

    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]
    images: int
    groups: int
    rows: int
    row_step: int
    channels: int
    channel_step: int
    kernel: tuple[int, ...]
    pointwise: bool

    @property
    def leaves_source(self) -> bool:
        """Whether an output reads padding at some tap."""
        return any(conv_axis.leaves_source for conv_axis in self.conv_axes)


def problems(op: Op, geometry: ConvGeometry) -> list[Problem]:
    """Return the matrix products of an op. backward_data takes one product for each stride phase of dx. Every other op
    takes a single product.
    """
    if op != "backward_data":
        return [_problem(op, geometry, forward_axes(geometry))]
    per_axis = [backward_axes(axis.row()) for axis in geometry.axes]
    return [_problem(op, geometry, lift(axes)) for axes in itertools.product(*per_axis)]


def problem_count(op: Op, geometry: ConvGeometry) -> int:
    """Return an upper bound of ``len(problems(op, geometry))``, without making the list.

    The upper bound may be too high, because it also counts stride phases of dx that are empty.
    """
    if op != "backward_data":
        return 1
    rows = (axis.row() for axis in geometry.axes)
    return math.prod(min(k, stride // math.gcd(stride, dilation)) for _, k, stride, _, dilation, _ in rows)


def problem_kinds(op: Op, geometry: ConvGeometry) -> list[tuple[Problem, int]]:
    """Return one `Problem` of each kind, with the number of problems of this kind.

    Problems of a kind differ only in the offsets of their results and weights. backward_data may have as many problems
    as the kernel has taps, but only a few kinds.
    """
    if op != "backward_data":
        return [(_problem(op, geometry, forward_axes(geometry)), 1)]
    per_axis = []
    for axis in geometry.axes:
        kinds: dict[ConvAxis, tuple[ConvAxis, int]] = {}
        for conv_axis in backward_axes(axis.row()):
            kind = conv_axis.kind
            first, count = kinds.get(kind, (conv_axis, 0))
            kinds[kind] = first, count + 1
        per_axis.append(list(kinds.values()))
    return [
        (_problem(op, geometry, lift([conv_axis for conv_axis, _ in axes])), math.prod(count for _, count in axes))
        for axes in itertools.product(*per_axis)
    ]


def covers(geometry: ConvGeometry) -> bool:
    """Return whether the stride phases together compute every element of dx.

    The stride phases leave out image elements that no output reads. For example, with kernel 2, stride 3 and no
    padding, no output reads the elements 2, 5, 8 and so on.
    """
    return plans.find(_covers, geometry)


def _covers(geometry: ConvGeometry) -> bool:
    return all(sum(conv_axis.out for conv_axis in backward_axes(axis.row())) == axis.size for axis in geometry.axes)


def _problem(op: Op, geometry: ConvGeometry, conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]) -> Problem:
    groups, taps = geometry.groups, geometry.taps
    filters, channels = geometry.w_shape[0] // groups, geometry.w_shape[1]
    sizes = filters, channels * taps, channels, taps
    if op == "backward_data":
        sizes = channels, taps, filters, channels * taps
    return Problem(conv_axes, geometry.x_shape[0], groups, *sizes, geometry.kernel, geometry.pointwise)


@dataclass(frozen=True)
class Layout:
    """The memory layout of a padded block, which is a copy of a part of an image with its padding.

    A block has the elements that ``block[i]`` outputs along axis i read, for `images` images. Neighbouring rows of the
    block are `row` elements apart.
    """

    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]
    images: int
    block: tuple[int, int, int]
    row: int

    def _cells(self, i: int) -> int:
        return self.block[i] + self.conv_axes[i].halo

    @cached_property
    def phase_pitches(self) -> tuple[int, int, int]:
        """The distance, in elements, between neighbouring stride phases along each axis."""
        _, h, w = self.conv_axes
        of_w = self._cells(1) * self.row
        of_h = len(w.phases) * of_w
        return self._cells(0) * len(h.phases) * of_h, of_h, of_w

    @cached_property
    def pitches(self) -> tuple[int, int, int]:
        """The distance in memory, in elements, between neighbours of a stride phase along each axis."""
        return len(self.conv_axes[1].phases) * self.phase_pitches[1], self.row, 1

    @cached_property
    def image_pitch(self) -> int:
        """The distance, in elements, between neighbouring images of a block."""
        return len(self.conv_axes[0].phases) * self.phase_pitches[0]

    def channel_pitch(self, itemsize: int) -> int:
        """Return the distance, in elements, between neighbouring channels of a block."""
        line = _LINE // itemsize
        lines = ceil_div(self.images * self.image_pitch, line)
        return (lines + 1 - lines % 2) * line

    def phases(self) -> np.ndarray:
        """Return an array with one row for each axis: its `ConvAxis.phases`, with zeros at the end of shorter rows."""
        per_axis = [conv_axis.phases for conv_axis in self.conv_axes]
        table = np.zeros((3, max(map(len, per_axis))), np.intp)
        for row, phases in zip(table, per_axis, strict=True):
            row[: len(phases)] = phases
        return table

    def taps(self) -> np.ndarray:
        """Return, for each tap in C order, the offset in the padded block of the element that output 0 reads."""
        offsets = []
        for i, conv_axis in enumerate(self.conv_axes):
            phase_index, cells = conv_axis.cells()
            offsets.append(phase_index * self.phase_pitches[i] + cells * self.pitches[i])
        d, h, w = offsets
        return (d[:, None, None] + h[:, None] + w).ravel()


def shared_row(conv_axis: ConvAxis) -> int:
    """Return the smallest legal distance between the starts of neighbouring padded rows.

    Neighbouring rows may overlap where both have zeros. So the padding at the end of a row may also be the padding at
    the beginning of the next row.
    """
    cells = conv_axis.out + conv_axis.halo
    before, after = [], []
    for phase in conv_axis.phases:
        start = phase - conv_axis.lo
        a = min(max(-(start // conv_axis.stride), 0), cells) if start < 0 else 0
        b = min(max((conv_axis.size - start - 1) // conv_axis.stride + 1, 0), cells)
        before.append(a)
        after.append(max(b, 0))
    return max(cells - min(before), max(after), conv_axis.out)


def kernel_weights(conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis], kernel: Sequence[int]) -> np.ndarray:
    """Return, for each tap of `Layout.taps`, the index of its weight in the kernel."""
    _, high, wide = (*(1,) * (3 - len(kernel)), *kernel)
    d, h, w = (np.array(conv_axis.weights, np.intp) for conv_axis in conv_axes)
    return ((d[:, None, None] * high + h[:, None]) * wide + w).ravel()


def ceil_div(n: int, block: int) -> int:
    """Return the number of blocks of size `block` that cover n elements."""
    return -(-n // block)


def balanced_block(n: int, most: int, unit: int = 1) -> int:
    """Return the block size that divides n elements into blocks of about equal size.

    The size of a block is at most `most`, rounded up to a multiple of `unit`. For example, 10 elements with `most` 8
    give blocks of 5. If one block suffices, its size is n.
    """
    return min(ceil_div(n, ceil_div(n, max(most, 1)) * unit) * unit, n)


def align_up(n: int, unit: int = 16) -> int:
    """Return n rounded up to a multiple of `unit`. The default is the number of float32 elements in a cache line."""
    return ceil_div(n, unit) * unit
