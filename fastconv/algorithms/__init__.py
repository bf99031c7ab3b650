"""The ordered registry of algorithms, the choice among them, and the way into them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import _blas, _isa
from fastconv._plan_cache import plans
from fastconv.algorithms import _rank
from fastconv.algorithms._borders import reading_borders
from fastconv.algorithms._density import density, worth_a_look
from fastconv.algorithms._finite import Redone
from fastconv.algorithms.base import OPS, Algorithm, Op, multiply_adds
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
        Separable(lambda *case: _choose_exact(*case)),
        Sparse(),
        Toeplitz(),
    )
}

#: 'auto' takes no transforms below so many multiply-adds: layers worked out by hand are exact. Of 235 random
#: cases below, 7 would have been a fifth faster or more by a transform.
_FEW = 1 << 20
#: 'auto' takes more workspace than this only where nothing needs less.
_WORKSPACE_BYTES = 1 << 25

#: A gradient of pruned weights by dots is taken only where it is expected in less than this part of the time of a
#: dense one that is cleared after.
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
    """`name` if it is 'auto', 'exact' or registered."""
    if not isinstance(name, str):
        raise TypeError(
            f"algorithm must be 'auto', 'exact' or a name, got {name!r}; known are {', '.join(map(repr, REGISTRY))}"
        )
    if name not in ("auto", "exact") and name not in REGISTRY:
        raise ValueError(f"algorithm is {name!r}; legal are {_LEGAL}")
    return name


_LEGAL = ", ".join(map(repr, ("auto", "exact", *REGISTRY)))


def _from_environment() -> str:
    """The algorithm of calls that name none."""
    text = os.environ.get("FASTCONV_ALGORITHM", "").strip() or "auto"
    try:
        return check_name(text)
    except ValueError:
        warnings.warn(
            f"FASTCONV_ALGORITHM is {text!r}, which is no algorithm; legal are {_LEGAL}; using 'auto'",
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
        reason = REGISTRY[name].unsupported(op, geometry, dtype)
        if reason is not None:
            raise ValueError(f"algorithm {name!r} cannot do this {op}: {reason}")
        return REGISTRY[name]
    exact = name == "exact"
    found = _choose_dense(op, geometry, dtype, threads, exact)
    if found.needs_blas and not _blas.within(threads):
        found = _choose_dense(op, geometry, dtype, threads, exact, blas=False)
    if exact:
        return found
    if density != 1.0:
        found = _choose_pruned(found, op, geometry, dtype, threads, density)
    if rank_one and _rank.pays(found, op, geometry, dtype, threads, _choose_exact, density) is not None:
        return REGISTRY["separable"]
    return found


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
    return min(small or able, key=lambda a: (costs.get(a, math.inf), not a.own_threads))


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


def _choose_exact(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Algorithm:
    return reading_borders(choose(op, geometry, dtype, threads, "exact"), op, geometry)


def _guarded(algorithm: Algorithm, name: str) -> Algorithm:
    """What runs where `algorithm` was chosen for `name`: under 'auto' no transform leaves an inf or NaN of its own."""
    return Redone(algorithm, _choose_exact) if name == "auto" and not algorithm.sums_products else algorithm


def _ready(
    chosen: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, name: str, density: float = 1.0
) -> Algorithm:
    """What runs where `chosen` was chosen for `name`: guarded, and under 'auto' with a look for kernels of rank one."""
    guarded = _guarded(chosen, name)
    if name != "auto":
        return guarded
    first = _rank.pays(chosen, op, geometry, dtype, threads, _choose_exact, density)
    if first is None:
        return guarded
    return _rank.IfRankOne(reading_borders(first, op, geometry), reading_borders(guarded, op, geometry))


def _algorithm(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, name: str, density: float = 1.0
) -> Algorithm:
    """What `name` chooses for weights of that density, ready to run."""
    chosen = choose(op, geometry, dtype, threads, name, density)
    return _ready(chosen, op, geometry, dtype, threads, name, density)


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


def _share(w: np.ndarray, geometry: ConvGeometry, name: str) -> float:
    """The share of weights that are not zero, as 'auto' chooses by it; 1 where it does not look."""
    looks = name == "auto" and worth_a_look(w.shape, math.prod(geometry.out_shape))
    return density(w) if looks else 1.0


def _turned(w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Weights as the algorithms want them: for a true convolution the kernel turned by 180 degrees."""
    return np.ascontiguousarray(np.flip(w, tuple(range(2, w.ndim)))) if geometry.flip else w


def _bound(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, kept: bool = False
) -> Callable[..., None] | None:
    """An algorithm's method for this layer, ready to be called; None where there is more to do than to call it.

    With `kept`, that of dw where weights are not zero.
    """
    return plans.find(_make_bound, op, geometry, dtype, name, threads, kept, _isa.current)


def _make_bound(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, kept: bool, _isa_in_use: int
) -> Callable[..., None] | None:
    size = math.prod(geometry.out_shape)
    if geometry.pad_mode != "zeros" or geometry.flip or not (size and math.prod(geometry.x_shape)):
        return None
    method = (_bind_kept if kept else _bind)(op, geometry, dtype, name, threads)
    # dw depends on no weights; else 'auto' looks for zeros among them.
    looks = name == "auto" and (kept or op != "backward_weights") and worth_a_look(geometry.w_shape, size)
    return _bind_looking(method, op, geometry, dtype, threads) if looks and method is not None else method


def _bind(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int) -> Callable[..., None]:
    """The chosen algorithm's method; where that depends on the threads of BLAS, a function that looks at each call."""
    exact = name == "exact"
    if name not in REGISTRY and _choose_dense(op, geometry, dtype, threads, exact).needs_blas:
        by_blas, without = (
            _ready(_choose_dense(op, geometry, dtype, threads, exact, blas), op, geometry, dtype, threads, name).bind(
                op, geometry, dtype, threads
            )
            for blas in (True, False)
        )
        return lambda *arrays: (by_blas if _blas.within(threads) else without)(*arrays)
    return _algorithm(op, geometry, dtype, threads, name).bind(op, geometry, dtype, threads)


def _bind_kept(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int) -> Callable[..., None] | None:
    """The chosen algorithm's method for dw of pruned weights; None where the threads of BLAS decide at each call."""
    if name not in REGISTRY and _choose_dense(op, geometry, dtype, threads, name == "exact").needs_blas:
        return None
    by = _guarded(choose(op, geometry, dtype, threads, name), name)
    return lambda x, dout, kept, dw: by.backward_kept_weights(x, dout, kept, geometry, dw, threads)


def _bind_looking(
    dense: Callable[..., None], op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int
) -> Callable[..., None]:
    """A function that looks for zeros in the weights: layers that have few pay for no more than the look."""
    at = 2 if op == "backward_weights" else 1

    def call(*arrays: np.ndarray) -> None:
        share = density(arrays[at])
        if share == 1.0:
            dense(*arrays)
            return
        algorithm = _algorithm(op, geometry, dtype, threads, "auto", share)
        method: Any = algorithm.backward_kept_weights if op == "backward_weights" else getattr(algorithm, op)
        method(*arrays[:-1], geometry, arrays[-1], threads)

    return call


def forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """out = x * w + b by algorithm `name`, for every geometry."""
    bound = _bound("forward", geometry, out.dtype, name, threads)
    if bound is not None:
        bound(x, w, b, out)
        return
    algorithm = _algorithm("forward", geometry, out.dtype, threads, name, _share(w, geometry, name))
    if not out.size:
        return
    if not x.size:  # images of padding alone, which no kernel has to know
        algorithm = REGISTRY["reference"]
    algorithm = reading_borders(algorithm, "forward", geometry)
    algorithm.forward(x, _turned(w, geometry), b, geometry, out, threads)


def backward_data(
    dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, name: str, threads: int
) -> None:
    """dx by algorithm `name`, for every geometry."""
    bound = _bound("backward_data", geometry, dx.dtype, name, threads)
    if bound is not None:
        bound(dout, w, dx)
        return
    algorithm = _algorithm("backward_data", geometry, dx.dtype, threads, name, _share(w, geometry, name))
    if not dx.size:
        return
    algorithm = reading_borders(algorithm, "backward_data", geometry)
    algorithm.backward_data(dout, _turned(w, geometry), geometry, dx, threads)


def transposed(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """What `backward_data` makes of x, plus b, by algorithm `name`; for padding with zeros and no flip."""
    algorithm = _algorithm("backward_data", geometry, out.dtype, threads, name, _share(w, geometry, name))
    if out.size:
        algorithm.transposed(x, w, b, geometry, out, threads)


def backward_weights(
    x: np.ndarray,
    dout: np.ndarray,
    geometry: ConvGeometry,
    dw: np.ndarray,
    name: str,
    threads: int,
    kept: np.ndarray | None = None,
) -> None:
    """dw by algorithm `name`, for every geometry; with `kept`, the weights, where these are not zero."""
    bound = _bound("backward_weights", geometry, dw.dtype, name, threads, kept is not None)
    if bound is not None:
        bound(*((x, dout, dw) if kept is None else (x, dout, kept, dw)))
        return
    share = 1.0 if kept is None else _share(kept, geometry, name)
    algorithm = _guarded(choose("backward_weights", geometry, dw.dtype, threads, name, share), name)
    if not len(x):
        dw.fill(0)
        return
    if not x.size:
        algorithm = REGISTRY["reference"]
    algorithm = reading_borders(algorithm, "backward_weights", geometry)
    total = dw if not geometry.flip else np.empty_like(dw)
    if kept is None:
        algorithm.backward_weights(x, dout, geometry, total, threads)
    else:
        algorithm.backward_kept_weights(x, dout, _turned(kept, geometry), geometry, total, threads)
    if geometry.flip:
        dw[...] = _turned(total, geometry)
