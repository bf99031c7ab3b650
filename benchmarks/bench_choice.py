"""Regret of `algorithm='auto'` on random geometries: its time divided by the time of the fastest single algorithm.

    python benchmarks/bench_choice.py [--quick] [--family NAME] [--seed N] [--threads 1,2] [--minutes N] [--rates KIND]

Cases are drawn from families (`support/families.py`). The seed is random unless it is given, and is
printed. On each case, 'auto' and every algorithm that can compute it take turns. If 'auto' takes
more than 1.5 times as long as the fastest algorithm, the case is timed in five more rounds before
it counts. These rounds come at the end of the run, because the machine may be slow for seconds.
'auto' and the algorithm that it chose run the same code, so the lesser of both times counts for both.
Longer cases, of which 99 % should stay below 1.5, are those whose fastest algorithm takes 100 us or
more. With ``--checkpoint FILE`` a run may be interrupted; it continues when it is started again
with the same file and seed. With ``--rates KIND``,
'auto' chooses by the rates of another kind of CPU, as on a CPU without rates of its own.
"""

from __future__ import annotations

import argparse
import math
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from support.families import FAMILIES, Case, draw_cases
from support.forms import algorithm_of
from support.harness import Options, console, exit_status, load_average, progress
from support.report import in_words, judged, new_table, run_info, write
from support.turns import Record, Records, candidates, chosen_of, measure

from fastconv.convolution.cost import rates as _rates
from fastconv.runtime import isa as _isa

#: Targets: the geometric mean of the regret, and the part of the longer cases that has a regret of at most `MUCH`.
MEAN, MUCH, PART = 1.06, 1.5, 0.99
#: A case is one of the longer ones if its fastest algorithm takes at least this many seconds.
LONGER = 1e-4
#: The most seconds that 'auto' takes to look for zeros among dense weights, which an algorithm by name does not do.
LOOK = 2e-6
#: Number of rounds, and of further rounds for a case with much regret.
ROUNDS, MORE = 3, 5
#: Cases per family in a quick run, and minutes of a full run.
FEW, MINUTES = 2, 20.0


def regret(record: Record) -> float:
    """Time of 'auto' divided by the time of the fastest algorithm."""
    return (record.seconds.get("auto") or record.given_up["auto"]) / record.best


def judge(case: Case) -> Record | None:
    """Time a case; None if only the reference loops can compute it."""
    names = candidates(case)
    return merge_same_code(measure(case, ["auto", *names], ROUNDS)) if names else None


def judge_again(record: Record) -> Record:
    """Time a case in more rounds. The least time of each contender counts, because noise only adds to times."""
    names = {"auto", *(name for name, t in record.seconds.items() if t < 2 * record.best)}
    more = measure(record.case, names, MORE, near=math.inf)
    least = {name: min(t, record.seconds.get(name, math.inf)) for name, t in more.seconds.items()}
    given_up = {name: t for name, t in record.given_up.items() if name not in least}
    return merge_same_code(replace(record, seconds=record.seconds | least, given_up=given_up))


def merge_same_code(record: Record) -> Record:
    """Give the algorithm that 'auto' chose the lesser of both times, and 'auto' at most that time plus `LOOK`.

    Both ran the same code, so other differences are noise. This does not hold if 'auto' took another plan after it
    looked at the weights.
    """
    chosen = chosen_of(record)
    if not record.case.zeros and record.case.pattern != "rank one" and chosen in record.seconds:
        auto = record.seconds.get("auto", math.inf)
        record.seconds["auto"] = min(auto, record.seconds[chosen] + LOOK)
        record.seconds[chosen] = min(auto, record.seconds[chosen])
        record.given_up.pop("auto", None)
    return record


def statistics_of(records: list[Record]) -> dict[str, Any]:
    """The number of cases and their mean regret; for the longer cases also the part that has much regret."""
    found = [(record, regret(record)) for record in records]
    longer = [value for record, value in found if record.best >= LONGER]
    return {
        "cases": len(found),
        "geomean": statistics.geometric_mean([value for _, value in found]),
        "longer": len(longer),
        "much": sum(value > MUCH for value in longer),
        "worst": max(value for _, value in found),
    }


def groups(records: list[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """Groups of cases by family, op, dtype and threads, and the group of all cases."""
    keys: dict[str, Callable[[Case], Any]] = {
        "family": lambda case: case.family,
        "op": lambda case: case.op,
        "dtype": lambda case: case.dtype,
        "threads": lambda case: case.threads,
        "all": lambda case: "",
    }
    for by, key in keys.items():
        for value in dict.fromkeys(key(record.case) for record in records):
            yield by, str(value), [record for record in records if key(record.case) == value]


def report(records: list[Record], screen: Console, options: argparse.Namespace, load_before: float | None) -> None:
    """Print the regret of each group and the worst cases, and write JSON and PNG."""
    table = new_table("Regret of 'auto': its time / time of the fastest algorithm chosen by name")
    for heading in ("", "", "cases", "geomean", "over 100 us", f"over {MUCH:g}", "worst"):
        table.add_column(heading, justify="right" if heading else "left")
    summary = []
    last = ""
    for by, value, some in groups(records):
        of = statistics_of(some)
        summary.append({"by": by, "value": value, **of})
        if last and by != last:
            table.add_section()
        counts = str(of["cases"]), f"{of['geomean']:.3f}", str(of["longer"]), str(of["much"]), f"{of['worst']:.2f}"
        table.add_row("" if by == last else by, value, *counts)
        last = by
    screen.print(table)
    worst = sorted(records, key=regret, reverse=True)[:16]
    listing = new_table("Worst cases")
    for heading in ("family", "case", "op", "dtype", "threads", "best", "chosen", "fastest", "regret"):
        listing.add_column(heading)
    for record in worst:
        case = record.case
        fastest = min((n for n in record.seconds if n != "auto"), key=record.seconds.__getitem__)
        cells = case.dtype, str(case.threads), f"{record.best * 1e6:.0f} us", algorithm_of(chosen_of(record)), fastest
        listing.add_row(case.family, str(case), case.op, *cells, f"{regret(record):.2f}")
    screen.print(listing)
    overall = statistics_of(records)
    part = 1 - overall["much"] / max(overall["longer"], 1)
    for label, value, target, at_most in (
        ("geometric mean", overall["geomean"], MEAN, True),
        (f"part of cases over 100 us at most {MUCH:g}", part, PART, False),
    ):
        screen.print(label, in_words(value, target, at_most).replace("\n", " "))
    kind = _isa.kind()
    data = {
        **run_info(
            "bench_choice", Options(options.quick, ROUNDS, max(options.threads), options.out), None, load_before
        ),
        "kind": kind,
        "rates_of": options.rates or _rates.nearest(kind, _rates.kinds()),
        "seed": options.seed,
        "families": options.family,
        "thread_counts": options.threads,
        "geomean": judged(overall["geomean"], MEAN, True),
        "part": judged(part, PART),
        "summary": summary,
        "cases": [
            {"chosen": algorithm_of(chosen_of(r)), "regret": round(regret(r), 4), **r.as_json()} for r in records
        ],
    }
    by = f"_by_{options.rates}" if options.rates else ""
    name = f"bench_choice_{kind}_{options.seed}{by}"
    for path in write(options.out, name, data):
        screen.print(f"wrote {path.name}")


def numbers(text: str) -> list[int]:
    """'1,2' as [1, 2]."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a list of positive numbers")
    return found


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{FEW} cases of each family: about a minute")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="only this family; may be repeated")
    parser.add_argument("--seed", type=int, help="seed of the cases; random by default")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers of threads, such as 1,2 (the default)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="minutes of the run without further rounds (%(default)g)",
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="file of measured cases, with which an interrupted run can continue"
    )
    parser.add_argument("--rates", choices=_rates.kinds(), metavar="KIND", help="choose by the rates of this CPU kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for JSON and PNG")
    options = parser.parse_args(argv)
    if options.checkpoint is not None and options.checkpoint.exists() and options.seed is None:
        parser.error("--checkpoint of an earlier run needs its --seed")
    options.family = options.family or list(FAMILIES)
    options.seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    """Draw cases, measure them, print the report, and write it."""
    options = parse()
    screen, load_before = console(150), load_average()
    if options.rates:
        _rates.use(_rates.measured_on(options.rates))
    screen.print(f"seed {options.seed}, {_isa.kind()}, by the rates of {options.rates or _isa.kind()}")
    cases = draw_cases(options.seed, options.family, options.threads)
    if options.quick:
        cases = islice(cases, FEW * len(options.family))
    known = None if options.checkpoint is None else Records(options.checkpoint)
    records, end = list[Record](), time.monotonic() + 60 * options.minutes
    with progress(screen, 0) as show:
        for case in cases:
            record = None if known is None else known.get(case)
            if record is None:
                if time.monotonic() > end:
                    break
                show(f"{case.family} {case.op} {case}")
                record = judge(case)
                if record is not None and known is not None:
                    known.add(record)
            if record is not None:
                records.append(record)
        for i, record in enumerate(records):
            if regret(record) > MUCH:
                show(f"again: {record.case.family} {record.case.op} {record.case}")
                # The file keeps the first times, so that a case is never timed in more than five more rounds.
                records[i] = judge_again(record)
    if records:
        report(records, screen, options, load_before)


if __name__ == "__main__":
    sys.exit(exit_status(main))
