"""Decides for which layers 'auto' checks whether the kernels have rank one."""

from __future__ import annotations

import math

from fastconv.convolution.base import Algorithm
from fastconv.convolution.plan import Case
from fastconv.runtime.plan_cache import plans

#: The seconds that a check takes if the first kernel does not have rank one: `_LOOK` for the call, and `_LOOK_WEIGHT`
#: for each weight of the first filter.
_LOOK, _LOOK_WEIGHT = 1.0e-6, 6e-10
#: 'auto' checks the kernels only if the check takes at most this fraction of the time of the convolution without it.
_MOST_LOOK = 0.1


def pays(first: Algorithm, second: Algorithm, case: Case) -> bool:
    """Return whether 'auto' should check if the kernels have rank one.

    It should if `first`, which needs such kernels, is faster than `second`, and the check takes little time.
    """
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
