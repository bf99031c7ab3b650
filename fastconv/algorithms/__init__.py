"""The registry of algorithms, the choice among them, and the functions that run the chosen one."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import _blas, _isa
from fastconv.algorithms import _rank
from fastconv.algorithms._borders import reading_borders
from fastconv.algorithms._density import STEPS, density, worth_a_look
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
        Separable(lambda *case: _choose_exact(*case)),
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
#: The most choices of a geometry that are cached for pruned weights: one for each density.
_MOST_CHOSEN = STEPS


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
        raise ValueError(f"algorithm is {name!r}; legal are {_LEGAL}")
    return name


_LEGAL = ", ".join(map(repr, ("auto", "exact", *REGISTRY)))


def _from_environment() -> str:
    """The default algorithm, from the environment."""
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
    """The choice for dense weights, with or without algorithms that need BLAS. It is cached with the geometry."""
    chosen: dict[Any, Algorithm] = vars(geometry).setdefault("_chosen", {})
    key = op, dtype.itemsize, threads, _isa.current, exact, blas
    found = chosen.get(key)
    if found is None:
        found = chosen[key] = _cheapest(op, geometry, dtype, threads, exact, blas)
    return found


def _cheapest(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, exact: bool, blas: bool) -> Algorithm:
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
        return _cheapest(op, geometry, dtype, threads, exact, blas=True)
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


def _choose_exact(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> Algorithm:
    return reading_borders(choose(op, geometry, dtype, threads, "exact"), op, geometry)


def _guarded(algorithm: Algorithm, name: str) -> Algorithm:
    """`algorithm`, wrapped under 'auto' such that a transform leaves no inf or NaN of its own."""
    return Redone(algorithm, _choose_exact) if name == "auto" and not algorithm.sums_products else algorithm


def _ready(
    chosen: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, name: str, density: float = 1.0
) -> Algorithm:
    """`chosen`, ready to run: guarded, and under 'auto' with a look for kernels of rank one."""
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
    """The choice of `name` for weights of this density, ready to run."""
    chosen = choose(op, geometry, dtype, threads, name, density)
    return _ready(chosen, op, geometry, dtype, threads, name, density)


def _choose_pruned(
    dense: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
) -> Algorithm:
    """The cheapest algorithm that skips zeros, or `dense` if that is cheaper. It is cached with the geometry.

    Pruned weights stay pruned for many calls, and comparing costs takes as long as a small product.
    """
    chosen: dict[Any, Algorithm] = vars(geometry).setdefault("_chosen_pruned", {})
    key = op, dtype.itemsize, threads, _isa.current, density, dense.name
    found = chosen.get(key)
    if found is None:
        if len(chosen) >= _MOST_CHOSEN:
            chosen.clear()
        found = chosen[key] = _cheapest_pruned(dense, op, geometry, dtype, threads, density)
    return found


def _cheapest_pruned(
    dense: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
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


def _share(w: np.ndarray, geometry: ConvGeometry, name: str) -> float:
    """The share of nonzero weights by which 'auto' chooses; 1 if it does not look."""
    looks = name == "auto" and worth_a_look(w.shape, math.prod(geometry.out_shape))
    return density(w) if looks else 1.0


def _turned(w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The weights for a cross-correlation: for a true convolution, the flipped kernel."""
    return np.ascontiguousarray(np.flip(w, tuple(range(2, w.ndim)))) if geometry.flip else w


def _bound(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, kept: bool = False
) -> Callable[..., None] | None:
    """The method of the chosen algorithm for this layer, bound to its plan; None if the call needs more steps.

    With `kept`, the method for dw of pruned weights.
    """
    bound: dict[Any, Callable[..., None] | None] = geometry.bound
    key = op, dtype.itemsize, name, threads, _isa.current, kept
    try:
        return bound[key]
    except KeyError:
        bound[key] = None
        size = math.prod(geometry.out_shape)
        plain = geometry.pad_mode == "zeros" and not geometry.flip and size and math.prod(geometry.x_shape)
        if plain:
            method = bound[key] = (_bind_kept if kept else _bind)(op, geometry, dtype, name, threads)
            # 'auto' looks for zeros in the weights, on which a dense dw does not depend.
            looks = name == "auto" and (kept or op != "backward_weights") and worth_a_look(geometry.w_shape, size)
            if looks and method is not None:
                bound[key] = _bind_looking(method, op, geometry, dtype, threads)
    return bound[key]


def _bind(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int) -> Callable[..., None]:
    """The method of the chosen algorithm.

    If the choice depends on the threads of BLAS, a function that checks these on each call.
    """
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
    """The method of the chosen algorithm for dw of pruned weights; None if the threads of BLAS decide on each call."""
    if name not in REGISTRY and _choose_dense(op, geometry, dtype, threads, name == "exact").needs_blas:
        return None
    by = _guarded(choose(op, geometry, dtype, threads, name), name)
    return lambda x, dout, kept, dw: by.backward_kept_weights(x, dout, kept, geometry, dw, threads)


def _bind_looking(
    dense: Callable[..., None], op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int
) -> Callable[..., None]:
    """A function that looks for zeros in the weights on each call, and runs `dense` if there are few."""
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
    """out = x * w + b by algorithm `name`, for any geometry."""
    bound = _bound("forward", geometry, out.dtype, name, threads)
    if bound is not None:
        bound(x, w, b, out)
        return
    algorithm = _algorithm("forward", geometry, out.dtype, threads, name, _share(w, geometry, name))
    if not out.size:
        return
    if not x.size:  # images of padding only, which kernels do not support
        algorithm = REGISTRY["reference"]
    algorithm = reading_borders(algorithm, "forward", geometry)
    algorithm.forward(x, _turned(w, geometry), b, geometry, out, threads)


def backward_data(
    dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, name: str, threads: int
) -> None:
    """dx by algorithm `name`, for any geometry."""
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
    """out = `backward_data` of x, plus b, by algorithm `name`, for zero padding without flip."""
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
    """dw by algorithm `name`, for any geometry. `kept` may be the weights: dw is then zero where they are zero."""
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
