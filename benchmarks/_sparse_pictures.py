"""The pictures of time against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _harness import Options
from _pruned import WITHOUT_CHANNELS, Case, Curves
from _report import full_title, new_figure, plain_numbers

#: Colours by which no two are confused, marks and lines.
LOOKS = {
    "auto": ("black", "", "--"),
    "implicit": ("#0072B2", "", "--"),
    "im2col": ("#56B4E9", "", "--"),
    "PyTorch": ("#009E73", "", "--"),
    "sparse": ("#D55E00", "o", "-"),
    "toeplitz": ("#E69F00", "^", "-"),
    "CSR by fastconv": ("#CC79A7", "v", "-"),
    "CSR by SciPy": ("0.5", "P", "-"),
    WITHOUT_CHANNELS: ("black", "s", "-"),
}
LABELS = {
    "auto": "auto, dense",
    "toeplitz": "toeplitz, made on every call",
    "CSR by fastconv": "CSR kept, fastconv's product",
    "CSR by SciPy": "CSR kept, SciPy's product",
}
#: Whose crossovers with 'sparse' are marked.
MARKED = ("implicit", "auto")
COLUMNS = 4
#: Percentages on the axis, which is logarithmic in what is left.
TICKS = (0, 30, 50, 65, 80, 90, 95, 99)
TITLE = "Time against the zeros among the weights, float32 forward; layers by size, channels-filters and kernel"


def draw_cases(cases: Sequence[tuple[Case, Curves]], options: Options, path: Path) -> None:
    """A panel per case; circles where sparse overtakes."""
    lines = -(-len(cases) // COLUMNS)
    size = 4.3 * COLUMNS, 3.3 * lines + 1.4
    with new_figure(path, full_title(TITLE, options), options, (lines, COLUMNS), size, sharey=False) as axes:
        flat = list(axes.flat)
        for axis, (case, curves) in zip(flat, cases, strict=False):
            _draw_case(axis, case, curves)
        for axis in flat[len(cases) :]:
            axis.set_visible(False)
        for line in axes:
            line[0].set_ylabel("ms")
        for axis in flat[max(0, len(cases) - COLUMNS) : len(cases)]:
            axis.set_xlabel("zeros among the weights, %")
        entries: dict[str, Any] = {}
        for axis in flat:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        figure = flat[0].figure
        figure.legend(entries.values(), entries, loc="outside lower center", ncols=5, frameon=False)


def _draw_case(axis: Any, case: Case, curves: Curves) -> None:
    from matplotlib.patheffects import withStroke

    for name, (colour, mark, style) in LOOKS.items():
        points = [(1 - zeros, 1e3 * seconds) for zeros, seconds in curves.points(name)]
        if not points:
            continue
        wide = 2.2 if name == "sparse" else 1.4
        look = {"color": colour, "linestyle": style, "marker": mark, "markersize": 4, "linewidth": wide}
        # A dense time is one number; drawn over all fractions, the last included.
        axis.plot(*zip(*points, strict=True), **look, label=LABELS.get(name, name), zorder=3 + (name == "sparse"))
    seconds = dict(curves.points("sparse"))
    for peer in MARKED:
        where = curves.crossover(peer)
        if where is None or where == 0 or not seconds:
            continue
        height = 1e3 * (curves.seconds(peer, 0.0) or 0)
        axis.plot(
            1 - where,
            height,
            "o",
            markersize=11,
            fillstyle="none",
            color=LOOKS[peer][0],
            markeredgewidth=1.6,
            label=f"sparse overtakes {LABELS.get(peer, peer)}",
            zorder=6,
        )
        axis.annotate(
            f"{100 * where:.0f} %",
            (1 - where, height),
            xytext=(5, 7),
            textcoords="offset points",
            fontsize=9,
            color=LOOKS[peer][0],
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=7,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(1.1, 0.008)
    axis.set_xticks([1 - tick / 100 for tick in TICKS], [str(tick) for tick in TICKS])
    axis.minorticks_off()
    plain_numbers(axis.yaxis)
    axis.grid(color="0.92")
    how = "" if case.pattern == "random" else f"\nwhole {case.pattern}"
    axis.set_title(f"{case.layer.case}, batch {case.batch}{how}", fontsize=10)
