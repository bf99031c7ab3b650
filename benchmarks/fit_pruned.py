"""Fit the cost model of the algorithm for pruned weights, and print where 'auto' begins to take it.

As fit_costs.py, which fits all others: times of `sparse` by layer, op and density, and the rates of its kinds of
work that explain them best. ``--write`` keeps them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from _harness import console, exit_status, parse, progress, set_threads
from _layers import BEYOND, LIST, Layer
from _report import new_table
from fit_costs import REGISTRY, choose, own_rates, write_rates
from scipy.optimize import nnls

from fastconv.algorithms.base import OPS, Op

#: Share of the weights that are not zero.
DENSITIES = (0.02, 0.1, 0.3, 0.6)
#: Multiply-adds of dense layers: smaller ones are not looked at for zeros, larger ones behave alike.
LEAST, MOST = 1 << 24, 2e9
#: Seconds a call is repeated for; the best counts.
TURN = 0.03

SPARSE = REGISTRY["sparse"]


def _best(call: Callable[[], None]) -> float:
    call()
    times, end = list[float](), time.perf_counter() + TURN
    while len(times) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure(layer: Layer, batch: int, op: Op, density: float, threads: int) -> tuple[dict[str, float], float]:
    """The work of a layer with so many weights left, and the seconds it took."""
    geometry = layer.geometry(batch)
    x, w, _, dout = layer.arrays(batch)
    w = np.where(np.random.default_rng(1).random(w.shape) < density, w, 0).astype(w.dtype)
    out, dx, dw = np.empty_like(dout), np.empty_like(x), np.empty_like(w)
    calls: dict[str, Callable[[], None]] = {
        "forward": lambda: SPARSE.forward(x, w, None, geometry, out, threads),
        "backward_data": lambda: SPARSE.backward_data(dout, w, geometry, dx, threads),
        "backward_weights": lambda: SPARSE.backward_kept_weights(x, dout, w, geometry, dw, threads),
    }
    work = SPARSE.work(op, geometry, x.dtype, threads)
    return {**work, "product": work["product"] * density}, _best(calls[op])


def crossover(layer: Layer, batch: int, op: Op, threads: int) -> float:
    """The largest share of weights not zero with which 'auto' takes `sparse`."""
    geometry, low, high = layer.geometry(batch), 0.0, 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        taken = choose(op, geometry, np.dtype(np.float32), threads, "auto", middle)
        low, high = (middle, high) if taken is SPARSE else (low, middle)
    return low


def main() -> None:
    """Measure, fit, print, and with --write keep."""
    argv = sys.argv[1:]
    keep = "--write" in argv
    options = parse(__doc__ or "", [a for a in argv if a != "--write"], brief="fewer layers, batch 1")
    set_threads(options.threads)
    layers = options.wanted([*LIST, *BEYOND][:: 3 if options.quick else 1], lambda layer: layer.case)
    cases = [
        (layer, batch, op, density)
        for layer in layers
        for batch in ((1,) if options.quick else (1, 16))
        for op in OPS
        for density in DENSITIES
        if LEAST <= layer.geometry(batch).flops / 2 <= MOST and layer.groups == 1
    ]
    screen, rows = console(110), list[tuple[Op, dict[str, float], float]]()
    with progress(screen, len(cases)) as show:
        for layer, batch, op, density in cases:
            show(f"{layer.case} x{batch} {op} {density}")
            rows.append((op, *measure(layer, batch, op, density, options.threads)))
    rates = own_rates()
    for op in OPS:
        timed = [(work, took * 1e9) for of, work, took in rows if of == op]
        kinds = list(rates["sparse"][op])
        matrix = np.array([[work[kind] / took for kind in kinds] for work, took in timed])
        found, _ = nnls(matrix, np.ones(len(timed)))
        rates["sparse"][op] = dict(zip(kinds, found.tolist(), strict=True))
        off = np.abs(np.log(matrix @ found))
        screen.print(
            f"{op}: estimates off by a factor of {np.exp(statistics.median(off)):.2f} in the median, "
            f"{np.exp(off.max()):.2f} at most; {rates['sparse'][op]}"
        )
    table = new_table("Share of weights not zero below which 'auto' takes sparse")
    for heading in ("layer", "batch", *OPS):
        table.add_column(heading)
    for layer, batch in dict.fromkeys((layer, batch) for layer, batch, _, _ in cases):
        vars(layer.geometry(batch)).pop("_chosen", None)
        table.add_row(layer.case, str(batch), *(f"{crossover(layer, batch, op, options.threads):.2f}" for op in OPS))
    screen.print(table)
    if keep:
        write_rates(screen)


if __name__ == "__main__":
    sys.exit(exit_status(main))
