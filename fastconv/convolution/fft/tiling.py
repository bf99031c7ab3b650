"""Chooses the tiles and blocks of a convolution by `fft`, and estimates their cost.

A signal is an image with one axis. A tile of a signal is folded into a plane, and both axes of the plane are
transformed. A pair is two tiles of an image that share one complex transform. A strip is a part of a plane that is as
wide as a vector. Each row of a strip is a vector of real parts and a vector of imaginary parts. The weights of a group
are a matrix of kernels: its rows are filters and its columns channels. For dx, its rows are channels and its columns
filters. Each phase of the taps (see `phase_axes`) counts as a channel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace

from fastconv._ext.fft import fft as _ext
from fastconv.convolution.fft.lengths import MOVE, factors_count, fast_length, row_cost, signal_lengths, split
from fastconv.convolution.fft.phase_axes import UNIT_AXIS, PhaseAxis, axis_of
from fastconv.convolution.plan import Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.records import dataclass

#: Two spectra of at most this number of bytes fit a second-level cache, together with input and output.
_NEAR_BYTES = 3 << 17
#: The numbers of tiles to try along an axis of the image.
_TILE_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
#: A longer tile is tried only if its cost per result is below `_GAIN` times the lowest cost of the shorter tiles. For
#: volumes, the factor is `_GAIN_OF_VOLUMES`. `FftTiling.cost` is computed only for the `_LOOKED_AT` tile sizes with the
#: lowest estimates.
_GAIN, _GAIN_OF_VOLUMES, _LOOKED_AT = 0.99, 0.93, 3
#: `_FAR` is the factor on the time of transforms that do not fit the second-level cache. The other constants are costs
#: in cycles. `_PRODUCT` is the cost of a product of two rows. `_BYTES_COST` is the cost of 64 bytes of the image or the
#: result.
_FAR, _PRODUCT, _BYTES_COST = 1.17, 4.0, 8.0


@dataclass(frozen=True)
class Tuning:
    """The numbers by which tiles and blocks are chosen."""

    #: The limit for the bytes of all spectra that are in memory together. Tiles and blocks are made smaller until their
    #: spectra fit. If a single transform of the kernel is larger, the limit is exceeded.
    space_bytes: int = 24 << 20
    #: The cost of a step in cycles. After a step, all threads wait for each other.
    step: float = 2000.0


#: The numbers that `Fft` uses by default.
DEFAULT_TUNING = Tuning()


@dataclass(frozen=True)
class FftProblem:
    """The sizes of a convolution: its three axes, groups and images, and the matrix of kernels of a group."""

    op: Op
    phase_axes: tuple[PhaseAxis, ...]
    line: bool  # whether the image has only one axis
    lanes: int
    groups: int
    images: int
    rows: int
    columns: int
    threads: int
    itemsize: int
    nbytes_moved: int  # the bytes of x and out together
    tuning: Tuning

    @property
    def single(self) -> bool:
        """Whether a group has only one filter and one channel."""
        return self.rows == self.columns == 1


@dataclass(frozen=True)
class FftTiling:
    """The sizes of tiles and blocks.

    For each axis, `lengths` has the length of the transform, `tile` the number of results of a tile, and `tiles` the
    number of tiles. The four blocks limit the spectra that are in memory at a time: `row_block` and `column_block`
    count rows and columns of kernels, `pair_block` pairs of tiles, and `group_block` groups.

    If `fused` is true, products are computed strip by strip while a tile is in the cache. A strip is a part of a plane,
    as wide as a vector. If `shared` is true, all threads work on the same pair of tiles; otherwise each thread has its
    own pair.
    """

    problem: FftProblem
    lengths: tuple[int, ...]
    tile: tuple[int, ...]
    tiles: tuple[int, ...]
    fused: bool = False
    shared: bool = False
    row_block: int = 1
    column_block: int = 1
    pair_block: int = 1
    group_block: int = 1

    @functools.cached_property
    def pairs(self) -> int:
        """The number of pairs of tiles of all images. The two tiles of a pair share one complex transform."""
        units = math.prod(self.tiles) * math.prod(phase_axis.phis for phase_axis in self.problem.phase_axes)
        return self.problem.images * -(-units // 2)

    @property
    def gradient(self) -> bool:
        """Whether the op computes the gradient of the weights."""
        return self.problem.op == "backward_weights"

    @property
    def axis_lengths(self) -> tuple[int, ...]:
        """The length of a tile along each axis of the image. A one-dimensional tile is folded into a plane, and has as
        many elements as the plane.
        """
        return (1, 1, self.lengths[1] * self.lengths[2]) if self.problem.line else self.lengths

    @property
    def strips(self) -> int:
        """The number of strips of a plane. A strip is a part of a plane, as wide as a vector."""
        return -(-self.lengths[1] // self.problem.lanes)

    @property
    def row(self) -> int:
        """The number of elements of a row of a strip: a vector of real parts and a vector of imaginary parts."""
        return 2 * self.problem.lanes

    @functools.cached_property
    def pitch(self) -> int:
        """The distance, in elements, between neighbouring spectra.

        The distance is one row more than a spectrum. So elements with the same index in different spectra are in
        different cache sets.
        """
        return self.row * (self.lengths[0] * self.strips * self.lengths[2] + 1)

    @property
    def parts(self) -> int:
        """The number of partial sums of dw if products are computed strip by strip. A single thread computes each
        partial sum, in a fixed order.
        """
        return (
            1 if self.shared or self.problem.groups >= self.problem.threads else min(self.problem.threads, self.pairs)
        )

    @functools.cached_property
    def elements(self) -> int:
        """The number of elements of the workspace of all threads. The compiled plan divides this workspace."""
        return _ext.workspace(self)

    @property
    def tables(self) -> tuple[tuple[int, ...], ...]:
        """The descriptions of the tables of twiddle factors, as `lengths.factors` expects them."""
        between = ((self.lengths[1], self.lengths[2], self.problem.lanes),) if self.problem.line else ()
        return (*((length,) for length in self.lengths), *between)

    @functools.cached_property
    def nbytes(self) -> int:
        """The number of bytes of the workspace and of the twiddle factors."""
        return (self.elements + factors_count(self.tables)) * self.problem.itemsize

    def forward_transform(self, columns: int | None = None) -> tuple[float, float]:
        """Return the cost of all passes of a transform, and the number of rows that the transform moves.

        To move a row is to load, transpose and store it. A column is as wide as a vector. `columns` is the number of
        columns that are not all zero. None means all columns.
        """
        deep, high, wide = self.lengths
        every = -(-wide // self.problem.lanes)
        columns = every if columns is None else min(columns, every)
        passes = deep * (columns * high * (row_cost(high) + row_cost(deep)) + self.strips * wide * row_cost(wide))
        moves = deep * (every * high * (2 if deep > 1 else 1) + self.strips * wide)
        return passes, moves

    @functools.cached_property
    def work(self) -> dict[str, float]:
        """The amounts of work of the busiest thread: passes, moves of rows, products of rows, bytes, and steps.

        All threads finish a step before any thread begins the next.
        """
        p = self.problem
        forward_transform, of_kernel = (
            self.forward_transform(),
            self.forward_transform(-(-(p.phase_axes[2].margin + 1) // p.lanes)),
        )
        kernels, transforms, steps = self._of_fused() if self.fused else self._of_blocks()
        products = p.groups * p.rows * p.columns * self.pairs * self.pitch / self.row / p.threads
        return {
            "passes": kernels * of_kernel[0] + transforms * forward_transform[0],
            "moves": kernels * of_kernel[1] + transforms * forward_transform[1],
            "products": products,
            "bytes": p.nbytes_moved / p.threads,
            "steps": steps,
            "call": 1,
        }

    def _of_fused(self) -> tuple[float, float, float]:
        """Return three numbers for products that are computed strip by strip while a tile is in the cache: the numbers
        of transforms of kernels, of transforms of tiles, and of steps.
        """
        p, pairs = self.problem, self.pairs
        if self.gradient:
            if self.shared:
                return 0.0, (2 * pairs + 1) / p.threads * p.groups, p.groups * (3 * pairs + 2)
            if self.parts > 1:
                return 0.0, p.groups * (2 * -(-pairs // self.parts) + 1 / p.threads), 4.0 * p.groups
            return 0.0, -(-p.groups // p.threads) * (2 * pairs + 1), 1
        if self.shared:
            return p.groups / p.threads, 2 * p.groups * pairs / p.threads, p.groups * (2 + 3 * pairs)
        whole, rest = divmod(p.groups, self.group_block)
        blocks = [(self.group_block, whole), (rest, 1)]
        tiles = sum(times * -(-block * pairs // p.threads) for block, times in blocks)
        kernels = sum(times * (block / p.threads if block == 1 else -(-block // p.threads)) for block, times in blocks)
        return kernels, 2 * tiles, (whole + (rest > 0)) * (3 if self.group_block == 1 else 2)

    def _of_blocks(self) -> tuple[float, float, float]:
        p, pairs = self.problem, self.pairs
        rows, columns, pair_block = self.row_block, self.column_block, self.pair_block
        row_blocks, column_blocks, pair_blocks = -(-p.rows // rows), -(-p.columns // columns), -(-pairs // pair_block)
        calls = p.groups * row_blocks * pair_blocks * column_blocks

        def most(items: int) -> int:
            return -(-items // p.threads)

        sources = float(calls * most(pair_block * columns))
        if self.gradient:
            results = p.groups * row_blocks * column_blocks
            transforms = sources + calls * most(pair_block * rows) + results * most(rows * columns)
            return 0.0, transforms, 3 * calls + results
        if column_blocks == 1 and pair_blocks == 1:
            sources /= row_blocks
        kernels = (
            p.groups * row_blocks * column_blocks * (pair_blocks if column_blocks > 1 else 1) * most(rows * columns)
        )
        results = p.groups * row_blocks * pair_blocks
        return float(kernels), sources + results * most(pair_block * rows), 3 * calls + results

    @property
    def distant(self) -> bool:
        """Whether the spectrum of a tile is too large for a second-level cache, together with its input and output."""
        return self.pitch * self.problem.itemsize > _NEAR_BYTES

    def cost(self) -> float:
        """Return an approximate number of cycles. It serves only to compare tilings."""
        p, work = self.problem, self.work
        return (
            (work["passes"] + work["moves"] * MOVE) * (_FAR if self.distant else 1.0)
            + work["products"] * _PRODUCT
            + work["bytes"] * _BYTES_COST / 64
            + work["steps"] * (p.tuning.step if p.threads > 1 else p.tuning.step / 10)
        )


def make_tiling(
    op: Op, geometry: ConvGeometry, itemsize: int, threads: int, tuning: Tuning = DEFAULT_TUNING
) -> FftTiling | None:
    """Return the cheapest tiling, or None if every output reads only padding."""
    phase_axes = tuple(axis_of(axis, geometry, op) for axis in geometry.axes)
    if min(phase_axis.whole for phase_axis in phase_axes) < 1:
        return None
    lanes = _ext.lanes(dtype=0 if itemsize == 4 else 1, isa=_isa.current)
    filters, channels = geometry.w_shape[0] // geometry.groups, geometry.w_shape[1]
    channels *= math.prod(phase_axis.taus for phase_axis in phase_axes)
    rows, columns = (channels, filters) if op == "backward_data" else (filters, channels)
    phase_axes = (UNIT_AXIS,) * (3 - len(phase_axes)) + phase_axes
    nbytes_moved = (math.prod(geometry.x_shape) + math.prod(geometry.out_shape)) * itemsize
    sizes = geometry.groups, geometry.x_shape[0], rows, columns
    problem = FftProblem(op, phase_axes, geometry.rank == 1, lanes, *sizes, threads, itemsize, nbytes_moved, tuning)
    found = []
    for lengths, tile in _candidates(problem):
        score, spectrum = _estimate(problem, lengths, tile)
        # Tiles whose spectra fit `space_bytes` are tried first. Larger tiles follow, in the order of the sizes of their
        # spectra.
        large = (3 + (threads if lengths[0] > 1 else 0)) * spectrum * itemsize > tuning.space_bytes
        found.append((spectrum if large else 0, score, lengths, tile))
    found.sort()
    best: FftTiling | None = None
    least = math.inf, math.inf
    for _, _, lengths, tile in found[:_LOOKED_AT]:
        for tiling in _tilings(problem, lengths, tile):
            cost = float(tiling.elements if tiling.elements * itemsize > tuning.space_bytes else 0), tiling.cost()
            if cost < least:
                best, least = tiling, cost
    return best


def _estimate(problem: FftProblem, lengths: tuple[int, ...], tile: tuple[int, ...]) -> tuple[float, int]:
    """Return an estimate of `FftTiling.cost` for a tile size, and the number of elements of a spectrum."""
    groups, rows, columns = problem.groups, problem.rows, problem.columns
    lanes, threads = problem.lanes, problem.threads
    (deep, high, wide), units = lengths, 1
    for phase_axis, n in zip(problem.phase_axes, tile, strict=True):
        units *= -(-phase_axis.whole // n) * phase_axis.phis
    pairs = problem.images * -(-units // 2)
    every = -(-wide // lanes)
    taps = min(-(-(problem.phase_axes[2].margin + 1) // lanes), every)
    outer, inner = deep * high * (row_cost(high) + row_cost(deep)), deep * -(-high // lanes) * wide
    moves, within = deep * high * (2 if deep > 1 else 1) * MOVE, inner * (row_cost(wide) + MOVE)
    each = every * (outer + moves) + within
    if problem.single:
        own = -(-groups * pairs // threads) * each
        shared = groups * pairs * (each / threads + 1.5 * problem.tuning.step)
        score = 2 * min(own, shared)
        if problem.op != "backward_weights":
            score += groups * (taps * outer + every * moves + within) / threads
    else:
        weights = each if problem.op == "backward_weights" else taps * outer + every * moves + within
        score = groups * (rows * columns * weights + pairs * (rows + columns) * each) / threads
    score += groups * rows * columns * pairs * inner * _PRODUCT / threads
    spectrum = 2 * lanes * inner
    return score * (1.0 if spectrum * problem.itemsize <= _NEAR_BYTES else _FAR), spectrum


def _tilings(problem: FftProblem, lengths: tuple[int, ...], tile: tuple[int, ...]) -> Iterator[FftTiling]:
    tiles = tuple(-(-phase_axis.whole // n) for phase_axis, n in zip(problem.phase_axes, tile, strict=True))
    gradient = problem.op == "backward_weights"
    if not problem.single:
        yield _blocks(FftTiling(problem, lengths, tile, tiles))
        return
    for shared in (False, True) if problem.threads > 1 else (False,):
        tiling = FftTiling(problem, lengths, tile, tiles, True, shared)
        if not shared and not gradient and problem.groups > 1:
            free_spectra = problem.tuning.space_bytes // problem.itemsize - tiling.elements
            tiling = replace(tiling, group_block=max(1, min(problem.groups, 1 + free_spectra // tiling.pitch)))
        yield tiling


def _blocks(tiling: FftTiling) -> FftTiling:
    """Return the tiling with the largest blocks of rows, of columns and of pairs of tiles that fit `space_bytes`."""
    problem = tiling.problem
    # The workspace of `tiling`, whose blocks have size 1, has three spectra: of a kernel, of a source, and of a result.
    free_spectra = 3 + (problem.tuning.space_bytes // problem.itemsize - tiling.elements) // tiling.pitch
    rows, columns, pairs = problem.rows, problem.columns, max(tiling.pairs, 1)
    # While the spectra do not fit, halve the number of pairs of tiles if the pairs have more spectra than the weights.
    # Otherwise halve the number of rows of weights or, if there is only one row, the number of columns.
    while rows * columns + pairs * (rows + columns) > free_spectra:
        if pairs > 1 and pairs * (rows + columns) > rows * columns:
            pairs = -(-pairs // 2)
        elif rows > 1:
            rows = -(-rows // 2)
        elif columns > 1:
            columns = -(-columns // 2)
        else:
            break
    return replace(tiling, row_block=rows, column_block=columns, pair_block=pairs)


def _candidates(problem: FftProblem) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield each tile size to try: the lengths of the transforms, and the numbers of results, along three axes."""
    phase_axes, lanes = problem.phase_axes, problem.lanes
    if problem.line:
        phase_axis = phase_axes[2]
        if phase_axis.ring and phase_axis.ring % lanes == 0:
            yield (1, *split(phase_axis.ring, lanes)), (1, 1, phase_axis.whole)
        for length in signal_lengths(phase_axis.margin + 1, phase_axis.whole + phase_axis.margin, lanes):
            tile = min(length - phase_axis.margin, phase_axis.whole)
            if 8 * tile < phase_axis.margin and tile < phase_axis.whole:
                continue
            yield (1, *split(length, lanes)), (1, 1, tile)
            if length > 1 << 16 and length > 32 * phase_axis.margin:
                return
        return
    gain = _GAIN if phase_axes[0] is UNIT_AXIS else _GAIN_OF_VOLUMES
    each = [_axis_candidates(phase_axis, lanes, gain) for phase_axis in phase_axes]
    for deep in each[0]:
        for high in each[1]:
            for wide in each[2]:
                yield (deep[0], high[0], wide[0]), (deep[1], high[1], wide[1])


def _axis_candidates(phase_axis: PhaseAxis, lanes: int, gain: float) -> list[tuple[int, int]]:
    """Return the tiles to try along an axis: the length of the transform of each tile, and its number of results.

    A longer tile is tried only if its cost per result is clearly below that of all shorter tiles. A tile of a whole
    circular image is always tried.
    """
    if not phase_axis.margin and phase_axis.whole == 1:
        return [(1, 1)]
    found: dict[int, int] = {}
    for cut in _TILE_COUNTS:
        tile = -(-phase_axis.whole // cut)
        if cut > 1 and (8 * tile < phase_axis.margin or tile * (cut - 1) >= phase_axis.whole):
            break
        length = fast_length(tile + phase_axis.margin, lanes)
        found.setdefault(length, tile)
        if cut > 1 and length <= 64 and tile >= 2 * phase_axis.margin:
            break
    kept, least = [], math.inf
    for length, tile in sorted(found.items()):
        each = length * (row_cost(length) + 2 * MOVE) / tile
        if each < least * gain:
            kept.append((length, tile))
            least = each
    if phase_axis.ring and (phase_axis.ring, phase_axis.whole) not in kept:
        kept.append((phase_axis.ring, phase_axis.whole))
    return kept
