"""Convolution of an upsampled image: the algorithms for ordinary strides compute each part of a
`FractionalGeometry`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.convolution import dispatch, wrappers
from fastconv.convolution.ops import Op
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.fractional import FractionalGeometry
from fastconv.layers.convolution.resampling import every, upsample
from fastconv.runtime import isa as _isa, memory as _memory
from fastconv.runtime.plan_cache import plans

#: Bytes of upsampled images at a time, if padding needs them.
_UPSAMPLED_BYTES = 1 << 23


def plan_for(
    op: Op, geometry: FractionalGeometry, dtype: np.dtype, name: str, threads: int, masked: bool = False
) -> Plan:
    """What computes an op of such a layer; an algorithm that cannot serve all of its parts is refused."""
    return plans.find(make_plan, op, geometry, dtype, name, threads, masked, _isa.current)


def make_plan(
    op: Op, geometry: FractionalGeometry, dtype: np.dtype, name: str, threads: int, masked: bool, isa: int
) -> Plan:
    """What `plan_for` finds; the instruction set is the one in use."""
    whole = geometry.upsampled
    case = Case(op, whole, dtype, threads, isa)
    if whole.flip:
        unflipped = geometry.derive(upsampled=whole.derive(flip=False))
        return wrappers.Flipped(case, plan_for(op, unflipped, dtype, name, threads, masked))
    if geometry.parts is not None:
        phases = []
        for part in geometry.parts:
            plan = dispatch.plan_for(op, part.geometry, dtype, name, threads, masked)
            if op == "forward":
                phases.append(wrappers.Phase(plan, part.cells, part.taps, part.out))
            elif op == "backward_data":
                phases.append(wrappers.Phase(plan, part.out, part.taps, part.cells))
            else:  # every tap belongs to one part, or reads zeros only
                phases.append(wrappers.Phase(plan, part.cells, part.out, part.taps))
        gaps = op != "forward" or geometry.covered < whole.positions
        return wrappers.Phases(case, phases, gaps, adds=op == "backward_data")

    def upsampled(part: Case) -> Plan:
        return Upsampled(part, dispatch.plan_for(op, part.geometry, dtype, name, threads, masked), geometry.up)

    each = _memory.check_bytes("the upsampled image", (1, *whole.x_shape[1:]), dtype)
    return wrappers.batched(case, max(1, _UPSAMPLED_BYTES // max(each, 1)), upsampled)


class Upsampled(wrappers.Wrapper):
    """A plan of images between whose cells there are zeros."""

    name = "upsampled"

    def __init__(self, case: Case, plan: Plan, factors: tuple[int, ...]) -> None:
        super().__init__(case, plan)
        self.factors = factors

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Of upsampled images, or of every so-many-th cell of their gradients."""
        if self.case.op != "backward_data":
            return self.plan.run(upsample(first, self.factors), second, third, result)
        spread = np.empty(self.case.geometry.x_shape, result.dtype)
        counts = self.plan.run(first, second, third, spread)
        result[...] = spread[every(self.factors)]
        return counts
