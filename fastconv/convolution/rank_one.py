"""Kernels of rank one under 'auto': which layers are looked at."""

from __future__ import annotations

import math

from fastconv.convolution.base import Algorithm
from fastconv.convolution.plan import Case
from fastconv.runtime.plan_cache import plans

#: Seconds that a look takes which finds no outer product: at all, and for each weight of the first kernel.
_LOOK, _LOOK_WEIGHT = 1.0e-6, 6e-10
#: A look takes at most this part of the time of the algorithm that runs if it fails.
_MOST_LOOK = 0.1


def pays(first: Algorithm, second: Algorithm, case: Case) -> bool:
    """Whether `first` is faster for kernels of rank one than `second`, and a look for them takes little time."""
    return plans.find(_is_faster, first, second, case)


def _is_faster(first: Algorithm, second: Algorithm, case: Case) -> bool:
    geometry = case.geometry
    if case.op == "backward_weights" or not math.prod(geometry.x_shape) * math.prod(geometry.out_shape):
        return False
    if first.unsupported(case) is not None:
        return False
    look = _LOOK + _LOOK_WEIGHT * math.prod(geometry.w_shape[1:])
    before, after = second.cost(case), first.cost(case)
    return after < before and look <= _MOST_LOOK * before
