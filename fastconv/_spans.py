"""Which cells each output sees along one axis, and which outputs see each cell: a factor of the Toeplitz matrix.

Positions along an axis come in segments that have the same entries, shifted:
the border ones a few to a segment, all others in one, or in one per stride
phase. A row of the matrix is the product of three such lists. All of them are
found without a look at every position, or in NumPy's loops: there may be many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from fastconv._axis import Axis, source_cells

#: Numbers of a segment.
_SEGMENT = 7
#: Cells of windows on the border that are sorted at a time.
_CELLS = 1 << 20


@dataclass
class Spans:
    """One axis of a sparse matrix: `positions` along its rows, `limit` along its columns.

    A segment ``(start, step, count, begin, end, base, jump)`` says that position
    ``start + m * step`` has `entries` begin to end, and its first one is at
    ``base + m * jump``. An entry is ``(offset, tap)``: offsets, whose differences
    count, rise within a segment; a tap below 0 is the place ``~tap`` in `lists`
    of a number of taps, and these, which all meet the one cell. All three are
    kept in pieces, `arrays` joins them.
    """

    positions: int
    limit: int
    segments: list[np.ndarray] = field(default_factory=list)
    entries: list[np.ndarray] = field(default_factory=list)
    lists: list[np.ndarray] = field(default_factory=list)
    n_entries: int = 0
    n_lists: int = 0

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Segments (count, 7), entries (count, 2), and the lists one after another."""
        empty = np.empty(0, np.intp)
        segments, entries, lists = (
            np.concatenate([empty, *(piece.ravel() for piece in pieces)])
            for pieces in (self.segments, self.entries, self.lists)
        )
        return segments.reshape(-1, _SEGMENT), entries.reshape(-1, 2), lists

    def add_entries(self, offsets: np.ndarray, taps: np.ndarray) -> int:
        """Where they begin."""
        begin = self.n_entries
        self.entries.append(np.stack([offsets, taps], 1).astype(np.intp, copy=False))
        self.n_entries += len(taps)
        return begin

    def add_segments(self, *columns: np.ndarray | int) -> None:
        """Segments as columns of their seven numbers."""
        table = np.stack(np.broadcast_arrays(*map(np.atleast_1d, columns)), 1).astype(np.intp, copy=False)
        self.segments.append(table[table[:, 2] > 0])

    def add(self, start: int, step: int, count: int, origin: int, jump: int, taps: np.ndarray, gap: int) -> None:
        """Positions that meet `taps` at ``origin + m * jump`` and every `gap` cells from there, within the limit."""
        k = len(taps)
        begin = self.add_entries(np.arange(k) * gap, taps)
        # What a position meets changes only where a tap enters the cells, or leaves them.
        first = origin + np.arange(k) * gap
        changes = np.concatenate([[0], *(-((first - bound) // jump) for bound in (0, self.limit))])
        m = np.unique(np.clip(changes, 0, max(count - 1, 0)))
        at = origin + m * jump
        a, b = (np.clip(-((at - bound) // gap), 0, k) for bound in (0, self.limit))
        some = a < b
        a, b = a * some, b * some
        # At some of these nothing does: those that meet nothing are all alike.
        alike = np.zeros(len(m), bool)
        alike[1:] = (a[1:] == a[:-1]) & (b[1:] == b[:-1])
        m, a, b, at, some = (column[~alike] for column in (m, a, b, at, some))
        lengths = np.diff(m, append=count)
        self.add_segments(start + m * step, step, lengths, begin + a, begin + b, (at + a * gap) * some, jump * some)

    def add_merged(self, first: int, cells: np.ndarray, taps: np.ndarray) -> None:
        """Positions from `first` on, whose `taps` meet `cells` (positions, taps), some of them the same."""
        n = len(cells)
        order = np.argsort(cells, axis=1, kind="stable")
        cells = np.take_along_axis(cells, order, 1)
        base, offsets = cells[:, 0].copy(), cells - cells[:, :1]
        # Positions that differ by a shift are one segment, while the shift stays the same.
        alike = np.zeros(n, bool)
        alike[1:] = (order[1:] == order[:-1]).all(1) & (offsets[1:] == offsets[:-1]).all(1)
        jumps = np.diff(base, prepend=base[0])
        turns = np.zeros(n, bool)
        turns[2:] = alike[2:] & alike[1:-1] & (jumps[2:] != jumps[1:-1])
        starts = np.flatnonzero(~alike | turns)
        counts = np.diff(starts, append=n)
        jump = np.where(counts > 1, jumps[np.minimum(starts + 1, n - 1)], 0)
        offsets, taps = offsets[starts], taps[order[starts]].ravel()
        # An entry is a run of equal cells in a row.
        new = np.ones(offsets.shape, bool)
        new[:, 1:] = offsets[:, 1:] != offsets[:, :-1]
        heads = np.flatnonzero(new)
        lengths = np.diff(heads, append=new.size)
        entry, several = taps[heads], lengths > 1
        if several.any():
            # Of each of these its number of taps, and them.
            sizes = lengths[several] + 1
            places = np.cumsum(sizes) - sizes
            lists = np.empty(int(sizes.sum()), np.intp)
            is_tap = np.ones(len(lists), bool)
            is_tap[places] = False
            lists[places], lists[is_tap] = sizes - 1, taps[np.repeat(several, lengths)]
            entry[several] = ~(self.n_lists + places)
            self.lists.append(lists)
            self.n_lists += len(lists)
        begin = self.add_entries(offsets.ravel()[heads], entry)
        ends = begin + np.cumsum(new.sum(1))
        begins = np.concatenate([[begin], ends[:-1]])
        self.add_segments(first + starts, 1, counts, begins, ends, base[starts], jump)


def of_outputs(axis: Axis, pad_mode: str, flip: bool) -> Spans:
    """The input cells that each output sees."""
    size, k, stride, lo, dilation, out = axis.row()
    spans, taps = Spans(out, size), np.arange(k)[:: -1 if flip else 1]
    if pad_mode == "zeros":
        spans.add(0, 1, out, -lo, stride, taps, dilation)
        return spans
    # Windows that reach into the padding may meet a cell twice.
    first = min(-(-lo // stride), out)
    end = max(min((size - 1 - (k - 1) * dilation + lo) // stride + 1, out), first)
    if pad_mode == "circular" and (k - 1) * dilation < size:
        _add_turned(spans, axis, taps, (first, end))
        return spans
    head, tail = 0, out
    if pad_mode == "replicate":
        # Those in the padding alone meet one cell.
        head = min(max((lo - (k - 1) * dilation) // stride + 1, 0), first)
        tail = min(max(-(-(size - 1 + lo) // stride), end), out)
        for begin, count, cell in ((0, head, 0), (tail, out - tail, size - 1)):
            if count:
                spans.add_merged(begin, np.full((1, k), cell), taps)
                spans.segments[-1][:, 2] = count
    window, block = np.arange(k) * dilation - lo, max(_CELLS // k, 1)
    for low, high in ((head, first), (end, tail)):
        for begin in range(low, high, block):
            at = np.arange(begin, min(begin + block, high))[:, np.newaxis] * stride
            spans.add_merged(begin, source_cells(window + at, size, pad_mode), taps)
    if first < end:
        spans.add(first, 1, end - first, first * stride - lo, stride, taps, dilation)
    return spans


def _add_turned(spans: Spans, axis: Axis, taps: np.ndarray, inside: tuple[int, int]) -> None:
    """Circular padding, and windows no longer than the image: each is a run of cells, or the end and the start of one.

    All read one list, the taps twice: from the first tap that is past the end on, to the one before it.
    """
    size, k, stride, lo, dilation, out = axis.row()
    offsets = np.arange(k) * dilation
    begin = spans.add_entries(np.concatenate([offsets, offsets + size]), np.concatenate([taps, taps]))
    first, end = inside
    if first < end:
        spans.add_segments(first, 1, end - first, begin, begin + k, first * stride - lo, stride)
    for low, high in ((0, first), (end, out)):
        for low_, high_ in ((at, min(at + _CELLS, high)) for at in range(low, high, _CELLS)):
            at = (np.arange(low_, high_) * stride - lo) % size
            # Taps before the end of the image; the others are in front of them.
            whole = np.minimum(-((at - size) // dilation), k)
            base = np.where(whole < k, at + whole * dilation - size, at)
            turn = np.where(whole < k, whole, 0)
            starts = np.flatnonzero(
                (np.diff(turn, prepend=-1) != 0) | (np.diff(base, prepend=base[0] - stride) != stride)
            )
            counts = np.diff(starts, append=len(at))
            turn = begin + turn[starts]
            spans.add_segments(low_ + starts, 1, counts, turn, turn + k, base[starts], stride)


def of_cells(axis: Axis, flip: bool) -> Spans:
    """The outputs that see each input cell, under zero padding: the adjoint of `of_outputs`."""
    size, k, stride, lo, dilation, out = axis.row()
    spans, gap = Spans(size, out), dilation // math.gcd(stride, dilation)
    # Cells a stride apart meet the same taps, the last of them first: those of a phase.
    taps = np.arange(k - 1, -1, -1)
    phases = (taps * dilation - lo) % stride
    order = np.argsort(phases, kind="stable")
    seen, starts = np.unique(phases[order], return_index=True)
    for i, here in zip(seen.tolist(), np.split(taps[order], starts[1:]), strict=True):
        if i < size:
            origin = (i + lo - int(here[0]) * dilation) // stride
            spans.add(i, stride, -(-(size - i) // stride), origin, 1, k - 1 - here if flip else here, gap)
    # The others meet nothing: as phases, or as stretches between these, whichever are fewer.
    seen = seen[seen < size]
    low, high = np.append(-1, seen) + 1, np.append(seen, min(stride, size))
    low, high = low[low < high], high[low < high]
    periods = -(-size // stride)
    if len(low) * periods <= stride:
        low, high = (np.add.outer(np.arange(periods) * stride, bound).ravel() for bound in (low, high))
        spans.add_segments(low, 1, np.minimum(high, size) - low, 0, 0, 0, 0)
    else:
        idle = np.setdiff1d(np.arange(min(stride, size)), seen, assume_unique=True)
        spans.add_segments(idle, stride, -((idle - size) // stride), 0, 0, 0, 0)
    return spans
