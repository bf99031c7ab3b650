"""The picture of `bench_filters.py`: ratios against kernel sizes, a line for each size of image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _report import Ratio, Report, Row, new_figure, plain_numbers

_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
_MARKS = {"Gaussian": "o-", "box": "s--", "Sobel": "^:"}


def draw(report: Report, path: Path) -> None:
    """Filters of each dtype, signals, separable kernels of one and three channels, and borders."""
    with new_figure(path, report.full_title, report.options, (2, 3), (17, 11), sharey=False) as axes:
        ratios = {(ratio.panel, ratio.peer, ratio.own): ratio for ratio in report.ratios}
        filters = ratios["image filters", "best peer", "fastconv"]
        for axis, dtype in zip(axes[0], ("float32", "float64"), strict=False):
            rows = [row for row in _of(report, filters) if row.details["dtype"] == dtype]
            _lines(axis, filters, rows, "size", "kernel", "{} x {}")
            _finish(axis, f"Images, kernels of full rank, {dtype}", "kernel size", filters)
        signals = ratios["signals and volumes", "best of SciPy", "fastconv"]
        _signals(axes[0][2], signals, _of(report, signals))
        separable = ratios["separable kernels", "best peer", "fastconv"]
        for axis, channels in zip(axes[1], (1, 3), strict=False):
            for kind, mark in _MARKS.items():
                rows = [
                    row
                    for row in _of(report, separable)
                    if (row.details["kind"], row.details["channels"], row.details["dtype"])
                    == (kind, channels, "float32")
                ]
                _lines(axis, separable, rows, "size", "kernel", f"{kind} {{}} x {{}}", mark)
            noun = "channel" if channels == 1 else "channels"
            _finish(axis, f"Separable kernels, {channels} {noun}, float32", "kernel size", separable)
        _borders(axes[1][2], report, [r for r in report.ratios if r.panel == "borders"])


def _of(report: Report, ratio: Ratio) -> list[Row]:
    return [row for row in report.rows if row.panel == ratio.panel]


def _lines(axis: Any, ratio: Ratio, rows: Iterable[Row], each: str, along: str, label: str, mark: str = "o-") -> None:
    lines: dict[int, list[tuple[int, float]]] = {}
    for row in rows:
        value = ratio.of(row)
        if value is not None:
            lines.setdefault(row.details[each], []).append((row.details[along], value))
    for colour, (size, points) in zip(_COLOURS, lines.items(), strict=False):
        axis.plot(*zip(*points, strict=True), mark, color=colour, label=label.format(size, size), markersize=4)


def _signals(axis: Any, ratio: Ratio, rows: list[Row]) -> None:
    lines: dict[tuple[int, str], list[tuple[int, float]]] = {}
    for row in rows:
        shape, value = row.details["shape"], ratio.of(row)
        if value is None:
            continue
        if len(shape) == 3 and shape[1] == 1:
            key = shape[-1], row.details["dtype"]
            lines.setdefault(key, []).append((row.details["weights"][-1], value))
        else:
            axis.plot([row.details["weights"][-1]], [value], "D", label=row.case.replace(" float32", ""))
    colours = dict(zip(dict.fromkeys(n for n, _ in lines), _COLOURS, strict=False))
    for (n, dtype), points in lines.items():
        style = "o-" if dtype == "float32" else "s--"
        axis.plot(*zip(*points, strict=True), style, color=colours[n], label=f"{n:.0e} {dtype}", markersize=4)
    _finish(axis, "Signals and volumes against SciPy", "taps along the last axis", ratio)


def _borders(axis: Any, report: Report, ratios: list[Ratio]) -> None:
    """A line for each case, its forward pass and its gradients, by name and by 'auto'."""
    from matplotlib import colormaps

    names: list[str] = []
    marks = {"fastconv fft": "o", "fastconv auto": "x"}
    shades = {"circular": "Blues", "reflect": "Oranges", "replicate": "Greens"}
    depths = {"forward": 0.9, "adjoint": 0.65, "weights": 0.4}
    labelled = set()
    for ratio in ratios:
        for row in _of(report, ratio):
            details, value = row.details, ratio.of(row)
            if value is None:
                continue
            name = " of ".join("x".join(map(str, details[k])) for k in ("kernel", "spatial"))
            name += "" if details["dtype"] == "float32" else " float64"
            if name not in names:
                names.append(name)
            kind = details["pad_mode"], details["op"]
            label = f"{' '.join(kind)}, {ratio.own.removeprefix('fastconv ')}"
            axis.plot(
                [value],
                [names.index(name)],
                marks[ratio.own],
                color=colormaps[shades[kind[0]]](depths[kind[1]]),
                label=None if label in labelled else label,
                markersize=5,
            )
            labelled.add(label)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    plain_numbers(axis.xaxis)
    axis.grid(axis="x", color="0.9")
    axis.set_title("Borders: time of NumPy's FFT product / time of fastconv")
    if labelled:
        axis.legend(fontsize=6, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.06), frameon=False)


def _finish(axis: Any, title: str, along: str, ratio: Ratio) -> None:
    axis.axhline(1, color="black", linewidth=1)
    for target, style, name in ((ratio.mean, "--", "mean"), (ratio.worst, ":", "worst")):
        if target is not None and target != 1:
            axis.axhline(target, color="0.5", linestyle=style, linewidth=1, label=f"target of the {name}, {target:g}")
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain_numbers(axis.xaxis)
    plain_numbers(axis.yaxis)
    axis.grid(color="0.9")
    axis.set_title(title)
    axis.set_xlabel(along)
    axis.set_ylabel("time of the best peer / time of fastconv")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, ncols=2)
