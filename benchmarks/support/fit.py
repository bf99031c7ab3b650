"""The search for rates of the cost model, and for a correction, that explain measured times and choose well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import softmax

from fastconv.convolution import wrappers
from fastconv.convolution.cost import pricing
from fastconv.convolution.cost.correction import MOST, Correction, sizes, terms
from fastconv.convolution.cost.rates import Rates
from fastconv.convolution.ops import OPS, Op
from fastconv.convolution.plan import Case, Plan
from support.forms import algorithm_of, make_algorithm
from support.turns import HOPELESS, Record

#: Distances of two costs, in logarithms, below which the choice counts as undecided; one for each step of the search.
NEAR = (0.4, 0.15)
#: The weight of an estimate that is off, relative to a choice that is.
TRUTH = 1.5
#: Estimates that are off by more than this, in logarithms, count linearly instead of quadratically.
OFF = 0.5
#: The weight of the squared coefficients of the correction.
RIDGE = 1e-3
#: The number of cases that an algorithm needs for each of its kinds of work.
ENOUGH = 1
#: At the start of the search, a rate accounts for at least this part of the median case's time.
SLIGHT = 0.02

#: The number of cases that an algorithm needs for each coefficient of its correction.
ENOUGH_TERMS = 3

#: The bound of the correction's exponent.
LIMIT = math.log(MOST)

Work = dict[str, float]


def work_of(record: Record, name: str) -> Work:
    """The work of a contender; for pruned weights, without the products by zeros."""
    work = plan_of(record, name).work
    return {kind: amount for kind, amount in work.items() if kind != "wakes"}  # "wakes" has one rate on every machine.


def plan_of(record: Record, name: str) -> Plan:
    """The plan of a contender."""
    case, density = record.case, record.density if record.case.zeros else 1.0
    planned = Case.of(case.op, case.geometry, np.dtype(case.dtype), case.threads, density, masked=case.zeros)
    return wrappers.padded(planned, make_algorithm(name).plan)


@dataclass
class Table:
    """The records of an op as arrays: rows are records, columns are contenders."""

    records: list[Record]
    names: list[str]
    algorithms: list[str]
    kinds: dict[str, list[str]]
    #: The work of each contender: (records, kinds of work of its algorithm).
    work: list[np.ndarray]
    #: Logarithms of seconds; for an interrupted contender, of the seconds until it was interrupted.
    took: np.ndarray
    timed: np.ndarray
    given_up: np.ndarray
    penalty: np.ndarray

    @property
    def there(self) -> np.ndarray:
        """A mask of the contenders that were tried."""
        return self.timed | self.given_up

    @property
    def cases(self) -> dict[str, int]:
        """The number of cases on which each algorithm was tried."""
        return {a: int(self.there[:, [b == a for b in self.algorithms]].any(axis=1).sum()) for a in self.kinds}

    @property
    def lost(self) -> np.ndarray:
        """For each contender, the logarithm of its time divided by the least time."""
        best = np.min(np.where(self.timed, self.took, np.inf), axis=1, keepdims=True)
        lost = np.where(self.given_up, math.log(HOPELESS), np.minimum(self.took - best, math.log(HOPELESS)))
        return np.where(self.there, lost, 0)


def table(records: Sequence[Record], op: Op) -> Table:
    """The table of the records of an op."""
    rows = [r for r in records if r.case.op == op and r.seconds]
    labels = sorted({name for r in rows for name in (*r.seconds, *r.given_up) if name != "auto"})
    algorithms = sorted({algorithm_of(name) for name in labels})
    # Each variant of an algorithm has its own column, as many as the record with the most variants needs.
    columns: dict[tuple[str, int], None] = {}
    placed: list[dict[tuple[str, int], str]] = []
    for r in rows:
        count: dict[str, int] = {}
        here: dict[tuple[str, int], str] = {}
        for name in sorted({*r.seconds, *r.given_up} - {"auto"}):
            algorithm = algorithm_of(name)
            key = algorithm, count.get(algorithm, 0)
            count[algorithm] = key[1] + 1
            columns[key] = None
            here[key] = name
        placed.append(here)
    keys = sorted(columns)
    works = [{key: work_of(r, name) for key, name in here.items()} for r, here in zip(rows, placed, strict=True)]
    kinds = {
        a: sorted({k for w in works for key, amounts in w.items() if key[0] == a for k in amounts}) for a in algorithms
    }
    shape = len(rows), len(keys)
    took, timed, given_up, penalty = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape)
    work = [np.zeros((len(rows), len(kinds[a]))) for a, _ in keys]
    for i, (r, here, amounts) in enumerate(zip(rows, placed, works, strict=True)):
        for j, key in enumerate(keys):
            name = here.get(key)
            if name is None:
                continue
            timed[i, j], given_up[i, j] = name in r.seconds, name in r.given_up
            took[i, j] = math.log(r.seconds.get(name) or r.given_up[name])
            penalty[i, j] = math.log(pricing.penalty(plan_of(r, name)))
            work[j][i] = [amounts[key].get(kind, 0.0) for kind in kinds[key[0]]]
    return Table(
        rows,
        [" ".join(map(str, key)) for key in keys],
        [a for a, _ in keys],
        kinds,
        work,
        took,
        timed,
        given_up,
        penalty,
    )


Ranges = tuple[tuple[float, float], ...]


def ranges_of(records: Sequence[Record]) -> Ranges:
    """The least and the largest logarithm of each size."""
    found = np.array([_sizes_of(record) for record in records]).round(3)
    return tuple(zip(found.min(axis=0).tolist(), found.max(axis=0).tolist(), strict=True))


def _sizes_of(record: Record) -> tuple[float, ...]:
    return sizes(record.case.geometry, np.dtype(record.case.dtype), record.case.threads)


class Search:
    """Searches the logarithms of the rates of an op that choose best, and the coefficients of the correction.

    There is no correction without `ranges`, nor for an algorithm with fewer than `ENOUGH_TERMS` cases per coefficient.
    """

    def __init__(self, data: Table, ranges: Ranges = ()) -> None:
        self.data = data
        #: (records, terms of the correction)
        self.terms = np.array([terms(_sizes_of(r), ranges) if ranges else [] for r in data.records])
        self.algorithms = list(data.kinds)
        self.which = [self.algorithms.index(a) for a in data.algorithms]
        *cuts, self.count = np.cumsum([len(kinds) for kinds in data.kinds.values()]).tolist()
        self.cuts = cuts
        # Contenders near the fastest weigh most, because their estimates decide the choice.
        self.weight = np.where(data.there, np.exp(-0.5 * data.lost), 0)

    def loss(self, values: np.ndarray, near: float) -> tuple[float, np.ndarray]:
        """The loss of choices by some rates and coefficients, with its gradient. Costs within `near` share the choice.

        `values` are the logarithms of the rates, followed by the coefficients of the correction by algorithm.
        """
        d = self.data
        parts = np.split(np.exp(values[: self.count]), self.cuts)
        coefficients = values[self.count :].reshape(len(self.algorithms), -1)
        # As `correction.bounded` does.
        inner = np.tanh(self.terms @ coefficients.T / LIMIT)
        corrected = LIMIT * inner[:, self.which]
        estimate = np.zeros(d.took.shape)
        shares: list[np.ndarray] = []
        for j, matrix in enumerate(d.work):
            amounts = matrix * parts[self.which[j]]
            total = np.maximum(amounts.sum(axis=1), 1e-300)
            estimate[:, j] = np.log(total * 1e-9)
            shares.append(amounts / total[:, None])
        estimate += corrected
        there, rows = d.there, len(d.took)
        taken = softmax(np.where(there, -(estimate + d.penalty) / near, -np.inf), axis=1)
        lost = d.lost + np.where(there, d.penalty, 0)  # otherwise rates would offset it
        mean = (taken * lost).sum(axis=1, keepdims=True)
        off = np.where(d.timed, estimate - d.took, np.minimum(estimate - d.took, 0))
        small = np.abs(off) < OFF
        cost = np.where(small, off**2, OFF * (2 * np.abs(off) - OFF)) * self.weight
        slope = np.where(small, 2 * off, 2 * OFF * np.sign(off)) * self.weight
        value = mean.mean() + TRUTH * cost.sum() / there.sum() + RIDGE * (coefficients**2).sum()
        by_estimate = -taken * (lost - mean) / near / rows + TRUTH * slope / there.sum()
        gradient = [np.zeros(len(part)) for part in parts]
        by_coefficient = 2 * RIDGE * coefficients
        for j, (share, a) in enumerate(zip(shares, self.which, strict=True)):
            gradient[a] += by_estimate[:, j] @ share
            by_coefficient[a] += (by_estimate[:, j] * (1 - inner[:, a] ** 2)) @ self.terms
        return float(value), np.concatenate([*gradient, by_coefficient.ravel()])

    def start(self) -> np.ndarray:
        """Rates by non-negative least squares of the relative error, each raised to a small positive value."""
        found = []
        for a in self.algorithms:
            columns = [j for j, name in enumerate(self.data.algorithms) if name == a]
            timed = np.concatenate([self.data.timed[:, j] for j in columns])
            if timed.sum() < ENOUGH * len(self.data.kinds[a]):  # interrupted: a lower bound
                timed = np.concatenate([self.data.there[:, j] for j in columns])
            took = np.exp(np.concatenate([self.data.took[:, j] for j in columns]))[timed]
            weight = np.sqrt(np.concatenate([self.weight[:, j] for j in columns])[timed])
            relative = np.concatenate([self.data.work[j] for j in columns])[timed] / took[:, None] * 1e-9
            scale = np.maximum(relative.max(axis=0), 1e-30)
            rates, guess = np.ones(len(scale)), np.ones(len(took))
            for _ in range(8):
                # This weights errors relative to the estimate and relative to the time alike, so neither direction is
                # favoured.
                by = weight / np.sqrt(np.clip(guess, 0.2, 5))
                rates, _ = nnls(relative / scale * by[:, None], by)
                guess = relative / scale @ rates
            middle = np.array([np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in relative.T])
            found.append(np.log(np.maximum(rates / scale, SLIGHT / middle / len(middle))))
        return np.concatenate(found)

    def run(self) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
        """The rates by algorithm and kind of work, and the coefficients by algorithm."""
        start = self.start()
        count = self.terms.shape[1]
        more = np.zeros(len(self.algorithms) * count)
        bounds: list[tuple[float | None, float | None]] = [(v - 9, v + 6) for v in start]
        for cases in self.data.cases.values():
            free = cases >= ENOUGH_TERMS * count
            bounds += [(None, None) if free else (0.0, 0.0)] * count
        values = np.concatenate([start, more])
        for near, steps in ((math.inf, 400), *((near, 300) for near in NEAR)):
            values = minimize(
                self.loss, values, (near,), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
            ).x
        parts = np.split(np.exp(values[: self.count]), self.cuts)
        coefficients = values[self.count :].reshape(len(self.algorithms), -1)
        rates = {
            a: dict(zip(self.data.kinds[a], part.tolist(), strict=True))
            for a, part in zip(self.algorithms, parts, strict=True)
        }
        return rates, dict(zip(self.algorithms, coefficients.tolist(), strict=True))


def fit(records: Sequence[Record]) -> tuple[Rates, Correction]:
    """The rates of all algorithms that were timed, and the correction of estimates by these rates."""
    rates: Rates = {}
    ranges = ranges_of(records)
    corrected: dict[str, dict[str, list[float]]] = {}
    for op in OPS:
        data = table(records, op)
        found, coefficients = Search(data, ranges).run()
        for name, kinds in found.items():
            if data.cases[name] >= ENOUGH * len(kinds):  # Otherwise the algorithm stays unmeasured.
                rates.setdefault(name, {})[op] = {kind: float(f"{value:.4g}") for kind, value in kinds.items()}
                if any(coefficients[name]):
                    corrected.setdefault(name, {})[op] = [round(value, 4) for value in coefficients[name]]
    return rates, Correction(ranges, corrected)
