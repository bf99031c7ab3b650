"""Normalisation and activations, forward and backward, against PyTorch.

Run as ``python benchmarks/bench_norms.py [--quick]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from support.harness import (
    TURN,
    Call,
    Contenders,
    Options,
    console,
    exit_status,
    measure,
    parse,
    progress,
    set_threads,
    torch,
)
from support.report import Ratio, Report, Row, print_table

from fastconv import layers

RATIOS = (
    Ratio("batch norm forward", "PyTorch", mean=1.0, worst=1.0),
    Ratio("batch norm backward", "PyTorch", mean=1.0, worst=1.0),
    Ratio("LRN forward", "PyTorch", mean=1.0, worst=1.0),
    Ratio("LRN backward", "PyTorch", mean=1.0, worst=1.0),
    Ratio("group norm", "PyTorch"),
    Ratio("leaky relu", "PyTorch"),
    Ratio("sigmoid", "PyTorch"),
    Ratio("tanh", "PyTorch"),
)

#: Largest difference from fastconv, relative to the largest value. A gradient is a small difference of larger terms, so
#: its relative error is larger.
TOLERANCE = 1e-4

CAPTION = (
    "Time of the peer / time of fastconv: above 1 fastconv is faster. The contenders take turns, each after the "
    "threads of the previous one sleep, and a short call is repeated within a turn. Batch norm is in training mode, "
    "with running averages. The backward passes of batch norm and group norm are functions of aten, which get "
    "the values that the forward pass saved; LRN has no such function, so PyTorch's autograd computes its "
    "backward pass. LRN has windows of 5 channels. Group norm has 32 groups, or as many as channels if there "
    "are fewer. If the heading does not say so, a row is forward and backward. The dtype is float32 unless the "
    "row says float64."
)


class Layer(NamedTuple):
    """The input of the layer: the output of a convolution on square images."""

    name: str
    size: int
    channels: int

    @property
    def case(self) -> str:
        """The name and shape in short."""
        return f"{self.name} {self.size} C{self.channels}"


LAYERS = (
    Layer("VGG", 224, 64),
    Layer("ResNet", 112, 64),
    Layer("ResNet", 56, 256),
    Layer("ResNet", 14, 1024),
    Layer("ResNet", 7, 2048),
    Layer("AlexNet", 55, 96),
    Layer("AlexNet", 27, 256),
    Layer("GoogLeNet", 56, 192),
    Layer("CIFAR", 32, 16),
)


class Arrays(NamedTuple):
    """The inputs of a layer."""

    x: np.ndarray
    dout: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The same memory as PyTorch tensors."""
        return tuple(map(torch.from_numpy, self))


def _arrays(layer: Layer, batch: int, dtype: str) -> Arrays:
    rng = np.random.default_rng(0)
    image, flat = (batch, layer.channels, layer.size, layer.size), (layer.channels,)
    return Arrays(*(rng.standard_normal(shape).astype(dtype) for shape in (image, image, flat, flat)))


def _first(call: Call) -> Any:
    return call()[0]


def _batch_norm(a: Arrays, backward: bool) -> Contenders:
    bn_param = {"mode": "train"}
    ours: Call = partial(_first, partial(layers.spatial_batchnorm_forward, a.x, a.gamma, a.beta, bn_param))
    if backward:
        _, cache = layers.spatial_batchnorm_forward(a.x, a.gamma, a.beta, bn_param)
        ours = partial(layers.spatial_batchnorm_backward, a.dout, cache)
    if torch is None:
        return {"fastconv": ours, "PyTorch": None}
    x, dout, gamma, beta = a.tensors
    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    theirs: Call = partial(torch.nn.functional.batch_norm, x, mean, variance, gamma, beta, True)
    if backward:
        _, saved_mean, saved_scale = torch.native_batch_norm(x, gamma, beta, mean, variance, True, 0.1, 1e-5)
        saved = (x, gamma, mean, variance, saved_mean, saved_scale)
        theirs = partial(torch.ops.aten.native_batch_norm_backward, dout, *saved, True, 1e-5, [True] * 3)
    return {"fastconv": ours, "PyTorch": theirs}


def _lrn(a: Arrays, backward: bool) -> Contenders:
    param = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}
    ours: Call = partial(_first, partial(layers.lrn_forward, a.x, param))
    if backward:
        ours = partial(layers.lrn_backward, a.dout, layers.lrn_forward(a.x, param)[1])
    if torch is None:
        return {"fastconv": ours, "PyTorch": None}
    x, dout, *_ = a.tensors
    forward = partial(torch.nn.functional.local_response_norm, size=5, alpha=1e-4, beta=0.75, k=2.0)
    theirs: Call = partial(forward, x)
    if backward:
        leaf = x.clone().requires_grad_()
        graph = forward(leaf)
        theirs = partial(_first, partial(torch.autograd.grad, graph, leaf, dout, retain_graph=True))
    return {"fastconv": ours, "PyTorch": theirs}


def _group_norm(a: Arrays) -> Contenders:
    groups = math.gcd(32, len(a.gamma))

    def ours() -> tuple[np.ndarray, ...]:
        out, cache = layers.spatial_groupnorm_forward(a.x, a.gamma, a.beta, groups)
        return out, *layers.spatial_groupnorm_backward(a.dout, cache)

    if torch is None:
        return {"fastconv": ours, "PyTorch": None}
    x, dout, gamma, beta = a.tensors
    sizes = (len(x), len(gamma), x[0, 0].numel(), groups)

    def theirs() -> tuple[Any, ...]:
        out, mean, scale = torch.native_group_norm(x, gamma, beta, *sizes, 1e-5)
        backward = torch.ops.aten.native_group_norm_backward
        return out, *backward(dout, x, mean, scale, gamma, *sizes, [True] * 3)

    return {"fastconv": ours, "PyTorch": theirs}


def _activation(a: Arrays, name: str) -> Contenders:
    forward, backward = getattr(layers, f"{name}_forward"), getattr(layers, f"{name}_backward")

    def ours() -> tuple[np.ndarray, np.ndarray]:
        out, cache = forward(a.x)
        return out, backward(a.dout, cache)

    if torch is None:
        return {"fastconv": ours, "PyTorch": None}
    x, dout, *_ = a.tensors
    aten = torch.ops.aten

    def theirs() -> tuple[Any, Any]:
        if name == "leaky_relu":
            return aten.leaky_relu(x, 0.01), aten.leaky_relu_backward(dout, x, 0.01, False)
        out = getattr(aten, name)(x)
        return out, getattr(aten, f"{name}_backward")(dout, out)

    return {"fastconv": ours, "PyTorch": theirs}


PANELS: dict[str, Callable[[Arrays], Contenders]] = {
    "batch norm forward": partial(_batch_norm, backward=False),
    "batch norm backward": partial(_batch_norm, backward=True),
    "LRN forward": partial(_lrn, backward=False),
    "LRN backward": partial(_lrn, backward=True),
    "group norm": _group_norm,
    "leaky relu": partial(_activation, name="leaky_relu"),
    "sigmoid": partial(_activation, name="sigmoid"),
    "tanh": partial(_activation, name="tanh"),
}


def run(options: Options) -> None:
    """Measure every layer, print the table, write JSON and PNG."""
    out = console(140)
    report = Report(
        "bench_norms",
        "Normalisation and activations: fastconv against PyTorch",
        CAPTION,
        options,
        RATIOS,
        set_threads(options.threads),
    )
    runs = [("float32", 1), ("float64", 1), *([] if options.quick else [("float32", 16)])]
    wanted = options.wanted(LAYERS, Layer.case.fget)
    cases = [(layer, batch, dtype) for dtype, batch in runs for layer in wanted]
    with progress(out, len(cases) * len(PANELS)) as show:
        for layer, batch, dtype in cases:
            arrays = _arrays(layer, batch, dtype)
            case = layer.case + (" float64" if dtype == "float64" else "")
            for panel, contenders in PANELS.items():
                name = f"{panel}: {case}, batch {batch}"
                show(name)
                timings = measure(name, contenders(arrays), TOLERANCE, options, show, turn=TURN)
                report.rows.append(Row(panel, case, batch, {**layer._asdict(), "dtype": dtype}, timings))
    print_table(report, out)
    for path in report.write(options.out):
        out.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(__doc__.splitlines()[0], repeats=4, budget=0.6, brief="batch 1: some four minutes")
    raise SystemExit(exit_status(partial(run, parsed)))
