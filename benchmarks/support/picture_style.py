"""The common style of all benchmark pictures: size, type, colours, axes and small print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

Data = dict[str, Any]

WIDTH = 7.0

#: The colours for: faster than the peer, slower than the peer, neither.
FASTER, SLOWER, NEUTRAL = "#0072B2", "#D55E00", "0.45"

PEERS = {"fastconv": "black", "auto": "black", "PyTorch": "#56B4E9", "ONNX Runtime": "#009E73"}

STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    # Text stays text in SVG, and the same data give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "fastconv",
}

RATIO = "time of the peer / time of fastconv (below 1, in orange: fastconv is slower)"


def small_print(data: Data) -> str:
    """The machine, the versions and the date of a run."""
    machine, versions = data["machine"], data["versions"]
    threads = data.get("threads")
    parts = [machine["cpu"]]
    if machine.get("isa"):
        parts.append(instruction_set(machine["isa"]))
    if isinstance(threads, int):
        parts.append(f"{threads} threads" if threads > 1 else "1 thread")
    names = {"numpy": "NumPy", "torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
    given = [f"fastconv {versions['fastconv']}"]
    given += [f"{name} {versions[key].partition('+')[0]}" for key, name in names.items() if versions.get(key)]
    when = datetime.fromisoformat(data["date"]).strftime("%d %B %Y").lstrip("0")
    quick = f"; seed {data['seed']}" if "seed" in data else ""
    quick += "; quick run" if data.get("quick") else ""
    return f"{', '.join(parts)}; {', '.join(given)}; {when}{quick}"


def instruction_set(name: str) -> str:
    """The name of an instruction set as its maker writes it."""
    return {"avx2": "AVX2", "avx512": "AVX-512"}.get(name, name)


def short(value: float | None) -> str:
    """At most two decimals, truncated and not rounded, so that no ratio looks better than it is; a dash for None."""
    if value is None:
        return "-"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def new_figure(height: float, title: str, data: Data, legend: int = 0) -> Any:
    """An empty figure with its title, room below it for `legend` lines of a legend, and its small print."""
    from matplotlib.figure import Figure

    lines = legend + 1 if legend else 0
    figure = Figure(figsize=(WIDTH, height + 0.16 * lines), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)
    figure.suptitle(title + "\n" * lines, x=0.01, ha="left", fontsize=8, weight="bold")
    figure.supxlabel(small_print(data), x=0.01, ha="left", fontsize=6, color="0.4")
    return figure


def add_legend(figure: Any, axes: Iterable[Any], columns: int) -> None:
    """Add the legend of all axes below the title."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    where = {"loc": "upper left", "bbox_to_anchor": (0.0, 1 - 0.2 / figure.get_figheight())}
    figure.legend(entries.values(), entries, **where, ncols=columns, frameon=False, labelspacing=0.3)


def save(figure: Any, folder: Path, name: str) -> list[Path]:
    """Save a figure as SVG and PNG."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None, "Creator": None})
    figure.savefig(paths[1], dpi=150, metadata={"Software": None})
    return paths


def plain_numbers(axis: Any, subs: Sequence[float] = (1, 2, 5)) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10 and so on."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def ratio_axis(axis: Any, found: Iterable[float], label: str | None = RATIO) -> None:
    """Make an axis of ratios logarithmic, and mark 1 on it."""
    found = [*found, 1.0]
    low, high = math.log10(min(found)), math.log10(max(found))
    room = 0.04 * (high - low) + 0.03
    axis.set_xscale("log")
    axis.set_xlim(10 ** (low - room), 10 ** (high + room))
    span = high - low
    subs = (1, 1.5, 2, 3, 4, 6, 8) if span < 0.8 else (1, 2, 5) if span < 2.2 else (1,)
    plain_numbers(axis.xaxis, subs)
    axis.grid(axis="x", color="0.9", linewidth=0.6, zorder=0)
    axis.axvline(1, color="black", linewidth=0.9, zorder=2)
    axis.tick_params(axis="y", length=0)
    if label:
        axis.set_xlabel(label)


def spread(count: int, width: float = 0.5) -> list[float]:
    """Offsets that separate the dots of one row; they are the same every time."""
    return [width * ((i * 0.618034) % 1 - 0.5) for i in range(count)]


def colours(found: Iterable[float]) -> list[str]:
    """A colour for each ratio: one if it is at least 1, another below."""
    return [FASTER if value >= 1 else SLOWER for value in found]


def dots(axis: Any, found: Sequence[float], row: float, width: float = 0.5, size: float = 14) -> None:
    """Draw a dot for each ratio of a row."""
    offsets = [row + offset for offset in spread(len(found), width)]
    axis.scatter(found, offsets, s=size, color=colours(found), linewidths=0, alpha=0.75, zorder=3)


def log_log(axis: Any, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(ticks)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    low, high = axis.get_ylim()
    plain_numbers(axis.yaxis, (1,) if high > 3000 * low else (1, 2, 5))
    axis.grid(color="0.9", linewidth=0.6)
