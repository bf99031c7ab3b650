"""Fit the cost model behind ``algorithm='auto'`` to this kind of CPU, and print the regret of its choices.

    python benchmarks/fit_costs.py --write                        # this CPU, the instruction set in use
    FASTCONV_ISA=avx2 python benchmarks/fit_costs.py --write      # and under another
    python benchmarks/fit_costs.py --only fft,separable --write   # after a change of some kernels

Cases are taken in turns from random families of geometries (`support/families.py`) and
from the table of layers. Every algorithm that can compute a case is timed on it, in each
of its variants. Each measured case is appended to a file, so that an interrupted run can
continue; ``--only`` times some algorithms anew on the cases of that file and keeps the
times of the others. ``--choices`` adds the cases of all runs of `bench_choice.py` on this
kind of CPU. A run with a new seed then has to judge the fit, because the fit has seen these
cases. A search (`support/fit.py`) then finds the rates that explain the times and choose
best, with a correction by the sizes of a case. A first fit leaves out one
case in five, to show how good the rates are on other cases. ``--write`` stores the rates of all cases in
``fastconv/convolution/cost/measured`` under the kind of CPU, and the times in
``benchmarks/results/times``. After a change of the cost model alone, the rates of any
kind of CPU can be fitted again to the stored times, on any machine whose build has
its instruction set:

    python benchmarks/fit_costs.py --again AuthenticAMD-26-avx512 --write
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from bench_choice import MUCH, numbers, statistics_of
from rich.console import Console
from support.families import FAMILIES, Case, draw_cases
from support.fit import fit
from support.forms import algorithm_of
from support.harness import Options, console, exit_status, load_average, machine, progress
from support.layers import BEYOND, DECODERS, LIST, SMALL, Layer
from support.report import new_table, run_info, write
from support.turns import Record, Records, candidates, chosen_of, measure, record_of

import fastconv
from fastconv.convolution.cost import rates as _rates
from fastconv.convolution.plan import OPS
from fastconv.runtime import isa as _isa

#: Rounds of turns. The least time counts, because other programs can only add to it.
ROUNDS = 2
#: Most multiply-adds of a layer that is timed; larger layers behave like the largest ones.
MOST = 3e9
#: Drawn cases for each layer of the table.
DRAWN = 2
#: One case of this many is held out.
HELD_OUT = 5
FAMILY = "table"
RESULTS = Path(__file__).parent / "results"
#: The times from which the rates in the package were fitted.
TIMES = RESULTS / "times"


def _case(layer: Layer, batch: int, op: Any, dtype: str, threads: int) -> Case:
    geometry = layer.geometry(batch)
    return Case(
        family=FAMILY,
        x_shape=layer.x_shape(batch),
        w_shape=layer.w_shape,
        stride=layer.axes(layer.stride),
        pad=geometry.pads,
        dilation=layer.axes(layer.dilation),
        groups=layer.groups,
        pad_mode="zeros",
        pattern="",
        share=1.0,
        op=op,
        dtype=dtype,
        threads=threads,
    )


def table_cases(threads: list[int]) -> list[Case]:
    """The layers of the table as cases: float32 with several threads at batches 1 and 16, and other settings at batch
    1."""
    most = max(threads)
    wanted = [(most, "float32", 1), (most, "float32", 16), (most, "float64", 1), (min(threads), "float32", 1)]
    return [
        _case(layer, batch, op, dtype, n)
        for layer in (*LIST, *BEYOND, *SMALL, *DECODERS)
        for n, dtype, batch in dict.fromkeys(wanted)
        for op in OPS
        if layer.geometry(batch).flops / 2 <= MOST
    ]


def cases_of(seed: int, families: list[str], threads: list[int]) -> Iterator[Case]:
    """Drawn cases with cases of the table between them, in an order that the seed decides."""
    table = table_cases(threads)
    random.Random(seed).shuffle(table)
    drawn = draw_cases(seed, families, threads)
    for i in count():
        for _ in range(DRAWN):
            yield next(drawn)
        if i < len(table):
            yield table[i]


def collect(known: Records, options: argparse.Namespace, screen: Console) -> None:
    """Time the algorithms that are missing in the file's cases, then new cases, until the time is over."""
    end, new = time.monotonic() + 60 * options.minutes, 0
    more = () if options.only else cases_of(options.seed, options.family, options.threads)
    with progress(screen, 0) as show:
        for case in chain(known.cases(), more):
            record = known.get(case)
            there = set() if record is None else {algorithm_of(n) for n in (*record.seconds, *record.given_up)}
            if time.monotonic() > end:
                break
            names = [name for name in candidates(case, ways=True) if algorithm_of(name) not in there]
            if names:
                show(f"{case.family} {case.op} {case}")
                known.add(measure(case, names, ROUNDS, record))
                new += 1
    screen.print(f"{new} cases timed, {len(list(known.cases()))} in {known.path}")


def add_choices(known: Records, kind: str, folder: Path) -> int:
    """Add the cases of all runs of `bench_choice.py` on this kind of CPU, with their times. Return the number of new
    cases.

    Such a run times each algorithm in the form that its plan took, so other forms of Winograd have no times.
    """
    before = len(known.cases())
    for path in sorted(folder.glob("bench_choice_*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        for row in data["cases"] if data["kind"] == kind else ():
            record = record_of(row)
            for times in (record.seconds, record.given_up):
                times.pop("auto", None)
            if record.seconds and known.get(record.case) is None:
                known.add(record)
    return len(known.cases()) - before


def regrets(records: list[Record]) -> list[Record]:
    """The records with a time of 'auto' by the rates in use; an interrupted algorithm counts its time so far."""
    found = []
    for record in records:
        took = {**record.seconds, **record.given_up}.get(chosen_of(record))
        if took is not None:  # otherwise an algorithm is missing, which the next run will time
            found.append(Record(record.case, {**record.seconds, "auto": took}, record.given_up, record.density))
    return found


def fitted(records: list[Record], penalty: float) -> _rates.Measured:
    """The rates and the correction that fit the records under a penalty for BLAS's threads. All are then in use."""
    _rates.use(_rates.Measured(_rates.in_use(), penalty))
    rates, correction = fit(records)
    found = _rates.Measured(rates, penalty, correction)
    _rates.use(found)
    return found


def _as_text(data: dict[str, Any]) -> str:
    """JSON with lists of numbers in one line each."""
    text = json.dumps(data, indent=1)
    return re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def main() -> None:
    """Measure, fit, print, and write the rates if --write is given."""
    options, screen, load_before = parse(), console(130), load_average()
    kind = options.again or _isa.kind()
    if options.again:  # work is counted, and nothing runs, so this CPU need not have the instruction set
        if _rates.split(kind)[2] not in _isa.compiled():
            raise SystemExit(f"work is counted in vectors, and this build has no kernels for {kind}")
        _isa.current = _isa.NAMES.index(_rates.split(kind)[2])
        _rates.use(_rates.measured_on(kind))
    times = TIMES / f"{kind}.jsonl.gz"
    if options.again:
        known, options.minutes, options.only = Records(times), 0.0, []
    else:
        known = Records(options.checkpoint or options.out / f"fit_costs_{kind}.jsonl")
    screen.print(f"{kind}, by the rates of {_rates.nearest(kind, _rates.kinds())}")
    if options.choices:
        screen.print(f"{add_choices(known, kind, options.out)} cases of bench_choice.py added")
    if options.only:
        known.forget(options.only)
    if options.minutes:
        collect(known, options, screen)
    records = [known.get(case) for case in known.cases()]
    timed: list[Record] = [record for record in records if record is not None and record.seconds]
    if not timed:
        raise SystemExit("nothing was timed; set --minutes above 0")
    before = regrets(timed)
    held, rest = timed[::HELD_OUT], [record for i, record in enumerate(timed) if i % HELD_OUT]
    penalty = options.blas_penalty or _rates.blas_penalty()
    fitted(rest, penalty)
    held_out = regrets(held)
    found = fitted(timed, penalty)
    after = regrets(timed)
    summary = report({"before": before, "held out": held_out, "after": after}, screen)
    data = {
        **run_info("fit_costs", Options(False, ROUNDS, max(options.threads), options.out), None, load_before),
        "kind": kind,
        "seed": options.seed,
        "summary": summary,
    }
    cpu = _rates.load(kind)["cpu"] if options.again else machine()["cpu"]
    data["machine"] = {**data["machine"], "cpu": cpu}
    name = f"fit_costs_{kind}"
    for path in write(options.out, name, data):
        screen.print(f"wrote {path.name}")
    if options.write:
        whole = summary["held out"]["all"]
        about = {
            "cpu": cpu,
            "date": datetime.now(UTC).date().isoformat(),
            "fastconv": fastconv.__version__,
            "cases": len(timed),
            "blas_penalty": penalty,
            "held_out": {"geomean": round(whole["geomean"], 4), "longer": whole["longer"], "much": whole["much"]},
            "rates": found.rates,
            "correction": {
                name: {
                    "features": trees.features.tolist(),
                    "thresholds": trees.thresholds.tolist(),
                    "leaves": trees.leaves.tolist(),
                }
                for name, trees in found.correction.trees.items()
            },
        }
        path = Path(_rates.FOLDER) / f"{kind}.json"
        path.write_text(_as_text(about), encoding="utf-8")
        screen.print(f"wrote {path.name}")
        if not options.again:
            TIMES.mkdir(exist_ok=True)
            known.keep(times)
            screen.print(f"wrote {times.name}")


def report(runs: dict[str, list[Record]], screen: Console) -> dict[str, dict[str, Any]]:
    """Print the regret by family before and after the fit, and on the cases held out."""
    table = new_table("Regret of 'auto': time of the chosen algorithm / time of the fastest")
    table.add_column("")
    for name in runs:
        for heading in (f"{name}: cases", "geomean", f"over {MUCH:g}", "worst"):
            table.add_column(heading, justify="right")
    found: dict[str, dict[str, Any]] = {name: {} for name in runs}
    families = [*FAMILIES, FAMILY]
    for family in (*families, "all"):
        cells = []
        for name, records in runs.items():
            some = [record for record in records if family in ("all", record.case.family)]
            if len(some) < 2:
                cells += ["-"] * 4
                continue
            of = found[name][family] = statistics_of(some)
            cells += [str(of["cases"]), f"{of['geomean']:.3f}", f"{of['much']}/{of['longer']}", f"{of['worst']:.1f}"]
        if family == "all":
            table.add_section()
        if set(cells) != {"-"}:
            table.add_row(family, *cells)
    screen.print(table)
    return found


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the rates for this kind of CPU")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="minutes for which cases are timed (%(default)g); 0 only fits"
    )
    parser.add_argument(
        "--only", default=[], type=lambda text: text.split(","), help="algorithms to time anew, such as fft,sparse"
    )
    parser.add_argument("--choices", action="store_true", help="also fit to the cases of bench_choice.py in --out")
    parser.add_argument("--again", metavar="KIND", help="time nothing; fit the stored times of this kind of CPU")
    parser.add_argument(
        "--blas-penalty", type=float, help="what BLAS's threads have to be faster by (default: as in the rates in use)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the drawn cases (%(default)s)")
    parser.add_argument(
        "--family", action="append", choices=list(FAMILIES), help="draw this family only; may be repeated"
    )
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers of threads, such as 1,2 (the default)")
    parser.add_argument(
        "--checkpoint", type=Path, help="file of measured cases (by default fit_costs_KIND.jsonl in --out)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and PNG")
    options = parser.parse_args(argv)
    if options.again and options.choices:
        parser.error("--choices adds cases to a file of measured cases, so it cannot be combined with --again")
    options.family = options.family or list(FAMILIES)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(exit_status(main))
