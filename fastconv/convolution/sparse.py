"""Pruned weights: of the product of weights and image only the terms whose weight is not zero."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from fastconv._ext import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.base import MethodAlgorithm
from fastconv.convolution.blocking import (
    LO,
    START,
    Layout,
    Line,
    Problem,
    covers,
    even,
    kernel_weights,
    line_up,
    pieces,
    problem_count,
    problem_kinds,
    problems,
)
from fastconv.convolution.cost.model import memory
from fastconv.convolution.ops import Op
from fastconv.convolution.taps import data_by_taps
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, threads as _threads, workspace as _workspace
from fastconv.runtime.plan_cache import is_large, plans
from fastconv.runtime.records import dataclass

#: Of the cells that a tile meets in some channels: these share the first-level cache with the sums.
_CELLS_BYTES = 28 << 10
#: Of the sums of a block, which stay in the second-level cache.
_SUMS_BYTES = 1 << 19
#: Of a block in lanes, where its kernel reaches far.
_BLOCK_BYTES = 1 << 20
#: Of a block of one output in the widest lanes.
_MOST_BYTES = 1 << 24
#: Of the lists of weights that are not zero, were none of them zero.
_LISTS_BYTES = 3 << 23
#: Of the padded block of one channel.
_PATCH_BYTES = 1 << 18
#: Lines and results a line of a tile at most, as there are kernels for.
_HIGH, _WIDE = 4, 7
#: Of a part of a block: lines, and results a line.
_MOST_HIGH, _MOST_WIDE = 16, 21
#: Weights that are not zero, where a plan has to weigh one thing against another.
_USUAL_DENSITY = 0.1
#: What there is to do beside multiply-adds, in vector operations: to bring a vector into the lanes, to begin a
#: line of them, to take a vector of sums out of them, to read or write a line of memory; and of sums, to fetch and
#: put back a vector of a tile, to begin a list, and to take an element from it.
_TURN, _TURN_LINE, _TURN_BACK = 3.0, 16.0, 5.0
_LINES = 6.0
#: And to begin a padded block of a channel, and a row of one.
_FILL, _FILL_ROW = 150.0, 12.0
#: How much of an item the other threads wait in the end, usually.
_LATE = 0.2
_FETCH, _BEGIN, _TAKE = 3.0, 8.0, 1.5
#: Stride phases of which a plan each is made before any is run.
_FEW_PHASES = 16
#: What a call of the kernel does.
_PRUNE, _MULTIPLY, _DOTS, _SPREAD = range(4)
#: Lines of memory, to which the parts of a workspace are lined up.
_LINE = 64


@dataclass(frozen=True)
class Plan:
    """One call of a kernel: its tables, its memory in bytes, its sets of rows and how many at a time."""

    tables: tuple[np.ndarray, ...]
    list_bytes: int
    space: int
    sets: int
    sets_at_once: int
    units: int
    places: int
    weights: int
    #: For dw the weight of each offset, and how many times its lists are there: see `backward_kept_weights`.
    weight_at: np.ndarray
    parts: int
    #: Where each tap lies in the lanes, and the elements of a channel there.
    inner_at: np.ndarray
    channel_pitch: int
    #: Vector operations of all weights, were none of them zero, and what there is to do beside.
    product: float
    beside: float

    def moved(self, problem: Problem) -> Plan:
        """That of another stride phase of the same sizes, whose results and weights lie elsewhere."""
        axes = self.tables[0].copy()
        axes[:, LO], axes[:, START] = zip(*((line.lo, line.start) for line in problem.lines), strict=True)
        channels = len(self.tables[3]) // math.prod(problem.kernel)
        offsets = _offsets(problem, channels, self.inner_at, self.channel_pitch).ravel()
        return replace(self, tables=(axes, *self.tables[1:3], offsets, *self.tables[4:]))


def _offsets(problem: Problem, channels: int, inner_at: np.ndarray, channel_pitch: int) -> np.ndarray:
    """For each channel of a block and each tap of the kernel where it lies in the lanes; -1 for taps of other stride
    phases."""
    at = np.full(math.prod(problem.kernel), -1, np.int64)
    at[kernel_weights(problem.lines, problem.kernel)] = inner_at
    return np.where(at >= 0, np.arange(channels)[:, None] * channel_pitch + at, -1).astype(np.int32)


class Sparse(MethodAlgorithm):
    """Scaled rows added up in registers, for weights of which most are zero.

    The padded image is cut into as many parts as a vector has lanes, side by
    side: every tap of every output is then an aligned offset. The weights that
    are not zero are listed with their offsets, once a call, by rows and some
    channels at a time. A tile of outputs is in registers while the list of one
    filter runs: one multiply-add with a cell from the first-level cache for a
    weight and a vector. Zero weights take no part, whatever they meet; of the others infinity and NaN go where the
    sum of products sends them.

    - forward:          out[f] = sum of w * x, over the nonzero taps of f
    - backward_data:    dx[c] = sum of w * dout, over the nonzero taps of c in the flipped kernel, per stride phase
    - backward_weights: dw = sum of dout[f] * x over the positions, a dot for each nonzero tap, where only these are
      asked for; all of dw, zero weights or not, is left to the cheapest algorithm that sums all products

    References
    ----------
    J. Park et al., "Faster CNNs with direct sparse convolutions and guided
    pruning", arXiv:1608.01409 (offsets and values, rows added up); E. Elsen et
    al., "Fast sparse ConvNets", arXiv:1911.09723.
    """

    name = "sparse"
    skips_zeros = True

    def leaves(self, op: Op, masked: bool) -> bool:
        """Only a gradient of the weights that are not zero is its own."""
        return op == "backward_weights" and not masked

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """Where a kernel reaches so far that the cells of a single output are too many to be kept beside each other."""
        for problem, _ in problem_kinds(op, geometry):
            cells = math.prod(len(line.phases) * (1 + line.reach) for line in problem.lines)
            if cells * 64 > _MOST_BYTES:
                dilation = tuple(axis.dilation for axis in geometry.axes)
                return (
                    f"the kernel {geometry.kernel} with dilation {dilation} reaches over "
                    f"{cells} cells, and its blocks hold {_MOST_BYTES // 64} at most"
                )
        return None

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """The lists, and per thread a padded block, the same in lanes, and sums."""
        found = [plan for plan, _ in _kinds(op, geometry, dtype, threads)]
        # There are no plans where no output meets the image.
        return max((plan.sets_at_once * plan.list_bytes + threads * plan.space + _LINE for plan in found), default=0)

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """The products in vector operations, were no weight zero, and what there is to do beside."""
        found = _kinds(op, geometry, dtype, threads)
        work = memory(geometry, dtype, threads) | {"call": float(sum(count for _, count in found))}
        for plan, count in found:
            items = plan.sets * (plan.parts or plan.places)
            part = count * pieces(items, threads) / items
            work["product"] = work.get("product", 0) + part * plan.product
            work["beside"] = work.get("beside", 0) + part * plan.beside
            work["weights"] = work.get("weights", 0) + count * plan.weights / threads
        return work

    def pruned_work(
        self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
    ) -> dict[str, float]:
        """Only products of weights that are not zero take time."""
        work = self.work(op, geometry, dtype, threads)
        return {**work, "product": density * work.get("product", 0.0)}

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """The sums start with the bias."""
        (plan,) = _each_plan("forward", geometry, x.dtype, threads)
        _run(plan, threads, x, w, b, out)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """One forward product per stride phase; cells that no tap meets are zero."""
        if not covers(geometry):
            dx.fill(0)
        for plan in _each_plan("backward_data", geometry, dx.dtype, threads):
            _run(plan, threads, dout, w, None, dx)
        # dx reads zeros beyond the edges of dout, and infinity or NaN times zero is NaN. Such a weight shows in the
        # first result of its channel in each stride phase.
        first: Any = (0, slice(None), *(slice(axis.row()[2]) for axis in geometry.axes))
        if not geometry.pointwise and not np.isfinite(dx[first]).all() and not np.isfinite(w).all():
            data_by_taps(dout, w, None, geometry, dx, threads, self.backward_data)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Never called: it is left to another algorithm, because that of zero weights is as much work as of any."""
        raise NotImplementedError("sparse leaves the gradient of all weights to another algorithm")

    def backward_kept_weights(
        self, x: np.ndarray, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """Dots of a tile of dout in registers with the cells of each tap; each thread adds up blocks of its own."""
        (plan,) = _each_plan("backward_weights", geometry, x.dtype, threads)
        dw.fill(0)
        _steps(plan, threads, x, w, None, [(_PRUNE, dout), (_DOTS, dout), (_SPREAD, dw)])


def _run(
    plan: Plan, threads: int, source: np.ndarray, w: np.ndarray, bias: np.ndarray | None, result: np.ndarray
) -> None:
    _steps(plan, threads, source, w, bias, [(_PRUNE, result), (_MULTIPLY, result)])


def _steps(
    plan: Plan,
    threads: int,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    steps: Sequence[tuple[int, np.ndarray]],
) -> None:
    """The steps in turn, for as many sets of rows at a time as there is memory for the lists of."""
    lists = plan.sets_at_once * plan.list_bytes
    workers = max(1, min(threads, max(plan.units, plan.places * plan.sets)))
    dtype = _arrays.DTYPES[w.dtype]
    product = (plan.product * _USUAL_DENSITY + plan.beside) * _isa.BYTES_PER_OPERATION
    with _workspace.workspace("lists of weights", (lists + workers * plan.space + _LINE,), np.dtype(np.uint8)) as space:
        for first in range(0, plan.sets, plan.sets_at_once):
            sets = min(plan.sets_at_once, plan.sets - first)
            for step, result in steps:
                short = step in (_PRUNE, _SPREAD)
                _threads.share(
                    _ext.product,
                    (
                        *(dtype, source, w, bias, result, *plan.tables, space, lists, plan.space, first, sets),
                        *(plan.weight_at, plan.parts, step, _isa.current),
                    ),
                    items=plan.units * sets // plan.sets if short else (plan.parts or plan.places) * sets,
                    work=int((plan.weights * w.itemsize if short else product) * sets / plan.sets),
                    threads=workers,
                )


def _each_plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Iterable[Plan]:
    """One after the other: all of a kernel's many stride phases would take the square of its size."""
    case = op, geometry, dtype, threads, _isa.current
    found = plans.find_sized(_nbytes, _small_plans, *case)
    return _made_plans(*case) if found is None else found


def _small_plans(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, isa: int) -> tuple[Plan, ...] | None:
    """All of them; None where they are too large to be kept."""
    found: list[Plan] = []
    nbytes = 0
    for plan in _made_plans(op, geometry, dtype, threads, isa):
        found.append(plan)
        nbytes += _nbytes((plan,))
        if is_large(nbytes):
            return None
    return tuple(found)


def _made_plans(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int) -> Iterator[Plan]:
    kinds: dict[tuple[Line, ...], Plan] = {}
    for problem in problems(op, geometry):
        kind = tuple(replace(line.kind, lo=0) for line in problem.lines)
        if kind in kinds:
            yield kinds[kind].moved(problem)
        else:
            plan = kinds[kind] = _plan(problem, dtype, threads, op == "backward_weights")
            yield plan


def _nbytes(found: Iterable[Plan] | None) -> int:
    return sum(table.nbytes for plan in found or () for table in plan.tables)


#: Plans that all others are like, and how many are like each.
_Kinds: TypeAlias = tuple[tuple[Plan, int], ...]


def _kinds(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> _Kinds:
    """What is asked of plans that may never be run."""
    if problem_count(op, geometry) <= _FEW_PHASES:
        return tuple((plan, 1) for plan in _each_plan(op, geometry, dtype, threads))
    return plans.find(_make_kinds, op, geometry, dtype, threads, _isa.current)


def _make_kinds(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, _isa_in_use: int) -> _Kinds:
    # Without their tables, which are large, and which no question needs.
    return tuple(
        (replace(_plan(problem, dtype, threads, False), tables=()), count)
        for problem, count in problem_kinds(op, geometry)
    )


@dataclass(frozen=True)
class Cut:
    """How the results are cut: lanes along images and axes, results of each lane, lines and width of tiles, rows."""

    lanes: tuple[int, int, int, int]
    part: tuple[int, int, int]
    tile: tuple[int, int]
    rows: int
    channels: int
    items: int
    beside: float


def _lane_boxes(lanes: int, problem: Problem) -> list[tuple[int, int, int, int]]:
    """Every way to share the lanes of a vector among images and axes that leaves no more empty than it must."""
    powers = [1 << i for i in range(lanes.bit_length())]
    limits = (problem.images, *(line.out for line in problem.lines))
    boxes = [(n, d, h, lanes // (n * d * h)) for n, d, h in itertools.product(powers, repeat=3) if n * d * h <= lanes]
    useful = [box for box in boxes if all(n == 1 or n < 2 * most for n, most in zip(box, limits, strict=True))]
    return useful or [min(boxes, key=lambda box: sum(n / most for n, most in zip(box, limits, strict=True)))]


def _tile(lines: int, wide: int, most: int) -> tuple[int, int]:
    """Lines and width of tiles, all much alike, of `most` sums."""
    across = even(wide, min(_WIDE, most))
    # Sixteen sums or so hide what a multiply-add takes; with more, fewer channels fit the first-level cache.
    high = max(1, min(_HIGH, lines, most // across, max(1, round(18 / across))))
    return even(lines, high), across


def _cut(problem: Problem, itemsize: int, threads: int, lanes: int, most: int, entry: int) -> Cut:
    """The cheapest, by what it adds to the products and leaves idle; a weight takes `entry` bytes of a list."""
    d, h, w = problem.lines
    taps = math.prod(line.taps for line in problem.lines)
    slots = math.prod(len(line.phases) for line in problem.lines)
    reach_d, reach_h, reach_w = (line.reach for line in problem.lines)
    vector = lanes * itemsize
    best, least = None, math.inf
    for box in _lane_boxes(lanes, problem):
        for wide in sorted(n for n in _sizes(w.out, box[3]) if n <= _MOST_WIDE):
            for high in sorted(n for n in _sizes(h.out, box[2]) if n <= _MOST_HIGH):
                deep = 1 if high * box[2] < h.out else min(pieces(d.out, box[1]), max(1, 4 // high))
                lines = deep * high
                tile = _tile(lines, wide, most)
                tiles = pieces(lines, tile[0]) * pieces(wide, tile[1])
                sums = lines * wide
                held = slots * (deep + reach_d) * (high + reach_h) * (wide + reach_w)
                # Cells of a channel that a tile meets.
                met = slots * (1 + reach_d) * (tile[0] + reach_h) * (tile[1] + reach_w)
                met = min(met, taps * tile[0] * tile[1])
                channels = max(1, min(_CELLS_BYTES // (met * vector), _BLOCK_BYTES // (held * vector)))
                channels = even(problem.channels, channels)
                rows = max(1, min(problem.rows, _SUMS_BYTES // (sums * vector)))
                rows = min(rows, max(1, _LISTS_BYTES // (problem.channels * taps * entry)))
                places = pieces(problem.images, box[0]) * problem.groups
                for line, parts, part in zip(problem.lines, box[1:], (deep, high, wide), strict=True):
                    places *= pieces(line.out, parts * part)
                copied = slots * (deep + reach_d) * (high + reach_h) * (_TURN_LINE + (wide + reach_w) * _TURN)
                # Rows are read from memory, and results written, by whole lines of it.
                planes, down, across = box[0] * deep * box[1], high * box[2], wide * box[3]
                row = _FILL_ROW + _LINES * (1 + (across + reach_w) * w.stride * itemsize / _LINE)
                copied += _FILL + planes * min((down + reach_h) * h.stride, h.size) * row
                written = planes * down * _LINES * (1 + across * w.jump * itemsize / _LINE)
                for split in sorted({pieces(problem.rows, rows), threads, 2 * threads}):
                    if split > problem.rows or pieces(problem.rows, split) > rows:
                        continue
                    here = pieces(problem.rows, split)
                    fetched = pieces(problem.channels, channels) * tiles * here * (_BEGIN + _FETCH * sums / tiles)
                    beside = problem.channels * copied + fetched + here * (sums * _TURN_BACK + written)
                    used = _USUAL_DENSITY * problem.channels * taps * here * (sums * 1.1 + tiles * _TAKE)
                    items = places * split
                    # A thread that comes late, or has the last item, is waited for.
                    cost = (pieces(items, threads) + _LATE * (threads > 1)) * (used + beside)
                    if cost < least:
                        least = cost
                        best = Cut(box, (deep, high, wide), tile, here, channels, items, beside)
    assert best is not None
    return best


def _sizes(out: int, lanes: int) -> set[int]:
    """Sizes of parts that cut an axis evenly."""
    most = pieces(out, lanes)
    return {pieces(most, n) for n in range(1, most + 1)} if most <= 64 else {*range(1, _MOST_WIDE + 1)}


def _tiles(lines: int, wide: int, tile: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Lines, width, first line and first result of each tile."""
    return [
        (min(tile[0], lines - line), min(tile[1], wide - first), line, first)
        for first in range(0, wide, tile[1])
        for line in range(0, lines, tile[0])
    ]


def _plan(problem: Problem, dtype: np.dtype, threads: int, dots: bool) -> Plan:
    itemsize = dtype.itemsize
    lanes, most = _ext.shape(_arrays.DTYPES[dtype], _isa.current, dots)
    # For dw every part of the batch has sums of its own.
    cut = _cut(problem, itemsize, threads, lanes, most, 4 + itemsize * (threads if dots else 1))
    deep, high, wide = cut.part
    d, h, w = problem.lines
    block = deep * cut.lanes[1], high * cut.lanes[2], wide * cut.lanes[3]
    patch = Layout(problem.lines, cut.lanes[0], block, block[2] + w.reach)
    inner = Layout(problem.lines, 1, cut.part, wide + w.reach)
    channel_pitch = inner.image_pitch + 1 - inner.image_pitch % 2
    taps = math.prod(problem.kernel)

    inner_at = inner.taps()
    offsets = _offsets(problem, cut.channels, inner_at, channel_pitch)
    weight_at = np.full(cut.channels * channel_pitch if dots else 1, -1, np.int32)
    if dots:
        of_channels = np.arange(cut.channels)[:, None] * problem.channel_step + np.arange(taps)
        weight_at[offsets[offsets >= 0]] = of_channels[offsets >= 0]
    slots, of_inner, of_patch = [len(line.phases) for line in problem.lines], inner.slot_pitches, patch.slot_pitches
    pitches, deep_patch = inner.pitches, patch.pitches[0]
    copies = [
        (
            lanes * (sd * of_inner[0] + cell * pitches[0] + sh * of_inner[1] + sw * of_inner[2]),
            sd * of_patch[0] + cell * deep_patch + sh * of_patch[1] + sw * of_patch[2],
        )
        for sd in range(slots[0])
        for cell in range(deep + d.reach)
        for sh in range(slots[1])
        for sw in range(slots[2])
    ]
    lines = [lanes * (cell * pitches[0] + line * pitches[1]) for cell in range(deep) for line in range(high)]
    tiles = _tiles(len(lines), wide, cut.tile)

    listed = cut.rows * cut.channels * taps + _ext.spare
    list_off = line_up(8 * cut.rows, _LINE)
    list_val = list_off + line_up(4 * listed, _LINE)
    places = pieces(problem.images, cut.lanes[0])
    places *= math.prod(pieces(line.out, n) for line, n in zip(problem.lines, block, strict=True))
    parts = min(threads, places) if dots else 0
    list_pitch = list_val + max(parts, 1) * line_up(itemsize * listed, _LINE)
    lanes_at = line_up(itemsize * (cut.lanes[0] * patch.image_pitch + 2 * _LINE), _LINE)
    sums_at = lanes_at + line_up(itemsize * lanes * cut.channels * channel_pitch, _LINE)
    targets_at = sums_at + line_up(itemsize * lanes * (cut.rows + dots) * len(lines) * wide, _LINE)
    space = targets_at + line_up(16 * lanes * len(lines), _LINE)
    sizes = [
        problem.images,
        problem.groups,
        problem.rows,
        problem.row_step,
        cut.rows,
        problem.channels,
        problem.channel_step,
        cut.channels,
        taps,
        patch.image_pitch,
        channel_pitch * lanes,
        inner.pitches[1] * lanes,
        high + h.reach,
        len(copies),
        len(lines),
        wide,
        len(tiles),
        *cut.lanes,
        *cut.part,
        lanes_at,
        sums_at,
        targets_at,
        list_off,
        list_val,
        list_pitch,
    ]
    blocks = pieces(problem.channels, cut.channels)
    sets = problem.groups * pieces(problem.rows, cut.rows)
    used = math.prod(line.taps for line in problem.lines) * problem.channels
    return Plan(
        (
            patch.axes(),
            patch.phases(),
            np.array(sizes, np.intp),
            offsets.ravel(),
            np.array(copies, np.intp),
            np.array(lines, np.intp),
            np.array(tiles, np.intp),
        ),
        list_bytes=blocks * list_pitch,
        space=max(space, list_pitch),
        sets=sets,
        sets_at_once=max(1, min(sets, _LISTS_BYTES // (blocks * list_pitch))),
        units=sets * blocks,
        places=places,
        weights=problem.groups * problem.rows * problem.channels * taps,
        weight_at=weight_at,
        parts=parts,
        inner_at=inner_at,
        channel_pitch=channel_pitch,
        product=float(places * sets * cut.rows * used * len(lines) * wide),
        beside=float(places * sets * cut.beside),
    )
