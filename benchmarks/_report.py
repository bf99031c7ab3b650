"""The report of a benchmark: ratios against targets, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _harness import INSTALL, Options, Timing, machine, torch, versions
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
    title: str
    own: str = "fastconv"
    mean: float | None = None
    worst: float | None = None

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
    rows: list[Row] = field(default_factory=list)

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

    def as_json(self) -> dict[str, Any]:
        """The run as plain data."""
        verdicts = [
            {
                "panel": ratio.panel,
                "ratio": f"{ratio.peer} / {ratio.own}",
                "statistic": which,
                "value": value,
                "target": target,
                "met": None if value is None or target is None else value >= target,
            }
            for ratio in self.ratios
            for which in ("geomean", "worst")
            for value, target in [self.statistic(ratio, which)]
        ]
        errors = [t.error for row in self.rows for t in row.timings.values() if t is not None]
        return {
            "benchmark": self.name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": self.options.quick,
            "repeats": self.options.repeats,
            "threads": self.options.threads,
            "blas_threads": self.blas_threads,
            "machine": machine(),
            "versions": versions(),
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
            "repeats": {name: t and t.repeats for name, t in timed},
            "error": {name: t and t.error for name, t in timed},
            "ratios": ratios,
        }

    def write(self, folder: Path) -> list[Path]:
        """JSON and PNG into `folder`."""
        paths = [folder / f"{self.name}.json", folder / f"{self.name}.png"]
        paths[0].write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        draw(self, paths[1])
        return paths


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    # Cut, not rounded, so that what misses a target never reads as if it met it.
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def _verdict(value: float | None, target: float | None) -> str:
    if target is None:
        return _short(value)
    colour, word = ("", "not run") if value is None else ("green", "met") if value >= target else ("red", "missed")
    return f"{_short(value)}\n≥ {target:g}\n" + (f"[{colour}]{word}[/{colour}]" if colour else word)


def print_table(report: Report, console: Console) -> None:
    """One line per case, then means and worst with their targets."""
    table = Table(title=report.title, caption=report.caption, title_justify="left", caption_justify="left")
    table.add_column("layer", no_wrap=True)
    table.add_column("batch", justify="right")
    for ratio in report.ratios:
        table.add_column(f"{ratio.panel}\n{ratio.title}", justify="right")
    for case, batch in report.cases:
        cells = []
        for ratio in report.ratios:
            value = report.value(ratio, case, batch)
            low = value is not None and ratio.worst is not None and value < ratio.worst
            cells.append(f"[red]{_short(value)}[/red]" if low else _short(value))
        table.add_row(case, str(batch), *cells)
    for which, label in (("geomean", "geometric mean"), ("worst", "worst")):
        table.add_section()
        cells = [_verdict(*report.statistic(ratio, which)) for ratio in report.ratios]
        table.add_row(f"{label}\ntarget", "", *cells, style="bold")
    console.print(table)
    if torch is None:
        missing = f"PyTorch is not installed, so its columns are empty; type: {INSTALL}"
        console.print(missing, style="yellow", markup=False)


def draw(report: Report, path: Path) -> None:
    """Bars from 1 to each ratio, a panel per kind of row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    panels = list(dict.fromkeys(ratio.panel for ratio in report.ratios))
    groups: list[tuple[str, int] | None] = [*report.cases, None]  # None is the mean of all
    most = max(sum(r.panel == p for r in report.ratios) for p in panels)
    figure, axes = plt.subplots(
        1, len(panels), sharey=True, squeeze=False, layout="constrained",
        figsize=(5 * len(panels) + 2, len(groups) * (0.16 * most + 0.15) + 2),
    )
    colours = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:red", "tab:brown")
    for axis, panel in zip(axes[0], panels, strict=True):
        ratios = [ratio for ratio in report.ratios if ratio.panel == panel]
        height = 0.8 / len(ratios)
        for j, (ratio, colour) in enumerate(zip(ratios, colours, strict=False)):
            for i, group in enumerate(groups):
                value = report.value(ratio, *group) if group else report.statistic(ratio, "geomean")[0]
                y = i + (j - (len(ratios) - 1) / 2) * height
                label = f"{ratio.title}" if i == 0 else None
                # From 1, not from the axis: left is slower than the peer, right is faster.
                axis.barh(y, (value or 1) - 1, height * 0.9, left=1, color=colour, label=label)
                text = "not run" if value is None else _short(value)
                left = value is not None and value < 1
                axis.annotate(
                    text, (value or 1, y), xytext=(-3 if left else 3, 0), textcoords="offset points",
                    ha="right" if left else "left", va="center_baseline", fontsize=7,
                    color="0.5" if value is None else "black", weight="normal" if group else "bold",
                )
        targets = {r.mean: c for r, c in zip(ratios, colours, strict=False) if r.mean is not None}
        for target, colour in targets.items():
            label = f"target of the mean: {target:g}"
            axis.axvline(target, color=colour, linestyle="--", linewidth=1.2, label=label)
        axis.axvline(1, color="black", linewidth=1)
        axis.axhline(len(groups) - 1.5, color="0.6", linewidth=0.8)
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        axis.set_xlim(min(low, 0.8) / 1.25, high * 1.6)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", which="both", color="0.92")
        axis.set_axisbelow(True)
        axis.set_title(panel)
        axis.set_xlabel("time of the peer / time of fastconv")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), fontsize=8, frameon=False)
    names = [f"{group[0]}, batch {group[1]}" if group else "geometric mean" for group in groups]
    axes[0][0].set_yticks(range(len(groups)), names)
    axes[0][0].set_ylim(len(groups) - 0.5, -0.5)
    quick = " (quick run)" if report.options.quick else ""
    figure.suptitle(f"{report.title}{quick}\n{machine()['cpu']}, {report.options.threads} threads")
    figure.savefig(path, dpi=110)
    plt.close(figure)
