"""Maxima and means over large windows of single images, against SciPy's filters by axis and PyTorch.

Run as ``python benchmarks/bench_windows.py [--quick]``; ``bench_pooling.py`` runs it, too.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from scipy import ndimage
from support.harness import Contenders, Options, exit_status, measure, parse, progress, set_threads, torch
from support.report import Ratio, Report, Row, print_table

import fastconv

TOLERANCE = {"max forward": 0.0, "mean forward": 1e-5}
#: PyTorch reads every cell of each window, and takes seconds for windows larger than this.
_MOST_OF_TORCH = 15
#: Seconds of one turn of a contender.
_TURN = 0.02

RATIOS = (
    Ratio("max forward", "SciPy", mean=3.0, worst=0.5),
    Ratio("max forward", "PyTorch"),
    Ratio("mean forward", "SciPy", mean=3.0, worst=0.5),
    Ratio("mean forward", "PyTorch"),
)

CAPTION = (
    "Time of the peer / time of fastconv: above 1 fastconv is faster. One image of one channel. SciPy's "
    "maximum_filter and uniform_filter work axis by axis at every cell, in one thread; their results are then "
    "cut to windows within the image, at the stride. They do not find the places of maxima, which fastconv and "
    f"PyTorch do. PyTorch is timed on windows of {_MOST_OF_TORCH} only, because its time grows with the square "
    "of the window."
)


class Window(NamedTuple):
    """A pooling of a square image of one channel."""

    size: int
    kernel: int
    stride: int

    @property
    def case(self) -> str:
        """The shape in short."""
        return f"window {self.size} k{self.kernel}s{self.stride}"

    @property
    def quick(self) -> bool:
        """Whether a quick run includes the window; it does so in float32 only."""
        return self.size == 512 and self.kernel in (15, 33, 201)


WINDOWS = [Window(n, k, s) for n in (512, 1024) for s in (1, 2) for k in (15, 31, 33, 65, 101, 201)]


def _scipy(x: np.ndarray, window: Window, largest: bool) -> np.ndarray:
    begin = window.kernel // 2
    within = slice(begin, begin + window.size - window.kernel + 1, window.stride)
    if largest:
        found = ndimage.maximum_filter(x, window.kernel, mode="constant", cval=-np.inf)
    else:
        found = ndimage.uniform_filter(x, window.kernel, mode="constant")
    return found[within, within]


def contenders(panel: str, window: Window, dtype: str) -> Contenders:
    """fastconv and its peers."""
    x = np.random.default_rng(0).standard_normal((window.size, window.size)).astype(dtype)
    largest = panel.startswith("max")
    sizes: dict[str, Any] = {"kernel_size": window.kernel, "stride": window.stride}
    ours = fastconv.max_pool_forward if largest else fastconv.avg_pool_forward
    calls: Contenders = {
        "fastconv": lambda: ours(x[None, None], **sizes)[0][0, 0],
        "SciPy": partial(_scipy, x, window, largest),
        "PyTorch": None,
    }
    if torch is not None and window.kernel <= _MOST_OF_TORCH:
        image, functional = torch.from_numpy(x)[None, None], torch.nn.functional
        if largest:
            calls["PyTorch"] = lambda: functional.max_pool2d(image, **sizes, return_indices=True)[0][0, 0]
        else:
            calls["PyTorch"] = lambda: functional.avg_pool2d(image, **sizes)[0, 0]
    return calls


def run(options: Options) -> None:
    """Measure every window, print the table, write JSON and PNG."""
    console = Console() if sys.stdout.isatty() else Console(width=140)
    threads = set_threads(options.threads)
    report = Report("bench_windows", "Large windows: fastconv against SciPy", CAPTION, options, RATIOS, threads)
    windows = options.wanted([w for w in WINDOWS if w.quick or not options.quick], Window.case.fget)
    dtypes = ("float32",) if options.quick else ("float32", "float64")
    cases = [(window, dtype) for dtype in dtypes for window in windows]
    with progress(console, len(cases) * len(TOLERANCE)) as show:
        for window, dtype in cases:
            case = window.case + (" float64" if dtype == "float64" else "")
            for panel, tolerance in TOLERANCE.items():
                name = f"{panel}: {case}"
                show(name)
                timings = measure(name, contenders(panel, window, dtype), tolerance, options, show, turn=_TURN)
                report.rows.append(Row(panel, case, 1, {**window._asdict(), "dtype": dtype}, timings))
    print_table(report, console)
    for path in report.write(options.out):
        console.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(
        __doc__.splitlines()[0], repeats=3, budget=0.3, brief="six windows of 512 x 512 in float32: some 15 seconds"
    )
    sys.exit(exit_status(partial(run, parsed)))
