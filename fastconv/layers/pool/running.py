"""Pooling axis by axis, for windows of any size. This module makes the table for the kernel ``pool/pool_running.h``.

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
from typing import Any, NamedTuple

import numpy as np

from fastconv._ext.pool import running as _ext
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.pool.plan import INT64, NO_INDICES, Array, Given, PoolCase, PoolKernel, PoolPlan
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The constants of the enums in pool_running.h. Line 1: the operations. Line 2: the terms of a sum. Line 3: the result
#: that is computed from a sum. Line 4: the step after which a result is computed, or that no cell contributes to it.
MAXIMUM, SUM = 0, 2
CELLS, SQUARES, OVER_COUNT, OVER_NORM = range(4)
SUMS, BY_COUNT, ROOT, TIMES = range(4)
_FROM_LAST, _FROM_EARLY, _FROM_NOTHING = range(3)

#: A vector may read or write up to `_SLACK` elements past the end of a row (FC_RUNNING_SLACK). The length of a row in
#: the workspace is a multiple of `_MULTIPLE` elements.
_SLACK = 16
_MULTIPLE = 32
#: This many bytes of workspace fit into the L2 cache. A plan may use up to four times as many bytes if that saves time.
RING_BYTES = 1 << 20
#: The minimum width of a piece (a part of a plane), in elements. Only a narrower plane has narrower pieces.
_LEAST_WIDTH = 64
#: The maximum length, in elements, of a workspace row that holds rows of several planes side by side.
GROUP_ELEMENTS = 512
#: The maximum workspace of a thread, in bytes. A pooling that needs a larger workspace raises an error.
MOST_BYTES = 1 << 30
#: The times, in nanoseconds, that a step (see `steps`) takes for one vector: first the time of a step along a row, then
#: the time of a step across rows.
_SUM_STEPS, _MAXIMUM_STEPS = (0.45, 0.6), (1.0, 1.3)
#: Times in nanoseconds: `_READ` to read or write a vector, `_CELL` to copy a cell, `_ROW` to start a row of the input,
#: and `_GIVE` to start a row of the result.
_READ, _CELL, _ROW, _GIVE = 0.5, 0.3, 30.0, 10.0
#: The number of bytes that a memory copy moves in a nanosecond.
_BYTES_A_NANOSECOND = 10
#: For maxima in float32, the maximum number of cells from the first to the last cell of a piece (a part of a plane).
#: The kernel then stores the indices of the cells in 32 bits.
_MOST_CELLS = np.iinfo(np.int32).max

Row = tuple[int, int, int, int, int, int]
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


def _phases(row: Row) -> tuple[int, int, int, int]:
    """Return four numbers that describe how the gradient along an axis divides the taps into n phases.

    A phase has every n-th tap. All windows that contain a given cell read it by taps of the same phase. The numbers are
    n, the minimum number of taps in a phase, the number of phases that have one tap more, and the distance between two
    outputs that read the same cell by neighbouring taps of a phase.
    """
    _, k, stride, _, dilation, _ = row
    common = math.gcd(stride, dilation)
    phases = stride // common
    return phases, k // phases, k % phases, dilation // common


def _walk_forward(row: Row, maximum: bool) -> _Walk:
    _, k, stride, lo, dilation, out = row
    begin = np.arange(out) * stride
    gets = np.full(out, _FROM_LAST)
    return _Walk(steps(k, dilation, maximum), -1, -lo, begin, begin + (k - 1) * dilation, gets)


def _walk_backward(row: Row) -> _Walk:
    size, _, stride, lo, dilation, out = row
    phases, taps, rest, step = _phases(row)
    common = stride // phases
    cell = np.arange(size) + lo
    inverse = pow(step, -1, phases) if phases > 1 else 0
    phase = (cell // common) % phases * inverse % phases
    last = (cell - phase * dilation) // stride
    count = taps + (phase < rest)
    first = last - (count - 1) * step
    unread = (cell % common != 0) | (count == 0) | (last < 0) | (first >= out)
    made = steps(taps, step, False) if taps else []
    early = -1
    if taps and rest:
        early = len(made)
        made.append((1, step))
    gets = np.where((phase < rest) | (early < 0), _FROM_LAST, _FROM_EARLY)
    gets[unread] = _FROM_NOTHING
    begin = int(first[~unread].min()) if not unread.all() else 0
    end = int(last[~unread].max()) if not unread.all() else 0
    # A cell of dx that no window reads is written together with its neighbours.
    last = np.where(unread, np.clip(cell // stride, begin, end), last)
    first = np.where(unread, last, first)
    return _Walk(made, early, begin, first - begin, last - begin, gets)


class _Numbers:
    """The lists that follow the header of a table. `at` is the length of the table so far."""

    def __init__(self, head: int) -> None:
        self.parts: list[np.ndarray] = []
        self.at = head

    def put(self, values: Sequence[Any] | np.ndarray) -> int:
        """Append the values, and return the index of the first one."""
        part = np.ravel(np.asarray(values, np.intp))
        begin, self.at = self.at, self.at + len(part)
        self.parts.append(part)
        return begin


def _depths(walk: _Walk) -> np.ndarray:
    """Return, for each row, how many steps are done after the row is read, or -1 if no result needs the row."""
    arrivals, levels = int(walk.end.max()) + 1, len(walk.steps)
    needed = np.zeros((levels + 1, arrivals), bool)
    needed[levels, walk.end[walk.gets == _FROM_LAST]] = True
    if walk.early >= 0:
        needed[walk.early, walk.end[walk.gets == _FROM_EARLY]] = True
    for level in reversed(range(levels)):
        shift = walk.steps[level][1]
        needed[level] |= needed[level + 1]
        needed[level, : max(arrivals - shift, 0)] |= needed[level + 1, shift:]
    return np.where(needed.any(axis=0), levels - needed[::-1].argmax(axis=0), -1)


def _target_ranges(walk: _Walk, cut: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    found = []
    for begin, end in cut:
        source = int(walk.begin[begin:end].min())
        found.append((begin, end, source, int(walk.end[begin:end].max()) + 1 - source))
    return found


def _put_axis(numbers: _Numbers, size: int, walk: _Walk, cut: Sequence[tuple[int, int]]) -> list[int]:
    order = np.argsort(walk.end, kind="stable")
    shifts = [shift for _, shift in walk.steps]
    return [
        size,
        len(walk.end),
        len(walk.steps),
        walk.early,
        walk.first,
        walk.rows,
        numbers.put(shifts),
        numbers.put([plus for plus, _ in walk.steps]),
        numbers.put([0, *itertools.accumulate(shifts)]),
        numbers.put(_depths(walk)),
        numbers.put(np.cumsum(np.bincount(walk.end))),
        numbers.put(order),
        numbers.put(walk.gets[order]),
        numbers.put(_target_ranges(walk, cut)),
    ]


def _range_w(row: Row, backward: bool, begin: int, end: int) -> tuple[int, int, int, int]:
    """Return `begin` and `end`, a range of result columns, and two more numbers: the index of the first input column
    that these results need, and the number of input columns that they need.
    """
    _, k, stride, lo, dilation, _ = row
    if not backward:
        return begin, end, begin * stride - lo, (end - 1 - begin) * stride + (k - 1) * dilation + 1
    phases, taps, _, step = _phases(row)
    source = -((-(begin + lo - (phases - 1) * dilation)) // stride) - taps * step
    return begin, end, source, (end - 1 + lo) // stride - source + 1


def _cut(n: int, pieces: int) -> list[tuple[int, int]]:
    """Divide the range from 0 to n into ranges of nearly the same size."""
    ends = [n * i // pieces for i in range(pieces + 1)]
    return list(itertools.pairwise(ends))


class RunningTable(NamedTuple):
    """The table that the kernel reads, and the numbers that a call of the kernel needs.

    `space` is the workspace of a thread, in elements. `items` is the number of work items: the pieces of all planes.
    `time` is the estimated time on one thread, in nanoseconds. `width` is the row length of the results of a piece.
    """

    table: np.ndarray
    space: int
    items: int
    time: float
    width: int


class _Cuts(NamedTuple):
    depths: int
    heights: int
    ranges_w: int


class _Costs:
    """Estimates of the time and the workspace of a plan, for a given number of pieces along each axis of a plane."""

    def __init__(self, geometry: PoolGeometry, maximum: bool, backward: bool, itemsize: int) -> None:
        self.rows, self.backward, self.maximum = _lifted(geometry), backward, maximum
        self.targets = [row[0] if backward else row[5] for row in self.rows]
        self.steps = [_steps_of(row, maximum, backward) for row in self.rows]
        self.rings = [sum(shift for _, shift in steps_of) for steps_of in self.steps[:2]]
        self.lanes = _isa.lanes(itemsize)
        self.step, self.ring_step = _MAXIMUM_STEPS if maximum else _SUM_STEPS

    def arrivals(self, axis: int, targets: int) -> int:
        """Return the number of input cells along `axis` that `targets` consecutive results need."""
        _, k, stride, _, dilation, _ = self.rows[axis]
        reach = (k - 1) * dilation
        return (targets - 1 + reach) // stride + 1 if self.backward else (targets - 1) * stride + reach + 1

    def sizes(self, cuts: _Cuts) -> tuple[int, int, int]:
        """Return the maximum number of results of a piece (a part of a plane) along each axis."""
        deep, high, wide = (-(-n // pieces) for n, pieces in zip(self.targets, cuts, strict=True))
        return deep, high, wide

    def space(self, cuts: _Cuts) -> int:
        """Return the workspace of a thread, in elements. It consists of ring buffers and a few single rows."""
        _, high, wide = self.sizes(cuts)
        deep_rows, high_rows = self.rings
        rows = (6 + high_rows + deep_rows * high) * (1 + self.maximum)
        return rows * _pitch(wide) + 3 * _pitch(self.arrivals(2, wide))

    def span(self, cuts: _Cuts) -> int:
        """Return the number of cells of the image from the first to the last cell that a piece needs."""
        deep, high, wide = (self.arrivals(axis, n) for axis, n in enumerate(self.sizes(cuts)))
        return ((deep - 1) * self.rows[1][0] + high) * self.rows[2][0] + wide

    def of(self, cuts: _Cuts, group: int = 1) -> float:
        """Return the estimated time of a piece of one plane, in nanoseconds, on one thread of an AVX-512 machine.

        `group` is the number of planes whose rows the kernel processes side by side.
        """
        deep, high, wide = self.sizes(cuts)
        depths, heights, sources = (self.arrivals(axis, n) for axis, n in enumerate((deep, high, wide)))
        vectors, read = -(-group * wide // self.lanes) / group, -(-group * sources // self.lanes) / group
        stride = self.rows[2][2]
        along = read * (_READ + self.step * len(self.steps[2])) + vectors * _READ + (stride > 1) * wide * _CELL
        across = vectors * self.ring_step
        rows = depths * heights * (_ROW / group + _GIVE + along + across * len(self.steps[1]))
        deepened = depths * high * len(self.steps[0]) * (_GIVE / group + across)
        return rows + deepened + deep * high * (_GIVE + vectors * _READ)


def _steps_of(row: Row, maximum: bool, backward: bool) -> Steps:
    """Return the steps along an axis. A gradient needs one more step if some phases have one tap more than others."""
    if not backward:
        return steps(row[1], row[4], maximum)
    _, taps, rest, step = _phases(row)
    return steps(taps, step, maximum) + [(1, step)] * (rest > 0) if taps else []


def time(geometry: PoolGeometry, maximum: bool, backward: bool, itemsize: int) -> float:
    """Return the estimated time of a pooling, in nanoseconds, on one thread of an AVX-512 machine."""
    costs = _Costs(geometry, maximum, backward, itemsize)
    return geometry.planes * costs.of(_Cuts(1, 1, 1), _group(costs, geometry, 1))


def _pitch(wide: int) -> int:
    return -(-(wide + _SLACK) // _MULTIPLE) * _MULTIPLE


def _pieces(n: int, most: int) -> Iterator[int]:
    """Yield the numbers of pieces that `_choose` tries for an axis with n results, up to the number `most`."""
    pieces = 1
    while pieces <= min(n, most):
        yield pieces
        pieces = pieces + 1 if pieces < 4 else pieces * 3 // 2


def _choose(costs: _Costs, geometry: PoolGeometry, itemsize: int, threads: int) -> _Cuts:
    """Return the number of pieces along each axis: the fastest choice with a small workspace. If every workspace is too
    large, return the choice with the smallest one.
    """
    best, found = (math.inf, math.inf), None
    deep, high, wide = costs.targets
    for depths in _pieces(deep, 2 * threads):
        for heights in _pieces(high, 2 * threads if deep == 1 else max(high // 4, 2 * threads)):
            for ranges_w in _pieces(wide, max(1, wide // _LEAST_WIDTH)):
                cuts = _Cuts(depths, heights, ranges_w)
                if costs.maximum and itemsize == 4 and costs.span(cuts) > _MOST_CELLS:
                    continue
                space = costs.space(cuts) * itemsize / (4 * RING_BYTES)
                time = -(-geometry.planes * math.prod(cuts) // threads) * costs.of(cuts)
                # The factor 1 + min(space, 1) lengthens the time, because a large workspace does not stay in the cache.
                key = max(space, 1.0), time * (1 + min(space, 1))
                if key < best:
                    best, found = key, cuts
    if found is None:
        raise ValueError(
            f"a window of {_window(geometry)} cells spans more than {_MOST_CELLS} cells of x, the limit in float32; "
            "pool in several steps with smaller windows, or in float64"
        )
    return found


def _window(geometry: PoolGeometry) -> str:
    return " x ".join(str(axis.k) for axis in geometry.axes)


def _lifted(geometry: PoolGeometry) -> list[Row]:
    rows: list[Any] = [(1, 1, 1, 0, 1, 1)] * (3 - len(geometry.axes))
    return rows + [axis.row() for axis in geometry.axes]


def _make(
    geometry: PoolGeometry, maximum: bool, backward: bool, include_pad: bool, itemsize: int, threads: int
) -> RunningTable:
    costs = _Costs(geometry, maximum, backward, itemsize)
    rows = costs.rows
    cuts = _choose(costs, geometry, itemsize, threads)
    ranges_w = [_range_w(rows[2], backward, *ends) for ends in _cut(costs.targets[2], cuts.ranges_w)]
    ranges_h = _cut(costs.targets[1], cuts.heights)
    group = _group(costs, geometry, threads) if math.prod(cuts) == 1 else 1
    row_pitch = _pitch(group * max(n for *_, n in ranges_w) + 2 * _SLACK)
    # If a workspace row holds rows of several planes, it has room for one row of each plane. This is a row of the input
    # or of the result, whichever is longer.
    pitch = _pitch(max(end - begin if group == 1 else group * max(n, end - begin) for begin, end, _, n in ranges_w))
    high = max(end - begin for begin, end in ranges_h)
    deep_rows, high_rows = costs.rings
    space = 3 * row_pitch + (6 + high_rows + deep_rows * high) * (1 + maximum) * pitch + 2 * _SLACK
    # Check the workspace before the tables are made, because large windows have long tables.
    _check_space(geometry, space, itemsize)
    walks = [_walk_backward(row) if backward else _walk_forward(row, maximum) for row in rows[:2]]
    numbers = _Numbers(71)
    head = [cuts.ranges_w, cuts.heights, cuts.depths, row_pitch, pitch, high]
    after = [0] * (3 - len(geometry.axes)) + [axis.hi if include_pad else 0 for axis in geometry.axes]
    for (size, k, stride, lo, dilation, _), hi in zip(rows, after, strict=True):
        head += [size, k, stride, lo, dilation, -lo if include_pad else 0, size + hi]
    head += _put_axis(
        numbers, rows[0][0] if not backward else rows[0][5], walks[0], _cut(costs.targets[0], cuts.depths)
    )
    head += _put_axis(numbers, rows[1][0] if not backward else rows[1][5], walks[1], ranges_h)
    size, k, stride, lo, dilation, out = rows[2]
    phases, taps, rest, step = _phases(rows[2]) if backward else (0, k, 0, dilation)
    made = steps(taps, step, maximum) if taps else []
    copies_sources = rest > 0 or any(plus for plus, _ in made)
    head += [out if backward else size, len(made), stride, lo, dilation, phases, taps, rest, step, copies_sources]
    head += [numbers.put([shift for _, shift in made]), numbers.put([plus for plus, _ in made]), numbers.put(ranges_w)]
    inside, outside = geometry.cells, math.prod(geometry.out_shape[2:])
    head += [*((outside, inside) if backward else (inside, outside)), group]
    table = np.concatenate([np.asarray(head, np.intp), *numbers.parts])
    table.flags.writeable = False
    items = -(-geometry.planes // group) * math.prod(cuts)
    nanoseconds = geometry.planes * math.prod(cuts) * costs.of(cuts, group)
    return RunningTable(table, space, items, nanoseconds, pitch if group > 1 else min(pitch, costs.targets[2]))


def _group(costs: _Costs, geometry: PoolGeometry, threads: int) -> int:
    """Return the number of planes whose rows are processed side by side. It is above 1 only if rows are short."""
    sources = costs.arrivals(2, costs.targets[2])
    return max(1, min(GROUP_ELEMENTS // max(sources, costs.targets[2]), geometry.planes // (4 * threads)))


def _check_space(geometry: PoolGeometry, elements: int, itemsize: int) -> None:
    if elements * itemsize > MOST_BYTES:
        raise ValueError(
            f"a window of {_window(geometry)} cells needs {elements * itemsize >> 20} MiB of workspace per thread, "
            f"more than the limit of {MOST_BYTES >> 20} MiB; pool in several steps with smaller windows"
        )


def plan(
    geometry: PoolGeometry, maximum: bool, backward: bool, include_pad: bool, itemsize: int, threads: int
) -> RunningTable:
    """Return the table of a pooling, and the numbers for the call. They are cached unless the table is large."""
    key = maximum, backward, include_pad, itemsize, threads, RING_BYTES, _isa.current
    return plans.find_sized(_nbytes, _plan, geometry, *key)


def _nbytes(plan: RunningTable) -> int:
    return plan.table.nbytes


def _plan(
    geometry: PoolGeometry,
    maximum: bool,
    backward: bool,
    include_pad: bool,
    itemsize: int,
    threads: int,
    _ring_bytes: int,
    _isa_in_use: int,
) -> RunningTable:
    return _make(geometry, maximum, backward, include_pad, itemsize, threads)


#: For each op, three arguments of the kernel: the operation, the terms of a sum, and the result computed from the sum.
_STEPS: dict[str, tuple[int, int, int]] = {
    "maximum": (MAXIMUM, CELLS, SUMS),
    "mean": (SUM, CELLS, BY_COUNT),
    "norm": (SUM, SQUARES, ROOT),
    "mean_gradient": (SUM, OVER_COUNT, SUMS),
    "norm_gradient": (SUM, OVER_NORM, TIMES),
}


@dataclass(frozen=True)
class AxisByAxisPlan(PoolPlan):
    """The plan of any op for windows of any size, except the gradient of max pooling."""

    case: PoolCase
    running: RunningTable
    name = "axis by axis"

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.running.table.nbytes

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        case, found = self.case, self.running
        workspaces = _threads.most(case.threads, found.items)
        space = _memory.empty((workspaces * found.space,), case.dtype)
        arrays = source, norms, factors, target, indices if case.finds_maxima else None, case.index_dtype is INT64
        isa = _isa.narrow(found.width * case.dtype.itemsize)
        _threads.share(
            _ext.running,
            (case.dtype_index, *arrays, found.table, *_STEPS[case.op], space, workspaces, isa),
            items=found.items,
            work=int(found.time * _BYTES_A_NANOSECOND),
            threads=case.threads,
        )
        return True


class AxisByAxis(PoolKernel):
    """The kernel for windows of any size."""

    name = AxisByAxisPlan.name

    def unsupported(self, case: PoolCase) -> str | None:
        return None if case.op in _STEPS else "it does not compute gradients of maxima"

    def plan(self, case: PoolCase) -> PoolPlan:
        arguments = case.finds_maxima, case.is_gradient, case.include_pad, case.dtype.itemsize, case.threads
        return AxisByAxisPlan(case, plan(case.geometry, *arguments))
