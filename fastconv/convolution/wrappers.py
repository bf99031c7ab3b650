"""Plans that wrap other plans. They add to every algorithm what the algorithm does not implement itself.

The plan inside a wrapper is called the inner plan.

=================  ====================================================================================
`Flipped`          flips the kernels of a true convolution, and flips their gradients back
`Batched`          runs the inner plan on a few images at a time, and adds up their dw
`Padded`           pads images with other values than zeros, for algorithms that support zero padding only
`SpaceToBatch`     computes a dilated convolution as convolutions of every d-th row and column
`Phases`           computes a result in parts, for example its stride phases, each with its own plan
`Masked`           clears the gradients of weights that are zero
`Guarded`          runs a transform; if a result is not finite, sums products for this image
`WhereZeros`       counts zero weights on each call, and runs a sparse plan if there are many
`WhereRankOne`     checks on each call whether the kernels are outer products, and chooses the plan
`WithinBlas`       runs a plan that needs BLAS only if BLAS uses no more threads than the call may
`Nothing`          writes results that are empty or zero
=================  ====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastconv.convolution.base import add_bias, clear_where_zero
from fastconv.convolution.cost import pricing as _pricing
from fastconv.convolution.density import density
from fastconv.convolution.plan import Case, Plan
from fastconv.convolution.separable.factors import is_rank_one
from fastconv.convolution.space_to_batch import SpaceToBatchGeometry
from fastconv.lowering import padding as _padding
from fastconv.runtime import blas as _blas, memory as _memory

#: A function that returns the plan of a case.
Make = Callable[[Case], Plan]

#: Padded copies of at most this number of bytes exist at a time, unless one image takes more.
_EXTENDED_BYTES = 1 << 23


class Wrapper(Plan):
    """A plan that runs an inner plan. By default, it has the properties, workspace and work of the inner plan."""

    name = ""

    def __init__(self, case: Case, plan: Plan) -> None:
        super().__init__(case)
        self.plan = plan
        self.copy_properties(plan)

    def __str__(self) -> str:
        return f"{self.name}({self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """The workspace of the inner plan."""
        return self.plan.workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the inner plan."""
        return self.plan.work


class Nothing(Plan):
    """A plan for empty results, and for results that are zero because no product adds to them."""

    algorithm = "nothing"
    masks = True
    workspace_bytes, work = 0, {}

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Write zeros, if the result is not empty."""
        result.fill(0)


class Flipped(Wrapper):
    """Computes a true convolution: the inner plan computes the cross-correlation with the flipped kernel."""

    name = "flipped"

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the inner plan on flipped weights. Gradients of weights are flipped back."""
        if self.case.op != "backward_weights":
            return self.plan.run(first, _flip(second), third, result)
        flipped = np.empty_like(result)
        counts = self.plan.run(first, second, None if third is None else _flip(third), flipped)
        result[...] = _flip(flipped)
        return counts


def _flip(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.flip(w, tuple(range(2, w.ndim))))


class Batched(Plan):
    """Runs some images at a time, because the inner plan would need too much memory for copies of all images."""

    def __init__(self, case: Case, images: int, make: Make) -> None:
        super().__init__(case)
        self.images, self.count, self._make = images, case.geometry.x_shape[0], make
        self.plans = {n: make(case.for_batch(n)) for n in {images, self.count % images or images}}
        self.copy_properties(self.plans[images])

    def __str__(self) -> str:
        return f"batched({self.images} of {self.count} images, {self.plans[self.images]})"

    @cached_property
    def workspace_bytes(self) -> int:
        """The largest workspace of an inner plan and, for backward_weights, the bytes of a second dw."""
        summed = self.case.op == "backward_weights"
        more = math.prod(self.case.geometry.w_shape) * self.case.dtype.itemsize if summed else 0
        return max(plan.workspace_bytes for plan in self.plans.values()) + more

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of an inner plan for all images at once, because rates were fitted to the work of whole batches."""
        return self._make(self.case).work

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the inner plans on slices of the batch."""
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
        with np.errstate(all="ignore"):  # no warnings: inf - inf is NaN by definition
            for images in self._slices():
                self.plans[images.stop - images.start].run(x[images], dout[images], weight_mask, target)
                if target is not dw:
                    dw += target
                else:
                    target = np.empty_like(dw)
        # The sum of finite gradients may overflow, so the sum is checked.
        return None if not self.uses_transforms or np.isfinite(dw).all() else np.ones(1, np.intp)


def batched(case: Case, images: int, make: Make) -> Plan:
    """Return the plan that `make` makes, wrapped to run at most `images` images at a time."""
    return make(case) if images >= case.geometry.x_shape[0] else Batched(case, images, make)


class Padded(Wrapper):
    """Supports padding with other values than zeros: images are padded first, and the inner plan adds no padding.

    For backward_data, the gradient of a padding element is added to the gradient of the image element that it copies.
    """

    def __str__(self) -> str:
        return f"padded({self.case.geometry.pad_mode}, {self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """The workspace of the inner plan, and the bytes of the padded images."""
        geometry = self.case.geometry.padded
        return _memory.check_bytes("the padded image", geometry.x_shape, self.case.dtype) + self.plan.workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the inner plan, and of padding."""
        nbytes = math.prod(self.case.geometry.padded.x_shape) * self.case.dtype.itemsize
        return {**self.plan.work, **_pricing.border_work(nbytes, self.case.threads)}

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the inner plan on padded images. For backward_data, add the gradient of the padding to the image."""
        geometry, threads = self.case.geometry, self.case.threads
        if self.case.op != "backward_data":
            return self.plan.run(_padding.extend(first, geometry, threads), second, third, result)
        extended = _memory.empty(geometry.padded.x_shape, result.dtype)
        self.plan.run(first, second, None, extended)
        _padding.fold(extended, geometry, result, threads)
        add_bias(third, result)
        return None


def padded(case: Case, make: Make) -> Plan:
    """Return the plan that `make` makes, wrapped in `Padded` if it does not support the `pad_mode` of the case."""
    geometry, plan = case.geometry, make(case)
    if geometry.pad_mode == "zeros" or plan.reads_borders:
        return plan
    if geometry.padded.x_shape == geometry.x_shape:
        return make(case.with_geometry(geometry.padded))
    each = _memory.check_bytes("the padded image", (1, *geometry.padded.x_shape[1:]), case.dtype)

    def extended(part: Case) -> Plan:
        return Padded(part, make(part.with_geometry(part.geometry.padded)))

    return batched(case, max(1, _EXTENDED_BYTES // max(each, 1)), extended)


class SpaceToBatch(Wrapper):
    """Computes a convolution with dilation d. The elements in every d-th row and column form an image of their own. The
    inner plan convolves these images without dilation.
    """

    def __init__(self, case: Case, plan: Plan, batching: SpaceToBatchGeometry) -> None:
        super().__init__(case, plan)
        self.batching = batching

    def __str__(self) -> str:
        return f"space_to_batch({self.batching.parts} parts, {self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """The bytes of the copies of the image and the output, and the workspace of the inner plan."""
        geometry = self.plan.case.geometry
        copied = math.prod(geometry.x_shape) + math.prod(geometry.out_shape)
        return copied * self.case.dtype.itemsize + self.plan.workspace_bytes

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The work of the inner plan, and of copying the parts of all images, `batching.images` images at a time."""
        geometry, batching = self.plan.case.geometry, self.batching
        copied = (math.prod(geometry.x_shape) + math.prod(geometry.out_shape)) * self.case.dtype.itemsize
        batches = -(-self.case.geometry.x_shape[0] // batching.images)
        return _pricing.space_to_batch_work(self.plan.work, copied, batching.parts * batches)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Copy the images to parts, and run the inner plan on the parts."""
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
    """Return a plan that supports dilation. It runs the plan that `make` makes for convolutions without dilation.

    A geometry is supported if `space_to_batch.reason` returns None for it.
    """
    batching = SpaceToBatchGeometry.of(case.geometry)
    if batching is None:
        return make(case)

    def plan(part: Case) -> Plan:
        return SpaceToBatch(part, make(part.with_geometry(batching.part(part.geometry.x_shape[0]))), batching)

    return batched(case, batching.images, plan)


class Masked(Wrapper):
    """Computes the gradients of all weights by an inner plan, and sets the gradients of zero weights to zero."""

    name = "masked"

    def __init__(self, case: Case, plan: Plan) -> None:
        super().__init__(case, plan)
        self.masks = True

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the inner plan, and then set the gradient to zero where the weights, if given, are zero."""
        counts = self.plan.run(first, second, None, result)
        if third is not None:
            clear_where_zero(third, result, self.case.threads)
        return counts


class Guarded(Wrapper):
    """A plan that uses transforms such as FFT, with a second plan for images whose results are not finite.

    A transform adds numbers that the definition of convolution does not add. So it may overflow where the sum of
    products is finite, and it spreads an inf or NaN to outputs that do not read it. But it never hides an inf or NaN,
    because each output of a tile depends on every number that overflowed. So a finite result is correct.

    An image whose result has an inf or NaN is computed again by the cheapest algorithm without transforms. The gradient
    of the weights is a sum over images, so all of it is computed again.
    """

    def __init__(self, case: Case, plan: Plan, exact: Make) -> None:
        super().__init__(case, plan)
        self.uses_transforms, self.masks = False, False
        self.exact = exact

    def __str__(self) -> str:
        return f"guarded({self.plan}, else {self.exact(self.case)})"

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Run the inner plan. If the result of an image has an inf or NaN, run the second plan for this image."""
        counts = self.plan.run(first, second, third, result)
        if counts is None:
            return
        with np.errstate(all="ignore"):  # no warnings: an inf or NaN of the second plan is correct
            if self.case.op == "backward_weights":
                self.exact(self.case).run(first, second, third, result)
                return
            for images in _runs(counts):
                again = self.exact(self.case.for_batch(images.stop - images.start))
                again.run(first[images], second, third, result[images])


def _runs(counts: np.ndarray) -> Iterator[slice]:
    """Yield slices of the images whose count of infs and NaNs is above 0. Neighbouring images are in one slice."""
    images = np.flatnonzero(counts)
    for run in np.split(images, np.flatnonzero(np.diff(images) > 1) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


class WhereZeros(Wrapper):
    """Has one plan for weights with few zeros, and one plan for each lower density. A plan for a lower density is made
    when this density first occurs.
    """

    def __init__(self, case: Case, dense: Plan, make: Callable[[float], Plan]) -> None:
        super().__init__(case, dense)
        self._make, self._pruned = make, dict[float, Plan]()

    def __str__(self) -> str:
        return f"where_zeros(by density, else {self.plan})"

    def at(self, share: float) -> Plan:
        """Return the plan for weights of density `share`. There are at most `density.STEPS` such plans."""
        found = self._pruned.get(share)
        if found is None:
            found = self._pruned[share] = self._make(share)
        return found

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the plan that was made for the density of the weights."""
        weights = third if self.case.op == "backward_weights" else second
        share = 1.0 if weights is None else density(weights)
        return (self.plan if share == 1.0 else self.at(share)).run(first, second, third, result)


class WhereRankOne(Wrapper):
    """Has one plan for kernels that are outer products (rank one), and one plan for other kernels."""

    def __init__(self, case: Case, outer: Plan, plan: Plan) -> None:
        super().__init__(case, plan)
        self.outer = outer

    def __str__(self) -> str:
        return f"where_rank_one({self.outer}, else {self.plan})"

    @cached_property
    def workspace_bytes(self) -> int:
        """The larger workspace of the two plans."""
        return max(self.outer.workspace_bytes, self.plan.workspace_bytes)

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the plan for outer products if all kernels have rank one. Otherwise run the other plan."""
        plan = self.outer if is_rank_one(second, self.case.geometry) else self.plan
        return plan.run(first, second, third, result)


class WithinBlas(Wrapper):
    """Has one plan that needs BLAS, and one plan for calls in which BLAS might use more threads than the call may."""

    def __init__(self, case: Case, plan: Plan, without: Plan) -> None:
        super().__init__(case, plan)
        self.without = without
        self.masks = plan.masks and without.masks

    def __str__(self) -> str:
        return f"within_blas({self.plan}, else {self.without})"

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the plan that needs BLAS if BLAS uses at most the threads of the call. Otherwise run the other plan."""
        plan = self.plan if _blas.within(self.case.threads) else self.without
        return plan.run(first, second, third, result)


class Phase(NamedTuple):
    """The plan of a part of the result.

    `first`, `second` and `result` are indices that select the part in the arguments of `Plan.run` with these names.
    None selects the whole array. One `Phase` may stand for `times` parts with the same work.
    """

    plan: Plan
    first: Any = None
    second: Any = None
    result: Any = None
    times: int = 1


class Phases(Plan):
    """Computes a result in parts that have different taps, for example the stride phases of dx.

    If `gaps` is true, some elements of the result belong to no part, and are set to the bias. If `adds` is true, parts
    overlap, and are summed. `run` computes all parts of `each` or, if `each` is None, of `phases`. The work is counted
    from `phases`, in which one `Phase` may stand for many parts with the same work.
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
        self.algorithm = "nothing"
        if phases:
            self.copy_properties(phases[0].plan)
        self.uses_transforms = False
        self.masks = all(phase.plan.masks for phase in phases)

    def __str__(self) -> str:
        plans = dict.fromkeys(str(phase.plan) for phase in self.phases)
        return f"phases({sum(phase.times for phase in self.phases)}, {' or '.join(plans) or 'nothing'})"

    @cached_property
    def workspace_bytes(self) -> int:
        """The largest workspace of a part."""
        return max((phase.plan.workspace_bytes for phase in self.phases), default=0)

    @cached_property
    def work(self) -> Mapping[str, float]:
        """The total work of all parts."""
        total = dict[str, float]()
        for phase in self.phases:
            for kind, amount in phase.plan.work.items():
                total[kind] = total.get(kind, 0.0) + phase.times * amount
        return total

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> None:
        """Run the plan of each part on copies of its slices of the arguments."""
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
