"""A net as a table: shapes, parameters, operations, bytes and receptive fields, layer by layer."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv import _arrays
from fastconv._axis import Axis
from fastconv._options import as_bool, as_int, as_shape, has_fraction, merge_options, per_axis
from fastconv._receptive import ReceptiveField
from fastconv._transpose_geometry import TRANSPOSE_DEFAULTS, resolve_transpose
from fastconv.geometry import GEOMETRY_DEFAULTS, conv_geometry
from fastconv.layers import pooling


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a `Summary`.

    Attributes
    ----------
    name, kind : str
        ``'conv2'`` and ``'conv'``.
    out_shape : tuple of int
    n_params : int
        Trainable ones.
    flops : int
        Of the forward pass: two for each multiply-add of convolutions and
        fully connected layers; none for the others.
    receptive_field : tuple of ReceptiveField
        One for each spatial axis of the net's input. Empty where there is no
        one field: after branches whose strides differ, and after what makes
        images larger.
    param_bytes, out_bytes : int
        Memory of the parameters and of the output.
    depth : int
        How many branchings it is in.
    """

    name: str
    kind: str
    out_shape: tuple[int, ...]
    n_params: int
    flops: int
    receptive_field: tuple[ReceptiveField, ...]
    param_bytes: int
    out_bytes: int
    depth: int = 0


@dataclass(frozen=True, repr=False)
class Summary:
    """A whole net; ``str()`` is the table. Made by `summarize`.

    Attributes
    ----------
    x_shape, out_shape : tuple of int
    dtype : dtype
        What bytes are counted in.
    layers : tuple of LayerSummary
        In order; the layers of branches before the join.
    n_params, flops, param_bytes, out_bytes : int
        Sums over all layers.
    receptive_field : tuple of ReceptiveField
        Of the last layer.
    """

    x_shape: tuple[int, ...]
    dtype: np.dtype
    layers: tuple[LayerSummary, ...]

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.layers[-1].out_shape if self.layers else self.x_shape

    @property
    def receptive_field(self) -> tuple[ReceptiveField, ...]:
        return self.layers[-1].receptive_field if self.layers else (ReceptiveField(),) * (len(self.x_shape) - 2)

    @property
    def n_params(self) -> int:
        return sum(layer.n_params for layer in self.layers)

    @property
    def flops(self) -> int:
        return sum(layer.flops for layer in self.layers)

    @property
    def param_bytes(self) -> int:
        return sum(layer.param_bytes for layer in self.layers)

    @property
    def out_bytes(self) -> int:
        return sum(layer.out_bytes for layer in self.layers)

    def __str__(self) -> str:
        head = ("layer", "output shape", "parameters", "FLOPs", "receptive field", "jump")
        rows = [
            (
                "  " * layer.depth + layer.name,
                str(layer.out_shape),
                f"{layer.n_params:,}",
                f"{layer.flops:,}",
                "x".join(str(field.size) for field in layer.receptive_field) or "-",
                "x".join(str(field.jump) for field in layer.receptive_field) or "-",
            )
            for layer in self.layers
        ]
        total = ("total", "", f"{self.n_params:,}", f"{self.flops:,}", "", "")
        table = [head, ("input", str(self.x_shape), "", "", "", ""), *rows, total]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join(
            [
                *lines[:1],
                rule,
                *lines[1:-1],
                rule,
                lines[-1],
                f"in {self.dtype}: {self.param_bytes:,} bytes of parameters, {self.out_bytes:,} bytes of outputs",
            ]
        )

    __repr__ = __str__


class _Flow(NamedTuple):
    """What one layer hands to the next."""

    shape: tuple[int, ...]
    fields: tuple[ReceptiveField, ...]
    #: Positions along each spatial axis, also after those were flattened: a fully connected layer sees all of them.
    grid: tuple[int, ...]


class _Step(NamedTuple):
    """What a layer does: the shape it makes, and its windows where it has any."""

    out_shape: tuple[int, ...]
    n_params: int = 0
    flops: int = 0
    axes: Sequence[Axis] = ()
    #: Whether units lie between the cells of the input, and see more or fewer of them by turns: no one field is theirs.
    between: bool = False


def _spatial(shape: tuple[int, ...]) -> int:
    if len(shape) < 3:
        raise ValueError(f"its input is {shape}, which has no spatial axes")
    return len(shape) - 2


def _conv(
    flow: _Flow,
    filters: Any,
    kernel_size: Any,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    bias: Any = True,
    **options: Any,
) -> _Step:
    shape, rank = flow.shape, _spatial(flow.shape)
    settings = merge_options("conv", {**GEOMETRY_DEFAULTS, "algorithm": "auto", "threads": None}, options)
    settings |= {"stride": stride, "pad": pad, "dilation": dilation}
    settings = {name: settings[name] for name in GEOMETRY_DEFAULTS}
    group = shape[1] // as_int("groups", settings["groups"], 1)
    w_shape = (as_int("filters", filters, 1), group, *per_axis("kernel_size", kernel_size, rank, 1))
    geometry = conv_geometry(shape, w_shape, **settings)
    n_params = geometry.n_params - (0 if as_bool("bias", bias) else w_shape[0])
    return _Step(geometry.out_shape, n_params, geometry.flops, geometry.axes, has_fraction(settings["stride"]))


def _conv_transpose(
    flow: _Flow, filters: Any, kernel_size: Any, stride: Any = 1, pad: Any = 0, *, bias: Any = True, **options: Any
) -> _Step:
    shape, rank = flow.shape, _spatial(flow.shape)
    settings = merge_options("conv_transpose", {**TRANSPOSE_DEFAULTS, "algorithm": "auto", "threads": None}, options)
    settings |= {"stride": stride, "pad": pad}
    settings = {name: settings[name] for name in TRANSPOSE_DEFAULTS}
    filters, groups = as_int("filters", filters, 1), as_int("groups", settings["groups"], 1)
    if filters % groups:
        raise ValueError(f"groups is {groups}, which must divide the {filters} filters")
    w_shape = (shape[1], filters // groups, *per_axis("kernel_size", kernel_size, rank, 1))
    geometry = resolve_transpose(shape, w_shape, **settings)
    n_params = math.prod(w_shape) + filters * as_bool("bias", bias)
    # Each cell of the input meets every weight of its channel once.
    flops = 2 * shape[0] * math.prod(shape[2:]) * math.prod(w_shape)
    return _Step(geometry.out_shape, n_params, flops, between=True)


def _upsample(flow: _Flow, factor: Any) -> _Step:
    factors = per_axis("factor", factor, _spatial(flow.shape), 1)
    return _Step((*flow.shape[:2], *(n * f for n, f in zip(flow.shape[2:], factors, strict=True))), between=True)


def _downsample(flow: _Flow, factor: Any) -> _Step:
    factors = per_axis("factor", factor, _spatial(flow.shape), 1)
    axes = [Axis(n, 1, f, 0, 0, 1, -(-n // f)) for n, f in zip(flow.shape[2:], factors, strict=True)]
    return _Step((*flow.shape[:2], *(axis.out for axis in axes)), axes=axes)


def _pool(where: str, flow: _Flow, args: tuple, options: dict[str, Any]) -> _Step:
    _spatial(flow.shape)
    names = ("kernel_size", "stride", "pad", "dilation")
    if len(args) > len(names):
        raise TypeError(f"there are {len(args)} values, but at most {len(names)} have a place: {', '.join(names)}")
    geometry, _ = pooling.resolve(where, flow.shape, dict(zip(names, args, strict=False)), options)
    return _Step(geometry.out_shape, axes=geometry.axes)


def _max_pool(flow: _Flow, *args: Any, **options: Any) -> _Step:
    return _pool("max_pool_forward", flow, args, options)


def _avg_pool(flow: _Flow, *args: Any, **options: Any) -> _Step:
    return _pool("avg_pool_forward", flow, args, options)


def _lp_pool(flow: _Flow, *args: Any, **options: Any) -> _Step:
    return _pool("lp_pool_forward", flow, args, options)


def _global_pool(flow: _Flow) -> _Step:
    rank = _spatial(flow.shape)
    return _Step((*flow.shape[:2], *(1,) * rank), axes=[Axis(n, n, 1, 0, 0, 1, 1) for n in flow.shape[2:]])


def _affine(flow: _Flow, units: Any, bias: Any = True) -> _Step:
    n, depth, units = flow.shape[0], math.prod(flow.shape[1:]), as_int("units", units, 1)
    n_params = units * (depth + as_bool("bias", bias))
    return _Step((n, units), n_params, 2 * n * depth * units, [Axis(s, s, 1, 0, 0, 1, 1) for s in flow.grid])


def _flatten(flow: _Flow) -> _Step:
    return _Step((flow.shape[0], math.prod(flow.shape[1:])))


def _same(flow: _Flow) -> _Step:
    return _Step(flow.shape)


def _leaky_relu(flow: _Flow, slope: float = 0.01) -> _Step:
    return _Step(flow.shape)


def _dropout(flow: _Flow, p: float = 0.5, *, mode: str = "train", seed: int | None = None) -> _Step:
    return _Step(flow.shape)


def _lrn(flow: _Flow, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> _Step:
    return _Step(flow.shape)


def _batchnorm(flow: _Flow, *, eps: float = 1e-5, momentum: float = 0.9) -> _Step:
    return _Step(flow.shape, 2 * flow.shape[1])


def _layernorm(flow: _Flow, *, eps: float = 1e-5) -> _Step:
    return _Step(flow.shape, 2 * math.prod(flow.shape[1:]))


def _groupnorm(flow: _Flow, G: Any, *, eps: float = 1e-5) -> _Step:
    channels = flow.shape[1]
    if channels % as_int("G", G, 1):
        raise ValueError(f"G is {G}, which must divide the {channels} channels of its input {flow.shape}")
    return _Step(flow.shape, 2 * channels)


_KINDS: dict[str, Callable[..., _Step]] = {
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
    "spatial_batchnorm": _batchnorm,
    "layernorm": _layernorm,
    "groupnorm": _groupnorm,
    "spatial_groupnorm": _groupnorm,
}
_JOINS = ("add", "concat")


def _read(where: str, layer: Any) -> tuple[str, list[Any], dict[str, Any]]:
    """A layer as it was written: its kind, what stands after it, and options by name."""
    if isinstance(layer, str):
        layer = (layer,)
    if isinstance(layer, Mapping):
        options = dict(layer)
        kind, args = options.pop("kind", None), []
    elif isinstance(layer, (list, tuple)) and layer:
        kind, *args = layer
        options = dict(args.pop()) if args and isinstance(args[-1], Mapping) else {}
    else:
        kind, args, options = None, [], {}
    if not isinstance(kind, str):
        raise TypeError(
            f"{where} is {layer!r}; legal are a name, ('conv', 64, 3, {{'pad': 1}}) or "
            "{'kind': 'conv', 'filters': 64, 'kernel_size': 3, 'pad': 1}"
        )
    if kind not in _KINDS and kind not in _JOINS:
        raise ValueError(f"{where} is of kind {kind!r}; known are {', '.join((*_KINDS, *_JOINS))}")
    return kind, args, options


def _usage(kind: str) -> str:
    parameters = list(inspect.signature(_KINDS[kind]).parameters.values())[1:]
    if kind.endswith("_pool") and parameters:
        return f"('{kind}', kernel_size, stride, pad, dilation, {{options by name}})"
    shown = [str(p).split(":")[0] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return f"({', '.join([repr(kind), *shown])}{'' if len(shown) == len(parameters) else ', {options by name}'})"


def _run(where: str, kind: str, args: list[Any], options: dict[str, Any], flow: _Flow) -> _Step:
    call = _KINDS[kind]
    try:
        inspect.signature(call).bind(flow, *args, **options)
    except TypeError as error:
        raise TypeError(f"{where}: {error}; a layer of its kind is {_usage(kind)}") from None
    try:
        return call(flow, *args, **options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{where}, {kind}: {error}") from error


class _Walk:
    """The layers in order, with what names and bytes need."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype, self.rows, self._counts = dtype, list[LayerSummary](), Counter[str]()

    def row(self, kind: str, name: Any, step: _Step, fields: tuple[ReceptiveField, ...], depth: int) -> None:
        self._counts[kind] += 1
        name = f"{kind}{self._counts[kind]}" if name is None else name
        if not isinstance(name, str):
            raise TypeError(f"name of a layer must be a str, got {name!r}")
        size = _arrays.check_bytes(f"the output of {name}", step.out_shape, self.dtype)
        params = step.n_params * self.dtype.itemsize
        self.rows.append(
            LayerSummary(name, kind, step.out_shape, step.n_params, step.flops, fields, params, size, depth)
        )

    def chain(self, layers: Any, flow: _Flow, where: str, depth: int) -> _Flow:
        if not isinstance(layers, (list, tuple)):
            raise TypeError(f"{where} must be a list of layers, got {type(layers).__name__}")
        for i, layer in enumerate(layers):
            here = f"{where}[{i}]"
            kind, args, options = _read(here, layer)
            name = options.pop("name", None)
            if kind in _JOINS:
                step, flow = self._join(kind, args, options, flow, here, depth)
            else:
                step = _run(here, kind, args, options, flow)
                flow = _after(step, flow)
            self.row(kind, name, step, flow.fields, depth)
        return flow

    def _join(
        self, kind: str, branches: list[Any], options: dict[str, Any], flow: _Flow, where: str, depth: int
    ) -> tuple[_Step, _Flow]:
        if options or not branches:
            raise TypeError(
                f"{where}: {kind} takes branches, each a list of layers, and the option name; got {len(branches)} "
                f"branches and the options {', '.join(options) or '(none)'}"
            )
        ends = [self.chain(b, flow, f"{where}[{i + 1}]", depth + 1) for i, b in enumerate(branches)]
        shapes = [end.shape for end in ends]
        same = [shape if kind == "add" else (shape[0], *shape[2:]) for shape in shapes]
        if len(set(same)) > 1:
            what = "equal" if kind == "add" else "equal in all but the channels"
            raise ValueError(f"{where}: the branches of {kind} give {', '.join(map(str, shapes))}; they must be {what}")
        shape = shapes[0] if kind == "add" else (shapes[0][0], sum(s[1] for s in shapes), *shapes[0][2:])
        return _Step(shape), _Flow(shape, _joined([end.fields for end in ends]), ends[0].grid)


def _joined(fields: list[tuple[ReceptiveField, ...]]) -> tuple[ReceptiveField, ...]:
    """The union of what all branches see, along each axis, if they are in step."""
    if len({tuple(field.jump for field in branch) for branch in fields}) > 1:
        return ()
    whole = fields[0]
    for branch in fields[1:]:
        whole = tuple(a.joined(b) for a, b in zip(whole, branch, strict=True))
    return whole


def _after(step: _Step, flow: _Flow) -> _Flow:
    if step.between:
        return _Flow(step.out_shape, (), step.out_shape[2:])
    if not step.axes:
        return _Flow(step.out_shape, flow.fields, flow.grid)
    # Without fields there are none to go on from: branches were out of step.
    fields = tuple(f.through(a.k, a.stride, a.lo, a.dilation) for f, a in zip(flow.fields, step.axes, strict=False))
    return _Flow(step.out_shape, fields, tuple(axis.out for axis in step.axes))


def summarize(layers: Sequence[Any], x_shape: Sequence[int], dtype: Any = "float32") -> Summary:
    """Tell shapes, parameters, operations, bytes and receptive fields of a whole net, layer by layer.

    Parameters
    ----------
    layers : sequence
        Each is a name (``'relu'``); a tuple of a name, values and at last,
        if wanted, a dict of options (``('conv', 64, 3, {'pad': 1})``); or a dict
        (``{'kind': 'conv', 'filters': 64, 'kernel_size': 3, 'pad': 1}``). Names
        are those of fastconv's functions without ``_forward``:

        - ``('conv', filters, kernel_size, stride, pad, dilation)``, and by name
          the other options of `conv`, and ``bias=False``; ``('conv_transpose',
          filters, kernel_size, stride, pad)``; ``('upsample', factor)``,
          ``('downsample', factor)``;
        - ``('max_pool', kernel_size, stride, pad, dilation)``, and by name those
          of `max_pool_forward`, CS231n's among them; ``avg_pool``, ``lp_pool``;
          ``global_max_pool``, ``global_avg_pool``;
        - ``('affine', units)``, and ``bias=False``; it flattens its input, as
          ``flatten`` does;
        - ``relu``, ``leaky_relu``, ``sigmoid``, ``tanh``, ``softmax``,
          ``dropout``, ``lrn``, ``batchnorm`` (gamma and beta of each channel),
          ``layernorm``, ``('groupnorm', G)``;
        - ``('add', branch, branch, ...)`` and ``('concat', branch, ...)`` of
          branches that are lists of layers: residual blocks, where ``[]`` is
          the skip connection, and inception modules.

        An option ``name`` names the layer in the table.
    x_shape : tuple of int
        ``(N, C, *spatial)``, one to three spatial axes, or ``(N, D)``.
    dtype : dtype, default 'float32'
        What bytes are counted in: float32 or float64.

    Returns
    -------
    Summary
        ``print`` shows the table. Its ``layers``, and its sums ``n_params``,
        ``flops``, ``param_bytes`` and ``out_bytes``, are for programs.

    Raises
    ------
    ValueError
        If a layer does not fit its input or is of no known kind; the layer is named.
    TypeError
        For values or options that a layer does not take.

    Notes
    -----
    FLOPs are two for each multiply-add of convolutions and fully connected
    layers, for the whole batch; other layers count none, as in published tables
    (which often give multiply-adds, half of it). A fully connected layer sees all
    positions of its input, as the convolution does that it can be turned into
    by `affine_to_conv`.

    Examples
    --------
    LeNet-5:

    >>> import fastconv
    >>> layers = [('conv', 6, 5, {'pad': 2}), 'relu', ('max_pool', 2),
    ...           ('conv', 16, 5), 'relu', ('max_pool', 2),
    ...           ('affine', 120), 'relu', ('affine', 84), 'relu', ('affine', 10)]
    >>> net = fastconv.summarize(layers, (1, 1, 28, 28))
    >>> print(net)
    layer      output shape     parameters    FLOPs  receptive field  jump
    ----------------------------------------------------------------------
    input      (1, 1, 28, 28)
    conv1      (1, 6, 28, 28)          156  235,200              5x5   1x1
    relu1      (1, 6, 28, 28)            0        0              5x5   1x1
    max_pool1  (1, 6, 14, 14)            0        0              6x6   2x2
    conv2      (1, 16, 10, 10)       2,416  480,000            14x14   2x2
    relu2      (1, 16, 10, 10)           0        0            14x14   2x2
    max_pool2  (1, 16, 5, 5)             0        0            16x16   4x4
    affine1    (1, 120)             48,120   96,000            32x32   4x4
    relu3      (1, 120)                  0        0            32x32   4x4
    affine2    (1, 84)              10,164   20,160            32x32   4x4
    relu4      (1, 84)                   0        0            32x32   4x4
    affine3    (1, 10)                 850    1,680            32x32   4x4
    ----------------------------------------------------------------------
    total                           61,706  833,040
    in float32: 246,824 bytes of parameters, 58,408 bytes of outputs
    >>> net.layers[5].receptive_field[0].size
    16
    """
    shape = as_shape("x_shape", x_shape)
    if not 2 <= len(shape) <= 5 or min(shape[1:]) < 1:
        raise ValueError(f"x_shape is {shape}; legal are (N, D) and (N, C, *spatial), no size but N below 1")
    walk = _Walk(_arrays.float_dtype("dtype", dtype))
    walk.chain(layers, _Flow(shape, (ReceptiveField(),) * (len(shape) - 2), shape[2:]), "layers", 0)
    return Summary(shape, walk.dtype, tuple(walk.rows))
