"""The pattern of the Toeplitz matrix along one axis: the cells that each output reads, or the outputs that read a cell.

The Toeplitz matrix along one axis has a row for each output or, if it is transposed, for each input cell. A position is
the index of such a row. An entry is an element of a row that holds a weight. A segment is a set of positions whose rows
have the same entries, apart from a shift of the columns. For example, 3 taps with padding 1 make three segments: the
first output, the last output, and all outputs between them. The transpose has a long segment for each stride phase. A
row of the whole matrix is the product of rows along three axes. There may be many positions, so segments are found
without a Python loop over positions.

If all weights at a tap are zero, no segment has an entry for this tap. So a kernel with nonzero weights at only a few
taps has few segments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastconv._ext.toeplitz import toeplitz as _ext
from fastconv.geometry.axis import Axis, source_cells

#: The number of integers that describe a segment.
_SEGMENT = 8
#: Windows that overlap a border of the image are processed in parts. A part has at most this number of cells.
_CELLS = 1 << 20


@dataclass
class AxisPattern:
    """The sparsity pattern of the matrix along one axis. This matrix has `positions` rows and `limit` columns.

    A segment is ``(start, step, count, begin, end, base, base_step, key)``: `count` rows with the same entries, apart
    from a shift of the columns. For each m < count, row ``start + m * step`` has the entries ``entries[begin:end]``.
    The first of these entries is in column ``base + m * base_step``.

    An entry is ``(offset, tap)``. The difference of two offsets is the distance between the columns of their entries.
    Offsets ascend within a segment. If several taps read the same cell, they share one entry, whose `tap` is negative.
    Then ``lists[~tap]`` is the number of these taps, and the following elements of `lists` are the taps.

    `keys` has each tap once. The nonzero weights of a filter are listed in this order. If the `key` of a segment is not
    negative, its entries belong to the taps ``keys[key], keys[key + 1], ...``. After the last tap of `keys`, they
    continue with the first. If `key` is negative, the segment has entries for all taps. Then
    ``element_of_key[~key + i]`` is the distance from `base` to the cell that tap ``keys[i]`` reads.

    The fields `segments`, `entries`, `lists` and `element_of_key` are lists of arrays, which the method `arrays` joins.
    """

    positions: int
    limit: int
    segments: list[np.ndarray] = field(default_factory=list)
    entries: list[np.ndarray] = field(default_factory=list)
    lists: list[np.ndarray] = field(default_factory=list)
    element_of_key: list[np.ndarray] = field(default_factory=list)
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.intp))
    n_entries: int = 0
    n_lists: int = 0
    n_elements: int = 0

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return five arrays: segments (count, 8), entries (count, 2), `lists`, `element_of_key` and `keys`."""
        empty = np.empty(0, np.intp)
        segments, entries, lists, element_of_key = (
            np.concatenate([empty, *(piece.ravel() for piece in pieces)])
            for pieces in (self.segments, self.entries, self.lists, self.element_of_key)
        )
        keys = np.ascontiguousarray(self.keys, np.intp)
        return segments.reshape(-1, _SEGMENT), entries.reshape(-1, 2), lists, element_of_key, keys

    def add_entries(self, offsets: np.ndarray, taps: np.ndarray) -> int:
        """Add one entry for each tap, and return the index of the first entry."""
        begin = self.n_entries
        self.entries.append(np.stack([offsets, taps], 1).astype(np.intp, copy=False))
        self.n_entries += len(taps)
        return begin

    def add_segments(self, *columns: np.ndarray | int) -> None:
        """Add segments. Segments without rows are left out.

        Each of the eight `columns` is one field of the segments: an array with a value for each segment, or an int if
        all segments have the same value.
        """
        table = np.stack(np.broadcast_arrays(*map(np.atleast_1d, columns)), 1).astype(np.intp, copy=False)
        self.segments.append(table[table[:, 2] > 0])

    def add(
        self,
        start: int,
        step: int,
        count: int,
        origin: int,
        base_step: int,
        taps: np.ndarray,
        offsets: np.ndarray,
        key: int,
    ) -> None:
        """Add `count` matrix rows: row ``start + m * step`` for each m < count.

        Row ``start + m * step`` has entries in the columns ``origin + m * base_step + offsets``. Columns outside the
        matrix are left out. The offsets ascend. `key` is the index in `keys` of the first tap of `taps`.
        """
        k = len(taps)
        begin = self.add_entries(offsets, taps)
        # The entries change only at rows in which the column of a tap enters or leaves the matrix.
        first = origin + offsets
        changes = np.concatenate([[0], *(-((first - bound) // base_step) for bound in (0, self.limit))])
        m = np.unique(np.clip(changes, 0, max(count - 1, 0)))
        at = origin + m * base_step
        a, b = (np.searchsorted(offsets, bound - at) for bound in (0, self.limit))
        some = a < b
        a, b = a * some, b * some
        # A segment begins at each element of `m`. Consecutive segments with the same entries are joined.
        alike = np.zeros(len(m), bool)
        alike[1:] = (a[1:] == a[:-1]) & (b[1:] == b[:-1])
        m, a, b, at = (column[~alike] for column in (m, a, b, at))
        some = some[~alike]
        lengths = np.diff(m, append=count)
        base = (at + offsets[np.minimum(a, k - 1)]) * some
        self.add_segments(start + m * step, step, lengths, begin + a, begin + b, base, base_step * some, key + a)

    def add_merged(self, first: int, cells: np.ndarray, taps: np.ndarray) -> None:
        """Add adjacent outputs, which may read the same cell at several taps. `first` is the index of the first output.

        `cells` has shape (outputs, taps): the cell that each output reads at each tap.
        """
        cells, taps = (np.ascontiguousarray(array, np.intp) for array in (cells, taps))
        n, k = cells.shape
        pieces = tuple(np.empty(size, np.intp) for size in (n * _SEGMENT, 2 * n * k, (3 * n * k + 1) // 2, n * k))
        starts = np.array([first, self.n_entries, self.n_lists, self.n_elements], np.intp)
        made = _ext.merge(cells, np.argsort(cells, axis=1, kind="stable"), taps, starts, *pieces)
        segments, entries, lists, element_of_key = (
            piece[: count * width] for piece, count, width in zip(pieces, made, (_SEGMENT, 2, 1, 1), strict=True)
        )
        self.segments.append(segments.reshape(-1, _SEGMENT))
        self.entries.append(entries.reshape(-1, 2))
        self.lists.append(lists)
        self.element_of_key.append(element_of_key)
        self.n_entries, self.n_lists, self.n_elements = (starts[1:] + made[1:]).tolist()


def _window(k: int, flip: bool, some: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays: the index of each tap in the window of an output, and the index of the weight of the tap.

    The indices in the window ascend. If the kernel is flipped, the indices of the weights descend. The arrays have the
    taps in `some` or, if it is None, all k taps.
    """
    at = np.arange(k) if some is None else (k - 1 - some)[::-1] if flip else some
    return at, k - 1 - at if flip else at


def of_outputs(axis: Axis, pad_mode: str, flip: bool, some: np.ndarray | None = None) -> AxisPattern:
    """Return the pattern with a row for each output. The entries of a row are the input cells that the output reads.

    If `some` is given, it is an ascending array of taps, and the pattern has entries for these taps only.
    """
    size, k, stride, lo, dilation, out = axis.row()
    at, taps = _window(k, flip, some)
    axis_pattern, offsets = AxisPattern(out, size, keys=taps), at * dilation
    if pad_mode == "zeros":
        axis_pattern.add(0, 1, out, -lo, stride, taps, offsets, 0)
        return axis_pattern
    # The windows of outputs `first` to ``end - 1`` lie inside the image. Only other outputs may read a cell twice.
    lo -= int(offsets[0])
    offsets = offsets - offsets[0]
    reach = int(offsets[-1])
    first = min(max(-(-lo // stride), 0), out)
    end = max(min((size - 1 - reach + lo) // stride + 1, out), first)
    if pad_mode == "circular" and reach < size:
        _add_wrapped(axis_pattern, (stride, lo), offsets, taps, (first, end))
        return axis_pattern
    head, tail = 0, out
    if pad_mode == "replicate":
        # A window that is completely in the padding reads only the first or only the last cell of the image.
        head = min(max((lo - reach) // stride + 1, 0), first)
        tail = min(max(-(-(size - 1 + lo) // stride), end), out)
        for begin, count, cell in ((0, head, 0), (tail, out - tail, size - 1)):
            if count:
                axis_pattern.add_merged(begin, np.full((1, len(taps)), cell), taps)
                axis_pattern.segments[-1][:, 2] = count
    window, block = offsets - lo, max(_CELLS // len(taps), 1)
    for low, high in ((head, first), (end, tail)):
        for begin in range(low, high, block):
            here = np.arange(begin, min(begin + block, high))[:, np.newaxis] * stride
            axis_pattern.add_merged(begin, source_cells(window + here, size, pad_mode), taps)
    if first < end:
        axis_pattern.add(first, 1, end - first, first * stride - lo, stride, taps, offsets, 0)
    return axis_pattern


def _add_wrapped(
    axis_pattern: AxisPattern, steps: tuple[int, int], offsets: np.ndarray, taps: np.ndarray, inside: tuple[int, int]
) -> None:
    """Add all outputs of an axis with circular padding. The window of an output must not be longer than the image.

    A window is contiguous, or it wraps around the end of the image. All segments use the same array of entries, in
    which each tap occurs twice. In a window that wraps around, the last taps read cells at the start of the image. The
    entries of these taps come first, because the columns of entries ascend.
    """
    (stride, lo), size, out, k = steps, axis_pattern.limit, axis_pattern.positions, len(taps)
    begin = axis_pattern.add_entries(np.concatenate([offsets, offsets + size]), np.concatenate([taps, taps]))
    first, end = inside
    if first < end:
        axis_pattern.add_segments(first, 1, end - first, begin, begin + k, first * stride - lo, stride, 0)
    for low, high in ((0, first), (end, out)):
        for low_, high_ in ((at, min(at + _CELLS, high)) for at in range(low, high, _CELLS)):
            at = (np.arange(low_, high_) * stride - lo) % size
            # The number of taps that read cells before the end of the image. The other taps wrap around, and read cells
            # at the start of the image. Their entries come first, because the columns of entries ascend.
            whole = np.searchsorted(offsets, size - at)
            rotation = np.where(whole < k, whole, 0)
            base = at + offsets[rotation] - size * (whole < k)
            starts = np.flatnonzero(
                (np.diff(rotation, prepend=-1) != 0) | (np.diff(base, prepend=base[0] - stride) != stride)
            )
            counts = np.diff(starts, append=len(at))
            rotation = rotation[starts]
            axis_pattern.add_segments(
                low_ + starts, 1, counts, begin + rotation, begin + rotation + k, base[starts], stride, rotation
            )


def of_cells(axis: Axis, flip: bool, some: np.ndarray | None = None) -> AxisPattern:
    """Return the pattern with a row for each input cell. The entries of a row are the outputs that read the cell.

    This pattern is the transpose of the pattern that `of_outputs` returns for zero padding.
    """
    size, k, stride, lo, dilation, out = axis.row()
    axis_pattern = AxisPattern(size, out)
    # The same taps read cell i and cell i + stride. So taps are grouped by the index, modulo the stride, of the cells
    # that they read. In each group, the last tap comes first.
    taps = _window(k, flip, some)[0][::-1]
    phases = (taps * dilation - lo) % stride
    order = np.argsort(phases, kind="stable")
    seen, starts = np.unique(phases[order], return_index=True)
    for i, here in zip(seen.tolist(), np.split(taps[order], starts[1:]), strict=True):
        if i < size:
            origin = (i + lo - int(here[0]) * dilation) // stride
            offsets = (here[0] - here) * dilation // stride
            taps = k - 1 - here if flip else here
            axis_pattern.add(i, stride, -(-(size - i) // stride), origin, 1, taps, offsets, axis_pattern.n_entries)
    axis_pattern.keys = np.concatenate([np.empty(0, np.intp), *(entries[:, 1] for entries in axis_pattern.entries)])
    # Cells that no tap reads also form segments: either runs of adjacent cells, or cells with equal index modulo the
    # stride. The choice with fewer segments is used.
    seen = seen[seen < size]
    low, high = np.append(-1, seen) + 1, np.append(seen, min(stride, size))
    low, high = low[low < high], high[low < high]
    periods = -(-size // stride)
    if not len(low):
        return axis_pattern
    if len(low) * periods <= stride:
        low, high = (np.add.outer(np.arange(periods) * stride, bound).ravel() for bound in (low, high))
        axis_pattern.add_segments(low, 1, np.minimum(high, size) - low, 0, 0, 0, 0, 0)
    else:
        idle = np.setdiff1d(np.arange(min(stride, size)), seen, assume_unique=True)
        axis_pattern.add_segments(idle, stride, -((idle - size) // stride), 0, 0, 0, 0, 0)
    return axis_pattern
