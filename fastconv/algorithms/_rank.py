"""Kernels of rank one under 'auto': which layers are looked at, and what runs where the look finds none."""

from __future__ import annotations

import math

import numpy as np

from fastconv import _isa
from fastconv._plan_cache import plans
from fastconv.algorithms._finite import Choose, Redone
from fastconv.algorithms.base import Algorithm, Op
from fastconv.algorithms.separable import Separable, is_rank_one
from fastconv.geometry import ConvGeometry

#: Seconds that a look takes which finds no outer product: at all, and for each weight of the first kernel.
_LOOK, _LOOK_WEIGHT = 1.0e-6, 6e-10
#: A look takes at most this part of the time of the algorithm that runs if it fails.
_MOST_LOOK = 0.1


class IfRankOne(Algorithm):
    """`first` for kernels of rank one, and `second` for any others; each of them reads the border of the geometry."""

    def __init__(self, first: Algorithm, second: Algorithm) -> None:
        self.name, self.first, self.second = second.name, first, second
        self.sums_products, self.own_threads = second.sums_products, second.own_threads

    def _for(self, w: np.ndarray, geometry: ConvGeometry) -> Algorithm:
        return self.first if is_rank_one(w, geometry) else self.second

    def reads_borders(self, op: Op, geometry: ConvGeometry) -> bool:
        """All of them."""
        return True

    def workspace_bytes(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> int:
        """Of the one that takes more."""
        return max(a.workspace_bytes(op, geometry, dtype, threads) for a in (self.first, self.second))

    def work(self, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> dict[str, float]:
        """As the second, which serves all."""
        return self.second.work(op, geometry, dtype, threads)

    def forward(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """By the one that the weights ask for."""
        self._for(w, geometry).forward(x, w, b, geometry, out, threads)

    def backward_data(
        self, dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, threads: int
    ) -> None:
        """As `forward`."""
        self._for(w, geometry).backward_data(dout, w, geometry, dx, threads)

    def transposed(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, threads: int
    ) -> None:
        """As `forward`."""
        self._for(w, geometry).transposed(x, w, b, geometry, out, threads)

    def backward_weights(
        self, x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, dw: np.ndarray, threads: int
    ) -> None:
        """By the second, because the gradient is that of the full kernel."""
        self.second.backward_weights(x, dout, geometry, dw, threads)


def pays(
    second: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, exact: Choose, density: float
) -> Algorithm | None:
    """What computes kernels of rank one faster than `second`; None where nothing does, or a look takes too long."""
    return plans.find(_faster, second, op, geometry, dtype, threads, exact, density, _isa.current)


def _faster(
    second: Algorithm,
    op: Op,
    geometry: ConvGeometry,
    dtype: np.dtype,
    threads: int,
    exact: Choose,
    density: float,
    _isa_in_use: int,
) -> Algorithm | None:
    first = Separable(exact)
    if op == "backward_weights" or not math.prod(geometry.x_shape) * math.prod(geometry.out_shape):
        return None
    if first.unsupported(op, geometry, dtype) is not None:
        return None
    look = _LOOK + _LOOK_WEIGHT * math.prod(geometry.w_shape[1:])
    before, after = (a.cost(op, geometry, dtype, threads, density) for a in (second, first))
    return Redone(first, exact) if after < before and look <= _MOST_LOOK * before else None
