"""A convolution as CSR arrays: counted in closed form, filled in one pass, and multiplied.

A row of the matrix of one image is an output, of filter f at position o; its
columns are the cells that o sees in the channels of f's group. Which those are
is a product over the axes (`_spans`), and the same for all filters, but for
zeros among the weights; so rows are copies of a few lists, moved along.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fastconv import _arrays, _isa, _memory, _spans, _threads
from fastconv._axis import UNIT_AXIS
from fastconv._ext import toeplitz as _ext
from fastconv.geometry import ConvGeometry

#: A row of weights is cut into parts where there are fewer of them than so many for a thread.
_ITEMS = 8
#: Structures of more numbers than this are made anew on every call.
_KEPT = 1 << 14
#: Weights whose gradients a thread sums up at a time, a vector each.
_SLOTS = 2048
#: What takes fewer bytes is there in any case: to ask takes longer than to write them.
_ALWAYS_FREE = 1 << 24


class MatrixTooLargeError(MemoryError, ValueError):
    """More memory than is free: a fault of the arguments as much as of the machine."""


@dataclass(frozen=True)
class Structure:
    """A sparse matrix but for its weights: (groups * rows * positions, groups * cols * cells).

    `table` and `sizes` are what the kernels read; `counts` and `lengths` have
    for each product of segments its positions, and the entries of one of them
    in one channel.
    """

    table: np.ndarray
    sizes: np.ndarray
    shape: tuple[int, int]
    weight_rows: int
    cols: int
    counts: np.ndarray
    lengths: np.ndarray

    @cached_property
    def nnz(self) -> int:
        """Entries for weights without zeros."""
        return self.weight_rows * self.cols * int(np.dot(self.counts.astype(object), self.lengths.astype(object)))

    def block(self, rows: int) -> Structure:
        """Of so many rows of weights, of one group; their first weight is to be the first of `w`."""
        sizes = self.sizes.copy()
        sizes[:2] = 1, rows
        groups = int(self.sizes[0])
        positions = self.shape[0] // self.weight_rows
        return replace(self, sizes=sizes, shape=(rows * positions, self.shape[1] // groups), weight_rows=rows)

    @cached_property
    def longest(self) -> int:
        """Entries of the longest row."""
        return self.cols * int(self.lengths.max(initial=0))


@dataclass(frozen=True)
class Csr:
    """The three arrays of a CSR matrix, and its shape."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]

    @property
    def wide(self) -> bool:
        """Whether indices have 64 bits."""
        return self.indptr.dtype.itemsize == 8


def of_outputs(geometry: ConvGeometry, flip: bool) -> Structure:
    """The matrix of one image: a row for each output, a column for each input cell."""
    return _kept(geometry, "_rows_of_outputs", flip, _of_outputs)


def of_cells(geometry: ConvGeometry, flip: bool) -> Structure:
    """Its transpose, for zero padding: a row for each input cell, a column for each output."""
    return _kept(geometry, "_rows_of_cells", flip, _of_cells)


def _kept(geometry: ConvGeometry, name: str, flip: bool, make: Callable[[ConvGeometry, bool], Structure]) -> Structure:
    """Geometries are cached, and small structures with them."""
    kept: dict[bool, Structure] = vars(geometry).setdefault(name, {})
    structure = kept.get(flip)
    if structure is None:
        structure = make(geometry, flip)
        if structure.table.size + structure.counts.size <= _KEPT:
            kept[flip] = structure
    return structure


def _of_outputs(geometry: ConvGeometry, flip: bool) -> Structure:
    group = math.prod(geometry.w_shape[1:])
    rows = geometry.w_shape[0] // geometry.groups
    axes = [_spans.of_outputs(axis, geometry.pad_mode, flip) for axis in _three(geometry)]
    return _structure(geometry, axes, rows, geometry.w_shape[1], (rows * group, group, geometry.taps))


def _of_cells(geometry: ConvGeometry, flip: bool) -> Structure:
    group = math.prod(geometry.w_shape[1:])
    cols = geometry.w_shape[0] // geometry.groups
    axes = [_spans.of_cells(axis, flip) for axis in _three(geometry)]
    return _structure(geometry, axes, geometry.w_shape[1], cols, (cols * group, geometry.taps, group))


def _three(geometry: ConvGeometry) -> tuple:
    return (*(UNIT_AXIS,) * (3 - geometry.rank), *geometry.axes)


def _structure(
    geometry: ConvGeometry, axes: list[_spans.Spans], rows: int, cols: int, steps: tuple[int, int, int]
) -> Structure:
    header, parts, at, tables = [], [], 18, []
    for axis in axes:
        pieces = axis.arrays()
        places = [at, at + pieces[0].size, at + pieces[0].size + pieces[1].size]
        header += [axis.positions, axis.limit, len(pieces[0]), *places]
        at += sum(piece.size for piece in pieces)
        parts += [piece.ravel() for piece in pieces]
        tables.append(pieces[0])
    kernel = (*(1,) * (3 - geometry.rank), *geometry.kernel)
    sizes = (geometry.groups, rows, cols, *steps, kernel[1] * kernel[2], kernel[2], geometry.taps)
    # Of every segment its positions, and the entries of each.
    (d, dn), (h, hn), (w, wn) = ((table[:, 2], table[:, 4] - table[:, 3]) for table in tables)
    return Structure(
        np.concatenate([np.array(header, np.intp), *parts]),
        np.array(sizes, np.intp),
        (
            geometry.groups * rows * math.prod(axis.positions for axis in axes),
            geometry.groups * cols * math.prod(axis.limit for axis in axes),
        ),
        geometry.groups * rows,
        cols,
        np.multiply.outer(np.multiply.outer(d, h), w).ravel(),
        np.multiply.outer(np.multiply.outer(dn, hn), wn).ravel(),
    )


def index_dtype(shape: tuple[int, int], nnz: int) -> np.dtype:
    """int32 while all indices of such a matrix fit it, int64 past that."""
    return np.dtype(np.int32 if max(*shape, nnz) <= np.iinfo(np.int32).max else np.int64)


def nbytes(shape: tuple[int, int], nnz: int, dtype: np.dtype) -> int:
    """Bytes of the three arrays of such a matrix."""
    width = index_dtype(shape, nnz).itemsize
    return nnz * (dtype.itemsize + width) + (shape[0] + 1) * width


def why_not(shape: tuple[int, int], nnz: int, dtype: np.dtype) -> str | None:
    """Why no arrays can index such a matrix; None where they can."""
    size = nbytes(shape, nnz, dtype)
    if max(*shape, size) <= sys.maxsize:
        return None
    return (
        f"the Toeplitz matrix {shape[0]} x {shape[1]} has {nnz} entries, {size} bytes in {dtype}: "
        "more than can be indexed"
    )


def check_size(shape: tuple[int, int], nnz: int, dtype: np.dtype, copies: int = 1) -> None:
    """Refuse a matrix that cannot be indexed, or whose arrays are not free, before any of them is allocated."""
    reason = why_not(shape, nnz, dtype)
    if reason is not None:
        raise ValueError(reason)
    size = copies * nbytes(shape, nnz, dtype)
    free = _memory.available() if size > _ALWAYS_FREE else None
    if free is not None and size > free:
        raise MatrixTooLargeError(
            f"the Toeplitz matrix {shape[0]} x {shape[1]} has {nnz} entries, which take {size} bytes in {dtype}"
            f"{' while they are brought into this format' if copies > 1 else ''}; {free} bytes are free. "
            "toeplitz_operator computes the same map without a matrix"
        )


def build(w: np.ndarray, structure: Structure, threads: int, copies: int = 1, indices: np.dtype | None = None) -> Csr:
    """The matrix of weights `w`, C-contiguous of one float dtype, whose first element is that of the first row.

    `copies` is how many matrices of this size there will be at a time,
    `indices` a dtype to take for them instead of the one that fits.
    """
    shape, dtype, rows = structure.shape, w.dtype, structure.weight_rows
    reason = why_not(shape, structure.nnz, dtype)
    if reason is not None:  # and could not be counted
        raise ValueError(reason)
    table, which = (structure.table, structure.sizes, w, _arrays.DTYPES[dtype]), _isa.current
    helpers = _threads.most(threads, _ITEMS * threads)
    # A value and a column, of the widest type, for each entry of a list; all parts of it start on a line of the cache.
    space = np.empty((helpers, -(-(structure.longest + _ext.SLACK) // 16) * 16 * (dtype.itemsize + 8)), np.uint8)
    counts = np.empty((rows, len(structure.counts)), np.intp)
    work = 4 * w.nbytes
    _threads.share(_ext.count, (*table, counts, space, which), items=rows, work=work, threads=threads)
    starts = np.zeros(rows + 1, np.intp)
    np.cumsum(counts @ structure.counts, out=starts[1:])
    nnz = int(starts[-1])
    check_size(shape, nnz, dtype, copies)
    index = index_dtype(shape, nnz) if indices is None else indices
    wide = index.itemsize == 8
    indptr = _memory.empty((shape[0] + 1,), index)
    _threads.share(
        _ext.place,
        (*table, counts, starts, indptr, wide, which, space),
        items=rows,
        work=2 * indptr.nbytes,
        threads=threads,
    )
    del counts
    columns, data = _memory.empty((nnz,), index), _memory.empty((nnz,), dtype)
    if nnz:
        pieces = -(-_ITEMS * threads // rows)
        _threads.share(
            _ext.fill,
            (*table, indptr, columns, data, wide, pieces, which, space),
            items=rows * pieces,
            work=columns.nbytes + data.nbytes,
            threads=threads,
        )
    return Csr(indptr, columns, data, shape)


def lanes(count: int, itemsize: int) -> tuple[int, int]:
    """For `count` right-hand sides: the instruction set, no wider than they need, and how many are whole vectors."""
    isa, nbytes = _isa.current, 16 << _isa.current
    while isa and count * itemsize <= nbytes // 2:
        isa, nbytes = isa - 1, nbytes // 2
    return isa, -(-count * itemsize // nbytes) * nbytes // itemsize


def multiply(matrix: Csr, x: np.ndarray, y: np.ndarray, isa: int, threads: int) -> None:
    """y (rows, width) = A @ x (cols, width), C-contiguous; `isa` and a width that it takes from `lanes`."""
    width = x.shape[1]
    _threads.share(
        _ext.product,
        (
            _arrays.DTYPES[x.dtype],
            matrix.wide,
            matrix.indptr,
            matrix.indices,
            matrix.data,
            x,
            y,
            width,
            width,
            width,
            isa,
        ),
        items=len(y),
        work=matrix.data.size * (8 + width * x.itemsize // 4),
        threads=threads,
    )


def contract_bytes(geometry: ConvGeometry) -> int:
    """What a thread of `contract` takes at most."""
    return _ext.gradient_space(min(max(_SLOTS, geometry.taps), math.prod(geometry.w_shape[1:])))


def contract(structure: Structure, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, isa: int, threads: int) -> None:
    """dw (F, C // groups, taps) = the sums of dy (rows, width) * x (columns, width) where `structure` joins them."""
    rows, cols, taps = structure.weight_rows, structure.cols, int(structure.sizes[8])
    width = x.shape[1]
    # Sums that stay in cache, and items for all threads.
    block = min(max(1, _SLOTS // taps), -(-cols * rows // (4 * threads)), cols)
    items = rows * -(-cols // block)
    space = np.empty((_threads.most(threads, items), _ext.gradient_space(block * taps)), np.uint8)
    _threads.share(
        _ext.gradient,
        (
            *(structure.table, structure.sizes, np.arange(1.0, block * taps + 1), _arrays.DTYPES[dw.dtype]),
            *(x, dy, dw, width, block, isa, space),
        ),
        items=items,
        work=structure.nnz * (8 + width * x.itemsize // 4),
        threads=threads,
    )
