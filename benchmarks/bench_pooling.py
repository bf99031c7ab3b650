"""Pooling and other layers that read memory once, forward and backward, against PyTorch.

Run as ``python benchmarks/bench_pooling.py [--quick]``. It also runs ``bench_windows.py``, for large windows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import bench_windows
import numpy as np
from rich.console import Console
from support.harness import TURN, Call, Contenders, Options, exit_status, measure, parse, progress, set_threads, torch
from support.report import Ratio, Report, Row, print_table

import fastconv
from fastconv.layers import relu_backward, relu_forward

#: Largest difference from fastconv relative to the largest value. Maxima must be equal, but their gradients are sums.
TOLERANCE = {
    "max forward": 0.0,
    "max backward": 1e-5,
    "mean forward": 1e-5,
    "mean backward": 1e-5,
    "L2 forward": 1e-5,
    "L2 backward": 1e-5,
    "relu": 0.0,
}

RATIOS = (
    Ratio("max forward", "PyTorch", mean=2.0, worst=1.0),
    Ratio("max forward", "PyTorch, no indices", mean=2.0, worst=1.0),
    Ratio("max backward", "PyTorch", mean=1.0, worst=1.0),
    Ratio("mean forward", "PyTorch"),
    Ratio("mean backward", "PyTorch"),
    Ratio("L2 forward", "PyTorch", mean=1.0),
    Ratio("L2 backward", "PyTorch", mean=1.0),
    Ratio("relu", "PyTorch"),
)

CAPTION = (
    "Time of the peer / time of fastconv: above 1 fastconv is faster. The contenders take turns, each after the "
    "threads of the previous one sleep, and a short call is repeated within a turn. Max pooling of fastconv always "
    "stores the indices for its backward pass; PyTorch is timed with return_indices=True and without. The "
    "backward passes are functions of aten, which get the indices. PyTorch composes the L2 norm from other "
    "functions, so its backward pass is that of autograd, and its input is padded beforehand. relu is forward "
    "and backward on the layer's input. The dtype is float32 unless the row says float64."
)


class Layer(NamedTuple):
    """A pooling of square images."""

    name: str
    size: int
    channels: int
    kernel: int
    stride: int
    pad: int = 0

    @property
    def case(self) -> str:
        """The name and shape in short."""
        pad = f"p{self.pad}" if self.pad else ""
        return f"{self.name} {self.size} C{self.channels} k{self.kernel}s{self.stride}{pad}"


LAYERS = (
    Layer("VGG", 224, 64, 2, 2),
    Layer("VGG", 112, 128, 2, 2),
    Layer("VGG", 28, 512, 2, 2),
    Layer("VGG", 14, 512, 2, 2),
    Layer("ResNet", 112, 64, 3, 2, 1),
    Layer("AlexNet", 55, 96, 3, 2),
    Layer("AlexNet", 27, 256, 3, 2),
    Layer("AlexNet", 13, 256, 3, 2),
    Layer("GoogLeNet", 28, 192, 3, 1, 1),
    Layer("GoogLeNet", 14, 480, 3, 1, 1),
    Layer("GoogLeNet", 7, 832, 3, 1, 1),
    Layer("YOLO", 13, 512, 5, 1, 2),
    Layer("CS231n", 32, 32, 2, 2),
    Layer("LeNet", 8, 16, 2, 2),
)


def _normal(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def _first(call: Call) -> Any:
    return call()[0]


def contenders(panel: str, layer: Layer, batch: int, dtype: str) -> Contenders:
    """The contenders of a case; the result of the first is the reference."""
    x = _normal((batch, layer.channels, layer.size, layer.size), dtype)
    if panel == "relu":
        return _relu(x)
    window = {"kernel_size": layer.kernel, "stride": layer.stride, "pad": layer.pad}
    if panel.startswith("L2"):
        return _norms(panel, x, layer, window)
    largest = panel.startswith("max")
    forward = fastconv.max_pool_forward if largest else fastconv.avg_pool_forward
    backward = fastconv.max_pool_backward if largest else fastconv.avg_pool_backward
    if panel.endswith("forward"):
        ours: Contenders = {"fastconv": partial(_first, partial(forward, x, **window))}
        return {**ours, **_torch_forward(x, layer, largest)}
    out, cache = forward(x, **window)
    dout = _normal(out.shape, dtype)
    return {"fastconv": partial(backward, dout, cache), "PyTorch": _torch_backward(x, dout, layer, largest)}


def _torch_forward(x: np.ndarray, layer: Layer, largest: bool) -> Contenders:
    if torch is None:
        return {"PyTorch": None, **({"PyTorch, no indices": None} if largest else {})}
    functional, image = torch.nn.functional, torch.from_numpy(x)
    sizes = (layer.kernel, layer.stride, layer.pad)
    if not largest:
        return {"PyTorch": partial(functional.avg_pool2d, image, *sizes)}
    pool = partial(functional.max_pool2d, image, *sizes)
    return {"PyTorch": partial(_first, partial(pool, return_indices=True)), "PyTorch, no indices": pool}


def _torch_backward(x: np.ndarray, dout: np.ndarray, layer: Layer, largest: bool) -> Call | None:
    if torch is None:
        return None
    image, gradient = torch.from_numpy(x), torch.from_numpy(dout)
    sizes = [[n, n] for n in (layer.kernel, layer.stride, layer.pad)]
    if not largest:
        return partial(torch.ops.aten.avg_pool2d_backward, gradient, image, *sizes, False, True, None)
    _, places = torch.nn.functional.max_pool2d(image, *sizes, return_indices=True)
    call = torch.ops.aten.max_pool2d_with_indices_backward
    return partial(call, gradient, image, *sizes, [1, 1], False, places)


def _norms(panel: str, x: np.ndarray, layer: Layer, window: dict[str, int]) -> Contenders:
    out, cache = fastconv.lp_pool_forward(x, **window)
    forward = panel.endswith("forward")
    dout = _normal(out.shape, x.dtype.name)
    ours = partial(_first, partial(fastconv.lp_pool_forward, x, **window))
    calls: Contenders = {"fastconv": ours if forward else partial(fastconv.lp_pool_backward, dout, cache)}
    if torch is None:
        return {**calls, "PyTorch": None}
    pool = partial(torch.nn.functional.lp_pool2d, norm_type=2, kernel_size=layer.kernel, stride=layer.stride)
    image = torch.nn.functional.pad(torch.from_numpy(x), [layer.pad] * 4)
    if forward:
        return {**calls, "PyTorch": partial(pool, image)}
    image.requires_grad_()
    norms, gradient = pool(image), torch.from_numpy(dout)

    def backward() -> Any:
        (found,) = torch.autograd.grad(norms, image, gradient, retain_graph=True)
        end = layer.pad + layer.size
        return found[..., layer.pad : end, layer.pad : end]

    return {**calls, "PyTorch": backward}


def _relu(x: np.ndarray) -> Contenders:
    peer = None
    if torch is not None:
        peer = partial(_torch_relu, torch.from_numpy(x))
    return {"fastconv": partial(_our_relu, x), "PyTorch": peer}


def _our_relu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out, cache = relu_forward(x)
    return out, relu_backward(x, cache)


def _torch_relu(x: Any) -> tuple[Any, Any]:
    return torch.relu(x), torch.ops.aten.threshold_backward(x, x, 0)


def run(options: Options) -> None:
    """Measure every layer, print the table, write JSON and PNG."""
    # If the output is not a terminal, no width is set, and the table needs more than the default of 80.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    report = Report(
        "bench_pooling", "Pooling: fastconv against PyTorch", CAPTION, options, RATIOS, set_threads(options.threads)
    )
    batches = (1,) if options.quick else (1, 16)
    layers = options.wanted(LAYERS, Layer.case.fget)
    cases = [(layer, batch, dtype) for dtype in ("float32", "float64") for batch in batches for layer in layers]
    with progress(console, len(cases) * len(TOLERANCE)) as show:
        for layer, batch, dtype in cases:
            case = layer.case + (" float64" if dtype == "float64" else "")
            for panel, tolerance in TOLERANCE.items():
                name = f"{panel}: {case}, batch {batch}"
                show(name)
                timings = measure(name, contenders(panel, layer, batch, dtype), tolerance, options, show, turn=TURN)
                report.rows.append(Row(panel, case, batch, {**layer._asdict(), "dtype": dtype}, timings))
    print_table(report, console)
    for path in report.write(options.out):
        console.print(f"written: {path}", markup=False, soft_wrap=True)


def run_all(options: Options) -> None:
    """Measure the layers, then large windows, which have a picture of their own."""
    if options.only and any(options.only.lower() in window.case.lower() for window in bench_windows.WINDOWS):
        bench_windows.run(options)
        return
    run(options)
    if not options.only:
        bench_windows.run(replace(options, budget=min(options.budget, 0.3)))


if __name__ == "__main__":
    parsed = parse(__doc__.splitlines()[0], repeats=4, budget=1.0, brief="batch 1, few rounds: some two minutes")
    sys.exit(exit_status(partial(run_all, parsed)))
