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
    """Returned by `Algorithm.unsupported`: the reason why an algorithm leaves an op to other algorithms.

    Suppose that a user selects an algorithm by name, and the algorithm does not support the case. If `unsupported`
    returns a plain string, the call raises ValueError. If it returns a `Delegated`, another algorithm computes the op:
    the cheapest one that uses no transform. For example, 'sparse' cannot compute the gradients of weights that are
    zero, so `conv_backward` uses another algorithm for dw.
    """

    __slots__ = ()


class Algorithm(ABC):
    """One way to compute the ops of a convolution: forward, backward_data and backward_weights.

    `unsupported` says which cases an algorithm cannot compute. `plan` makes a plan for every other case.

    A plan gets arrays that are C-contiguous, not empty, in native byte order, and all float32 or all float64. It
    computes cross-correlation with zero padding. Wrappers flip kernels, and pad images with other values than zero if
    `Plan.reads_borders` is false.
    """

    name: str

    def unsupported(self, case: Case) -> str | None:
        """Return the reason why this algorithm does not support the case, or None if it does."""
        return None

    @abstractmethod
    def plan(self, case: Case) -> Plan:
        """Return the cheapest plan of the algorithm for a case that it supports."""


def clear_where_zero(w: np.ndarray, dw: np.ndarray, threads: int) -> None:
    """Set `dw` to 0 where `w` is 0. This is much faster than indexing `dw` by a NumPy mask."""
    pieces = max(1, dw.nbytes >> 14)
    queue = _threads.work_queue(pieces, 2 * dw.nbytes, threads)
    _ext.clear(w, dw, queue, dtype=_arrays.DTYPES[dw.dtype], isa=_isa.current, items=pieces)


def add_bias(b: np.ndarray | None, result: np.ndarray) -> None:
    """Add the bias `b` to each channel of `result`, whose shape is (N, C, *spatial). A bias of None adds nothing."""
    if b is not None:
        result += b.reshape(-1, *(1,) * (result.ndim - 2))


def per_channel(b: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return a view of the bias `b` with shape (C, 1, ..., 1), which broadcasts against images (N, C, *spatial)."""
    return b.reshape(-1, *(1,) * geometry.rank)
