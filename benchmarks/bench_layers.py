"""Convolution forward and backward, against PyTorch, ONNX Runtime, the bare matrix product and the machine's peak.

Run as ``python benchmarks/bench_layers.py [--quick]``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
from support.harness import (
    TURN,
    Bound,
    Call,
    Contenders,
    Options,
    Oracle,
    console,
    exit_status,
    measure,
    parse,
    progress,
    set_threads,
)
from support.layers import BEYOND, LIST, Layer
from support.peers import onnxruntime, ours, pytorch, why_no_onnxruntime
from support.report import Column, Ratio, Report, Row, print_summary, print_table

import fastconv
from fastconv._ext.simd import peak
from fastconv.convolution.choose import choose
from fastconv.convolution.plan import Case
from fastconv.runtime import isa as _isa, threads as _threads

Arrays = tuple[np.ndarray, ...]

DTYPES = ("float32", "float64")
#: The ops that make up each panel.
PARTS = {"forward": {"": "forward"}, "backward": {"dx ": "backward_data", "dw ": "backward_weights"}}
#: A larger difference is an error, not rounding.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
#: Seconds of the loop in registers, and the number of output positions side by side in a bare product of small images.
PEAK_SECONDS, POSITIONS = 4e-3, 2048
#: The row in which the implicit product alone is compared with the peak.
ALONE = ("VGG 56 256-256 k3", 16, "float32", "forward")


def ratios(title: str, ort: bool, targets: dict[str, tuple[float, float]]) -> tuple[Ratio, ...]:
    """The ratios of a panel, to peers and to bounds."""
    found = []
    for dtype in DTYPES:
        for op in PARTS:
            panel = f"{dtype} {op}"
            mean, worst = targets.get(panel, (None, None))
            found.append(Ratio(panel, "PyTorch", mean=mean, worst=worst))
            if ort and (dtype, op) == ("float32", "forward"):
                mean, worst = targets.get("ONNX Runtime", (None, None))
                found.append(Ratio(panel, "ONNX Runtime", mean=mean, worst=worst))
            found.append(Ratio(panel, "bare GEMM", bound=True))
            found.append(Ratio(panel, "FMA peak", bound=True))
    if title == "Layers of the list":
        found.append(Ratio(f"{ALONE[2]} {ALONE[3]}", "FMA peak", "fastconv implicit", worst=0.8, single=True))
    return tuple(found)


TARGETS = {
    "Layers of the list": {
        "float32 forward": (2.0, 0.9),
        "ONNX Runtime": (1.5, 0.8),
        "float32 backward": (2.0, 0.9),
        "float64 forward": (2.5, 1.0),
        "float64 backward": (2.0, 1.0),
    },
    "Layers beyond the list": {"float32 forward": (1.5, 0.7), "float64 forward": (1.5, 0.7)},
}

CAPTION = (
    "Time of the peer / time of fastconv with algorithm='auto': above 1 fastconv is faster. All have the same "
    "number of threads and take turns, each after the threads of the previous one sleep; a short call is "
    "repeated within a turn. backward is dx, dw and db together. bare GEMM is np.matmul with the same m, n, k "
    "on matrices that are prepared beforehand (of one image, or of a few small images side by side, scaled to "
    "the batch). FMA peak is a loop of multiply-adds on registers only, in all threads. Its column is the "
    "fraction of the peak that fastconv reaches, with the operations of the direct sum, so that Winograd's "
    "fraction may exceed 1. An error is the largest difference from algorithm='im2col' in float64, relative to "
    "the largest value. In float64 it shows the difference between two orders of summation, and is 0 if auto "
    "takes im2col itself."
)


def gemm(layer: Layer, batch: int, dtype: str, op: str) -> Bound:
    """The matrix products of some images, with groups stacked; results go to memory that is allocated beforehand."""
    m, n, k = layer.product
    images = max(1, min(batch, POSITIONS // n))
    n *= images
    rng = np.random.default_rng(0)
    shapes = (layer.groups, m, k), (layer.groups, k, n), (layer.groups, m, n)
    w, cols, out = (rng.standard_normal(shape, dtype=np.float32).astype(dtype) for shape in shapes)

    def forward() -> None:
        np.matmul(w, cols, out=out)  # [m x k] @ [k x n]

    def backward() -> None:
        np.matmul(w.mT, out, out=dcols)  # [k x m] @ [m x n]
        np.matmul(out, cols.mT, out=dw)  # [m x n] @ [n x k]

    dcols, dw = (np.empty_like(cols), np.empty_like(w)) if op == "backward" else (cols, w)
    return Bound(forward if op == "forward" else backward, batch / images)


def fma_peak(dtype: str, threads: int) -> tuple[Call, float]:
    """The loop of multiply-adds in registers, and its number of operations."""
    which = DTYPES.index(dtype), _isa.current
    sums = np.zeros(threads)
    # A core does 1e10 to 2e11 operations a second.
    items = max(1, int(PEAK_SECONDS * 5e10 * threads / peak.operations(*which)))

    def loop() -> None:
        _threads.share(peak.multiply_add, (items, *which, sums), items=items, work=1 << 40, threads=threads)

    return loop, float(items * peak.operations(*which))


def algorithm(layer: Layer, batch: int, dtype: str, op: str, threads: int) -> str:
    """The algorithm that 'auto' takes."""
    geometry = layer.geometry(batch)
    names = {
        part: choose(Case.of(name, geometry, np.dtype(dtype), threads)).algorithm  # type: ignore[arg-type]
        for part, name in PARTS[op].items()
    }
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ", ".join(part + name for part, name in names.items())


def oracles(layer: Layer, arrays: Arrays) -> dict[str, Arrays | np.ndarray]:
    """The results of both ops, computed in float64 by the definition."""
    x, w, b, dout = (array.astype(np.float64) for array in arrays)
    out, cache = fastconv.conv_forward(x, w, b, **layer.options, algorithm="im2col")
    return {"forward": out, "backward": fastconv.conv_backward(dout, cache)}


def rows(layer: Layer, batch: int, options: Options, show) -> Iterator[Row]:
    """A row for each dtype and op of a layer."""
    singles = layer.arrays(batch)
    right = oracles(layer, singles)
    for dtype in DTYPES:
        arrays = tuple(array.astype(dtype, copy=False) for array in singles)
        loop, operations = fma_peak(dtype, options.threads)
        for op in PARTS:
            name = f"{dtype} {op}: {layer.case}, batch {batch}"
            show(name)
            flops = layer.geometry(batch).flops * len(PARTS[op])
            contenders: Contenders = {
                "fastconv": ours(layer, op, *arrays),
                "PyTorch": pytorch(layer, op, *arrays),
                "ONNX Runtime": onnxruntime(layer, op, *arrays[:3], options.threads),
                "bare GEMM": gemm(layer, batch, dtype, op),
                "FMA peak": Bound(loop, flops / operations),
            }
            if (layer.case, batch, dtype, op) == ALONE:
                contenders = {**contenders, "fastconv implicit": ours(layer, op, *arrays, "implicit")}
            oracle = Oracle(right[op], np.dtype(dtype))
            timings = measure(name, contenders, TOLERANCE[dtype], options, show, oracle, TURN)
            details = {
                "layer": layer._asdict(),
                "product": dict(zip("mnk", layer.product, strict=True)),
                "algorithm": algorithm(layer, batch, dtype, op, options.threads),
                "flops": flops,
                "gflops": {name: t and flops / t.seconds / 1e9 for name, t in timings.items()},
            }
            yield Row(f"{dtype} {op}", layer.case, batch, details, timings)


def _error_of(name: str, row: Row) -> str:
    timing = row.timings[name]
    return "-" if timing is None else f"{timing.error:.0e}"


def columns(panel: str) -> list[Column]:
    """Columns of a panel's table besides the ratios."""
    peers = ["fastconv", "PyTorch", *(["ONNX Runtime"] if panel == "float32 forward" else [])]
    return [
        Column("GFLOP/s", lambda row: f"{row.details['gflops']['fastconv']:.1f}"),
        Column("of a peak of", lambda row: f"{row.details['gflops']['FMA peak']:.0f}"),
        *(Column(f"error\n{name}", partial(_error_of, name)) for name in peers),
        Column("algorithm", lambda row: row.details["algorithm"], justify="left"),
    ]


def run(options: Options) -> None:
    """Measure every layer, print the tables, write JSON and PNG."""
    screen = console(170)
    blas_threads = set_threads(options.threads)
    reasons = {dtype: why_no_onnxruntime(dtype) for dtype in DTYPES}
    step_list, step_beyond = (3, 5) if options.quick else (1, 1)
    tables = {"Layers of the list": LIST[::step_list], "Layers beyond the list": BEYOND[::step_beyond]}
    chosen = options.wanted([layer for layers in tables.values() for layer in layers], Layer.case.fget)
    reports = []
    for title, layers in tables.items():
        name = "bench_layers" if title == "Layers of the list" else "bench_layers_beyond"
        parts = ratios(title, reasons["float32"] is None, TARGETS[title])
        report = Report(name, title, CAPTION, options, parts, blas_threads)
        here = [layer for layer in layers if layer in chosen]
        cases = [(layer, batch) for batch in ((1,) if options.quick else (1, 16)) for layer in here]
        with progress(screen, len(cases) * len(DTYPES) * len(PARTS)) as show:
            # Threads that have just started may share a CPU for a while, so the first measurement is discarded.
            for layer, batch in cases[:1]:
                list(rows(layer, batch, options, lambda *_: None))
            for layer, batch in cases:
                report.rows += rows(layer, batch, options, show)
        if report.rows:
            reports.append(report)
    for report in reports:
        for panel in dict.fromkeys(ratio.panel for ratio in report.ratios):
            print_table(report, screen, panel, columns(panel))
    print_summary(reports, screen)
    screen.print(CAPTION)
    for dtype, reason in reasons.items():
        if reason:
            screen.print(f"ONNX Runtime takes no part in {dtype}: {reason}", style="yellow", markup=False)
    for report in reports:
        for path in report.write(options.out):
            screen.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(
        __doc__.splitlines()[0],
        repeats=4,
        budget=1.0,
        brief="batch 1, every few layers, few rounds: under two minutes",
    )
    sys.exit(exit_status(partial(run, parsed)))
