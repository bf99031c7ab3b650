"""The report of a benchmark: ratios against targets, as a table, as JSON and as pictures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from support.harness import INSTALL, Options, Timing, commit, load_average, machine, torch, versions
from support.picture_style import short
from support.pictures import draw_all


@dataclass(frozen=True)
class Row:
    """One case of one panel; the timing of a contender that was left out is None."""

    panel: str
    case: str
    batch: int
    details: dict[str, Any]
    timings: dict[str, Timing | None]


@dataclass(frozen=True)
class Ratio:
    """A peer's time divided by fastconv's, with targets for the geometric mean and the worst row."""

    panel: str
    peer: str
    own: str = "fastconv"
    mean: float | None = None
    worst: float | None = None
    #: Whether this is a bound for any library and not a peer; pictures leave it out.
    bound: bool = False
    #: Whether only a single row has this ratio; it then has no column in the table.
    single: bool = False

    def of(self, row: Row) -> float | None:
        """The ratio in a row of this panel, or None if either contender was left out."""
        peer, own = row.timings.get(self.peer), row.timings.get(self.own)
        return None if peer is None or own is None else peer.seconds / own.seconds


@dataclass
class Report:
    """All results of a run."""

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
        """The title, with a note if the run left something out."""
        return full_title(self.title, self.options)

    @property
    def cases(self) -> list[tuple[str, int]]:
        """The (case, batch) pairs in the order of measurement."""
        return list(dict.fromkeys((row.case, row.batch) for row in self.rows))

    def value(self, ratio: Ratio, case: str, batch: int) -> float | None:
        """The ratio of one case."""
        rows = (r for r in self.rows if (r.panel, r.case, r.batch) == (ratio.panel, case, batch))
        return next((ratio.of(row) for row in rows), None)

    def statistic(self, ratio: Ratio, which: str) -> tuple[float | None, float | None]:
        """The value and target of the 'geomean' or the 'worst' over all cases."""
        values = [v for case in self.cases if (v := self.value(ratio, *case)) is not None]
        if which == "worst":
            return min(values, default=None), ratio.worst
        return (statistics.geometric_mean(values) if values else None), ratio.mean

    def worst_case(self, ratio: Ratio) -> str:
        """The name of the case with the worst ratio."""
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
            "bounds": list(dict.fromkeys(ratio.peer for ratio in self.ratios if ratio.bound)),
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
        """Write JSON and pictures into `folder`."""
        return write(folder, self.name, self.as_json())


def run_info(name: str, options: Options, blas_threads: int | None, load_before: float | None) -> dict[str, Any]:
    """The facts that every benchmark records about its run."""
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
        "commit": commit(),
    }


def full_title(title: str, options: Options) -> str:
    """A title, with a note if the run left something out."""
    left_out = [f"only '{options.only}'"] if options.only else []
    left_out += ["quick run"] if options.quick else []
    return f"{title} ({', '.join(left_out)})" if left_out else title


def write(folder: Path, name: str, data: dict[str, Any]) -> list[Path]:
    """Write JSON into `folder`, and draw the pictures from it."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    # The pictures are drawn from the file, so that NaN, tuples and NumPy's numbers look the same in a later run.
    return [path, *draw_all(json.loads(path.read_text(encoding="utf-8")), folder, name)]


def judged(value: float | None, target: float | None, at_most: bool = False) -> dict[str, Any]:
    """A value, its target or upper limit, and whether the value meets it."""
    met = None if value is None or target is None else (value <= target if at_most else value >= target)
    return {"value": value, "target": target, "met": met}


def in_words(value: float | None, target: float | None, at_most: bool = False) -> str:
    """A value, its target and the verdict as three lines of a table; the last one is coloured."""
    if target is None:
        return short(value)
    word = {None: "not run", True: "[green]met[/green]", False: "[red]missed[/red]"}
    return f"{short(value)}\n{'≤' if at_most else '≥'} {target:g}\n{word[judged(value, target, at_most)['met']]}"


def new_table(title: str, caption: str | None = None) -> Table:
    """An empty table in the style of all benchmarks."""
    table = Table(title=title, caption=caption)
    table.title_justify = table.caption_justify = "left"
    return table


@dataclass(frozen=True)
class Column:
    """A column of a panel's table that is not a ratio."""

    heading: str
    text: Callable[[Row], str]
    justify: Literal["left", "right"] = "right"


def print_table(report: Report, console: Console, panel: str | None = None, columns: Sequence[Column] = ()) -> None:
    """Print one line per case, then means and worst rows with targets: of all panels, or of one with more columns."""
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
    """Print every ratio that has a target: its mean, its worst row, and whether they meet the target."""
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
