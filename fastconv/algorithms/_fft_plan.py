"""How `fft` cuts a convolution into tiles, phases and blocks, and what that takes.

Along an axis of stride s and dilation d without a common divisor, output o = d * q + phi meets at tap t = s * u + tau
the padded cell d * s * (q + u) + d * tau + s * phi. So for each phase phi of the outputs and tau of the taps there is a
plain correlation, of stride and dilation 1, of cells d * s apart: position q + u of the image, u of the weights and q of
the result. Sums over tau are sums over more channels; phi makes more images. With a common divisor only every so
many-th cell of the image takes part at all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv import _isa
from fastconv._axis import Axis
from fastconv._ext import fft as _ext
from fastconv._records import dataclass
from fastconv.algorithms.base import Op
from fastconv.geometry import ConvGeometry

#: Of all spectra held at a time. Tiles and blocks shrink to it, down to a single transform of the kernel.
SPACE_BYTES = 24 << 20
#: Of a thread's second-level cache, for a tile and the spectrum that it is multiplied with.
_NEAR_BYTES = 3 << 18
#: Lengths up to so many times the least are looked at.
_LONGER = 1.2
#: Cuts of an axis into so many tiles are looked at.
_CUTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
#: What a pass of each radix takes for each row, in cycles or so; and a row's loads and stores, where its turning and its
#: place in memory count: in the plane, and beyond the second-level cache.
_PASS = {2: 3.0, 3: 3.6, 4: 3.0, 5: 4.6, 8: 4.0}
_MOVE, _FAR = 9.0, 6.0
#: A step of all threads, and a product of two rows.
_STEP, _PRODUCT = 5000.0, 3.0


@functools.lru_cache(maxsize=1024)
def radices(length: int) -> tuple[int, ...]:
    """Of the passes of a transform, the first one's first; without those of a length that has other prime factors."""
    found = []
    for odd in (5, 3):
        while length % odd == 0:
            found.append(odd)
            length //= odd
    twos = length.bit_length() - 1
    assert length == 1 << twos
    eights = max(twos // 3 - (twos % 3 == 1 and twos > 1), 0)
    rest = twos - 3 * eights
    return (*found, *((4,) * (rest // 2)), *((2,) * (rest % 2)), *((8,) * eights))


@functools.lru_cache(maxsize=1024)
def row_cost(length: int) -> float:
    """Of all passes of a transform, for each row."""
    return sum(_PASS[radix] for radix in radices(length))


@functools.lru_cache(maxsize=1)
def _fast_lengths() -> tuple[int, ...]:
    most = 1 << 24
    found = [1]
    for prime in (2, 3, 5):
        more = []
        for n in found:
            while n <= most:
                more.append(n)
                n *= prime
        found = more
    return tuple(sorted(found))


def is_fast(length: int) -> bool:
    """Whether there is a transform of exactly this length."""
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    return length == 1


@functools.lru_cache(maxsize=4096)
def fast_length(least: int, lanes: int) -> int:
    """The cheapest length of at least so many; lengths that fill vectors are cheaper."""
    lengths = _fast_lengths()
    if least > lengths[-1]:
        return 1 << (least - 1).bit_length()
    low, high = 0, len(lengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if lengths[middle] < least else (low, middle)
    best, cost = lengths[low], math.inf
    for length in lengths[low:]:
        if length > least * _LONGER + 2:
            break
        filled = -(-length // lanes) * lanes
        each = (length + filled) * (row_cost(length) + 2 * _MOVE)
        if each < cost:
            best, cost = length, each
    return best


@functools.lru_cache(maxsize=4096)
def _split(length: int, lanes: int) -> tuple[int, int]:
    """Rows and columns of a signal's tile: columns fill vectors, and both are transformed."""
    best, cost = (1, length), math.inf
    for columns in range(lanes, length + 1, lanes):
        rows = length // columns
        if rows * columns == length and is_fast(columns) and is_fast(rows):
            each = row_cost(rows) + row_cost(columns) + max(rows, columns) / min(rows, columns) * 0.1
            each *= -(-rows // lanes) * lanes / rows
            if each < cost:
                best, cost = (rows, columns), each
    return best


def _signal_lengths(least: int, most: int, lanes: int) -> Iterator[int]:
    """Lengths of a signal's tiles from the least to the first that is enough for all of it."""
    step = max(lanes, 1)
    while True:
        for times in (8, 10, 12):
            length = step * times // 8 if step * times % 8 == 0 else 0
            if length >= least and length % lanes == 0:
                yield length
                if length >= most:
                    return
        step *= 2


@dataclass(frozen=True)
class Side:
    """One axis: its phases, and the plain correlation that each of them is."""

    size: int
    k: int
    out: int
    lo: int
    common: int  # divisor of stride and dilation
    s: int
    d: int
    first: int  # position of the first result, for dx
    whole: int  # results
    margin: int  # taps less one
    covers: bool  # every cell of dx is the result of some phase
    border: int = 0  # what is beyond the image, as ``_ext/fft.h`` counts them
    ring: int = 0  # positions around a circular image, where a transform of so many is cyclic itself

    @property
    def step(self) -> int:
        """Cells of the image from a position to the next."""
        return self.common * self.s * self.d

    @property
    def taus(self) -> int:
        """Phases of the taps."""
        return min(self.s, self.k)

    @property
    def phis(self) -> int:
        """Phases of the outputs."""
        return min(self.d, self.out)


#: As the enum in ``_ext/fft.h``.
_BORDERS = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}


def _border(axis: Axis, geometry: ConvGeometry) -> int:
    """Of an axis; where nothing is padded, nothing beyond the image is read."""
    return _BORDERS[geometry.pad_mode] if axis.lo or axis.hi else 0


def wraps_back(geometry: ConvGeometry) -> bool:
    """Whether dx is a correlation of dout, too: outputs go round a circular image a whole number of steps.

    Then dx is that of dout with a circular border, and nothing has to be folded.
    """
    return geometry.pad_mode == "circular" and all(
        _border(axis, geometry) == 0 or _goes_round(axis.row()) for axis in geometry.axes
    )


def _goes_round(row: tuple[int, ...]) -> bool:
    size, _, stride, _, dilation, out = row
    return stride * out == size and out % (dilation // math.gcd(stride, dilation)) == 0


def _side(axis: Axis, geometry: ConvGeometry, op: Op) -> Side:
    size, k, stride, lo, dilation, out = axis.row()
    border = _border(axis, geometry)
    common = math.gcd(stride, dilation)
    s, d = stride // common, dilation // common
    step = common * s * d
    margin, first, whole, covers = -(-k // s) - 1, 0, -(-out // d), True
    circular = border == _BORDERS["circular"]
    if op == "backward_data" and circular:
        whole, covers = size // step, common == 1 and k >= s
    elif op == "backward_data":
        last_offset = common * (d * (min(s, k) - 1) + s * (min(d, out) - 1)) - lo
        first = max(0, -(last_offset // step))
        whole = min(whole + margin, (size - 1 + lo) // step + 1) - first
        covers = step == 1 and first <= lo and first + whole - lo >= size
    ring = size // step if circular and size % step == 0 else 0
    if not (max(margin + 1, whole) <= ring and is_fast(ring)):
        ring = 0
    return Side(size, k, out, lo, common, s, d, first, whole, margin, covers, border, ring)


UNIT_SIDE = Side(1, 1, 1, 0, 1, 1, 1, 0, 1, 0, True)


@dataclass(frozen=True)
class Plan:
    """Lengths of the transforms, results of a tile, and how many rows, columns, pairs and groups are held at a time."""

    op: Op
    sides: tuple[Side, ...]  # three
    line: bool  # a signal, whose tile is a plane of `lengths`
    lanes: int
    lengths: tuple[int, ...]
    tile: tuple[int, ...]
    tiles: tuple[int, ...]
    groups: int
    images: int
    rows: int
    columns: int
    row_block: int
    column_block: int
    pair_block: int
    group_block: int
    fused: bool
    shared: bool
    threads: int

    @property
    def pairs(self) -> int:
        """Of tiles, of all images."""
        units = math.prod(self.tiles) * math.prod(side.phis for side in self.sides)
        return self.images * -(-units // 2)

    @property
    def axis_lengths(self) -> tuple[int, ...]:
        """Of the transforms along the axes of the image; a signal's is that of its plane."""
        return (1, 1, self.lengths[1] * self.lengths[2]) if self.line else self.lengths

    @property
    def strips(self) -> int:
        """Of a plane."""
        return -(-self.lengths[1] // self.lanes)

    @property
    def pitch(self) -> int:
        """Elements from a spectrum to the next: a row more, so that spectra do not share sets of a cache."""
        return 2 * self.lanes * (self.lengths[0] * self.strips * self.lengths[2] + 1)

    @property
    def strip(self) -> int:
        """Elements of a strip down the outermost axis."""
        return 2 * self.lanes * (self.lengths[0] if self.lengths[0] > 1 else self.lengths[1])

    @property
    def flat(self) -> int:
        """Elements of a thread's plane, for the fused product."""
        if not self.fused or (self.shared and self.lengths[0] == 1):
            return 0
        return 2 * self.lanes * (self.strips * self.lengths[2] + 1)

    @property
    def volume(self) -> int:
        """Elements of a volume between its planes."""
        if self.lengths[0] == 1:
            return 0
        columns = -(-self.lengths[2] // self.lanes)
        return 2 * self.lanes * (self.lengths[0] * self.lengths[1] * columns + 1)

    @property
    def slot(self) -> int:
        """Elements of a thread."""
        return self.strip + self.flat + (0 if self.shared else self.volume)

    @property
    def common(self) -> int:
        """Elements of the one tile that all threads share."""
        return (self.volume or self.pitch) if self.shared else 0

    @property
    def spectra(self) -> int:
        """Held at a time."""
        if self.fused:
            return self.group_block
        return self.row_block * self.column_block + self.pair_block * (self.row_block + self.column_block)

    @property
    def elements(self) -> int:
        """Of all workspace."""
        return self.threads * self.slot + self.common + self.spectra * self.pitch

    @property
    def outer_items(self) -> int:
        """Strips that go down the outermost axis."""
        return -(-self.lengths[2] // self.lanes) * (self.lengths[1] if self.lengths[0] > 1 else 1)

    def there(self, columns: int | None = None) -> tuple[float, float]:
        """Cycles of passes and of moves of a transform, of which only so many columns of vectors are not zeros."""
        deep, high, wide = self.lengths
        every = -(-wide // self.lanes)
        columns = every if columns is None else min(columns, every)
        passes = deep * columns * high * row_cost(high) + deep * self.strips * wide * row_cost(wide)
        moves = deep * (every * high + self.strips * wide)
        if deep > 1:
            passes += columns * high * deep * row_cost(deep)
            moves += every * high * deep
        return passes, moves

    @property
    def work(self) -> dict[str, float]:
        """Of the thread that does most: rows of passes, rows moved, products of rows, and steps that end with all."""
        rows, columns, pairs, groups = self.rows, self.columns, self.pairs, self.groups
        passes, moves = self.there()
        of_kernel = self.there(-(-(self.sides[2].margin + 1) // self.lanes))
        spectrum = self.pitch / (2 * self.lanes)
        if self.fused:
            kernels = groups / self.threads
            if self.shared:
                tiles, steps = groups * pairs / self.threads, groups * (2 + 3 * pairs)
            else:
                tiles = sum(
                    -(-min(self.group_block, groups - g) * pairs // self.threads)
                    for g in range(0, groups, self.group_block)
                )
                blocks = -(-groups // self.group_block)
                steps = blocks * (1 if self.group_block > 1 else 2) + blocks
                if self.group_block > 1:
                    kernels = blocks * -(-self.group_block // self.threads)
            return {
                "passes": kernels * of_kernel[0] + 2 * tiles * passes,
                "moves": kernels * of_kernel[1] + 2 * tiles * moves,
                "products": tiles * spectrum,
                "steps": steps,
                "call": 1,
            }
        row_blocks, column_blocks = -(-rows // self.row_block), -(-columns // self.column_block)
        pair_blocks = -(-pairs // self.pair_block)
        calls = groups * row_blocks * pair_blocks * column_blocks

        def most(items: int) -> float:
            return -(-items // self.threads)

        sources = calls * most(min(pairs, self.pair_block) * min(columns, self.column_block))
        if self.op == "backward_weights":
            gradients = calls * most(min(pairs, self.pair_block) * min(rows, self.row_block))
            results = (
                groups * row_blocks * column_blocks * most(min(rows, self.row_block) * min(columns, self.column_block))
            )
            weights = 0.0
            steps = 3 * calls + groups * row_blocks * column_blocks
        else:
            gradients = 0.0
            if column_blocks == 1 and pair_blocks == 1:
                sources /= row_blocks
            weights = groups * row_blocks * column_blocks * (pair_blocks if column_blocks > 1 else 1)
            weights *= most(min(rows, self.row_block) * min(columns, self.column_block))
            results = groups * row_blocks * pair_blocks * most(min(pairs, self.pair_block) * min(rows, self.row_block))
            steps = 3 * calls + groups * row_blocks * pair_blocks
        transforms = sources + gradients + results
        return {
            "passes": weights * of_kernel[0] + transforms * passes,
            "moves": weights * of_kernel[1] + transforms * moves,
            "products": groups * rows * columns * pairs * spectrum / self.threads,
            "steps": steps,
            "call": 1,
        }

    def cost(self) -> float:
        """Cycles or so; only to compare plans."""
        work = self.work
        near = 2 * self.pitch * (8 if self.lanes * 4 != 64 else 4) <= _NEAR_BYTES
        return (
            work["passes"]
            + work["moves"] * (_MOVE if near else _MOVE + _FAR)
            + work["products"] * _PRODUCT
            + work["steps"] * (_STEP if self.threads > 1 else _STEP / 10)
        )


def make_plan(op: Op, geometry: ConvGeometry, itemsize: int, threads: int) -> Plan | None:
    """The cheapest that was found; None where no result depends on any cell of the source."""
    sides = tuple(_side(axis, geometry, op) for axis in geometry.axes)
    if min(side.whole for side in sides) < 1:
        return None
    lanes = _ext.lanes(0 if itemsize == 4 else 1, _isa.current)
    filters, channels = geometry.w_shape[0] // geometry.groups, geometry.w_shape[1]
    channels *= math.prod(side.taus for side in sides)
    rows, columns = (channels, filters) if op == "backward_data" else (filters, channels)
    sides = (UNIT_SIDE,) * (3 - len(sides)) + sides
    line = geometry.rank == 1
    best: Plan | None = None
    least = math.inf
    smallest: Plan | None = None

    def plans(lengths: tuple[int, ...], tile: tuple[int, ...]) -> Iterator[Plan]:
        tiles = tuple(-(-side.whole // n) for side, n in zip(sides, tile, strict=True))
        images, groups = geometry.x_shape[0], geometry.groups
        fused = rows == columns == 1 and op != "backward_weights"
        given = op, sides, line, lanes, lengths, tile, tiles, groups, images, rows, columns
        if fused:
            for shared in (False, True) if threads > 1 else (False,):
                plan = Plan(*given, 1, 1, 1, 1, True, shared, threads)
                room = SPACE_BYTES // itemsize - plan.elements
                block = 1 if shared else max(1, min(groups, 1 + room // plan.pitch))
                yield Plan(*given, 1, 1, 1, block, True, shared, threads)
            return
        yield _blocks(given, itemsize, threads)

    for lengths, tile in _candidates(sides, line, lanes):
        for plan in plans(lengths, tile):
            if plan.elements * itemsize > SPACE_BYTES:
                if smallest is None or plan.elements < smallest.elements:
                    smallest = plan
                continue
            cost = plan.cost()
            if cost < least:
                best, least = plan, cost
    return best or smallest


def _blocks(given: tuple[Any, ...], itemsize: int, threads: int) -> Plan:
    """How many rows, columns and pairs fit."""
    rows, columns = given[-2:]
    plan = Plan(*given, rows, columns, 1, 1, False, False, threads)
    room = max((SPACE_BYTES // itemsize - threads * plan.slot) // plan.pitch, 0)
    pairs = max(plan.pairs, 1)
    row_block, column_block = rows, columns
    # All pairs and a few rows, if that fits; else fewer pairs, then fewer rows and columns.
    pair_block = pairs
    while row_block * column_block + pair_block * (row_block + column_block) > room:
        if pair_block > 1 and pair_block * (row_block + column_block) > row_block * column_block:
            pair_block = -(-pair_block // 2)
        elif row_block > 1:
            row_block = -(-row_block // 2)
        elif column_block > 1:
            column_block = -(-column_block // 2)
        elif pair_block > 1:
            pair_block = -(-pair_block // 2)
        else:
            break
    return Plan(*given, row_block, column_block, pair_block, 1, False, False, threads)


def _candidates(sides: tuple[Side, ...], line: bool, lanes: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Lengths of transforms and results of tiles."""
    if line:
        side = sides[2]
        if side.ring and side.ring % lanes == 0:
            yield (1, *_split(side.ring, lanes)), (1, 1, side.whole)
        for length in _signal_lengths(side.margin + 1, side.whole + side.margin, lanes):
            tile = min(length - side.margin, side.whole)
            if 8 * tile < side.margin and tile < side.whole:
                continue
            yield (1, *_split(length, lanes)), (1, 1, tile)
            if length > 1 << 16 and length > 32 * side.margin:
                return
        return
    each = [_axis_candidates(side, lanes) for side in sides]
    for deep in each[0]:
        for high in each[1]:
            for wide in each[2]:
                yield (deep[0], high[0], wide[0]), (deep[1], high[1], wide[1])


def _axis_candidates(side: Side, lanes: int) -> list[tuple[int, int]]:
    found: dict[int, int] = {side.ring: side.whole} if side.ring else {}
    for cut in _CUTS:
        tile = -(-side.whole // cut)
        if cut > 1 and (8 * tile < side.margin or tile * (cut - 1) >= side.whole):
            break
        length = 1 if tile == 1 and not side.margin else fast_length(tile + side.margin, lanes)
        found.setdefault(length, tile)
        if tile == 1 or (cut > 1 and length <= 64 and tile >= 2 * side.margin):
            break
    return list(found.items())


def numbers(plan: Plan, geometry: ConvGeometry) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """The plan as ``_ext/fft.h`` reads it, and which factors follow each other, as arguments of `factors`."""
    op, sides, back = plan.op, plan.sides, plan.op == "backward_data"
    tau, phi = tuple(side.taus for side in sides), tuple(side.phis for side in sides)
    volume_at = plan.strip + plan.flat
    shared_at = plan.threads * plan.slot
    spectra_at = shared_at + plan.common
    tables: list[tuple[int, ...]] = []
    at, axes = 0, []
    for length in plan.lengths:
        of = radices(length)
        axes += [length, len(of), at, *of, *(0,) * (_ext.PASSES - len(of))]
        tables.append((length,))
        at += _factor_count(length)
    between = -1
    if plan.line:
        between = at
        tables.append((plan.lengths[1], plan.lengths[2], plan.lanes))
    found = [
        plan.line, op == "backward_weights", back, plan.groups, plan.images, plan.rows, plan.columns,
        math.prod(tau), math.prod(phi), math.prod(plan.tiles), plan.row_block, plan.column_block, plan.pair_block,
        plan.group_block, plan.shared, plan.fused, plan.slot, plan.strip, volume_at, shared_at, spectra_at, plan.pitch,
        between, *tau, *phi, *plan.tile, *plan.tiles,
    ]  # fmt: skip
    x, w, out = _x_like(plan, geometry), _weights(plan, geometry), _out_like(plan, geometry)
    for array in (out, w, x) if back else (x, w, out):
        found += array
    return np.array(found + axes, np.intp), tables


def _array(
    outer: int,
    group: int,
    inner: int,
    tiled: bool,
    sizes: tuple[int, ...],
    axes: list[tuple[int, ...]],
    borders: tuple[int, ...] = (0, 0, 0),
) -> list[int]:
    pitches = [math.prod(sizes[i + 1 :]) for i in range(3)]
    columns = [list(column) for column in zip(*axes, strict=True)]  # steps, origins, of phi, of tau, counts
    return [outer, group, inner, tiled, *sizes, *pitches, *sum(columns, []), *borders]


def _x_like(plan: Plan, geometry: ConvGeometry) -> list[int]:
    """The image, which is read with a margin, or dx."""
    sides, op = plan.sides, plan.op
    sizes = tuple(side.size for side in sides)
    cells, channels = math.prod(sizes), geometry.w_shape[1]
    axes = []
    for side, tile, length in zip(sides, plan.tile, plan.axis_lengths, strict=True):
        # A ring is shorter than its results and their margin.
        count = tile if op == "backward_data" else min(tile + side.margin, length)
        origin = side.step * side.first - side.lo
        axes.append((side.step, origin, side.common * side.s, side.common * side.d, count))
    borders = tuple(side.border for side in sides)
    return _array(geometry.x_shape[1] * cells, channels * cells, cells, True, sizes, axes, borders)


def _out_like(plan: Plan, geometry: ConvGeometry) -> list[int]:
    sides, op = plan.sides, plan.op
    sizes = tuple(side.out for side in sides)
    cells, filters = math.prod(sizes), geometry.w_shape[0] // geometry.groups
    axes = []
    back = op == "backward_data"
    for side, tile, length in zip(sides, plan.tile, plan.axis_lengths, strict=True):
        origin = side.d * (side.first - side.margin) if back else 0
        axes.append((side.d, origin, 1, 0, min(tile + side.margin, length) if back else tile))
    borders = tuple(side.border if back else 0 for side in sides)
    return _array(geometry.w_shape[0] * cells, filters * cells, cells, True, sizes, axes, borders)


def _weights(plan: Plan, geometry: ConvGeometry) -> list[int]:
    """Flipped for dx."""
    sides = plan.sides
    sizes = tuple(side.k for side in sides)
    cells, (filters, channels) = math.prod(sizes), geometry.w_shape[:2]
    axes = []
    for side in sides:
        flip = plan.op == "backward_data"
        axes.append((-side.s if flip else side.s, side.margin * side.s if flip else 0, 0, 1, side.margin + 1))
    return _array(channels * cells, filters // geometry.groups * channels * cells, cells, False, sizes, axes)


def _factor_count(length: int) -> int:
    count, n = 0, length
    for radix in radices(length):
        count += 2 * (radix - 1) * (n // radix)
        n //= radix
    return count


def _roots(powers: np.ndarray, length: int) -> np.ndarray:
    """exp(-2 pi i * power / length) in double, from angles of at most an eighth of a turn, so that none is off."""
    powers = powers % length
    eighth, rest = np.divmod(8 * powers, length)
    odd = eighth % 2 == 1
    angle = np.where(odd, length - rest, rest) * (np.pi / 4 / length)
    c, s = np.cos(angle), np.sin(angle)
    c, s = np.where(odd, s, c), np.where(odd, c, s)
    # The first quarter of a turn; each quarter more is a factor of i.
    turns = np.array([1, 1j, -1, -1j])[eighth // 2]
    return np.conj((c + 1j * s) * turns)


@functools.lru_cache(maxsize=32)
def factors(tables: tuple[tuple[int, ...], ...], itemsize: int) -> np.ndarray:
    """All factors of a plan, one table after another."""
    found = [_between(*table) if len(table) > 1 else _of_passes(table[0]) for table in tables]
    return np.concatenate([np.zeros(0), *found]).astype(np.float32 if itemsize == 4 else np.float64)


def _of_passes(length: int) -> np.ndarray:
    found, n = [np.zeros(0)], length
    for radix in radices(length):
        powers = np.arange(n // radix)[:, None] * np.arange(1, radix)
        found.append(_roots(powers, n).reshape(-1).view(np.float64))
        n //= radix
    return np.concatenate(found)


def _order(length: int) -> np.ndarray:
    """Which frequency each row of a transformed strip has."""
    order, step = np.zeros(1, np.intp), 1
    for radix in radices(length):
        order = (order[:, None] + step * np.arange(radix)).reshape(-1)
        step *= radix
    return order


def _between(rows: int, columns: int, lanes: int) -> np.ndarray:
    """Factors between the two transforms of a signal's tile, as its plane lies: strips of columns, lanes, re and im."""
    order = np.zeros(-(-rows // lanes) * lanes, np.intp)
    order[:rows] = _order(rows)
    powers = order.reshape(-1, 1, lanes) * np.arange(columns)[:, None]
    roots = _roots(powers, rows * columns)
    return np.stack([roots.real, roots.imag], axis=2).reshape(-1)
