"""What the benchmarks share: options, threads, progress, and interleaved timing with checks."""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastconv

INSTALL = 'python -m pip install -e ".[bench]"'

try:
    import matplotlib  # noqa: F401 - needed at the end of a run, so asked for at its start
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ModuleNotFoundError as error:
    raise SystemExit(f"The benchmarks need {error.name}; type: {INSTALL}") from None

try:
    import torch
except ImportError:
    torch: Any = None  # type: ignore[no-redef]

#: Rounds nobody goes below: a median of fewer says nothing.
MIN_ROUNDS = 3
#: A row whose rounds are short gets up to this many times the rounds asked for, within this many seconds.
MORE_ROUNDS, SHORT_ROW = 6, 0.5

Result = Any  # an array or tensor, or a tuple of them
Call = Callable[[], Result]
Contenders = Mapping[str, Call | None]


class Mismatch(Exception):
    """A contender computed something else."""


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool
    repeats: int
    threads: int
    out: Path

    @property
    def budget(self) -> float:
        """Seconds for the timed rounds of a row; `MIN_ROUNDS` may take longer."""
        return 0.6 if self.quick else 10.0


@dataclass(frozen=True)
class Timing:
    """A contender in a row: seconds of its calls, and its distance from the first contender."""

    seconds: float  # the median
    quartiles: tuple[float, float]
    repeats: int
    error: float


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def parse(description: str, argv: Sequence[str] | None = None) -> Options:
    """The options; the output folder is made now, so that a long run does not fail at its end."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="batch 1, few rounds: under half a minute")
    parser.add_argument("--repeats", type=_positive, help="rounds per row (default 15; 5 with --quick)")
    parser.add_argument("--threads", type=_positive, default=2, help="of fastconv and its peers (default 2)")
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results, help="folder for JSON and PNG (%(default)s)")
    given = parser.parse_args(argv)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {given.out}: {error.strerror}")
    return Options(given.quick, given.repeats or (5 if given.quick else 15), given.threads, given.out)


def set_threads(threads: int) -> int | None:
    """Give fastconv, torch and BLAS so many threads; returns BLAS's, None where it keeps its own default."""
    fastconv.set_threads(threads)
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return None
    # Not as a context manager: the limit is to stay.
    threadpool_limits(threads, user_api="blas")
    return threads


def machine() -> dict[str, Any]:
    """What ran this, without naming the host."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def load_average() -> float | None:
    """Of the last minute: what else ran here; None where the system does not tell.

    Matrix products in several threads wait for each other, and lose most on a busy machine.
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str | None]:
    """Of everything that was timed."""
    return {
        "fastconv": fastconv.__version__,
        "numpy": np.__version__,
        "torch": None if torch is None else str(torch.__version__),
        "python": platform.python_version(),
    }


def _error(result: Result, reference: Result) -> float:
    """Largest difference relative to the largest value, over all arrays; inf where shape or dtype differ.

    None, the result of a contender that is only a bound, differs from nothing.
    """
    if result is None:
        return 0.0
    if isinstance(reference, tuple):
        # Not max(), which may pass over NaN.
        return float(np.max([_error(a, b) for a, b in zip(result, reference, strict=True)]))
    a, b = np.asarray(result), np.asarray(reference)
    if a.shape != b.shape or a.dtype != b.dtype:
        return math.inf
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(b.dtype).tiny))


def _timed(call: Call) -> tuple[float, Result]:
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def _warm_up(where: str, contenders: Mapping[str, Call], tolerance: float) -> dict[str, float]:
    """One call each, compared with the first contender's result; returns the errors."""
    names = list(contenders)
    reference = contenders[names[0]]()
    errors = {names[0]: 0.0}
    for name in names[1:]:
        errors[name] = _error(contenders[name](), reference)
        if not errors[name] <= tolerance:  # so that NaN is caught too
            raise Mismatch(
                f"{where}: {name} differs from {names[0]} by {errors[name]:.1e} of the largest value; "
                f"allowed is {tolerance:g}"
            )
    return errors


def measure(
    where: str, contenders: Contenders, tolerance: float, options: Options, tick: Callable[[], None]
) -> dict[str, Timing | None]:
    """Time contenders in turns, after a round that warms up and checks them.

    Parameters
    ----------
    where : str
        The row, for the message of a `Mismatch`.
    contenders : mapping of str to callable or None
        The first is what the others' results are compared with; None is left out.
    tolerance : float
        Of the largest difference, relative to the largest value.
    options : Options
    tick : callable
        Called between rounds, outside of what is timed.

    Returns
    -------
    dict
        A `Timing` per contender, None for one that was left out. One so slow that
        all rounds would exceed its share of the budget plays in some of them only,
        evenly spread.
    """
    present = {name: call for name, call in contenders.items() if call is not None}
    errors = _warm_up(where, present, tolerance)
    tick()
    # The first round also started thread pools; this one tells how long a round is.
    first = {name: _timed(call)[0] for name, call in present.items()}
    rounds = max(options.repeats, min(MORE_ROUNDS * options.repeats, int(SHORT_ROW / sum(first.values()))))
    share = options.budget / len(present)
    wanted = {name: min(rounds, max(MIN_ROUNDS, int(share / t))) for name, t in first.items()}
    rounds = max(wanted.values())

    times: dict[str, list[float]] = {name: [] for name in present}
    # Another order each round: nobody always inherits the caches of the same predecessor.
    order = random.Random(0)
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            tick()
            for name in order.sample(list(present), len(present)):
                if i * wanted[name] // rounds != (i + 1) * wanted[name] // rounds:
                    # The result is dropped at once: no contender runs while another's memory is held.
                    times[name].append(_timed(present[name])[0])
    finally:
        gc.enable()
    return {name: _summary(times[name], errors[name]) if name in present else None for name in contenders}


def _summary(times: list[float], error: float) -> Timing:
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return Timing(median, (low, high), len(times), error)


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar over rows: the function it gives starts a row by its name; without one it keeps time."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Drawn by hand between rounds: a drawing thread would take its time from what is measured.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=total)
        begun, drawn = 0, 0.0

        def show(row: str | None = None) -> None:
            nonlocal begun, drawn
            if row is not None:
                bar.update(task, description=row, completed=begun)
                begun += 1
            if row is not None or time.monotonic() - drawn > 0.2:
                bar.refresh()
                drawn = time.monotonic()

        yield show


def exit_status(main: Callable[[], None]) -> int:
    """Run a benchmark; what it says on failure goes to standard error."""
    try:
        main()
    except Mismatch as error:
        print(f"Results disagree, nothing was written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130
    return 0
