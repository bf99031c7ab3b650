"""Convolution: `conv` for inference, and a forward and a backward function with a cache for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Unpack, cast

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.messages import cache_repr, count
from fastconv.checks.options import as_bool, as_cache, merge_options
from fastconv.convolution.choose import DEFAULT_ALGORITHM, check_name
from fastconv.convolution.dispatch import make_plan
from fastconv.convolution.plan import Op, Plan
from fastconv.geometry.axis import PerAxis
from fastconv.geometry.conv import CONV_DEFAULTS, ConvGeometry, GeometryOptions
from fastconv.geometry.fractional import FractionalGeometry, resolve_sampled
from fastconv.layers.caches import checked_geometry
from fastconv.layers.calls import Call, Calls, plain_options
from fastconv.layers.convolution import fractional as _fractional
from fastconv.layers.planes import channel_sums
from fastconv.runtime import isa as _isa, memory as _memory, threads as _threads
from fastconv.runtime.plan_cache import plans


class ConvOptions(GeometryOptions, total=False):
    """The options of `conv` and `conv_forward`."""

    upsample: PerAxis
    algorithm: str
    threads: int | None


_DEFAULTS: dict[str, Any] = {**CONV_DEFAULTS, "algorithm": DEFAULT_ALGORITHM, "threads": None}


class ConvCache(NamedTuple):
    """The cache of `conv_forward`: the arrays and options that `conv_backward` needs."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None
    geometry: ConvGeometry | FractionalGeometry
    algorithm: str
    threads: int | None

    def __repr__(self) -> str:
        return cache_repr(self)


def resolve_call(
    caller: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    b_shape: tuple[int, ...] | None,
    conv_param: Any,
    options: Mapping[str, Any],
) -> tuple[ConvGeometry | FractionalGeometry, str, int | None]:
    """Check the shapes and options of a call. Return its geometry, its algorithm and its number of threads."""
    settings = merge_options(caller, _DEFAULTS, options, conv_param, "conv_param", ("out",) if caller == "conv" else ())
    name, threads = check_name(settings.pop("algorithm")), settings.pop("threads")
    if threads is not None:
        _threads.resolve(threads)
    geometry = resolve_sampled(x_shape, w_shape, settings)
    if b_shape is not None and b_shape != w_shape[:1]:
        raise ValueError(
            f"b has shape {b_shape}, but w {w_shape} has {count(w_shape[0], 'filter')}; "
            f"b must be ({w_shape[0]},) or None"
        )
    return geometry, name, threads


#: The default of the option `algorithm`. If a cache contains this same string object, the backward pass need not check
#: the algorithm.
_AUTO = "auto"


def _plan_forward(geometry: ConvGeometry | FractionalGeometry, dtype: np.dtype, algorithm: str, threads: int) -> Plan:
    """Return the plan of the forward pass."""
    return plan_of("forward", geometry, dtype, algorithm, threads)


def plan_of(
    op: Op,
    geometry: ConvGeometry | FractionalGeometry,
    dtype: np.dtype,
    name: str,
    threads: int,
    masked: bool = False,
) -> Plan:
    """Return the plan of an op: the forward pass, dx (`backward_data`) or dw (`backward_weights`)."""
    make: Callable[..., Plan] = make_plan if type(geometry) is ConvGeometry else _fractional.make_plan
    return plans.find(make, op, geometry, dtype, name, threads, masked, _isa.current)


def _resolve(
    dtype: np.dtype,
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    caller: str,
    conv_param: Any,
    options: Mapping[str, Any],
    out: Any = None,
    planned: bool = True,
) -> Call[ConvGeometry | FractionalGeometry]:
    """Check the arguments of a call, and return a `Call`. If `planned` is true, the call computes an output: check that
    the output fits into the free memory unless `out` is given, and make the plan of the forward pass.
    """
    b_shape = None if b is None else b.shape
    geometry, name, threads = resolve_call(caller, x.shape, w.shape, b_shape, conv_param, options)
    if planned and out is None:
        instead = "Convolve fewer images or filters at a time, or with a larger stride"
        _memory.check_array("the output", geometry.out_shape, dtype, instead)
    call = Call(geometry, name, threads, _plan_forward, dtype if planned else None)
    if out is not None:
        _arrays.check_out(out, geometry.out_shape, dtype, x=x, w=w, b=b)
    return call


_conv = Calls(("x", "w", "b"), _resolve, optional="b", hint="options are keywords, as in conv(x, w, stride=2)")
_conv_forward = Calls(("x", "w", "b"), _resolve, optional="b", hint="options are the fourth argument, after b or None")
#: The stored calls of `conv`. The function `conv` reads them directly, because a call of `Calls.find` would take time.
_conv_tables = _conv.tables


def prepare_cache(caller: str, x: Any, w: Any, b: Any, conv_param: Any, options: dict[str, Any]) -> ConvCache:
    """Check and convert the arrays. Return the cache of `conv_forward`, but compute no output."""
    key = plain_options(conv_param, options)
    call, (x, w, b), _ = _conv_forward.find((x, w, b), key, caller, conv_param, options, None, False)
    # Store views, because the caller may later change the shape of an array by assigning to `array.shape`.
    return ConvCache(x[...], w[...], b, call.geometry, call.option, call.threads)


def conv(x: Any, w: Any, b: Any = None, *, out: np.ndarray | None = None, **options: Unpack[ConvOptions]) -> np.ndarray:
    """Convolve a batch of signals, images or volumes with a bank of filters.

    Parameters
    ----------
    x : array_like, (N, C, *spatial)
        One to three spatial axes.
    w : array_like, (F, C // groups, *kernel)
        Filters.
    b : array_like, (F,), optional
        Bias.
    stride, dilation : int, or sequence or array of int, default 1
        One number for all spatial axes, or one for each. A stride may also be a
        ``fractions.Fraction``: a/b means ``upsample=b`` with ``stride=a``.
        Python reduces ``Fraction(2, 2)`` to 1, which does not upsample. Give
        `upsample` in such cases.
    upsample : int or sequence of int, default 1
        First insert ``upsample - 1`` zeros after every cell of `x`, like the
        function `upsample`. Products with these zeros are skipped. Strides must be
        ints in this case. `pad`, `pad_mode` and `strict` apply to the upsampled
        image, which is built only for a `pad_mode` other than 'zeros'.
    pad : int, sequence, or {'valid', 'same', 'same_lower', 'full'}, default 0
        The number of cells added around the input: an int, one int for each axis,
        or one ``(lo, hi)`` pair for each axis. 'same' and 'same_lower' make the
        output size ``ceil(in / stride)``. If the number of added cells is odd,
        'same' adds the odd cell at the end and 'same_lower' at the start. 'full'
        adds ``dilation * (k - 1)`` cells on both sides. The 'same' of
        `scipy.signal` is 'same_lower'.
    groups : int, default 1
        The number of groups. It divides C and F. Each group of channels has its own
        filters.
    pad_mode : {'zeros', 'reflect', 'replicate', 'circular'}
        The values of the added cells. 'reflect' does not repeat the edge, as in
        `np.pad`; `scipy.ndimage` calls it 'mirror'.
    flip : bool, default False
        False computes the cross-correlation, as all frameworks do. True computes
        the mathematical convolution, in which the kernel is flipped along each axis.
    strict : bool, default False
        Raise an error if a stride leaves a remainder, instead of rounding down.
    algorithm : str, default 'auto'
        'auto' chooses the cheapest algorithm. 'exact' chooses the cheapest algorithm
        that sums all products. Use 'exact' for data with fill values (-9999, 1e20),
        and for results that you compare digit by digit. Any other value is a name
        from `algorithms`. ``FASTCONV_ALGORITHM`` sets the default. With 'auto' and
        'exact', a result is inf or NaN exactly where the sum of its products is.
        The exception is that 'auto' may skip zero weights if `w` has many of them.
    threads : int, optional
    out : ndarray, optional
        See docs/conventions.md for both.

    Returns
    -------
    ndarray, (N, F, *out_spatial)
        See docs/conventions.md for the dtype. The size of each axis is
        ``floor((in * upsample + lo + hi - dilation * (k - 1) - 1) / stride) + 1``.

    Raises
    ------
    ValueError
        If shapes or options do not fit each other, or a stride is a Fraction
        and `upsample` is not 1. `out` is then unchanged.
    TypeError
        See docs/conventions.md.

    See Also
    --------
    conv_forward, conv_backward : with a cache, for training.
    conv_transpose : the transpose of a convolution.

    Notes
    -----
    For large kernels 'auto' chooses transforms, whose errors are relative to the
    largest number of a tile. If the numbers of a tile differ by more than the
    precision of the dtype, for example in a click with a quiet tail, the small
    numbers are lost. ``algorithm='exact'`` avoids this: see the last example.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep
    learning", arXiv:1603.07285.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import conv
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> conv(x, np.ones((1, 1, 3, 3)))[0, 0]
    array([[45., 54.],
           [81., 90.]])
    >>> conv(x, np.ones((1, 1, 3, 3)), pad='same', stride=2).shape
    (1, 1, 2, 2)
    >>> from fractions import Fraction
    >>> conv(np.array([[[1.0, 3.0, 5.0]]]), np.array([[[0.5, 1.0, 0.5]]]), pad=1, stride=Fraction(1, 2))
    array([[[1. , 2. , 3. , 4. , 5. , 2.5]]])
    >>> conv(np.array([[[1.0, 2.0, 3.0, 4.0]]]), np.ones((1, 1, 2)), upsample=2, stride=2)
    array([[[1., 2., 3., 4.]]])

    This signal is 1e6 at its first sample and 1e-3 at all others. Only the first
    output reads the large sample, so all other outputs should be 0.5005. The errors
    of ``'fft'`` are relative to the largest sample:

    >>> click = np.full((1, 1, 20_000), 1e-3, np.float32)
    >>> click[0, 0, 0] = 1e6
    >>> ramp = np.linspace(0, 1, 1001, dtype=np.float32)[None, None]
    >>> def error(algorithm):
    ...     tail = conv(click, ramp, algorithm=algorithm)[0, 0, 1:]
    ...     return np.abs(tail / 0.5005 - 1).max()
    >>> bool(error('fft') > 0.01), bool(error('exact') < 1e-5)
    (True, True)
    """
    plain = cast("dict[str, Any]", options)
    call = _conv_tables[_threads.get_threads(), _isa.current].get((x, w, b), plain)
    if call is not None and call.run is not None:
        shape = call.geometry.out_shape
        if out is None:
            result = _arrays.empty_result(shape, x.dtype, "the output")
            call.run(x, w, b, result)
            return result
        call.run(x, w, b, _arrays.check_out(out, shape, x.dtype, x=x, w=w, b=b))
        return out
    call, arrays, (x, w, b) = _conv.find((x, w, b), plain, "conv", None, plain, out)
    dtype = arrays[0].dtype
    run = call.run or call.find_plan(dtype).run
    result = _arrays.resolve_out(out, call.geometry.out_shape, dtype, "the output", x=x, w=w, b=b)
    run(*arrays, result)
    return result if out is None else out


def conv_forward(
    x: Any, w: Any, b: Any, conv_param: Mapping[str, Any] | None = None, **options: Unpack[ConvOptions]
) -> tuple[np.ndarray, ConvCache]:
    """Convolve, and return a cache for the backward pass.

    Parameters
    ----------
    x, w, b : array_like
        See `conv`. `b` may be None.
    conv_param : dict, optional
        Options by name, as in CS231n: ``{'stride': 1, 'pad': 1}``. All options of
        `conv` but `out` are accepted.
    **options
        The same options as keywords. It is an error to give an option both ways.

    Returns
    -------
    out : ndarray, (N, F, *out_spatial)
    cache : tuple
        For `conv_backward`.

    Raises
    ------
    ValueError, TypeError
        See `conv` and docs/conventions.md.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import conv_forward, conv_backward
    >>> x, w, b = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3)), np.zeros(4)
    >>> out, cache = conv_forward(x, w, b, {'stride': 1, 'pad': 1})
    >>> out.shape
    (2, 4, 8, 8)
    >>> dx, dw, db = conv_backward(np.ones_like(out), cache)
    >>> dx.shape, dw.shape, db.shape
    ((2, 3, 8, 8), (4, 3, 3, 3), (4,))
    """
    plain = cast("dict[str, Any]", options)
    key = plain_options(conv_param, plain)
    call, (x, w, b), _ = _conv_forward.find((x, w, b), key, "conv_forward", conv_param, plain)
    run = call.run or call.find_plan(x.dtype).run
    out = _arrays.empty_result(call.geometry.out_shape, x.dtype, "the output")
    run(x, w, b, out)
    return out, ConvCache(x[...], w[...], b, call.geometry, call.option, call.threads)


def conv_backward(
    dout: Any,
    cache: ConvCache,
    *,
    need_dx: bool = True,
    need_dw: bool = True,
    need_db: bool = True,
    pruned: bool = False,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of a convolution.

    Parameters
    ----------
    dout : array_like, (N, F, *out_spatial)
    cache : tuple
        From `conv_forward`.
    need_dx, need_dw, need_db : bool, default True
        Whether to compute each gradient.
    pruned : bool, default False
        If True, `dw` is zero where `w` is zero, so that training steps keep pruned
        weights zero. This takes about as long as the full `dw`, or less if nearly
        all weights are zero.

    Returns
    -------
    dx : ndarray, (N, C, *spatial), or None
    dw : ndarray, (F, C // groups, *kernel), or None
    db : ndarray, (F,), or None
        None if not needed. `db` is also None if `b` was None.

    Raises
    ------
    ValueError, TypeError
        See docs/conventions.md.

    References
    ----------
    Y. LeCun et al., "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE, 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import conv_forward, conv_backward
    >>> out, cache = conv_forward(np.ones((1, 1, 3)), np.array([[[1.0, 2.0]]]), None)
    >>> conv_backward(np.ones((1, 1, 2)), cache)
    (array([[[1., 3., 2.]]]), array([[[2., 2.]]]), None)
    """
    x, w, b, geometry, name, threads = as_cache(cache, "conv_forward", ConvCache)
    if type(geometry) is not ConvGeometry:
        checked_geometry("conv_forward", geometry, FractionalGeometry, ConvGeometry)
    if name is not _AUTO:
        check_name(name)
    _arrays.check_cached("conv_forward", ("x", "w"), (x, w), (geometry.x_shape, geometry.w_shape))
    need_dx, need_dw, need_db = as_bool("need_dx", need_dx), as_bool("need_dw", need_dw), as_bool("need_db", need_db)
    weight_mask = w if as_bool("pruned", pruned) else None
    dtype = x.dtype
    workers = _threads.resolve(threads)
    # Make both plans before any computation, because making a plan raises an error if the algorithm does not support
    # the convolution.
    dx_plan = plan_of("backward_data", geometry, dtype, name, workers) if need_dx else None
    masked = weight_mask is not None
    dw_plan = plan_of("backward_weights", geometry, dtype, name, workers, masked) if need_dw else None
    dout = _arrays.cast_gradient("dout", dout, geometry.out_shape, dtype, workers)
    dx = dw = db = None
    if dx_plan is not None:
        dx = _arrays.empty_result(geometry.x_shape, dtype, "dx")
        dx_plan.run(dout, w, None, dx)
    if dw_plan is not None:
        dw = _memory.empty(geometry.w_shape, dtype)
        dw_plan.run(x, dout, weight_mask, dw)
    if need_db and b is not None:
        db = channel_sums(dout, workers)
    return dx, dw, db
