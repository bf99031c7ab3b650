"""Rates: the nanoseconds of a unit of each kind of work, measured by kind of CPU.

`benchmarks/fit_costs.py --write` writes a file for a kind into the folder ``rates``: "AuthenticAMD-26-avx512.json" for
family 26 of that vendor under AVX-512. A kind without a file uses that of the nearest kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

from fastconv.convolution.cost.correction import NONE, Correction
from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: Nanoseconds by algorithm, op and kind of work.
Rates: TypeAlias = dict[str, dict[str, dict[str, float]]]

FOLDER = os.path.join(os.path.dirname(__file__), "measured")
#: The vendor of an unknown CPU.
GENERIC = "generic"
#: If there are no rates for the instruction set in use, those of the first of these that has any are used.
_USUAL = ("avx2", "avx512", "baseline")

#: What a product in several threads of BLAS has to be faster by, where a file does not say. On AMD family 26, a
#: gradient of the weights right after one of the data by BLAS took up to twice its time, and now and then a product
#: took 10 to 20 times what it usually does: so did 2 of 624 random cases under a penalty of 2.
_BLAS_PENALTY = 3.0


@dataclass(frozen=True)
class Measured:
    """What was measured on a kind of CPU: rates, the penalty of BLAS's threads, and the correction of estimates."""

    rates: Rates
    blas_penalty: float = _BLAS_PENALTY
    correction: Correction = NONE


_loaded: dict[str, Measured] = {}


def kinds() -> tuple[str, ...]:
    """The kinds of CPU that were measured."""
    return tuple(sorted(name[:-5] for name in os.listdir(FOLDER) if name.endswith(".json")))


def split(kind: str) -> tuple[str, int, str]:
    """Vendor, family and instruction set."""
    vendor, family, isa = kind.rsplit("-", 2)
    return vendor, int(family), isa


def nearest(kind: str, among: Iterable[str]) -> str | None:
    """The measured kind that is nearest to `kind`; None if there is none.

    Work is counted in vectors, so the instruction set matters most: the same one comes first, then the usual ones.
    Within an instruction set, kinds of the same vendor come first, by the nearest family and then the newer one; then
    an unknown CPU; then the newest family of another vendor.
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
    """The file of a kind: its 'rates', and the CPU, date and version of the measurement."""
    import json  # imported here, because it takes milliseconds, and most programs choose no algorithm at first

    with open(os.path.join(FOLDER, f"{kind}.json"), encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data


def measured_on(kind: str) -> Measured:
    """What the file of a kind says."""
    data = load(kind)
    fitted, correction = data.get("correction"), NONE
    if fitted is not None:
        correction = Correction(tuple((low, high) for low, high in fitted["ranges"]), fitted["coefficients"])
    return Measured(data["rates"], data.get("blas_penalty", _BLAS_PENALTY), correction)


def measured() -> Measured:
    """What was measured on the nearest kind of CPU, read at the first choice."""
    kind = _isa.kind()
    found = _loaded.get(kind)
    if found is None:
        source = nearest(kind, kinds())
        found = _loaded[kind] = Measured({}) if source is None else measured_on(source)
    return found


def in_use() -> Rates:
    """The rates of the nearest kind of CPU."""
    return measured().rates


def blas_penalty() -> float:
    """The factor by which threads of BLAS have to be faster to be taken, because they may slow down later calls."""
    return measured().blas_penalty


def use(these: Measured) -> None:
    """Use these rates and so on from now on, for a fit. Plans that were chosen by others are dropped."""
    _loaded[_isa.kind()] = these
    plans.clear()
