"""The registry of algorithms, and the choice among them by cost."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np

from fastconv.convolution import rank_one as _rank_one
from fastconv.convolution.base import Algorithm
from fastconv.convolution.cost.model import multiply_adds
from fastconv.convolution.depthwise import Depthwise
from fastconv.convolution.fft.algorithm import Fft
from fastconv.convolution.im2col.algorithm import Im2col
from fastconv.convolution.implicit_gemm.algorithm import Implicit
from fastconv.convolution.ops import OPS, Op
from fastconv.convolution.reference import Reference
from fastconv.convolution.separable.algorithm import Separable
from fastconv.convolution.sparse.algorithm import Sparse
from fastconv.convolution.toeplitz.algorithm import Toeplitz
from fastconv.convolution.winograd.algorithm import Winograd
from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime import blas as _blas, isa as _isa
from fastconv.runtime.plan_cache import plans

#: At equal cost 'auto' takes the earlier one. A new algorithm is a new file and a line here.
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

#: 'auto' takes no transforms below so many multiply-adds, so that small examples are exact. Of 235 random cases below
#: this limit, a transform would have made 7 faster by a fifth or more.
_FEW = 1 << 20
#: 'auto' prefers algorithms that need at most so many bytes of workspace.
_WORKSPACE_BYTES = 1 << 25

#: Of more than this what needs BLAS is taken even where it is not known to keep to the threads: it multiplies itself.
_TOO_MUCH_BYTES = 1 << 30

#: 'auto' takes a sparse gradient of pruned weights only if its expected time is less than this part of the time of a
#: dense gradient, masked afterwards.
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

    'exact' is the cheapest of those that sum every product. `density` is the share of nonzero weights. If it is
    below one, algorithms that skip zeros are candidates of 'auto', too. With `rank_one`, so are those for kernels of
    rank one.
    """
    if name in REGISTRY:
        return named(op, geometry, dtype, name)
    blas = not needs_blas(op, geometry, dtype, threads, name) or _blas.within(threads)
    found = cheapest(op, geometry, dtype, threads, name, density, blas)
    if (
        name != "exact"
        and rank_one
        and _rank_one.pays(REGISTRY["separable"], found, op, geometry, dtype, threads, density)
    ):
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
    """The choice for dense weights, with or without algorithms that need BLAS."""
    return plans.find(_cheapest, op, geometry, dtype, threads, exact, blas, _isa.current)


def _cheapest(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, exact: bool, blas: bool, _isa_in_use: int
) -> Algorithm:
    """The cheapest algorithm for dense weights; with `exact`, the cheapest of these that sums products."""
    if not (math.prod(geometry.x_shape) and math.prod(geometry.out_shape)):
        return REGISTRY["reference"]  # nothing to do, or only padding
    able = [a for a in REGISTRY.values() if not a.skips_zeros and not a.needs_rank_one]
    able = [a for a in able if (blas or not a.needs_blas) and a.unsupported(op, geometry, dtype) is None]
    if exact or multiply_adds(geometry) < _FEW:
        able = [a for a in able if a.sums_products]
    costs = {a: a.cost(op, geometry, dtype, threads) for a in able if a is not REGISTRY["reference"]}
    # An algorithm without rates is taken only if no measured one serves, but before the reference, which is always
    # slow.
    able = [a for a, cost in costs.items() if math.isfinite(cost)] or list(costs) or able
    small = [a for a in able if a.workspace_bytes(op, geometry, dtype, threads) <= _WORKSPACE_BYTES]
    found = min(small or able, key=lambda a: (costs.get(a, math.inf), not a.own_threads))
    if not blas and not small and found.workspace_bytes(op, geometry, dtype, threads) > _TOO_MUCH_BYTES:
        return _choose_dense(op, geometry, dtype, threads, exact, blas=True)
    return found


def passed_over(algorithm: Algorithm, geometry: ConvGeometry, name: str, workspace: int) -> str:
    """Why 'auto' or 'exact' does not take a supported algorithm, whatever its cost; empty if it may take it."""
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
    """The cheapest algorithm that skips zeros, or `dense` if that is cheaper.

    Pruned weights stay pruned for many calls, and comparing costs takes as long as a small product.
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
    """The cost by which 'auto' ranks: a sparse gradient of pruned weights has to be clearly cheaper than a dense
    one.
    """
    clearly = _CLEARLY if algorithm.skips_zeros and density < 1.0 and op == "backward_weights" else 1.0
    return algorithm.cost(op, geometry, dtype, threads, density) / clearly
