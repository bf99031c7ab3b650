"""Transposed convolution, forward and backward, against PyTorch and against fastconv's own backward_data.

Run as ``python benchmarks/bench_transpose.py [--quick]``.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import NamedTuple

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

import fastconv
from fastconv.convolution.choose import choose
from fastconv.convolution.plan import Case

#: Largest difference from fastconv relative to the largest value; results are sums of thousands of products.
TOLERANCE = 1e-3

OWN = "own backward_data"

RATIOS = (
    Ratio("forward", "PyTorch", mean=1.5),
    Ratio("forward", OWN, mean=1 / 1.1),
    Ratio("backward", "PyTorch"),
)

CAPTION = (
    "Time of the peer / time of fastconv with algorithm='auto', including the bias: above 1 fastconv is faster. "
    "The contenders take turns, each after the threads of the previous one sleep, and a short call is repeated within "
    "a turn. own backward_data is the gradient of the image of a convolution with the same geometry, without "
    "bias: 0.91 means that the transposed convolution takes 1.1 times as long. backward is dx, dw and db "
    "together. All in float32."
)


class Layer(NamedTuple):
    """A layer of a decoder that enlarges square images."""

    name: str
    size: int
    channels: int
    filters: int
    kernel: int
    stride: int
    pad: int = 0
    output_pad: int = 0
    groups: int = 1

    @property
    def case(self) -> str:
        """The name and shape in short."""
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{self.name} {self.size} {self.channels}-{self.filters} k{self.kernel}s{self.stride}{groups}"

    @property
    def options(self) -> dict[str, int]:
        """The options of the transposed convolution."""
        names = ("stride", "pad", "output_pad", "groups")
        return {name: getattr(self, name) for name in names}

    def arrays(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, w and b; the weights are scaled so that outputs are near one."""
        rng = np.random.default_rng(0)
        shapes = (
            (batch, self.channels, self.size, self.size),
            (self.channels, self.filters // self.groups, self.kernel, self.kernel),
            (self.filters,),
        )
        x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
        w /= np.float32(np.sqrt(self.channels / self.groups) * self.kernel / self.stride)
        return x, w, b


LAYERS = (
    Layer("DCGAN", 8, 512, 256, 4, 2, 1),
    Layer("DCGAN", 32, 128, 3, 4, 2, 1),
    Layer("U-Net", 56, 128, 64, 2, 2),
    Layer("FCN bilinear", 34, 21, 21, 16, 8, 4, groups=21),
    Layer("FSRCNN", 32, 56, 1, 9, 3, 4, 2),
    Layer("CycleGAN", 64, 256, 128, 3, 2, 1, 1),
)


def contenders(panel: str, layer: Layer, batch: int) -> Contenders:
    """The contenders of a case; the result of the first is the reference."""
    x, w, b = layer.arrays(batch)
    if panel == "forward":
        return {
            "fastconv": partial(fastconv.conv_transpose, x, w, b, **layer.options),
            "PyTorch": _torch_forward(layer, x, w, b),
            OWN: own(layer, x, w),
        }
    out, cache = fastconv.conv_transpose_forward(x, w, b, **layer.options)
    dout = np.random.default_rng(1).standard_normal(out.shape, dtype=np.float32)
    return {
        "fastconv": partial(fastconv.conv_transpose_backward, dout, cache),
        "PyTorch": _torch_backward(layer, dout, x, w),
    }


def own(layer: Layer, x: np.ndarray, w: np.ndarray) -> Call:
    """The gradient of a convolution that equals the transposed convolution. It has no bias, so it is not compared."""
    out = fastconv.conv_transpose(x, w, **layer.options)
    plain = {name: value for name, value in layer.options.items() if name != "output_pad"}
    _, cache = fastconv.conv_forward(np.zeros_like(out), w, None, **plain)

    def gradient() -> None:
        fastconv.conv_backward(x, cache, need_dw=False, need_db=False)

    return gradient


def _torch_forward(layer: Layer, *arrays: np.ndarray) -> Call | None:
    if torch is None:
        return None
    tensors = tuple(map(torch.from_numpy, arrays))
    sizes = layer.stride, layer.pad, layer.output_pad, layer.groups
    return torch.no_grad()(partial(torch.nn.functional.conv_transpose2d, *tensors, *sizes))


def _torch_backward(layer: Layer, *arrays: np.ndarray) -> Call | None:
    if torch is None:
        return None
    dout, x, w = map(torch.from_numpy, arrays)
    stride, pad, more = ([n, n] for n in (layer.stride, layer.pad, layer.output_pad))
    call = torch.ops.aten.convolution_backward
    sizes = [layer.filters], stride, pad, [1, 1], True, more, layer.groups, [True] * 3
    return torch.no_grad()(partial(call, dout, x, w, *sizes))


def chosen(panel: str, layer: Layer, batch: int, threads: int) -> str:
    """The algorithm that 'auto' takes."""
    _, cache = fastconv.conv_transpose_forward(*layer.arrays(batch), **layer.options)
    ops = ("backward_data",) if panel == "forward" else ("forward", "backward_weights")
    return ", ".join(choose(Case.of(op, cache.geometry.conv, np.dtype(np.float32), threads)).algorithm for op in ops)


def run(options: Options) -> None:
    """Measure every layer, print the table, write JSON and PNG."""
    screen = console(140)
    report = Report(
        "bench_transpose",
        "Transposed convolution against PyTorch, and against the gradient of a convolution",
        CAPTION,
        options,
        RATIOS,
        set_threads(options.threads),
    )
    batches = (1,) if options.quick else (1, 16)
    cases = [(layer, batch) for layer in options.wanted(LAYERS, Layer.case.fget) for batch in batches]
    with progress(screen, 2 * len(cases)) as show:
        for layer, batch in cases:
            for panel in ("forward", "backward"):
                name = f"{panel}: {layer.case}, batch {batch}"
                show(name)
                timings = measure(name, contenders(panel, layer, batch), TOLERANCE, options, show, turn=TURN)
                details = {**layer._asdict(), "algorithm": chosen(panel, layer, batch, options.threads)}
                report.rows.append(Row(panel, layer.case, batch, details, timings))
    print_table(report, screen)
    for path in report.write(options.out):
        screen.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(__doc__.splitlines()[0], repeats=6, budget=3.0)
    sys.exit(exit_status(partial(run, parsed)))
