"""The pictures of docs/convolution_as_a_matrix.md.

Run as ``python examples/convolution_as_a_matrix.py``; it takes a few seconds and needs
``python -m pip install -e ".[demo]"``.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import lsqr

import fastconv

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image
    from sklearn.datasets import load_sample_image
except ModuleNotFoundError as error:
    raise SystemExit(f'The pictures need {error.name}; type: python -m pip install -e ".[demo]"') from None

#: From dark to light for everyone, colour-blind or not, and on paper.
COLOURS = "cividis"
IMAGES = Path(__file__).parent.parent / "docs" / "images"


def taps(*shape: int) -> np.ndarray:
    """Weights that are the numbers of their taps, from 1, the same in every filter and channel."""
    kernel = np.arange(1.0, 1 + np.prod(shape[2:])).reshape(shape[2:])
    return np.broadcast_to(kernel, shape).copy()


def show(axis: Any, matrix: np.ndarray, taps: float, numbers: bool = False) -> Any:
    """Entries by the colour of their tap, white where there are none; `numbers` writes them into the cells."""
    colours = plt.get_cmap(COLOURS).with_extremes(bad="white")
    drawn = axis.imshow(np.ma.masked_equal(matrix, 0), cmap=colours, vmin=1, vmax=taps, interpolation="nearest")
    if numbers:
        for (i, j), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if value < 0.55 * taps else "black"
                axis.text(j, i, f"{value:g}", ha="center", va="center", color=colour, fontsize=9)
            else:
                axis.text(j, i, "0", ha="center", va="center", color="0.75", fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    return drawn


def grid(axis: Any, shape: tuple[int, int], rows: int, columns: int, **look: Any) -> None:
    """Lines around every block of so many rows and columns."""
    for i in range(0, shape[0] + 1, rows):
        axis.axhline(i - 0.5, **look)
    for j in range(0, shape[1] + 1, columns):
        axis.axvline(j - 0.5, **look)


def small_matrix() -> Any:
    """The 4 x 16 matrix of a 3x3 kernel on a 4x4 image."""
    w = taps(1, 1, 3, 3)
    matrix = fastconv.toeplitz_matrix(w, (1, 4, 4)).toarray()
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 2.9), width_ratios=(1, 5.2), layout="constrained")
    show(axes[0], w[0, 0], 9, numbers=True)
    axes[0].set_title("kernel w")
    show(axes[1], matrix, 9, numbers=True)
    axes[1].set_title("C, 4 x 16: a row for each output, a column for each cell of the image")
    axes[1].set_xticks(range(16), [f"{i},{j}" for i, j in np.ndindex(4, 4)], fontsize=8)
    axes[1].set_yticks(range(4), [f"{i},{j}" for i, j in np.ndindex(2, 2)], fontsize=8)
    axes[1].set_xlabel("cell of the image: row, column")
    axes[1].set_ylabel("output")
    grid(axes[1], (4, 16), 2, 4, color="black", linewidth=1.2)
    return figure


class Panel(NamedTuple):
    """A matrix to be drawn."""

    title: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    options: dict[str, Any]


PANELS = (
    Panel("plain", (1, 8, 8), (1, 1, 3, 3), {}),
    Panel("pad 1", (1, 8, 8), (1, 1, 3, 3), {"pad": 1}),
    Panel("pad 1, stride 2", (1, 8, 8), (1, 1, 3, 3), {"pad": 1, "stride": 2}),
    Panel("pad 2, dilation 2", (1, 8, 8), (1, 1, 3, 3), {"pad": 2, "dilation": 2}),
    Panel("pad 1, circular", (1, 8, 8), (1, 1, 3, 3), {"pad": 1, "pad_mode": "circular"}),
    Panel("2 channels, 3 filters", (2, 6, 6), (3, 2, 3, 3), {"pad": 1}),
    Panel("4 channels, 4 filters, 2 groups", (4, 5, 5), (4, 2, 3, 3), {"pad": 1, "groups": 2}),
    Panel("1-D, 9 taps: 3 channels, 3 groups", (3, 24), (3, 1, 9), {"pad": 4, "groups": 3}),
)


def structures() -> Any:
    """What each option does to the matrix."""
    figure, axes = plt.subplots(2, 4, figsize=(13, 7.6), layout="constrained")
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        w = taps(*panel.w_shape)
        matrix = fastconv.toeplitz_matrix(w, panel.x_shape, **panel.options).toarray()
        out = fastconv.conv_output_shape((1, *panel.x_shape), panel.w_shape, **panel.options)[1:]
        drawn = show(axis, matrix, 9)
        # Thin: a row of the image. Thick: a channel.
        if len(out) == 3:
            grid(axis, matrix.shape, out[2], panel.x_shape[2], color="0.8", linewidth=0.5)
        positions, cells = int(np.prod(out[1:])), int(np.prod(panel.x_shape[1:]))
        grid(axis, matrix.shape, positions, cells, color="black", linewidth=1.2)
        axis.set_title(panel.title, fontsize=11)
        axis.set_xlabel(f"{matrix.shape[1]} cells of the image")
        axis.set_ylabel(f"{matrix.shape[0]} outputs")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.5, ticks=range(1, 10))
    bar.set_label("tap of the kernel")
    return figure


def transposed() -> Any:
    """C gathers nine cells into one; its transpose scatters one into nine."""
    w = taps(1, 1, 3, 3)
    matrix = fastconv.toeplitz_matrix(w, (1, 4, 4))
    dout = np.array([[1.0, 0.0], [0.0, 2.0]])
    dx = (matrix.T @ dout.ravel()).reshape(4, 4)
    # All cells of the product are of one size, those of the image larger; in inches.
    cell, large, top, (wide, high) = 0.28, 0.72, 0.6, (9.6, 5.6)
    figure = plt.figure(figsize=(wide, high))

    def place(values: np.ndarray, left: float, size: float, title: str, most: float) -> Any:
        rows, columns = values.shape
        bottom = top + (16 * cell - rows * size) / 2
        box = left / wide, bottom / high, columns * size / wide, rows * size / high
        axis = figure.add_axes(box)
        show(axis, values, most, numbers=True)
        axis.set_title(title, fontsize=11)
        return axis

    def write(left: float, text: str) -> None:
        figure.text(left / wide, (top + 8 * cell) / high, text, ha="center", va="center", fontsize=16)

    axis = place(matrix.T.toarray(), 0.9, cell, "C$^T$, 16 x 4", 9)
    axis.set_yticks(range(16), [f"{i},{j}" for i, j in np.ndindex(4, 4)], fontsize=8)
    axis.set_xticks(range(4), [f"{i},{j}" for i, j in np.ndindex(2, 2)], fontsize=8)
    axis.set_ylabel("cell of the image: row, column")
    axis.set_xlabel("output: row, column")
    place(dout.reshape(4, 1), 2.75, cell, "dout", dx.max())
    write(3.45, "=")
    axis = place(dx.reshape(16, 1), 3.85, cell, "dx", dx.max())
    write(4.75, "as an\nimage")
    axis = place(dx, 6.0, large, "the kernel, once for each output,\nscaled by dout, and added", dx.max())
    axis.set_xticks(range(4))
    axis.set_yticks(range(4))
    axis.set_xlabel("column")
    axis.set_ylabel("row")
    return figure


def motion(size: int) -> np.ndarray:
    """A blur along a slanted line, (size, size), that adds up to one."""
    kernel = np.zeros((size, size))
    for t in np.linspace(-1, 1, 20 * size):
        place = (size - 1) / 2 * np.array([1 + 0.5 * t, 1 + t])
        i, j = np.floor(place).astype(int)
        a, b = place - (i, j)
        for di, dj, weight in ((0, 0, (1 - a) * (1 - b)), (0, 1, (1 - a) * b), (1, 0, a * (1 - b)), (1, 1, a * b)):
            if i + di < size and j + dj < size:
                kernel[i + di, j + dj] += weight
    return kernel / kernel.sum()


class Deblurred(NamedTuple):
    """A photograph, what a blur and noise left of it, and what least squares make of that."""

    photo: np.ndarray
    blurred: np.ndarray
    by_operator: np.ndarray
    by_matrix: np.ndarray
    seconds: tuple[float, float]
    nbytes: int


def deblur(rows: int, columns: int, steps: int = 30) -> Deblurred:
    """Part of scikit-learn's picture of a temple, through `lsqr` on the operator and on the matrix."""
    photo = load_sample_image("china.jpg")[90 : 90 + rows, 100 : 100 + columns].transpose(2, 0, 1) / 255.0
    kernel = motion(9)
    # The same blur in each of the three colours: groups. Beyond the edges the photograph is mirrored.
    w = np.broadcast_to(kernel, (3, 1, 9, 9))
    options: dict[str, Any] = {"groups": 3, "pad": 4, "pad_mode": "reflect"}
    noise = np.random.default_rng(0).normal(0, 0.002, photo.shape)
    blurred = fastconv.conv(photo[np.newaxis], w, **options)[0] + noise
    found, seconds = [], []
    operator = fastconv.toeplitz_operator(w, photo.shape, **options)
    matrix = fastconv.toeplitz_matrix(w, photo.shape, **options)
    for a in (operator, matrix):
        begin = time.perf_counter()
        # A little damping: what the blur took away entirely is not to be made of noise.
        found.append(lsqr(a, blurred.ravel(), damp=0.02, iter_lim=steps, atol=0, btol=0)[0].reshape(photo.shape))
        seconds.append(time.perf_counter() - begin)
    nbytes = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    return Deblurred(photo, blurred, found[0], found[1], (seconds[0], seconds[1]), nbytes)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the mean squared difference, in percent of white."""
    return 100 * float(np.sqrt(np.mean((a - b) ** 2)))


def deblurring(result: Deblurred) -> Any:
    """The photograph three times."""
    difference = np.abs(result.by_operator - result.by_matrix).max()
    panels = (
        (result.photo, "photograph"),
        (result.blurred, f"blurred along a line, with noise\nrms error {rms(result.blurred, result.photo):.1f} %"),
        (result.by_operator, f"lsqr on the operator\nrms error {rms(result.by_operator, result.photo):.1f} %"),
        (result.by_matrix, f"lsqr on the matrix\nlargest difference {difference:.0e}"),
    )
    figure, axes = plt.subplots(2, 2, figsize=(7.0, 6.2), layout="constrained")
    for axis, (image, title) in zip(axes.flat, panels, strict=True):
        axis.imshow(np.clip(image.transpose(1, 2, 0), 0, 1), interpolation="nearest")
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
    return figure


def pictures(rows: int, columns: int) -> Iterator[tuple[str, Any]]:
    """Names and figures."""
    yield "matrix_4x16", small_matrix()
    yield "structures", structures()
    yield "transposed", transposed()
    result = deblur(rows, columns)
    operator, matrix = result.seconds
    difference = np.abs(result.by_operator - result.by_matrix).max()
    print(
        f"lsqr: {operator:.2f} s on the operator, {matrix:.2f} s on the matrix of {result.nbytes / 2**20:.0f} MiB; "
        f"the two differ by {difference:.1e} at most, of values up to 1"
    )
    yield "deblurring", deblurring(result)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures (%(default)s)")
    parser.add_argument("--rows", type=int, default=180, help="of the photograph's part (%(default)s)")
    parser.add_argument("--columns", type=int, default=240, help="of the same (%(default)s)")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures(given.rows, given.columns):
        path = given.out / f"{name}.png"
        # A palette takes a third of the bytes, in photographs too.
        with io.BytesIO() as drawn:
            figure.savefig(drawn, dpi=100)
            Image.open(drawn).convert("RGB").quantize(256).save(path, optimize=True)
        plt.close(figure)
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
