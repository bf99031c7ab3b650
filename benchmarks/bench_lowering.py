"""im2col, col2im and a convolution by matrix products, against PyTorch, NumPy and a copy of the memory.

Run as ``python benchmarks/bench_lowering.py [--quick]``.
"""

from __future__ import annotations

import math
import sys
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from support.harness import Contenders, Options, console, exit_status, measure, parse, progress, set_threads, torch
from support.layers import Layer
from support.report import Ratio, Report, Row, print_table

import fastconv

Arrays = tuple[np.ndarray | None, ...]

#: `np.add.at` is left out if the lowered matrix has more entries than this.
ADD_AT_ENTRIES = 30_000_000
#: Largest difference from fastconv relative to the largest value. Lowering only moves values. Sums in float32 depend on
#: their order; the gradient of the weights depends on it most, because it sums over all positions of a batch.
TOLERANCE = {"im2col": 0.0, "col2im": 1e-5, "conv step": 1e-4}

RATIOS = (
    Ratio("im2col", "PyTorch unfold", mean=1.5, worst=1.0),
    Ratio("im2col", "NumPy indices"),
    Ratio("im2col", "NumPy windows"),
    Ratio("im2col", "copy limit", own="fastconv out=", mean=0.6, worst=0.6),
    Ratio("col2im", "PyTorch fold", mean=1.5, worst=1.0),
    Ratio("col2im", "NumPy add.at"),
    Ratio("conv step", "NumPy indices", mean=10.0),
    Ratio("conv step", "bare products"),
)

CAPTION = (
    "Time of the peer / time of fastconv: above 1 fastconv is faster. unfold, NumPy indices (fancy indexing as "
    "in CS231n) and NumPy windows (a copy of sliding_window_view) are compared with an im2col that allocates "
    "its result, because they allocate theirs. The copy limit is np.copyto of as many bytes into memory that "
    "was allocated before, so it is compared with im2col(..., out=) into such memory: 1 is the speed of a copy. "
    "conv step is conv_forward and conv_backward with algorithm='im2col'. bare products is the time of its "
    "three matrix products alone, on matrices that are prepared beforehand: the first column divided by it is "
    "the largest ratio that any lowering could reach with this BLAS. All in float32; - means that it was not "
    "run."
)


LAYERS = (
    Layer("CS231n", 32, 3, 32, 7, pad=3),
    Layer("AlexNet", 227, 3, 96, 11, stride=4),
    Layer("VGG", 56, 64, 64, 3, pad=1),
    Layer("ResNet", 224, 3, 64, 7, stride=2, pad=3),
    Layer("ResNet", 56, 128, 128, 3, stride=2, pad=1),
    Layer("GoogLeNet", 28, 16, 32, 5, pad=2),
    Layer("ResNet", 14, 256, 256, 3, pad=1),
    Layer("ResNet", 7, 512, 512, 3, pad=1),
)


def _indices(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Channel, row and column in the padded image for each entry of the lowered matrix."""
    k, i, j = np.indices((layer.channels, layer.kernel, layer.kernel)).reshape(3, -1, 1)
    rows, columns = layer.stride * np.indices(layer.out).reshape(2, 1, -1)
    return k, i + rows, j + columns


def _padded(x: np.ndarray, layer: Layer) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), (layer.pad, layer.pad), (layer.pad, layer.pad)))


def numpy_im2col(x: np.ndarray, layer: Layer) -> np.ndarray:
    """Lower by fancy indexing with indices built on each call, as in CS231n: (N, C * taps, L)."""
    k, i, j = _indices(layer)
    return _padded(x, layer)[:, k, i, j]


def numpy_windows(x: np.ndarray, layer: Layer) -> np.ndarray:
    """Lower by copying a view of all windows: (N, C * taps, L)."""
    windows = sliding_window_view(_padded(x, layer), (layer.kernel, layer.kernel), axis=(2, 3))
    windows = windows[:, :, :: layer.stride, :: layer.stride].transpose(0, 1, 4, 5, 2, 3)
    return np.ascontiguousarray(windows).reshape(len(x), -1, math.prod(layer.out))


def numpy_col2im(cols: np.ndarray, layer: Layer) -> np.ndarray:
    """The adjoint by `np.add.at` with indices built on each call, as in CS231n, from (N, C * taps, L)."""
    size = layer.size + 2 * layer.pad
    padded = np.zeros((len(cols), layer.channels, size, size), cols.dtype)
    k, i, j = _indices(layer)
    np.add.at(padded, (slice(None), k, i, j), cols)
    inside = slice(layer.pad, size - layer.pad)
    return padded[:, :, inside, inside]


def numpy_step(x: np.ndarray, w: np.ndarray, b: np.ndarray, dout: np.ndarray, layer: Layer) -> Arrays:
    """out, dx, dw and db as in CS231n: one product over the whole batch, with images as the last axis."""
    filters, images = len(w), len(x)
    rows = w.reshape(filters, -1)
    cols = numpy_im2col(x, layer).transpose(1, 2, 0).reshape(rows.shape[1], -1)
    # [F x K] @ [K x L], [F x L] @ [L x K], [K x F] @ [F x L], with L over all images
    out = (rows @ cols + b.reshape(-1, 1)).reshape(filters, *layer.out, images)

    gradient = dout.transpose(1, 2, 3, 0).reshape(filters, -1)
    dw = (gradient @ cols.T).reshape(w.shape)
    dcols = (rows.T @ gradient).reshape(rows.shape[1], -1, images).transpose(2, 0, 1)
    return out.transpose(3, 0, 1, 2), numpy_col2im(dcols, layer), dw, dout.sum(axis=(0, 2, 3))


def fastconv_step(x: np.ndarray, w: np.ndarray, b: np.ndarray, dout: np.ndarray, layer: Layer) -> Arrays:
    """out, dx, dw and db by fastconv."""
    out, cache = fastconv.conv_forward(x, w, b, stride=layer.stride, pad=layer.pad, algorithm="im2col")
    return out, *fastconv.conv_backward(dout, cache)


def _copy(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    np.copyto(target, source)
    return target


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def im2col_contenders(layer: Layer, batch: int) -> Contenders:
    """Contenders for lowering; the result of the first is the reference."""
    x = _normal(batch, layer.channels, layer.size, layer.size)
    ours = partial(fastconv.im2col, x, layer.kernel, stride=layer.stride, pad=layer.pad)
    lowered = ours()
    unfold = None
    if torch is not None:
        function, image = torch.nn.functional.unfold, torch.from_numpy(x)
        unfold = partial(function, image, layer.kernel, padding=layer.pad, stride=layer.stride)
    return {
        "fastconv": ours,
        "fastconv out=": partial(ours, out=np.empty_like(lowered)),
        "PyTorch unfold": unfold,
        "NumPy indices": partial(numpy_im2col, x, layer),
        "NumPy windows": partial(numpy_windows, x, layer),
        "copy limit": partial(_copy, np.empty_like(lowered), lowered),
    }


def col2im_contenders(layer: Layer, batch: int) -> Contenders:
    """Contenders for the adjoint of lowering."""
    cols = _normal(batch, layer.channels * layer.kernel**2, math.prod(layer.out))
    shape = (batch, layer.channels, layer.size, layer.size)
    fold = None
    if torch is not None:
        function, matrix = torch.nn.functional.fold, torch.from_numpy(cols)
        fold = partial(function, matrix, shape[2:], layer.kernel, padding=layer.pad, stride=layer.stride)
    small = layer.entries(batch) <= ADD_AT_ENTRIES
    return {
        "fastconv": partial(fastconv.col2im, cols, shape, layer.kernel, stride=layer.stride, pad=layer.pad),
        "PyTorch fold": fold,
        "NumPy add.at": partial(numpy_col2im, cols, layer) if small else None,
    }


def step_contenders(layer: Layer, batch: int) -> Contenders:
    """Contenders for forward and backward of a convolution by matrix products on the lowered images."""
    x = _normal(batch, layer.channels, layer.size, layer.size)
    w = _normal(layer.filters, layer.channels, layer.kernel, layer.kernel)
    arrays = (x, w, _normal(layer.filters), _normal(batch, layer.filters, *layer.out))
    small = layer.entries(batch) <= ADD_AT_ENTRIES
    rows, dout = w.reshape(layer.filters, -1), arrays[3].reshape(batch, layer.filters, -1)
    cols = _normal(rows.shape[1], dout.shape[2])
    return {
        "fastconv": partial(fastconv_step, *arrays, layer),
        "NumPy indices": partial(numpy_step, *arrays, layer) if small else None,
        "bare products": partial(_products, rows, cols, dout, tuple(map(np.empty_like, (dout[0], cols, rows)))),
    }


def _products(w: np.ndarray, cols: np.ndarray, dout: np.ndarray, results: tuple[np.ndarray, ...]) -> None:
    out, dcols, dw = results
    for _ in range(len(dout)):
        # [F x K] @ [K x L], [K x F] @ [F x L], [F x L] @ [L x K]
        np.matmul(w, cols, out=out)
        np.matmul(w.T, dout[0], out=dcols)
        np.matmul(dout[0], cols.T, out=dw)


PANELS = {"im2col": im2col_contenders, "col2im": col2im_contenders, "conv step": step_contenders}


def run(options: Options) -> None:
    """Measure every layer, print the table, write JSON and PNG."""
    screen = console(120)
    title = "Lowering: fastconv against PyTorch, NumPy and copying memory"
    report = Report("bench_lowering", title, CAPTION, options, RATIOS, set_threads(options.threads))
    layers = options.wanted(LAYERS, Layer.case.fget)
    cases = [(layer, batch) for batch in ((1,) if options.quick else (1, 16)) for layer in layers]
    with progress(screen, len(cases) * len(PANELS)) as show:
        for layer, batch in cases:
            for panel, contenders in PANELS.items():
                name = f"{panel}: {layer.case}, batch {batch}"
                show(name)
                timings = measure(name, contenders(layer, batch), TOLERANCE[panel], options, show)
                details = {**layer._asdict(), "entries": layer.entries(batch)}
                report.rows.append(Row(panel, layer.case, batch, details, timings))
    print_table(report, screen)
    for path in report.write(options.out):
        screen.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(__doc__.splitlines()[0])
    sys.exit(exit_status(partial(run, parsed)))
