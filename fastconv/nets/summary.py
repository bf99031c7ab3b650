"""A net as a table with one row for each layer: shapes, parameters, operations, bytes and receptive fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.checks import arrays as _arrays
from fastconv.checks.options import as_shape
from fastconv.geometry.receptive import ReceptiveField
from fastconv.nets.layer_kinds import KINDS, Flow, Step, run
from fastconv.runtime import memory as _memory

#: Maps the number of axes of an input to the meaning of the axes. An image without a batch axis has three axes, so it
#: counts as 1-D signals.
_AXES = {
    2: "rows of numbers: (N, D)",
    3: "1-D signals: (N, C, W)",
    4: "2-D images: (N, C, H, W)",
    5: "3-D volumes: (N, C, D, H, W)",
}


@dataclass(frozen=True)
class LayerSummary:
    """One layer in the `Summary` that `summarize` returns. It is immutable.

    Attributes
    ----------
    name, kind : str
        For example ``'conv2'`` and ``'conv'``.
    out_shape : tuple of int
        Shape of the output, ``(N, C, *spatial)`` or ``(N, D)``.
    n_params : int
        Number of trainable parameters.
    flops : int
        Operations of the forward pass: two for each multiply-add of
        convolutions and fully connected layers, none for other layers. The
        zeros that upsampling inserts are not multiplied, and do not count.
    receptive_field : tuple of ReceptiveField
        One for each spatial axis of the net's input. It is empty if units have
        no common field: after branches whose strides differ, after branches of
        which only some were flattened, and after layers that enlarge images.
    param_bytes, out_bytes : int
        The number of bytes of the parameters, and of the output.
    depth : int
        The number of nested branches that contain the layer.

    Raises
    ------
    FrozenInstanceError
        If an attribute is assigned.

    Examples
    --------
    >>> import fastconv
    >>> net = fastconv.summarize([('conv', 6, 5, {'name': 'stem'}), 'relu'], (1, 3, 32, 32))
    >>> layer = net.layers[0]
    >>> layer.name, layer.kind, layer.out_shape, layer.n_params
    ('stem', 'conv', (1, 6, 28, 28), 456)
    >>> [field.size for field in layer.receptive_field], layer.param_bytes
    ([5, 5], 1824)
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
    """The summary of a net that `summarize` returns. ``str()`` returns it as a table. It is immutable.

    Attributes
    ----------
    x_shape, out_shape : tuple of int
        Shapes of the input and of the output.
    dtype : dtype
        The dtype for which bytes are counted.
    layers : tuple of LayerSummary
        The layers in order. The layers of branches come before the layer that
        joins the branches.
    n_params, flops, param_bytes, out_bytes : int
        Sums over all layers.
    receptive_field : tuple of ReceptiveField
        The fields of the last layer. They are 1 x 1 cells if there are no layers.

    Raises
    ------
    FrozenInstanceError
        If an attribute is assigned.

    Examples
    --------
    >>> import fastconv
    >>> net = fastconv.summarize([('conv', 6, 5), 'relu', ('max_pool', 2)], (1, 3, 32, 32))
    >>> net.out_shape, net.n_params, net.flops
    ((1, 6, 14, 14), 456, 705600)
    >>> [layer.name for layer in net.layers]
    ['conv1', 'relu1', 'max_pool1']
    >>> print(net)
    layer      output shape    parameters    FLOPs  receptive field  jump
    -- 2-D images: (N, C, H, W) -----------------------------------------
    input      (1, 3, 32, 32)
    conv1      (1, 6, 28, 28)         456  705,600              5x5   1x1
    relu1      (1, 6, 28, 28)           0        0              5x5   1x1
    max_pool1  (1, 6, 14, 14)           0        0              6x6   2x2
    ---------------------------------------------------------------------
    total                             456  705,600
    in float32: 1,824 bytes of parameters, 42,336 bytes of outputs
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
                f"-- {_AXES[len(self.x_shape)]} {rule}"[: len(rule)],
                *lines[1:-1],
                rule,
                lines[-1],
                f"in {self.dtype}: {self.param_bytes:,} bytes of parameters, {self.out_bytes:,} bytes of outputs",
            ]
        )

    __repr__ = __str__


_MERGES = ("add", "concat")


def _read(location: str, layer: Any) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the kind of a layer, its positional arguments, and its options."""
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
            f"{location} must be a name, a tuple such as ('conv', 64, 3, {{'pad': 1}}), or a dict such as "
            f"{{'kind': 'conv', 'filters': 64, 'kernel_size': 3, 'pad': 1}}, got {layer!r}"
        )
    if kind not in KINDS and kind not in _MERGES:
        raise ValueError(f"{location} has the unknown kind {kind!r}; the kinds are {', '.join((*KINDS, *_MERGES))}")
    return kind, args, options


class _Walk:
    """Visits the layers of a net in order, and makes a `LayerSummary` for each layer."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype, self.rows, self._counts = dtype, list[LayerSummary](), Counter[str]()

    def row(self, kind: str, name: Any, step: Step, fields: tuple[ReceptiveField, ...], depth: int) -> None:
        self._counts[kind] += 1
        name = f"{kind}{self._counts[kind]}" if name is None else name
        if not isinstance(name, str):
            raise TypeError(f"the option name of a layer must be a str, got {name!r}")
        size = _memory.check_bytes(f"the output of {name}", step.out_shape, self.dtype)
        params = step.n_params * self.dtype.itemsize
        self.rows.append(
            LayerSummary(name, kind, step.out_shape, step.n_params, step.flops, fields, params, size, depth)
        )

    def chain(self, layers: Any, flow: Flow, location: str, depth: int) -> Flow:
        if not isinstance(layers, (list, tuple)):
            raise TypeError(f"{location} must be a list of layers, got {type(layers).__name__}")
        for i, layer in enumerate(layers):
            here = f"{location}[{i}]"
            kind, args, options = _read(here, layer)
            name = options.pop("name", None)
            if kind in _MERGES:
                step, flow = self._join(kind, args, options, flow, here, depth)
            else:
                step = run(here, kind, args, options, flow)
                flow = _after(step, flow)
            self.row(kind, name, step, flow.fields, depth)
        return flow

    def _join(
        self, kind: str, branches: list[Any], options: dict[str, Any], flow: Flow, location: str, depth: int
    ) -> tuple[Step, Flow]:
        if options or not branches:
            raise TypeError(
                f"{location}: {kind} must have one or more branches, which are lists of layers, and no option but "
                f"name, got {len(branches)} branches and the options {', '.join(options) or '(none)'}"
            )
        ends = [self.chain(b, flow, f"{location}[{i + 1}]", depth + 1) for i, b in enumerate(branches)]
        shapes = [end.shape for end in ends]
        same = [shape if kind == "add" else (shape[0], *shape[2:]) for shape in shapes]
        if len(set(same)) > 1:
            what = "equal" if kind == "add" else "equal except for the number of channels"
            raise ValueError(
                f"{location}: the output shapes of the branches of {kind} must be {what}, got "
                f"{', '.join(map(str, shapes))}"
            )
        shape = shapes[0] if kind == "add" else (shapes[0][0], sum(s[1] for s in shapes), *shapes[0][2:])
        return Step(shape), Flow(shape, _joined(ends), ends[0].grid)


def _joined(ends: list[Flow]) -> tuple[ReceptiveField, ...]:
    """Return, for each axis, the smallest receptive field that covers the fields of all branches.

    Return () if the branches have no common field, because their jumps (total strides) or numbers of positions differ.
    """
    # The numbers of positions differ, for example, if one branch ends in `flatten`, and another in `affine`.
    if len({(end.grid, tuple(field.jump for field in end.fields)) for end in ends}) > 1:
        return ()
    whole = ends[0].fields
    for end in ends[1:]:
        whole = tuple(a.joined(b) for a, b in zip(whole, end.fields, strict=True))
    return whole


def _after(step: Step, flow: Flow) -> Flow:
    if step.between:
        return Flow(step.out_shape, (), step.out_shape[2:])
    if not step.axes:
        return Flow(step.out_shape, flow.fields, flow.grid)
    # If `flow.fields` is empty, the input has no common receptive field. Then the output has none, either.
    fields = tuple(f.through(a.k, a.stride, a.lo, a.dilation) for f, a in zip(flow.fields, step.axes, strict=False))
    return Flow(step.out_shape, fields, tuple(axis.out for axis in step.axes))


def summarize(layers: Sequence[Any], x_shape: Sequence[int], dtype: Any = "float32") -> Summary:
    """Summarise a whole net layer by layer: shapes, parameters, operations, bytes and receptive fields.

    Parameters
    ----------
    layers : sequence
        Each layer is a name (``'relu'``); a tuple of a name, values and an
        optional dict of options (``('conv', 64, 3, {'pad': 1})``); or a dict
        (``{'kind': 'conv', 'filters': 64, 'kernel_size': 3, 'pad': 1}``). The
        known kinds are:

        - ``('conv', filters, kernel_size, stride, pad, dilation)``. The dict may
          have ``bias=False`` and the other options of `conv`.
        - ``('conv_transpose', filters, kernel_size, stride, pad)``. The dict may
          have ``bias=False`` and the other options of `conv_transpose`.
        - ``('upsample', factor)`` and ``('downsample', factor)``.
        - ``('max_pool', kernel_size, stride, pad, dilation)``. The dict may have
          the other options of `max_pool_forward`, also in CS231n's spelling.
          ``avg_pool`` and ``lp_pool`` take the same values.
        - ``global_max_pool`` and ``global_avg_pool``.
        - ``('affine', units)``, a fully connected layer, which flattens its
          input. The dict may have ``bias=False``.
        - ``flatten``, ``relu``, ``leaky_relu``, ``sigmoid``, ``tanh``,
          ``softmax``, ``dropout`` and ``lrn``.
        - ``batchnorm`` (with one gamma and beta per channel), ``layernorm`` and
          ``('groupnorm', G)``. ``spatial_batchnorm`` and
          ``('spatial_groupnorm', G)`` are the same, but refuse input ``(N, D)``.
        - ``('add', branch, branch, ...)`` for residual blocks. A branch is a list
          of layers, and ``[]`` is a skip connection.
        - ``('concat', branch, branch, ...)`` for inception modules.

        The option ``name`` sets the name of a layer in the table.
    x_shape : tuple of int
        ``(N, C, *spatial)``, one to three spatial axes, or ``(N, D)``.
    dtype : dtype, default 'float32'
        The dtype for which bytes are counted: float32 or float64.

    Returns
    -------
    Summary
        ``print`` shows the table. A line above the input names its axes, because
        ``(3, 32, 32)`` is not an image but three signals of 32 channels. Programs
        read the attribute ``layers`` and the sums ``n_params``, ``flops``,
        ``param_bytes`` and ``out_bytes``.

    Raises
    ------
    ValueError
        If a layer does not fit its input, is of no known kind, or has an option
        out of its range; the layer is named.
    TypeError
        If a layer gets a value or an option that it does not have.

    Notes
    -----
    A multiply-add of a convolution or a fully connected layer counts as two
    FLOPs, over the whole batch. Other layers count none, as in published tables
    (which often give multiply-adds, half the number). Products with padding
    count. Products with the zeros that `upsample` or a stride of
    ``Fraction(a, b)`` inserts do not. The receptive field of a fully connected
    layer is its whole input, as for the convolution that `affine_to_conv` makes
    of it.

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
    -- 2-D images: (N, C, H, W) ------------------------------------------
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
        raise ValueError(f"x_shape must be (N, D) or (N, C, *spatial), with all sizes except N at least 1, got {shape}")
    walk = _Walk(_arrays.float_dtype("dtype", dtype))
    walk.chain(layers, Flow(shape, (ReceptiveField(),) * (len(shape) - 2), shape[2:]), "layers", 0)
    return Summary(shape, walk.dtype, tuple(walk.rows))
