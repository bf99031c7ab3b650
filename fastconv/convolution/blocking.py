"""The layout of padded blocks of an image, which the kernels of `implicit`, `depthwise` and `sparse` read.

A cell is an element of one channel of an image, and a tap is a cell of the kernel. The source of a product is the image
or, for backward_data, dout. Along an axis with stride s, the padded cells of the source are split into s phases, by
their index modulo s. So neighbouring outputs read neighbouring cells of a phase at every tap. ``packing/patches.pxd``
explains the arithmetic.

The gradient of the image has stride phases, too: the cells of dx with equal index modulo the stride.
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

#: Two columns of `Layout.axes`. The tables of stride phases with equal sizes differ only in these columns.
LO, OUTPUT_OFFSET = 2, 9
#: The bytes of a cache line. A channel of a block takes an odd number of cache lines, so that neighbouring channels
#: are in different cache sets.
_LINE = 64


@dataclass(frozen=True)
class ConvAxis:
    """One axis of a convolution: at tap t, output o reads index ``o * stride + t * dilation - lo`` of the source.

    `size` is the length of the source without padding, and `out` the number of outputs. Output o is written to index
    ``output_offset + o * output_stride`` of a result of length `output_size`. The weight of tap t has index
    ``weights[t]`` in the kernel. With `unrolled`, a padded block has a copy of each row for every tap. The copy has one
    element for each output, so that neighbouring outputs read neighbouring elements.
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
        """The index of the first padded cell of each stride phase that a tap reads, in ascending order."""
        steps = range(0, self.taps * self.dilation, self.dilation)
        return list(steps) if self.unrolled else sorted({step % self.stride for step in steps})

    @cached_property
    def halo(self) -> int:
        """The number of cells that a stride phase has in addition to one cell for each output."""
        return 0 if self.unrolled else (self.taps - 1) * self.dilation // self.stride

    @cached_property
    def kind(self) -> ConvAxis:
        """A copy of this axis in which `output_offset` and `weights` are zeros. Axes with equal copies have equal
        layouts.
        """
        return replace(self, output_offset=0, weights=(0,) * self.taps)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Return two arrays with an element for each tap: the index in `phases` of the stride phase that the tap reads,
        and the index within this phase of the cell that output 0 reads.
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
    """Return three axes: `conv_axes`, with axes of size 1 before them if there are fewer than three."""
    one, two, three = (*(UNIT_AXIS,) * (3 - len(conv_axes)), *conv_axes)
    return one, two, three


def forward_axes(geometry: ConvGeometry) -> tuple[ConvAxis, ConvAxis, ConvAxis]:
    """Return the axes of the convolution of the image with the kernel."""
    conv_axes = []
    for axis in geometry.axes:
        size, k, stride, lo, dilation, out = axis.row()
        conv_axes.append(ConvAxis(size, stride, lo, dilation, out, 0, 1, out, tuple(range(k))))
    return lift(conv_axes)


def backward_axes(axis_row: tuple[int, ...]) -> list[ConvAxis]:
    """Return the axes of the convolutions of dout that compute dx: one axis for each stride phase of dx.

    Element ``i = phase + stride * o`` of dx is a sum over the taps t for which ``i + lo - t * dilation`` is a multiple
    of the stride. Every `period`-th tap meets this condition. The kernel is flipped, so the taps are in reverse order.
    """
    size, k, stride, lo, dilation, out = axis_row
    period = stride // math.gcd(stride, dilation)
    step = period * dilation // stride
    conv_axes = []
    for tap in range(min(period, k)):
        # This tap and every `period`-th tap after it contribute to the elements of dx whose index modulo the stride is
        # `phase`.
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
    """A convolution as a matrix product for each group: `rows` rows of weights times `channels` channels of a source.

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
    """Return the matrix products of an op: one product of weights and dout for each stride phase of dx if the op is
    backward_data, otherwise a single product.
    """
    if op != "backward_data":
        return [_problem(op, geometry, forward_axes(geometry))]
    per_axis = [backward_axes(axis.row()) for axis in geometry.axes]
    return [_problem(op, geometry, lift(axes)) for axes in itertools.product(*per_axis)]


def problem_count(op: Op, geometry: ConvGeometry) -> int:
    """Return an upper bound of ``len(problems(op, geometry))``, without making the problems.

    The bound also counts stride phases that have no element of dx.
    """
    if op != "backward_data":
        return 1
    rows = (axis.row() for axis in geometry.axes)
    return math.prod(min(k, stride // math.gcd(stride, dilation)) for _, k, stride, _, dilation, _ in rows)


def problem_kinds(op: Op, geometry: ConvGeometry) -> list[tuple[Problem, int]]:
    """Return one problem of each kind, with the number of problems of that kind among all `problems`.

    Problems of a kind differ only in the offsets of their results and weights. There may be as many problems as taps,
    but there are only a few kinds.
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
    """Return whether the stride phases compute every element of dx. They do not compute elements that no output
    reads.
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
    """The layout of a padded block in memory: all distances are numbers of elements.

    A block has the cells that ``block[i]`` outputs along axis i read, in each of `images` images. The rows of the block
    are `row` elements apart.
    """

    conv_axes: tuple[ConvAxis, ConvAxis, ConvAxis]
    images: int
    block: tuple[int, int, int]
    row: int

    def _cells(self, i: int) -> int:
        return self.block[i] + self.conv_axes[i].halo

    @property
    def phase_pitches(self) -> tuple[int, int, int]:
        """The distance, in elements, between neighbouring stride phases along each axis."""
        _, h, w = self.conv_axes
        of_w = self._cells(1) * self.row
        of_h = len(w.phases) * of_w
        return self._cells(0) * len(h.phases) * of_h, of_h, of_w

    @property
    def pitches(self) -> tuple[int, int, int]:
        """The distance, in elements, between neighbouring cells of a stride phase along each axis."""
        return len(self.conv_axes[1].phases) * self.phase_pitches[1], self.row, 1

    @property
    def image_pitch(self) -> int:
        """The distance, in elements, between neighbouring images of a block."""
        return len(self.conv_axes[0].phases) * self.phase_pitches[0]

    def channel_pitch(self, itemsize: int) -> int:
        """Return the distance, in elements, between neighbouring channels of a block."""
        line = _LINE // itemsize
        lines = ceil_div(self.images * self.image_pitch, line)
        return (lines + 1 - lines % 2) * line

    def axes(self) -> np.ndarray:
        """Return the table that ``read_conv_axes`` of ``packing/patches.pxd`` reads."""
        rows = [
            (
                conv_axis.size,
                conv_axis.stride,
                conv_axis.lo,
                conv_axis.out,
                self.block[i],
                conv_axis.halo,
                len(conv_axis.phases),
                self.phase_pitches[i],
                self.pitches[i],
                conv_axis.output_offset,
                conv_axis.output_stride,
                conv_axis.output_size,
            )
            for i, conv_axis in enumerate(self.conv_axes)
        ]
        return np.array(rows, np.intp)

    def phases(self) -> np.ndarray:
        """Return `ConvAxis.phases` of each axis as a row of an array. Shorter rows end in zeros."""
        per_axis = [conv_axis.phases for conv_axis in self.conv_axes]
        table = np.zeros((3, max(map(len, per_axis))), np.intp)
        for row, phases in zip(table, per_axis, strict=True):
            row[: len(phases)] = phases
        return table

    def taps(self) -> np.ndarray:
        """Return for each tap of the kernel, in C order, the offset in elements of the cell that output 0 reads."""
        offsets = []
        for i, conv_axis in enumerate(self.conv_axes):
            phase_index, cells = conv_axis.cells()
            offsets.append(phase_index * self.phase_pitches[i] + cells * self.pitches[i])
        d, h, w = offsets
        return (d[:, None, None] + h[:, None] + w).ravel()


def shared_row(conv_axis: ConvAxis) -> int:
    """Return the smallest distance between neighbouring padded rows for which the rows overlap only in zeros.

    The rows share padding: the padding at the end of a row is also the padding at the beginning of the next row.
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
    """Return for each tap of `Layout.taps` the index of its weight in the kernel."""
    _, high, wide = (*(1,) * (3 - len(kernel)), *kernel)
    d, h, w = (np.array(conv_axis.weights, np.intp) for conv_axis in conv_axes)
    return ((d[:, None, None] * high + h[:, None]) * wide + w).ravel()


def ceil_div(n: int, block: int) -> int:
    """Return the number of blocks of size `block` that cover n elements."""
    return -(-n // block)


def balanced_block(n: int, most: int, unit: int = 1) -> int:
    """Return the size of the blocks into which n elements are divided. All blocks have about this size.

    The size is at most `most`, rounded up to a multiple of `unit`. It is n if a single block suffices.
    """
    return min(ceil_div(n, ceil_div(n, max(most, 1)) * unit) * unit, n)


def align_up(n: int, unit: int = 16) -> int:
    """Return n rounded up to a multiple of `unit`. The default of `unit` aligns the arrays in a workspace."""
    return ceil_div(n, unit) * unit
