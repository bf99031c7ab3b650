"""The report of a benchmark: ratios against targets, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from _harness import INSTALL, Options, Timing, load_average, machine, torch, versions
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One case of one panel; a contender that was left out is None."""

    panel: str
    case: str
    batch: int
    details: dict[str, Any]
    timings: dict[str, Timing | None]


@dataclass(frozen=True)
class Ratio:
    """A peer's time over fastconv's, with what its geometric mean and its worst row should reach."""

    panel: str
    peer: str
    colour: str
    own: str = "fastconv"
    mean: float | None = None
    worst: float | None = None
    #: In the picture a point instead of a bar: for a bound, which is no peer.
    point: bool = False
    #: Where it is about a single row it has no column in the table, and no place in the picture.
    single: bool = False

    def of(self, row: Row) -> float | None:
        """The ratio in a row of this panel, None where either was left out."""
        peer, own = row.timings.get(self.peer), row.timings.get(self.own)
        return None if peer is None or own is None else peer.seconds / own.seconds


@dataclass
class Report:
    """Everything a run found out."""

    name: str
    title: str
    caption: str
    options: Options
    ratios: Sequence[Ratio]
    blas_threads: int | None
    load_before: float | None = field(default_factory=load_average)
    rows: list[Row] = field(default_factory=list)

    @property
    def full_title(self) -> str:
        """The title, saying so where the run left something out."""
        return full_title(self.title, self.options)

    @property
    def cases(self) -> list[tuple[str, int]]:
        """(case, batch) in the order of measuring."""
        return list(dict.fromkeys((row.case, row.batch) for row in self.rows))

    def value(self, ratio: Ratio, case: str, batch: int) -> float | None:
        """The ratio of one case."""
        rows = (r for r in self.rows if (r.panel, r.case, r.batch) == (ratio.panel, case, batch))
        return next((ratio.of(row) for row in rows), None)

    def statistic(self, ratio: Ratio, which: str) -> tuple[float | None, float | None]:
        """(value, target) of the 'geomean' or the 'worst' over all cases."""
        values = [v for case in self.cases if (v := self.value(ratio, *case)) is not None]
        if which == "worst":
            return min(values, default=None), ratio.worst
        return (statistics.geometric_mean(values) if values else None), ratio.mean

    def worst_case(self, ratio: Ratio) -> str:
        """Where the worst is."""
        values = [(v, case) for case in self.cases if (v := self.value(ratio, *case)) is not None]
        return "{}, batch {}".format(*min(values)[1]) if values else ""

    def as_json(self) -> dict[str, Any]:
        """The run as plain data."""
        verdicts = [
            {
                "panel": ratio.panel,
                "ratio": f"{ratio.peer} / {ratio.own}",
                "statistic": which,
                **({"case": self.worst_case(ratio)} if which == "worst" else {}),
                **judged(value, target),
            }
            for ratio in self.ratios
            for which in ("geomean", "worst")
            for value, target in [self.statistic(ratio, which)]
        ]
        errors = [t.error for row in self.rows for t in row.timings.values() if t is not None]
        return {
            **run_info(self.name, self.options, self.blas_threads, self.load_before),
            "summary": verdicts,
            "max_error": max(errors, default=None),
            "results": [self._row_json(row) for row in self.rows],
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        ratios = {f"{r.peer} / {r.own}": r.of(row) for r in self.ratios if r.panel == row.panel}
        timed = row.timings.items()
        return {
            "panel": row.panel,
            "case": row.case,
            "batch": row.batch,
            **row.details,
            "median_seconds": {name: t and t.seconds for name, t in timed},
            "quartile_seconds": {name: t and t.quartiles for name, t in timed},
            "repeats": {name: t and t.repeats for name, t in timed},
            "error": {name: t and t.error for name, t in timed},
            "ratios": ratios,
        }

    def write(self, folder: Path) -> list[Path]:
        """JSON and PNG into `folder`."""
        return write(folder, self.name, self.as_json(), lambda path: draw(self, path))


def run_info(name: str, options: Options, blas_threads: int | None, load_before: float | None) -> dict[str, Any]:
    """What every benchmark says about its run."""
    return {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "only": options.only,
        "repeats": options.repeats,
        "threads": options.threads,
        "blas_threads": blas_threads,
        "load_average_before": load_before,
        "machine": machine(),
        "versions": versions(),
    }


def full_title(title: str, options: Options) -> str:
    """A title, saying so where the run left something out."""
    left_out = [f"only '{options.only}'"] if options.only else []
    left_out += ["quick run"] if options.quick else []
    return f"{title} ({', '.join(left_out)})" if left_out else title


def write(folder: Path, name: str, data: dict[str, Any], draw: Callable[[Path], None]) -> list[Path]:
    """JSON and PNG into `folder`."""
    paths = [folder / f"{name}.json", folder / f"{name}.png"]
    paths[0].write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    draw(paths[1])
    return paths


def judged(value: float | None, target: float | None, at_most: bool = False) -> dict[str, Any]:
    """A value, what it should reach (or stay under), and whether it does."""
    met = None if value is None or target is None else (value <= target if at_most else value >= target)
    return {"value": value, "target": target, "met": met}


def in_words(value: float | None, target: float | None, at_most: bool = False) -> str:
    """The same as three lines of a table, the last one in colour."""
    if target is None:
        return short(value)
    word = {None: "not run", True: "[green]met[/green]", False: "[red]missed[/red]"}
    return f"{short(value)}\n{'≤' if at_most else '≥'} {target:g}\n{word[judged(value, target, at_most)['met']]}"


def new_table(title: str, caption: str | None = None) -> Table:
    """A table as all benchmarks print them."""
    table = Table(title=title, caption=caption)
    table.title_justify = table.caption_justify = "left"
    return table


def short(value: float | None) -> str:
    """Two decimals or fewer; a dash for None."""
    if value is None:
        return "-"
    # Cut, not rounded, so that what misses a target never reads as if it met it.
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


@dataclass(frozen=True)
class Column:
    """A column of a panel's table that is no ratio."""

    heading: str
    text: Callable[[Row], str]
    justify: Literal["left", "right"] = "right"


def print_table(report: Report, console: Console, panel: str | None = None, columns: Sequence[Column] = ()) -> None:
    """One line per case, then means and worst with their targets: of all panels, or of one with more columns."""
    title = report.full_title if panel is None else f"{report.full_title}: {panel}"
    table = new_table(title, report.caption if panel is None else None)
    table.add_column("layer", no_wrap=True)
    table.add_column("batch", justify="right")
    ratios = [ratio for ratio in report.ratios if panel in (None, ratio.panel) and not ratio.single]
    for ratio in ratios:
        table.add_column(ratio.peer if panel else f"{ratio.panel}\n{ratio.peer}", justify="right")
    for column in columns:
        table.add_column(column.heading, justify=column.justify)
    for case, batch in report.cases:
        cells = []
        for ratio in ratios:
            value = report.value(ratio, case, batch)
            low = value is not None and ratio.worst is not None and value < ratio.worst
            cells.append(f"[red]{short(value)}[/red]" if low else short(value))
        row = next((row for row in report.rows if (row.panel, row.case, row.batch) == (panel, case, batch)), None)
        cells += [column.text(row) if row else "-" for column in columns]
        table.add_row(case, str(batch), *cells)
    for which, label in (("geomean", "geometric mean"), ("worst", "worst")):
        table.add_section()
        cells = [in_words(*report.statistic(ratio, which)) for ratio in ratios]
        table.add_row(f"{label}\ntarget", "", *cells, style="bold")
    console.print(table)
    if torch is None:
        missing = f"PyTorch is not installed, so its columns are empty; type: {INSTALL}"
        console.print(missing, style="yellow", markup=False)


def print_summary(reports: Sequence[Report], console: Console) -> None:
    """Every ratio that has a target: its mean, its worst row, and whether they reach it."""
    table = new_table("Against the targets: met or missed")
    for heading in ("", "panel", "peer"):
        table.add_column(heading)
    for heading in ("geometric mean", "worst"):
        table.add_column(heading, justify="right")
    table.add_column("where")
    for report in reports:
        for ratio in report.ratios:
            if ratio.mean is None and ratio.worst is None:
                continue
            own = "" if ratio.own == "fastconv" else f"\nof {ratio.own}"
            cells = [in_words(*report.statistic(ratio, which)) for which in ("geomean", "worst")]
            table.add_row(report.title, ratio.panel, ratio.peer + own, *cells, report.worst_case(ratio))
        table.add_section()
    console.print(table)


@contextmanager
def new_figure(
    path: Path, title: str, options: Options, grid: tuple[int, int], size: tuple[float, float], **sharing: Any
) -> Iterator[Any]:
    """A grid of axes under a title that tells the machine, saved at the end; by default all share the vertical."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=size, layout="constrained")
    yield figure.subplots(*grid, squeeze=False, **(sharing or {"sharey": True}))
    figure.suptitle(f"{title}\n{machine()['cpu']}, threads: {options.threads}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10 along a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def draw(report: Report, path: Path) -> None:
    """Bars from 1 to each ratio, a panel per kind of row."""
    panels: dict[str, list[Ratio]] = {}
    for ratio in report.ratios:
        if not ratio.single:
            panels.setdefault(ratio.panel, []).append(ratio)
    groups: list[tuple[str, int] | None] = [*report.cases, None]  # None is the mean of all
    bars = max(sum(not ratio.point for ratio in ratios) for ratios in panels.values())
    pointed = any(ratio.point for ratio in report.ratios)
    tall = max(len(groups) * (0.15 + 0.17 * (bars + pointed)), 2)
    size = 4.8 * len(panels) + 2.5, tall + 2.2
    with new_figure(path, report.full_title, report.options, (1, len(panels)), size) as axes:
        for axis, (panel, ratios) in zip(axes[0], panels.items(), strict=True):
            _draw_panel(axis, report, ratios, groups)
            axis.set_title(panel)
            axis.set_xlabel("time of the peer / time of fastconv")
            # Bars first, then the lines of their targets, then bounds.
            entries = zip(*axis.get_legend_handles_labels(), strict=True)
            handles, labels = zip(
                *sorted(entries, key=lambda entry: ("target" in entry[1]) + 2 * ("bound" in entry[1])), strict=True
            )
            below = (0.5, -0.55 / tall)
            axis.legend(handles, labels, loc="upper center", bbox_to_anchor=below, frameon=False)
            axis.tick_params(axis="y", length=0)
        names = [f"{group[0]}, batch {group[1]}" if group else "geometric mean" for group in groups]
        axes[0][0].set_yticks(range(len(groups)), names)
        axes[0][0].set_ylim(len(groups) - 0.5, -0.5)


def _draw_panel(axis: Any, report: Report, ratios: list[Ratio], groups: list[tuple[str, int] | None]) -> None:
    from matplotlib.patheffects import withStroke

    bars = [ratio for ratio in ratios if not ratio.point]
    # Below the bars, so that they do not hide what is written beside those.
    points_at = 0.32
    height = min((0.58 if len(bars) < len(ratios) else 0.8) / len(bars), 0.4)
    middle = -0.14 if len(bars) < len(ratios) else 0.0
    ends = [1.0]
    for ratio in ratios:
        if ratio.point:
            points = [
                report.value(ratio, *group) if group else report.statistic(ratio, "geomean")[0] for group in groups
            ]
            ends += [value for value in points if value is not None]
            look = {"color": ratio.colour, "marker": "D", "s": 16, "edgecolors": "white", "linewidths": 0.5}
            found = [(value, i + points_at) for i, value in enumerate(points) if value is not None]
            axis.scatter(*zip(*found, strict=True), **look, label=f"{ratio.peer} (a bound)", zorder=5)
    for j, ratio in enumerate(bars):
        for i, group in enumerate(groups):
            value = report.value(ratio, *group) if group else report.statistic(ratio, "geomean")[0]
            end, y = value or 1.0, i + middle + (j - (len(bars) - 1) / 2) * height
            ends.append(end)
            # From 1, not from the edge: to the left fastconv is slower, to the right faster.
            label = None if i else ratio.peer
            axis.barh(y, end - 1, height * 0.9, left=1, color=ratio.colour, label=label, zorder=2)
            axis.annotate(
                "not run" if value is None else short(value),
                (end, y),
                xytext=(-3 if end < 1 else 3, 0),
                textcoords="offset points",
                ha="right" if end < 1 else "left",
                va="center_baseline",
                fontsize=8,
                color="0.5" if value is None else "black",
                weight="normal" if group else "bold",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                zorder=4,
            )
    for ratio in ratios:
        if ratio.mean is not None:
            label = f"{ratio.peer}: target of the mean, {ratio.mean:g}"
            axis.axvline(ratio.mean, color=ratio.colour, linestyle="--", label=label, zorder=1)
            ends.append(ratio.mean)
    axis.axvline(1, color="black", linewidth=1, zorder=3)
    axis.axhline(len(groups) - 1.5, color="0.6", linewidth=0.8)
    axis.set_xscale("log")
    # Room for the numbers beside the bars.
    low, high = math.log10(min(ends)), math.log10(max(ends))
    room = 0.14 * (high - low) + 0.02
    axis.set_xlim(10 ** (low - room), 10 ** (high + room))
    plain_numbers(axis.xaxis)
    axis.grid(axis="x", color="0.9", zorder=0)
