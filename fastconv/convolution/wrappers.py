"""Plans around plans, which add to every algorithm what no algorithm implements itself.

=================  ====================================================================================
`Flipped`          true convolution: kernels are flipped, and their gradients flipped back
`Batched`          runs some images at a time, and adds up their gradients of weights
`Padded`           padding other than zeros for algorithms that support zeros only: images are padded first
`SpaceToBatch`     a dilated convolution as an undilated one of every d-th row and column
`Phases`           the phases of a strided result, each with its own plan
`Masked`           gradients of pruned weights, cleared where the weights are zero
`Guarded`          a transform, and sums of products for images whose results are not finite
`WhereZeros`       counts zero weights on each call, and runs another plan if there are many
`WhereRankOne`     checks the kernels on each call, and runs outer products one axis after the other
`WithinBlas`       runs a plan that needs BLAS only if BLAS uses no more threads than the call may
`Nothing`          empty results, and results that are zero
=================  ====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastconv.convolution.base import add_bias, clear_where_zero
from fastconv.convolution.density import density
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.separable.factors import is_rank_one
from fastconv.convolution.space_to_batch import SpaceToBatchGeometry
from fastconv.lowering import padding as _padding
from fastconv.runtime import blas as _blas, memory as _memory

#: Makes the plan of a case.
Make = Callable[[Case], Plan]

#: Bytes of padded copies of images at a time.
_EXTENDED_BYTES = 1 << 23


class Wrapper(Plan):
    """A plan around another one; its work is that of the inner plan."""

    name = ""

    def __init__(self, case: Case, plan: Plan) -> None:
        super().__init__(case)
        self.plan = plan
        self.uses_transforms, self.masks = plan.uses_transforms, plan.masks

    def __str__(self) -> str:
        return f"{self.name}({self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """That of the inner plan."""
        return self.plan.workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """That of the inner plan."""
        return self.plan.work


class Nothing(Plan):
    """For empty results, and for gradients of the weights of no image, which are zero."""

    masks = True
    workspace_bytes, work = 0, {}

    def __str__(self) -> str:
        return "nothing"

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Zeros, if any."""
        result.fill(0)


class Flipped(Wrapper):
    """A plan of cross-correlation for true convolution."""

    name = "flipped"

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """The inner plan on flipped weights; gradients of weights are flipped back."""
        if self.case.op != "backward_weights":
            return self.plan.run(first, _flip(second), third, result)
        flipped = np.empty_like(result)
        counts = self.plan.run(first, second, None if third is None else _flip(third), flipped)
        result[...] = _flip(flipped)
        return counts


def _flip(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.flip(w, tuple(range(2, w.ndim))))


class Batched(Plan):
    """Runs some images at a time, because the copies that the inner plan makes of all would take too much memory."""

    def __init__(self, case: Case, images: int, make: Make) -> None:
        super().__init__(case)
        self.images, self.count = images, case.geometry.x_shape[0]
        self.plans = {n: make(case.for_batch(n)) for n in {images, self.count % images or images}}
        first = self.plans[images]
        self.uses_transforms, self.masks = first.uses_transforms, first.masks

    def __str__(self) -> str:
        return f"batched({self.images} of {self.count} images, {self.plans[self.images]})"

    @cached_property
    def workspace_bytes(self) -> int:
        """Of one run of the inner plan; and for sums of gradients one more of them."""
        summed = self.case.op == "backward_weights"
        more = math.prod(self.case.geometry.w_shape) * self.case.dtype.itemsize if summed else 0
        return max(plan.workspace_bytes for plan in self.plans.values()) + more

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of all runs of the inner plans."""
        last = self.plans[self.count % self.images or self.images].work
        times, whole = (self.count - 1) // self.images, self.plans[self.images].work
        return {kind: times * whole.get(kind, 0.0) + amount for kind, amount in last.items()}

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """The inner plan on slices of the batch."""
        if self.case.op == "backward_weights":
            return self._sum(first, second, third, result)
        counts = None
        for images in self._slices():
            found = self.plans[images.stop - images.start].run(first[images], second, third, result[images])
            if found is not None:
                counts = np.zeros(self.count, np.intp) if counts is None else counts
                counts[images] = found
        return counts

    def _slices(self) -> Iterator[slice]:
        return (slice(n, min(n + self.images, self.count)) for n in range(0, self.count, self.images))

    def _sum(
        self, x: np.ndarray, dout: np.ndarray, weight_mask: np.ndarray | None, dw: np.ndarray
    ) -> np.ndarray | None:
        target = dw
        with np.errstate(all="ignore"):  # inf - inf is NaN by definition
            for images in self._slices():
                self.plans[images.stop - images.start].run(x[images], dout[images], weight_mask, target)
                if target is not dw:
                    dw += target
                else:
                    target = np.empty_like(dw)
        # The sum of finite gradients may overflow.
        return None if not self.uses_transforms or np.isfinite(dw).all() else np.ones(1, np.intp)


def batched(case: Case, images: int, make: Make) -> Plan:
    """The plan that `make` makes, for at most so many images at a time."""
    return make(case) if images >= case.geometry.x_shape[0] else Batched(case, images, make)


class Padded(Wrapper):
    """A plan of zero padding for a border other than zeros: images are padded first, and gradients folded back."""

    def __str__(self) -> str:
        return f"padded({self.case.geometry.pad_mode}, {self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """That of the inner plan, and the padded images."""
        geometry = self.case.geometry.padded
        return _memory.check_bytes("the padded image", geometry.x_shape, self.case.dtype) + self.plan.workspace_bytes

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """The inner plan on padded images; the gradient of each cell of a border is added to the cell of which it is
        a copy.
        """
        geometry, threads = self.case.geometry, self.case.threads
        if self.case.op != "backward_data":
            return self.plan.run(_padding.extend(first, geometry, threads), second, third, result)
        extended = _memory.empty(geometry.padded.x_shape, result.dtype)
        self.plan.run(first, second, None, extended)
        _padding.fold(extended, geometry, result, threads)
        add_bias(third, result)
        return None


def padded(case: Case, make: Make) -> Plan:
    """The plan that `make` makes for zero padding, wrapped for any border."""
    geometry = case.geometry
    if geometry.pad_mode == "zeros":
        return make(case)
    if geometry.padded.x_shape == geometry.x_shape:
        return make(case.with_geometry(geometry.padded))
    each = _memory.check_bytes("the padded image", (1, *geometry.padded.x_shape[1:]), case.dtype)

    def extended(part: Case) -> Plan:
        return Padded(part, make(part.with_geometry(part.geometry.padded)))

    return batched(case, max(1, _EXTENDED_BYTES // max(each, 1)), extended)


class SpaceToBatch(Wrapper):
    """A plan of undilated convolutions for a dilated one: every d-th row and column is an image of its own."""

    def __init__(self, case: Case, plan: Plan, batching: SpaceToBatchGeometry) -> None:
        super().__init__(case, plan)
        self.batching = batching

    def __str__(self) -> str:
        return f"space_to_batch({self.batching.parts} parts, {self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """Copies of the arrays, and what the inner plan takes."""
        geometry = self.plan.case.geometry
        copied = math.prod(geometry.x_shape) + math.prod(geometry.out_shape)
        return copied * self.case.dtype.itemsize + self.plan.workspace_bytes

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """The inner plan on copies of the parts."""
        geometry, batching = self.plan.case.geometry, self.batching
        if self.case.op == "backward_weights":
            images, gradients = (
                batching.space_to_batch(first, geometry.x_shape),
                batching.space_to_batch(second, geometry.out_shape),
            )
            return self.plan.run(images, gradients, third, result)
        forward = self.case.op == "forward"
        source, target = geometry.x_shape, geometry.out_shape
        if not forward:
            source, target = target, source
        parts = np.empty(target, result.dtype)
        found = self.plan.run(batching.space_to_batch(first, source), second, third if forward else None, parts)
        batching.batch_to_space(parts, result)
        if not forward:
            add_bias(third, result)
        return None if found is None else found.reshape(len(result), -1).sum(axis=1)


def space_to_batch(case: Case, make: Make) -> Plan:
    """The plan that `make` makes for undilated convolutions, wrapped for any dilation that `reason` does not refuse."""
    batching = SpaceToBatchGeometry.of(case.geometry)
    if batching is None:
        return make(case)

    def plan(part: Case) -> Plan:
        return SpaceToBatch(part, make(part.with_geometry(batching.part(part.geometry.x_shape[0]))), batching)

    return batched(case, batching.images, plan)


class Masked(Wrapper):
    """A gradient of all weights, for those that are not zero."""

    name = "masked"

    def __init__(self, case: Case, plan: Plan) -> None:
        super().__init__(case, plan)
        self.masks = True

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Cleared where the weights, if given, are zero."""
        counts = self.plan.run(first, second, None, result)
        if third is not None:
            clear_where_zero(third, result, self.case.threads)
        return counts


class Guarded(Wrapper):
    """A plan that uses transforms, and exact ones for the images whose results are not all finite.

    A transform adds numbers that the definition does not add. So it may overflow where the sum of products is finite,
    and it spreads an inf or NaN to outputs that do not read it. But it never hides one, because each output of a tile
    depends on every number that overflowed. So a finite result is right as it is. An image with an inf or NaN is
    computed again by the cheapest algorithm without transforms. The gradient of the weights is computed again as a
    whole, because it sums over images.
    """

    def __init__(self, case: Case, plan: Plan, exact: Make) -> None:
        super().__init__(case, plan)
        self.uses_transforms, self.masks = False, False
        self.exact = exact

    def __str__(self) -> str:
        return f"guarded({self.plan}, else {self.exact(self.case)})"

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Compute again what has an inf or NaN."""
        counts = self.plan.run(first, second, third, result)
        if counts is None:
            return
        with np.errstate(all="ignore"):  # an inf or NaN of the second plan is the right result
            if self.case.op == "backward_weights":
                self.exact(self.case).run(first, second, third, result)
                return
            for images in _runs(counts):
                again = self.exact(self.case.for_batch(images.stop - images.start))
                again.run(first[images], second, third, result[images])


def _runs(counts: np.ndarray) -> Iterator[slice]:
    """Slices of the images whose count is above 0; neighbouring images are in one slice."""
    images = np.flatnonzero(counts)
    for run in np.split(images, np.flatnonzero(np.diff(images) > 1) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


class WhereZeros(Wrapper):
    """A plan for weights with few zeros, and one for each density of other weights, made when it is first needed."""

    def __init__(self, case: Case, dense: Plan, make: Callable[[float], Plan]) -> None:
        super().__init__(case, dense)
        self._make, self._pruned = make, dict[float, Plan]()

    def __str__(self) -> str:
        return f"where_zeros(by density, else {self.plan})"

    def at(self, share: float) -> Plan:
        """The plan for weights of which a `share` is not zero; there are at most `_density.STEPS` of them."""
        found = self._pruned.get(share)
        if found is None:
            found = self._pruned[share] = self._make(share)
        return found

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """The plan for the density of these weights."""
        weights = third if self.case.op == "backward_weights" else second
        share = 1.0 if weights is None else density(weights)
        return (self.plan if share == 1.0 else self.at(share)).run(first, second, third, result)


class WhereRankOne(Wrapper):
    """A plan for kernels that are outer products, and one for any others."""

    def __init__(self, case: Case, outer: Plan, plan: Plan) -> None:
        super().__init__(case, plan)
        self.outer = outer

    def __str__(self) -> str:
        return f"where_rank_one({self.outer}, else {self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """Of the one that takes more."""
        return max(self.outer.workspace_bytes, self.plan.workspace_bytes)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """The plan for kernels of this rank."""
        plan = self.outer if is_rank_one(second, self.case.geometry) else self.plan
        return plan.run(first, second, third, result)


class WithinBlas(Wrapper):
    """A plan that needs BLAS, and one that does not, for calls in which BLAS might use more threads than they may."""

    def __init__(self, case: Case, plan: Plan, without: Plan) -> None:
        super().__init__(case, plan)
        self.without = without
        self.masks = plan.masks and without.masks

    def __str__(self) -> str:
        return f"within_blas({self.plan}, else {self.without})"

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """The plan for the current number of threads of BLAS."""
        plan = self.plan if _blas.within(self.case.threads) else self.without
        return plan.run(first, second, third, result)


class Phase(NamedTuple):
    """A plan, and the index of its arrays in those of the whole; None is the whole array.

    `times` is the number of phases that have the work of this one.
    """

    plan: Plan
    first: Any = None
    second: Any = None
    result: Any = None
    times: int = 1


class Phases(Plan):
    """Results that fall into parts, each with taps of its own: a stride of the gradient, or an upsampled image.

    `gaps` tells whether there are cells of the result that no part writes: they are bias alone. With `adds`, parts
    meet in cells of the result, and are added up. If there are many phases of few kinds, `phases` has one of each kind
    with its `times`, and iterating over `each` gives all of them, when the plan runs.
    """

    def __init__(
        self,
        case: Case,
        phases: list[Phase],
        gaps: bool,
        adds: bool = False,
        each: Iterable[Phase] | None = None,
    ) -> None:
        super().__init__(case)
        self.phases, self.gaps, self.adds = phases, gaps, adds
        self.each = phases if each is None else each
        self.masks = all(phase.plan.masks for phase in phases)

    def __str__(self) -> str:
        plans = dict.fromkeys(str(phase.plan) for phase in self.phases)
        return f"phases({sum(phase.times for phase in self.phases)}, {' or '.join(plans) or 'nothing'})"

    @cached_property
    def workspace_bytes(self) -> int:
        """Of the part that takes most."""
        return max((phase.plan.workspace_bytes for phase in self.phases), default=0)

    @cached_property
    def work(self) -> Mapping[str, float]:
        """Of all parts."""
        total = dict[str, float]()
        for phase in self.phases:
            for kind, amount in phase.plan.work.items():
                total[kind] = total.get(kind, 0.0) + phase.times * amount
        return total

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Each part, from copies of its cells and taps."""
        weights = self.case.op == "backward_weights"
        if self.gaps or self.adds:
            result.fill(0)
            if not weights:
                add_bias(third, result)
        for phase in self.each:
            target = result if phase.result is None else result[phase.result]
            into = target
            if self.adds or not target.flags.c_contiguous:
                into = np.empty(target.shape, result.dtype)
            more = None if self.adds else third
            if weights and third is not None:
                more = _part(third, phase.result)
            phase.plan.run(_part(first, phase.first), _part(second, phase.second), more, into)
            if self.adds:
                target += into
            elif into is not target:
                target[...] = into


def _part(array: np.ndarray, index: Any) -> np.ndarray:
    return array if index is None else np.ascontiguousarray(array[index])
