"""Rates: the measured nanoseconds of one unit of each kind of work, for each kind of CPU.

The kind of a CPU is its vendor, its family and the instruction set in use, for example "AuthenticAMD-26-avx512".
`benchmarks/fit_costs.py --write` writes the rates of a kind of CPU to a file in the folder ``measured``. A kind without
a file uses the file of the nearest kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

from fastconv.convolution.cost.correction import NONE, Correction, Trees
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The nanoseconds of a unit of work, by algorithm, op and kind of work.
Rates: TypeAlias = dict[str, dict[str, dict[str, float]]]

FOLDER = os.path.join(os.path.dirname(__file__), "measured")
#: The vendor of an unknown CPU.
GENERIC = "generic"
#: If there are no rates for the instruction set in use, rates of the first of these instruction sets are used instead.
_USUAL = ("avx2", "avx512", "baseline")

#: The default factor on the cost of plans that use several BLAS threads. Such plans may slow down later calls. On AMD
#: family 26, backward_weights took up to twice its usual time right after backward_data by BLAS. Now and then, a
#: product took 10 to 20 times its usual time. With a factor of 2 instead of 3, BLAS slowed down 2 of 624 random cases
#: in this way.
_BLAS_PENALTY = 3.0


@dataclass(frozen=True)
class Measured:
    """The measurements of a kind of CPU: its rates, its factor on the cost of BLAS plans, and its correction of
    estimates.
    """

    rates: Rates
    blas_penalty: float = _BLAS_PENALTY
    correction: Correction = NONE


_loaded: dict[str, Measured] = {}


def kinds() -> tuple[str, ...]:
    """Return the kinds of CPU that were measured."""
    return tuple(sorted(name[:-5] for name in os.listdir(FOLDER) if name.endswith(".json")))


def split(kind: str) -> tuple[str, int, str]:
    """Return the vendor, the family and the instruction set of a kind of CPU."""
    vendor, family, isa = kind.rsplit("-", 2)
    return vendor, int(family), isa


def nearest(kind: str, among: Iterable[str]) -> str | None:
    """Return the measured kind of CPU that is nearest to `kind`, or None if there is none.

    A later rule decides only if all earlier rules leave a tie:

    1. Prefer the instruction set of `kind`, because work is counted in vectors. Without rates for this instruction set,
       prefer the instruction set that comes first in `_USUAL`.
    2. Prefer the vendor of `kind`, then the vendor `GENERIC`, then all other vendors.
    3. Among CPUs of the vendor of `kind`, prefer the nearest CPU family.
    4. Prefer the newest CPU family.
    """
    vendor, family, isa = split(kind)

    def distance(other: str) -> tuple[Any, ...]:
        its_vendor, its_family, its_isa = split(other)
        of_isa = 0 if its_isa == isa else 1 + _USUAL.index(its_isa)
        of_vendor = 0 if its_vendor == vendor else 1 if its_vendor == GENERIC else 2
        of_family = abs(its_family - family) if of_vendor == 0 else 0
        return of_isa, of_vendor, of_family, -its_family, other

    return min(among, key=distance, default=None)


def load(kind: str) -> dict[str, Any]:
    """Return the contents of the file of a kind of CPU: rates, and how they were measured (CPU, date, version)."""
    import json  # imported late, because the import takes milliseconds

    with open(os.path.join(FOLDER, f"{kind}.json"), encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data


def measured_on(kind: str) -> Measured:
    """Return the measurements in the file of a kind of CPU."""
    data = load(kind)
    correction = Correction({name: Trees(**trees) for name, trees in data.get("correction", {}).items()})
    return Measured(data["rates"], data.get("blas_penalty", _BLAS_PENALTY), correction)


def measured() -> Measured:
    """Return the measurements of the nearest kind of CPU. The first call reads the file."""
    kind = _isa.kind()
    found = _loaded.get(kind)
    if found is None:
        source = nearest(kind, kinds())
        found = _loaded[kind] = Measured({}) if source is None else measured_on(source)
    return found


def in_use() -> Rates:
    """Return the rates of the nearest kind of CPU."""
    return measured().rates


def blas_penalty() -> float:
    """Return the factor on the cost of plans that use several BLAS threads. Such plans may slow down later calls."""
    return measured().blas_penalty


def use(these: Measured) -> None:
    """Use the given measurements from now on. Clear the plan cache, because its plans were chosen by other
    measurements.
    """
    _loaded[_isa.kind()] = these
    plans.clear()
