"""Which cells each output sees along one axis, and which outputs see each cell: a factor of the Toeplitz matrix.

Positions along an axis come in segments that have the same entries, shifted:
the border ones a few to a segment, all others in one, or in one per stride
phase. A row of the matrix is the product of three such lists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fastconv._axis import Axis, source_cells


@dataclass
class Spans:
    """One axis of a sparse matrix: `positions` along its rows, `limit` along its columns.

    A segment ``(start, step, count, begin, end, base, jump)`` says that position
    ``start + m * step`` has `entries` begin to end, and its first one is at
    ``base + m * jump``. An entry is ``(offset, tap)``: offsets, whose differences
    count, rise within a segment; a tap below 0 is the place ``~tap`` in `lists`
    of a number of taps, and these, which all meet the one cell.
    """

    positions: int
    limit: int
    segments: list[tuple[int, ...]] = field(default_factory=list)
    entries: list[tuple[int, int]] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every segment its positions, and the entries of each."""
        table = np.array(self.segments, np.intp).reshape(-1, 7)
        return table[:, 2], table[:, 4] - table[:, 3]

    def add(self, start: int, step: int, count: int, origin: int, jump: int, taps: Sequence[int], gap: int) -> None:
        """Positions that meet `taps` at ``origin + m * jump`` and every `gap` cells from there, within the limit."""
        begin, k = len(self.entries), len(taps)
        self.entries += ((i * gap, tap) for i, tap in enumerate(taps))
        whole = min(max(-(origin // jump), 0), count)
        border = min(max((self.limit - 1 - (k - 1) * gap - origin) // jump + 1, 0), count) if k else 0
        if whole >= border:
            whole = border = count
        for m, end in ((0, whole), (border, count)):
            self._add_border(range(m, end), (start, step, origin, jump, gap), (begin, begin + k))
        if whole < border:
            at = start + whole * step, step, border - whole
            self.segments.append((*at, begin, begin + k, origin + whole * jump, jump))

    def _add_border(self, places: range, along: tuple[int, int, int, int, int], entries: tuple[int, int]) -> None:
        """Positions that see only some of the entries, as segments of those that see the same ones."""
        (start, step, origin, jump, gap), (first, end) = along, entries
        seen, since = None, 0
        for m in places:
            at = origin + m * jump
            a, b = (min(max(-((at - bound) // gap), 0), end - first) for bound in (0, self.limit))
            here = (a, b) if a < b else (0, 0)
            if here == seen:
                continue
            if seen is not None:
                self._end_segment(m - since)
            seen, since = here, m
            base, moves = (at + a * gap, jump) if a < b else (0, 0)
            self.segments.append((start + m * step, step, 0, first + here[0], first + here[1], base, moves))
        if seen is not None:
            self._end_segment(places.stop - since)

    def _end_segment(self, count: int) -> None:
        start, step, _, *rest = self.segments[-1]
        self.segments[-1] = (start, step, count, *rest)

    def add_merged(self, position: int, cells: np.ndarray, taps: Sequence[int]) -> None:
        """One position whose taps meet `cells`, some of them the same."""
        begin = len(self.entries)
        order = np.argsort(cells, kind="stable")
        for same in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
            cell, here = int(cells[same[0]]), [taps[t] for t in same]
            if len(here) == 1:
                self.entries.append((cell, here[0]))
            else:
                self.entries.append((cell, ~len(self.lists)))
                self.lists += (len(here), *here)
        self.segments.append((position, 1, 1, begin, len(self.entries), self.entries[begin][0], 0))


def of_outputs(axis: Axis, pad_mode: str, flip: bool) -> Spans:
    """The input cells that each output sees."""
    size, k, stride, lo, dilation, out = axis.row()
    spans, taps = Spans(out, size), range(k)[:: -1 if flip else 1]
    if pad_mode == "zeros":
        spans.add(0, 1, out, -lo, stride, taps, dilation)
        return spans
    # Windows that reach into the padding may meet a cell twice.
    first = min(-(-lo // stride), out)
    end = max(min((size - 1 - (k - 1) * dilation + lo) // stride + 1, out), first)
    window = np.arange(k) * dilation - lo
    for o in (*range(first), *range(end, out)):
        spans.add_merged(o, source_cells(window + o * stride, size, pad_mode), taps)
    if first < end:
        spans.add(first, 1, end - first, first * stride - lo, stride, taps, dilation)
    return spans


def of_cells(axis: Axis, flip: bool) -> Spans:
    """The outputs that see each input cell, under zero padding: the adjoint of `of_outputs`."""
    size, k, stride, lo, dilation, out = axis.row()
    spans, gap = Spans(size, out), dilation // math.gcd(stride, dilation)
    for i in range(min(stride, size)):
        # Those a stride apart meet the same taps, the last of them first.
        taps = [t for t in range(k - 1, -1, -1) if (i + lo - t * dilation) % stride == 0]
        origin = (i + lo - taps[0] * dilation) // stride if taps else 0
        spans.add(i, stride, -(-(size - i) // stride), origin, 1, [k - 1 - t for t in taps] if flip else taps, gap)
    return spans
