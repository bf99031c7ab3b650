"""Convolution of an upsampled image, computed as several smaller convolutions of the original image.

`FractionalGeometry.parts` describes the smaller convolutions. If the padding copies cells of the upsampled image,
`parts` is None, and the upsampled image is built.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.convolution import dispatch, wrappers
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.geometry.fractional import FractionalGeometry
from fastconv.layers.convolution.resampling import every, upsample
from fastconv.runtime import isa as _isa, memory as _memory
from fastconv.runtime.plan_cache import plans

#: If upsampled images must be built, about this many bytes of them are in memory at a time.
_UPSAMPLED_BYTES = 1 << 23


def plan_for(
    op: Op, geometry: FractionalGeometry, dtype: np.dtype, name: str, threads: int, masked: bool = False
) -> Plan:
    """Return the plan of an op. Raise an error if the algorithm `name` does not support the op for this geometry."""
    return plans.find(make_plan, op, geometry, dtype, name, threads, masked, _isa.current)


def make_plan(
    op: Op, geometry: FractionalGeometry, dtype: np.dtype, name: str, threads: int, masked: bool, isa: int
) -> Plan:
    """Make the plan that `plan_for` returns. `isa` is the instruction set in use."""
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
            else:  # Each tap of dw is in one part, or reads only inserted zeros, so its gradient is 0.
                phases.append(wrappers.Phase(plan, part.cells, part.out, part.taps))
        gaps = op != "forward" or geometry.covered < whole.positions
        return wrappers.Phases(case, phases, gaps, adds=op == "backward_data")

    def upsampled(part: Case) -> Plan:
        return Upsampled(part, dispatch.plan_for(op, part.geometry, dtype, name, threads, masked), geometry.up)

    each = _memory.check_bytes("the upsampled image", (1, *whole.x_shape[1:]), dtype)
    return wrappers.batched(case, max(1, _UPSAMPLED_BYTES // max(each, 1)), upsampled)


class Upsampled(wrappers.Wrapper):
    """A plan that builds the upsampled images, and runs an inner plan on them."""

    name = "upsampled"

    def __init__(self, case: Case, plan: Plan, factors: tuple[int, ...]) -> None:
        super().__init__(case, plan)
        self.factors = factors

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Upsample the images, and run the inner plan on them. For the op `backward_data`, first run the inner plan,
        and then downsample its result.
        """
        if self.case.op != "backward_data":
            return self.plan.run(upsample(first, self.factors), second, third, result)
        spread = np.empty(self.case.geometry.x_shape, result.dtype)
        counts = self.plan.run(first, second, third, spread)
        result[...] = spread[every(self.factors)]
        return counts
