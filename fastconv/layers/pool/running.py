"""Pooling axis by axis, for windows of any size. This module plans the steps of the kernel ``pool/pool_running.h``.

The kernel makes windows of k cells along an axis in about log2(k) steps. Each step joins shorter windows. So the time
of a pooling hardly grows with the size of its windows. In this module, sources are the cells that the kernel reads,
arrivals are sources in the order of reading, and targets are the cells that the kernel writes.

A plane (one channel of one image) is divided into narrow pieces. Each thread has ring buffers for about k rows of one
piece. The division does not affect results, because each result is a sum of the same terms in the same order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from fastconv._ext.pool import running as _ext
from fastconv.geometry.axis import Axis
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.pool.plan import NO_INDICES, Array, Given, PoolCase, PoolKernel, PoolPlan, kernel_axes
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads
from fastconv.runtime.records import dataclass

#: The length of a row in the workspace is a multiple of this number of elements.
_MULTIPLE = 32
#: The maximum length, in elements, of a workspace row that holds rows of several planes side by side.
_GROUP_ELEMENTS = 512
#: The times, in nanoseconds, that a step (see `steps`) takes for one vector: first the time of a step along a row, then
#: the time of a step across rows.
_SUM_STEPS, _MAXIMUM_STEPS = (0.45, 0.6), (1.0, 1.3)
#: Times in nanoseconds: `_READ` to read or write a vector, `_CELL` to copy a cell, `_ROW` to start a row of the input,
#: and `_GIVE` to start a row of the result.
_READ, _CELL, _ROW, _GIVE = 0.5, 0.3, 30.0, 10.0
#: The number of bytes that a memory copy moves in a nanosecond.
_BYTES_A_NANOSECOND = 10

#: A range of results along an axis: its first index, and its last index plus 1.
Cut: TypeAlias = tuple[int, int]
Steps = list[tuple[int, int]]


def steps(k: int, dilation: int, maximum: bool) -> Steps:
    """Return the steps that make windows of k taps from single cells.

    A step is a pair of ints. The step ``(0, n)`` joins two windows whose starts are n cells apart. The step ``(1, n)``
    adds one cell to a window: the cell that is n cells after its last cell.

    >>> steps(6, 1, False)
    [(0, 1), (1, 1), (0, 3)]
    >>> steps(6, 1, True)
    [(0, 1), (0, 2), (0, 2)]
    """
    found: Steps = []
    if maximum:
        have = 1
        while have < k:
            found.append((0, min(have, k - have) * dilation))
            have = min(2 * have, k)
        return found
    have = 1
    for bit in bin(k)[3:]:
        found.append((0, have * dilation))
        have *= 2
        if bit == "1":
            found.append((1, dilation))
            have += 1
    return found


class _Walk(NamedTuple):
    """The order in which the kernel computes its results (outputs, or cells of dx) along the height or the depth.

    `first` is the index of the first input row that is read. All other row numbers are counted from this row. Result i
    needs the rows from `begin[i]` to `end[i]`, and is computed after row `end[i]` is read. `gets[i]` tells whether
    result i is computed after all steps, after the first `early` steps, or from no cells at all. The windows after
    `early` steps have one tap less than the final windows. `early` is -1 if no result needs such windows.
    """

    steps: Steps
    early: int
    first: int
    begin: np.ndarray
    end: np.ndarray
    gets: np.ndarray

    @property
    def rows(self) -> int:
        """The total number of rows in the ring buffers of the axis."""
        return sum(shift for _, shift in self.steps)


class _Phases(NamedTuple):
    """How the gradient along an axis divides the taps into `n` phases.

    A phase has every n-th tap. All windows that contain a given cell read it by taps of the same phase. A phase has
    `taps` taps, but `rest` phases have one tap more. Two outputs that read the same cell by neighbouring taps of a
    phase are `step` outputs apart.
    """

    n: int
    taps: int
    rest: int
    step: int

    @classmethod
    def of(cls, axis: Axis) -> _Phases:
        common = math.gcd(axis.stride, axis.dilation)
        phases = axis.stride // common
        return cls(phases, axis.k // phases, axis.k % phases, axis.dilation // common)


def _walk_forward(axis: Axis, maximum: bool) -> _Walk:
    begin = np.arange(axis.out) * axis.stride
    gets = np.full(axis.out, _ext.FROM_LAST)
    return _Walk(steps(axis.k, axis.dilation, maximum), -1, -axis.lo, begin, begin + (axis.extent - 1), gets)


def _walk_backward(axis: Axis) -> _Walk:
    phases, taps, rest, step = _Phases.of(axis)
    stride = axis.stride
    common = stride // phases
    cell = np.arange(axis.size) + axis.lo
    inverse = pow(step, -1, phases) if phases > 1 else 0
    phase = (cell // common) % phases * inverse % phases
    last = (cell - phase * axis.dilation) // stride
    count = taps + (phase < rest)
    first = last - (count - 1) * step
    unread = (cell % common != 0) | (count == 0) | (last < 0) | (first >= axis.out)
    made = steps(taps, step, False) if taps else []
    early = -1
    if taps and rest:
        early = len(made)
        made.append((1, step))
    gets = np.where((phase < rest) | (early < 0), _ext.FROM_LAST, _ext.FROM_EARLY)
    gets[unread] = _ext.FROM_NOTHING
    begin = int(first[~unread].min()) if not unread.all() else 0
    end = int(last[~unread].max()) if not unread.all() else 0
    # A cell of dx that no window reads is written together with its neighbours.
    last = np.where(unread, np.clip(cell // stride, begin, end), last)
    first = np.where(unread, last, first)
    return _Walk(made, early, begin, first - begin, last - begin, gets)


def _depths(walk: _Walk) -> np.ndarray:
    """Return, for each row, how many steps are done after the row is read, or -1 if no result needs the row."""
    arrivals, levels = int(walk.end.max()) + 1, len(walk.steps)
    needed = np.zeros((levels + 1, arrivals), bool)
    needed[levels, walk.end[walk.gets == _ext.FROM_LAST]] = True
    if walk.early >= 0:
        needed[walk.early, walk.end[walk.gets == _ext.FROM_EARLY]] = True
    for level in reversed(range(levels)):
        shift = walk.steps[level][1]
        needed[level] |= needed[level + 1]
        needed[level, : max(arrivals - shift, 0)] |= needed[level + 1, shift:]
    return np.where(needed.any(axis=0), levels - needed[::-1].argmax(axis=0), -1)


def _array(values: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the values in the dtype of the lists of a compiled plan."""
    return np.ascontiguousarray(values, np.intp)


class Ranges(NamedTuple):
    """The ranges of results into which an axis is divided. Each array has an element for each range.

    The results from `begin` to `end` - 1 need `n` sources, from index `source` on.
    """

    begin: np.ndarray
    end: np.ndarray
    source: np.ndarray
    n: np.ndarray


class AxisSteps(NamedTuple):
    """The steps along D or H. The fields are those of fc_running_axis in pool_running.h."""

    size: int
    early: int
    first: int
    shift: np.ndarray
    plus: np.ndarray
    ring: np.ndarray
    depth: np.ndarray
    ends: np.ndarray
    target: np.ndarray
    from_: np.ndarray
    ranges: Ranges


class WidthSteps(NamedTuple):
    """The steps along W. The fields are those of fc_running_width in pool_running.h."""

    size: int
    stride: int
    lo: int
    dilation: int
    phases: int
    taps: int
    rest: int
    step: int
    copies_sources: bool
    shift: np.ndarray
    plus: np.ndarray
    ranges: Ranges


def _axis_steps(axis: Axis, case: PoolCase, cuts: list[Cut]) -> AxisSteps:
    walk = _walk_backward(axis) if case.is_gradient else _walk_forward(axis, case.finds_maxima)
    order = np.argsort(walk.end, kind="stable")
    shifts = [shift for _, shift in walk.steps]
    sources = [int(walk.begin[begin:end].min()) for begin, end in cuts]
    ends = [int(walk.end[begin:end].max()) + 1 for begin, end in cuts]
    return AxisSteps(
        size=axis.out if case.is_gradient else axis.size,
        early=walk.early,
        first=walk.first,
        shift=_array(shifts),
        plus=_array([plus for plus, _ in walk.steps]),
        ring=_array([0, *itertools.accumulate(shifts)]),
        depth=_array(_depths(walk)),
        ends=_array(np.cumsum(np.bincount(walk.end))),
        target=_array(order),
        from_=_array(walk.gets[order]),
        ranges=Ranges(
            begin=_array([begin for begin, _ in cuts]),
            end=_array([end for _, end in cuts]),
            source=_array(sources),
            n=_array([end - source for source, end in zip(sources, ends, strict=True)]),
        ),
    )


def _width_ranges(axis: Axis, backward: bool, cuts: list[Cut]) -> Ranges:
    begin, end = (_array(bounds) for bounds in zip(*cuts, strict=True))
    if backward:
        phases = _Phases.of(axis)
        source = -(-(begin + axis.lo - (phases.n - 1) * axis.dilation) // axis.stride) - phases.taps * phases.step
        return Ranges(begin, end, source, (end - 1 + axis.lo) // axis.stride - source + 1)
    return Ranges(begin, end, begin * axis.stride - axis.lo, (end - 1 - begin) * axis.stride + axis.extent)


def _width_steps(axis: Axis, case: PoolCase, ranges: Ranges) -> WidthSteps:
    phases = _Phases.of(axis) if case.is_gradient else _Phases(0, axis.k, 0, axis.dilation)
    made = steps(phases.taps, phases.step, case.finds_maxima) if phases.taps else []
    return WidthSteps(
        size=axis.out if case.is_gradient else axis.size,
        stride=axis.stride,
        lo=axis.lo,
        dilation=axis.dilation,
        phases=phases.n,
        taps=phases.taps,
        rest=phases.rest,
        step=phases.step,
        copies_sources=phases.rest > 0 or any(plus for plus, _ in made),
        shift=_array([shift for _, shift in made]),
        plus=_array([plus for plus, _ in made]),
        ranges=ranges,
    )


def _cut(n: int, pieces: int) -> list[Cut]:
    """Divide the range from 0 to n into ranges of nearly the same size."""
    ends = [n * i // pieces for i in range(pieces + 1)]
    return list(itertools.pairwise(ends))


class _Cuts(NamedTuple):
    depths: int
    heights: int
    ranges_w: int


class _Costs:
    """Estimates of the time and the workspace of a plan, for a given number of pieces along each axis of a plane."""

    def __init__(self, case: PoolCase) -> None:
        self.axes, self.backward, self.maximum = kernel_axes(case.geometry), case.is_gradient, case.finds_maxima
        self.targets = [axis.size if self.backward else axis.out for axis in self.axes]
        self.steps = [_steps_of(axis, self.maximum, self.backward) for axis in self.axes]
        self.rings = [sum(shift for _, shift in steps_of) for steps_of in self.steps[:2]]
        self.lanes = _isa.lanes(case.dtype.itemsize)
        self.step, self.ring_step = _MAXIMUM_STEPS if self.maximum else _SUM_STEPS

    def arrivals(self, i: int, targets: int) -> int:
        """Return the number of input cells along axis `i` that `targets` consecutive results need."""
        axis = self.axes[i]
        reach = axis.extent - 1
        return (targets - 1 + reach) // axis.stride + 1 if self.backward else (targets - 1) * axis.stride + reach + 1

    def sizes(self, cuts: _Cuts) -> tuple[int, int, int]:
        """Return the maximum number of results of a piece (a part of a plane) along each axis."""
        deep, high, wide = (-(-n // pieces) for n, pieces in zip(self.targets, cuts, strict=True))
        return deep, high, wide

    def workspace(self, cuts: _Cuts, group: int = 1) -> int:
        """Return the approximate workspace of a thread, in elements, before the compiled plan exists.

        The workspace consists of ring buffers and a few single rows. `group` is the number of planes of a piece.
        """
        _, high, wide = self.sizes(cuts)
        deep_rows, high_rows = self.rings
        rows = (6 + high_rows + deep_rows * high) * (1 + self.maximum)
        return rows * _pitch(group * wide) + 3 * _pitch(group * self.arrivals(2, wide))

    def span(self, cuts: _Cuts) -> int:
        """Return the number of cells of the image from the first to the last cell that a piece needs."""
        deep, high, wide = (self.arrivals(i, n) for i, n in enumerate(self.sizes(cuts)))
        return ((deep - 1) * self.axes[1].size + high) * self.axes[2].size + wide

    def of(self, cuts: _Cuts, group: int = 1) -> float:
        """Return the estimated time of a piece of one plane, in nanoseconds, on one thread of an AVX-512 machine.

        `group` is the number of planes whose rows the kernel processes side by side.
        """
        deep, high, wide = self.sizes(cuts)
        depths, heights, sources = (self.arrivals(i, n) for i, n in enumerate((deep, high, wide)))
        vectors, read = -(-group * wide // self.lanes) / group, -(-group * sources // self.lanes) / group
        stride = self.axes[2].stride
        along = read * (_READ + self.step * len(self.steps[2])) + vectors * _READ + (stride > 1) * wide * _CELL
        across = vectors * self.ring_step
        rows = depths * heights * (_ROW / group + _GIVE + along + across * len(self.steps[1]))
        deepened = depths * high * len(self.steps[0]) * (_GIVE / group + across)
        return rows + deepened + deep * high * (_GIVE + vectors * _READ)


def _steps_of(axis: Axis, maximum: bool, backward: bool) -> Steps:
    """Return the steps along an axis. A gradient needs one more step if some phases have one tap more than others."""
    if not backward:
        return steps(axis.k, axis.dilation, maximum)
    _, taps, rest, step = _Phases.of(axis)
    return steps(taps, step, maximum) + [(1, step)] * (rest > 0) if taps else []


def time(case: PoolCase) -> float:
    """Return the estimated time of a pooling, in nanoseconds, on one thread of an AVX-512 machine."""
    costs = _Costs(case)
    return case.geometry.planes * costs.of(_Cuts(1, 1, 1), _group(costs, case.geometry, 1))


def _pitch(wide: int) -> int:
    return -(-(wide + _ext.SLACK) // _MULTIPLE) * _MULTIPLE


def _pieces(n: int, most: int) -> Iterator[int]:
    """Yield the numbers of pieces that `_choose` tries for an axis with n results, up to the number `most`."""
    pieces = 1
    while pieces <= min(n, most):
        yield pieces
        pieces = pieces + 1 if pieces < 4 else pieces * 3 // 2


def _choose(costs: _Costs, case: PoolCase) -> _Cuts:
    """Return the number of pieces along each axis: the fastest choice with a small workspace. If every workspace is too
    large, return the choice with the smallest one.
    """
    geometry, itemsize, threads, tuning = case.geometry, case.dtype.itemsize, case.threads, case.tuning
    best, found = (math.inf, math.inf), None
    deep, high, wide = costs.targets
    for depths in _pieces(deep, 2 * threads):
        for heights in _pieces(high, 2 * threads if deep == 1 else max(high // 4, 2 * threads)):
            for ranges_w in _pieces(wide, max(1, wide // tuning.least_width)):
                cuts = _Cuts(depths, heights, ranges_w)
                if costs.maximum and itemsize == 4 and costs.span(cuts) > tuning.most_float32_cells:
                    continue
                space = costs.workspace(cuts) * itemsize / (4 * tuning.ring_bytes)
                time = -(-geometry.planes * math.prod(cuts) // threads) * costs.of(cuts)
                # The factor 1 + min(space, 1) lengthens the time, because a large workspace does not stay in the cache.
                key = max(space, 1.0), time * (1 + min(space, 1))
                if key < best:
                    best, found = key, cuts
    if found is None:
        raise ValueError(
            f"a window of {_window(geometry)} cells spans more than {tuning.most_float32_cells} cells of x, the limit "
            "in float32; pool in several steps with smaller windows, or in float64"
        )
    return found


def _window(geometry: PoolGeometry) -> str:
    return " x ".join(str(axis.k) for axis in geometry.axes)


def _group(costs: _Costs, geometry: PoolGeometry, threads: int) -> int:
    """Return the number of planes whose rows are processed side by side. It is above 1 only if rows are short."""
    sources = costs.arrivals(2, costs.targets[2])
    return max(1, min(_GROUP_ELEMENTS // max(sources, costs.targets[2]), geometry.planes // (4 * threads)))


def _check_workspace(case: PoolCase, elements: int) -> None:
    nbytes, most = elements * case.dtype.itemsize, case.tuning.most_bytes
    if nbytes > most:
        raise ValueError(
            f"a window of {_window(case.geometry)} cells needs {nbytes >> 20} MiB of workspace per thread, more than "
            f"the limit of {most >> 20} MiB; pool in several steps with smaller windows"
        )


@dataclass(frozen=True)
class AxisByAxisPlan(PoolPlan):
    """The plan of any op for windows of any size, except the gradient of max pooling."""

    case: PoolCase
    kernel: _ext.AxisByAxis
    #: The estimated time on one thread, in nanoseconds.
    time: float
    nbytes: int
    name = "axis by axis"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        case, kernel = self.case, self.kernel
        workspaces = _threads.most(case.threads, kernel.items)
        workspace = _memory.empty((workspaces * kernel.workspace,), case.dtype)
        arrays = source, norms, factors, target, indices, workspace
        work = int(self.time * _BYTES_A_NANOSECOND)
        _threads.share(kernel.run, arrays, items=kernel.items, work=work, threads=case.threads)
        return True


class AxisByAxis(PoolKernel):
    """The kernel for windows of any size."""

    name = AxisByAxisPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        return "it does not compute gradients of maxima" if case.op == "maximum_gradient" else None

    def plan(self, case: PoolCase) -> AxisByAxisPlan:
        geometry, axes, costs = case.geometry, kernel_axes(case.geometry), _Costs(case)
        cuts = _choose(costs, case)
        group = _group(costs, geometry, case.threads) if math.prod(cuts) == 1 else 1
        # Check the workspace before the lists are made, because large windows have long lists.
        _check_workspace(case, costs.workspace(cuts, group))
        depth, height = (
            _axis_steps(axes[i], case, _cut(costs.targets[i], pieces)) for i, pieces in enumerate(cuts[:2])
        )
        ranges = _width_ranges(axes[2], case.is_gradient, _cut(costs.targets[2], cuts.ranges_w))
        width = _width_steps(axes[2], case, ranges)
        sources, targets = int(ranges.n.max()), int((ranges.end - ranges.begin).max())
        # If a workspace row holds rows of several planes, it has room for one row of each plane. This is a row of the
        # input or of the result, whichever is longer.
        pitch = _pitch(targets if group == 1 else group * max(sources, targets))
        kernel = _ext.AxisByAxis(
            dtype=case.dtype_index,
            isa=_isa.narrow((pitch if group > 1 else min(pitch, costs.targets[2])) * case.dtype.itemsize),
            op=case.op,
            int64_indices=case.has_int64_indices,
            axes=axes,
            include_pad=case.include_pad,
            planes=geometry.planes,
            group=group,
            depth=depth,
            height=height,
            width=width,
            row_pitch=_pitch(group * sources + 2 * _ext.SLACK),
            pitch=pitch,
        )
        parts = (*depth, *depth.ranges, *height, *height.ranges, *width, *ranges)
        nbytes = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
        time = geometry.planes * math.prod(cuts) * costs.of(cuts, group)
        return AxisByAxisPlan(case, kernel, time, nbytes)
