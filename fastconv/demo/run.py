"""The demo: a gradient check, training, accuracy, a comparison of times, and a picture."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.demo import net, picture
from fastconv.demo.plain import PLAIN
from fastconv.runtime.terminal import replace_missing_characters

BATCH = 64
RATE = 4e-3
HELD_OUT = 360
#: The minimum width of a terminal, in columns, for the confusion matrix. Narrower terminals get a list of confusions.
_TABLE_WIDTH = 66


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images and labels, and held-out images and labels. The split is always the same.

    Images are (N, 1, 8, 8) with values in [0, 1].
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x = (digits.images[:, None] / 16).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target, test_size=HELD_OUT, stratify=digits.target, random_state=0
    )
    return x_train, y_train, x_test, y_test


def check_gradients(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, samples: int = 12) -> dict[str, float]:
    """Compare gradients with central differences in float64. Return the largest relative error of each parameter."""
    params = net.init(rng, np.float64, (4, 6, 8))
    # Add noise, because the maximum of equal cells is not differentiable.
    x = x.astype(np.float64) + 1e-3 * rng.standard_normal(x.shape)
    _, grads = net.step(params, x, y)
    errors, h = {}, 1e-5
    for name, param in params.items():
        pairs = []
        for flat in rng.choice(param.size, min(samples, param.size), replace=False):
            old = param.flat[flat]
            losses = []
            for value in (old + h, old - h):
                param.flat[flat] = value
                losses.append(net.step(params, x, y)[0])
            param.flat[flat] = old
            pairs.append(((losses[0] - losses[1]) / (2 * h), grads[name].flat[flat]))
        numeric, analytic = np.transpose(pairs)
        # Divide by `scale` where a gradient is small, because its error then comes from the rounding of the loss.
        scale = 1e-3 * np.abs(grads[name]).max()
        errors[name] = float(np.max(np.abs(numeric - analytic) / np.maximum(np.abs(analytic), scale)))
    return errors


def compare_steps(params: net.Params, x: np.ndarray, y: np.ndarray, repeats: int = 15) -> tuple[float, float, float]:
    """Return the median time of a step with fastconv and with plain NumPy, and the largest difference of gradients."""
    times: dict[str, list[float]] = {"fastconv": [], "plain": []}
    grads: dict[str, Any] = {}
    for _ in range(repeats):
        for name, ops in (("fastconv", net.FASTCONV), ("plain", PLAIN)):
            begin = time.perf_counter()
            _, grads[name] = net.step(params, x, y, ops)
            times[name].append(time.perf_counter() - begin)
    differences = []
    for name, grad in grads["fastconv"].items():
        other = grads["plain"][name]
        differences.append(float(np.abs(grad - other).max() / max(np.abs(other).max(), 1e-30)))
    return float(np.median(times["fastconv"])), float(np.median(times["plain"])), max(differences)


def accuracy(params: net.Params, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the accuracy of the net on x, and the predicted class of each image."""
    said = net.scores(params, x)[0].argmax(axis=1)
    return float(np.mean(said == y)), said


def run(out: Path, epochs: int, seed: int) -> float:
    """Run the demo, print its progress, write the picture to `out`, and return the held-out accuracy."""
    from threadpoolctl import threadpool_limits

    # BLAS uses one thread, because small products gain little from several threads, and nothing on a busy machine.
    with threadpool_limits(1, user_api="blas"):
        return _run(out, epochs, seed)


def _run(out: Path, epochs: int, seed: int) -> float:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    replace_missing_characters()
    console = Console()
    rng = np.random.default_rng(seed)
    params = net.init(rng)
    x_train, y_train, x_test, y_test = load()
    console.print(
        f"[bold]fastconv demo[/bold]: {len(x_train)} handwritten digits to learn, {len(x_test)} held out\n"
        f"net: conv 3x3 x{len(params['w1'])}, relu, pool, conv 3x3 x{len(params['w2'])}, relu, pool, "
        f"affine {len(params['b3'])}, relu, affine 10, softmax; {sum(p.size for p in params.values()):,} parameters\n"
    )

    errors = check_gradients(rng, x_train[:5], y_train[:5])
    worst = max(errors.values())
    console.print(
        "gradient check, relative error against central differences (float64): "
        + ", ".join(f"{name} {error:.0e}" for name, error in errors.items())
        + (" [green]ok[/green]\n" if worst < 1e-4 else " [red]too large[/red]\n")
    )

    optimiser = net.Adam(params, RATE)
    per_epoch = -(-len(x_train) // BATCH)
    losses: list[float] = []
    accuracies: list[float] = []
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  held-out {task.fields[right]:.1%}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=epochs * per_epoch, loss=float("nan"), right=0.0)
        for _ in range(epochs):
            order = rng.permutation(len(x_train))
            for begin in range(0, len(order), BATCH):
                batch = order[begin : begin + BATCH]
                loss, grads = net.step(params, net.shifted(x_train[batch], rng), y_train[batch])
                # The learning rate falls from `RATE` to 0 along half a period of a cosine.
                optimiser.update(params, grads, 0.5 * (1 + np.cos(np.pi * len(losses) / (epochs * per_epoch))))
                losses.append(loss)
                progress.update(task, advance=1, loss=loss)
            accuracies.append(accuracy(params, x_test, y_test)[0])
            progress.update(task, loss=float(np.mean(losses[-per_epoch:])), right=accuracies[-1])

    right, said = accuracy(params, x_test, y_test)
    _report(console, y_test, said, right)
    fast, plain, difference = compare_steps(params, x_train[:BATCH], y_train[:BATCH])
    console.print(
        f"one step of {BATCH} images: fastconv {1e3 * fast:.2f} ms, the same step in plain NumPy {1e3 * plain:.2f} ms: "
        f"[bold]{plain / fast:.1f} times faster[/bold] (gradients differ by {difference:.0e} of the largest)"
    )
    wrong = [(x_test[i, 0], int(y_test[i]), int(said[i])) for i in np.flatnonzero(said != y_test)]
    picture.draw(out, params["w1"], losses, accuracies, wrong, per_epoch)
    console.print(f"filters, curves and the wrongly classified digits: [bold]{out}[/bold]")
    return right


def _report(console: Any, y: np.ndarray, said: np.ndarray, right: float) -> None:
    """Print the accuracy, and the confusion matrix of the right and the predicted classes."""
    from rich.table import Table

    table = Table(title="held-out digits: right class by row, predicted class by column", title_justify="left")
    table.add_column("", justify="right", style="bold")
    for digit in range(10):
        table.add_column(str(digit), justify="right")
    table.add_column("right", justify="right")
    for digit in range(10):
        counts = np.bincount(said[y == digit], minlength=10)
        cells = [
            f"[green]{n}[/green]" if i == digit else (f"[red]{n}[/red]" if n else ".") for i, n in enumerate(counts)
        ]
        table.add_row(str(digit), *cells, f"{counts[digit] / counts.sum():.0%}")
    if console.width >= _TABLE_WIDTH:
        console.print(table)
    else:
        pairs = Counter((int(y[i]), int(said[i])) for i in np.flatnonzero(said != y))
        for (digit, taken), n in pairs.most_common():
            console.print(f"{digit} taken for {taken}: {n}")
    console.print(f"held-out accuracy: [bold]{right:.2%}[/bold] ({np.sum(said != y)} of {len(y)} wrong)\n")
