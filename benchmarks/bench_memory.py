"""Peak memory of a convolution beyond its input and output: every algorithm, PyTorch and ONNX Runtime.

Run as ``python benchmarks/bench_memory.py [--quick]``; it needs Linux.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from support.harness import Options, console, exit_status, load_average, parse, progress, set_threads
from support.layers import LIST, Layer
from support.memory import COUNTED, MIB, Extra, extra, why_not
from support.report import full_title, in_words, judged, new_table, run_info, write

import fastconv
from fastconv.convolution.base import Delegated
from fastconv.convolution.choose import REGISTRY, choose
from fastconv.convolution.plan import Case

TITLE = "Peak memory beyond input and output, float32"
FLOAT = np.dtype(np.float32)
OPS = ("forward", "backward_data", "backward_weights")
#: Limits in MiB: for every op of every layer of the list at this batch, and for a large layer forward and backward.
BATCH, LIMIT = 16, 32
LARGE, LARGE_BATCH, LARGE_LIMIT = next(layer for layer in LIST if layer.case == "VGG 224 64-64 k3"), 64, 64
#: The reference is not measured, because it is slow and computes in float64.
NOT_MEASURED = {"reference"}
#: An algorithm whose plan states more bytes than this is not run.
MOST = 4 << 30

Cell = dict[str, Any]


def contenders(op: str) -> list[str]:
    """'auto', the algorithms and the peers."""
    names = [name for name in fastconv.algorithms("forward" if op == "backward" else op) if name not in NOT_MEASURED]
    return ["auto", *names, "PyTorch", *(["ONNX Runtime"] if op == "forward" else [])]


def said(name: str, layer: Layer, op: str, batch: int, threads: int) -> int | str | None:
    """The workspace that fastconv's plan states, or the reason why there is no plan; None for a peer."""
    if name in ("PyTorch", "ONNX Runtime"):
        return None
    geometry, parts = layer.geometry(batch), OPS[1:] if op == "backward" else (op,)
    found = []
    for part in parts:
        case = Case.of(part, geometry, FLOAT, threads)  # type: ignore[arg-type]
        reason = None if name == "auto" else REGISTRY[name].unsupported(case)
        if reason is not None and not isinstance(reason, Delegated):
            return reason
        found.append(choose(case, name).workspace_bytes)
    return max(found)


def cell(name: str, layer: Layer, op: str, batch: int, threads: int) -> Cell:
    """One measurement."""
    workspace = said(name, layer, op, batch, threads)
    if isinstance(workspace, str):
        answer = Extra(None, workspace)
    elif workspace is not None and workspace > MOST:
        answer = Extra(None, f"it says it takes {workspace / MIB:.0f} MiB")
    else:
        answer = extra(name, layer, op, batch, threads)
    return {
        "layer": layer.case,
        "batch": batch,
        "op": op,
        "contender": name,
        "extra_bytes": answer.nbytes,
        "workspace_bytes": workspace if isinstance(workspace, int) else None,
        "why_not": answer.reason,
    }


def verdicts(cells: list[Cell]) -> list[dict[str, Any]]:
    """Verdicts on 'auto': the largest memory over the list for each op, and the memory of the large layer."""
    found = []
    for op in (*OPS, "forward", "backward"):
        batch, limit = (LARGE_BATCH, LARGE_LIMIT) if len(found) >= len(OPS) else (BATCH, LIMIT)
        mine = [c for c in cells if (c["op"], c["batch"], c["contender"]) == (op, batch, "auto")]
        worst = max((c for c in mine if c["extra_bytes"] is not None), key=lambda c: c["extra_bytes"], default=None)
        value = worst and worst["extra_bytes"] / MIB
        where = worst["layer"] if worst else ""
        found.append({"op": op, "batch": batch, "where": where, "unit": "MiB", **judged(value, limit, at_most=True)})
    return found


def _text(c: Cell | None) -> str:
    if c is None or c["extra_bytes"] is None:
        return "-"
    own = "" if c["workspace_bytes"] is None else f" ({c['workspace_bytes'] / MIB:.1f})"
    return f"{c['extra_bytes'] / MIB:.1f}{own}"


def print_tables(cells: list[Cell], options: Options, screen: Console) -> None:
    """Print a table for each op, and the limits."""
    for op in dict.fromkeys(c["op"] for c in cells):
        table = new_table(f"{full_title(TITLE, options)}: {op}, MiB (in brackets the workspace that the plan states)")
        table.add_column("layer", no_wrap=True)
        table.add_column("batch", justify="right")
        for name in contenders(op):
            table.add_column(name, justify="right")
        mine = {(c["layer"], c["batch"], c["contender"]): c for c in cells if c["op"] == op}
        for layer, batch in dict.fromkeys(key[:2] for key in mine):
            table.add_row(layer, str(batch), *(_text(mine.get((layer, batch, name))) for name in contenders(op)))
        screen.print(table)
    table = new_table("algorithm='auto' against the limits, MiB: met or missed")
    for heading in ("op", "batch", "most", "where"):
        table.add_column(heading)
    for verdict in verdicts(cells):
        words = in_words(verdict["value"], verdict["target"], at_most=True)
        table.add_row(verdict["op"], str(verdict["batch"]), words, verdict["where"])
    screen.print(table)
    reasons = {(c["contender"], c["why_not"]) for c in cells if c["why_not"]}
    for name, reason in sorted(reasons):
        screen.print(f"{name} is not measured where: {reason}", style="yellow", markup=False)
    screen.print(COUNTED)


def run(options: Options) -> None:
    """Measure, print the tables, write JSON and PNG."""
    reason = why_not()
    if reason is not None:
        raise SystemExit(f"Memory cannot be measured here: {reason}.")
    screen = console(150)
    load_before = load_average()
    set_threads(options.threads)
    cases = [(layer, BATCH, op) for layer in (LIST[::4] if options.quick else LIST) for op in OPS]
    if not options.quick:
        cases += [(LARGE, LARGE_BATCH, op) for op in ("forward", "backward")]
    cases = options.wanted(cases, lambda case: case[0].case)
    wanted = [(name, *case) for case in cases for name in contenders(case[2])]
    cells = []
    with progress(screen, len(wanted)) as show:
        for name, layer, batch, op in wanted:
            show(f"{op}: {layer.case}, batch {batch}, {name}")
            cells.append(cell(name, layer, op, batch, options.threads))
    print_tables(cells, options, screen)
    data = {
        **run_info("bench_memory", options, None, load_before),
        "counted": COUNTED,
        "summary": verdicts(cells),
        "results": cells,
    }
    for path in write(options.out, "bench_memory", data):
        screen.print(f"written: {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    parsed = parse(
        __doc__.splitlines()[0], repeats=1, brief="every few layers, none at a large batch: about two minutes"
    )
    sys.exit(exit_status(partial(run, parsed)))
