"""Decides for which layers 'auto' checks whether the kernels have rank one."""

from __future__ import annotations

import math

from fastconv.convolution.cost import pricing as _pricing
from fastconv.convolution.plan import Plan

#: The seconds that a check of the rank takes if the first kernel does not have rank one: `_LOOK` for the call, and
#: `_LOOK_WEIGHT` for each weight of the first filter.
_LOOK, _LOOK_WEIGHT = 1.0e-6, 6e-10
#: 'auto' checks the rank of the kernels only if the check takes at most this fraction of the time of the convolution.
_MOST_LOOK = 0.1


def pays(outer: Plan, plan: Plan) -> bool:
    """Return whether each call should check the rank of the kernels. The call then runs `outer` if the rank is one,
    otherwise `plan`.

    Calls should check the rank if `outer` is cheaper than `plan`, and the check takes little time.
    """
    geometry = plan.case.geometry
    if not math.prod(geometry.x_shape) * math.prod(geometry.out_shape):
        return False
    look = _LOOK + _LOOK_WEIGHT * math.prod(geometry.w_shape[1:])
    before, after = _pricing.cost(plan), _pricing.cost(outer)
    return after < before and look <= _MOST_LOOK * before
