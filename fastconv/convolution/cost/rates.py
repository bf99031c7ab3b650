"""Rates: the nanoseconds of a unit of each kind of work, measured by kind of CPU.

`benchmarks/fit_costs.py --write` writes a file for a kind into the folder ``rates``: "AuthenticAMD-26-avx512.json" for
family 26 of that vendor under AVX-512. A kind without a file uses that of the nearest kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

from fastconv.runtime import isa as _isa
from fastconv.runtime.plan_cache import plans

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

_loaded: dict[str, Rates] = {}
_penalties: dict[str, float] = {}


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


def in_use() -> Rates:
    """The rates of the nearest kind of CPU, read at the first choice."""
    kind = _isa.kind()
    found = _loaded.get(kind)
    if found is None:
        source = nearest(kind, kinds())
        data: dict[str, Any] = {"rates": {}} if source is None else load(source)
        found = _loaded[kind] = data["rates"]
        _penalties[kind] = data.get("blas_penalty", _BLAS_PENALTY)
    return found


def blas_penalty() -> float:
    """The factor by which threads of BLAS have to be faster to be taken, because they may slow down later calls."""
    in_use()
    return _penalties[_isa.kind()]


def use(rates: Rates, penalty: float) -> None:
    """Use these rates and this penalty from now on, for a fit. Plans that were chosen by other rates are forgotten."""
    _loaded[_isa.kind()], _penalties[_isa.kind()] = rates, penalty
    plans.clear()
