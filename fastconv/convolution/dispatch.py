"""Makes the plan of a call: chooses the cheapest plan, and wraps it, for example to flip kernels or to pad images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fastconv.convolution import wrappers
from fastconv.convolution.base import Algorithm
from fastconv.convolution.choose import cheaper_for_rank_one, cheapest, check_supported, needs_blas
from fastconv.convolution.density import worth_a_look
from fastconv.convolution.plan import Case, Op, Plan
from fastconv.convolution.registry import REGISTRY
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans


def plan_for(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, masked: bool = False) -> Plan:
    """Return the plan of an op by algorithm `name`. Plans are cached.

    If `masked` is true, only nonzero weights get a gradient. Raises ValueError if the algorithm does not support the
    op.
    """
    return plans.find(make_plan, op, geometry, dtype, name, threads, masked, _isa.current)


def exact_plan(case: Case) -> Plan:
    """Return the plan of the cheapest algorithm without transforms. In backward_weights, all weights get a gradient."""
    return plan_for(case.op, case.geometry, case.dtype, "exact", case.threads)


def make_plan(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, masked: bool, isa: int) -> Plan:
    """Return a new plan, which `plan_for` caches; `isa` is the instruction set in use."""
    requested = case = Case(op, geometry, dtype, threads, isa, masked=masked)
    # 1. Algorithms compute cross-correlations, so `Flipped` flips the kernel of a true convolution.
    if geometry.flip:
        case = requested.with_geometry(geometry.derive(flip=False))

    def flipped(plan: Plan) -> Plan:
        return wrappers.Flipped(requested, plan) if geometry.flip else plan

    # 2. If the selected algorithm leaves the op to other algorithms, use 'exact' instead. If it does not support the
    # case for another reason, raise an error. An empty result needs no computation. If the image has no elements, the
    # reference computes the result.
    name = check_supported(case, name)
    cells, outputs = math.prod(geometry.x_shape), math.prod(geometry.out_shape)
    if not outputs or not (cells or op != "backward_data"):
        return wrappers.Nothing(case)
    if not cells:
        name = "reference"
    if name in REGISTRY:
        return flipped(_composed(case, REGISTRY[name], name))
    # 3. For 'auto' and 'exact', take the cheapest plan. If skipping zeros may save time, `WhereZeros` measures the
    # density of the weights on each call.
    plan = flipped(_cheapest(case, name))
    if name == "exact" or (op == "backward_weights" and not masked) or not worth_a_look(geometry.w_shape, outputs):
        return plan
    return wrappers.WhereZeros(requested, plan, lambda share: flipped(_cheapest(replace(case, density=share), name)))


def _cheapest(case: Case, name: str) -> Plan:
    """Return the cheapest plan, with the wrappers that the case needs.

    If the cheapest plan needs BLAS, `WithinBlas` checks on each call how many threads BLAS may use.
    """

    def by(blas: bool) -> Plan:
        return _for_any_rank(case, cheapest(case, name, blas), name)

    if needs_blas(case, name):
        return wrappers.WithinBlas(case, by(True), by(False))
    return by(True)


def _for_any_rank(case: Case, plan: Plan, name: str) -> Plan:
    """Return a plan of the same algorithm as `plan`, with the wrappers that the case needs.

    If it pays to check whether kernels have rank one, the wrapper `WhereRankOne` checks them on each call.
    """
    found = _composed(case, REGISTRY[plan.algorithm], name)
    outer = cheaper_for_rank_one(case, plan) if name == "auto" else None
    if outer is None:
        return found
    return wrappers.WhereRankOne(case, _composed(case, REGISTRY[outer.algorithm], name), found)


def _composed(case: Case, algorithm: Algorithm, name: str) -> Plan:
    """Return the plan of an algorithm, with the wrappers that the case needs."""

    def make(part: Case) -> Plan:
        plan = algorithm.plan(part)
        # A transform may give an inf or NaN where the sum of products is finite. So 'auto' computes images with an inf
        # or NaN again, without transforms.
        if name == "auto" and plan.uses_transforms:
            plan = wrappers.Guarded(part, plan, exact_plan)
        return wrappers.Masked(part, plan) if part.masked and not plan.masks else plan

    return wrappers.padded(case, make)


def forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """Convolve x with w by algorithm `name`, add the bias b, and write the result to `out`."""
    plan_for("forward", geometry, out.dtype, name, threads).run(x, w, b, out)


def backward_data(
    dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, name: str, threads: int
) -> None:
    """Compute dx by algorithm `name`."""
    plan_for("backward_data", geometry, dx.dtype, name, threads).run(dout, w, None, dx)


def conv_transpose_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """Compute the transposed convolution of x and w by algorithm `name`, add the bias b, and write to `out`."""
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
    """Compute dw by algorithm `name`. If `weight_mask` is given, dw is set to zero where the mask is zero."""
    plan_for("backward_weights", geometry, dw.dtype, name, threads, weight_mask is not None).run(
        x, dout, weight_mask, dw
    )
