"""The fit of the cost model to measured times: a search for rates, and then boosted trees that correct estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import softmax

from fastconv.convolution import wrappers
from fastconv.convolution.cost import pricing
from fastconv.convolution.cost.correction import Correction, features
from fastconv.convolution.cost.rates import Rates
from fastconv.convolution.plan import OPS, Case, Op, Plan
from support import boosting
from support.forms import algorithm_of, make_algorithm
from support.turns import HOPELESS, Record

#: Distances of two costs, in logarithms, below which the choice counts as undecided; one for each step of the search.
NEAR = (0.4, 0.15)
#: The weight of an estimate that is off, relative to a choice that is.
TRUTH = 1.5
#: Estimates that are off by more than this, in logarithms, count linearly instead of quadratically.
OFF = 0.5
#: The number of cases that an algorithm needs for each of its kinds of work.
ENOUGH = 1
#: The weight of a choice that is off, relative to an estimate that is, in the trees of the correction.
CHOICE = 1.0
#: Errors of estimates that a tree fits are at most this large, so that a few wrong estimates do not decide it.
CLIPPED = 0.7
#: The number of times that an algorithm needs for trees.
ENOUGH_TREES = 60
#: Kinds of work that have one rate on every machine, because too few cases have much of them.
UNFITTED = ("wakes", "vector_far")
#: At the start of the search, a rate accounts for at least this part of the median case's time.
SLIGHT = 0.02

Work = dict[str, float]


def plan_case(record: Record) -> Case:
    """The case of a record as algorithms plan it."""
    case, density = record.case, record.density if record.case.zeros else 1.0
    return Case.of(case.op, case.geometry, np.dtype(case.dtype), case.threads, density, masked=case.zeros)


def work_of(record: Record, name: str) -> Work:
    """The work of a contender; for pruned weights, without the products by zeros."""
    work = plan_of(record, name).work
    return {kind: amount for kind, amount in work.items() if kind not in UNFITTED}


def plan_of(record: Record, name: str) -> Plan:
    """The plan of a contender."""
    return wrappers.padded(plan_case(record), make_algorithm(name).plan)


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


class Search:
    """Searches the logarithms of the rates of an op that choose best."""

    def __init__(self, data: Table) -> None:
        self.data = data
        self.algorithms = list(data.kinds)
        self.which = [self.algorithms.index(a) for a in data.algorithms]
        self.cuts = np.cumsum([len(kinds) for kinds in data.kinds.values()]).tolist()[:-1]
        # Contenders near the fastest weigh most, because their estimates decide the choice.
        self.weight = np.where(data.there, np.exp(-0.5 * data.lost), 0)

    def loss(self, values: np.ndarray, near: float) -> tuple[float, np.ndarray]:
        """The loss of choices by the logarithms of rates, with its gradient. Costs within `near` share the choice."""
        d = self.data
        parts = np.split(np.exp(values), self.cuts)
        estimate = np.zeros(d.took.shape)
        shares: list[np.ndarray] = []
        for j, matrix in enumerate(d.work):
            amounts = matrix * parts[self.which[j]]
            total = np.maximum(amounts.sum(axis=1), 1e-300)
            estimate[:, j] = np.log(total * 1e-9)
            shares.append(amounts / total[:, None])
        there, rows = d.there, len(d.took)
        taken = softmax(np.where(there, -(estimate + d.penalty) / near, -np.inf), axis=1)
        lost = d.lost + np.where(there, d.penalty, 0)  # otherwise rates would offset it
        mean = (taken * lost).sum(axis=1, keepdims=True)
        off = np.where(d.timed, estimate - d.took, np.minimum(estimate - d.took, 0))
        small = np.abs(off) < OFF
        cost = np.where(small, off**2, OFF * (2 * np.abs(off) - OFF)) * self.weight
        slope = np.where(small, 2 * off, 2 * OFF * np.sign(off)) * self.weight
        value = mean.mean() + TRUTH * cost.sum() / there.sum()
        by_estimate = -taken * (lost - mean) / near / rows + TRUTH * slope / there.sum()
        gradient = [np.zeros(len(part)) for part in parts]
        for j, (share, a) in enumerate(zip(shares, self.which, strict=True)):
            gradient[a] += by_estimate[:, j] @ share
        return float(value), np.concatenate(gradient)

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

    def run(self) -> dict[str, dict[str, float]]:
        """The rates by algorithm and kind of work."""
        values = self.start()
        bounds = [(v - 9, v + 6) for v in values]
        for near, steps in ((math.inf, 400), *((near, 300) for near in NEAR)):
            values = minimize(
                self.loss, values, (near,), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
            ).x
        parts = np.split(np.exp(values), self.cuts)
        return {
            a: dict(zip(self.data.kinds[a], part.tolist(), strict=True))
            for a, part in zip(self.algorithms, parts, strict=True)
        }


def fit(records: Sequence[Record]) -> tuple[Rates, Correction]:
    """The rates of all algorithms that were timed, and the correction of estimates by these rates."""
    rates: Rates = {}
    tables = {op: table(records, op) for op in OPS}
    for op, data in tables.items():
        for name, kinds in Search(data).run().items():
            if data.cases[name] >= ENOUGH * len(kinds):  # Otherwise the algorithm stays unmeasured.
                rates.setdefault(name, {})[op] = {kind: float(f"{value:.4g}") for kind, value in kinds.items()}
    return rates, correct(tables, rates)


def correct(tables: Mapping[Op, Table], rates: Rates) -> Correction:
    """The correction of the estimates by `rates`: for each algorithm, trees that fit its errors and choose well."""
    times = _times(tables, rates)
    boosted = {name: boosting.Boosting(times.features[mine]) for name, mine in times.of.items()}
    for _ in range(boosting.COUNT):
        errors, weights = times.errors()
        for name, mine in times.of.items():
            times.estimates[mine] += boosted[name].add(errors[mine], weights[mine])
    return Correction({name: trees.result() for name, trees in boosted.items()})


@dataclass
class Times:
    """All times of all algorithms as arrays, and their estimates; logarithms of seconds."""

    features: np.ndarray
    #: The record of each time.
    records: np.ndarray
    estimates: np.ndarray
    took: np.ndarray
    timed: np.ndarray
    penalty: np.ndarray
    lost: np.ndarray
    #: The times of each algorithm that has enough of them.
    of: dict[str, np.ndarray]

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """What a tree should add to the estimates, and the weights of that: steps that reduce the loss of `Search`."""
        errors = np.clip(self.took - self.estimates, -CLIPPED, CLIPPED)
        # The time of an interrupted algorithm is a lower bound.
        errors = np.where(self.timed, errors, np.maximum(errors, 0))
        weights = np.exp(-0.5 * self.lost)
        count, costs = self.records.max() + 1, self.estimates + self.penalty
        least = np.full(count, np.inf)
        np.minimum.at(least, self.records, costs)
        taken = np.exp((least[self.records] - costs) / NEAR[-1])
        taken /= np.bincount(self.records, taken, count)[self.records]
        lost = self.lost + self.penalty
        worse = lost - np.bincount(self.records, taken * lost, count)[self.records]
        total = weights + CHOICE * taken * (1 - taken) * np.abs(worse) / NEAR[-1]
        return (weights * errors + CHOICE * taken * worse / NEAR[-1]) / total, total


def _times(tables: Mapping[Op, Table], rates: Rates) -> Times:
    parts, names, first = list[tuple[np.ndarray, ...]](), list[str](), 0
    for op, data in tables.items():
        cases = [plan_case(record) for record in data.records]
        # As in `pricing.cost`, only plans that skip zeros depend on the density.
        values = {skips: np.array([features(c if skips else c.dense) for c in cases]) for skips in (True, False)}
        for j, name in enumerate(data.algorithms):
            rows = np.flatnonzero(data.there[:, j])
            if op not in rates.get(name, {}) or not len(rows):
                continue
            estimates = 1e-9 * data.work[j][rows] @ np.array([rates[name][op][kind] for kind in data.kinds[name]])
            of_times = data.took, data.timed, data.penalty, data.lost
            skips = plan_of(data.records[rows[0]], name).exploits_sparsity
            parts.append((values[skips][rows], first + rows, np.log(estimates), *(a[rows, j] for a in of_times)))
            names += [name] * len(rows)
        first += len(data.records)
    of = {name: np.flatnonzero([other == name for other in names]) for name in dict.fromkeys(names)}
    enough = {name: mine for name, mine in of.items() if len(mine) >= ENOUGH_TREES}
    return Times(*map(np.concatenate, zip(*parts, strict=True)), enough)
