"""Time and peak memory as batch, channels and image size double, with one thread and with several.

Run as ``python benchmarks/bench_scaling.py [--quick]``.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console
from support.harness import (
    TURN,
    Contenders,
    Options,
    console,
    exit_status,
    load_average,
    measure,
    parse,
    progress,
    set_threads,
)
from support.layers import Layer
from support.memory import COUNTED, MIB, extra, why_not
from support.peers import onnxruntime, ours, pytorch
from support.report import full_title, new_table, run_info, short, write

TITLE = "A 3x3 layer as its batch, channels and image double, float32"
OPS = ("forward", "backward")
#: The base layer, of which one size at a time changes: batch, input channels, and rows and columns; and its filters.
BASE = {"N": 4, "C": 64, "H": 28}
FILTERS = 64
STEPS = {"N": (1, 2, 4, 8, 16, 32, 64), "C": (8, 16, 32, 64, 128, 256, 512), "H": (7, 14, 28, 56, 112, 224)}
MEANING = {"N": "batch", "C": "channels", "H": "rows and columns"}
#: The name of each contender here, and its name in the measurement of memory.
CONTENDERS = {"fastconv": "auto", "PyTorch": "PyTorch", "ONNX Runtime": "ONNX Runtime"}
TOLERANCE = 1e-3

CAPTION = (
    f"One size at a time of a layer with N={BASE['N']}, C={BASE['C']}, H=W={BASE['H']}, {FILTERS} filters 3x3, pad 1. "
    "Times are ratios, peer / fastconv: above 1 fastconv is faster. backward is dx, dw and db. "
)


class Point(NamedTuple):
    """One layer, one op and one number of threads."""

    axis: str
    value: int
    op: str
    threads: int

    @property
    def layer(self) -> Layer:
        """The layer."""
        sizes = {**BASE, self.axis: self.value}
        return Layer("", sizes["H"], sizes["C"], FILTERS, 3, pad=1)

    @property
    def batch(self) -> int:
        """Its batch."""
        return self.value if self.axis == "N" else BASE["N"]

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.op}: {MEANING[self.axis]} {self.value}, threads {self.threads}"


def measured(point: Point, options: Options, memory: bool, show) -> dict[str, Any]:
    """Seconds and bytes of all contenders at a point."""
    set_threads(point.threads)
    arrays = point.layer.arrays(point.batch)
    contenders: Contenders = {
        "fastconv": ours(point.layer, point.op, *arrays),
        "PyTorch": pytorch(point.layer, point.op, *arrays),
        "ONNX Runtime": onnxruntime(point.layer, point.op, *arrays[:3], point.threads),
    }
    timings = measure(point.name, contenders, TOLERANCE, options, show, turn=TURN)
    nbytes: dict[str, int | None] = {}
    for name, known_as in CONTENDERS.items():
        present = memory and contenders[name] is not None
        answer = extra(known_as, point.layer, point.op, point.batch, point.threads) if present else None
        nbytes[name] = answer and answer.nbytes
        show()
    return {
        **point._asdict(),
        "batch": point.batch,
        "layer": point.layer._asdict(),
        "median_seconds": {name: t and t.seconds for name, t in timings.items()},
        "quartile_seconds": {name: t and t.quartiles for name, t in timings.items()},
        "repeats": {name: t and t.repeats for name, t in timings.items()},
        "extra_bytes": nbytes,
    }


class Results:
    """The values of all points."""

    def __init__(self, results: list[dict[str, Any]]) -> None:
        self.results = results
        self._by_point = {Point(*(r[field] for field in Point._fields)): r for r in results}

    def value(self, point: Point, what: str, contender: str) -> float | None:
        """Seconds or bytes of one contender at a point."""
        found = self._by_point.get(point)
        return found and found[what][contender]

    def ratio(self, point: Point, peer: str) -> float | None:
        """The peer's seconds divided by fastconv's."""
        own, other = (self.value(point, "median_seconds", name) for name in ("fastconv", peer))
        return other / own if own and other else None

    def speedup(self, op: str, threads: int, contender: str) -> float | None:
        """The speed-up of several threads over one, as the geometric mean over all points."""
        found = []
        for point in self._by_point:
            if (point.op, point.threads) == (op, threads):
                one = self.value(point._replace(threads=1), "median_seconds", contender)
                many = self.value(point, "median_seconds", contender)
                found += [one / many] if one and many else []
        return statistics.geometric_mean(found) if found else None


def print_tables(results: Results, counts: list[int], options: Options, screen: Console) -> None:
    """Print ratios and MiB at every point, and the speed-up by threads."""
    table = new_table(full_title(TITLE, options), CAPTION + COUNTED)
    table.add_column("size")
    columns = [
        (op, threads, peer)
        for op in OPS
        for threads in counts
        for peer in list(CONTENDERS)[1:]
        if (op, peer) != ("backward", "ONNX Runtime")
    ]
    for op, threads, peer in columns:
        table.add_column(f"{op}\n{peer}\nthreads {threads}", justify="right")
    for op in OPS:
        table.add_column(f"{op} MiB\n{' | '.join(name.split()[0] for name in CONTENDERS)}", justify="right")
    for axis in STEPS:
        for value in dict.fromkeys(r["value"] for r in results.results if r["axis"] == axis):
            cells = [short(results.ratio(Point(axis, value, op, threads), peer)) for op, threads, peer in columns]
            for op in OPS:
                sizes = (results.value(Point(axis, value, op, counts[-1]), "extra_bytes", name) for name in CONTENDERS)
                cells.append(" | ".join("-" if size is None else f"{size / MIB:.1f}" for size in sizes))
            table.add_row(f"{axis} {value}", *cells)
        table.add_section()
    screen.print(table)
    if len(counts) > 1:
        table = new_table(f"Time in one thread / time in {counts[-1]}, geometric mean")
        table.add_column("op")
        for name in CONTENDERS:
            table.add_column(name, justify="right")
        for op in OPS:
            table.add_row(op, *(short(results.speedup(op, counts[-1], name)) for name in CONTENDERS))
        screen.print(table)


def run(options: Options) -> None:
    """Measure every point, print the tables, write JSON and PNG."""
    screen = console(170)
    load_before = load_average()
    blas_threads = set_threads(options.threads)
    reason = why_not()
    counts = sorted({1, options.threads})
    points = [
        Point(axis, value, op, threads)
        for axis, values in STEPS.items()
        for value in (values[1::3] if options.quick else values)
        for op in OPS
        for threads in counts
    ]
    points = options.wanted(points, Point.name.fget)
    found = []
    with progress(screen, len(points)) as show:
        for point in points:
            show(point.name)
            found.append(measured(point, options, reason is None, show))
    results = Results(found)
    print_tables(results, counts, options, screen)
    if reason is not None:
        screen.print(f"Memory was not measured: {reason}.", style="yellow", markup=False)
    summary = [
        {"op": op, "contender": name, "speedup": results.speedup(op, counts[-1], name)}
        for op in OPS
        for name in CONTENDERS
    ]
    info = run_info("bench_scaling", options, blas_threads, load_before)
    data = {**info, "counted": COUNTED, "summary": summary, "results": found}
    for path in write(options.out, "bench_scaling", data):
        screen.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(
        __doc__.splitlines()[0], repeats=3, budget=1.0, brief="two or three sizes of each: under two minutes"
    )
    sys.exit(exit_status(partial(run, parsed)))
