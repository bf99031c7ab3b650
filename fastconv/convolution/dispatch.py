"""From a call to its plan: chooses the algorithm of an op, and composes its plan with the wrappers that it needs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastconv.convolution import rank_one as _rank_one, wrappers
from fastconv.convolution.base import Algorithm
from fastconv.convolution.choose import REGISTRY, cheapest, named, needs_blas
from fastconv.convolution.density import worth_a_look
from fastconv.convolution.ops import Op
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans


def plan_for(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, masked: bool = False) -> Plan:
    """The plan of an op by algorithm `name`, from the plan cache.

    With `masked`, the gradient of the weights is that of nonzero weights only. Raises ValueError for an algorithm that
    cannot serve the case.
    """
    return plans.find(make_plan, op, geometry, dtype, name, threads, masked, _isa.current)


def exact_plan(case: Case, masked: bool = False) -> Plan:
    """The plan of the cheapest algorithm that uses no transforms."""
    return plan_for(case.op, case.geometry, case.dtype, "exact", case.threads, masked)


def make_plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, masked: bool, isa: int) -> Plan:
    """Make the plan that `plan_for` caches; `isa` is the instruction set in use."""
    requested = case = Case(op, geometry, dtype, threads, isa)
    # 1. Algorithms compute cross-correlations, so `Flipped` flips the kernel of a true convolution.
    if geometry.flip:
        case = requested.with_geometry(geometry.derive(flip=False))

    def flipped(plan: Plan) -> Plan:
        return wrappers.Flipped(requested, plan) if geometry.flip else plan

    # 2. An algorithm that is selected by name either supports the case or raises. No algorithm supports empty arrays:
    # an empty result needs no computation, and the reference serves images of padding only.
    algorithm = named(case, name) if name in REGISTRY else None
    cells, outputs = math.prod(geometry.x_shape), math.prod(geometry.out_shape)
    if not outputs or not (cells or op != "backward_data"):
        return wrappers.Nothing(case)
    if not cells:
        algorithm, name = REGISTRY["reference"], "reference"
    if algorithm is not None:
        return flipped(_composed(case, algorithm, name, masked))
    # 3. Otherwise take the cheapest. `WhereZeros` looks at the weights on each call, if skipping zeros may save time.
    plan = flipped(_cheapest(case, name, masked))
    if name == "exact" or (op == "backward_weights" and not masked) or not worth_a_look(geometry.w_shape, outputs):
        return plan
    return wrappers.WhereZeros(
        requested, plan, lambda share: flipped(_cheapest(replace(case, density=share), name, masked))
    )


def _cheapest(case: Case, name: str, masked: bool) -> Plan:
    """The plan of the cheapest algorithm. If it needs BLAS, `WithinBlas` checks the threads of BLAS on each call."""

    def by(blas: bool) -> Plan:
        return _composed(case, cheapest(case, name, blas), name, masked)

    if needs_blas(case, name):
        return wrappers.WithinBlas(case, by(True), by(False))
    return by(True)


def _composed(case: Case, algorithm: Algorithm, name: str, masked: bool) -> Plan:
    """The algorithm's plan in the wrappers that it needs."""
    if algorithm.delegates(case, masked):
        return exact_plan(case, masked)

    def by(chosen: Algorithm) -> Plan:
        def make(part: Case) -> Plan:
            plan = chosen.plan(part)
            # An inf or NaN of a transform may be wrong, so 'auto' computes such images again.
            if name == "auto" and chosen.uses_transforms:
                plan = wrappers.Guarded(part, plan, exact_plan)
            return wrappers.Masked(part, plan) if masked and not plan.masks else plan

        if chosen.reads_borders(case):
            return make(case)
        return wrappers.padded(case, make)

    if name == "auto" and _rank_one.pays(REGISTRY["separable"], algorithm, case):
        return wrappers.WhereRankOne(case, by(REGISTRY["separable"]), by(algorithm))
    return by(algorithm)


def forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """out = x * w + b by algorithm `name`, for any geometry."""
    plan_for("forward", geometry, out.dtype, name, threads).run(x, w, b, out)


def backward_data(
    dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, name: str, threads: int
) -> None:
    """dx by algorithm `name`, for any geometry."""
    plan_for("backward_data", geometry, dx.dtype, name, threads).run(dout, w, None, dx)


def conv_transpose_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """out = `backward_data` of x, plus b, by algorithm `name`."""
    plan_for("backward_data", geometry, out.dtype, name, threads).run(x, w, b, out)


def backward_weights(
    x: np.ndarray,
    dout: np.ndarray,
    geometry: ConvGeometry,
    dw: np.ndarray,
    name: str,
    threads: int,
    weight_mask: np.ndarray | None = None,
) -> None:
    """dw by algorithm `name`, for any geometry. With weights as `weight_mask`, dw is zero where they are zero."""
    plan_for("backward_weights", geometry, dw.dtype, name, threads, weight_mask is not None).run(
        x, dout, weight_mask, dw
    )
