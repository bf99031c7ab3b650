"""The kinds of layers that `summarize` supports: their arguments, and the shapes of their results.

To check the options of a layer, most functions of this module run the layer on an empty batch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv import layers
from fastconv.checks.options import as_bool, as_groups, as_int, merge_options, per_axis
from fastconv.convolution.choose import DEFAULT_ALGORITHM, check_name
from fastconv.geometry.axis import Axis
from fastconv.geometry.conv import CONV_DEFAULTS, ConvGeometry
from fastconv.geometry.fractional import resolve_sampled
from fastconv.geometry.receptive import ReceptiveField
from fastconv.geometry.transpose import TRANSPOSE_DEFAULTS, resolve_transpose
from fastconv.layers.pool import pooling
from fastconv.runtime import threads as _threads

#: Arguments for layers that are run only to check their options: two empty batches, and an array for gamma and beta.
_NO_ROWS, _NO_IMAGES, _ONE = np.empty((0, 1)), np.empty((0, 1, 1)), np.ones(1)


class Flow(NamedTuple):
    """What `summarize` passes from a layer to the next one: the shape of the output, and its receptive fields."""

    shape: tuple[int, ...]
    fields: tuple[ReceptiveField, ...]
    #: The number of positions along each spatial axis. Flattening does not change `grid`. So a fully connected layer
    #: after `flatten` has a receptive field that covers all positions.
    grid: tuple[int, ...]


class Step(NamedTuple):
    """The properties of a layer for a given input: the output shape, the costs, and the axes of its windows, if any."""

    out_shape: tuple[int, ...]
    n_params: int = 0
    flops: int = 0
    axes: Sequence[Axis] = ()
    #: Whether the layer enlarges its input, as upsampling does. The outputs of such a layer read different numbers of
    #: cells, so they have no common receptive field.
    between: bool = False


def _spatial(shape: tuple[int, ...]) -> int:
    if len(shape) < 3:
        raise ValueError(f"the layer needs an input with spatial axes, got shape {shape}")
    return len(shape) - 2


def _settings(caller: str, defaults: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Check the options `algorithm` and `threads`, and return the other options, which determine the output shape."""
    settings = merge_options(caller, {**defaults, "algorithm": DEFAULT_ALGORITHM, "threads": None}, options)
    check_name(settings.pop("algorithm"))
    _threads.resolve(settings.pop("threads"))
    return settings


def _conv(
    flow: Flow,
    filters: Any,
    kernel_size: Any,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    bias: Any = True,
    **options: Any,
) -> Step:
    shape, rank = flow.shape, _spatial(flow.shape)
    settings = _settings("conv", CONV_DEFAULTS, options) | {"stride": stride, "pad": pad, "dilation": dilation}
    group = shape[1] // as_int("groups", settings["groups"], 1)
    w_shape = (as_int("filters", filters, 1), group, *per_axis("kernel_size", kernel_size, rank, 1))
    n_params = math.prod(w_shape) + w_shape[0] * as_bool("bias", bias)
    geometry = resolve_sampled(shape, w_shape, settings)
    if isinstance(geometry, ConvGeometry):
        return Step(geometry.out_shape, n_params, geometry.flops, geometry.axes)
    return Step(geometry.out_shape, n_params, geometry.flops, between=True)


def _conv_transpose(
    flow: Flow, filters: Any, kernel_size: Any, stride: Any = 1, pad: Any = 0, *, bias: Any = True, **options: Any
) -> Step:
    shape, rank = flow.shape, _spatial(flow.shape)
    settings = _settings("conv_transpose", TRANSPOSE_DEFAULTS, options) | {"stride": stride, "pad": pad}
    filters, groups = as_int("filters", filters, 1), as_int("groups", settings["groups"], 1)
    if filters % groups:
        raise ValueError(f"groups must divide the number of filters, {filters}, got {groups}")
    w_shape = (shape[1], filters // groups, *per_axis("kernel_size", kernel_size, rank, 1))
    geometry = resolve_transpose(shape, w_shape, **settings)
    n_params = math.prod(w_shape) + filters * as_bool("bias", bias)
    # Each cell of the input is multiplied once by every weight of its channel.
    flops = 2 * shape[0] * math.prod(shape[2:]) * math.prod(w_shape)
    return Step(geometry.out_shape, n_params, flops, between=True)


def _upsample(flow: Flow, factor: Any) -> Step:
    factors = per_axis("factor", factor, _spatial(flow.shape), 1)
    return Step((*flow.shape[:2], *(n * f for n, f in zip(flow.shape[2:], factors, strict=True))), between=True)


def _downsample(flow: Flow, factor: Any) -> Step:
    factors = per_axis("factor", factor, _spatial(flow.shape), 1)
    axes = [Axis(n, 1, f, 0, 0, 1, -(-n // f)) for n, f in zip(flow.shape[2:], factors, strict=True)]
    return Step((*flow.shape[:2], *(axis.out for axis in axes)), axes=axes)


def _pool(caller: str, flow: Flow, args: tuple, options: dict[str, Any]) -> Step:
    _spatial(flow.shape)
    names = ("kernel_size", "stride", "pad", "dilation")
    if len(args) > len(names):
        raise TypeError(f"at most {len(names)} values may be positional ({', '.join(names)}), got {len(args)}")
    pool_param = dict(zip(names, args, strict=False))
    geometry, _ = pooling.resolve_call(caller, flow.shape, pool_param, options)
    getattr(layers, caller)(np.empty((0, *flow.shape[1:])), pool_param, **options)
    return Step(geometry.out_shape, axes=geometry.axes)


def _max_pool(flow: Flow, *args: Any, **options: Any) -> Step:
    return _pool("max_pool_forward", flow, args, options)


def _avg_pool(flow: Flow, *args: Any, **options: Any) -> Step:
    return _pool("avg_pool_forward", flow, args, options)


def _lp_pool(flow: Flow, *args: Any, **options: Any) -> Step:
    return _pool("lp_pool_forward", flow, args, options)


def _global_pool(flow: Flow) -> Step:
    rank = _spatial(flow.shape)
    return Step((*flow.shape[:2], *(1,) * rank), axes=[Axis(n, n, 1, 0, 0, 1, 1) for n in flow.shape[2:]])


def _affine(flow: Flow, units: Any, bias: Any = True) -> Step:
    n, depth, units = flow.shape[0], math.prod(flow.shape[1:]), as_int("units", units, 1)
    n_params = units * (depth + as_bool("bias", bias))
    return Step((n, units), n_params, 2 * n * depth * units, [Axis(s, s, 1, 0, 0, 1, 1) for s in flow.grid])


def _flatten(flow: Flow) -> Step:
    return Step((flow.shape[0], math.prod(flow.shape[1:])))


def _same(flow: Flow) -> Step:
    return Step(flow.shape)


def _leaky_relu(flow: Flow, slope: Any = 0.01) -> Step:
    layers.leaky_relu_forward(_NO_ROWS, slope)
    return Step(flow.shape)


def _dropout(flow: Flow, p: Any = 0.5, *, mode: Any = "train", seed: Any = None) -> Step:
    # Run the layer in test mode. In training mode, a layer with a seed would seed NumPy's global generator.
    quiet = "test" if isinstance(mode, str) and mode == "train" else mode
    layers.dropout_forward(_NO_ROWS, {"p": p, "mode": quiet, "seed": seed})
    return Step(flow.shape)


def _lrn(flow: Flow, size: Any = 5, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0) -> Step:
    _spatial(flow.shape)
    layers.lrn_forward(_NO_IMAGES, {"size": size, "alpha": alpha, "beta": beta, "k": k})
    return Step(flow.shape)


def _batchnorm(flow: Flow, *, eps: Any = 1e-5, momentum: Any = 0.9) -> Step:
    layers.batchnorm_forward(_NO_ROWS, _ONE, _ONE, {"mode": "train", "eps": eps, "momentum": momentum})
    return Step(flow.shape, 2 * flow.shape[1])


def _spatial_batchnorm(flow: Flow, *, eps: Any = 1e-5, momentum: Any = 0.9) -> Step:
    _spatial(flow.shape)
    return _batchnorm(flow, eps=eps, momentum=momentum)


def _layernorm(flow: Flow, *, eps: Any = 1e-5) -> Step:
    layers.layernorm_forward(_NO_ROWS, _ONE, _ONE, {"eps": eps})
    return Step(flow.shape, 2 * math.prod(flow.shape[1:]))


def _groupnorm(flow: Flow, G: Any, *, eps: Any = 1e-5) -> Step:
    layers.spatial_groupnorm_forward(_NO_IMAGES, _ONE, _ONE, 1, {"eps": eps})
    as_groups("G", G, flow.shape)
    return Step(flow.shape, 2 * flow.shape[1])


def _spatial_groupnorm(flow: Flow, G: Any, *, eps: Any = 1e-5) -> Step:
    _spatial(flow.shape)
    return _groupnorm(flow, G, eps=eps)


KINDS: dict[str, Callable[..., Step]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "upsample": _upsample,
    "downsample": _downsample,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "lp_pool": _lp_pool,
    "global_max_pool": _global_pool,
    "global_avg_pool": _global_pool,
    "affine": _affine,
    "flatten": _flatten,
    "relu": _same,
    "leaky_relu": _leaky_relu,
    "sigmoid": _same,
    "tanh": _same,
    "softmax": _same,
    "dropout": _dropout,
    "lrn": _lrn,
    "batchnorm": _batchnorm,
    "spatial_batchnorm": _spatial_batchnorm,
    "layernorm": _layernorm,
    "groupnorm": _groupnorm,
    "spatial_groupnorm": _spatial_groupnorm,
}


def _usage(kind: str) -> str:
    parameters = list(inspect.signature(KINDS[kind]).parameters.values())[1:]
    if kind.endswith("_pool") and parameters:
        return f"('{kind}', kernel_size, stride, pad, dilation, {{options by name}})"
    shown = [str(p).split(":")[0] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return f"({', '.join([repr(kind), *shown])}{'' if len(shown) == len(parameters) else ', {options by name}'})"


def run(location: str, kind: str, args: list[Any], options: dict[str, Any], flow: Flow) -> Step:
    """Return the `Step` of a layer with the input `flow`. Error messages begin with `location`."""
    call = KINDS[kind]
    try:
        inspect.signature(call).bind(flow, *args, **options)
    except TypeError as error:
        raise TypeError(f"{location}: {error}; a layer of this kind is written as {_usage(kind)}") from None
    try:
        return call(flow, *args, **options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{location}, {kind}: {error}") from error
