"""`explain`, which compares the algorithms for a convolution. It says which algorithm is chosen, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.options import as_bool, as_number, merge_options
from fastconv.convolution import wrappers
from fastconv.convolution.base import Delegated
from fastconv.convolution.choose import (
    DEFAULT_ALGORITHM,
    check_name,
    check_supported,
    choose,
    passed_over,
    ranked_cost,
    workspace_bytes,
)
from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.density import DENSE, as_seen
from fastconv.convolution.dispatch import plan_for
from fastconv.convolution.plan import OPS, Case, Op
from fastconv.convolution.registry import REGISTRY
from fastconv.geometry.conv import CONV_DEFAULTS, ConvGeometry, conv_geometry
from fastconv.geometry.fractional import resolve_sampled
from fastconv.runtime import blas as _blas, isa as _isa, threads as _threads

_DEFAULTS: dict[str, Any] = {**CONV_DEFAULTS, "algorithm": DEFAULT_ALGORITHM, "threads": None}


def explain(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    dtype: Any = "float32",
    op: str = "forward",
    *,
    density: float = 1.0,
    rank_one: bool = False,
    **options: Any,
) -> str:
    """Describe which algorithms can compute a layer, their estimated costs, and the algorithm that is chosen.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C, *spatial)``, one to three spatial axes.
    w_shape : tuple of int
        ``(F, C // groups, *kernel)``.
    dtype : dtype, default 'float32'
        The dtype of the computation: float32, float64, or a dtype that fastconv converts to one of them.
    op : {'forward', 'backward_data', 'backward_weights'}
    density : float, default 1.0
        The share of the weights that are not zero. If it is at most 0.7 and the
        layer has 4 million multiply-adds or more, the algorithms that skip
        zeros are candidates, too, because 'auto' counts the zeros of such
        layers. For 'backward_weights'
        the report then describes `conv_backward` with ``pruned=True``.
    rank_one : bool, default False
        Whether every kernel is an outer product of one vector per axis, such as
        a box, a Gaussian or a Sobel filter. If so, 'separable' is a candidate,
        too; it applies such kernels one axis after the other.
    **options
        Options of `conv`.

    Returns
    -------
    str
        A description of the layer, and then one line for each algorithm. The
        description names the chosen algorithm and the steps around it, such as
        padding. A line has the estimated time divided by the shortest estimated
        time, and the bytes of workspace. If the algorithm cannot compute the
        layer, the line has the reason. An arrow marks the chosen algorithm, and
        the last line says why it is chosen. If it uses transforms, the last line
        also names the algorithm that recomputes images whose results are not
        finite. With `upsample` or a stride of ``Fraction(a, b)``, the
        description is of the upsampled image. The result is then made of several
        convolutions, and each of them has a table.

    Raises
    ------
    ValueError
        For shapes or options that do not fit, an unknown op, a density that is
        not in [0, 1], or a forced algorithm that cannot serve the case.
    TypeError
        For an unknown option, or one of the wrong type.

    Examples
    --------
    >>> import fastconv
    >>> print(fastconv.explain((16, 64, 56, 56), (64, 64, 3, 3), pad=1))
    2-D cross-correlation: x (16, 64, 56, 56) * w (64, 64, 3, 3) -> out (16, 64, 56, 56)
    ...
    forward in float32, ... threads, ...
    ...
       depthwise         -              -  ...
    """
    if op not in OPS:
        raise ValueError(f"op must be one of {', '.join(map(repr, OPS))}, got {op!r}")
    settings = merge_options("explain", _DEFAULTS, options)
    name, threads = check_name(settings.pop("algorithm")), _threads.resolve(settings.pop("threads"))
    geometry = conv_geometry(x_shape, w_shape, **settings)
    found = _arrays.float_dtype("dtype", dtype)
    share = as_number("density", density, 0, 1)
    outer = as_bool("rank_one", rank_one)
    sampled = resolve_sampled(tuple(x_shape), tuple(w_shape), settings)
    parts = None if isinstance(sampled, ConvGeometry) else sampled.parts
    if parts is None:
        return _explained(geometry, found, op, name, threads, share, outer)
    different: dict[ConvGeometry, int] = {}
    for part in parts:
        different[part.geometry] = different.get(part.geometry, 0) + 1
    sheets = [f"{n} of them:\n{_explained(g, found, op, name, threads, share, outer)}" for g, n in different.items()]
    count = f"{len(parts)} convolution{'' if len(parts) == 1 else 's'}"
    return "\n\n".join([f"{geometry}\n{count} of the image without inserted zeros", *sheets])


def _explained(
    geometry: ConvGeometry, found: np.dtype, op: Op, name: str, threads: int, share: float, outer: bool
) -> str:
    """Return the description of one convolution, and its table of algorithms."""
    seen = 1.0 if name == "exact" else share
    if name == "auto":
        seen = as_seen(geometry.w_shape, math.prod(geometry.out_shape), share)
    masked = op == "backward_weights" and share < 1
    case = Case.of(op, geometry, found, threads, seen, masked)
    chosen, delegated = choose(case, name, outer), check_supported(case, name) != name
    rows = [_row(algorithm, case, outer, name) for algorithm in REGISTRY]
    least = min((row.cost for row in rows if row.cost is not None), default=1.0) or 1.0
    lines = [f"   {'algorithm':<12}{'cost':>8}{'workspace':>15}"]
    for row in rows:
        arrow = "->" if row.algorithm == chosen.algorithm else "  "
        if row.cost is None:
            lines.append(f"{arrow} {row.algorithm:<12}{'-':>8}{'-':>15}  {row.note}")
        else:
            lines.append(
                f"{arrow} {row.algorithm:<12}{row.cost / least:>8.2f}{row.workspace:>15,}  {row.note}".rstrip()
            )
    how = {
        "auto": "chosen by cost, in bounded workspace",
        "exact": "the cheapest that sums all products, in bounded workspace",
    }.get("exact" if delegated else name, "as requested")
    if delegated:
        how += f", because {name} does not compute this op"
    if name == "auto" and chosen.uses_transforms:
        how += f"; images with inf or NaN are computed again by {choose(case, 'exact').algorithm}"
    plan = plan_for(op, geometry, found, name, threads, masked)
    return "\n".join(
        [
            str(geometry),
            f"{op} in {found}, {threads} threads, {_isa.NAMES[_isa.current]} kernels"
            + (f", {share:.1%} of the weights are not zero" if share < 1 else "")
            + (", kernels of rank one" if outer else ""),
            f"the plan is {plan}",
            *lines,
            f"-> {chosen.algorithm}, {how}; cost is the estimated time divided by the least one "
            f"(the time of BLAS with several threads counts {_rates.blas_penalty():g} times), workspace is in bytes",
        ]
    )


class _Row(NamedTuple):
    """A line of the table for one algorithm. If `cost` is None, `note` has the reason."""

    algorithm: str
    cost: float | None
    workspace: int
    note: str


def _row(name: str, case: Case, rank_one: bool, requested: str) -> _Row:
    """Return the line of the table for the algorithm `name`. `requested` is the value of the option `algorithm`."""
    reason = _reason(name, case, rank_one, name == requested)
    if reason is not None:
        return _Row(name, None, 0, reason)
    plan = wrappers.padded(case, REGISTRY[name].plan)
    cost, workspace = ranked_cost(plan), workspace_bytes(name, case)
    if not math.isfinite(cost):
        reason = "it was not measured on this kind of CPU, and is taken only if no other supports the layer"
        return _Row(name, None, 0, reason)
    return _Row(name, cost, workspace, passed_over(plan, requested, workspace))


def _reason(name: str, case: Case, rank_one: bool, forced: bool) -> str | None:
    """Return the reason why an algorithm is not a candidate, or None. `forced` is true if the user selected the
    algorithm by name.
    """
    reason = REGISTRY[name].unsupported(case)
    if isinstance(reason, Delegated) and forced:
        return "it does not compute this op; the cheapest algorithm that sums all products does"
    if reason is not None:
        return reason
    if not (all(case.geometry.x_shape) and all(case.geometry.out_shape)):
        return "there is nothing to compute"
    if forced:
        return None
    plan = REGISTRY[name].plan(case)
    if plan.exploits_sparsity and case.density == 1.0:
        why = f"is a candidate if 'auto' counts the zeros and finds a density of at most {DENSE}"
        return f"it skips zero weights, and {why}"
    if plan.needs_rank_one and not rank_one:
        return "it needs kernels that are outer products, and is a candidate if rank_one is True"
    if plan.needs_blas and not _blas.within(case.threads):
        count = _blas.threads()
        held = "an unknown number of" if count is None else count
        return f"it multiplies by BLAS, which uses {held} threads, and the call may use {case.threads}"
    return None
