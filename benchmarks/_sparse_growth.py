"""Time and bytes of a dense layer and of its Toeplitz matrix as images grow in size and in number."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _matrices as matrices
import numpy as np
from _harness import Contenders, Options, Oracle, measure
from _layers import Layer
from _peers import ours
from _report import full_title, new_figure, new_table, plain_numbers
from rich.console import Console

import fastconv
from fastconv.algorithms import REGISTRY

TITLE = "A dense 3x3 layer, 16 channels to 16, and its Toeplitz matrix, float32"
BASE = {"size": 16, "batch": 16}
STEPS = {"size": (8, 16, 32, 64, 128), "batch": (1, 4, 16, 64, 256)}
MEANING = {"size": "rows and columns of an image", "batch": "images"}
TURN = 0.03
TOLERANCE = 1e-4
#: Colours by which no two are confused, and marks.
LOOKS = {
    "auto": ("black", "o"),
    "implicit": ("#0072B2", "s"),
    "im2col": ("#56B4E9", "D"),
    "toeplitz": ("#D55E00", "^"),
    "CSR by fastconv": ("#E69F00", "v"),
    "CSR by SciPy": ("#CC79A7", "P"),
}
BYTES = {
    "input and output": ("black", "o"),
    "implicit": LOOKS["implicit"],
    "im2col": LOOKS["im2col"],
    "toeplitz": LOOKS["toeplitz"],
    "CSR matrix": LOOKS["CSR by fastconv"],
}
CAPTION = (
    "toeplitz makes the matrix on every call, some rows at a time; CSR is the product with one that is kept. Bytes "
    "of algorithms are the workspace that each says it takes; those of the CSR matrix are its three arrays."
)


class Point(NamedTuple):
    """One size of the layer."""

    axis: str
    value: int

    @property
    def layer(self) -> Layer:
        """The layer."""
        return Layer("growth", self.value if self.axis == "size" else BASE["size"], 16, 16, 3, pad=1)

    @property
    def batch(self) -> int:
        """Its batch."""
        return self.value if self.axis == "batch" else BASE["batch"]

    @property
    def name(self) -> str:
        """In words."""
        return f"growth: {self.axis} {self.value}"


def growth_points(quick: bool) -> list[Point]:
    """All that are measured."""
    return [Point(axis, value) for axis, values in STEPS.items() for value in (values[:3:2] if quick else values)]


def measured_point(point: Point, options: Options, show) -> dict[str, Any]:
    """Seconds and bytes."""
    layer, batch = point.layer, point.batch
    geometry, single = layer.geometry(batch), np.dtype(np.float32)
    x, w, b, dout = layer.arrays(batch)
    b = np.zeros_like(b)
    right = fastconv.conv(x.astype(np.float64), w.astype(np.float64), **layer.options, algorithm="im2col")
    matrix = matrices.ours(layer, w)
    names = ("auto", "implicit", "im2col", "toeplitz")
    calls: Contenders = {
        **{name: ours(layer, "forward", x, w, b, dout, name) for name in names},
        "CSR by fastconv": partial(matrices.product_of_images, matrix, x, geometry.out_shape, options.threads),
        "CSR by SciPy": partial(matrices.product_of_images, matrix, x, geometry.out_shape, None),
    }
    timings = measure(point.name, calls, TOLERANCE, options, show, Oracle(right, single), TURN)
    workspace = {
        name: REGISTRY[name].workspace_bytes("forward", geometry, single, options.threads) for name in names[1:]
    }
    return {
        **point._asdict(),
        "batch": batch,
        "layer": layer._asdict(),
        "nnz": matrix.nnz,
        "median_seconds": {name: t and t.seconds for name, t in timings.items()},
        "quartile_seconds": {name: t and t.quartiles for name, t in timings.items()},
        "repeats": {name: t and t.repeats for name, t in timings.items()},
        "error": {name: t and t.error for name, t in timings.items()},
        "bytes": {
            "input and output": x.nbytes + dout.nbytes,
            **workspace,
            "CSR matrix": matrices.nbytes(matrix),
        },
    }


def print_growth(points: list[dict[str, Any]], options: Options, screen: Console) -> None:
    """Milliseconds and MiB."""
    table = new_table(full_title(TITLE, options), CAPTION)
    table.add_column("")
    for name in LOOKS:
        table.add_column(f"{name}\nms", justify="right")
    for name in BYTES:
        table.add_column(f"{name}\nMiB", justify="right")
    for point in points:
        times = (f"{point['median_seconds'][name] * 1e3:.3g}" for name in LOOKS)
        sizes = (f"{point['bytes'][name] / 2**20:.3g}" for name in BYTES)
        table.add_row(f"{point['axis']} {point['value']}", *times, *sizes)
    screen.print(table)


def draw_growth(points: list[dict[str, Any]], options: Options, path: Path) -> None:
    """Log-log: a column per size that grows, a row for time and one for bytes."""
    panels = (("median_seconds", "time, ms", 1e3, LOOKS), ("bytes", "MiB", 2.0**-20, BYTES))
    with new_figure(path, full_title(TITLE, options), options, (2, 2), (11, 9), sharex="col", sharey="row") as axes:
        for line, (what, label, scale, looks) in zip(axes, panels, strict=True):
            line[0].set_ylabel(label)
            for axis, grown in zip(line, STEPS, strict=True):
                here = [point for point in points if point["axis"] == grown]
                for name, (colour, mark) in looks.items():
                    values = [(point["value"], point[what][name] * scale) for point in here]
                    if values:
                        axis.plot(*zip(*values, strict=True), color=colour, marker=mark, label=name)
                axis.set_xscale("log", base=2)
                axis.set_yscale("log")
                axis.set_xticks([point["value"] for point in here])
                axis.xaxis.set_major_formatter("{x:g}")
                axis.minorticks_off()
                axis.grid(color="0.9")
                fixed = "batch" if grown == "size" else "size"
                axis.set_title(f"{grown} grows; {fixed} {BASE[fixed]}")
            plain_numbers(line[0].yaxis)
            line[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), title=label)
        for axis, grown in zip(axes[1], STEPS, strict=True):
            axis.set_xlabel(MEANING[grown])
