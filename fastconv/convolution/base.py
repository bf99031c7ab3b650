"""The interface of algorithms, and functions that several algorithms use."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from fastconv._ext.sparse import sparse as _ext
from fastconv.checks import arrays as _arrays
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa, threads as _threads


class Delegated(str):
    """The reason that `Algorithm.unsupported` returns for an op that the algorithm leaves to other algorithms.

    If the user selected the algorithm by name, a `Delegated` reason raises no error. Instead, the cheapest algorithm
    without transforms computes the op. Any other reason raises an error. So `conv_backward` works after a forward op by
    'sparse', although 'sparse' computes no gradients of zero weights.
    """

    __slots__ = ()


class Algorithm(ABC):
    """One way to compute the three ops of a convolution.

    An algorithm has a name, says which cases it does not support, and plans the other cases. The attributes of a plan
    describe the computation. The arrays that a plan gets are C-contiguous, not empty, in native byte order and of one
    float dtype. Kernels are not flipped, and padding is with zeros, unless `Plan.reads_borders` is true.
    """

    name: str

    def unsupported(self, case: Case) -> str | None:
        """Return the reason why this algorithm does not support the case, or None if it does."""
        return None

    @abstractmethod
    def plan(self, case: Case) -> Plan:
        """Return the cheapest plan of the algorithm for a case that it supports."""


def clear_where_zero(w: np.ndarray, dw: np.ndarray, threads: int) -> None:
    """Set dw to 0 where `w` is 0. Only the memory bandwidth limits the speed; NumPy's masks are much slower."""
    pieces = max(1, dw.nbytes >> 14)
    arguments = (_arrays.DTYPES[dw.dtype], w, dw, pieces, _isa.current)
    _threads.share(_ext.clear, arguments, items=pieces, work=2 * dw.nbytes, threads=threads)


def add_bias(b: np.ndarray | None, result: np.ndarray) -> None:
    """Add the bias b, unless it is None, to each channel of `result`, whose shape is (N, C, *spatial)."""
    if b is not None:
        result += b.reshape(-1, *(1,) * (result.ndim - 2))


def per_channel(b: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return a view of b that broadcasts along the channels of an image."""
    return b.reshape(-1, *(1,) * geometry.rank)
