"""The registry of algorithms, and the choice among them by cost.

`choose` takes an algorithm by its name, or for 'auto' and 'exact' by these steps:

1. `_find_cheapest_dense` lists the algorithms that support the case with dense weights, without transforms if the case
   is small or the name is 'exact'. It takes the cheapest of those with little workspace.
2. If BLAS might use more threads than the call, step 1 leaves out algorithms that need BLAS.
3. If the weights have many zeros, `_find_cheapest_sparse` compares that choice with algorithms that exploit sparsity.
4. If the kernels have rank one, `rank_one.pays` compares it with `separable`.

The plan cache holds the choices.
"""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

from fastconv.convolution import rank_one as _rank_one
from fastconv.convolution.base import Algorithm
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.depthwise import Depthwise
from fastconv.convolution.fft.algorithm import Fft
from fastconv.convolution.im2col.algorithm import Im2col
from fastconv.convolution.implicit_gemm.algorithm import Implicit
from fastconv.convolution.ops import OPS
from fastconv.convolution.plan import Case
from fastconv.convolution.reference import Reference
from fastconv.convolution.separable.algorithm import Separable
from fastconv.convolution.sparse.algorithm import Sparse
from fastconv.convolution.toeplitz.algorithm import Toeplitz
from fastconv.convolution.winograd.algorithm import Winograd
from fastconv.runtime import blas as _blas
from fastconv.runtime.plan_cache import plans

#: All algorithms. A new one needs a line here, and no other. At equal cost 'auto' takes the earlier one.
REGISTRY: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Reference(),
        Im2col(),
        Implicit(),
        Winograd(),
        Depthwise(),
        Fft(),
        Separable(lambda case: choose(case, "exact")),
        Sparse(),
        Toeplitz(),
    )
}

#: Below so many multiply-adds 'auto' takes no transforms, so that small examples are exact. Of 235 random cases below
#: this limit, a transform is faster by a fifth or more in 7.
_FEW = 1 << 20
#: 'auto' prefers algorithms that need at most so many bytes of workspace.
_WORKSPACE_BYTES = 1 << 25

#: If everything else needs more bytes of workspace, 'auto' takes an algorithm that needs BLAS in any case. It then
#: multiplies by fastconv's kernels if BLAS may use more threads than the call.
_TOO_MUCH_BYTES = 1 << 30

#: 'auto' takes a sparse gradient of pruned weights only if its estimated time is less than this part of that of a
#: masked dense gradient.
_CLEARLY = 0.85


def algorithms(op: str = "forward") -> tuple[str, ...]:
    """Names of the algorithms that serve an op.

    Parameters
    ----------
    op : {'forward', 'backward_data', 'backward_weights'}

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        For an unknown op.

    Notes
    -----
    All run in the threads of the call. The product of 'im2col' is NumPy's BLAS's,
    in threads of its own, where that is known to use no more of them than the
    call may, and else fastconv's; 'auto' takes 'im2col' in the first case only.

    Examples
    --------
    >>> from fastconv import algorithms
    >>> algorithms()
    ('reference', 'im2col', 'implicit', 'winograd', 'depthwise', 'fft', 'separable', 'sparse', 'toeplitz')
    """
    if op not in OPS:
        raise ValueError(f"op is {op!r}; legal are {', '.join(map(repr, OPS))}")
    return tuple(REGISTRY)


def check_name(name: Any) -> str:
    """`name`, if it is 'auto', 'exact' or registered; otherwise an error."""
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
    """The default algorithm, from the environment."""
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


def choose(case: Case, name: str = "auto", rank_one: bool = False) -> Algorithm:
    """The algorithm `name`; for 'auto' and 'exact' the cheapest that supports the case in bounded memory.

    'exact' takes no algorithm that uses transforms. 'auto' also takes algorithms that exploit sparsity if the density
    of the case is below one, and with `rank_one` those for kernels of rank one.
    """
    if name in REGISTRY:
        return named(case, name)
    blas = not needs_blas(case, name) or _blas.within(case.threads)
    found = cheapest(case, name, blas)
    separable = REGISTRY["separable"]
    return separable if name != "exact" and rank_one and _rank_one.pays(separable, found, case) else found


def named(case: Case, name: str) -> Algorithm:
    """The algorithm of that name. Raises ValueError if it cannot serve the case."""
    reason = REGISTRY[name].unsupported(case)
    if reason is not None:
        raise ValueError(f"algorithm {name!r} cannot do this {case.op}: {reason}")
    return REGISTRY[name]


def needs_blas(case: Case, name: str) -> bool:
    """Whether the choice depends on the number of threads that BLAS may use at the time of a call."""
    return _cheapest_dense(case, name == "exact").needs_blas


def cheapest(case: Case, name: str, blas: bool = True) -> Algorithm:
    """The choice of 'auto' or 'exact', with or without algorithms that need BLAS."""
    found = _cheapest_dense(case, name == "exact", blas)
    if name == "exact" or case.density == 1.0:
        return found
    # Comparing costs takes as long as a small product. Weights stay pruned for many calls, so the choice is cached.
    return plans.find(_find_cheapest_sparse, found, case)


def _cheapest_dense(case: Case, exact: bool, blas: bool = True) -> Algorithm:
    """The cheapest algorithm for dense weights, with or without algorithms that need BLAS."""
    return plans.find(_find_cheapest_dense, case.dense, exact, blas)


def _find_cheapest_dense(case: Case, exact: bool, blas: bool) -> Algorithm:
    if not (math.prod(case.geometry.x_shape) and math.prod(case.geometry.out_shape)):
        return REGISTRY["reference"]  # there is nothing to compute, or only padding
    able = [a for a in REGISTRY.values() if not a.exploits_sparsity and not a.needs_rank_one]
    able = [a for a in able if (blas or not a.needs_blas) and a.unsupported(case) is None]
    if exact or multiply_adds(case.geometry) < _FEW:
        able = [a for a in able if not a.uses_transforms]
    costs = {a: a.cost(case) for a in able if a is not REGISTRY["reference"]}
    # Measured algorithms come first, then unmeasured ones, and the reference last because it is always slow.
    able = [a for a, cost in costs.items() if math.isfinite(cost)] or list(costs) or able
    workspaces = {a: a.plan(case).workspace_bytes for a in able}
    small = [a for a, nbytes in workspaces.items() if nbytes <= _WORKSPACE_BYTES]
    found = min(small or able, key=lambda a: (costs.get(a, math.inf), not a.own_threads))
    if not blas and not small and workspaces[found] > _TOO_MUCH_BYTES:
        return _cheapest_dense(case, exact, blas=True)
    return found


def _find_cheapest_sparse(dense: Algorithm, case: Case) -> Algorithm:
    """The cheapest algorithm that exploits sparsity, or `dense` if that is cheaper."""
    if not math.prod(case.geometry.out_shape):
        return dense
    able = [a for a in REGISTRY.values() if a.exploits_sparsity and a.unsupported(case) is None]
    able = [a for a in able if a.plan(case.dense).workspace_bytes <= _WORKSPACE_BYTES]
    return min([dense, *able], key=lambda a: ranked_cost(a, case))


def ranked_cost(algorithm: Algorithm, case: Case) -> float:
    """The cost for the ranking of 'auto'. A sparse gradient of weights has to be clearly cheaper than a dense one."""
    sparse_gradient = algorithm.exploits_sparsity and case.density < 1.0 and case.op == "backward_weights"
    return algorithm.cost(case) / (_CLEARLY if sparse_gradient else 1.0)


def passed_over(algorithm: Algorithm, case: Case, name: str, workspace: int) -> str:
    """Why 'auto' or 'exact' does not take a supported algorithm, whatever its cost; empty if it may take it."""
    if name not in ("auto", "exact"):
        return ""
    if name == "exact" and algorithm.uses_transforms:
        return "not by 'exact': it does not sum products"
    if algorithm.uses_transforms and multiply_adds(case.geometry) < _FEW:
        return f"not by 'auto': below {_FEW:,} multiply-adds it takes no transforms"
    if workspace > _WORKSPACE_BYTES:
        return f"only where nothing takes at most {_WORKSPACE_BYTES:,} bytes"
    return ""
