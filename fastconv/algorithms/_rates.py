"""What a unit of each kind of work takes, in nanoseconds, by the kind of CPU that it was measured on.

`benchmarks/fit_costs.py --write` writes a file for a kind into the folder ``rates``: "AuthenticAMD-26-avx512.json" for
family 26 of that maker under AVX-512. Where there is no file for the kind in use, that of the nearest one serves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

from fastconv import _isa
from fastconv._plan_cache import plans

#: By algorithm, op and kind of work.
Rates: TypeAlias = dict[str, dict[str, dict[str, float]]]

FOLDER = os.path.join(os.path.dirname(__file__), "rates")
#: A CPU whose maker is not known.
GENERIC = "generic"
#: Where no rates are those of the instruction set in use, those of the first of these that has any.
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
    """Maker, family and instruction set."""
    vendor, family, isa = kind.rsplit("-", 2)
    return vendor, int(family), isa


def nearest(kind: str, among: Iterable[str]) -> str | None:
    """The kind whose rates serve for `kind`; None where there is none.

    Work is counted in vectors, so the instruction set says most: the same one comes first, then the usual ones. Among
    those, the maker's own, of the nearest family, the newer of two; then what was measured on an unknown CPU;
    then other makers' newest.
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
    """The file of a kind: 'rates', and where, when and of which version they were measured."""
    import json  # not at the start: it takes milliseconds, and most programs choose nothing for a while

    with open(os.path.join(FOLDER, f"{kind}.json"), encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data


def in_use() -> Rates:
    """Of the nearest kind of CPU; read when a choice first needs it."""
    kind = _isa.kind()
    found = _loaded.get(kind)
    if found is None:
        source = nearest(kind, kinds())
        data: dict[str, Any] = {"rates": {}} if source is None else load(source)
        found = _loaded[kind] = data["rates"]
        _penalties[kind] = data.get("blas_penalty", _BLAS_PENALTY)
    return found


def blas_penalty() -> float:
    """What BLAS's threads have to be faster by to be taken, because they may slow down the calls after them."""
    in_use()
    return _penalties[_isa.kind()]


def use(rates: Rates, penalty: float) -> None:
    """Go by these from now on: a fit tries its own. Plans that were chosen by other rates are forgotten."""
    _loaded[_isa.kind()], _penalties[_isa.kind()] = rates, penalty
    plans.clear()
