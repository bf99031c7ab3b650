"""Decides for which layers 'auto' checks whether the kernels have rank one."""

from __future__ import annotations

import math

from fastconv.convolution.cost import pricing as _pricing
from fastconv.convolution.plan import Plan

#: The time, in seconds, to find out that the first kernel does not have rank one. It is `_LOOK` for the call, plus
#: `_LOOK_WEIGHT` for each weight of the first filter.
_LOOK, _LOOK_WEIGHT = 1.0e-6, 6e-10
#: 'auto' checks the rank of the kernels only if the check takes at most this fraction of the time of the convolution.
_MOST_LOOK = 0.1


def pays(outer: Plan, plan: Plan) -> bool:
    """Return whether it pays to check the rank of the kernels on each call.

    `outer` is a plan for kernels of rank one, and `plan` is a plan for any kernels. The check pays if `outer` is
    cheaper, and if the check takes little time compared with `plan`.
    """
    geometry = plan.case.geometry
    if not math.prod(geometry.x_shape) * math.prod(geometry.out_shape):
        return False
    look = _LOOK + _LOOK_WEIGHT * math.prod(geometry.w_shape[1:])
    before, after = _pricing.cost(plan), _pricing.cost(outer)
    return after < before and look <= _MOST_LOOK * before
