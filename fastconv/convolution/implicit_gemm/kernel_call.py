"""One call of a kernel of `implicit`: its compiled plan, its workspace, its work, and the repacking of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.convolution.base import clear_where_zero
from fastconv.convolution.implicit_gemm.tiling import ImplicitTiling
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads, workspace as _workspace
from fastconv.runtime.records import dataclass


@dataclass(frozen=True)
class RepackWeights:
    """Copies the weights of a product to an array whose last axis has one element for each row of the product.

    The original weights have shape (groups * channels, rows, *kernel), and `taps` selects the taps of the product. The
    copy saves time. Without it, every block would read single weights with large strides when it packs a panel of rows.
    """

    shape: tuple[int, ...]
    taps: tuple[slice, slice, slice]

    @property
    def size(self) -> int:
        """The number of elements of the copy."""
        *lead, d, h, w = self.shape
        return math.prod(lead) * math.prod(len(range(n)[t]) for n, t in zip((d, h, w), self.taps, strict=True))

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(w.reshape(self.shape)[(..., *self.taps)].transpose(0, 2, 3, 4, 1))


@dataclass(frozen=True)
class KernelCall:
    """One call of a compiled plan, which uses at most `threads` threads."""

    #: The compiled plan: for dw a `gemm.weights.GradientPlan`, for other ops a `gemm.implicit.ProductPlan`.
    kernel: Any
    threads: int
    #: The number of vector operations of the product, for all blocks.
    product: float
    #: The amount of each kind of work, summed over all threads.
    amounts: dict[str, float]
    #: The number of partial sums of dw: above 1 if positions are divided among threads.
    parts: int = 1
    #: The sizes of the blocks of a product. None for dw.
    tiling: ImplicitTiling | None = None
    repack: RepackWeights | None = None

    @cached_property
    def items(self) -> int:
        """The number of work items, which are divided among threads."""
        items: int = self.kernel.items
        return items

    @cached_property
    def copied(self) -> int:
        """The estimated time of the call, as the number of bytes that a plain copy moves in that time."""
        return int(self.product * _isa.BYTES_PER_OPERATION)

    @cached_property
    def workspace(self) -> int:
        """The number of elements of the workspace of all threads."""
        elements: int = min(self.threads, self.items) * self.kernel.workspace + self.kernel.shared
        return elements

    def multiply(self, source: np.ndarray, w: np.ndarray, bias: np.ndarray | None, result: np.ndarray) -> bool:
        """Write the product plus the bias to `result`. Return False if the op is backward_data and a weight may be inf
        or NaN; otherwise return True.
        """
        queue = _threads.work_queue(self.items, self.copied, self.threads)
        if self.repack is not None:
            w = self.repack(w)
        with _workspace.workspace("blocks of the image", (self.workspace,), result.dtype) as workspace:
            finite: bool = self.kernel.run(source, w, bias, result, workspace, queue)
        return finite

    def contract(self, x: np.ndarray, dout: np.ndarray, weight_mask: np.ndarray | None, dw: np.ndarray) -> None:
        """Write the gradient of the weights to `dw`. It is zero where `weight_mask` is zero.

        The kernel applies the mask as it writes dw, because a second pass over dw would be slow.
        """
        queue = _threads.work_queue(self.items, self.copied, self.threads)
        parts = dw if self.parts == 1 else _memory.empty((self.parts, dw.size), dw.dtype)
        with _workspace.workspace("blocks of the image", (self.workspace,), dw.dtype) as workspace:
            self.kernel.run(x, dout, parts, workspace, queue, weight_mask if self.parts == 1 else None)
        if self.parts > 1:
            np.sum(parts, axis=0, out=dw.reshape(-1))
            if weight_mask is not None:
                clear_where_zero(weight_mask, dw, self.threads)


def table_bytes(calls: Iterable[KernelCall]) -> int:
    """Return the number of bytes of the tables of all calls."""
    return sum(call.kernel.nbytes for call in calls)
