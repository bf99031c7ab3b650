"""All algorithms on one case in turns, hopeless ones interrupted, and the records of that in a file."""

from __future__ import annotations

import gzip
import json
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fastconv
from fastconv.convolution import choose as choosing, dispatch
from fastconv.convolution.base import Algorithm
from fastconv.convolution.density import as_seen
from fastconv.convolution.plan import Case as PlanCase
from fastconv.runtime import blas as _blas
from fastconv.runtime.plan_cache import plans
from support.families import Case, from_json
from support.harness import set_threads, wait_for_quiet

REGISTRY: dict[str, Algorithm] = choosing.REGISTRY

#: Nobody waits for an algorithm so much slower than the fastest so far: its time does not matter.
HOPELESS = 8.0
#: So much slower, one turn tells enough.
NEAR = 2.5
#: Seconds of the first call of a case, at most.
LONGEST = 8.0
#: Seconds an algorithm repeats its call in a turn, and those of them that count, by one thread and by several: where a
#: virtual machine wakes a thread on the core of its waker, tens of milliseconds pass before it sees another core idle.
TURN, COUNTED = {True: 0.008, False: 0.03}, {True: 0.006, False: 0.015}
#: Calls of more seconds are turns by themselves, after the first.
LONG = 0.04
#: A larger workspace is not taken.
MOST_BYTES = 1 << 27
#: The definition, by loops in Python: it is never timed.
REFERENCE = "reference"

Call = Callable[[], Any]


class TooLong(Exception):
    """A call was interrupted."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, as Ctrl-C would: kernels look every 50 ms or so."""

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
    """Seconds of the algorithms that were timed on a case, and of those that were given up the seconds until then."""

    case: Case
    seconds: dict[str, float] = field(default_factory=dict)
    given_up: dict[str, float] = field(default_factory=dict)
    #: The share of weights that are not zero.
    density: float = 1.0

    @property
    def best(self) -> float:
        """The least; None of them is 'auto'."""
        return min(t for name, t in self.seconds.items() if name != "auto")

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        rounded = {name: float(f"{t:.5g}") for name, t in self.seconds.items()}
        given_up = {name: float(f"{t:.3g}") for name, t in self.given_up.items()}
        return {"case": self.case.as_json(), "seconds": rounded, "given_up": given_up, "density": self.density}


def record_of(data: dict[str, Any]) -> Record:
    """The record that `as_json` told about."""
    return Record(from_json(data["case"]), dict(data["seconds"]), dict(data["given_up"]), data["density"])


def algorithm_of(name: str) -> str:
    """The algorithm that a contender is a way of, and whose rates it has."""
    return name.split(" ", 1)[0]


def form(name: str) -> Algorithm:
    """A contender by its name: an algorithm, or a way of one."""
    algorithm, _, way = name.partition(" ")
    return REGISTRY[algorithm].variant(way)


def give_threads(threads: int) -> None:
    """BLAS uses as many threads as the calls of a case."""
    if fastconv.get_threads() != threads or _blas.threads() != threads:
        set_threads(threads)


def candidates(case: Case, ways: bool = False) -> list[str]:
    """Names of what serves a case, each way of an algorithm by itself where `ways`."""
    give_threads(case.threads)
    dtype, found = np.dtype(case.dtype), list[str]()
    for name, algorithm in REGISTRY.items():
        wanted = case.zeros or not algorithm.exploits_sparsity
        if algorithm.needs_rank_one:  # the gradient of its weights is another algorithm's
            wanted = case.pattern == "rank one" and case.op != "backward_weights"
        if name == REFERENCE or not wanted or algorithm.unsupported(PlanCase.of(case.op, case.geometry, dtype)):
            continue
        # Without BLAS it is no candidate of 'auto'.
        if algorithm.needs_blas and not _blas.within(case.threads):
            continue
        if algorithm.plan(PlanCase.of(case.op, case.geometry, dtype, case.threads)).workspace_bytes > MOST_BYTES:
            continue
        forms = (
            algorithm.variants(PlanCase.of(case.op, case.geometry, dtype, case.threads)) if ways else {"": algorithm}
        )
        found += [f"{name} {way}".strip() for way in forms]
    return found


class Calls:
    """The calls of a case, by the names of what computes it; they share arrays."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.x, self.w, self.dout = case.arrays()
        size = {"forward": self.dout, "backward_data": self.x, "backward_weights": self.w}[case.op].shape
        self.result = np.empty(size, case.dtype)
        self.density = np.count_nonzero(self.w) / self.w.size

    def call(self, name: str) -> Call:
        """By an algorithm's name or 'auto', as layers come to them; or by a way of one."""
        case, geometry, threads = self.case, self.case.geometry, self.case.threads
        x, w, dout, result = self.x, self.w, self.dout, self.result
        if " " in name and geometry.pad_mode == "zeros" and not case.zeros:
            plan = form(name).plan(PlanCase.of(case.op, geometry, result.dtype, threads))
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
    """Seconds of a call in a loop of them, and whether it was given up because it is hopeless against the best."""
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
    """What the rates in use estimate for a contender; infinite where there are none."""
    if name == "auto":
        return 0.0
    algorithm, dtype = form(name), np.dtype(case.dtype)
    with suppress(KeyError):
        return algorithm.cost(PlanCase.of(case.op, case.geometry, dtype, case.threads, density))
    return math.inf


def measure(case: Case, names: Iterable[str], rounds: int, into: Record | None = None, near: float = NEAR) -> Record:
    """Time `names` on a case in turns, the one thought fastest first; what is not near the fastest only once.

    'auto' is one of them where it is named; it is first in a round and last in the next.
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
    """What 'auto' takes by the rates in use, by its name in the record: of an algorithm's ways there the cheapest."""
    case, dtype = record.case, np.dtype(record.case.dtype)
    give_threads(case.threads)
    plans.clear()  # made by other rates
    density = as_seen(case.w_shape, math.prod(case.geometry.out_shape), record.density) if case.zeros else 1.0
    rank_one = case.pattern == "rank one"
    chosen = choosing.choose(PlanCase.of(case.op, case.geometry, dtype, case.threads, density), "auto", rank_one).name
    ways = [name for name in (*record.seconds, *record.given_up) if algorithm_of(name) == chosen]
    return min(ways, key=lambda name: expected(name, case, density), default=chosen)


class Records:
    """Records in a file of lines, which grows while they are measured: what was interrupted goes on."""

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
                self.found[self.key(record.case)] = record  # the last of a case counts

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
        """Those that were measured."""
        return [record.case for record in self.found.values()]

    def _append(self, data: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")

    @staticmethod
    def key(case: Case) -> str:
        """Of a case."""
        return json.dumps(case.as_json(), sort_keys=True)

    def get(self, case: Case) -> Record | None:
        """The record of a case, where there is one."""
        return self.found.get(self.key(case))

    def add(self, record: Record) -> None:
        """Keep a record; it counts in the place of an older one of its case."""
        self.found[self.key(record.case)] = record
        self._append(record.as_json())

    def keep(self, path: Path) -> None:
        """Write all records to a compressed file, which `Records` reads."""
        lines = [json.dumps(record.as_json(), separators=(",", ":")) + "\n" for record in self.found.values()]
        path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
