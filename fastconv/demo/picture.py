"""The demo's picture: filters, curves and the digits that the net classified wrongly."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def draw(
    path: Path,
    filters: np.ndarray,
    losses: list[float],
    accuracies: list[float],
    wrong: list[tuple[np.ndarray, int, int]],
    steps_per_epoch: int,
) -> None:
    """Write a PNG file. If writing fails, no partial file is left.

    `wrong` is a list of tuples (image, right class, predicted class).
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 7.5), layout="constrained")
    rows: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    top, bottom = rows
    left, right = top.subfigures(1, 2, width_ratios=(1, 1.6))

    left.suptitle(f"{len(filters)} learned 3x3 filters of the first layer")
    limit = float(np.abs(filters).max())
    axes = left.subplots(-(-len(filters) // 8), 8, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, weights in zip(axes.flat, filters[:, 0], strict=False):
        axis.imshow(weights, cmap="RdBu", vmin=-limit, vmax=limit)

    axis = right.subplots()
    steps = np.arange(1, len(losses) + 1) / steps_per_epoch
    axis.semilogy(steps, losses, color="tab:blue", alpha=0.35, linewidth=0.8)
    window = min(steps_per_epoch, len(losses))
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    axis.semilogy(steps[window - 1 :], smooth, color="tab:blue", label="training loss (mean of an epoch)")
    axis.set(xlabel="epoch", ylabel="loss")
    twin = axis.twinx()
    twin.plot(
        np.arange(1, len(accuracies) + 1), [100 * a for a in accuracies], color="tab:orange", label="held-out accuracy"
    )
    twin.set_ylabel("held-out accuracy, %")
    twin.set_ylim(min(90.0, 100 * min(accuracies)), 100)
    lines = [*axis.get_lines()[1:], *twin.get_lines()]
    axis.legend(lines, [line.get_label() for line in lines], loc="center right")
    right.suptitle("Training")

    bottom.suptitle(
        "Held-out digits that the net classified wrongly" if wrong else "All held-out digits were classified correctly"
    )
    columns = 8
    axes = bottom.subplots(max(1, -(-min(len(wrong), 16) // columns)), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (image, label, said) in zip(axes.flat, wrong, strict=False):
        axis.imshow(image, cmap="gray_r")
        axis.set_title(f"{label}, taken for {said}", fontsize=9)

    target = path.resolve()
    handle, part = tempfile.mkstemp(suffix=".png", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            figure.savefig(file, dpi=110, format="png")
        os.chmod(part, 0o644)
        os.replace(part, target)
    except BaseException:
        os.unlink(part)
        raise
    finally:
        plt.close(figure)
