"""What each special path buys: the time of 'auto' without the path, divided by its time with it.

    python benchmarks/ablation.py [--minutes N] [--seed N] [--threads 1,2] [--path NAME]

A path is an algorithm, or a part of one: a mode of implicit GEMM, packing, unrolled taps, shared panels, repacked
weights, a size F(m, r) of Winograd, a kernel of pooling, or the pool that keeps the memory of results. Cases are the
layers of the tables and random geometries of the families of bench_choice.py. For each case, 'auto' plans with and
without the path. If both plans are the same, the ratio is 1 and nothing is timed. Otherwise both plans take turns.

A path pays if it buys at least 1 % in the geometric mean of the layers or of the families, or at least 10 % on a case.
"""

from __future__ import annotations

import argparse
import math
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from bench_choice import numbers
from fit_costs import table_cases
from rich.console import Console
from support.families import FAMILIES, Case, draw_cases
from support.harness import Options, console, exit_status, load_average, progress, wait_for_quiet
from support.layers import LIST
from support.report import new_table, run_info, write
from support.turns import Calls, give_threads, turn

import fastconv
from fastconv._ext.buffers import buffers
from fastconv.convolution import choose as choosing
from fastconv.convolution.density import as_seen
from fastconv.convolution.implicit_gemm import tuning as implicit
from fastconv.convolution.implicit_gemm.algorithm import Implicit, ImplicitPlan
from fastconv.convolution.plan import Case as PlanCase, Plan
from fastconv.convolution.winograd.algorithm import Winograd
from fastconv.convolution.winograd.decomposition import POINTS
from fastconv.layers import calls
from fastconv.layers.pool import kernels as pooling
from fastconv.runtime import isa as _isa, memory as _memory
from fastconv.runtime.plan_cache import plans

#: A path goes if it buys less than `MEAN` in both geometric means, and less than `ONE` on every case.
MEAN, ONE = 1.01, 1.10
#: Rounds of turns. The least time counts, because other programs can only add to it.
ROUNDS = 3
#: Random cases of each family, and minutes of a full run.
DRAWN, MINUTES = 6, 15.0
TABLE = "layers of the tables"


@contextmanager
def registered(*names: str, algorithm: Any = None) -> Iterator[None]:
    """Take algorithms out of the registry, or put another form of the only one there."""
    before = dict(choosing.REGISTRY)
    try:
        for name in names:
            if algorithm is None:
                del choosing.REGISTRY[name]
            else:
                choosing.REGISTRY[name] = algorithm
        plans.clear()
        yield
    finally:
        choosing.REGISTRY.clear()
        choosing.REGISTRY.update(before)
        plans.clear()


@dataclass(frozen=True)
class Part:
    """A path of a convolution. `without` is a context in which 'auto' plans without the path."""

    name: str
    without: Callable[[], Any]


def implicit_without(**changes: Any) -> Callable[[], Any]:
    """The context without a part of implicit GEMM."""
    return lambda: registered("implicit", algorithm=Implicit(replace(implicit.DEFAULT, **changes)))


def paths() -> list[Part]:
    """All paths of convolutions."""
    modes = {
        "contiguous": implicit.CONTIGUOUS,
        "padded grid": implicit.PADDED_GRID,
        "row-wise": implicit.ROW_WISE,
        "packed": implicit.PACKED,
        "swapped operands": implicit.SWAPPED,
    }
    every = implicit.DEFAULT.modes
    found = [
        Part(name, lambda name=name: registered(name))
        for name in ("implicit", "winograd", "depthwise", "fft", "sparse", "im2col")
    ]
    found += [
        Part(f"implicit: {name}", implicit_without(modes=tuple(m for m in every if m != mode)))
        for name, mode in modes.items()
    ]
    found += [
        Part("implicit: packed cells", implicit_without(packing_rows=math.inf)),
        Part("implicit: shared panels", implicit_without(shared_blocks=math.inf)),
        Part("implicit: several tiles for each panel", implicit_without(most_tiles=1)),
        Part("implicit: unrolled taps", implicit_without(unrolls_taps=False)),
        Part("implicit: repacked weights", implicit_without(repacked_blocks=math.inf)),
        Part("implicit: weight layouts", implicit_without(knows_layouts=False)),
    ]
    for points in POINTS:
        rest = tuple(p for p in POINTS if p != points)
        found.append(
            Part(f"winograd: {points} points", lambda rest=rest: registered("winograd", algorithm=Winograd(rest)))
        )
    return found


@dataclass
class Result:
    """The ratios of a path: of the layers of the tables, and of the random cases by family."""

    name: str
    ratios: list[tuple[str, str, float]] = field(default_factory=list)

    def mean(self, table: bool) -> float:
        """The geometric mean over the layers of the tables, or over all other cases."""
        some = [ratio for family, _, ratio in self.ratios if (family == TABLE) == table]
        return statistics.geometric_mean(some) if some else 1.0

    @property
    def most(self) -> tuple[str, float]:
        """The case with the largest ratio."""
        return max(((case, ratio) for _, case, ratio in self.ratios), key=lambda pair: pair[1], default=("", 1.0))

    @property
    def pays(self) -> bool:
        """Whether the path buys enough."""
        return max(self.mean(True), self.mean(False)) >= MEAN or self.most[1] >= ONE

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        timed = [{"family": f, "case": c, "ratio": round(r, 4)} for f, c, r in self.ratios if r != 1]
        return {
            "path": self.name,
            "cases": len(self.ratios),
            "layers": round(self.mean(True), 4),
            "families": round(self.mean(False), 4),
            "largest": round(self.most[1], 4),
            "pays": self.pays,
            "timed": timed,
        }


@cache
def density_of(case: Case) -> float:
    """The density of the weights of a case as 'auto' sees it."""
    w = case.arrays()[1]
    return as_seen(case.w_shape, math.prod(case.geometry.out_shape), np.count_nonzero(w) / w.size)


def planned(case: Case) -> Plan:
    """The plan that 'auto' takes for a case."""
    give_threads(case.threads)
    density = density_of(case) if case.zeros else 1.0
    of = PlanCase.of(case.op, case.geometry, np.dtype(case.dtype), case.threads, density, masked=case.zeros)
    return choosing.choose(of, "auto", case.pattern == "rank one")


def nested(plan: Plan) -> Iterator[Plan]:
    """A plan and the plans inside it, because wrappers hold plans."""
    yield plan
    for value in vars(plan).values():
        for inner in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(inner, Plan):
                yield from nested(inner)


def described(plan: Plan) -> list[Any]:
    """What decides the time of a plan: its algorithms, their work, and the tilings of implicit GEMM."""
    found = list[Any]()
    for inner in nested(plan):
        found.append((inner.algorithm, dict(inner.work)))
        if isinstance(inner, ImplicitPlan):
            calls = inner.calls()
            found += [(call.tiling, call.repack is None, getattr(call.kernel, "shared", 0)) for call in calls]
    return found


def compared(case: Case, path: Part) -> float:
    """The time without the path divided by the time with it; 1 if the plans are the same."""
    kept = described(planned(case))
    with path.without():
        other = described(planned(case))
    if kept == other:
        return 1.0
    contenders = Calls(case)
    with_path = contenders.call("auto")
    times = [math.inf, math.inf]
    for _ in range(ROUNDS):
        took, _ = turn(with_path, times[1], case.threads == 1)
        times[0] = min(times[0], took)
        with path.without():
            took, _ = turn(contenders.call("auto"), times[0], case.threads == 1)
        times[1] = min(times[1], took)
    return times[1] / times[0]


def one_turn(call: Callable[[], Any]) -> float:
    """The median seconds of a call in a loop of 30 ms."""
    wait_for_quiet()
    times, end = list[float](), time.perf_counter() + 0.03
    while len(times) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[len(times) // 2 :])


def in_turns(call: Callable[[], Any], without: Callable[[], Any]) -> float:
    """The least median time of a call in the context `without`, divided by the least median time outside of it."""
    times = [math.inf, math.inf]
    for _ in range(ROUNDS):
        times[0] = min(times[0], one_turn(call))
        with without():
            times[1] = min(times[1], one_turn(call))
    return times[1] / times[0]


@contextmanager
def no_memory_kept() -> Iterator[None]:
    """The memory of results goes back to the system at once, as with FASTCONV_KEEP_MIB=0."""
    before = _memory._pool
    _memory._pool = buffers.Pool(0)
    try:
        yield
    finally:
        _memory._pool = before


@contextmanager
def no_2x2_kernel() -> Iterator[None]:
    """Poolings without the kernel of 2x2 windows at stride 2."""
    before = pooling.KERNELS
    pooling.KERNELS = tuple(kernel for kernel in before if not kernel.name.startswith("2x2"))
    calls.clear()
    try:
        yield
    finally:
        pooling.KERNELS = before
        calls.clear()


def kept_memory(quick: bool) -> Result:
    """What the pool of result memory buys, on the layers of the table."""
    found = Result("memory of results")
    rng = np.random.default_rng(0)
    for layer in LIST[:: 6 if quick else 1]:
        for batch in (1, 16):
            x = rng.standard_normal(layer.x_shape(batch), dtype=np.float32)
            w = rng.standard_normal(layer.w_shape, dtype=np.float32)
            ratio = in_turns(lambda x=x, w=w, layer=layer: fastconv.conv(x, w, **layer.options), no_memory_kept)
            found.ratios.append((TABLE, f"{layer.case}, batch {batch}", ratio))
    return found


def small_windows(quick: bool) -> Result:
    """What the kernel of 2x2 windows at stride 2 buys."""
    found = Result("pooling: 2x2 windows")
    rng = np.random.default_rng(0)
    shapes = [(1, 64, 112, 112), (16, 64, 56, 56), (8, 128, 28, 28), (4, 16, 13, 13)][: 2 if quick else None]
    for shape in shapes:
        x = rng.standard_normal(shape, dtype=np.float32)
        for name in ("max_pool_forward", "avg_pool_forward"):
            call = getattr(fastconv, name)
            ratio = in_turns(lambda call=call, x=x: call(x, 2, stride=2), no_2x2_kernel)
            found.ratios.append((TABLE, f"{name} {shape}", ratio))
    return found


def report(results: list[Result], screen: Console, options: argparse.Namespace, load_before: float | None) -> None:
    """Print a row for each path, and write JSON and pictures."""
    table = new_table("Time of 'auto' without the path / time with it: above 1 the path pays")
    for heading in ("path", "cases", "of other plans", "layers", "families", "largest", "case", "verdict"):
        table.add_column(heading, justify="left" if heading in ("path", "case", "verdict") else "right")
    for result in results:
        case, most = result.most
        changed = sum(ratio != 1 for *_, ratio in result.ratios)
        cells = str(len(result.ratios)), str(changed), f"{result.mean(True):.3f}", f"{result.mean(False):.3f}"
        table.add_row(result.name, *cells, f"{most:.2f}", case, "pays" if result.pays else "goes")
    screen.print(table)
    data = {
        **run_info("ablation", Options(options.quick, ROUNDS, max(options.threads), options.out), None, load_before),
        "kind": _isa.kind(),
        "seed": options.seed,
        "limits": {"mean": MEAN, "one": ONE},
        "paths": [result.as_json() for result in results],
    }
    for path in write(options.out, f"ablation_{_isa.NAMES[_isa.current]}", data):
        screen.print(f"wrote {path.name}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few layers and cases: about a minute")
    parser.add_argument("--path", action="append", help="only paths with this in their name; may be repeated")
    parser.add_argument("--seed", type=int, help="seed of the random cases; random by default")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers of threads, such as 1,2 (the default)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="stop after this time (%(default)g)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for JSON and PNG")
    options = parser.parse_args(argv)
    options.seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    """Measure all paths, print the table, and write it."""
    options, screen, load_before = parse(), console(150), load_average()
    screen.print(f"seed {options.seed}, {_isa.kind()}")
    layers = [replace(case, family=TABLE) for case in table_cases(options.threads) if case.x_shape[0] == 1]
    drawn = list(islice(draw_cases(options.seed, list(FAMILIES), options.threads), DRAWN * len(FAMILIES)))
    if options.quick:
        layers, drawn = layers[::40], drawn[::10]
    wanted = [path for path in paths() if not options.path or any(part in path.name for part in options.path)]
    results, end = [Result(path.name) for path in wanted], time.monotonic() + 60 * options.minutes
    # Cases of the tables and random cases alternate, so that a run that is stopped has some of both.
    cases = [case for pair in zip(layers, drawn, strict=False) for case in pair] + layers[len(drawn) :]
    with progress(screen, len(cases)) as show:
        for case in cases:
            if time.monotonic() > end:
                break
            show(f"{case.family} {case.op} {case}")
            for path, result in zip(wanted, results, strict=True):
                result.ratios.append((case.family, f"{case.op} {case}", compared(case, path)))
    for name, measured in (("memory of results", kept_memory), ("pooling: 2x2 windows", small_windows)):
        if not options.path or any(part in name for part in options.path):
            results.append(measured(options.quick))
    report(results, screen, options, load_before)


if __name__ == "__main__":
    sys.exit(exit_status(main))
