"""The registry of algorithms, and the choice among them by cost.

`choose` returns the algorithm of a given name. For 'auto' and 'exact', it chooses in these steps:

1. `_find_cheapest_dense` lists the algorithms that support the case with dense weights. If the case is small or the
   name is 'exact', it leaves out algorithms that use transforms. It takes the cheapest algorithm with a small
   workspace.
2. If BLAS might use more threads than the call, step 1 leaves out algorithms that need BLAS.
3. If the weights have many zeros, `_find_cheapest_sparse` takes an algorithm that exploits sparsity if its cost is
   lower.
4. If the kernels have rank one, `rank_one.pays` decides whether `separable` is faster.

The choices are cached in the plan cache.
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

#: All algorithms. A new algorithm needs one line here. At equal cost, 'auto' prefers algorithms with `own_threads`, and
#: then the one that is listed first.
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

#: 'auto' uses no transforms for fewer multiply-adds than this, so that small examples are exact. In 7 of 235 random
#: cases below this limit, a transform would be faster by a fifth or more.
_FEW = 1 << 20
#: 'auto' prefers algorithms whose workspace has at most this number of bytes.
_WORKSPACE_BYTES = 1 << 25

#: If the cheapest algorithm that does not need BLAS has a larger workspace, in bytes, 'auto' takes one that needs BLAS
#: even if BLAS may use more threads than the call. That algorithm then multiplies by fastconv's kernels.
_TOO_MUCH_BYTES = 1 << 30

#: 'auto' computes the gradient of pruned weights by a sparse algorithm only if its estimated time is less than this
#: fraction of the estimated time of a masked dense gradient.
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
    All algorithms use at most the threads of the call. BLAS computes the matrix
    product of 'im2col' in its own threads if BLAS is known to use no more threads
    than the call may. Otherwise, fastconv's kernels compute the product. 'auto'
    does not take 'im2col' then, unless the cheapest other algorithm needs more than
    1 GiB of workspace.

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


def choose(case: Case, name: str = "auto", rank_one: bool = False) -> Algorithm:
    """Return the algorithm `name`; for 'auto' and 'exact', the cheapest algorithm that supports the case.

    'exact' takes no algorithm that uses transforms. 'auto' also considers algorithms that exploit sparsity if the
    density of the case is below one, and `separable` if `rank_one` is true.
    """
    if name in REGISTRY:
        return named(case, name)
    blas = not needs_blas(case, name) or _blas.within(case.threads)
    found = cheapest(case, name, blas)
    separable = REGISTRY["separable"]
    return separable if name != "exact" and rank_one and _rank_one.pays(separable, found, case) else found


def named(case: Case, name: str) -> Algorithm:
    """Return the algorithm `name`. Raises ValueError if it does not support the case."""
    reason = REGISTRY[name].unsupported(case)
    if reason is not None:
        raise ValueError(f"algorithm {name!r} cannot do this {case.op}: {reason}")
    return REGISTRY[name]


def needs_blas(case: Case, name: str) -> bool:
    """Return whether the cheapest algorithm needs BLAS. The choice then depends on the threads that BLAS may use."""
    return _cheapest_dense(case, name == "exact").needs_blas


def cheapest(case: Case, name: str, blas: bool = True) -> Algorithm:
    """Return the choice of 'auto' or 'exact'. If `blas` is false, algorithms that need BLAS are left out."""
    found = _cheapest_dense(case, name == "exact", blas)
    if name == "exact" or case.density == 1.0:
        return found
    # The choice is cached because comparing costs takes as long as a small convolution, and pruned weights are used in
    # many calls.
    return plans.find(_find_cheapest_sparse, found, case)


def _cheapest_dense(case: Case, exact: bool, blas: bool = True) -> Algorithm:
    """Return the cheapest algorithm for dense weights. If `blas` is false, algorithms that need BLAS are left out."""
    return plans.find(_find_cheapest_dense, case.dense, exact, blas)


def _find_cheapest_dense(case: Case, exact: bool, blas: bool) -> Algorithm:
    if not (math.prod(case.geometry.x_shape) and math.prod(case.geometry.out_shape)):
        return REGISTRY["reference"]  # the result is empty, or the image has no cells
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
    """Return the cheapest algorithm that exploits sparsity, or `dense` if `dense` is cheaper."""
    if not math.prod(case.geometry.out_shape):
        return dense
    able = [a for a in REGISTRY.values() if a.exploits_sparsity and a.unsupported(case) is None]
    able = [a for a in able if a.plan(case.dense).workspace_bytes <= _WORKSPACE_BYTES]
    return min([dense, *able], key=lambda a: ranked_cost(a, case))


def ranked_cost(algorithm: Algorithm, case: Case) -> float:
    """Return the cost by which 'auto' ranks an algorithm.

    The cost of a sparse gradient of the weights is raised, because it must be clearly cheaper than a dense gradient.
    """
    sparse_gradient = algorithm.exploits_sparsity and case.density < 1.0 and case.op == "backward_weights"
    return algorithm.cost(case) / (_CLEARLY if sparse_gradient else 1.0)


def passed_over(algorithm: Algorithm, case: Case, name: str, workspace: int) -> str:
    """Return why 'auto' or 'exact' never takes an algorithm that supports the case; "" if there is no reason."""
    if name not in ("auto", "exact"):
        return ""
    if name == "exact" and algorithm.uses_transforms:
        return "not by 'exact': it uses transforms"
    if algorithm.uses_transforms and multiply_adds(case.geometry) < _FEW:
        return f"not by 'auto': below {_FEW:,} multiply-adds, 'auto' uses no transforms"
    if workspace > _WORKSPACE_BYTES:
        return f"only where no other algorithm takes at most {_WORKSPACE_BYTES:,} bytes"
    return ""
