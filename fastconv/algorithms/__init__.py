"""The ordered registry of algorithms, the choice among them, and the way into them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import _arrays, _blas, _isa, _padding
from fastconv.algorithms._finite import Redone
from fastconv.algorithms.base import OPS, Algorithm, Op, multiply_adds
from fastconv.algorithms.depthwise import Depthwise
from fastconv.algorithms.fft import Fft
from fastconv.algorithms.im2col import Im2col
from fastconv.algorithms.implicit import Implicit
from fastconv.algorithms.reference import Reference
from fastconv.algorithms.sparse import Sparse
from fastconv.algorithms.toeplitz import Toeplitz
from fastconv.algorithms.winograd import Winograd
from fastconv.geometry import ConvGeometry

#: At equal cost the earlier one is taken. A new algorithm is a new file and a line here.
REGISTRY: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (Reference(), Im2col(), Implicit(), Winograd(), Depthwise(), Fft(), Sparse(), Toeplitz())
}

#: 'auto' takes no transforms below so many multiply-adds: layers worked out by hand are exact. Of 235 random
#: cases below, 7 would have been a fifth faster or more by a transform.
_FEW = 1 << 20
#: 'auto' takes more workspace than this only where nothing needs less.
_WORKSPACE_BYTES = 1 << 25

#: 'auto' looks for zeros where there are so many weights, and so many multiply-adds to save.
_FEW_WEIGHTS, _MUCH = 1 << 10, 1 << 24
#: More weights that are not zero are taken for all of them.
_DENSE = 0.7
#: A gradient of pruned weights by dots is taken only where it is expected in less than this part of the time of a
#: dense one that is cleared after.
_CLEARLY = 0.85
#: Choices of a geometry for weights that are pruned; a sample has no more densities.
_MOST_CHOSEN = 1 << 10
#: Where in the weights to look for zeros, as fractions of their number: multiples of the golden ratio.
_PLACES = np.arange(1, 1025) * 0.6180339887498949 % 1
_FEW_PLACES = _PLACES[:128]

#: Extended images of mirrored, replicated or circular padding held at a time, in bytes.
_EXTENDED_BYTES = 1 << 23


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
    ('reference', 'im2col', 'implicit', 'winograd', 'depthwise', 'fft', 'sparse', 'toeplitz')
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
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, name: str = "auto", density: float = 1.0
) -> Algorithm:
    """The algorithm `name`, or for 'auto' the cheapest that supports the case in bounded memory.

    'exact' is the cheapest of those that sum every product. `density` is the share of the weights that are not zero;
    below one, those that skip zeros are candidates of 'auto', too.
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
    return found if density == 1.0 or exact else _choose_pruned(found, op, geometry, dtype, threads, density)


def _choose_dense(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, exact: bool = False, blas: bool = True
) -> Algorithm:
    """The choice for weights that are not pruned, kept with the geometry; with or without those that need BLAS."""
    chosen: dict[Any, Algorithm] = vars(geometry).setdefault("_chosen", {})
    key = op, dtype.itemsize, threads, _isa.current, exact, blas
    found = chosen.get(key)
    if found is None:
        found = chosen[key] = _cheapest(op, geometry, dtype, threads, exact, blas)
    return found


def _cheapest(op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, exact: bool, blas: bool) -> Algorithm:
    """Of those that do not look for zeros; with `exact`, of those among them that sum products."""
    if not (math.prod(geometry.x_shape) and math.prod(geometry.out_shape)):
        return REGISTRY["reference"]  # nothing to do, or padding alone
    able = [a for a in REGISTRY.values() if not a.skips_zeros and a.unsupported(op, geometry, dtype) is None]
    able = [a for a in able if (blas or not a.needs_blas) and not a.needs_rank_one]
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
    return choose(op, geometry, dtype, threads, "exact")


def _guarded(algorithm: Algorithm, name: str) -> Algorithm:
    """What runs where `algorithm` was chosen for `name`: under 'auto' no transform leaves an inf or NaN of its own."""
    return Redone(algorithm, _choose_exact) if name == "auto" and not algorithm.sums_products else algorithm


def _choose_pruned(
    dense: Algorithm, op: Op, geometry: ConvGeometry, dtype: np.dtype, threads: int, density: float
) -> Algorithm:
    """The cheapest of those that skip zeros, where it is cheaper than the `dense` choice; kept with the geometry.

    Weights that are pruned stay so for many calls, and to compare costs takes as long as a small product.
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
    clearly = _CLEARLY if op == "backward_weights" else 1.0

    def cost(algorithm: Algorithm) -> float:
        return algorithm.cost(op, geometry, dtype, threads, density) / (clearly if algorithm.skips_zeros else 1.0)

    return min([dense, *able], key=cost)


def _may_be_pruned(shape: tuple[int, ...], size: int) -> bool:
    """Whether weights of a shape, from which so many numbers are computed, are worth a look for zeros."""
    return math.prod(shape) >= _FEW_WEIGHTS and size * math.prod(shape[1:]) >= _MUCH


def _density(w: np.ndarray, size: int) -> float:
    """The share of weights that are not zero, from a sample; 1 where there are few zeros, or little to gain.

    `size` is that of what is computed from them. The places of the sample are the same in every call, and
    spread so that no pattern of zeros is likely to be theirs.
    """
    count = w.size
    if not _may_be_pruned(w.shape, size):
        return 1.0
    for places in (_FEW_PLACES, _PLACES):
        found = np.count_nonzero(w.take((places * count).astype(np.intp))) / len(places)
        if found > _DENSE:
            return 1.0
    return found


def _turned(w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Weights as the algorithms want them: for a true convolution the kernel turned by 180 degrees."""
    return np.ascontiguousarray(np.flip(w, tuple(range(2, w.ndim)))) if geometry.flip else w


def _chunks(geometry: ConvGeometry, dtype: np.dtype) -> list[slice]:
    """Runs of images whose copies, extended by what is not zeros, fit the workspace."""
    count = geometry.x_shape[0]
    each = _arrays.check_bytes("the padded image", (1, *geometry.padded.x_shape[1:]), dtype)
    step = max(1, _EXTENDED_BYTES // max(each, 1))
    return [slice(n, min(n + step, count)) for n in range(0, count, step)]


def _part(geometry: ConvGeometry, chunk: slice) -> ConvGeometry:
    """That of extended copies."""
    return geometry.for_batch(chunk.stop - chunk.start).padded


def _bound(
    op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int, kept: bool = False
) -> Callable[..., None] | None:
    """An algorithm's method for this layer, ready to be called; None where there is more to do than to call it.

    With `kept`, that of dw where weights are not zero.
    """
    bound: dict[Any, Callable[..., None] | None] = geometry.bound
    key = op, dtype.itemsize, name, threads, _isa.current, kept
    try:
        return bound[key]
    except KeyError:
        bound[key] = None
        size = math.prod(geometry.out_shape)
        plain = geometry.pad_mode == "zeros" and not geometry.flip and size and math.prod(geometry.x_shape)
        # dw depends on no weights; else 'auto' looks for zeros among them.
        looks = name == "auto" and (kept or op != "backward_weights") and _may_be_pruned(geometry.w_shape, size)
        if plain and not looks:
            bound[key] = (_bind_kept if kept else _bind)(op, geometry, dtype, name, threads)
    return bound[key]


def _bind(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int) -> Callable[..., None]:
    """The chosen algorithm's method; where that depends on the threads of BLAS, a function that looks at each call."""
    exact = name == "exact"
    if name not in REGISTRY and _choose_dense(op, geometry, dtype, threads, exact).needs_blas:
        by_blas, without = (
            _guarded(_choose_dense(op, geometry, dtype, threads, exact, blas), name).bind(op, geometry, dtype, threads)
            for blas in (True, False)
        )
        return lambda *arrays: (by_blas if _blas.within(threads) else without)(*arrays)
    return _guarded(choose(op, geometry, dtype, threads, name), name).bind(op, geometry, dtype, threads)


def _bind_kept(op: Op, geometry: ConvGeometry, dtype: np.dtype, name: str, threads: int) -> Callable[..., None] | None:
    """The chosen algorithm's method for dw of pruned weights; None where the threads of BLAS decide at each call."""
    if name not in REGISTRY and _choose_dense(op, geometry, dtype, threads, name == "exact").needs_blas:
        return None
    by = _guarded(choose(op, geometry, dtype, threads, name), name)
    return lambda x, dout, kept, dw: by.backward_kept_weights(x, dout, kept, geometry, dw, threads)


def forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """out = x * w + b by algorithm `name`, for every geometry."""
    bound = _bound("forward", geometry, out.dtype, name, threads)
    if bound is not None:
        bound(x, w, b, out)
        return
    density = _density(w, out.size) if name == "auto" else 1.0
    algorithm = _guarded(choose("forward", geometry, out.dtype, threads, name, density), name)
    if not out.size:
        return
    if not x.size:  # images of padding alone, which no kernel has to know
        algorithm = REGISTRY["reference"]
    w = _turned(w, geometry)
    if geometry.pad_mode == "zeros":  # of one piece always, and small layers feel every step
        algorithm.forward(x, w, b, geometry, out, threads)
        return
    for chunk in _chunks(geometry, x.dtype):
        part = _padding.extend(x[chunk], geometry)
        algorithm.forward(part, w, b, _part(geometry, chunk), out[chunk], threads)


def backward_data(
    dout: np.ndarray, w: np.ndarray, geometry: ConvGeometry, dx: np.ndarray, name: str, threads: int
) -> None:
    """dx by algorithm `name`, for every geometry."""
    bound = _bound("backward_data", geometry, dx.dtype, name, threads)
    if bound is not None:
        bound(dout, w, dx)
        return
    density = _density(w, dout.size) if name == "auto" else 1.0
    algorithm = _guarded(choose("backward_data", geometry, dx.dtype, threads, name, density), name)
    if not dx.size:
        return
    w = _turned(w, geometry)
    if geometry.pad_mode == "zeros":
        algorithm.backward_data(dout, w, geometry, dx, threads)
        return
    for chunk in _chunks(geometry, dx.dtype):
        part = _part(geometry, chunk)
        dpadded = np.empty(part.x_shape, dx.dtype)
        algorithm.backward_data(dout[chunk], w, part, dpadded, threads)
        _padding.fold(dpadded, geometry, dx[chunk])


def transposed(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, geometry: ConvGeometry, out: np.ndarray, name: str, threads: int
) -> None:
    """What `backward_data` makes of x, plus b, by algorithm `name`; for padding with zeros and no flip."""
    density = _density(w, x.size) if name == "auto" else 1.0
    algorithm = _guarded(choose("backward_data", geometry, out.dtype, threads, name, density), name)
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
    density = _density(kept, dout.size) if name == "auto" and kept is not None else 1.0
    algorithm = _guarded(choose("backward_weights", geometry, dw.dtype, threads, name, density), name)
    if not len(x):
        dw.fill(0)
        return
    if not x.size:
        algorithm = REGISTRY["reference"]
    total = dw if not geometry.flip else np.empty_like(dw)
    kept = None if kept is None else _turned(kept, geometry)

    def run(x: np.ndarray, dout: np.ndarray, geometry: ConvGeometry, target: np.ndarray) -> None:
        if kept is None:
            algorithm.backward_weights(x, dout, geometry, target, threads)
        else:
            algorithm.backward_kept_weights(x, dout, kept, geometry, target, threads)

    if geometry.pad_mode == "zeros":
        run(x, dout, geometry, total)
    else:
        for i, chunk in enumerate(_chunks(geometry, x.dtype)):
            target = total if i == 0 else np.empty_like(dw)
            run(_padding.extend(x[chunk], geometry), dout[chunk], _part(geometry, chunk), target)
            if i:
                with np.errstate(all="ignore"):  # inf - inf is NaN by definition
                    total += target
    if geometry.flip:
        dw[...] = _turned(total, geometry)
