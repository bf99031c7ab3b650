"""What the benchmarks share: options, threads, progress, and interleaved timing with checks."""

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

#: Rounds nobody goes below: a median of fewer says nothing.
MIN_ROUNDS = 3
#: Seconds of a turn that repeats its call. Where the system wakes a thread on the core of its waker, as virtual
#: machines tend to, it takes tens of milliseconds to see that another core idles.
TURN = 0.06
#: Seconds between lines of progress where there is no bar.
TELL = 30.0
#: Threads of the contender before are waited for no longer than this many seconds.
LONGEST_SPIN = 0.2

Case = TypeVar("Case")
Result = Any  # an array or tensor, a sparse matrix, or a tuple of them
Call = Callable[[], Result]


@dataclass(frozen=True)
class Bound:
    """No contender but a measure of the machine: part of a row's work, whose time counts `times` times.

    It has one turn, and the best time of it counts.
    """

    call: Call
    times: float


Contenders = Mapping[str, Call | Bound | None]


@dataclass(frozen=True)
class Oracle:
    """What the contenders should have computed, and the dtype they should have it in."""

    result: Result
    dtype: np.dtype


class Mismatch(Exception):
    """A contender computed something else."""


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool
    repeats: int
    threads: int
    out: Path
    only: str = ""
    #: Seconds for the timed rounds of a row; `MIN_ROUNDS` may take longer.
    budget: float = 10.0

    def wanted(self, cases: Iterable[Case], name: Callable[[Case], str]) -> list[Case]:
        """Those that --only leaves in; where it leaves none, the end."""
        left = [case for case in cases if self.only.lower() in name(case).lower()]
        if not left:
            raise SystemExit(f"--only {self.only!r} leaves nothing of: {', '.join(dict.fromkeys(map(name, cases)))}")
        return left


@dataclass(frozen=True)
class Timing:
    """A contender in a row: seconds of its calls, and its distance from the first contender."""

    seconds: float  # the median; of a bound the least
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
    """The options; the output folder is made now, so that a long run does not fail at its end.

    `repeats` and `budget` are those of a run that is not quick; `brief` says what a quick one leaves out.
    """
    quick = min(repeats, 5)
    rounds = f"{repeats}; {quick} with --quick" if quick < repeats else str(repeats)
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=brief or "batch 1, few rounds: under a minute")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only the layers with this in their name")
    parser.add_argument("--repeats", type=_positive, help=f"rounds per row (default {rounds})")
    parser.add_argument("--threads", type=_positive, default=2, help="of fastconv and its peers (default 2)")
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
        "isa": _isa.NAMES[_isa.current],
    }


def load_average() -> float | None:
    """Of the last minute: what else ran here; None where the system does not tell.

    Matrix products in several threads wait for each other, and lose most on a busy machine.
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str | None]:
    """Of everything that was measured."""
    peers = {name: optional(name) for name in ("torch", "onnxruntime", "cv2")}
    return {
        "fastconv": fastconv.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        **{name: module and str(module.__version__) for name, module in peers.items()},
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The commit of the tree that was measured, with a + if files differ from it; None where git does not tell."""
    tree = Path(__file__).parent.parent
    command = ["git", "-C", str(tree), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def _error(result: Result, reference: Result, dtype: np.dtype | None = None) -> float:
    """Largest difference relative to the largest value, over all arrays; inf where shape or dtype differ.

    None, the result of a contender that is only a bound, differs from nothing.
    `dtype` is what the result should have, by default the reference's.
    """
    if result is None:
        return 0.0
    if isinstance(reference, tuple):
        # Not max(), which may pass over NaN.
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
    """One call each, compared with the oracle or else with the first contender's result; returns the errors."""
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
        if not errors[name] <= tolerance:  # so that NaN is caught too
            raise Mismatch(
                f"{where}: {name} differs from {source} by {errors[name]:.1e} of the largest value; "
                f"allowed is {tolerance:g}"
            )
    return errors


def _any_thread_runs() -> bool:
    """Whether another thread of this process is running or about to, as Linux tells."""
    me = str(threading.get_native_id())
    for task in os.scandir("/proc/self/task"):
        with suppress(OSError):  # it ended meanwhile
            if task.name != me and Path(task.path, "stat").read_text().rpartition(")")[2].split()[0] == "R":
                return True
    return False


def wait_for_quiet() -> None:
    """Let the threads of the contender before go to sleep.

    BLAS, OpenMP and ONNX Runtime keep theirs spinning for 10 to 50 ms after a
    call, in case another comes: on the cores that the next contender needs.
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
    """Seconds of each of some calls in a row."""
    wait_for_quiet()
    if calls > 1:
        call()
    # A result is dropped at once: no contender runs while another's memory is held.
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
        The row, for the message of a `Mismatch`.
    contenders : mapping of str to callable or None
        None is left out.
    tolerance : float
        Of the largest difference, relative to the largest value.
    options : Options
    tick : callable
        Called between rounds, outside of what is timed.
    oracle : Oracle or mapping of str to Oracle, optional
        What results are compared with, all or each by its name; by default the
        first contender's.
    turn : float
        Seconds for which a contender repeats its call when its turn comes, after
        one that is not timed: it is measured as in a loop of such calls, its own
        threads awake and its arrays in the caches. 0 is a single call, with the
        caches as others left them.
    hopeless : float
        A contender that takes more than so many times the fastest one's time has
        one turn, because more turns would not change what it shows.

    Returns
    -------
    dict
        A `Timing` per contender, None for one that was left out. One so slow that
        all rounds would exceed its share of the budget plays in some of them only,
        evenly spread.
    """
    present = {name: c.call if isinstance(c, Bound) else c for name, c in contenders.items() if c is not None}
    errors = _warm_up(where, present, tolerance, oracle)
    tick()
    # The first round also started thread pools; this one tells how long a turn is.
    first = {name: _shortest(call) if turn else _turn(call, 1)[0] for name, call in present.items()}
    calls = {name: max(1, int(turn / max(t, 1e-6))) for name, t in first.items()}
    share = options.budget / len(present)
    wanted = {name: min(options.repeats, max(MIN_ROUNDS, int(share / max(t, turn)))) for name, t in first.items()}
    fastest = min(first.values())
    wanted |= {name: 1 for name, t in first.items() if isinstance(contenders[name], Bound) or t > hopeless * fastest}
    # A single call is what a turn of it would be: it counts.
    times = {name: [t] if t > turn else [] for name, t in first.items()}
    wanted = {name: n - len(times[name]) for name, n in wanted.items()}
    rounds = max(wanted.values())

    # Another order each round: nobody always inherits the caches of the same predecessor.
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
    """Seconds of a call once it is warm; of one so long that it does not matter, of a single one."""
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
    """Of the terminal's width; where output is none there is no width to keep to."""
    return Console() if sys.stdout.isatty() else Console(width=width)


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar over rows: the function it gives starts a row by its name; without one it keeps time.

    Where the output is no terminal, a line now and then to standard error.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Drawn by hand between rounds: a drawing thread would take its time from what is measured.
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
