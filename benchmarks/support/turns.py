"""Times all algorithms on a case in turns, interrupts hopeless ones, and keeps the records in a file."""

from __future__ import annotations

import gzip
import json
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fastconv
from fastconv.convolution import choose as choosing, dispatch, wrappers
from fastconv.convolution.base import Algorithm
from fastconv.convolution.cost import pricing
from fastconv.convolution.density import as_seen
from fastconv.convolution.plan import Case as PlanCase
from fastconv.runtime import blas as _blas
from fastconv.runtime.plan_cache import plans
from support.families import Case, from_json
from support.forms import algorithm_of, forms_of, make_algorithm
from support.harness import set_threads, wait_for_quiet

REGISTRY: dict[str, Algorithm] = choosing.REGISTRY

#: An algorithm that takes this many times as long as the fastest one so far is interrupted, because its time does not
#: matter.
HOPELESS = 8.0
#: An algorithm has a single turn if it takes this many times as long as the fastest one.
NEAR = 2.5
#: The most seconds of the first call of a case.
LONGEST = 8.0
#: Seconds for which an algorithm repeats its call in a turn, and the last of these, which count; with one thread (True)
#: and with several. A virtual machine may wake a thread on the waking thread's core, and move it only tens of
#: milliseconds later.
TURN, COUNTED = {True: 0.008, False: 0.03}, {True: 0.006, False: 0.015}
#: A call that takes more seconds is a turn by itself, after the first.
LONG = 0.04
#: Algorithms that need a larger workspace are left out.
MOST_BYTES = 1 << 27
#: Algorithms that are never timed, because they are definitions and not fast: Python loops, and the sparse matrix.
UNTIMED = ("reference", "toeplitz")

Call = Callable[[], Any]


class TooLong(Exception):
    """The call took too long and was interrupted."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt a longer call as Ctrl-C would; kernels check for signals every 50 ms or so."""

    def stop(*_: object) -> None:
        raise TooLong

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


@dataclass
class Record:
    """The seconds of each algorithm that was timed on a case, and for each interrupted one the seconds until then."""

    case: Case
    seconds: dict[str, float] = field(default_factory=dict)
    given_up: dict[str, float] = field(default_factory=dict)
    #: The share of weights that are not zero.
    density: float = 1.0

    @property
    def best(self) -> float:
        """The least of the seconds, without those of 'auto' (None)."""
        return min(t for name, t in self.seconds.items() if name != "auto")

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        rounded = {name: float(f"{t:.5g}") for name, t in self.seconds.items()}
        given_up = {name: float(f"{t:.3g}") for name, t in self.given_up.items()}
        return {"case": self.case.as_json(), "seconds": rounded, "given_up": given_up, "density": self.density}


def record_of(data: dict[str, Any]) -> Record:
    """The record that `as_json` described."""
    seconds, given_up = (
        {name: t for name, t in data[part].items() if algorithm_of(name) not in UNTIMED}
        for part in ("seconds", "given_up")
    )
    return Record(from_json(data["case"]), seconds, given_up, data["density"])


def give_threads(threads: int) -> None:
    """Set the threads of BLAS to the number that the calls of a case use."""
    if fastconv.get_threads() != threads or _blas.threads() != threads:
        set_threads(threads)


def candidates(case: Case, ways: bool = False) -> list[str]:
    """The names of the algorithms that can compute a case; with `ways`, each variant has its own name."""
    give_threads(case.threads)
    dtype, found = np.dtype(case.dtype), list[str]()
    for name, algorithm in REGISTRY.items():
        planned = PlanCase.of(case.op, case.geometry, dtype, case.threads, masked=case.zeros)
        if name in UNTIMED or algorithm.unsupported(planned) is not None:
            continue
        plan = algorithm.plan(planned)
        if plan.exploits_sparsity and not case.zeros:
            continue
        if plan.needs_rank_one and case.pattern != "rank one":
            continue
        # 'auto' does not consider it without BLAS.
        if plan.needs_blas and not _blas.within(case.threads):
            continue
        if plan.workspace_bytes <= MOST_BYTES:
            found += forms_of(name, planned) if ways else [name]
    return found


class Calls:
    """The calls of a case, by the names of the contenders; they share arrays."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.x, self.w, self.dout = case.arrays()
        size = {"forward": self.dout, "backward_data": self.x, "backward_weights": self.w}[case.op].shape
        self.result = np.empty(size, case.dtype)
        self.density = np.count_nonzero(self.w) / self.w.size

    def call(self, name: str) -> Call:
        """The call of an algorithm, of 'auto', or of a variant, as a layer makes it."""
        case, geometry, threads = self.case, self.case.geometry, self.case.threads
        x, w, dout, result = self.x, self.w, self.dout, self.result
        if " " in name and geometry.pad_mode == "zeros" and not case.zeros:
            plan = make_algorithm(name).plan(PlanCase.of(case.op, geometry, result.dtype, threads))
            first, second = {"forward": (x, w), "backward_data": (dout, w), "backward_weights": (x, dout)}[case.op]
            return lambda: plan.run(first, second, None, result)
        name = algorithm_of(name)
        if case.op == "forward":
            return lambda: dispatch.forward(x, w, None, geometry, result, name, threads)
        if case.op == "backward_data":
            return lambda: dispatch.backward_data(dout, w, geometry, result, name, threads)
        kept = w if case.zeros else None
        return lambda: dispatch.backward_weights(x, dout, geometry, result, name, threads, kept)


def turn(call: Call, best: float, alone: bool) -> tuple[float, bool]:
    """The seconds of a call in a loop, and whether it was stopped because it is hopelessly slow against `best`."""
    wait_for_quiet()
    most = min(HOPELESS * best + 0.02, LONGEST)
    begun = time.perf_counter()
    try:
        with limited(most):
            call()
    except TooLong:
        return time.perf_counter() - begun, True
    first = time.perf_counter() - begun
    if first > most:
        return first, True
    times: list[float] = []
    if first > LONG:
        for _ in range(2 if first < 4 * LONG else 1):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        return min(first, *times), False
    warm = time.perf_counter() + TURN[alone] - COUNTED[alone]
    while time.perf_counter() < warm:
        call()
    while len(times) < 2 or time.perf_counter() < warm + COUNTED[alone]:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), False


def expected(name: str, case: Case, density: float = 1.0) -> float:
    """The estimate for a contender by the rates in use; infinite if there are no rates."""
    if name == "auto":
        return 0.0
    planned = PlanCase.of(case.op, case.geometry, np.dtype(case.dtype), case.threads, density, masked=case.zeros)
    return pricing.cost(wrappers.padded(planned, make_algorithm(name).plan))


def measure(case: Case, names: Iterable[str], rounds: int, into: Record | None = None, near: float = NEAR) -> Record:
    """Time `names` on a case in turns, the expected fastest first. Contenders far from the fastest have one turn.

    If 'auto' is among the names, it is first in one round and last in the next.
    """
    give_threads(case.threads)
    record, calls = into or Record(case), Calls(case)
    record.density = float(f"{calls.density:.4g}")
    names = sorted(names, key=lambda name: expected(name, case, calls.density if case.zeros else 1.0))
    for name in names:
        record.seconds.pop(name, None)
        record.given_up.pop(name, None)
    for i in range(rounds):
        for name in names if i % 2 == 0 else (*names[1:], names[0]):
            best = min(record.seconds.values(), default=math.inf)
            if name in record.given_up or record.seconds.get(name, 0.0) > near * best:
                continue
            took, hopeless = turn(calls.call(name), best, case.threads == 1)
            if hopeless:
                record.given_up[name] = took
                record.seconds.pop(name, None)
            else:
                record.seconds[name] = min(record.seconds.get(name, math.inf), took)
    return record


def chosen_of(record: Record) -> str:
    """The record name of the algorithm that 'auto' takes by the rates in use; of its variants the cheapest one."""
    case, dtype = record.case, np.dtype(record.case.dtype)
    give_threads(case.threads)
    plans.clear()  # Other rates made the plans in the cache.
    density = as_seen(case.w_shape, math.prod(case.geometry.out_shape), record.density) if case.zeros else 1.0
    rank_one = case.pattern == "rank one"
    planned = PlanCase.of(case.op, case.geometry, dtype, case.threads, density, masked=case.zeros)
    chosen = choosing.choose(planned, "auto", rank_one).algorithm
    ways = [name for name in (*record.seconds, *record.given_up) if algorithm_of(name) == chosen]
    return min(ways, key=lambda name: expected(name, case, density), default=chosen)


class Records:
    """Records in a file of lines that grows during the measurement, so that an interrupted run can continue."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Record] = {}
        if path.exists():
            read = gzip.open if path.suffix == ".gz" else open
            with read(path, "rt", encoding="utf-8") as file:
                lines = file.read().splitlines()
            for line in lines:
                data = json.loads(line)
                if "forget" in data:
                    self._drop(data["forget"])
                    continue
                record = record_of(data)
                self.found[self.key(record.case)] = record  # The last record of a case counts.

    def _drop(self, algorithms: Iterable[str]) -> None:
        for record in self.found.values():
            for times in (record.seconds, record.given_up):
                for name in [name for name in times if algorithm_of(name) in algorithms]:
                    del times[name]

    def forget(self, algorithms: list[str]) -> None:
        """Drop the times of some algorithms, here and in the file."""
        self._drop(algorithms)
        self._append({"forget": algorithms})

    def cases(self) -> list[Case]:
        """The cases that were measured."""
        return [record.case for record in self.found.values()]

    def _append(self, data: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")

    @staticmethod
    def key(case: Case) -> str:
        """Of a case."""
        return json.dumps(case.as_json(), sort_keys=True)

    def get(self, case: Case) -> Record | None:
        """The record of a case, or None."""
        return self.found.get(self.key(case))

    def add(self, record: Record) -> None:
        """Append a record; it replaces an older one of the same case."""
        self.found[self.key(record.case)] = record
        self._append(record.as_json())

    def keep(self, path: Path) -> None:
        """Write all records to a compressed file, which `Records` reads."""
        lines = [json.dumps(record.as_json(), separators=(",", ":")) + "\n" for record in self.found.values()]
        path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
