"""When does a sparse convolution win? Pruned weights and Toeplitz matrices against dense algorithms.

Run as ``python benchmarks/sparse_vs_dense.py [--quick]``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from support import matrices
from support.construction import (
    CAPTIONS,
    columns,
    image_cases,
    image_rows,
    layer_cases,
    layer_rows,
    memory_verdicts,
    ratios_of,
)
from support.harness import INSTALL, Options, console, exit_status, load_average, measure, parse, progress, set_threads
from support.layers import LIST, Layer
from support.peers import optional
from support.pruned import BY_MATRIX, DENSE, MOST_BYTES, Case, Curves, contenders, crossover, dense_choice
from support.report import Report, full_title, in_words, judged, new_table, print_table, run_info, short, write
from support.sparse_growth import growth_points, measured_point, print_growth

NAME = "sparse_vs_dense"
TITLE = "Pruned weights: sparse against dense, float32 forward"
TOLERANCE = 1e-4
#: Seconds of a turn: long enough to repeat a short call in a loop, and short enough for hundreds of contenders.
TURN = 0.015
#: Layers of the list; the targets are about the 3x3 layers.
THREES = ("VGG 56 256-256 k3", "VGG 14 512-512 k3", "ResNet 56 64-64 k3", "ResNet 28 128-128 k3")
THREES += ("ResNet 7 512-512 k3", "GoogLeNet 14 160-320 k3")
OTHERS = ("GoogLeNet 28 16-32 k5", "LeNet 14 6-16 k5")
STRUCTURED = ("ResNet 28 128-128 k3", "GoogLeNet 14 160-320 k3")
QUICK = ("VGG 14 512-512 k3", "ResNet 56 64-64 k3", "LeNet 14 6-16 k5"), ("ResNet 28 128-128 k3",)
#: The fraction of zeros for which the targets are stated.
AT = 0.9
#: Targets for the ratio of implicit and of auto to sparse at that fraction, and for the crossover in percent.
TARGETS = {"implicit": 3.0, "auto": 1.5, "crossover": 65.0}

CAPTION = (
    "Milliseconds of a forward call. auto, implicit, im2col and PyTorch compute with dense weights, sparse "
    "computes with pruned ones at each percentage of zeros. 'auto, pruned' is auto with the pruned weights: its "
    "largest time, divided by the better of sparse and dense auto. A crossover is the percentage of zeros from "
    "which sparse stays faster. It is interpolated between the measured percentages (the logarithm of the "
    "ratio is taken to be linear in the logarithm of the density). The contenders of a line take turns, and "
    "each result is compared with algorithm='im2col' in float64 for the same weights. Whole taps are places of "
    "the kernel that are zero in all filters; whole channels are channels of the input. A dense layer can leave "
    "such channels out, too; the picture shows that layer, including the time to cut the images."
)
TOEPLITZ_CAPTION = (
    "Milliseconds with the Toeplitz matrix: first algorithm='toeplitz', which makes the matrix on every call, "
    "some rows at a time; then SciPy's CSR product with a finished matrix; then fastconv's product with the "
    f"same matrix. Images keep their memory layout. A matrix of more than {MOST_BYTES >> 20} MiB is not made; "
    "the table shows the size that it would have."
)


@dataclass
class Found:
    """All results of part (a)."""

    cases: list[tuple[Case, Curves, dict[float, dict[str, Any]], str]] = field(default_factory=list)

    def of(self, pattern: str) -> list[tuple[Case, Curves]]:
        """The cases of one way to prune."""
        return [(case, curves) for case, curves, _, _ in self.cases if case.pattern == pattern]

    @property
    def threes(self) -> list[Curves]:
        """The curves of the layers that the targets are about."""
        return [curves for case, curves in self.of("random") if case.layer.case in THREES]

    def mean(self, peer: str, zeros: float) -> float | None:
        """The mean ratio of a peer to sparse over the 3x3 layers."""
        found = [ratio for curves in self.threes if (ratio := curves.ratio(peer, "sparse", zeros))]
        return statistics.geometric_mean(found) if found else None

    def worst(self, peer: str, zeros: float) -> tuple[float, str] | None:
        """The least ratio over the 3x3 layers, and the case that has it."""
        found = [
            (ratio, case.name)
            for case, curves in self.of("random")
            if case.layer.case in THREES and (ratio := curves.ratio(peer, "sparse", zeros))
        ]
        return min(found, default=None)

    def crossover(self, peer: str) -> float | None:
        """The crossover of the mean ratio, in percent of zeros."""
        zeros = self.threes[0].zeros if self.threes else ()
        where = crossover([(z, ratio) for z in zeros if (ratio := self.mean(peer, z))])
        return None if where is None else 100 * where


def cases(options: Options) -> list[Case]:
    """The layers, batches and patterns of this run."""
    names, structured = QUICK if options.quick else ((*THREES, *OTHERS), STRUCTURED)
    layers = {layer.case: layer for layer in LIST}
    found = [Case(layers[name], batch, "random") for name in names for batch in ((1,) if options.quick else (1, 16))]
    return found + [Case(layers[name], 1, pattern) for name in structured for pattern in ("taps", "channels")]


def measured(case: Case, options: Options, show: Callable[..., None]) -> tuple[Case, Curves, dict, str]:
    """Measure one case, with all contenders in turns."""
    calls, oracles, told = contenders(case, options.threads)
    timings = measure(case.name, calls, TOLERANCE, options, show, oracles, TURN)
    return case, Curves(timings, told), told, dense_choice(case.layer, case.batch, options.threads)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g}"


def _percent(where: float | None, curves: Curves) -> str:
    """Of a crossover."""
    if where is None:
        return f"> {100 * curves.zeros[-1]:.0f} %"
    return f"{100 * where:.0f} %"


def regret(curves: Curves) -> float:
    """The largest time of 'auto' on pruned weights, divided by the better of sparse and the dense choice."""
    ratios = []
    for zeros in curves.zeros:
        dense, sparse, chosen = (curves.seconds(name, zeros) for name in ("auto", "sparse", "auto, pruned"))
        if dense and sparse and chosen:
            ratios.append(chosen / min(dense, sparse))
    return max(ratios)


def print_cases(found: Found, options: Options, screen: Console) -> None:
    """Print a table for each pattern, then the table of matrices."""
    for pattern in ("random", "taps", "channels"):
        here = [entry for entry in found.cases if entry[0].pattern == pattern]
        if not here:
            continue
        how = {"random": "single weights at random", "taps": "whole taps", "channels": "whole channels"}[pattern]
        table = new_table(f"{full_title(TITLE, options)}: {how}")
        table.add_column("layer", no_wrap=True)
        table.add_column("batch", justify="right")
        for name in ("auto takes", *DENSE):
            table.add_column(name, justify="right")
        # Whole channels are pruned, so layers differ a little in their percentage of zeros.
        percents = sorted({round(100 * z) for _, curves, _, _ in here for z in curves.zeros})
        for percent in percents:
            table.add_column(f"sparse\n{percent} %", justify="right")
        for peer in ("implicit", "auto", "PyTorch"):
            table.add_column(f"crossover\n{peer}", justify="right")
        table.add_column("auto,\npruned", justify="right")
        for case, curves, _, choice in here:
            dense = (_ms(curves.seconds(name, 0.0)) for name in DENSE)
            by_percent = {round(100 * z): _ms(curves.seconds("sparse", z)) for z in curves.zeros}
            sparse = (by_percent.get(percent, "-") for percent in percents)
            across = (_percent(curves.crossover(peer), curves) for peer in ("implicit", "auto", "PyTorch"))
            cells = (choice, *dense, *sparse, *across, short(regret(curves)))
            table.add_row(case.layer.case, str(case.batch), *cells)
        screen.print(table)
    screen.print(CAPTION)
    table = new_table(f"{full_title(TITLE, options)}: with the Toeplitz matrix", TOEPLITZ_CAPTION)
    table.add_column("layer", no_wrap=True)
    table.add_column("batch", justify="right")
    here = [entry for entry in found.cases if entry[0].pattern == "random"]
    for z in here[0][1].zeros if here else ():
        table.add_column(f"{100 * z:.0f} %", justify="right")
    for case, curves, told, _ in here:
        cells = []
        for z in curves.zeros:
            size = told[z]["matrix_bytes"]
            times = "\n".join(_ms(curves.seconds(name, z)) for name in BY_MATRIX)
            cells.append(times if size <= MOST_BYTES else f"needs {size / 2**30:.2g} GiB")
        table.add_row(case.layer.case, str(case.batch), *cells)
    if here:
        screen.print(table)


def as_json(found: Found) -> list[dict[str, Any]]:
    """All cases as plain data."""
    rows = []
    for case, curves, told, choice in found.cases:
        timed = curves.timings.items()
        rows.append(
            {
                "case": case.layer.case,
                "batch": case.batch,
                "pattern": case.pattern,
                "layer": case.layer._asdict(),
                "auto_takes": choice,
                "zeros": [{"fraction": zeros, **facts} for zeros, facts in told.items()],
                "crossover": {name: curves.crossover(name) for name in DENSE},
                "auto_regret": regret(curves),
                "median_seconds": {name: t and t.seconds for name, t in timed},
                "quartile_seconds": {name: t and t.quartiles for name, t in timed},
                "repeats": {name: t and t.repeats for name, t in timed},
                "error": {name: t and t.error for name, t in timed},
            }
        )
    return rows


Verdict = tuple[str, dict[str, Any], bool, str]


def verdicts(found: Found, reports: list[Report]) -> Iterator[Verdict]:
    """Each target: its name, the value and the target, whether the target is an upper limit, and the worst case."""
    for peer in ("implicit", "auto"):
        worst = found.worst(peer, AT)
        where = f"least {short(worst[0])}, {worst[1]}" if worst else ""
        name = f"sparse at {100 * AT:.0f} % zeros: {peer} (dense) / sparse, 3x3 layers"
        yield name, judged(found.mean(peer, AT), TARGETS[peer]), False, where
    across = found.crossover("implicit")
    single = [curves.crossover("implicit") for curves in found.threes]
    known = [100 * where for where in single if where is not None]
    where = f"of single layers {min(known):.0f} to {max(known):.0f} %" if known else ""
    yield "crossover of the mean against implicit, %", judged(across, TARGETS["crossover"], True), True, where
    for report in reports:
        for ratio in report.ratios:
            if ratio.mean is not None:
                value, target = report.statistic(ratio, "geomean")
                least, _ = report.statistic(ratio, "worst")
                where = f"least {short(least)}, {report.worst_case(ratio)}"
                name = f"{report.name.rpartition('_')[2]}, {ratio.panel}: {ratio.peer} / {ratio.own}"
                yield name, judged(value, target), False, where
    yield from memory_verdicts(reports)


def print_verdicts(rows: list[Verdict], screen: Console) -> None:
    """Print whether each target is met."""
    table = new_table("Against the targets: met or missed (geometric means)")
    for heading in ("what", "value", "target", "", "where"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for name, verdict, at_most, where in rows:
        value, target, word = [*in_words(verdict["value"], verdict["target"], at_most).split("\n"), "", ""][:3]
        table.add_row(name, value, target, word, where)
    screen.print(table)


def run(options: Options) -> None:
    """Measure everything, print the tables, write JSON and PNG."""
    screen = console(215)
    load_before = load_average()
    blas_threads = set_threads(options.threads)
    wanted: list[tuple[str, Any]] = [("pruned", case) for case in cases(options)]
    wanted += [("growth", point) for point in growth_points(options.quick)]
    wanted += [("layers", layer) for layer in layer_cases(options.quick)]
    wanted += [("images", layer) for layer in image_cases(options.quick)]
    wanted = options.wanted(wanted, lambda item: item[1].case if isinstance(item[1], Layer) else item[1].name)
    found, points = Found(), []
    reports = {
        part: Report(f"{NAME}_{part}", titles[0], titles[1], options, ratios_of(part), blas_threads)
        for part, titles in CAPTIONS.items()
    }
    with progress(screen, len(wanted)) as show:
        # Threads that have just started may share a CPU for a while, so the first measurement is discarded.
        measured(cases(options)[-1], options, lambda *_: None)
        for part, item in wanted:
            show(item.case if isinstance(item, Layer) else item.name)
            if part == "pruned":
                found.cases.append(measured(item, options, show))
            elif part == "growth":
                points.append(measured_point(item, options, show))
            else:
                rows = layer_rows if part == "layers" else image_rows
                reports[part].rows += rows(item, options, show)
    full = [report for report in reports.values() if report.rows]
    print_cases(found, options, screen)
    if points:
        print_growth(points, options, screen)
    for report in full:
        for panel in dict.fromkeys(ratio.panel for ratio in report.ratios):
            print_table(report, screen, panel, columns(report, panel))
        screen.print(report.caption)
    summary = list(verdicts(found, full))
    print_verdicts(summary, screen)
    for name, module in matrices.OPTIONAL.items():
        if optional(module) is None:
            screen.print(f"{name} is not installed and takes no part; type: {INSTALL}", style="yellow", markup=False)
    info = {**run_info(NAME, options, blas_threads, load_before), "optional": matrices.optional_versions()}
    facts = [{"what": name, **verdict, "where": where} for name, verdict, _, where in summary]
    paths: list[Path] = []
    if found.cases:
        data = {**info, "summary": facts, "results": as_json(found)}
        paths += write(options.out, NAME, data)
    if points:
        growth = {**info, "results": points}
        paths += write(options.out, f"{NAME}_growth", growth)
    for report in full:
        paths += report.write(options.out)
    for path in paths:
        screen.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(
        __doc__.splitlines()[0], repeats=7, budget=2.5, brief="batch 1, few layers, few rounds: under a minute"
    )
    sys.exit(exit_status(partial(run, parsed)))
