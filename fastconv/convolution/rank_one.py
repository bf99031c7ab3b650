"""Kernels of rank one under 'auto': which layers are looked at."""

from __future__ import annotations

import math

import numpy as np

from fastconv.convolution.base import Algorithm
from fastconv.convolution.ops import Op
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans

#: Seconds that a look takes which finds no outer product: at all, and for each weight of the first kernel.
_LOOK, _LOOK_WEIGHT = 1.0e-6, 6e-10
#: A look takes at most this part of the time of the algorithm that runs if it fails.
_MOST_LOOK = 0.1


def pays(
    first: Algorithm, second: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
) -> bool:
    """Whether `first` is faster for kernels of rank one than `second`, and a look for them takes little time."""
    return plans.find(_is_faster, first, second, op, geometry, dtype, threads, density, _isa.current)


def _is_faster(
    first: Algorithm,
    second: Algorithm,
    op: Op,
    geometry: ConvGeometry,
    dtype: np.dtype,
    threads: int,
    density: float,
    _isa_in_use: int,
) -> bool:
    if op == "backward_weights" or not math.prod(geometry.x_shape) * math.prod(geometry.out_shape):
        return False
    if first.unsupported(op, geometry, dtype) is not None:
        return False
    look = _LOOK + _LOOK_WEIGHT * math.prod(geometry.w_shape[1:])
    before, after = (a.cost(op, geometry, dtype, threads, density) for a in (second, first))
    return after < before and look <= _MOST_LOOK * before
