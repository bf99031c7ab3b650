"""Builds the Toeplitz matrix of a convolution in CSR format.

Each row of the matrix computes one output: filter f at position o. Its entries are weights of f, in the columns of the
cells that the output reads. Most outputs read the same pattern of cells, only shifted. So most rows are shifted copies
of a few lists of entries (see `pattern`). Entries are counted first, and then written in one pass. Taps at which all
weights are zero are left out (see `support`). If few weights are nonzero, the lists have these weights only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from fastconv._ext.toeplitz import toeplitz as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.toeplitz import pattern as _pattern
from fastconv.geometry.axis import UNIT_AXIS
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The smallest number of work items for each thread. A work item is the matrix rows of one filter, or part of them.
_ITEMS = 8
#: If less than 1 / `_FEW` of the weights of a filter are nonzero, lists of entries are made from these weights only.
_FEW = 3
#: The free memory is not checked for matrices up to this size, because the check takes longer than writing the matrix.
_ALWAYS_FREE = 1 << 24
#: SciPy needs memory to convert a CSR matrix to these formats: a number of bytes for each entry and for each row, as
#: measured in the worst case. 'dok' and 'lil' store Python objects, and the conversion to 'dia' sorts the diagonals of
#: all entries. Any other format needs as much memory as a second matrix.
_CONVERSION = {"dok": (220, 0), "lil": (76, 136), "dia": (48, 0)}
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)
#: The number of entries whose diagonals are computed at a time.
_PART = 1 << 20


class MatrixTooLargeError(_memory.TooLargeError):
    """Raised if a matrix needs more memory than is free."""


def _entries(counts: np.ndarray, lengths: np.ndarray) -> int:
    """Return the number of entries along an axis. Segment i has ``counts[i]`` rows with ``lengths[i]`` entries each."""
    # Python ints are slower, but do not overflow.
    large = int(counts.sum()) * int(lengths.max(initial=0)) > sys.maxsize
    return int(np.dot(counts.astype(object), lengths) if large else np.dot(counts, lengths))


@dataclass(frozen=True)
class SparsityPattern:
    """The positions of the entries of a sparse matrix of shape (groups * rows * positions, groups * cols * cells).

    `rows` and `cols` are the numbers of filters and of channels of a group or, for the transpose, the reverse. The
    kernels read `pattern`. `along` has an array for each axis, with two numbers for each segment (see
    `pattern`): the number of its matrix rows, and the number of entries of each row.
    """

    pattern: _ext.MatrixPattern
    shape: tuple[int, int]
    weight_rows: int
    cols: int
    along: tuple[np.ndarray, ...]
    taps: int

    @property
    def counts(self) -> np.ndarray:
        """The number of matrix rows for each combination of segments of the three axes. The array may be large."""
        return self._product(0)

    @property
    def lengths(self) -> np.ndarray:
        """The number of entries of a matrix row in one channel, for each combination of segments of the three axes."""
        return self._product(1)

    def _product(self, column: int) -> np.ndarray:
        d, h, w = (axis[:, column] for axis in self.along)
        return (d[:, np.newaxis, np.newaxis] * h[:, np.newaxis] * w).ravel()

    @cached_property
    def nnz(self) -> int:
        """The number of entries of the matrix if no weight is zero."""
        return self.weight_rows * self.cols * math.prod(_entries(*axis.T) for axis in self.along)

    @cached_property
    def longest(self) -> int:
        """The number of entries of the longest row of the matrix if no weight is zero."""
        return self.cols * math.prod(int(axis[:, 1].max(initial=0)) for axis in self.along)


@dataclass(frozen=True)
class Csr:
    """The three arrays and the shape of a CSR matrix."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]
    #: For tests: the number of times that each thread read a weight to make lists of entries.
    looks: np.ndarray | None = None

    @property
    def visits(self) -> int:
        """The number of times that all threads together read a weight to make lists of entries."""
        return 0 if self.looks is None else int(self.looks.sum())

    @property
    def wide(self) -> bool:
        """Whether indices have 64 bits."""
        return self.indptr.dtype.itemsize == 8


#: For each axis, the indices of the taps at which some weight is not zero, in ascending order.
Support = tuple[np.ndarray, ...]


def support(w: np.ndarray) -> Support | None:
    """Return the taps along each axis at which some weight is not zero, or None if these are all taps.

    The weights `w` have shape (F, C, *kernel). If all weights are zero, the result has the first tap of each axis,
    because none of its arrays may be empty.
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
    """Return the weights at the taps in `taps`."""
    for axis, some in enumerate(taps, 2):
        w = np.take(w, some, axis)
    return w


def of_outputs(geometry: ConvGeometry, flip: bool, taps: Support | None = None) -> SparsityPattern:
    """Return the pattern of the matrix of one image, with a row for each output and a column for each input cell.

    If `taps` is given, the matrix has entries for these taps only.
    """
    return _find_pattern(_of_outputs, geometry, flip, taps)


def of_cells(geometry: ConvGeometry, flip: bool, taps: Support | None = None) -> SparsityPattern:
    """Return the pattern of the transposed matrix, with a row for each input cell. The padding must be zeros."""
    return _find_pattern(_of_cells, geometry, flip, taps)


def _find_pattern(
    make: Callable[[ConvGeometry, bool, Any], SparsityPattern], geometry: ConvGeometry, flip: bool, taps: Support | None
) -> SparsityPattern:
    key = None if taps is None else tuple([some.tobytes() for some in taps])
    return plans.find_sized(_nbytes, _make_pattern, make, geometry, flip, key)


def _nbytes(sparsity: SparsityPattern) -> int:
    return sparsity.pattern.nbytes


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
    arrays = [axis.arrays() for axis in axes]
    kernel = (*(1,) * (3 - geometry.rank), *geometry.kernel)
    group_step, row_step, col_step = steps
    pattern = _ext.MatrixPattern(
        axes=axes,
        axis_arrays=arrays,
        groups=geometry.groups,
        rows=rows,
        cols=cols,
        group_step=group_step,
        row_step=row_step,
        col_step=col_step,
        pitch_d=kernel[1] * kernel[2],
        pitch_h=kernel[2],
        taps=geometry.taps,
    )
    return SparsityPattern(
        pattern,
        (
            geometry.groups * rows * math.prod(axis.positions for axis in axes),
            geometry.groups * cols * math.prod(axis.limit for axis in axes),
        ),
        geometry.groups * rows,
        cols,
        tuple(np.stack([table[:, 2], table[:, 4] - table[:, 3]], 1) for table, *_ in arrays),
        math.prod(len(axis.keys) for axis in axes),
    )


def index_dtype(shape: tuple[int, int], nnz: int) -> np.dtype:
    """Return int32 if it can represent all indices of a matrix with `nnz` entries, else int64."""
    return _INT32 if max(*shape, nnz) < 1 << 31 else _INT64


def nbytes(shape: tuple[int, int], nnz: int, dtype: np.dtype) -> int:
    """Return the bytes of the three CSR arrays of a matrix with `nnz` entries."""
    width = index_dtype(shape, nnz).itemsize
    return nnz * (dtype.itemsize + width) + (shape[0] + 1) * width


def _named(shape: tuple[int, int], nnz: int, transposed: bool, least: bool = False) -> str:
    rows, columns = shape[::-1] if transposed else shape
    return f"the Toeplitz matrix {rows} x {columns} has {'at least ' if least else ''}{nnz} entries"


def why_not(
    shape: tuple[int, int], nnz: int, dtype: np.dtype, transposed: bool = False, least: bool = False
) -> str | None:
    """Return the reason why a matrix with `nnz` entries is too large for 64-bit indices, or None if it is not.

    If `transposed`, the reason gives the shape of the transpose. If `least`, it says that `nnz` is a lower bound.
    """
    size = nbytes(shape, nnz, dtype)
    if max(*shape, size) <= sys.maxsize:
        return None
    return f"{_named(shape, nnz, transposed, least)}, {size} bytes in {dtype}: more than can be indexed"


def _refuse_above_free(size: int, what: str, form: str) -> None:
    free = _memory.available()
    if free is not None and size > free:
        made = "" if form == "csr" else f" during the conversion to format {form!r}"
        raise MatrixTooLargeError(
            f"{what}{made}; {free} bytes are free. toeplitz_operator computes the same products without a matrix"
        )


def check_size(
    shape: tuple[int, int], nnz: int, dtype: np.dtype, form: str = "csr", transposed: bool = False, least: bool = False
) -> None:
    """Raise an error if a matrix is too large for 64-bit indices or for the free memory. The check includes the memory
    that SciPy needs to convert a CSR matrix to `form`. It does not include the diagonals of 'dia', which
    `check_diagonals` checks. If `transposed` is true, messages give the shape of the transpose. If `least` is true,
    `nnz` is a lower bound of the number of entries.
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
    """Raise MatrixTooLargeError if the diagonals of the format 'dia' need more memory than is free.

    The format stores all elements of each diagonal on which the matrix has an entry.
    """
    (rows, columns), nnz = matrix.shape, matrix.data.size
    present = np.zeros(rows + columns, bool)
    # Each step computes the diagonals of a single row, or of several rows with at most `_PART` entries together.
    begin = 0
    while begin < rows:
        # `stop` has the dtype of `indptr`, because otherwise `searchsorted` would convert the whole array.
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
    """Call `check_size` with a lower bound for the number of entries, before the matrix is built.

    `some` has the taps at which some weight is not zero. With zero padding, the row of an output has one entry for each
    nonzero weight whose tap reads the image. With other padding, it has at least these entries. With 'reflect' and
    'circular', an output reads each cell at most three times along an axis. So n nonzero weights also make at least
    ``n / 3**rank`` entries. The larger of the two lower bounds is used.
    """
    shape = geometry.w_shape[0] * geometry.positions, math.prod(geometry.x_shape[1:])
    shape = shape[::-1] if transposed else shape
    count = w.size if some is None else np.count_nonzero(_at(w, some))
    if form in ("csr", "csc") and 16 * (geometry.positions * count + shape[0] + 1) <= _ALWAYS_FREE:
        return  # the matrix is small even if all taps read the image
    first, behind = geometry.output_ranges
    reach = np.split(np.maximum(behind - first, 0), np.cumsum((*(1,) * (3 - geometry.rank), *geometry.kernel))[:-1])
    whole = math.prod(w.shape[:2]) * math.prod(int(pairs.sum()) for pairs in reach)
    exact, mirrored = geometry.pad_mode == "zeros", geometry.pad_mode in ("reflect", "circular")

    def least(entries: int, weights: int) -> int:
        return max(entries, geometry.positions * weights // 3**geometry.rank) if mirrored else entries

    try:
        check_size(shape, least(whole, w.size), w.dtype, form, transposed, not exact)
        return
    except ValueError as error:  # the matrix may still be small enough if some weights are zero
        if type(error) not in (ValueError, MatrixTooLargeError):  # a signal handler raised this error
            raise
        taps = tuple(map(np.arange, geometry.kernel)) if some is None else some
    # Count entries with Python ints, because the number of entries may not fit in 64 bits.
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
    """Build the matrix whose entries are the weights `w`, which are C-contiguous and of a float dtype.

    The first weight of `w` belongs to the first row of the matrix. `form` is the format to which the matrix will be
    converted. It is needed to check the free memory, because the conversion takes memory, too. If `transposed` is true,
    error messages give the shape of the transpose. `indices` is the dtype of the indices; None means the smallest
    possible.
    """
    shape, dtype, rows = sparsity.shape, w.dtype, sparsity.weight_rows
    reason = why_not(shape, sparsity.nnz, dtype, transposed)
    if reason is not None:  # the kernels count entries in 64 bits
        raise ValueError(reason)
    table = sparsity.pattern, w, _arrays.DTYPES[dtype]
    helpers = _threads.most(threads, _ITEMS * threads)
    numbers = np.empty(rows, np.intp)
    _threads.share(_ext.weights, (*table, numbers), items=rows, work=w.nbytes, threads=threads)
    few, longest, every = 0, sparsity.longest, sparsity.cols * sparsity.taps
    if _FEW * int(numbers.min()) < every:
        # If few weights of a filter are nonzero, these weights are listed. `few` is the length of the longest list.
        few = int(numbers[_FEW * numbers < every].max())
        # A list may be longer than a row of the matrix, because weights in the same column are added up later.
        longest = max(few, min(longest, int(numbers.max())))
    pitch = _ext.space_of(_arrays.DTYPES[dtype], longest, few, sparsity.cols)
    space = np.zeros((helpers, pitch), np.uint8)
    counts = np.empty((rows, math.prod(map(len, sparsity.along))), np.intp)
    starts = np.zeros(rows + 1, np.intp)
    work = 4 * w.nbytes
    _threads.share(
        _ext.count,
        (*table, numbers, _FEW, longest, few, counts, starts, space),
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
            (*table, numbers, _FEW, longest, few, indptr, columns, data, wide, pieces, space),
            items=rows * pieces,
            work=columns.nbytes + data.nbytes,
            threads=threads,
        )
    return Csr(indptr, columns, data, shape, space[:, : starts.itemsize].copy().view(np.intp))
