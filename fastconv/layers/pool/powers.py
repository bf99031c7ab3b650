"""Pooling by p-norms for any exponent p, and its gradient. A norm is computed as the root of a sum of powers.

Large planes are computed in blocks. In this module, a result is the norm of a window or, in the backward pass, the
gradient of a cell. A norm needs a sum over the cells of a window, and a gradient needs a sum over the windows that
contain the cell. A row (`lines` in the code) is all values at one index of the first spatial axis. Each of these sums
takes values from several rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.geometry.axis import Axis
from fastconv.geometry.pool import PoolGeometry
from fastconv.layers.pool import plan as _plan, windows as _windows
from fastconv.layers.pool.kernels import index_dtype, plan_for
from fastconv.layers.pool.plan import NO_INDICES, Array, Given, PoolCase, PoolPlan
from fastconv.runtime.records import dataclass

#: A sum of powers is accurate in the range `_SUMS`, and a factor norm ** (1 - p) in the range `_FACTORS`. Outside these
#: ranges, a power may have overflowed or underflowed.
_SUMS, _FACTORS = (1e-290, math.inf), (1e-200, 1e200)


@dataclass(frozen=True)
class PowersPlan(PoolPlan):
    """The plan of pooling by the p-norm, or of its gradient, for any exponent p."""

    case: PoolCase
    p: float
    name = "powers"

    def run(
        self, source: Array, target: Array, indices: Array = NO_INDICES, norms: Given = None, factors: Given = None
    ) -> bool:
        geometry, threads = self.case.geometry, self.case.threads
        if not target.size:
            return True
        if norms is None or factors is None:
            _norms(source, target, geometry, self.p, threads)
        else:
            _gradients(source, norms, factors, target, geometry, self.p, threads)
        return True


class _Cut(NamedTuple):
    """A range of results (outputs, or cells of dx) along an axis. Each result sums values at indices from `begin` to
    `end` - 1.

    If `low` is below `high`, every result of the range needs all values from index `low` to index `high` - 1. These
    values are summed once, and `axis` has a single index for their sum. If `low` equals `high`, no values are summed
    in advance, and `axis` has all indices.
    """

    axis: Axis
    targets: slice
    begin: int
    low: int
    high: int
    end: int


def _cut_windows(axis: Axis, first: int, last: int, fold: bool) -> _Cut:
    """Return the `_Cut` (range of results) of the outputs from `first` to `last` - 1. If `fold` is true, values that
    all these outputs need are summed once.
    """
    size, k, stride, lo, dilation, _ = axis.row()
    start, final = first * stride - lo, (last - 1) * stride - lo
    end = final + dilation * (k - 1) + 1
    low, high, before = end, end, max(-start, 0)
    if fold and start + k - final > 1:
        low, high = final, start + k
        k, before = final - start + 1, min(before, final - start)
    lines = [min(max(cell, 0), size) for cell in (start, low, high, end)]
    return _cut(_left(*lines), k, stride, before, dilation, last - first, slice(first, last), lines)


def _cut_cells(axis: Axis, first: int, last: int, fold: bool) -> _Cut:
    """Return the `_Cut` (range of results) of the cells of dx from `first` to `last` - 1, without cells before the
    first window. If `fold` is true, values that all these cells need are summed once.
    """
    _, k, stride, lo, dilation, out = axis.row()
    begin = max(0, -((dilation * (k - 1) - first - lo) // stride))
    end = max(begin, min(out, (last - 1 + lo) // stride + 1))
    first = min(max(first, begin * stride - lo), last)
    low, high = max(begin, -((k - last - lo) // stride)), min(end, (first + lo) // stride + 1)
    if not fold or high - low < 2:
        low = high = end
    removed = max(high - low - 1, 0)
    before = first + lo - (begin + removed) * stride
    lines = [begin, low, high, end]
    return _cut(last - first, k - removed * stride, stride, before, dilation, _left(*lines), slice(first, last), lines)


def _left(begin: int, low: int, high: int, end: int) -> int:
    return low - begin + (low < high) + end - high


def _cut(
    size: int, k: int, stride: int, lo: int, dilation: int, out: int, targets: slice, lines: Sequence[int]
) -> _Cut:
    hi = max((out - 1) * stride + dilation * (k - 1) + 1 - lo - size, 0)
    return _Cut(Axis(size, k, stride, lo, hi, dilation, out), targets, *lines)


class _Block(NamedTuple):
    """A part of a pooling. It has some planes and, along each axis after the first, a range of results (outputs, or
    cells of dx). The planes are treated as the channels of one image.
    """

    geometry: PoolGeometry
    #: Slices of arrays (planes, *spatial). `lines` selects the values that the block reads. `targets` selects the
    #: results that the block computes.
    lines: tuple[slice, ...]
    targets: tuple[slice, ...]
    #: The ranges of results (outputs, or cells of dx) into which the first axis is divided.
    cuts: list[_Cut]
    #: Rows are summed in groups. The sums are stored, because several ranges of results need them. The first number is
    #: the index of a row at which a group begins. The second is the number of rows in each group.
    sums: tuple[int, int]
    parts: dict[Axis, PoolGeometry]

    def part(self, axis: Axis) -> PoolGeometry:
        """Return the geometry of the block, with `axis` as its first axis. Geometries are stored in `parts`, because
        many elements of `cuts` have an equal axis.
        """
        if axis not in self.parts:
            shape, axes = self.geometry.x_shape, self.geometry.axes
            self.parts[axis] = self.geometry.derive(x_shape=(*shape[:2], axis.size, *shape[3:]), axes=(axis, *axes[1:]))
        return self.parts[axis]


def _is_cut(geometry: PoolGeometry) -> bool:
    """Return whether planes are divided. They are divided if the powers of two planes take more than
    `power_bytes`."""
    return _at_once(geometry) < 2


def _at_once(geometry: PoolGeometry) -> int:
    return _plan.TUNING.power_bytes // (8 * max(geometry.cells, math.prod(geometry.out_shape[2:])))


def _undilated(geometry: PoolGeometry) -> Iterator[tuple[PoolGeometry, slice, slice]]:
    """Split a pooling with dilation along the first axis into poolings without dilation along this axis.

    For each pooling, yield its geometry and two slices along the first axis: the slice of its cells, and the slice of
    its windows. If planes are not divided, yield only the given geometry.
    """
    axis = geometry.axes[0]
    size, k, stride, lo, dilation, out = axis.row()
    if dilation == 1 or not _is_cut(geometry):
        yield geometry, slice(None), slice(None)
        return
    every = dilation // math.gcd(stride, dilation)
    for first in range(min(every, out)):
        start = first * stride - lo
        cells, windows = slice(max(start, start % dilation), size, dilation), slice(first, out, every)
        n, m = len(range(size)[cells]), len(range(out)[windows])
        single = _cut(n, k, every * stride // dilation, max(-(start // dilation), 0), 1, m, windows, (0, 0, 0, 0)).axis
        shape = (*geometry.x_shape[:2], n, *geometry.x_shape[3:])
        yield geometry.derive(x_shape=shape, axes=(single, *geometry.axes[1:])), cells, windows


def _blocks(geometry: PoolGeometry, gradient: bool) -> Iterator[_Block]:
    """Yield blocks whose powers take about `power_bytes`: several planes, or a part of one plane."""
    axis, planes, rest = geometry.axes[0], geometry.planes, len(geometry.axes) - 1
    total, lines = (axis.size, axis.out) if gradient else (axis.out, axis.size)
    if not _is_cut(geometry):
        step = _at_once(geometry)
        for begin in range(0, planes, step):
            part = geometry.for_planes(min(step, planes - begin))
            chosen = (slice(begin, begin + part.planes), *[slice(None)] * (rest + 1))
            cut = _Cut(axis, slice(0, total), 0, lines, lines, lines)
            yield _Block(part, chosen, chosen, [cut], (0, 1), {axis: part})
        return
    make = _cut_cells if gradient else _cut_windows
    line = 8 * max(geometry.cells // axis.size, math.prod(geometry.out_shape[3:]))
    later = []
    for other in geometry.axes[1:]:
        n = other.size if gradient else other.out
        # Do not make shorter pieces. Neighbouring pieces overlap, and the powers in the overlap are computed for each
        # of the pieces.
        pieces = max(1, min(-(-line // _plan.TUNING.line_bytes), 2 * n // other.extent))
        line = -(-line // pieces)
        later.append([make(other, n * i // pieces, n * (i + 1) // pieces, False) for i in range(pieces)])
    _, k, stride, lo, _, _ = axis.row()
    # Each stored sum adds at least about sqrt(k) rows. So a window of k rows has at most about sqrt(k) stored sums.
    most = max(_plan.TUNING.power_bytes // line, math.isqrt(k))
    if gradient:
        step = most // stride * stride or most
        sums = -((k - step - lo) // stride), max(step // stride, 1)
    else:
        step = max(most // stride, 1)
        sums = (step - 1) * stride - lo, min(step * stride, most)
    cuts = [make(axis, i, min(i + step, total), True) for i in range(0, total, step)]
    for others in itertools.product(*later):
        axes = (axis, *(other.axis for other in others))
        part = geometry.derive(x_shape=(1, 1, *(a.size for a in axes)), axes=axes)
        parts: dict[Axis, PoolGeometry] = {}
        seen = slice(None), *(slice(other.begin, other.end) for other in others)
        targets = slice(None), *(other.targets for other in others)
        for plane in (slice(i, i + 1) for i in range(planes)):
            yield _Block(part, (plane, *seen), (plane, *targets), cuts, sums, parts)


_Lines: TypeAlias = Callable[[int, int], np.ndarray]


class _LineSums:
    """A function that returns the sum of the rows (indices of the first axis) from `begin` to `end` - 1.

    The sum of each group of `step` rows is stored, because the next call, with a slightly larger `begin`, needs many of
    these sums again.
    """

    def __init__(self, lines: _Lines, origin: int, step: int) -> None:
        self._lines, self._origin, self._step = lines, origin, step
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, begin: int, end: int) -> np.ndarray:
        kept, origin, step = self._kept, self._origin, self._step
        first, last = -((origin - begin) // step), (end - origin) // step
        if first >= last:
            return _sum(self._lines(begin, end))
        ends = [origin + i * step for i in range(first, last + 1)]
        self._kept = {i: kept[i] if i in kept else _sum(self._lines(i, i + step)) for i in ends[:-1]}
        rests = [_sum(self._lines(*rest)) for rest in ((begin, ends[0]), (ends[-1], end)) if rest[0] < rest[1]]
        return _tree([*self._kept.values(), *rests])


def _sum(lines: np.ndarray) -> np.ndarray:
    """Return the sum of all rows, added in pairs. The argument `lines` is overwritten."""
    while (n := lines.shape[2]) > 1:
        lines[:, :, : n // 2] += lines[:, :, n - n // 2 :]
        lines = lines[:, :, : n - n // 2]
    return lines.copy()


def _tree(sums: Sequence[np.ndarray]) -> np.ndarray:
    half = len(sums) // 2
    return _tree(sums[:half]) + _tree(sums[half:]) if half else sums[0]


def _fold(cut: _Cut, lines: _Lines, common: _Lines) -> np.ndarray:
    """Return the rows whose sums are the results of `cut`. One row, computed by `common`, replaces the rows from `low`
    to `high` - 1.
    """
    if cut.low == cut.high:
        return lines(cut.begin, cut.end)
    parts = lines(cut.begin, cut.low), common(cut.low, cut.high), lines(cut.high, cut.end)
    return np.concatenate(parts, axis=2)


def _of_planes(array: np.ndarray, chosen: tuple[slice, ...]) -> np.ndarray:
    """Return the part `chosen` of an array (planes, *spatial), as one image whose channels are the planes."""
    return array[chosen][None]


def _between(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return (values > ends[0]) & (values < ends[1])


def _norms(x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, p: float, threads: int) -> None:
    x, out = (array.reshape(-1, *array.shape[2:]) for array in (x, out))
    for part, rows, windows in _undilated(geometry):
        for block in _blocks(part, False):
            cells, results = _of_planes(x[:, rows], block.lines), _of_planes(out[:, windows], block.targets)
            _norms_of(cells, results, part.axes[0], block, p, threads)


def _norms_of(x: np.ndarray, out: np.ndarray, axis: Axis, block: _Block, p: float, threads: int) -> None:
    def powers(begin: int, end: int) -> np.ndarray:
        # Compute powers in float64, where they seldom underflow to 0 or overflow to inf.
        made = np.abs(x[:, :, begin:end], dtype=np.float64)
        return np.power(made, p, out=made)

    def magnitudes(begin: int, end: int) -> np.ndarray:
        return np.abs(x[:, :, begin:end], order="C")

    def largest(begin: int, end: int) -> np.ndarray:
        some = x[:, :, begin:end]
        return np.maximum(some.max(axis=2, keepdims=True), -some.min(axis=2, keepdims=True))

    common = _LineSums(powers, *block.sums)
    for cut in block.cuts:
        part, result = block.part(cut.axis), out[:, :, cut.targets]
        sums = np.empty(part.out_shape)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            plan_for("mean", part, sums.dtype, threads).run(_fold(cut, powers, common), sums)
            sums *= part.window_sizes(True)
            kept = _between(sums, _SUMS)
            np.power(sums, 1 / p, out=sums)
            result[...] = sums
            if kept.all():
                continue
            peaks = np.empty(part.out_shape, x.dtype)
            plan = plan_for("maximum", part, x.dtype, threads, index_dtype=index_dtype(part))
            places = _arrays.empty_result(part.out_shape, plan.case.index_dtype, "the indices")
            plan.run(_fold(cut, magnitudes, largest), peaks, places)
            # A sum outside the range `_SUMS` is still correct if the largest magnitude in the window is 0, inf or NaN.
            lost = ~kept & _between(peaks, (0, math.inf))
            if lost.any():
                whole = cut if cut.low == cut.high else _cut_windows(axis, cut.targets.start, cut.targets.stop, False)
                _norms_by_peaks(x[:, :, whole.begin : whole.end], result, block.part(whole.axis), p, peaks, lost)


def _norms_by_peaks(
    x: np.ndarray, out: np.ndarray, geometry: PoolGeometry, p: float, peaks: np.ndarray, chosen: np.ndarray
) -> None:
    """Compute the norms of the `chosen` windows from the ratios abs(cell) / peak, whose powers cannot overflow. The
    peak of a window is its largest abs(cell).
    """
    outs, peaks, chosen = (array.reshape(-1, *array.shape[2:]) for array in (out, peaks, chosen))
    for planes, padded in _windows.pad_planes(x, geometry):
        for outputs, windows in _windows.copy_windows(padded, geometry):
            caller = chosen[planes][outputs]
            peak = peaks[planes][outputs][caller].astype(np.float64)
            ratios = np.abs(windows[caller.reshape(-1)], dtype=np.float64) / peak[:, None]
            outs[planes][outputs][caller] = peak * np.power(ratios, p).sum(axis=-1) ** (1 / p)


def _gradients(
    dout: np.ndarray, out: np.ndarray, x: np.ndarray, dx: np.ndarray, geometry: PoolGeometry, p: float, threads: int
) -> None:
    dx[...] = 0  # Cells that no window reads have a gradient of 0.
    dout, out, x, dx = (array.reshape(-1, *array.shape[2:]) for array in (dout, out, x, dx))
    for part, rows, windows in _undilated(geometry):
        for block in _blocks(part, True):
            cells, results = (_of_planes(array[:, rows], block.targets) for array in (x, dx))
            gradient, norms = (_of_planes(array[:, windows], block.lines) for array in (dout, out))
            if norms.size:
                with np.errstate(all="ignore"):
                    _gradients_of(gradient, norms, cells, results, part.axes[0], block, p, threads)


def _gradients_of(
    dout: np.ndarray,
    out: np.ndarray,
    x: np.ndarray,
    dx: np.ndarray,
    axis: Axis,
    block: _Block,
    p: float,
    threads: int,
) -> None:
    # `ends` is the range of norms for which norm ** (1 - p) lies in the range `_FACTORS`.
    ends = (0.0, math.inf) if p == 1 else (_power(_FACTORS[1], 1 / (1 - p)), _power(_FACTORS[0], 1 / (1 - p)))
    some_lost = np.zeros(out.shape[2], bool)

    def lost_of(norms: np.ndarray) -> np.ndarray:
        return ~_between(norms, ends) & _between(norms, (0, math.inf))

    def shares(begin: int, end: int) -> np.ndarray:
        norms = out[:, :, begin:end]
        made, lost = np.power(norms, 1 - p, dtype=np.float64, order="C"), lost_of(norms)
        made *= dout[:, :, begin:end]
        made[lost | (norms == 0)] = 0
        some_lost[begin:end] = lost.any(axis=(0, 1, *range(3, lost.ndim)))
        return made

    common = _LineSums(shares, *block.sums)
    for cut in block.cuts:
        if cut.begin == cut.end:
            continue
        part, cells, spread = block.part(cut.axis), x[:, :, cut.targets], _fold(cut, shares, common)
        # The op `mean_gradient` divides by the window sizes, so multiply by them first.
        spread *= part.window_sizes(True)
        sums, factors = np.empty(part.x_shape), np.abs(cells, dtype=np.float64)
        plan_for("mean_gradient", part, sums.dtype, threads).run(spread, sums)
        sums *= np.copysign(np.power(factors, p - 1, out=factors), cells)
        # Set the gradient to 0 where the cell is 0. For p = 1, `sums` may have another number there, because NumPy
        # computes 0 ** 0 as 1.
        sums[cells == 0] = 0
        if some_lost[cut.begin : cut.end].any():
            # If abs(cell) ** (p - 1) is inf for a finite cell, all windows that contain the cell are lost: their
            # `shares` are 0. So the gradient of the cell is inf * 0, which is NaN. Set this gradient to 0.
            # `_add_gradients_by_ratios` then adds the gradients of the lost windows.
            sums[np.isinf(factors) & np.isfinite(cells)] = 0
            whole = cut if cut.low == cut.high else _cut_cells(axis, cut.targets.start, cut.targets.stop, False)
            gradient, norms = (array[:, :, cut.begin : cut.end] for array in (dout, out))
            _add_gradients_by_ratios(gradient, norms, cells, sums, block.part(whole.axis), p, lost_of(norms))
        dx[:, :, cut.targets] = sums


def _power(base: float, exponent: float) -> float:
    return float(np.power(base, exponent))


def _add_gradients_by_ratios(
    dout: np.ndarray,
    out: np.ndarray,
    x: np.ndarray,
    dx: np.ndarray,
    geometry: PoolGeometry,
    p: float,
    chosen: np.ndarray,
) -> None:
    """Compute the gradients of the `chosen` windows from the ratios abs(cell) / norm, and add the gradients to `dx`.
    `out` has the norm of each window.
    """
    douts, outs, sums, chosen = (array.reshape(-1, *array.shape[2:]) for array in (dout, out, dx, chosen))
    inside = tuple(slice(axis.lo, axis.lo + axis.size) for axis in geometry.axes)
    for planes, padded in _windows.pad_planes(x, geometry):
        spread = _windows.GradientSums(padded.shape, np.float64)
        for outputs, windows in _windows.copy_windows(padded, geometry):
            caller = chosen[planes][outputs]
            norms = outs[planes][outputs][caller].astype(np.float64)
            cells = windows[caller.reshape(-1)]
            ratios = np.abs(cells, dtype=np.float64) / norms[:, None]
            shares = np.sign(cells) * np.power(ratios, p - 1) * douts[planes][outputs][caller][:, None]
            for i, to in enumerate(_windows.cells_by_tap(geometry, outputs)):
                added = np.zeros(caller.shape)
                added[caller] = shares[:, i]
                spread.add(to, added)
        sums[planes] += spread.result()[(slice(None), *inside)]
