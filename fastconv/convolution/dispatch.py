"""From a call to what computes it: the plan of an op of a layer, made once and composed of wrappers."""

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
    """What computes an op of a layer by algorithm `name`, for any geometry.

    With `masked`, the gradient of the weights is computed only where weights are nonzero. Raises ValueError for an
    algorithm that cannot serve the case.
    """
    return plans.find(make_plan, op, geometry, dtype, name, threads, masked, _isa.current)


def exact_plan(case: Case, masked: bool = False) -> Plan:
    """The same by the cheapest algorithm that sums products."""
    return plan_for(case.op, case.geometry, case.dtype, "exact", case.threads, masked)


def make_plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, masked: bool, isa: int) -> Plan:
    """What `plan_for` finds; the instruction set is the one in use."""
    whole = case = Case(op, geometry, dtype, threads, isa)
    # 1. Algorithms know no flip.
    if geometry.flip:
        case = whole.with_geometry(geometry.derive(flip=False))

    def turned(plan: Plan) -> Plan:
        return wrappers.Flipped(whole, plan) if geometry.flip else plan

    # 2. An algorithm by its name serves, or is refused. None of them knows empty arrays: there is nothing to compute,
    # or there are images of padding only.
    algorithm = named(op, case.geometry, dtype, name) if name in REGISTRY else None
    cells, outputs = math.prod(geometry.x_shape), math.prod(geometry.out_shape)
    if not outputs or not (cells or op != "backward_data"):
        return wrappers.Nothing(case)
    if not cells:
        algorithm, name = REGISTRY["reference"], "reference"
    if algorithm is not None:
        return turned(_composed(case, algorithm, name, masked))
    # 3. Else the cheapest, with a look at the weights on each call where that pays.
    plan = turned(_cheapest(case, name, masked))
    if name == "exact" or (op == "backward_weights" and not masked) or not worth_a_look(geometry.w_shape, outputs):
        return plan
    return wrappers.WhereZeros(whole, plan, lambda share: turned(_cheapest(replace(case, density=share), name, masked)))


def _cheapest(case: Case, name: str, masked: bool) -> Plan:
    """The plan of the cheapest algorithm; where that needs BLAS, with a check of BLAS's threads on each call."""

    def by(blas: bool) -> Plan:
        algorithm = cheapest(case.op, case.geometry, case.dtype, case.threads, name, case.density, blas)
        return _composed(case, algorithm, name, masked)

    if needs_blas(case.op, case.geometry, case.dtype, case.threads, name):
        return wrappers.WithinBlas(case, by(True), by(False))
    return by(True)


def _composed(case: Case, algorithm: Algorithm, name: str, masked: bool) -> Plan:
    """The algorithm's plan in the wrappers that it needs."""
    if algorithm.leaves(case.op, masked):
        return exact_plan(case, masked)

    def by(chosen: Algorithm) -> Plan:
        def make(part: Case) -> Plan:
            plan = chosen.plan(part)
            # Wrapped under 'auto' such that a transform leaves no inf or NaN of its own.
            if name == "auto" and not chosen.sums_products:
                plan = wrappers.Guarded(part, plan, exact_plan)
            return wrappers.Masked(part, plan) if masked and not plan.masks else plan

        if chosen.reads_borders(case.op, case.geometry):
            return make(case)
        return wrappers.padded(case, make)

    op, geometry, dtype, threads = case.op, case.geometry, case.dtype, case.threads
    if name == "auto" and _rank_one.pays(REGISTRY["separable"], algorithm, op, geometry, dtype, threads, case.density):
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


def transposed(
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
    kept: np.ndarray | None = None,
) -> None:
    """dw by algorithm `name`, for any geometry. `kept` may be the weights: dw is then zero where they are zero."""
    plan_for("backward_weights", geometry, dw.dtype, name, threads, kept is not None).run(x, dout, kept, dw)
