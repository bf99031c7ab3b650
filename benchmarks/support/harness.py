"""What several benchmarks need: options, threads, progress, and interleaved timing with checks of the results."""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy
from scipy import sparse

import fastconv
from fastconv.runtime import isa as _isa
from support.peers import optional

INSTALL = 'python -m pip install -e ".[bench]"'

try:
    import matplotlib  # noqa: F401 - needed at the end of a run, so asked for at its start
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ModuleNotFoundError as error:
    raise SystemExit(f"The benchmarks need {error.name}; type: {INSTALL}") from None

torch = optional("torch")

#: The least number of rounds, because a median of fewer times says little.
MIN_ROUNDS = 3
#: Seconds of a turn that repeats its call. If the system wakes a thread on the core of the thread that wakes it, as
#: virtual machines often do, tens of milliseconds pass before it moves to an idle core.
TURN = 0.06
#: Seconds between lines of progress if there is no bar.
TELL = 30.0
#: The most seconds to wait for the threads of the previous contender.
LONGEST_SPIN = 0.2

Case = TypeVar("Case")
Result = Any  # an array or tensor, a sparse matrix, or a tuple of them
Call = Callable[[], Result]


@dataclass(frozen=True)
class Bound:
    """A measure of the machine instead of a contender: part of a row's work, whose time counts `times` times.

    It has one turn, of which the least time counts.
    """

    call: Call
    times: float


Contenders = Mapping[str, Call | Bound | None]


@dataclass(frozen=True)
class Oracle:
    """The right result, and the dtype that the contenders' results should have."""

    result: Result
    dtype: np.dtype


class Mismatch(Exception):
    """The result of a contender is wrong."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    quick: bool
    repeats: int
    threads: int
    out: Path
    only: str = ""
    #: Seconds for the timed rounds of a row; the first `MIN_ROUNDS` rounds may take longer.
    budget: float = 10.0

    def wanted(self, cases: Iterable[Case], name: Callable[[Case], str]) -> list[Case]:
        """The cases that --only selects; the program ends if it selects none."""
        left = [case for case in cases if self.only.lower() in name(case).lower()]
        if not left:
            raise SystemExit(f"--only {self.only!r} selects none of: {', '.join(dict.fromkeys(map(name, cases)))}")
        return left


@dataclass(frozen=True)
class Timing:
    """The timing of a contender in a row: seconds of its calls, and its difference from the reference."""

    seconds: float  # the median; for a bound the least
    quartiles: tuple[float, float]
    repeats: int
    error: float


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def parse(
    description: str, argv: Sequence[str] | None = None, *, repeats: int = 15, budget: float = 10.0, brief: str = ""
) -> Options:
    """Parse the options. The output folder is made here, so that a long run does not fail at its end.

    `repeats` and `budget` apply to full runs; `brief` says what a quick run leaves out.
    """
    quick = min(repeats, 5)
    rounds = f"{repeats}; {quick} with --quick" if quick < repeats else str(repeats)
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=brief or "batch 1, few rounds: under a minute")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only the layers with this in their name")
    parser.add_argument("--repeats", type=_positive, help=f"rounds per row (default {rounds})")
    parser.add_argument(
        "--threads", type=_positive, default=2, help="number of threads of fastconv and its peers (default 2)"
    )
    results = Path(__file__).parents[1] / "results"
    parser.add_argument("--out", type=Path, default=results, help="folder for JSON and PNG (%(default)s)")
    given = parser.parse_args(argv)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {given.out}: {error.strerror}")
    return Options(
        given.quick,
        given.repeats or (quick if given.quick else repeats),
        given.threads,
        given.out,
        given.only,
        min(budget, 0.6) if given.quick else budget,
    )


def set_threads(threads: int) -> int | None:
    """Set the threads of fastconv, torch and BLAS; return BLAS's number, or None if it keeps its default."""
    fastconv.set_threads(threads)
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return None
    # The limit has to stay, so this is not used as a context manager.
    threadpool_limits(threads, user_api="blas")
    return threads


def machine() -> dict[str, Any]:
    """The machine that ran this, without its host name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "isa": _isa.NAMES[_isa.current],
    }


def load_average() -> float | None:
    """The system's load average of the last minute, or None if the system does not report it.

    A high load slows products in several threads most, because these wait for each other.
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str | None]:
    """The versions of everything that was measured."""
    peers = {name: optional(name) for name in ("torch", "onnxruntime", "cv2")}
    return {
        "fastconv": fastconv.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        **{name: module and str(module.__version__) for name, module in peers.items()},
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The measured commit, with a + if files differ from it; None if git is not available."""
    tree = Path(__file__).parent.parent
    command = ["git", "-C", str(tree), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def _error(result: Result, reference: Result, dtype: np.dtype | None = None) -> float:
    """The largest difference relative to the largest value, over all arrays; inf if a shape or dtype differs.

    A bound computes nothing, so its result None differs from nothing. `dtype` is the expected dtype of the result, by
    default that of the reference.
    """
    if result is None:
        return 0.0
    if isinstance(reference, tuple):
        # np.max, because max() may skip NaN.
        return float(np.max([_error(a, b, dtype) for a, b in zip(result, reference, strict=True)]))
    if sparse.issparse(reference):
        if result.shape != reference.shape or result.dtype != reference.dtype:
            return math.inf
        return float(abs(result - reference).max() / max(abs(reference).max(), np.finfo(reference.dtype).tiny))
    a, b = np.asarray(result), np.asarray(reference)
    if a.shape != b.shape or a.dtype != (dtype or b.dtype):
        return math.inf
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(b.dtype).tiny))


def _timed(call: Call) -> tuple[float, Result]:
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def _warm_up(
    where: str, contenders: Mapping[str, Call], tolerance: float, oracles: Oracle | Mapping[str, Oracle] | None
) -> dict[str, float]:
    """Call each contender once, and compare it with the oracle or the first contender's result; return the errors."""
    oracle = None if isinstance(oracles, Mapping) else oracles
    source = next(iter(contenders)) if oracles is None else "the oracle"
    errors: dict[str, float] = {}
    for name, call in contenders.items():
        result = call()
        if isinstance(oracles, Mapping):
            oracle = oracles[name]
        if oracle is None:
            oracle = Oracle(result, np.asarray(result[0] if isinstance(result, tuple) else result).dtype)
            errors[name] = 0.0
            continue
        errors[name] = _error(result, oracle.result, oracle.dtype)
        if not errors[name] <= tolerance:  # written so that NaN fails, too
            raise Mismatch(
                f"{where}: {name} differs from {source} by {errors[name]:.1e} of the largest value; "
                f"allowed is {tolerance:g}"
            )
    return errors


def _any_thread_runs() -> bool:
    """Whether another thread of this process runs or is about to run (Linux only)."""
    me = str(threading.get_native_id())
    for task in os.scandir("/proc/self/task"):
        with suppress(OSError):  # The thread ended meanwhile.
            if task.name != me and Path(task.path, "stat").read_text().rpartition(")")[2].split()[0] == "R":
                return True
    return False


def wait_for_quiet() -> None:
    """Wait until the threads of the previous contender sleep.

    BLAS, OpenMP and ONNX Runtime keep their threads spinning for 10 to 50 ms after
    a call, on the cores that the next contender needs.
    """
    end = time.monotonic() + LONGEST_SPIN
    if not Path("/proc/self/task").is_dir():
        time.sleep(0.06)
        return
    while time.monotonic() < end:
        time.sleep(1e-3)
        if not _any_thread_runs():
            return


def _turn(call: Call, calls: int) -> list[float]:
    """The seconds of each of some consecutive calls."""
    wait_for_quiet()
    if calls > 1:
        call()
    # Each result is dropped at once, so that it does not occupy memory while another contender runs.
    return [_timed(call)[0] for _ in range(calls)]


def measure(
    where: str,
    contenders: Contenders,
    tolerance: float,
    options: Options,
    tick: Callable[[], None],
    oracle: Oracle | Mapping[str, Oracle] | None = None,
    turn: float = 0.0,
    hopeless: float = math.inf,
) -> dict[str, Timing | None]:
    """Time contenders in turns, after a round that warms up and checks them.

    Parameters
    ----------
    where : str
        The name of the row, for the message of a `Mismatch`.
    contenders : mapping of str to callable or None
        The calls by name; None marks a contender that is left out.
    tolerance : float
        The largest difference that is allowed, relative to the largest value.
    options : Options
    tick : callable
        A function that is called between rounds and not timed.
    oracle : Oracle or mapping of str to Oracle, optional
        The right result, one for all contenders or one for each name; by default
        the result of the first contender.
    turn : float
        Seconds for which a contender repeats its call in a turn, after one call
        that is not timed. It is measured as in a loop of such calls, with its
        threads awake and its arrays in the caches. 0 means a single call, with
        the caches as the previous contender left them.
    hopeless : float
        A contender that takes more than `hopeless` times as long as the fastest
        one has a single turn, because more turns would not change the picture.

    Returns
    -------
    dict
        A `Timing` per contender, None for one that was left out. If all rounds of
        a slow contender would exceed its share of the budget, it takes part in
        some of them only, which are evenly spread.
    """
    present = {name: c.call if isinstance(c, Bound) else c for name, c in contenders.items() if c is not None}
    errors = _warm_up(where, present, tolerance, oracle)
    tick()
    # The first round also started thread pools; this round shows how long a turn is.
    first = {name: _shortest(call) if turn else _turn(call, 1)[0] for name, call in present.items()}
    calls = {name: max(1, int(turn / max(t, 1e-6))) for name, t in first.items()}
    share = options.budget / len(present)
    wanted = {name: min(options.repeats, max(MIN_ROUNDS, int(share / max(t, turn)))) for name, t in first.items()}
    fastest = min(first.values())
    wanted |= {name: 1 for name, t in first.items() if isinstance(contenders[name], Bound) or t > hopeless * fastest}
    # A call that is longer than a turn already counts as one.
    times = {name: [t] if t > turn else [] for name, t in first.items()}
    wanted = {name: n - len(times[name]) for name, n in wanted.items()}
    rounds = max(wanted.values())

    # The order changes each round, so that no contender always runs after the same predecessor, whose data are in the
    # caches.
    order = random.Random(0)
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            tick()
            for name in order.sample(list(present), len(present)):
                if i * wanted[name] // rounds != (i + 1) * wanted[name] // rounds:
                    times[name] += _turn(present[name], calls[name])
    finally:
        gc.enable()
    return {
        name: _summary(times[name], errors[name], contenders[name]) if name in present else None for name in contenders
    }


def _shortest(call: Call) -> float:
    """The seconds of a call after a warm-up; for a long call, of a single one."""
    first = _turn(call, 1)[0]
    return first if first > TURN else min(_turn(call, 3))


def _summary(times: list[float], error: float, contender: Call | Bound | None) -> Timing:
    if isinstance(contender, Bound):
        times = [t * contender.times for t in times]
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    if isinstance(contender, Bound):
        median = min(times)
    return Timing(median, (low, high), len(times), error)


def console(width: int) -> Console:
    """A console of the terminal's width; if the output is not a terminal, of the width given."""
    return Console() if sys.stdout.isatty() else Console(width=width)


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[..., None]]:
    """Show a progress bar over rows; the function that this yields starts a row, or updates the bar if it gets no name.

    If the output is not a terminal, a line is written to standard error from time to time.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # The bar is drawn between rounds, because a drawing thread would take time from the measurement.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=total)
        begun, drawn, told = 0, 0.0, time.monotonic()

        def show(row: str | None = None) -> None:
            nonlocal begun, drawn, told
            if row is not None:
                bar.update(task, description=row, completed=begun)
                begun += 1
                if not console.is_terminal and time.monotonic() - told > TELL:
                    told = time.monotonic()
                    print(f"{begun}{f' of {total}' if total else ''}: {row}", file=sys.stderr, flush=True)
            if row is not None or time.monotonic() - drawn > 0.2:
                bar.refresh()
                drawn = time.monotonic()

        yield show


def exit_status(main: Callable[[], None]) -> int:
    """Run a benchmark, and return its exit status; errors are printed to standard error."""
    try:
        main()
    except Mismatch as error:
        print(f"Results disagree, so nothing was written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130
    return 0
