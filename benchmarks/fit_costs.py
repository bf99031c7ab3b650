"""Fit the cost model behind ``algorithm='auto'`` to measurements, and print its regret.

Every algorithm is timed on every layer it supports, Winograd's with each number
of interpolation points, among which it chooses by the same rates. The rates of its kinds of
work that explain those times best (least squares of the relative error, none
negative) are where a search for those that choose best begins; what it finds
goes to ``fastconv/algorithms/_rates.py`` with ``--write``, as the rates of the
instruction set in use. The regret of a choice is the time of the chosen
algorithm over that of the fastest.
"""

from __future__ import annotations

import copy
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _harness import console, exit_status, parse, progress, set_threads, wait_for_quiet
from _layers import BEYOND, DECODERS, LIST, SMALL, Layer
from _report import new_table, run_info, write
from rich.console import Console
from scipy.optimize import minimize, nnls
from scipy.special import softmax

import fastconv
from fastconv import _isa
from fastconv.algorithms.base import OPS, Algorithm, Op, rates_in_use
from fastconv.algorithms.winograd import Winograd

#: The target: geometric mean of the regret over the layer table.
TARGET = 1.05
#: Nobody waits for an algorithm so much slower than the fastest so far: its time does not matter.
HOPELESS = 8.0
#: Multiply-adds of the largest layers timed; the next larger ones behave alike.
MOST = 3e9
#: Rounds of turns; the best counts, as what else runs here only adds.
ROUNDS = 3
#: Seconds an algorithm repeats its call in a turn, and those of them that count: threads have to wake first.
TURN, COUNTED = 0.03, 0.015
#: Of the search: how near two costs are, in their logarithms, where the choice is taken for open, and how much
#: it minds an estimate that is off against a choice that is.
NEAR, TRUTH = 0.03, 0.1
_RATES = Path(__file__).parent.parent / "fastconv" / "algorithms" / "_rates.py"

REGISTRY: dict[str, Algorithm] = sys.modules["fastconv.algorithms"].REGISTRY
choose: Callable[..., Algorithm] = sys.modules["fastconv.algorithms"].choose

#: What is timed: the algorithms that do not skip zeros, which have a density in their costs and fit_pruned.py; in the
#: place of Winograd's its ways, which share its rates.
WINOGRAD = "winograd"
CONTENDERS: dict[str, Algorithm] = {
    name: a for name, a in REGISTRY.items() if name not in ("reference", WINOGRAD) and not a.skips_zeros
} | {f"{WINOGRAD} {points}": Winograd((points,)) for points in REGISTRY[WINOGRAD].points}


def algorithm_of(name: str) -> str:
    """The algorithm that a contender is a way of, and whose rates it has."""
    return name.split()[0]


@dataclass
class Measured:
    """One layer, batch, op, dtype and thread count: seconds by algorithm, and what each says it has to do."""

    case: str
    batch: int
    op: Op
    dtype: np.dtype
    threads: int
    geometry: fastconv.ConvGeometry
    listed: bool
    seconds: dict[str, float]
    work: dict[str, dict[str, float]]

    @property
    def chosen(self) -> str:
        """What 'auto' takes with the rates in use."""
        case = self.op, self.geometry, self.dtype, self.threads
        algorithm = choose(*case)
        if algorithm.name != WINOGRAD:
            return algorithm.name
        return f"{WINOGRAD} {algorithm.points_of(*case)}"

    @property
    def regret(self) -> float:
        """Of that; what was hopeless was not timed to the end."""
        return self.seconds.get(self.chosen, HOPELESS * min(self.seconds.values())) / min(self.seconds.values())

    def forget(self) -> None:
        """Choices are kept with a geometry: they are made anew."""
        for kept in ("_chosen", "_winograd", "bound"):
            vars(self.geometry).pop(kept, None)


def _calls(layer: Layer, batch: int, dtype: np.dtype, op: Op, threads: int) -> dict[str, Callable[[], None]]:
    geometry = layer.geometry(batch)
    x, w, _, dout = (array.astype(dtype) for array in layer.arrays(batch))
    result = np.empty({"forward": dout, "backward_data": x, "backward_weights": w}[op].shape, dtype)

    def call(algorithm: Algorithm) -> Callable[[], None]:
        if op == "forward":
            return lambda: algorithm.forward(x, w, None, geometry, result, threads)
        if op == "backward_data":
            return lambda: algorithm.backward_data(dout, w, geometry, result, threads)
        return lambda: algorithm.backward_weights(x, dout, geometry, result, threads)

    return {name: call(a) for name, a in CONTENDERS.items() if not a.unsupported(op, geometry, dtype)}


def _turn(call: Callable[[], None], best: float) -> float:
    """Seconds of a call in a loop of them, or of the first where it is hopeless against the best."""
    wait_for_quiet()
    begun = time.perf_counter()
    call()
    first = time.perf_counter() - begun
    if first > HOPELESS * best + 0.01:
        return first
    times: list[float] = []
    warm = time.perf_counter() + TURN - COUNTED
    while time.perf_counter() < warm:
        call()
    while len(times) < 2 or time.perf_counter() < warm + COUNTED:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measure(layer: Layer, batch: int, dtype: np.dtype, op: Op, threads: int) -> Measured:
    """Time every algorithm that supports the case, the one thought fastest first."""
    geometry, seconds = layer.geometry(batch), dict[str, float]()
    calls = _calls(layer, batch, dtype, op, threads)
    for _ in range(ROUNDS):
        for name in sorted(calls, key=lambda name: CONTENDERS[name].cost(op, geometry, dtype, threads)):
            best = min(seconds.values(), default=math.inf)
            if seconds.get(name, 0) <= HOPELESS * best:
                seconds[name] = min(seconds.get(name, math.inf), _turn(calls[name], best))
    least = min(seconds.values())
    seconds = {name: t for name, t in seconds.items() if t <= HOPELESS * least}
    work = {name: CONTENDERS[name].work(op, geometry, dtype, threads) for name in seconds}
    return Measured(layer.case, batch, op, dtype, threads, geometry, layer in LIST, seconds, work)


def fit(rows: list[Measured]) -> dict[str, dict[str, dict[str, float]]]:
    """Nanoseconds a unit, by algorithm, op and kind; those in use where nothing was measured."""
    rates = {name: {op: dict(kinds) for op, kinds in ops.items()} for name, ops in rates_in_use().items()}
    for name in REGISTRY:
        for op in OPS:
            timed = [(row, way) for row in rows if row.op == op for way in row.seconds if algorithm_of(way) == name]
            kinds = list(rates[name][op])
            if len(timed) < 2 * len(kinds):
                continue
            # Rows near the fastest algorithm decide choices: they weigh most.
            weights = np.array([min(row.seconds.values()) / row.seconds[way] for row, way in timed])
            matrix = np.array([[row.work[way].get(kind, 0) for kind in kinds] for row, way in timed])
            matrix /= np.array([row.seconds[way] for row, way in timed])[:, None] * 1e9
            found, _ = nnls(matrix * weights[:, None], weights)
            rates[name][op] = dict(zip(kinds, found.tolist(), strict=True))
    return rates


def _loss(
    logs: np.ndarray,
    work: list[np.ndarray],
    which: list[int],
    cuts: np.ndarray,
    there: np.ndarray,
    lost: np.ndarray,
    log_took: np.ndarray,
    handicap: np.ndarray,
) -> float:
    """What choices by rates exp(logs) lose, near ones counted by how near, and a little how far estimates are off."""
    parts = np.split(np.exp(logs), cuts)
    costs = np.stack([matrix @ parts[i] for matrix, i in zip(work, which, strict=True)], axis=1)
    estimate = np.log(np.where(there, costs, 1))
    taken = softmax(np.where(there, -(estimate + handicap) / NEAR, -np.inf), axis=1)
    off = np.where(there, np.exp(-lost) * (estimate - log_took) ** 2, 0)
    return float((taken * lost).sum(axis=1).mean() + TRUTH * off.sum() / there.sum())


def rank(rows: list[Measured], rates: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Rates near those that fit which choose better: the fit cares for times, a choice for who is first."""
    for op in OPS:
        timed = [row for row in rows if row.op == op and len(row.seconds) > 1]
        names = sorted({name for row in timed for name in row.seconds})
        algorithms = sorted(set(map(algorithm_of, names)))
        kinds = {name: list(rates[name][op]) for name in algorithms}
        took = np.array([[row.seconds.get(name, math.inf) for name in names] for row in timed])
        there = np.isfinite(took)
        log_took = np.log(np.where(there, took, 1))
        handicap = np.log([[CONTENDERS[name].handicap(row.threads) for name in names] for row in timed])
        # The handicap is lost, too: else rates would be found that make up for it.
        lost = np.where(there, log_took + handicap, np.inf)
        lost = np.where(there, lost - lost.min(axis=1, keepdims=True), 0)
        work = [
            np.array([[row.work.get(n, {}).get(kind, 0) * 1e-9 for kind in kinds[algorithm_of(n)]] for row in timed])
            for n in names
        ]
        # What the fit found to cost nothing may still cost a little.
        start = []
        for name in algorithms:
            there_is = [matrix for n, matrix in zip(names, work, strict=True) if algorithm_of(n) == name]
            least = 1e-3 * np.median(took[there]) / np.maximum(np.mean(there_is, axis=(0, 1)), 1e-30) / len(kinds[name])
            start.append(np.log(np.maximum([rates[name][op][kind] for kind in kinds[name]], least)))
        cuts = np.cumsum([len(part) for part in start])[:-1]
        which = [algorithms.index(algorithm_of(name)) for name in names]

        arguments = work, which, cuts, there, lost, log_took, handicap
        found = minimize(_loss, np.concatenate(start), arguments, method="L-BFGS-B")
        for name, part in zip(algorithms, np.split(np.exp(found.x), cuts), strict=True):
            rates[name][op] = dict(zip(kinds[name], part.tolist(), strict=True))
    return rates


def own_rates() -> dict[str, dict[str, dict[str, float]]]:
    """Rates of the instruction set in use that may be changed: where it had none, those it went by."""
    all_rates = sys.modules["fastconv.algorithms._rates"].RATES
    return all_rates.setdefault(_isa.NAMES[_isa.current], copy.deepcopy(rates_in_use()))


def write_rates(screen: Console) -> None:
    """Write what is in use, with the rates of the other instruction sets as they are."""
    lines = [
        '"""What a unit of each kind of work takes, in nanoseconds, by the instruction set that it was measured in:',
        "written by ``benchmarks/fit_costs.py --write``.",
        '"""',
        "",
        "RATES: dict[str, dict[str, dict[str, dict[str, float]]]] = {",
    ]
    for isa, algorithms in sys.modules["fastconv.algorithms._rates"].RATES.items():
        lines.append(f'    "{isa}": {{')
        for name, ops in algorithms.items():
            lines.append(f'        "{name}": {{')
            for op, kinds in ops.items():
                lines.append(f'            "{op}": {{')
                lines += [f'                "{kind}": {float(f"{value:.4g}")!r},' for kind, value in kinds.items()]
                lines.append("            },")
            lines.append("        },")
        lines.append("    },")
    _RATES.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
    screen.print(f"wrote {_RATES.name}")


def _geomean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def main() -> None:
    """Measure, fit, print, and with --write keep."""
    argv = sys.argv[1:]
    keep = "--write" in argv
    options = parse(__doc__ or "", [a for a in argv if a != "--write"], brief="fewer layers, batch 1")
    set_threads(options.threads)
    layers = options.wanted([*LIST, *BEYOND, *SMALL, *DECODERS][:: 3 if options.quick else 1], lambda layer: layer.case)
    # One thread and float64 at batch 1 only: what differs there shows there.
    wanted = {(1, 4, 1), (options.threads, 4, 1), (options.threads, 4, 16), (options.threads, 8, 1)}
    cases = [
        (layer, batch, np.dtype(dtype), op, threads)
        for layer in layers
        for batch in ((1,) if options.quick else (1, 16))
        for dtype in (np.float32, np.float64)
        for op in OPS
        for threads in sorted({1, options.threads})
        if layer.geometry(batch).flops / 2 <= MOST and (threads, np.dtype(dtype).itemsize, batch) in wanted
    ]
    screen, rows = console(110), list[Measured]()
    with progress(screen, len(cases)) as show:
        for layer, batch, dtype, op, threads in cases:
            show(f"{layer.case} x{batch} {op} {dtype} {threads} threads")
            rows.append(measure(layer, batch, dtype, op, threads))
    before = [row.regret for row in rows]
    rates = rank(rows, fit(rows))
    own_rates().update(rates)
    for row in rows:
        row.forget()
    report(rows, before, screen, options)
    if keep:  # with those that other scripts fit
        write_rates(screen)


def report(rows: list[Measured], before: list[float], screen: Any, options: Any) -> None:
    """Regret by op and dtype, the worst choices, and JSON and PNG."""
    table = new_table("Regret of 'auto': time of the chosen algorithm over that of the fastest")
    for heading in ("op", "dtype", "threads", "cases", "geomean before", "geomean", "worst"):
        table.add_column(heading, justify="left" if heading in ("op", "dtype") else "right")
    groups: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
    for row, old in zip(rows, before, strict=True):
        groups[row.op, row.dtype.name, row.threads].append((old, row.regret))
    for (op, dtype, threads), pairs in groups.items():
        olds, news = zip(*pairs, strict=True)
        cells = (f"{_geomean(list(olds)):.3f}", f"{_geomean(list(news)):.3f}", f"{max(news):.2f}")
        table.add_row(op, dtype, str(threads), str(len(pairs)), *cells)
    screen.print(table)
    worst = sorted((row for row in rows if row.regret > 1.1), key=lambda row: -row.regret)[:12]
    listing = new_table("Worst choices")
    for heading in ("layer", "batch", "op", "dtype", "threads", "chosen", "fastest", "regret"):
        listing.add_column(heading)
    for row in worst:
        fastest = min(row.seconds, key=row.seconds.__getitem__)
        listing.add_row(
            row.case, str(row.batch), row.op, row.dtype.name, str(row.threads), row.chosen, fastest, f"{row.regret:.2f}"
        )
    screen.print(listing)
    of_list = _geomean([row.regret for row in rows if row.listed] or [1.0])
    overall = _geomean([row.regret for row in rows])
    met = "met" if of_list <= TARGET else "missed"
    screen.print(
        f"geometric mean: {of_list:.3f} on the list ({met}: at most {TARGET}), {overall:.3f} with those beyond"
    )
    data = {
        "target": TARGET,
        "geomean": {"list": of_list, "all": overall},
        **run_info("fit_costs", options, options.threads, None),
        "rows": [
            {
                "case": row.case,
                "batch": row.batch,
                "op": row.op,
                "dtype": row.dtype.name,
                "threads": row.threads,
                "chosen": row.chosen,
                "relative": {name: t / min(row.seconds.values()) for name, t in row.seconds.items()},
            }
            for row in rows
        ],
    }
    for path in write(options.out, "fit_costs", data, lambda to: draw(rows, to)):
        screen.print(f"wrote {path.name}")


def draw(rows: list[Measured], path: Path) -> None:
    """Each algorithm's time over the fastest's, by case, with the choice marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    panels = figure.subplots(3, 1, sharex=False)
    for panel, op in zip(panels, OPS, strict=True):
        cases = [row for row in rows if row.op == op]
        cases.sort(key=lambda row: row.regret)
        for name in CONTENDERS:
            points = [(i, r.seconds[name] / min(r.seconds.values())) for i, r in enumerate(cases) if name in r.seconds]
            if points:
                panel.plot(*zip(*points, strict=True), ".", markersize=3, label=name)
        panel.plot([row.regret for row in cases], "k-", linewidth=1, label="chosen")
        panel.set_yscale("log")
        panel.set_ylim(0.95, HOPELESS)
        panel.set_title(op, loc="left")
        panel.set_ylabel("time / fastest")
    panels[0].legend(loc="upper left", ncols=5)
    panels[-1].set_xlabel("cases (layer, batch, dtype, threads), by regret of the choice")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(exit_status(main))
