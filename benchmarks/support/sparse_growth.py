"""Time and bytes of a dense layer and of its Toeplitz matrix as images grow in size and in number."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

import fastconv
from fastconv.convolution.choose import REGISTRY
from fastconv.convolution.plan import Case
from support import matrices
from support.harness import Contenders, Options, Oracle, measure
from support.layers import Layer
from support.peers import ours
from support.report import full_title, new_table

TITLE = "A dense 3x3 layer, 16 channels to 16, and its Toeplitz matrix, float32"
BASE = {"size": 16, "batch": 16}
STEPS = {"size": (8, 16, 32, 64, 128), "batch": (1, 4, 16, 64, 256)}
TURN = 0.03
TOLERANCE = 1e-4
TIMED = ("auto", "implicit", "im2col", "toeplitz", "CSR by SciPy")
BYTES = ("input and output", "implicit", "im2col", "toeplitz", "CSR matrix")
CAPTION = (
    "toeplitz makes the matrix on every call; CSR is the product with a finished matrix, by SciPy. "
    "The bytes of an algorithm are the workspace that its plan states; the bytes of the CSR matrix are its "
    "three arrays."
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
    """All points that are measured."""
    return [Point(axis, value) for axis, values in STEPS.items() for value in (values[:3:2] if quick else values)]


def measured_point(point: Point, options: Options, show) -> dict[str, Any]:
    """Seconds and bytes at a point."""
    layer, batch = point.layer, point.batch
    geometry, single = layer.geometry(batch), np.dtype(np.float32)
    x, w, b, dout = layer.arrays(batch)
    b = np.zeros_like(b)
    right = fastconv.conv(x.astype(np.float64), w.astype(np.float64), **layer.options, algorithm="im2col")
    matrix = matrices.ours(layer, w)
    names = ("auto", "implicit", "im2col", "toeplitz")
    planned = Case.of("forward", geometry, single, options.threads)
    refused = [name for name in names[1:] if REGISTRY[name].unsupported(planned) is not None]
    calls: Contenders = {
        **{name: ours(layer, "forward", x, w, b, dout, name) for name in names if name not in refused},
        **dict.fromkeys(refused),
        "CSR by SciPy": partial(matrices.product_of_images, matrix, x, geometry.out_shape),
    }
    timings = measure(point.name, calls, TOLERANCE, options, show, Oracle(right, single), TURN)
    workspace = {name: None if name in refused else REGISTRY[name].plan(planned).workspace_bytes for name in names[1:]}
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
    """Print milliseconds and MiB."""
    table = new_table(full_title(TITLE, options), CAPTION)
    table.add_column("")
    for name in TIMED:
        table.add_column(f"{name}\nms", justify="right")
    for name in BYTES:
        table.add_column(f"{name}\nMiB", justify="right")
    for point in points:
        times = (f"{point['median_seconds'][name] * 1e3:.3g}" for name in TIMED)
        sizes = (f"{point['bytes'][name] / 2**20:.3g}" for name in BYTES)
        table.add_row(f"{point['axis']} {point['value']}", *times, *sizes)
    screen.print(table)
