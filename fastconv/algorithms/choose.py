"""The ordered registry of algorithms, and the choice among them by cost."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np

from fastconv import _blas, _isa
from fastconv._plan_cache import plans
from fastconv.algorithms import _rank
from fastconv.algorithms.base import Algorithm, Op, multiply_adds
from fastconv.algorithms.depthwise import Depthwise
from fastconv.algorithms.fft import Fft
from fastconv.algorithms.im2col import Im2col
from fastconv.algorithms.implicit import Implicit
from fastconv.algorithms.reference import Reference
from fastconv.algorithms.separable import Separable
from fastconv.algorithms.sparse import Sparse
from fastconv.algorithms.toeplitz import Toeplitz
from fastconv.algorithms.winograd import Winograd
from fastconv.geometry import ConvGeometry

#: At equal cost the earlier one is taken. A new algorithm is a new file and a line here.
REGISTRY: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Reference(),
        Im2col(),
        Implicit(),
        Winograd(),
        Depthwise(),
        Fft(),
        Separable(lambda op, geometry, dtype, threads: choose(op, geometry, dtype, threads, "exact")),
        Sparse(),
        Toeplitz(),
    )
}

#: 'auto' takes no transforms below so many multiply-adds: layers worked out by hand are exact. Of 235 random
#: cases below, 7 would have been a fifth faster or more by a transform.
_FEW = 1 << 20
#: 'auto' takes more workspace than this only where nothing needs less.
_WORKSPACE_BYTES = 1 << 25

#: Of more than this what needs BLAS is taken even where it is not known to keep to the threads: it multiplies itself.
_TOO_MUCH_BYTES = 1 << 30

#: A gradient of pruned weights by dots is taken only where it is expected in less than this part of the time of a
#: dense one that is cleared after.
_CLEARLY = 0.85


def check_name(name: Any) -> str:
    """`name` if it is 'auto', 'exact' or registered."""
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
    """The algorithm of calls that name none."""
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


#: What `algorithm` is where a call does not say.
DEFAULT_ALGORITHM = _from_environment()


def choose(
    op: Op,
    geometry: ConvGeometry,
    dtype: np.dtype,
    threads: int,
    name: str = "auto",
    density: float = 1.0,
    rank_one: bool = False,
) -> Algorithm:
    """The algorithm `name`, or for 'auto' the cheapest that supports the case in bounded memory.

    'exact' is the cheapest of those that sum every product. `density` is the share of the weights that are not zero;
    below one, those that skip zeros are candidates of 'auto', too; with `rank_one` those for kernels of rank one.
    """
    if name in REGISTRY:
        return named(op, geometry, dtype, name)
    blas = not needs_blas(op, geometry, dtype, threads, name) or _blas.within(threads)
    found = cheapest(op, geometry, dtype, threads, name, density, blas)
    if name != "exact" and rank_one and _rank.pays(REGISTRY["separable"], found, op, geometry, dtype, threads, density):
        return REGISTRY["separable"]
    return found


def named(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str) -> Algorithm:
    """The algorithm of that name, refused if it cannot serve the case."""
    reason = REGISTRY[name].unsupported(op, geometry, dtype)
    if reason is not None:
        raise ValueError(f"algorithm {name!r} cannot do this {op}: {reason}")
    return REGISTRY[name]


def needs_blas(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, name: str) -> bool:
    """Whether the choice depends on how many threads BLAS may use at the time of a call."""
    return _choose_dense(op, geometry, dtype, threads, name == "exact").needs_blas


def cheapest(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, name: str, density: float = 1.0, blas: bool = True
) -> Algorithm:
    """What 'auto' or 'exact' takes, with or without algorithms that need BLAS."""
    found = _choose_dense(op, geometry, dtype, threads, name == "exact", blas)
    if name == "exact" or density == 1.0:
        return found
    return _choose_pruned(found, op, geometry, dtype, threads, density)


def _choose_dense(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, exact: bool = False, blas: bool = True
) -> Algorithm:
    """The choice for weights that are not pruned, with or without those that need BLAS."""
    return plans.find(_cheapest, op, geometry, dtype, threads, exact, blas, _isa.current)


def _cheapest(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, exact: bool, blas: bool, _isa_in_use: int
) -> Algorithm:
    """Of those that do not look for zeros; with `exact`, of those among them that sum products."""
    if not (math.prod(geometry.x_shape) and math.prod(geometry.out_shape)):
        return REGISTRY["reference"]  # nothing to do, or padding alone
    able = [a for a in REGISTRY.values() if not a.skips_zeros and not a.needs_rank_one]
    able = [a for a in able if (blas or not a.needs_blas) and a.unsupported(op, geometry, dtype) is None]
    if exact or multiply_adds(geometry) < _FEW:
        able = [a for a in able if a.sums_products]
    costs = {a: a.cost(op, geometry, dtype, threads) for a in able if a is not REGISTRY["reference"]}
    # What was not measured is taken only where nothing else serves, and before the definition, which is slow for sure.
    able = [a for a, cost in costs.items() if math.isfinite(cost)] or list(costs) or able
    small = [a for a in able if a.workspace_bytes(op, geometry, dtype, threads) <= _WORKSPACE_BYTES]
    found = min(small or able, key=lambda a: (costs.get(a, math.inf), not a.own_threads))
    if not blas and not small and found.workspace_bytes(op, geometry, dtype, threads) > _TOO_MUCH_BYTES:
        return _choose_dense(op, geometry, dtype, threads, exact, blas=True)
    return found


def passed_over(algorithm: Algorithm, geometry: ConvGeometry, name: str, workspace: int) -> str:
    """Why 'auto' or 'exact' passes over an algorithm that serves, whatever its cost; nothing where it does not."""
    if name not in ("auto", "exact"):
        return ""
    if name == "exact" and not algorithm.sums_products:
        return "not by 'exact': it does not sum products"
    if not algorithm.sums_products and multiply_adds(geometry) < _FEW:
        return f"not by 'auto': below {_FEW:,} multiply-adds it takes no transforms"
    if workspace > _WORKSPACE_BYTES:
        return f"only where nothing takes at most {_WORKSPACE_BYTES:,} bytes"
    return ""


def _choose_pruned(
    dense: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
) -> Algorithm:
    """The cheapest of those that skip zeros, where it is cheaper than the `dense` choice.

    Weights that are pruned stay so for many calls, and to compare costs takes as long as a small product.
    """
    return plans.find(_cheapest_pruned, dense, op, geometry, dtype, threads, density, _isa.current)


def _cheapest_pruned(
    dense: Algorithm,
    op: Op,
    geometry: ConvGeometry,
    dtype: np.dtype,
    threads: int,
    density: float,
    _isa_in_use: int,
) -> Algorithm:
    if not math.prod(geometry.out_shape):
        return dense
    able = [
        a
        for a in REGISTRY.values()
        if a.skips_zeros
        and a.unsupported(op, geometry, dtype) is None
        and a.workspace_bytes(op, geometry, dtype, threads) <= _WORKSPACE_BYTES
    ]
    return min([dense, *able], key=lambda a: ranked_cost(a, op, geometry, dtype, threads, density))


def ranked_cost(
    algorithm: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float = 1.0
) -> float:
    """The cost that 'auto' ranks by: a gradient of pruned weights has to be clearly cheaper than a dense one."""
    clearly = _CLEARLY if algorithm.skips_zeros and density < 1.0 and op == "backward_weights" else 1.0
    return algorithm.cost(op, geometry, dtype, threads, density) / clearly
