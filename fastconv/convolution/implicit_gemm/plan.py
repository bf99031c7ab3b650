"""One call of a kernel of `implicit`: tables, workspace, work, and weights in its order."""

from __future__ import annotations

import math
from dataclasses import field
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.runtime import isa as _isa
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class Gather:
    """Of weights (groups * channels, rows, *kernel) the taps of a product, with the rows of each side by side.

    As they lie, a panel of rows is gathered cell by cell from all over the
    memory, and that anew for every block.
    """

    shape: tuple[int, ...]
    taps: tuple[slice, slice, slice]

    @property
    def size(self) -> int:
        """Elements of the result."""
        *lead, d, h, w = self.shape
        return math.prod(lead) * math.prod(len(range(n)[t]) for n, t in zip((d, h, w), self.taps, strict=True))

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(w.reshape(self.shape)[(..., *self.taps)].transpose(0, 2, 3, 4, 1))


@dataclass(frozen=True)
class Plan:
    """One call of a kernel: its tables, its workspace in elements a thread, its items and the outputs it has."""

    #: With all of this in it: an `implicit.Multiply`, or for dw an `implicit_weights.Contract`.
    kernel: Any
    tables: tuple[np.ndarray, ...]
    space: int
    items: int
    product: float
    #: The work of each kind, of all threads together.
    amounts: dict[str, float]
    #: Outputs of an image's channel; of a product only.
    outs: int = 0
    parts: int = 1
    #: Of a product: the third table, as the kernel reads it in this order (Sizes in implicit.pyx).
    sizes: dict[str, int] = field(default_factory=dict)
    gather: Gather | None = None
    #: Elements of packed weights that all threads share.
    shared: int = 0

    @cached_property
    def copied(self) -> int:
        """Bytes that a plain copy moves in the same time, for `_threads.share`."""
        return int(self.product * _isa.BYTES_PER_OPERATION)
