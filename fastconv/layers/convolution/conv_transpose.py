"""Transposed convolution. It is computed as the gradient dx of an ordinary convolution, and its own dx is computed as
the forward pass of this convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack, cast

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import cache_repr, count
from fastconv.checks.options import as_bool, as_cache, merge_options
from fastconv.convolution import wrappers
from fastconv.convolution.base import per_channel
from fastconv.convolution.choose import DEFAULT_ALGORITHM, check_name
from fastconv.convolution.dispatch import plan_for
from fastconv.convolution.plan import Case, Plan
from fastconv.geometry.transpose import TRANSPOSE_DEFAULTS, TransposeGeometry, TransposeOptions, resolve_transpose
from fastconv.layers.caches import checked_geometry
from fastconv.layers.calls import Call, Calls, plain_options
from fastconv.layers.planes import channel_sums
from fastconv.runtime import memory as _memory, threads as _threads


class ConvTransposeOptions(TransposeOptions, total=False):
    """The options of `conv_transpose` and `conv_transpose_forward`."""

    algorithm: str
    threads: int | None


_DEFAULTS: dict[str, Any] = {**TRANSPOSE_DEFAULTS, "algorithm": DEFAULT_ALGORITHM, "threads": None}


class ConvTransposeCache(NamedTuple):
    """The cache of `conv_transpose_forward`: the arrays and options that `conv_transpose_backward` needs."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None
    geometry: TransposeGeometry
    algorithm: str
    threads: int | None

    def __repr__(self) -> str:
        return cache_repr(self)


class WithUncovered(wrappers.Wrapper):
    """A plan for an output that is larger than the result of the inner plan. All cells outside this result are set to
    the bias, or to 0.
    """

    name = "with_uncovered"

    def __init__(self, case: Case, plan: Plan, core: tuple[slice, ...]) -> None:
        super().__init__(case, plan)
        self.core = core

    def run(self, first: np.ndarray, second: np.ndarray, third: np.ndarray | None, result: np.ndarray) -> Any:
        """Run the inner plan into a temporary array, and copy this array to the part `core` of the result."""
        part = np.empty(self.case.geometry.x_shape, result.dtype)
        found = self.plan.run(first, second, third, part)
        result[...] = 0 if third is None else per_channel(third, self.case.geometry)
        result[self.core] = part
        return found


def _plan_forward(geometry: TransposeGeometry, dtype: np.dtype, algorithm: str, threads: int) -> Plan:
    """Return the plan of the forward pass."""
    plan = plan_for("backward_data", geometry.conv, dtype, algorithm, threads)
    if geometry.core is None:
        return plan
    return WithUncovered(Case.of("backward_data", geometry.conv, dtype, threads), plan, geometry.core)


def _resolve(
    dtype: np.dtype,
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    caller: str,
    conv_param: Any,
    options: Mapping[str, Any],
    planned: bool = True,
) -> Call[TransposeGeometry]:
    """Check the arguments of a call, and return a `Call`. If `planned` is true, the call computes an output: check that
    the output fits into the free memory, and make the plan of the forward pass.
    """
    settings = merge_options(caller, _DEFAULTS, options, conv_param, "conv_param")
    name, threads = check_name(settings.pop("algorithm")), settings.pop("threads")
    if threads is not None:
        _threads.resolve(threads)
    geometry = resolve_transpose(x.shape, w.shape, **settings)
    if b is not None and b.shape != geometry.out_shape[1:2]:
        filters = geometry.out_shape[1]
        raise ValueError(
            f"b has shape {b.shape}, but w {w.shape} with {count(settings['groups'], 'group')} gives "
            f"{count(filters, 'output channel')}; "
            f"b must be ({filters},) or None"
        )
    if planned:
        instead = "Convolve fewer images or filters at a time, or with a smaller stride"
        _memory.check_array("the output", geometry.out_shape, dtype, instead)
    return Call(geometry, name, threads, _plan_forward, dtype if planned else None)


_conv_transpose = Calls(("x", "w", "b"), _resolve, optional="b", hint="options are keywords")
_conv_transpose_forward = Calls(
    ("x", "w", "b"), _resolve, optional="b", hint="options are the fourth argument, after b or None"
)


def prepare_cache(caller: str, x: Any, w: Any, b: Any, conv_param: Any, options: dict[str, Any]) -> ConvTransposeCache:
    """Check and convert the arrays. Return the cache of `conv_transpose_forward`, but compute no output."""
    key = plain_options(conv_param, options)
    call, (x, w, b), _ = _conv_transpose_forward.find((x, w, b), key, caller, conv_param, options, False)
    # Store views, because the caller may later change the shape of an array by assigning to `array.shape`.
    return ConvTransposeCache(x[...], w[...], b, call.geometry, call.option, call.threads)


def _run(call: Call[TransposeGeometry], arrays: Sequence[Any]) -> np.ndarray:
    dtype = arrays[0].dtype
    run = call.run or call.find_plan(dtype).run
    out = _arrays.empty_result(call.geometry.out_shape, dtype, "the output")
    run(*arrays, out)
    return out


def conv_transpose(x: Any, w: Any, b: Any = None, **options: Unpack[ConvTransposeOptions]) -> np.ndarray:
    """Compute a transposed convolution: every input cell adds a scaled kernel to the output.

    Decoders use transposed convolutions to upsample. The matrix of a transposed
    convolution is the transpose of the matrix of `conv`. So ``conv_transpose(dout, w)``
    computes the gradient dx of `conv`, if dout is the gradient of the output of `conv`.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    w : array_like, (C, F // groups, *kernel)
        The filters of a convolution from F to C channels.
    b : array_like, (F,), optional
        See `conv`.
    **options
        The options below, as keywords.
    stride : int or sequence of int, default 1
        The distance in the output between the kernels of neighbouring input cells.
    pad : int, sequence, or {'valid', 'same', 'same_lower', 'full'}, default 0
        The number of cells cropped from the full result: an int, one int for each
        axis, or one ``(lo, hi)`` pair for each axis. 'valid' crops no cells. 'full'
        crops ``dilation * (k - 1)`` cells on both sides. 'same' makes the output
        size ``in * stride``, and is the transpose of the 'same' convolution of an
        image of this size.
    output_pad : int or sequence of int, default 0
        The number of additional cells at the end of each axis, less than the larger
        of stride and dilation. A convolution with a stride has the same output size
        for several image sizes, and `output_pad` chooses one of them. It cannot be
        given with 'same', which determines the size.
    dilation : int or sequence of int, default 1
    groups : int, default 1
        The number of groups. It divides C. Each group of channels has its own filters.
    algorithm : str, default 'auto'
        'auto', 'exact', or a name from `algorithms` that supports
        'backward_data': see `conv`.
    threads : int, optional
        See `conv` and docs/conventions.md.

    Returns
    -------
    ndarray, (N, F, *out_spatial)
        The dtype is the same as for `conv`. The size of each axis is
        ``(in - 1) * stride - lo - hi + dilation * (k - 1) + output_pad + 1``.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    See Also
    --------
    conv_transpose_forward, conv_transpose_backward : with a cache, for training.

    References
    ----------
    M. Zeiler et al., "Deconvolutional networks", CVPR 2010; V. Dumoulin,
    F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import conv_transpose
    >>> x = np.array([[[1.0, 10.0]]])
    >>> conv_transpose(x, np.array([[[1.0, 2.0, 3.0]]]), stride=2)
    array([[[ 1.,  2., 13., 20., 30.]]])
    >>> conv_transpose(x, np.array([[[1.0, 2.0, 3.0]]]), stride=2, pad=1, output_pad=1)
    array([[[ 2., 13., 20., 30.]]])
    """
    plain = cast("dict[str, Any]", options)
    call, arrays, _ = _conv_transpose.find((x, w, b), plain, "conv_transpose", None, plain)
    return _run(call, arrays)


def conv_transpose_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, Any] | None = None, **options: Unpack[ConvTransposeOptions]
) -> tuple[np.ndarray, ConvTransposeCache]:
    """Compute `conv_transpose`, and return a cache for the backward pass.

    Parameters
    ----------
    x, w, b : array_like
        See `conv_transpose`. `b` may be None.
    conv_param : dict, optional
        Options by name: ``{'stride': 2, 'pad': 1}``. All options of
        `conv_transpose` are accepted.
    **options
        The same options as keywords. It is an error to give an option both ways.

    Returns
    -------
    out : ndarray, (N, F, *out_spatial)
    cache : tuple
        For `conv_transpose_backward`.

    Raises
    ------
    ValueError, TypeError
        See `conv_transpose` and docs/conventions.md.

    References
    ----------
    A. Radford, L. Metz, S. Chintala, "Unsupervised representation learning
    with deep convolutional generative adversarial networks", arXiv:1511.06434.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import conv_transpose_forward, conv_transpose_backward
    >>> x, w, b = np.ones((2, 4, 8, 8)), np.ones((4, 3, 4, 4)), np.zeros(3)
    >>> out, cache = conv_transpose_forward(x, w, b, {'stride': 2, 'pad': 1})
    >>> out.shape
    (2, 3, 16, 16)
    >>> dx, dw, db = conv_transpose_backward(np.ones_like(out), cache)
    >>> dx.shape, dw.shape, db.shape
    ((2, 4, 8, 8), (4, 3, 4, 4), (3,))
    """
    plain = cast("dict[str, Any]", options)
    settings = "conv_transpose_forward", conv_param, plain
    call, arrays, _ = _conv_transpose_forward.find((x, w, b), plain_options(conv_param, plain), *settings)
    out = _run(call, arrays)
    x, w, b = arrays
    return out, ConvTransposeCache(x[...], w[...], b, call.geometry, call.option, call.threads)


def conv_transpose_backward(
    dout: Any, cache: ConvTransposeCache, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of a transposed convolution: `dx` is the convolution of `dout`.

    Parameters
    ----------
    dout : array_like, (N, F, *out_spatial)
    cache : tuple
        From `conv_transpose_forward`.
    need_dx, need_dw, need_db : bool, default True
        See `conv_backward`.

    Returns
    -------
    dx : ndarray, (N, C, *spatial), or None
    dw : ndarray, (C, F // groups, *kernel), or None
    db : ndarray, (F,), or None
        None if not needed. `db` is also None if `b` was None.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import conv_transpose_forward, conv_transpose_backward
    >>> x, w = np.array([[[1.0, 10.0]]]), np.array([[[1.0, 2.0, 3.0]]])
    >>> out, cache = conv_transpose_forward(x, w, None, stride=2)
    >>> conv_transpose_backward(np.ones_like(out), cache)
    (array([[[6., 6.]]]), array([[[11., 11., 11.]]]), None)
    """
    x, w, b, geometry, name, threads = as_cache(cache, "conv_transpose_forward", ConvTransposeCache)
    checked_geometry("conv_transpose_forward", geometry, TransposeGeometry)
    check_name(name)
    _arrays.check_cached("conv_transpose_forward", ("x", "w"), (x, w), (geometry.x_shape, geometry.w_shape))
    need_dx, need_dw, need_db = as_bool("need_dx", need_dx), as_bool("need_dw", need_dw), as_bool("need_db", need_db)
    workers, core = _threads.resolve(threads), geometry.core
    # Make both plans before any computation, because making a plan raises an error if the algorithm does not support
    # the convolution.
    dx_plan = plan_for("forward", geometry.conv, x.dtype, name, workers) if need_dx else None
    dw_plan = plan_for("backward_weights", geometry.conv, x.dtype, name, workers) if need_dw else None
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, x.dtype, workers)
    seen = dout if core is None else np.ascontiguousarray(dout[core])
    dx = dw = db = None
    if dx_plan is not None:
        dx = _arrays.empty_result(geometry.x_shape, x.dtype, "dx")
        dx_plan.run(seen, w, None, dx)
    if dw_plan is not None:
        dw = _memory.empty(geometry.w_shape, w.dtype)
        dw_plan.run(seen, x, None, dw)
    if need_db and b is not None:
        db = channel_sums(dout, workers)
    return dx, dw, db
