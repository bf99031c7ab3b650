"""Image filters, long signals, separable kernels and borders against OpenCV, SciPy, PyTorch and NumPy's FFT.

Run as ``python benchmarks/bench_filters.py [--quick]``.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from support.filter_cases import BORDERS, FILTERS, SEPARABLE, SIGNALS, BorderCase, FilterCase, SeparableCase, SignalCase
from support.filter_peers import borders, filters, separable, signals
from support.harness import Options, Timing, console, exit_status, measure, parse, progress, set_threads
from support.peers import optional
from support.report import Column, Ratio, Report, Row, print_summary, print_table, short

#: A contender has a single turn if it takes this many times as long as the fastest one.
HOPELESS = 10.0
#: Seconds of a turn; shorter than in other benchmarks, because there are many rows.
TURN = 0.04
#: Largest difference relative to the largest value. The error of a transform grows with the size of the image.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}

RATIOS = (
    Ratio("image filters", "best peer", mean=1.3, worst=0.9),
    Ratio("signals and volumes", "best of SciPy", worst=1.0),
    Ratio("signals and volumes", "PyTorch"),
    Ratio("separable kernels", "best peer", mean=1.0, worst=0.7),
    Ratio("separable kernels", "cv2.boxFilter"),
    Ratio("borders", "NumPy FFT", own="fastconv fft", worst=1.0),
    Ratio("borders", "NumPy FFT", own="fastconv auto", worst=1.0),
)

CAPTION = (
    "Time of the peer / time of fastconv: above 1 fastconv is faster. The contenders take turns, each after the "
    "threads of the previous one sleep, and a short call is repeated within a turn. A contender that takes 10 "
    "times as long as the fastest one has a single turn. All have the same number of threads (SciPy's "
    "transforms by set_workers), except that SciPy's direct correlation has one. The results of every row are "
    "compared. 'best peer' is the fastest peer of a row. cv2.boxFilter adds running sums, which need no taps; "
    "it is shown, but does not measure a separable filter. 'NumPy FFT' multiplies spectra of the whole image by "
    "np.fft, after np.pad if the image is mirrored. 'adjoint' is the gradient of the image."
)

#: Each derived peer is the fastest of the peers named here.
BEST = {
    "best peer": (
        "cv2.filter2D",
        "fftconvolve",
        "oaconvolve",
        "ndimage",
        "PyTorch",
        "cv2.GaussianBlur",
        "cv2.sepFilter2D",
    ),
    "best of SciPy": ("fftconvolve", "oaconvolve"),
}
PANELS = {
    "image filters": (FILTERS, filters),
    "signals and volumes": (SIGNALS, signals),
    "separable kernels": (SEPARABLE, separable),
    "borders": (BORDERS, borders),
}
Case = FilterCase | SignalCase | SeparableCase | BorderCase


def with_best(timings: dict[str, Timing | None]) -> dict[str, Timing | None]:
    """The timings, and the timing of the fastest peer of each rule in `BEST` under the name of the rule."""
    found = dict(timings)
    for name, peers in BEST.items():
        present = [timing for peer in peers if (timing := timings.get(peer)) is not None]
        found[name] = replace(min(present, key=lambda timing: timing.seconds)) if present else None
    return found


def fastest_peer(row: Row) -> str:
    """Its name."""
    peers = {n: t for n, t in row.timings.items() if t is not None and n in BEST["best peer"]}
    return min(peers, key=lambda name: peers[name].seconds) if peers else "-"


def milliseconds(name: str, row: Row) -> str:
    """Milliseconds of one contender, as text."""
    timing = row.timings.get(name)
    return "-" if timing is None else f"{timing.seconds * 1e3:.3g}"


def columns(rows: list[Row]) -> list[Column]:
    """A column of milliseconds for each contender."""
    names = dict.fromkeys(name for row in rows for name, timing in row.timings.items() if timing and name not in BEST)
    found = [Column(f"{name.removeprefix('cv2.')}\nms", partial(milliseconds, name)) for name in names]
    if any(fastest_peer(row) != "-" for row in rows):
        found.append(Column("fastest\npeer", fastest_peer, "left"))
    return found


def chosen(options: Options) -> list[tuple[str, Case]]:
    """The panels and cases of this run."""
    cases: Iterable[tuple[str, Case]] = ((panel, case) for panel, (cases, _) in PANELS.items() for case in cases)
    return options.wanted(
        [(panel, case) for panel, case in cases if case.quick or not options.quick],
        lambda item: f"{item[0]}: {item[1].case}",
    )


def run(options: Options) -> None:
    """Measure every case, print tables, write JSON and PNG."""
    screen = console(160)
    if (cv2 := optional("cv2")) is not None:
        cv2.setNumThreads(options.threads)
    title = "Filters: fastconv against OpenCV, SciPy, PyTorch and NumPy's FFT"
    report = Report("bench_filters", title, CAPTION, options, RATIOS, set_threads(options.threads))
    cases, left_out = chosen(options), []
    with progress(screen, len(cases)) as show:
        for panel, case in cases:
            name = f"{panel}: {case.case}"
            show(name)
            contenders, notes = PANELS[panel][1](case, options.threads)
            left_out += [f"{name}: {note}" for note in notes]
            timings = measure(name, contenders, TOLERANCE[case.dtype], options, show, turn=TURN, hopeless=HOPELESS)
            details = {**case._asdict(), "part": case.part, "left_out": notes}
            report.rows.append(Row(panel, case.case, 1, details, with_best(timings)))
    parts = []
    for panel in PANELS:
        rows = [row for row in report.rows if row.panel == panel]
        if rows:
            parts.append(replace(report, title=panel, rows=rows, ratios=[r for r in RATIOS if r.panel == panel]))
            print_table(parts[-1], screen, panel, columns(rows))
    screen.print(CAPTION, markup=False, style="italic")
    for note in left_out:
        screen.print(f"not run: {note}", markup=False, style="yellow")
    print_summary(parts, screen)
    for part in parts:
        for line in parts_in_words(part):
            screen.print(line, markup=False)
    for path in report.write(options.out):
        screen.print(f"written: {path}", markup=False, soft_wrap=True)


def parts_in_words(report: Report) -> list[str]:
    """Geometric mean and worst row for each part of a panel, which is a size and dtype or a kind of kernel."""
    lines = []
    for ratio in report.ratios:
        groups: dict[str, list[float]] = {}
        for row in report.rows:
            value = ratio.of(row)
            if value is not None:
                groups.setdefault(row.details["part"], []).append(value)
        for part, values in groups.items():
            mean = short(statistics.geometric_mean(values))
            name = f"{report.title}, {part}: {ratio.peer} / {ratio.own}"
            lines.append(f"{name}: mean {mean}, worst {short(min(values))} of {len(values)}")
    return lines


if __name__ == "__main__":
    brief = "a few cases of each kind, small and in float32: about a minute"
    sys.exit(exit_status(partial(run, parse(__doc__.splitlines()[0], repeats=3, budget=1.0, brief=brief))))
