"""Chooses among the algorithms of the registry, by the estimated time of their plans.

`choose` returns the plan of the algorithm with a given name. A case is one op with its geometry, dtype and threads. For
'auto' and 'exact', `choose` takes these steps:

1. `_supported` makes the plan of each algorithm that supports the case. `cost.pricing` estimates the time of a plan.
2. `_find_cheapest_dense` takes the cheapest plan with a small workspace. It leaves out plans that skip zero weights or
   need kernels of rank one. For 'exact' and for tiny cases, it leaves out plans that use transforms such as FFT. If
   BLAS might use more threads than the call may, it leaves out plans that need BLAS.
3. If many weights are zero, `_find_cheapest_sparse` takes a plan that skips zeros if its cost is lower.
4. If the kernels have rank one, `cheaper_for_rank_one` takes a plan that needs such kernels if its cost is lower.

The plan cache keeps the plans and the choices.
"""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

from fastconv.convolution import rank_one as _rank_one, wrappers
from fastconv.convolution.base import Delegated
from fastconv.convolution.cost import pricing as _pricing
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.plan import OPS, Case, Plan
from fastconv.convolution.registry import REGISTRY
from fastconv.runtime import blas as _blas
from fastconv.runtime.plan_cache import plans

#: For fewer multiply-adds than `_FEW`, 'auto' uses no transforms such as FFT, so that small examples are exact. Below
#: `_SMALL` multiply-adds, it uses a transform only if its cost is less than `_CHEAPER` times the cost of other plans.
#: Large batches of tiny images are such cases.
_FEW, _SMALL = 1 << 17, 1 << 20
_CHEAPER = 0.75
#: 'auto' prefers algorithms with a workspace of at most this number of bytes.
_WORKSPACE_BYTES = 1 << 25

#: If BLAS may use more threads than the call, 'auto' leaves out plans that need BLAS. There is one exception: if the
#: cheapest other plan needs a workspace of more bytes than this, 'auto' takes a plan that needs BLAS. fastconv's own
#: kernels then compute the matrix products of this plan.
_TOO_MUCH_BYTES = 1 << 30

#: 'auto' may compute the gradient of pruned weights by a sparse or by a dense algorithm. It takes the sparse algorithm
#: only if its estimated time is less than this fraction of the time of the dense algorithm.
_CLEARLY = 0.85


def algorithms(op: str = "forward") -> tuple[str, ...]:
    """Return the names of the algorithms that support an op.

    Parameters
    ----------
    op : {'forward', 'backward_data', 'backward_weights'}

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        If the op is unknown.

    Notes
    -----
    No algorithm uses more threads than the call may. 'im2col' computes its matrix
    product by BLAS if BLAS is known to use at most this number of threads. If not,
    fastconv's own kernels compute the product. 'auto' then takes 'im2col' only if
    the cheapest other algorithm needs more than 1 GiB of workspace.

    Examples
    --------
    >>> from fastconv import algorithms
    >>> algorithms()
    ('reference', 'im2col', 'implicit', 'winograd', 'depthwise', ...)
    """
    if op not in OPS:
        raise ValueError(f"op is {op!r}; legal are {', '.join(map(repr, OPS))}")
    return tuple(REGISTRY)


def check_name(name: Any) -> str:
    """Return `name` if it is 'auto', 'exact' or the name of an algorithm. Raises TypeError or ValueError otherwise."""
    if not isinstance(name, str):
        raise TypeError(
            f"algorithm must be 'auto', 'exact' or a name, got {name!r}; known are {', '.join(map(repr, REGISTRY))}"
        )
    if name not in ("auto", "exact") and name not in REGISTRY:
        raise ValueError(f"algorithm is {name!r}; legal are {_legal()}")
    return name


def _legal() -> str:
    return ", ".join(map(repr, ("auto", "exact", *REGISTRY)))


def _from_environment() -> str:
    """Return the default algorithm, which the environment variable FASTCONV_ALGORITHM may set."""
    text = os.environ.get("FASTCONV_ALGORITHM", "").strip() or "auto"
    try:
        return check_name(text)
    except ValueError:
        warnings.warn(
            f"FASTCONV_ALGORITHM is {text!r}, which is no algorithm; legal are {_legal()}; using 'auto'",
            RuntimeWarning,
            stacklevel=2,
        )
    return "auto"


#: The default of the option `algorithm`.
DEFAULT_ALGORITHM = _from_environment()


def choose(case: Case, name: str = "auto", rank_one: bool = False) -> Plan:
    """Return the plan of algorithm `name`. For 'auto' and 'exact', return the cheapest plan that supports the case.

    'exact' takes no plan that uses transforms such as FFT. 'auto' considers plans that skip zero weights if the density
    of the case is below 1. It considers plans for kernels of rank one if `rank_one` is true.
    """
    name = check_supported(case, name)
    if name in REGISTRY:
        return wrappers.padded(case, REGISTRY[name].plan)
    found = cheapest(case, name, not needs_blas(case, name) or _blas.within(case.threads))
    outer = cheaper_for_rank_one(case, found) if name == "auto" and rank_one else None
    return found if outer is None else outer


def check_supported(case: Case, name: str) -> str:
    """Return `name`. If algorithm `name` leaves the op to other algorithms, return 'exact' instead.

    Raises ValueError if the algorithm does not support the case.
    """
    reason = REGISTRY[name].unsupported(case) if name in REGISTRY else None
    if isinstance(reason, Delegated):
        return "exact"
    if reason is not None:
        raise ValueError(f"algorithm {name!r} cannot do this {case.op}: {reason}")
    return name


def needs_blas(case: Case, name: str) -> bool:
    """Return whether the cheapest plan needs BLAS. If so, the choice depends on the number of threads of BLAS."""
    return _cheapest_dense(case, name == "exact").needs_blas


def cheapest(case: Case, name: str, blas: bool = True) -> Plan:
    """Return the plan that 'auto' or 'exact' takes. If `blas` is false, plans that need BLAS are left out."""
    found = _cheapest_dense(case, name == "exact", blas)
    if name == "exact" or case.density == 1.0:
        return found
    # The choice is cached because comparing costs takes as long as a small convolution, and pruned weights are used in
    # many calls.
    return plans.find(_find_cheapest_sparse, found, case)


def cheaper_for_rank_one(case: Case, plan: Plan) -> Plan | None:
    """Return the cheapest plan for kernels of rank one, or None if it does not pay to check the rank of the kernels.

    `plan` is the cheapest plan for kernels of any rank.
    """
    outer = [found for found in _supported(case) if found.needs_rank_one]
    best = min(outer, key=_pricing.cost, default=None)
    return best if best is not None and _rank_one.pays(best, plan) else None


def _supported(case: Case) -> tuple[Plan, ...]:
    """Return the plans of all algorithms that support a case, in the order of the registry."""
    return plans.find(_find_supported, case)


def _find_supported(case: Case) -> tuple[Plan, ...]:
    return tuple(wrappers.padded(case, a.plan) for a in REGISTRY.values() if a.unsupported(case) is None)


def _cheapest_dense(case: Case, exact: bool, blas: bool = True) -> Plan:
    """Return the cheapest plan for dense weights. If `blas` is false, plans that need BLAS are left out."""
    return plans.find(_find_cheapest_dense, case.dense, exact, blas)


def _find_cheapest_dense(case: Case, exact: bool, blas: bool) -> Plan:
    if not (math.prod(case.geometry.x_shape) and math.prod(case.geometry.out_shape)):
        return REGISTRY["reference"].plan(case)  # the result is empty, or the image has no elements
    able = [plan for plan in _supported(case) if not plan.exploits_sparsity and not plan.needs_rank_one]
    able = [plan for plan in able if blas or not plan.needs_blas]
    if exact or multiply_adds(case.geometry) < _FEW:
        able = [plan for plan in able if not plan.uses_transforms]
    costs = {plan: ranked_cost(plan) for plan in able if plan.algorithm != "reference"}
    # Prefer algorithms with measured rates. Without any, take an algorithm without rates. Take the reference only if no
    # other algorithm is left, because it is always slow.
    able = [plan for plan, cost in costs.items() if math.isfinite(cost)] or list(costs) or able
    workspaces = {plan: workspace_bytes(plan.algorithm, case) for plan in able}
    small = [plan for plan, nbytes in workspaces.items() if nbytes <= _WORKSPACE_BYTES]
    found = min(small or able, key=lambda plan: (costs.get(plan, math.inf), not plan.own_threads))
    if not blas and not small and workspaces[found] > _TOO_MUCH_BYTES:
        return _cheapest_dense(case, exact, blas=True)
    return found


def _find_cheapest_sparse(dense: Plan, case: Case) -> Plan:
    """Return the cheapest plan that skips zero weights, or `dense` if `dense` is cheaper."""
    if not math.prod(case.geometry.out_shape):
        return dense
    able = [plan for plan in _supported(case) if plan.exploits_sparsity]
    able = [plan for plan in able if workspace_bytes(plan.algorithm, case) <= _WORKSPACE_BYTES]
    return min([dense, *able], key=ranked_cost)


def workspace_bytes(name: str, case: Case) -> int:
    """Return the bytes of workspace that algorithm `name` needs for dense weights. The padded images that the wrapper
    `Padded` makes are not counted.
    """
    return REGISTRY[name].plan(case.dense).workspace_bytes


def ranked_cost(plan: Plan) -> float:
    """Return the cost by which 'auto' ranks a plan.

    Two costs are raised, so that 'auto' takes such plans only if they are clearly cheaper: the cost of a plan that
    computes the gradient of pruned weights, and the cost of a plan that uses transforms for a small case.
    """
    case = plan.case
    sparse_gradient = plan.exploits_sparsity and case.density < 1.0 and case.op == "backward_weights"
    small = plan.uses_transforms and _FEW <= multiply_adds(case.geometry) < _SMALL
    return _pricing.cost(plan) / (_CLEARLY if sparse_gradient else _CHEAPER if small else 1.0)


def passed_over(plan: Plan, name: str, workspace: int) -> str:
    """Return why 'auto' or 'exact' leaves out a plan that supports the case. If the plan may be taken, return an empty
    text.
    """
    if name not in ("auto", "exact"):
        return ""
    if name == "exact" and plan.uses_transforms:
        return "not by 'exact': it uses transforms"
    if plan.uses_transforms and multiply_adds(plan.case.geometry) < _FEW:
        return f"not by 'auto': below {_FEW:,} multiply-adds, 'auto' uses no transforms"
    if workspace > _WORKSPACE_BYTES:
        return f"only where every algorithm needs a workspace of more than {_WORKSPACE_BYTES:,} bytes"
    return ""
