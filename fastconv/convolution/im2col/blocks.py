"""The plan of `im2col` for images whose columns would take much memory: the columns are computed in blocks.

With stride 1, the columns take as many bytes as the image, times the number of taps. If the columns of one image would
take more than `MOST_BYTES` bytes, they are computed in blocks. A block has the columns of some output positions and, if
the kernel is large, only the rows of some channels and taps. Each block is a convolution of a part of the image. The
products of blocks of the same positions are added up.

In the shapes of matrix products, `filters` is the number of filters of a group. `rows` is the number of channels times
the number of taps, in one group of a block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.convolution import gemm as _gemm
from fastconv.convolution.base import add_bias
from fastconv.convolution.im2col.work import product_bytes, work_of
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import ConvGeometry
from fastconv.lowering.columns import lower, scatter
from fastconv.runtime import workspace as _workspace
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The columns of an image are divided into blocks if they take more than this number of bytes.
MOST_BYTES = 1 << 25
#: The approximate size, in bytes, of a block of columns with its weights and outputs, which should stay in cache.
_BLOCK_BYTES = 1 << 21
#: A block of columns is divided along positions only if it has more positions than this, and along rows only if it has
#: more rows than this, because products of small matrices are slow.
_FEW = 256
#: A block of columns that takes more bytes than this is always divided, even if it has at most `_FEW` positions and
#: rows.
_HARD_BYTES = 1 << 25


@dataclass(frozen=True)
class Cut:
    """The size of the blocks of columns into which a convolution is divided.

    A block has `groups` groups, and `channels` channels of each group. Along each axis, it has `kernel` taps and `outs`
    output positions. The last block along an axis may be smaller. `geometry` describes the whole convolution.
    """

    groups: int
    channels: int
    kernel: tuple[int, ...]
    outs: tuple[int, ...]
    geometry: ConvGeometry

    @property
    def filters(self) -> int:
        """The number of filters of a group."""
        return self.geometry.w_shape[0] // self.geometry.groups

    @property
    def rows(self) -> int:
        """The number of rows that a block of columns has for each group."""
        return self.channels * math.prod(self.kernel)

    @property
    def positions(self) -> int:
        """The number of output positions of a block. Each position is a column."""
        return math.prod(self.outs)

    @property
    def whole_rows(self) -> bool:
        """Whether a block has all channels and taps of its groups. Otherwise, products of blocks are added up."""
        return (self.channels, self.kernel) == (self.geometry.w_shape[1], self.geometry.kernel)

    @property
    def cells(self) -> int:
        """The largest number of elements that a block reads in one channel of the image."""
        spans = zip(self.geometry.axes, self.outs, self.kernel, strict=True)
        return math.prod(
            min((out - 1) * axis.stride + (k - 1) * axis.dilation + 1, axis.size) for axis, out, k in spans
        )

    def sizes(self, op: Op) -> tuple[int, int, int, int]:
        """Return the numbers of elements of the four arrays in the workspace of a block.

        The four arrays are the columns, the outputs, a copy of the weights, and a part of the image.
        """
        sums = 2 if op == "forward" and not self.whole_rows else 1
        copied = op == "backward_weights" or not self.whole_rows
        return (
            self.groups * self.rows * self.positions,
            sums * self.groups * self.filters * self.positions,
            self.groups * self.filters * self.rows if copied else 0,
            self.groups * self.channels * self.cells if op == "backward_data" else 0,
        )

    @property
    def blocks_of_positions(self) -> int:
        """The number of blocks into which the positions of an image are divided."""
        return math.prod(-(-axis.out // n) for axis, n in zip(self.geometry.axes, self.outs, strict=True))

    @property
    def blocks_of_rows(self) -> int:
        """The number of blocks into which the groups, channels and taps are divided."""
        taps = math.prod(-(-whole // n) for whole, n in zip(self.geometry.kernel, self.kernel, strict=True))
        return -(-self.geometry.groups // self.groups) * -(-self.geometry.w_shape[1] // self.channels) * taps


def cut(op: Op, geometry: ConvGeometry, dtype: np.dtype) -> Cut | None:
    """Return the size of the blocks of columns, or None if the columns of an image are small enough for one block."""
    if math.prod(geometry.cols_shape[1:]) * dtype.itemsize <= MOST_BYTES or geometry.pointwise:
        return None
    return plans.find(_cut, op, geometry, dtype.itemsize)


def _cut(op: Op, geometry: ConvGeometry, itemsize: int) -> Cut:
    # While a block is too large, halve its number of positions, beginning with the first axis. When only a few
    # positions are left, halve the number of groups, then the number of channels, and then the number of taps.
    rows = [geometry.groups, geometry.w_shape[1], *geometry.kernel]
    outs = list(geometry.out_spatial)
    while True:
        found = Cut(rows[0], rows[1], tuple(rows[2:]), tuple(outs), geometry)
        columns, outputs, weights, _ = sizes = found.sizes(op)
        few_rows, few_positions = math.prod(rows) <= _FEW, math.prod(outs) <= _FEW
        whole = sum(sizes) * itemsize
        if whole <= _BLOCK_BYTES:
            return found
        if not few_positions:
            _halve(outs)
        elif not few_rows and columns + weights > outputs:
            _halve(rows)
        elif whole > _HARD_BYTES and math.prod(outs) > 1:
            _halve(outs)
        elif whole > _HARD_BYTES and math.prod(rows) > 1:
            _halve(rows)
        else:
            return found


def _halve(sizes: list[int]) -> None:
    first = next(i for i, n in enumerate(sizes) if n > 1)
    sizes[first] = -(-sizes[first] // 2)


@dataclass(frozen=True)
class Part:
    """One block of columns: slices of the whole convolution, and the geometry of the block as a convolution of its own.

    `outs` has the output positions of the block, and `cells` the image elements that the block reads.
    """

    groups: slice
    channels: slice
    taps: tuple[slice, ...]
    outs: tuple[slice, ...]
    cells: tuple[slice, ...]
    geometry: ConvGeometry
    #: Whether the block is the first, and whether it is the last, of the blocks whose products are added up.
    first: bool
    last: bool


class BlocksPlan(Plan):
    """Computes all blocks of columns of all images, one after another, in the same workspace."""

    algorithm = "im2col"
    own_threads, needs_blas = False, True

    def __init__(self, case: Case, cut: Cut) -> None:
        super().__init__(case)
        self.cut, self.threads = cut, case.threads
        self._geometries: dict[Any, ConvGeometry] = {}

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the workspace of a block of columns, and of the workspace of its product."""
        cut, case = self.cut, self.case
        product = product_bytes(case, cut.groups, cut.filters, cut.rows, cut.positions)
        return sum(cut.sizes(case.op)) * case.dtype.itemsize + product

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The amounts of work of all blocks of columns of all images."""
        cut = self.cut
        blocks = self.case.geometry.x_shape[0] * cut.blocks_of_positions * cut.blocks_of_rows
        return work_of(self.case, cut.rows, cut.positions, blocks, 1)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute the result of the op."""
        if self.case.op == "forward":
            self._forward(first, second, third, result)
        elif self.case.op == "backward_data":
            self._backward_data(first, second, result)
            add_bias(third, result)
        else:
            self._backward_weights(first, second, result)

    def _forward(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, out: np.ndarray) -> None:
        """Compute [filters x rows] @ [rows x positions] for each block of columns and each group.

        Blocks of the same groups and positions differ in their channels or taps. Their products are added up.
        """
        groups, outs = self.cut.geometry.groups, self._grouped(out)
        weights, bias = self._weights(w), None if b is None else b.reshape(groups, -1, 1)
        with self._space() as (space, total, _, _):
            sums, more = total.reshape(2, -1) if not self.cut.whole_rows else (total, total)
            for n, part in itertools.product(range(len(x)), self._parts()):
                target = self._matrix(sums if part.first else more, part)
                _gemm.product(self._of(weights, part), self._columns(x, n, part, space), target, self.threads)
                result = self._matrix(sums, part)
                if not part.first:
                    result += target
                if part.last:
                    if bias is not None:
                        result += bias[part.groups]
                    place = outs[n, part.groups]
                    where: Any = (..., *part.outs)
                    place[where] = result.reshape(place[where].shape)

    def _backward_data(self, dout: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
        """Compute [rows x filters] @ [filters x positions] for each block of columns and each group. Add the result to
        the elements of dx that the block covers.
        """
        weights, gradients = self._weights(w), self._grouped(dout)
        dx.fill(0)
        with self._space() as (space, staged, _, image):
            for n, part in itertools.product(range(len(dx)), self._parts()):
                gradient = self._gradient(gradients, n, part, staged)
                if not math.prod(part.geometry.x_shape):  # the block reads only padding
                    continue
                columns = self._matrix(space, part, rows=True)
                _gemm.product(self._of(weights, part).transpose(0, 2, 1), gradient, columns, self.threads)
                cells = image[: math.prod(part.geometry.x_shape)].reshape(part.geometry.x_shape)
                scatter(columns.reshape(1, -1, columns.shape[2]), cells, part.geometry, self.threads)
                index: Any = (n, self._channels(part), *part.cells)
                dx[index] += cells[0]

    def _backward_weights(self, x: np.ndarray, dout: np.ndarray, dw: np.ndarray) -> None:
        """Compute [filters x positions] @ [positions x rows] for each block of columns and each group.

        The products of all blocks of all images are added up in the same order for any number of threads.
        """
        total, gradients = self._weights(dw), self._grouped(dout)
        dw.fill(0)
        with self._space() as (space, staged, some, _):
            for n, part in itertools.product(range(len(x)), self._parts()):
                gradient, columns = self._gradient(gradients, n, part, staged), self._columns(x, n, part, space)
                index: Any = (part.groups, slice(None), part.channels, *part.taps)
                place = total[index]
                target = some[: place.size].reshape(*gradient.shape[:2], columns.shape[1])
                _gemm.product(gradient, columns.transpose(0, 2, 1), target, self.threads)
                place += target.reshape(place.shape)

    @contextmanager
    def _space(self) -> Iterator[list[np.ndarray]]:
        """Yield the four arrays in the workspace of a block: columns, outputs, weights, and a part of the image."""
        sizes = self.cut.sizes(self.case.op)
        with _workspace.workspace("a block of columns", (sum(sizes),), self.case.dtype) as space:
            yield np.split(space, list(itertools.accumulate(sizes))[:-1])

    def _parts(self) -> Iterator[Part]:
        """Yield all blocks of columns of an image. Blocks of the same groups and positions are consecutive."""
        cut, whole = self.cut, self.cut.geometry
        of_outs = [_slices(axis.out, n) for axis, n in zip(whole.axes, cut.outs, strict=True)]
        of_taps = [_slices(k, n) for k, n in zip(whole.kernel, cut.kernel, strict=True)]
        sums = list(itertools.product(_slices(whole.w_shape[1], cut.channels), *of_taps))
        for outs in itertools.product(*of_outs):
            for groups in _slices(whole.groups, cut.groups):
                for i, (channels, *taps) in enumerate(sums):
                    axes, cells = zip(*map(_piece, whole.axes, outs, taps), strict=True)
                    count = (groups.stop - groups.start) * (channels.stop - channels.start)
                    geometry = self._geometry(count, axes)
                    yield Part(groups, channels, tuple(taps), outs, cells, geometry, i == 0, i + 1 == len(sums))

    def _geometry(self, channels: int, axes: tuple[Axis, ...]) -> ConvGeometry:
        """Return the geometry of a block. Blocks of equal sizes share one geometry, so that its tables are made only
        once.
        """
        key = channels, axes
        found = self._geometries.get(key)
        if found is None:
            if len(self._geometries) >= _FEW:
                self._geometries.clear()
            found = self._geometries[key] = self.cut.geometry.derive(
                x_shape=(1, channels, *(axis.size for axis in axes)),
                w_shape=(1, channels, *(axis.k for axis in axes)),
                axes=axes,
                groups=1,
            )
        return found

    def _channels(self, part: Part) -> slice:
        """Return the slice of the channels of the image that a block reads."""
        each, first = self.cut.geometry.w_shape[1], part.groups.start
        if part.channels == slice(0, each):
            return slice(first * each, part.groups.stop * each)
        return slice(first * each + part.channels.start, first * each + part.channels.stop)

    def _grouped(self, out: np.ndarray) -> np.ndarray:
        """Return a view of outputs with shape (N, groups, filters of a group, *out_spatial)."""
        return out.reshape(len(out), self.cut.geometry.groups, -1, *out.shape[2:])

    def _weights(self, w: np.ndarray) -> np.ndarray:
        """Return a view of weights with shape (groups, filters of a group, channels of a group, *kernel)."""
        return w.reshape(self.cut.geometry.groups, -1, *w.shape[1:])

    def _of(self, weights: np.ndarray, part: Part) -> np.ndarray:
        """Return the weights of a block of columns, with shape (groups, filters of a group, channels times taps).

        The result is a copy, unless the block has all weights of its groups.
        """
        index: Any = (part.groups, slice(None), part.channels, *part.taps)
        some = weights[index]
        return some.reshape(*some.shape[:2], -1)

    def _matrix(self, space: np.ndarray, part: Part, rows: bool = False) -> np.ndarray:
        """Return the beginning of `space` as an array (groups, n, positions) for a block of columns. If `rows` is true,
        n is the number of channels times taps of a group. Otherwise, n is the number of filters of a group.
        """
        groups = part.groups.stop - part.groups.start
        high = math.prod(part.geometry.w_shape[1:]) // groups if rows else self.cut.filters
        shape = groups, high, part.geometry.positions
        return space[: math.prod(shape)].reshape(shape)

    def _columns(self, x: np.ndarray, n: int, part: Part, space: np.ndarray) -> np.ndarray:
        """Compute the columns of a block, and return them with shape (groups, channels times taps, positions)."""
        columns = self._matrix(space, part, rows=True)
        index: Any = (slice(n, n + 1), self._channels(part), *part.cells)
        cells = x[index]
        lower(cells, columns.reshape(1, -1, columns.shape[2]), part.geometry, self.threads)
        return columns

    def _gradient(self, gradients: np.ndarray, n: int, part: Part, staged: np.ndarray) -> np.ndarray:
        """Copy the part of dout that belongs to a block to `staged`. Return it with shape (groups, filters of a group,
        positions).

        Only the first of several blocks of the same groups and positions copies dout. The other blocks use the same
        copy.
        """
        matrix = self._matrix(staged, part)
        if part.first:
            index: Any = (n, part.groups, slice(None), *part.outs)
            some = gradients[index]
            matrix.reshape(some.shape)[...] = some
        return matrix


def _slices(n: int, step: int) -> list[slice]:
    return [slice(begin, min(begin + step, n)) for begin in range(0, n, step)]


def _piece(axis: Axis, outs: slice, taps: slice) -> tuple[Axis, slice]:
    """Return an axis of the convolution of a block, and the slice of the image that the block reads along this axis.

    The slice is empty if the block reads only padding.
    """
    count, k = outs.stop - outs.start, taps.stop - taps.start
    start = outs.start * axis.stride + taps.start * axis.dilation - axis.lo
    span = (count - 1) * axis.stride + (k - 1) * axis.dilation + 1
    first, stop = min(max(start, 0), axis.size), min(max(start + span, 0), axis.size)
    size = max(stop - first, 0)
    lo = max(first - start, 0)
    return Axis(size, k, axis.stride, lo, max(span - lo - size, 0), axis.dilation, count), slice(first, first + size)
