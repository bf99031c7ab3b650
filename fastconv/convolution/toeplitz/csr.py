"""A convolution as CSR arrays: entries are counted in closed form and written in one pass; and products.

A row of the matrix of one image is an output, of filter f at position o; its
columns are the cells that o reads in the channels of f's group. These are a
product over the axes (`_pattern`), and are the same for all filters, except for
zeros among the weights. So rows are copies of a few lists, with shifted
columns. Taps at which all weights of a slice of the kernels are zero are left
out of the product (`support`), and if few weights are nonzero, a list is made
from these alone. So the time for a matrix is the time to write its entries.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from fastconv._ext import toeplitz as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.toeplitz import pattern as _pattern
from fastconv.geometry.axis import UNIT_AXIS
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import PlanCache, plans
from fastconv.runtime.records import dataclass

#: Rows of weights are divided into parts, if there are fewer than so many for each thread.
_ITEMS = 8
#: Structures of some taps, of which there may be many.
_supports = PlanCache(16, 16)
#: If less than this share of the weights of a row is nonzero, its lists are made from these alone.
_FEW = 3
#: How many weights a thread computes the gradients of at a time; each takes a vector.
_SLOTS = 2048
#: Fewer bytes than this are always free; asking the system takes longer than writing them.
_ALWAYS_FREE = 1 << 24
#: Bytes for each entry and for each row that SciPy needs to convert 'csr' to these formats, as measured at their worst:
#: Python objects, and for 'dia' the sorted diagonals of all entries. All other formats take another matrix.
_CONVERSION = {"dok": (220, 0), "lil": (76, 136), "dia": (48, 0)}
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)
#: How many entries are searched for diagonals at a time.
_PART = 1 << 20


class MatrixTooLargeError(_memory.TooLargeError):
    """The error for a matrix that needs more memory than is free."""


def _entries(counts: np.ndarray, lengths: np.ndarray) -> int:
    """The number of entries of an axis; large ones are summed as Python ints, which takes longer."""
    large = int(counts.sum()) * int(lengths.max(initial=0)) > sys.maxsize
    return int(np.dot(counts.astype(object), lengths) if large else np.dot(counts, lengths))


@dataclass(frozen=True)
class SparsityPattern:
    """The pattern of a sparse matrix (groups * rows * positions, groups * cols * cells), without its weights.

    `table` and `sizes` are for the kernels. `along` has for each segment of an
    axis its number of positions, and the entries of one position. `counts` and
    `lengths` are the same for each product of segments, in one channel.
    """

    table: np.ndarray
    sizes: np.ndarray
    shape: tuple[int, int]
    weight_rows: int
    cols: int
    along: tuple[np.ndarray, ...]
    taps: int

    @property
    def counts(self) -> np.ndarray:
        """Not cached, because there may be as many as outputs."""
        return self._product(0)

    @property
    def lengths(self) -> np.ndarray:
        """Nor are these."""
        return self._product(1)

    def _product(self, column: int) -> np.ndarray:
        d, h, w = (axis[:, column] for axis in self.along)
        return (d[:, np.newaxis, np.newaxis] * h[:, np.newaxis] * w).ravel()

    @cached_property
    def nnz(self) -> int:
        """The number of entries for weights without zeros."""
        return self.weight_rows * self.cols * math.prod(_entries(*axis.T) for axis in self.along)

    def block(self, rows: int) -> SparsityPattern:
        """The pattern for `rows` rows of weights of one group; `w` then begins with their first weight."""
        sizes = self.sizes.copy()
        sizes[:2] = 1, rows
        groups = int(self.sizes[0])
        positions = self.shape[0] // self.weight_rows
        return replace(self, sizes=sizes, shape=(rows * positions, self.shape[1] // groups), weight_rows=rows)

    @cached_property
    def longest(self) -> int:
        """The number of entries of the longest row."""
        return self.cols * math.prod(int(axis[:, 1].max(initial=0)) for axis in self.along)


@dataclass(frozen=True)
class Csr:
    """The three arrays of a CSR matrix, and its shape."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]
    #: For each thread, how many weights it read for the lists; a weight counts each time.
    looks: np.ndarray | None = None

    @property
    def visits(self) -> int:
        """Of all threads."""
        return 0 if self.looks is None else int(self.looks.sum())

    @property
    def wide(self) -> bool:
        """Whether indices have 64 bits."""
        return self.indptr.dtype.itemsize == 8


#: For each axis the ascending taps at which some weight is not zero.
Support = tuple[np.ndarray, ...]


def support(w: np.ndarray) -> Support | None:
    """The taps along each axis at which weights (F, C, *kernel) are not all zero; None for all taps.

    If all weights are zero, each axis has its first tap, so that no axis is empty.
    """
    if not w.size or w[0, 0].all():
        return None
    kernel = w.shape[2:]
    present = np.logical_or.reduce(w.reshape(-1, math.prod(kernel)) != 0, axis=0)
    present_taps = [np.zeros(k, bool) for k in kernel]
    for taps, places in zip(present_taps, np.unravel_index(np.flatnonzero(present), kernel), strict=True):
        taps[places] = True
    if all(taps.all() for taps in present_taps):
        return None
    return tuple(np.flatnonzero(taps) if taps.any() else np.zeros(1, np.intp) for taps in present_taps)


def _at(w: np.ndarray, taps: Support) -> np.ndarray:
    """Weights at these taps."""
    for axis, some in enumerate(taps, 2):
        w = np.take(w, some, axis)
    return w


def of_outputs(geometry: ConvGeometry, flip: bool, taps: Support | None = None) -> SparsityPattern:
    """The matrix of one image: a row for each output, a column for each input cell; for `taps` only, if given."""
    return _find_pattern(_of_outputs, geometry, flip, taps)


def of_cells(geometry: ConvGeometry, flip: bool, taps: Support | None = None) -> SparsityPattern:
    """Its transpose, for zero padding: a row for each input cell, a column for each output."""
    return _find_pattern(_of_cells, geometry, flip, taps)


def _find_pattern(
    make: Callable[[ConvGeometry, bool, Any], SparsityPattern], geometry: ConvGeometry, flip: bool, taps: Support | None
) -> SparsityPattern:
    by, key = plans, None
    if taps is not None:
        by, key = _supports, tuple([some.tobytes() for some in taps])
    return by.find_sized(_nbytes, _make_pattern, make, geometry, flip, key)


def _nbytes(sparsity: SparsityPattern) -> int:
    return sparsity.table.nbytes


def _make_pattern(
    make: Callable[[ConvGeometry, bool, Any], SparsityPattern], geometry: ConvGeometry, flip: bool, taps: Any
) -> SparsityPattern:
    some = () if taps is None else tuple([np.frombuffer(each, np.intp) for each in taps])
    return make(geometry, flip, (None,) * (3 - len(some)) + some)


def _of_outputs(geometry: ConvGeometry, flip: bool, taps: tuple) -> SparsityPattern:
    group = math.prod(geometry.w_shape[1:])
    rows = geometry.w_shape[0] // geometry.groups
    pairs = zip(_three(geometry), taps, strict=True)
    axes = [_pattern.of_outputs(axis, geometry.pad_mode, flip, some) for axis, some in pairs]
    return _sparsity_pattern(geometry, axes, rows, geometry.w_shape[1], (rows * group, group, geometry.taps))


def _of_cells(geometry: ConvGeometry, flip: bool, taps: tuple) -> SparsityPattern:
    group = math.prod(geometry.w_shape[1:])
    cols = geometry.w_shape[0] // geometry.groups
    axes = [_pattern.of_cells(axis, flip, some) for axis, some in zip(_three(geometry), taps, strict=True)]
    return _sparsity_pattern(geometry, axes, geometry.w_shape[1], cols, (cols * group, geometry.taps, group))


def _three(geometry: ConvGeometry) -> tuple:
    return (*(UNIT_AXIS,) * (3 - geometry.rank), *geometry.axes)


def _sparsity_pattern(
    geometry: ConvGeometry, axes: list[_pattern.AxisPattern], rows: int, cols: int, steps: tuple[int, int, int]
) -> SparsityPattern:
    header, parts, at, tables = [], [], 3 * _ext.HEADER_SIZE, []
    for axis in axes:
        pieces = axis.arrays()
        *places, at = itertools.accumulate((piece.size for piece in pieces), initial=at)
        header += [axis.positions, axis.limit, len(pieces[0]), len(axis.keys), *places]
        parts += [piece.ravel() for piece in pieces]
        tables.append(pieces[0])
    kernel = (*(1,) * (3 - geometry.rank), *geometry.kernel)
    sizes = (geometry.groups, rows, cols, *steps, kernel[1] * kernel[2], kernel[2], geometry.taps)
    return SparsityPattern(
        np.concatenate([np.array(header, np.intp), *parts]),
        np.array(sizes, np.intp),
        (
            geometry.groups * rows * math.prod(axis.positions for axis in axes),
            geometry.groups * cols * math.prod(axis.limit for axis in axes),
        ),
        geometry.groups * rows,
        cols,
        tuple(np.stack([table[:, 2], table[:, 4] - table[:, 3]], 1) for table in tables),
        math.prod(len(axis.keys) for axis in axes),
    )


def index_dtype(shape: tuple[int, int], nnz: int) -> np.dtype:
    """int32 if all indices of such a matrix fit it, else int64."""
    return _INT32 if max(*shape, nnz) < 1 << 31 else _INT64


def nbytes(shape: tuple[int, int], nnz: int, dtype: np.dtype) -> int:
    """The bytes of the three arrays of such a matrix."""
    width = index_dtype(shape, nnz).itemsize
    return nnz * (dtype.itemsize + width) + (shape[0] + 1) * width


def _named(shape: tuple[int, int], nnz: int, transposed: bool, least: bool = False) -> str:
    rows, columns = shape[::-1] if transposed else shape
    return f"the Toeplitz matrix {rows} x {columns} has {'at least ' if least else ''}{nnz} entries"


def why_not(
    shape: tuple[int, int], nnz: int, dtype: np.dtype, transposed: bool = False, least: bool = False
) -> str | None:
    """Why no arrays can index such a matrix, or None if they can. With `transposed` the message is about the
    transpose.
    """
    size = nbytes(shape, nnz, dtype)
    if max(*shape, size) <= sys.maxsize:
        return None
    return f"{_named(shape, nnz, transposed, least)}, {size} bytes in {dtype}: more than can be indexed"


def _refuse_above_free(size: int, what: str, form: str) -> None:
    free = _memory.available()
    if free is not None and size > free:
        made = "" if form == "csr" else f" while they are brought into format {form!r}"
        raise MatrixTooLargeError(
            f"{what}{made}; {free} bytes are free. toeplitz_operator computes the same map without a matrix"
        )


def check_size(
    shape: tuple[int, int], nnz: int, dtype: np.dtype, form: str = "csr", transposed: bool = False, least: bool = False
) -> None:
    """Refuse a matrix that cannot be indexed, or that needs more memory than is free, before anything is allocated.

    This includes the memory that SciPy needs to convert 'csr' to `form`, except for the diagonals of 'dia': see
    `check_diagonals`. With `least`, `nnz` is a lower bound of the number of entries.
    """
    reason = why_not(shape, nnz, dtype, transposed, least)
    if reason is not None:
        raise ValueError(reason)
    size = nbytes(shape, nnz, dtype)
    per_entry, per_row = _CONVERSION.get(form, (0, 0))
    size += 0 if form == "csr" else nnz * per_entry + shape[0] * per_row if per_entry else size
    if size > _ALWAYS_FREE:
        _refuse_above_free(size, f"{_named(shape, nnz, transposed, least)}, which take {size} bytes in {dtype}", form)


def check_diagonals(matrix: Csr) -> None:
    """Refuse 'dia' if its diagonals need more memory than is free; it stores the whole of each diagonal
    with an entry.
    """
    (rows, columns), nnz = matrix.shape, matrix.data.size
    present = np.zeros(rows + columns, bool)
    # Take rows with at most `_PART` entries at a time, or one row.
    begin = 0
    while begin < rows:
        # Keep the dtype, because otherwise every part would convert the whole array.
        stop = matrix.indptr.dtype.type(min(int(matrix.indptr[begin]) + _PART, nnz))
        end = int(np.searchsorted(matrix.indptr, stop, "right")) - 1
        end = min(max(end, begin + 1), rows, begin + _PART)
        row = np.repeat(np.arange(begin, end), np.diff(matrix.indptr[begin : end + 1]))
        present[matrix.indices[matrix.indptr[begin] : matrix.indptr[end]] - row + rows] = True
        begin = end
    count = int(np.count_nonzero(present))
    size = count * columns * matrix.data.itemsize + nnz * _CONVERSION["dia"][0]
    _refuse_above_free(
        size, f"{_named(matrix.shape, nnz, False)} on {count} diagonals, which take {size} bytes more", "dia"
    )


def check_weights(w: np.ndarray, geometry: ConvGeometry, form: str, transposed: bool, some: Support | None) -> None:
    """`check_size` before anything is allocated for the matrix, for the least number of entries that it can
    have at `some` taps.

    With zero padding the entries are the cells that taps read inside the image. In any other mode there are at
    least as many, and except for replicated padding a tap reads each cell at most three times along an axis.
    """
    shape = geometry.w_shape[0] * geometry.positions, math.prod(geometry.x_shape[1:])
    shape = shape[::-1] if transposed else shape
    count = w.size if some is None else np.count_nonzero(_at(w, some))
    if form in ("csr", "csc") and 16 * (geometry.positions * count + shape[0] + 1) <= _ALWAYS_FREE:
        return  # were no output at a border
    first, behind = geometry.tables[1]
    reach = np.split(np.maximum(behind - first, 0), np.cumsum((*(1,) * (3 - geometry.rank), *geometry.kernel))[:-1])
    whole = math.prod(w.shape[:2]) * math.prod(int(pairs.sum()) for pairs in reach)
    exact, mirrored = geometry.pad_mode == "zeros", geometry.pad_mode in ("reflect", "circular")

    def least(entries: int, weights: int) -> int:
        return max(entries, geometry.positions * weights // 3**geometry.rank) if mirrored else entries

    try:
        check_size(shape, least(whole, w.size), w.dtype, form, transposed, not exact)
        return
    except ValueError as error:  # that is if no weight is zero
        if type(error) not in (ValueError, MatrixTooLargeError):  # a signal handler's
            raise
        taps = tuple(map(np.arange, geometry.kernel)) if some is None else some
    # Python ints, because these may be large.
    entries = np.count_nonzero(_at(w, taps), axis=(0, 1)).astype(object)
    total = int(entries.sum())
    for pairs, at, k in reversed(list(zip(reach[3 - geometry.rank :], taps, geometry.kernel, strict=True))):
        entries = entries @ pairs[k - 1 - at if geometry.flip else at].astype(object)
    check_size(shape, least(int(entries), total), w.dtype, form, transposed, not exact)


def build(
    w: np.ndarray,
    sparsity: SparsityPattern,
    threads: int,
    form: str = "csr",
    transposed: bool = False,
    indices: np.dtype | None = None,
) -> Csr:
    """The matrix of weights `w`, which are C-contiguous and of a float dtype; the first weight belongs to the
    first row.

    `form` is the format to which it will be converted, which takes memory, too.
    `transposed` is whether its transpose is wanted. `indices` is a dtype of indices
    instead of the smallest one that fits.
    """
    shape, dtype, rows = sparsity.shape, w.dtype, sparsity.weight_rows
    reason = why_not(shape, sparsity.nnz, dtype, transposed)
    if reason is not None:  # and could not be counted
        raise ValueError(reason)
    table, which = (sparsity.table, sparsity.sizes, w, _arrays.DTYPES[dtype]), _isa.current
    helpers = _threads.most(threads, _ITEMS * threads)
    numbers = np.empty(rows, np.intp)
    _threads.share(_ext.weights, (*table, numbers), items=rows, work=w.nbytes, threads=threads)
    few, longest, every = 0, sparsity.longest, sparsity.cols * sparsity.taps
    if _FEW * int(numbers.min()) < every:
        # If few weights are nonzero, they are listed.
        few = int(numbers[_FEW * numbers < every].max())
        # Before entries of the same cell are added up, a list may have more entries than the longest row.
        longest = max(few, min(longest, int(numbers.max())))
    pitch = _ext.space_of(_arrays.DTYPES[dtype], longest, few, sparsity.cols)
    space = np.zeros((helpers, pitch), np.uint8)
    counts = np.empty((rows, math.prod(map(len, sparsity.along))), np.intp)
    starts = np.zeros(rows + 1, np.intp)
    work = 4 * w.nbytes
    _threads.share(
        _ext.count,
        (*table, numbers, _FEW, longest, few, counts, starts, which, space),
        items=rows,
        work=work,
        threads=threads,
    )
    np.cumsum(starts, out=starts)
    nnz = int(starts[-1])
    check_size(shape, nnz, dtype, form, transposed)
    index = index_dtype(shape, nnz) if indices is None else indices
    wide = index.itemsize == 8
    indptr = _memory.empty((shape[0] + 1,), index)
    _threads.share(
        _ext.place,
        (*table, counts, starts, indptr, wide),
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
            (*table, numbers, _FEW, longest, few, indptr, columns, data, wide, pieces, which, space),
            items=rows * pieces,
            work=columns.nbytes + data.nbytes,
            threads=threads,
        )
    return Csr(indptr, columns, data, shape, space[:, : starts.itemsize].copy().view(np.intp))


def lanes(count: int, itemsize: int) -> tuple[int, int]:
    """For `count` right-hand sides the instruction set, with vectors no wider than needed, and `count` rounded up to
    whole vectors.
    """
    isa, nbytes = _isa.current, 16 << _isa.current
    while isa and count * itemsize <= nbytes // 2:
        isa, nbytes = isa - 1, nbytes // 2
    return isa, -(-count * itemsize // nbytes) * nbytes // itemsize


def multiply(matrix: Csr, x: np.ndarray, y: np.ndarray, isa: int, threads: int) -> None:
    """y (rows, width) = A @ x (cols, width), both C-contiguous; `isa` and `width` are from `lanes`."""
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


def contract_bytes(geometry: ConvGeometry, threads: int) -> int:
    """The most bytes that `contract` needs."""
    slots = min(max(_SLOTS, geometry.taps), math.prod(geometry.w_shape[1:]))
    return threads * _ext.gradient_space(slots) + 8 * slots


def build_bytes(
    rows: int, shape: tuple[int, int], nnz: int, weights: int, segments: int, dtype: np.dtype, threads: int
) -> int:
    """What `build` takes at most, with the matrix: of so many rows of weights, each of them `weights`.

    Where few of these are not zero, they are listed, but the matrix is as much smaller.
    """
    which = _arrays.DTYPES[dtype]
    few = weights // _FEW
    counted = 8 * rows * (segments + 1)
    return counted + max(
        nbytes(shape, nnz, dtype) + threads * _ext.space_of(which, min(weights, max(shape[1], 1)), 0, weights),
        nbytes(shape, nnz // _FEW, dtype) + threads * _ext.space_of(which, few, few, weights),
    )


def contract(sparsity: SparsityPattern, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, isa: int, threads: int) -> None:
    """dw (F, C // groups, taps) = the sums of dy (rows, width) * x (columns, width) over the entries of `sparsity`."""
    rows, cols, taps = sparsity.weight_rows, sparsity.cols, int(sparsity.sizes[8])
    width = x.shape[1]
    # The sums stay in cache, and there are items for all threads.
    block = min(max(1, _SLOTS // taps), -(-cols * rows // (4 * threads)), cols)
    items = rows * -(-cols // block)
    space = np.empty((_threads.most(threads, items), _ext.gradient_space(block * taps)), np.uint8)
    _threads.share(
        _ext.gradient,
        (
            *(sparsity.table, sparsity.sizes, np.arange(1.0, block * taps + 1), _arrays.DTYPES[dw.dtype]),
            *(x, dy, dw, width, block, isa, space),
        ),
        items=items,
        work=sparsity.nnz * (8 + width * x.itemsize // 4),
        threads=threads,
    )
