"""The cost of a plan. 'auto' and 'exact' take the plan with the lowest cost."""

from __future__ import annotations

from collections.abc import Mapping

from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.cost.model import seconds
from fastconv.convolution.plan import Plan

#: Rates, in nanoseconds per unit of work, of algorithms without measured rates. Rough rates suffice for the reference,
#: because 'auto' takes it only if no other algorithm supports the case.
_UNFITTED: Mapping[str, Mapping[str, float]] = {"reference": {"call": 1e6, "product": 2.5}}


def cost(plan: Plan) -> float:
    """Return the cost of a plan: the estimated seconds, times the correction for the sizes of the layer, times the
    penalty for BLAS threads.

    The cost is infinite if no rates were measured for the work of the plan.
    """
    # Only plans that skip zeros depend on the density of the weights.
    case = plan.case if plan.exploits_sparsity else plan.case.dense
    factor = _rates.measured().correction.factor(plan.algorithm, case)
    return penalty(plan) * factor * _estimate(plan)


def penalty(plan: Plan) -> float:
    """Return a factor on the cost, which is above 1 if the plan uses BLAS threads that may slow down later calls."""
    return 1.0 if plan.own_threads or plan.case.threads == 1 else _rates.blas_penalty()


def _estimate(plan: Plan) -> float:
    rates = _UNFITTED.get(plan.algorithm)
    if rates is None:
        return seconds(plan.algorithm, plan.case.op, plan.work)
    return 1e-9 * sum(rates.get(kind, 0.0) * amount for kind, amount in plan.work.items())


def border_work(nbytes: int, threads: int) -> dict[str, float]:
    """Return the work of padding images or, for backward_data, of adding the gradient of the padding to dx. The padded
    images take `nbytes` bytes.
    """
    return {"border": nbytes / threads, "borders": 1.0}


#: Space-to-batch splits each image into parts and copies them. This work is counted as `bytes`: `_COPY` bytes for each
#: byte of the images, and `_PART` bytes for each part.
_COPY, _PART = 4, 10_000


def space_to_batch_work(work: Mapping[str, float], nbytes: int, parts: int) -> dict[str, float]:
    """Return `work` plus the work of copying images of `nbytes` bytes to `parts` parts and back."""
    return {**work, "bytes": work.get("bytes", 0.0) + _COPY * nbytes + _PART * parts}
