"""Convolution as a product of spectra, for kernels so big that transforms cost less than their taps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastconv._records import dataclass
from fastconv.algorithms import _scipy_fft as _fft
from fastconv.algorithms._gemm import complex_product
from fastconv.algorithms.base import Algorithm, Op
from fastconv.geometry import ConvGeometry

#: Of all spectra held at a time. Tiles and blocks shrink to it, down to a single transform of the kernel.
_SPACE_BYTES = 1 << 24
#: A transform of the kernel alone that takes more than this is refused.
_MOST_BYTES = 1 << 30
#: Tiles are not cut below so many times the kernel only to hold more spectra: the overlap would be most of it.
_SPANS = 3
#: Spectra are held up to this many times: as transformed, put in order, and as a sum.
_COPIES = 3


@dataclass(frozen=True)
class Side:
    """One axis of a correlation: result r meets source cell ``(r * jump + t * dilation - lo) / spread`` at tap t,
    where that is a whole number; `out` results in `tile`s of stride-1 results, transformed `length` at a time."""

    size: int
    spread: int
    lo: int
    k: int
    dilation: int
    out: int
    jump: int
    tile: int = 0
    length: int = 0

    @property
    def span(self) -> int:
        """Cells of the kernel."""
        return (self.k - 1) * self.dilation + 1

    @property
    def whole(self) -> int:
        """Results at stride 1."""
        return (self.out - 1) * self.jump + 1

    def cut(self, tile: int) -> Side:
        """The same in tiles of that many results at stride 1."""
        length = _fft.next_fast_len(tile + self.span - 1, real=True)
        return Side(self.size, self.spread, self.lo, self.k, self.dilation, self.out, self.jump, tile, length)

    def source(self, begin: int) -> tuple[slice, slice]:
        """Which source cells the tile from `begin` on reads, and where they lie in it."""
        at = begin - self.lo
        first = -(-max(at, 0) // self.spread)
        last = min(max(at + self.tile + self.span - 2, -1) // self.spread + 1, self.size)
        start = first * self.spread - at
        return slice(first, max(first, last)), slice(
            start, max(start, start + (last - first - 1) * self.spread + 1), self.spread
        )

    def result(self, begin: int) -> tuple[slice, slice]:
        """Which results the tile has, and where they lie in it."""
        first = -(-begin // self.jump)
        last = min((begin + self.tile - 1) // self.jump + 1, self.out)
        start = first * self.jump - begin
        return slice(first, last), slice(start, max(start, start + (last - first - 1) * self.jump + 1), self.jump)


@dataclass(frozen=True)
class Plan:
    """Tiles, and how many rows of weights, columns of weights and images are held at a time."""

    sides: tuple[Side, ...]
    rows: int
    columns: int
    images: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of a transform."""
        return tuple(side.length for side in self.sides)

    @property
    def axes(self) -> tuple[int, ...]:
        """The last ones."""
        return tuple(range(-len(self.sides), 0))

    @property
    def frequencies(self) -> int:
        """Of a real transform."""
        return math.prod(self.lengths[:-1]) * (self.lengths[-1] // 2 + 1)

    def tiles(self) -> Iterator[tuple[int, ...]]:
        """Where each begins."""
        return itertools.product(*(range(0, side.whole, side.tile) for side in self.sides))

    @property
    def planes(self) -> int:
        """Spectra held at a time."""
        return _COPIES * (self.rows * self.columns + self.images * (self.rows + self.columns))


class Fft(Algorithm):
    """Products of spectra, by overlap-save tiles.

    Per tile, group and frequency, with f filters, c channels and n images held
    at a time, ``^`` for spectra and ``*`` for the complex conjugate:

    - forward:          out^ = w^* @ x^              [f x c] @ [c x n], results at stride 1, those at the stride kept
    - backward_data:    dx^ = flipped w^* @ dout^    [c x f] @ [f x n], dout spread by the stride
    - backward_weights: dw^ += dout^* @ x^           [f x n] @ [n x c], summed over tiles and images

    The error is relative to the largest of ``|x| * |w|`` over the tile, not to each output: about
    ``eps * log2(length)``. At the output's scale it stays below 2e-5 in float32 and 1e-13 in float64 on random
    data. A NaN or inf makes every output of its tile and image NaN or inf, never another image's. Numbers whose sum
    over a tile overflows do the same. 'auto' computes such images again by an algorithm that sums products.

    References
    ----------
    M. Mathieu, M. Henaff, Y. LeCun, "Fast training of convolutional networks
    through FFTs", arXiv:1312.5851.
    """

    name = "fft"
    own_threads = False
    sums_products = False

    def unsupported(self, op: Op, geometry: ConvGeometry, dtype: np.dtype) -> str | None:
        """The dilated kernel has to be transformed whole."""
        spans = tuple((axis.k - 1) * axis.dilation + 1 for axis in geometry.axes)
        nbytes = math.prod(2 * span for span in spans) * dtype.itemsize
        if nbytes > _MOST_BYTES:
            return f"a transform of the kernel, which covers {spans} cells, would take {nbytes} bytes"
        return None

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Spectra of weights, sources and results."""
        plan = _plan(op, geometry, dtype)
        return plan.planes * plan.frequencies * 2 * dtype.itemsize

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """Transforms, putting their results in order, and products."""
        plan = _plan(op, geometry, dtype)
        groups, images, scale = geometry.groups, geometry.x_shape[0], dtype.itemsize / 4
        rows, columns = _rows_and_columns(op, geometry)
        row_blocks, column_blocks = -(-rows // plan.rows), -(-columns // plan.columns)
        tiles = math.prod(-(-side.whole // side.tile) for side in plan.sides)
        runs = tiles * -(-images // plan.images)
        weights = rows * columns * (runs if column_blocks > 1 and op != "backward_weights" else 1)
        planes = groups * (weights + tiles * images * (columns * row_blocks + rows * column_blocks))
        cells = math.prod(plan.lengths)
        calls = groups * runs * row_blocks * column_blocks
        return {
            "transforms": planes * cells * math.log2(max(cells, 2)) * scale / threads,
            "ordered": planes * plan.frequencies * dtype.itemsize,
            "products": groups * plan.frequencies * rows * columns * images * tiles * scale / threads,
            "frequencies": calls * plan.frequencies,
            "call": calls,
        }

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Every stride-th result is kept."""
        plan, counts = _plan("forward", geometry, x.dtype), np.zeros(len(x), np.intp)
        for group, (sources, results) in enumerate(_groups(x, out, geometry)):
            weights = w.reshape(geometry.groups, -1, *w.shape[1:])[group]
            _correlate(plan, sources, weights, results, counts, threads)
        if b is not None:
            out += b.reshape(-1, *(1,) * geometry.rank)
        return counts if counts.any() else None

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """The correlation of dout, its cells a stride apart, with the flipped kernel."""
        plan, counts = _plan("backward_data", geometry, dx.dtype), np.zeros(len(dx), np.intp)
        for group, (sources, results) in enumerate(_groups(dout, dx, geometry)):
            weights = w.reshape(geometry.groups, -1, *w.shape[1:])[group].swapaxes(0, 1)
            _correlate(plan, sources, np.flip(weights, plan.axes), results, counts, threads)
        return counts if counts.any() else None

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> np.ndarray | None:
        """Spectra are summed, so that one transform back is enough."""
        plan, counts = _plan("backward_weights", geometry, x.dtype), np.zeros(1, np.intp)
        for group, (sources, gradients) in enumerate(_groups(x, dout, geometry)):
            result = dw.reshape(geometry.groups, -1, *dw.shape[1:])[group]
            for rows, columns in itertools.product(
                _slices(len(result), plan.rows), _slices(result.shape[1], plan.columns)
            ):
                total: Any = None
                for begin, images in itertools.product(plan.tiles(), _slices(len(x), plan.images)):
                    of_dout = _spectra(_tile_of_results(plan, gradients[images, rows], begin), plan, threads)
                    of_x = _spectra(_tile_of_sources(plan, sources[images, columns], begin), plan, threads)
                    # [f x n] @ [n x c], one product per frequency
                    with np.errstate(all="ignore"):
                        part = complex_product(np.conj(of_dout, out=of_dout).transpose(0, 2, 1), of_x, threads)
                        total = part if total is None else np.add(total, part, out=total)
                cells = _cells(total, plan, threads)
                cells = cells[_last(slice(0, side.span, side.dilation) for side in plan.sides)]
                counts[0] += not np.isfinite(cells).all()
                result[rows, columns] = cells
        return counts if counts.any() else None


def _last(slices: Iterable[slice]) -> tuple[Any, ...]:
    """The index of the last axes."""
    return (..., *slices)


def _groups(sources: np.ndarray, results: np.ndarray, geometry: ConvGeometry) -> Iterator[tuple[np.ndarray, ...]]:
    """Channels of each group of both, as views."""
    arrays = [a.reshape(len(a), geometry.groups, -1, *a.shape[2:]).swapaxes(0, 1) for a in (sources, results)]
    return zip(*arrays, strict=True)


def _slices(n: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def _correlate(
    plan: Plan, sources: np.ndarray, weights: np.ndarray, results: np.ndarray, counts: np.ndarray, threads: int
) -> None:
    """results (N, f, ...) = sources (N, c, ...) by weights (f, c, ...), for one group.

    `counts` (N,) goes up by 1 for each tile of an image in which a result is inf or NaN.
    """
    columns = _slices(weights.shape[1], plan.columns)
    for rows in _slices(len(weights), plan.rows):
        kept = _weight_spectra(plan, weights[rows], threads) if len(columns) == 1 else None
        for begin, images in itertools.product(plan.tiles(), _slices(len(sources), plan.images)):
            total: Any = None
            for some in columns:
                of_w = _weight_spectra(plan, weights[rows, some], threads) if kept is None else kept
                of_x = _spectra(_tile_of_sources(plan, sources[images, some], begin), plan, threads)
                # [f x c] @ [c x n], one product per frequency
                with np.errstate(all="ignore"):
                    part = complex_product(of_w, of_x.transpose(0, 2, 1), threads)
                    total = part if total is None else np.add(total, part, out=total)
            cells = _cells(total, plan, threads).swapaxes(0, 1)
            places = [side.result(start) for side, start in zip(plan.sides, begin, strict=True)]
            cells = cells[_last(at for _, at in places)]
            counts[images] += ~np.isfinite(cells).all(axis=tuple(range(1, cells.ndim)))
            results[(images, rows, *(to for to, _ in places))] = cells


def _weight_spectra(plan: Plan, weights: np.ndarray, threads: int) -> np.ndarray:
    """Conjugate spectra (frequencies, f, c) of kernels with zeros between their taps."""
    spread = np.zeros((*weights.shape[:2], *plan.lengths), weights.dtype)
    spread[_last(slice(0, side.span, side.dilation) for side in plan.sides)] = weights
    spectra = _spectra(spread, plan, threads)
    return np.conj(spectra, out=spectra)


def _tile_of_sources(plan: Plan, sources: np.ndarray, begin: tuple[int, ...]) -> np.ndarray:
    """A tile and the margin its kernels reach into, zeros where there is no source."""
    tile = np.zeros((*sources.shape[:2], *plan.lengths), sources.dtype)
    places = [side.source(start) for side, start in zip(plan.sides, begin, strict=True)]
    tile[_last(to for _, to in places)] = sources[_last(cells for cells, _ in places)]
    return tile


def _tile_of_results(plan: Plan, results: np.ndarray, begin: tuple[int, ...]) -> np.ndarray:
    """A tile of gradients of results, zeros where the stride leaves one out."""
    tile = np.zeros((*results.shape[:2], *plan.lengths), results.dtype)
    places = [side.result(start) for side, start in zip(plan.sides, begin, strict=True)]
    tile[_last(to for _, to in places)] = results[_last(cells for cells, _ in places)]
    return tile


def _spectra(tile: np.ndarray, plan: Plan, threads: int) -> np.ndarray:
    """(frequencies, a, b) of real (a, b, *lengths): a matrix for each frequency."""
    spectra = _fft.rfftn(tile, axes=plan.axes, workers=threads, overwrite_x=True)
    return np.ascontiguousarray(spectra.reshape(*tile.shape[:2], -1).transpose(2, 0, 1))


def _cells(spectra: np.ndarray, plan: Plan, threads: int) -> np.ndarray:
    """The inverse of `_spectra`."""
    ordered = np.ascontiguousarray(spectra.transpose(1, 2, 0))
    lengths = (*plan.lengths[:-1], plan.lengths[-1] // 2 + 1)
    ordered = ordered.reshape(*spectra.shape[1:], *lengths)
    return _fft.irfftn(ordered, s=plan.lengths, axes=plan.axes, workers=threads, overwrite_x=True)


def _rows_and_columns(op: Op, geometry: ConvGeometry) -> tuple[int, int]:
    """Of the weights of a group, as the op multiplies by them."""
    filters, channels = geometry.w_shape[0] // geometry.groups, geometry.w_shape[1]
    return (channels, filters) if op == "backward_data" else (filters, channels)


def _plan(op: Op, geometry: ConvGeometry, dtype: np.dtype) -> Plan:
    kept: dict[Any, Plan] = vars(geometry).setdefault("_fft", {})
    key = op, dtype.itemsize
    if key not in kept:
        kept[key] = _make_plan(op, geometry, dtype.itemsize)
    return kept[key]


def _make_plan(op: Op, geometry: ConvGeometry, itemsize: int) -> Plan:
    sides = []
    for axis in geometry.axes:
        size, k, stride, lo, dilation, out = axis.row()
        # A stride that is never taken may be any.
        stride = stride if out > 1 else 1
        if op == "backward_data":
            sides.append(Side(out, stride, (k - 1) * dilation - lo, k, dilation, size, 1))
        else:
            sides.append(Side(size, 1, lo, k, dilation, out, stride))
    rows, columns = _rows_and_columns(op, geometry)
    tiles = [max(side.whole, 1) for side in sides]
    images = max(geometry.x_shape[0], 1)

    def plan(rows: int, columns: int, images: int) -> Plan:
        cut = (side.cut(tile) for side, tile in zip(sides, tiles, strict=True))
        return Plan(tuple(cut), rows, columns, images)

    def fits(plan: Plan) -> bool:
        return plan.planes * plan.frequencies * 2 * itemsize <= _SPACE_BYTES

    # Tiles first, so that all weights of a group fit, unless the margins would outgrow them; then blocks.
    while not fits(plan(rows, columns, 1)):
        spare = [tile > 1 and tile >= _SPANS * side.span for tile, side in zip(tiles, sides, strict=True)]
        if not any(spare):
            break
        widest = max(range(len(tiles)), key=lambda i: spare[i] and tiles[i])
        tiles[widest] = -(-tiles[widest] // 2)
    while images > 1 and not fits(plan(rows, columns, images)):
        images = -(-images // 2)
    while rows * columns > 1 and not fits(plan(rows, columns, images)):
        rows, columns = (-(-rows // 2), columns) if rows >= columns else (rows, -(-columns // 2))
    while max(tiles) > 1 and not fits(plan(rows, columns, images)):
        widest = max(range(len(tiles)), key=lambda i: tiles[i])
        if tiles[widest] <= sides[widest].span:
            break
        tiles[widest] = -(-tiles[widest] // 2)
    return plan(rows, columns, images)
