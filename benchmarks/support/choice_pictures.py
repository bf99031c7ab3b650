"""The pictures of the choice of algorithm: regret, fits of the cost model, and what each path buys."""

from __future__ import annotations

import statistics
from typing import Any

from support.picture_style import FASTER, NEUTRAL, SLOWER, Data, new_figure, spread

#: A higher regret is a bad choice if the call takes at least `LONGER` seconds.
MUCH, LONGER = 1.5, 1e-4


def best_of(case: Data) -> float:
    """The seconds of the fastest algorithm."""
    return min(seconds for name, seconds in case["seconds"].items() if name != "auto")


def draw_choice(data: Data) -> Any:
    """Draw the regret of 'auto': a row for each family of layers, with a dot for each case."""
    families = list(dict.fromkeys(case["case"]["family"] for case in data["cases"]))
    longer = [case for case in data["cases"] if best_of(case) >= LONGER]
    bad = sum(case["regret"] > MUCH for case in longer)
    title = f"Time of 'auto' / time of the fastest: over {MUCH:g} in {bad} of {len(longer)} calls of 100 µs or more"
    figure = new_figure(0.21 * len(families) + 1.0, title, data)
    axis = figure.subplots()
    most = max(case["regret"] for case in data["cases"])
    for i, family in enumerate(families):
        here = [case for case in data["cases"] if case["case"]["family"] == family]
        offsets = spread(len(here))
        for case, offset in zip(here, offsets, strict=True):
            colour = SLOWER if case["regret"] > MUCH else FASTER
            face = colour if best_of(case) >= LONGER else "none"
            axis.scatter(max(case["regret"], 0.8), i + offset, s=9, facecolor=face, edgecolor=colour, linewidths=0.6)
        mean = statistics.geometric_mean(case["regret"] for case in here)
        axis.text(1.01, i, f"{mean:.2f}", transform=axis.get_yaxis_transform(), va="center")
    axis.text(1.01, -0.95, "mean", transform=axis.get_yaxis_transform(), va="center")
    axis.axvline(1, color="black", linewidth=0.9, zorder=0)
    axis.axvline(MUCH, color="0.5", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    axis.set_xscale("log")
    axis.set_xlim(0.78, max(2.2, 1.1 * most))
    ticks = [tick for tick in (0.8, 1, 1.5, 2, 3, 5, 10, 20, 50) if tick <= axis.get_xlim()[1]]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(families)), families)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(families) - 0.4, -0.6)
    axis.set_xlabel("time of 'auto' / time of the fastest algorithm chosen by name (hollow: calls under 100 µs)")
    return figure


def draw_fit(data: Data) -> Any:
    """Draw the mean regret of every family before and after rates were fitted."""
    before, after = data["summary"]["before"], data["summary"]["after"]
    families = [name for name in after if name in before]
    title = f"Mean regret of 'auto' before and after rates were fitted to {data['kind']}"
    figure = new_figure(0.18 * len(families) + 1.0, title, data)
    axis = figure.subplots()
    for i, family in enumerate(families):
        ends = before[family]["geomean"], after[family]["geomean"]
        axis.plot(ends, (i, i), color="0.8", linewidth=2, zorder=1)
        axis.scatter(ends[0], i, s=18, color=NEUTRAL, label="before" if i == 0 else None, zorder=3)
        axis.scatter(ends[1], i, s=18, color=FASTER, label="after" if i == 0 else None, zorder=4)
    axis.set_xscale("log")
    most = max(max(before[family]["geomean"], after[family]["geomean"]) for family in families)
    axis.set_xlim(0.99 if most < 1.3 else 0.97, 1.05 * most)
    ticks = (1, 1.02, 1.05, 1.1, 1.2) if most < 1.3 else (1, 1.1, 1.2, 1.5, 2, 3, 5, 10)
    ticks = [tick for tick in ticks if tick < 1.05 * most]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(families)), families)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(families) - 0.4, -0.6)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_xlabel("time of the chosen algorithm / time of the fastest, geometric mean")
    axis.legend(frameon=False, loc="lower right")
    return figure


def draw_ablation(data: Data) -> Any:
    """Draw what each path buys: a dot for each case whose plan changes without the path, and two means."""
    paths = data["paths"]
    gone = [path["path"] for path in paths if not path["pays"]]
    title = "Time of 'auto' without a path / time with it" + (f" ({len(gone)} paths buy nothing)" if gone else "")
    figure = new_figure(0.2 * len(paths) + 1.0, title, data)
    axis = figure.subplots()
    for i, path in enumerate(paths):
        for timed, offset in zip(path["timed"], spread(len(path["timed"])), strict=True):
            axis.scatter(timed["ratio"], i + offset, s=7, color=FASTER if timed["ratio"] >= 1 else SLOWER, linewidths=0)
        text = f"{path['layers']:.3f}  {path['families']:.3f}"
        axis.text(1.01, i, text, transform=axis.get_yaxis_transform(), va="center")
    axis.text(1.01, -0.95, "layers families", transform=axis.get_yaxis_transform(), va="center")
    axis.axvline(1, color="black", linewidth=0.9, zorder=0)
    axis.axvline(data["limits"]["one"], color="0.5", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [tick for tick in (0.5, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100) if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(paths)), [path["path"] for path in paths])
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(paths) - 0.4, -0.6)
    axis.set_xlabel("time without the path / time with it; cases whose plan does not change have no dot")
    return figure
