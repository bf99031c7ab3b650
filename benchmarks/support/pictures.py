"""The pictures of benchmarks, drawn from the JSON of a run: 7 inches wide, 8 pt type, as SVG and PNG.

Each picture shows one thing. Dots and bars have another colour if fastconv takes longer than its peer. The small print
names the machine, the versions and the date of the run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from support.choice_pictures import draw_ablation, draw_choice, draw_fit
from support.picture_style import (
    PEERS,
    STYLE,
    Data,
    add_legend,
    colours,
    dots,
    log_log,
    new_figure,
    plain_numbers,
    ratio_axis,
    save,
    short,
)

#: These times are no peers: bounds for any library, and times of fastconv itself.
BOUNDS = {"bare GEMM", "FMA peak", "bare products", "copy limit", "copy", "copy, warm", "own backward_data"}
TITLES = {
    "bench_layers": "Layers of well-known networks",
    "bench_layers_beyond": "Other layers",
    "bench_lowering": "Lowering: im2col, col2im and a step of training by them",
    "bench_norms": "Normalisation and activations",
    "bench_pooling": "Pooling and relu",
    "bench_transpose": "Transposed convolution",
    "bench_windows": "Pooling by large windows",
    "bench_filters": "Filters of images and signals",
    "sparse_vs_dense_layers": "Sparse matrices of layers: making them, and multiplying with them",
    "sparse_vs_dense_images": "Sparse matrices and operators of images",
}
#: The panels that are drawn with a bar for each layer, by benchmark.
BARRED = {
    "bench_layers": ("float32 forward", "float32 backward"),
    "bench_layers_beyond": ("float32 forward", "float32 backward"),
    "bench_transpose": ("forward", "backward"),
}


# ---------------------------------------------------------------------------------------------------------- the run


def pairs(data: Data, bounds: bool = False) -> list[tuple[str, str]]:
    """The (panel, ratio) pairs of a run, without ratios to bounds."""
    found = dict.fromkeys((row["panel"], key) for row in data["results"] for key in row["ratios"])
    left_out = BOUNDS | set(data.get("bounds", ()))
    return [pair for pair in found if bounds or peer_of(pair[1]) not in left_out]


def peer_of(ratio: str) -> str:
    """The peer of a ratio: 'PyTorch' for 'PyTorch / fastconv'."""
    return ratio.partition(" / ")[0]


def against(ratio: str) -> str:
    """The label of a ratio: 'PyTorch' for 'PyTorch / fastconv', 'NumPy FFT (fft)' for 'NumPy FFT / fastconv fft'."""
    peer, _, own = ratio.partition(" / ")
    own = own.removeprefix("fastconv").strip()
    return f"{peer} ({own})" if own else peer


def values(data: Data, panel: str, ratio: str) -> list[tuple[str, float]]:
    """The values of a ratio, as (case and batch, value)."""
    rows = (row for row in data["results"] if row["panel"] == panel and row["ratios"].get(ratio) is not None)
    return [(f"{row['case']}, batch {row['batch']}", row["ratios"][ratio]) for row in rows]


# --------------------------------------------------------------------------------------------------------- the ratios


def draw_dots(data: Data) -> Any:
    """Draw a row for each panel and peer, with a dot for each case."""
    rows = [(panel, ratio, [value for _, value in values(data, panel, ratio)]) for panel, ratio in pairs(data)]
    rows = [row for row in rows if row[2]]
    every = [value for _, _, found in rows for value in found]
    title = TITLES.get(data["benchmark"], data["benchmark"])
    figure = new_figure(0.26 * len(rows) + 1.15, f"{title}: faster in {_part(every)}", data)
    axis = figure.subplots()
    for i, (_, _, found) in enumerate(rows):
        dots(axis, found, i)
        mean = statistics.geometric_mean(found)
        axis.plot([mean, mean], [i - 0.36, i + 0.36], color="black", linewidth=1.6, zorder=4)
        axis.text(1.01, i, short(mean), transform=axis.get_yaxis_transform(), va="center", weight="bold")
    axis.text(1.01, -0.85, "mean", transform=axis.get_yaxis_transform(), va="center")
    ratio_axis(axis, every)
    axis.set_yticks(range(len(rows)), [f"{panel}, {against(ratio)}" for panel, ratio, _ in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _part(found: Sequence[float]) -> str:
    return f"{sum(value >= 1 for value in found)} of {len(found)} cases"


def draw_bars(data: Data, panel: str, ratio: str) -> Any:
    """Draw a bar for each case of one panel and peer, and the geometric mean last."""
    cases = values(data, panel, ratio)
    found = [value for _, value in cases]
    cases = [*cases, ("geometric mean", statistics.geometric_mean(found))]
    title = f"{TITLES.get(data['benchmark'], data['benchmark'])}, {panel}, against {peer_of(ratio)}"
    figure = new_figure(0.15 * len(cases) + 0.9, f"{title}: faster in {_part(found)}", data)
    axis = figure.subplots()
    ends = [value for _, value in cases]
    # Bars begin at 1 and extend to the left if fastconv is slower, to the right if it is faster.
    axis.barh(range(len(cases)), [end - 1 for end in ends], 0.75, left=1, color=colours(ends), zorder=3)
    for i, end in enumerate(ends):
        axis.annotate(
            short(end),
            (end, i),
            xytext=(-2 if end < 1 else 2, 0),
            textcoords="offset points",
            ha="right" if end < 1 else "left",
            va="center_baseline",
            fontsize=7,
            weight="bold" if i == len(found) else "normal",
            zorder=4,
        )
    ratio_axis(axis, [*ends, min(*ends, 1) / 1.1, max(ends) * 1.1])
    axis.set_yticks(range(len(cases)), [name for name, _ in cases])
    axis.axhline(len(found) - 0.5, color="0.6", linewidth=0.6)
    axis.set_ylim(len(cases) - 0.4, -0.6)
    return figure


def summary_rows(data: Data) -> dict[str, dict[str, list[float]]]:
    """The ratios to PyTorch of float32 layers: {'forward' or 'backward': {network: ratios}}."""
    found: dict[str, dict[str, list[float]]] = {"forward": {}, "backward": {}}
    for row in data["results"]:
        dtype, _, op = row["panel"].partition(" ")
        value = row["ratios"].get("PyTorch / fastconv")
        if dtype == "float32" and value is not None:
            found[op].setdefault(row["layer"]["name"], []).append(value)
    return found


def draw_summary(data: Data) -> Any:
    """Draw the picture of README: a dot for each layer, by network, forward and backward."""
    panels = summary_rows(data)
    names = list(panels["forward"])
    every = [value for rows in panels.values() for found in rows.values() for value in found]
    title = f"float32 layers of well-known networks against PyTorch: faster in {_part(every)}"
    figure = new_figure(2.5, title, data)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, (op, rows) in zip(axes, panels.items(), strict=True):
        for i, name in enumerate(names):
            dots(axis, rows[name], i, size=18)
        found = [value for row in rows.values() for value in row]
        mean = statistics.geometric_mean(found)
        axis.axvline(mean, color="0.5", linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        axis.set_title(f"{op}: {short(mean)} times as fast", loc="left")
        ratio_axis(axis, every, None)
        axis.set_ylim(len(names) - 0.4, -0.6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_xlabel("time of PyTorch / time of fastconv")
    axes[1].set_xlabel("a dot: a layer at batch 1 or 16; dashed: mean")
    return figure


# ----------------------------------------------------------------------------------------------------- memory, growth


def draw_memory(data: Data) -> Any:
    """Draw the memory beyond input and output of one batch, by layer and op, for fastconv and its peers."""
    cells = [cell for cell in data["results"] if cell["contender"] in PEERS and cell["extra_bytes"] is not None]
    batch = statistics.mode(cell["batch"] for cell in cells)
    cells = [cell for cell in cells if cell["batch"] == batch]
    layers = list(dict.fromkeys(cell["layer"] for cell in cells))
    ops = list(dict.fromkeys(cell["op"] for cell in cells))
    title = f"Peak memory beyond input and output, float32, batch {batch}, MiB"
    figure = new_figure(0.17 * len(layers) + 1.0, title, data, legend=1)
    axes = figure.subplots(1, len(ops), sharex=True, sharey=True, squeeze=False)[0]
    marks = {"auto": ("fastconv", "o", 16), "PyTorch": ("PyTorch", "s", 12), "ONNX Runtime": ("ONNX Runtime", "D", 10)}
    for axis, op in zip(axes, ops, strict=True):
        for name, (label, mark, size) in marks.items():
            here = [cell for cell in cells if (cell["contender"], cell["op"]) == (name, op)]
            if here:
                amounts = [max(cell["extra_bytes"] / 2**20, 0.1) for cell in here]
                rows = [layers.index(cell["layer"]) for cell in here]
                axis.scatter(amounts, rows, s=size, marker=mark, color=PEERS[name], label=label, zorder=3)
        axis.set_xscale("log")
        plain_numbers(axis.xaxis, (1,))
        axis.set_title(op, loc="left")
        axis.grid(color="0.9", linewidth=0.6)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(layers)), layers)
    axes[0].set_ylim(len(layers) - 0.5, -0.5)
    add_legend(figure, axes, 3)
    return figure


GROWN = {"N": "images in a batch", "C": "channels", "H": "rows and columns"}


def draw_scaling(data: Data, what: str) -> Any:
    """Draw time or memory as one size doubles, with a column for each size and a row for each op."""
    threads = max(point["threads"] for point in data["results"])
    points = [point for point in data["results"] if point["threads"] == threads]
    ops = list(dict.fromkeys(point["op"] for point in points))
    axes_names = list(dict.fromkeys(point["axis"] for point in points))
    label, unit, least = ("ms", 1e-3, 0.0) if what == "median_seconds" else ("MiB", 2.0**20, 0.1)
    title = "Time of a 3x3 layer" if what == "median_seconds" else "Memory beyond input and output of a 3x3 layer"
    figure = new_figure(1.6 * len(ops) + 0.8, f"{title} as one size doubles, float32", data, legend=1)
    axes = figure.subplots(len(ops), len(axes_names), sharex="col", sharey="row", squeeze=False)
    for line, op in zip(axes, ops, strict=True):
        line[0].set_ylabel(f"{op}, {label}")
        for axis, grown in zip(line, axes_names, strict=True):
            here = [point for point in points if (point["op"], point["axis"]) == (op, grown)]
            for name in ("fastconv", "PyTorch", "ONNX Runtime"):
                found = [(p["value"], max(p[what][name] / unit, least)) for p in here if p[what].get(name) is not None]
                if found:
                    axis.plot(*zip(*found, strict=True), marker="o", color=PEERS[name], label=name)
            log_log(axis, [point["value"] for point in here])
    for axis, grown in zip(axes[-1], axes_names, strict=True):
        axis.set_xlabel(GROWN.get(grown, grown))
    add_legend(figure, axes.flat, 3)
    return figure


# ----------------------------------------------------------------------------------------------------- sparse weights

#: The colour and marker of each curve of time against zeros.
CURVES = {
    "auto": ("black", "", "auto, dense"),
    "implicit": ("#0072B2", "", "implicit, dense"),
    "PyTorch": ("#009E73", "", "PyTorch, dense"),
    "sparse": ("#D55E00", "o", "sparse"),
    "toeplitz": ("#E69F00", "^", "toeplitz"),
    "CSR by SciPy": ("0.5", "P", "CSR kept, SciPy's product"),
}
ZEROS = (0, 50, 80, 90, 95, 99)


def draw_crossovers(data: Data) -> Any:
    """Draw, for each case, the share of zeros from which 'sparse' is faster than the dense algorithms."""
    cases = data["results"]
    title = "The share of zero weights from which 'sparse' is faster"
    figure = new_figure(0.19 * len(cases) + 0.9, title, data, legend=1)
    axis = figure.subplots()
    marks = {"implicit": "s", "PyTorch": "D", "auto": "o"}
    for name, mark in marks.items():
        found = [(case["crossover"].get(name), i) for i, case in enumerate(cases)]
        found = [(100 * where, i) for where, i in found if where is not None]
        colour, _, label = CURVES[name]
        if found:
            axis.scatter(*zip(*found, strict=True), s=18, marker=mark, color=colour, label=f"than {label}", zorder=3)
    axis.set_xlim(-2, 100)
    axis.set_yticks(range(len(cases)), [_case(case) for case in cases])
    axis.set_ylim(len(cases) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(color="0.9", linewidth=0.6)
    axis.set_xlabel("zeros among the weights, %")
    add_legend(figure, [axis], 3)
    return figure


def _case(case: Data) -> str:
    pattern = "" if case["pattern"] == "random" else f", whole {case['pattern']}"
    return f"{case['case']}, batch {case['batch']}{pattern}"


def draw_curves(data: Data) -> Any:
    """Draw time against zeros for the layers whose weights were pruned at random, at the larger batch."""
    batch = max(case["batch"] for case in data["results"])
    cases = [case for case in data["results"] if (case["batch"], case["pattern"]) == (batch, "random")]
    columns = 3
    lines = -(-len(cases) // columns)
    title = f"Time of a layer against the zeros among its weights, float32 forward, batch {batch}, ms"
    figure = new_figure(1.7 * lines + 0.8, title, data, legend=2)
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False)
    for axis, case in zip(axes.flat, cases, strict=False):
        for name, (colour, mark, label) in CURVES.items():
            found = [(1 - zeros, 1e3 * seconds) for zeros, seconds in _curve(case, name)]
            if found:
                style = "-" if mark else "--"
                axis.plot(*zip(*found, strict=True), style, marker=mark, color=colour, label=label, markersize=3)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(1.1, 0.008)
        axis.set_xticks([1 - tick / 100 for tick in ZEROS], [str(tick) for tick in ZEROS])
        axis.minorticks_off()
        plain_numbers(axis.yaxis)
        axis.grid(color="0.92", linewidth=0.6)
        axis.set_title(case["case"], loc="left")
    for axis in list(axes.flat)[len(cases) :]:
        axis.set_visible(False)
    for axis in list(axes.flat)[: len(cases)][-columns:]:
        axis.set_xlabel("zeros, %")
        axis.tick_params(labelbottom=True)
    add_legend(figure, axes.flat, 4)
    return figure


def _curve(case: Data, name: str) -> Iterator[tuple[float, float]]:
    """The points (share of zeros, seconds); a dense algorithm has one time, which holds for every share."""
    seconds = case["median_seconds"]
    for entry in case["zeros"]:
        zeros = entry["fraction"]
        found = seconds.get(name) or seconds.get(f"{name} @ {zeros:.4f}")
        if found:
            yield zeros, found


def draw_growth(data: Data, what: str) -> Any:
    """Draw the time or bytes of a layer and of its sparse matrix, as image and batch grow."""
    points = data["results"]
    grown = list(dict.fromkeys(point["axis"] for point in points))
    label, scale = ("ms", 1e3) if what == "median_seconds" else ("MiB", 2.0**-20)
    title = "Time of a layer" if what == "median_seconds" else "Memory of a layer"
    figure = new_figure(2.6, f"{title} and of its sparse matrix as image and batch grow, {label}", data)
    palette = ("black", "#0072B2", "#56B4E9", "#E69F00", "#CC79A7", "0.5")
    axes = figure.subplots(1, len(grown), sharey=True, squeeze=False)[0]
    for axis, name_of_axis in zip(axes, grown, strict=True):
        here = [point for point in points if point["axis"] == name_of_axis]
        for name, colour in zip(here[0][what], palette, strict=False):
            # A logarithmic axis cannot show a workspace of 0 bytes.
            found = [(p["value"], p[what][name] * scale) for p in here if p[what].get(name)]
            if found:
                axis.plot(*zip(*found, strict=True), marker="o", color=colour, label=name)
        log_log(axis, [point["value"] for point in here])
        axis.set_xlabel("rows and columns" if name_of_axis == "size" else "images in a batch")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


# ------------------------------------------------------------------------------------------------------------ filters

LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "black", "0.5")
MARKS = {"Gaussian": "o-", "box": "s--", "Sobel": "^:"}
FILTERS = "best peer / fastconv"


def draw_filters(data: Data, panel: str, by: str, title: str) -> Any | None:
    """Draw ratios against kernel size: a line for each image size, and an axis for each value of `by`."""
    rows = [row for row in data["results"] if row["panel"] == panel and row["ratios"].get(FILTERS) is not None]
    if by != "dtype":
        rows = [row for row in rows if row["dtype"] == "float32"]
    columns = list(dict.fromkeys(row[by] for row in rows))[:2]
    if not columns:
        return None
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    lines_of_legend = -(-len({(row.get("kind"), row["size"]) for row in rows}) // 4)
    title = f"{title}: faster in {_part([row['ratios'][FILTERS] for row in rows])}"
    figure = new_figure(2.7, title, data, legend=lines_of_legend)
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, value in zip(axes, columns, strict=True):
        lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
        for row in rows:
            if row[by] == value:
                lines.setdefault((row.get("kind", ""), row["size"]), []).append((row["kernel"], row["ratios"][FILTERS]))
        for (kind, size), points in lines.items():
            colour = LINES[sizes.index(size) % len(LINES)]
            label = f"{kind} {size} x {size}".strip()
            axis.plot(*zip(*points, strict=True), MARKS.get(kind, "o-"), color=colour, label=label)
        axis.axhline(1, color="black", linewidth=0.9)
        axis.set_xscale("log")
        axis.set_yscale("log")
        plain_numbers(axis.xaxis)
        plain_numbers(axis.yaxis)
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_title(str(value) if by == "dtype" else "1 channel" if value == 1 else f"{value} channels", loc="left")
        axis.set_xlabel("rows and columns of the kernel")
    axes[0].set_ylabel("time of the fastest peer /\ntime of fastconv")
    add_legend(figure, axes, 4)
    return figure


# ------------------------------------------------------------------------------------------------------- all of a run


def slug(text: str) -> str:
    """'float32 forward' in the form that file names use."""
    return "_".join(text.lower().replace("/", " ").split())


def figures(data: Data, name: str) -> dict[str, Callable[[], Any]]:
    """The pictures of a run whose JSON is NAME.json: a drawing function for each file name without suffix."""
    kind = data["benchmark"]
    if kind.startswith("bench_choice"):
        return {name: lambda: draw_choice(data)}
    if kind == "ablation":
        return {name: lambda: draw_ablation(data)}
    if kind == "fit_costs":
        return {name: lambda: draw_fit(data)}
    if kind == "bench_memory":
        return {name: lambda: draw_memory(data)}
    if kind == "bench_scaling":
        whats = {"time": "median_seconds", "memory": "extra_bytes"}
        return {f"{name}_{word}": lambda what=what: draw_scaling(data, what) for word, what in whats.items()}
    if name.endswith("_growth"):
        whats = {"time": "median_seconds", "memory": "bytes"}
        return {f"{name}_{word}": lambda what=what: draw_growth(data, what) for word, what in whats.items()}
    if name == "sparse_vs_dense":
        return {name: lambda: draw_crossovers(data), f"{name}_curves": lambda: draw_curves(data)}
    found: dict[str, Callable[[], Any]] = {name: lambda: draw_dots(data)}
    if kind == "bench_filters":
        images = "Image filters, kernels of full rank, against the fastest peer"
        separable = "Separable kernels against the fastest peer"
        found[f"{name}_images"] = lambda: draw_filters(data, "image filters", "dtype", images)
        found[f"{name}_separable"] = lambda: draw_filters(data, "separable kernels", "channels", separable)
    for panel, ratio in pairs(data):
        if panel in BARRED.get(kind, ()) and values(data, panel, ratio):
            found[f"{name}_{slug(panel)}_{slug(peer_of(ratio))}"] = lambda pair=(panel, ratio): draw_bars(data, *pair)
    return found


def draw_all(data: Data, folder: Path, name: str) -> list[Path]:
    """Draw every picture of a run into `folder`."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        drawn = {file: draw() for file, draw in figures(data, name).items()}
        return [path for file, figure in drawn.items() if figure is not None for path in save(figure, folder, file)]
