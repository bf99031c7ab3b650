"""The contenders of a fit by their names: algorithms, and the forms of an algorithm that has several.

All forms of an algorithm have the same rates, and its plan takes the cheapest form. A fit times each of them.
"""

from __future__ import annotations

from fastconv.convolution.base import Algorithm
from fastconv.convolution.choose import REGISTRY
from fastconv.convolution.plan import Case
from fastconv.convolution.space_to_batch import SpaceToBatchGeometry
from fastconv.convolution.winograd.algorithm import Winograd
from fastconv.convolution.winograd.decomposition import POINTS
from fastconv.convolution.winograd.tiles import cheapest_tiles


def algorithm_of(name: str) -> str:
    """Return the name of the algorithm of a contender: 'winograd 6 3x3' is a form of 'winograd'."""
    return name.split(" ", 1)[0]


def make_algorithm(name: str) -> Algorithm:
    """Return the algorithm of a contender, limited to its form. 'winograd 6 3x3' has 6 points and 3 x 3 taps."""
    algorithm, _, form = name.partition(" ")
    if not form:
        return REGISTRY[algorithm]
    if algorithm != "winograd":
        raise ValueError(f"{algorithm} has only one form, not {form!r}")
    points, _, taps = form.partition(" ")
    high, _, wide = taps.partition("x")
    return Winograd((int(points),), (int(high), int(wide)))


def forms_of(algorithm: str, case: Case) -> list[str]:
    """Return the contenders of an algorithm that support a case. Winograd has one for each number of points."""
    if algorithm != "winograd":
        return [algorithm]
    batching, found = SpaceToBatchGeometry.of(case.geometry), []
    part = case if batching is None else case.with_geometry(batching.geometry)
    for points in POINTS:
        if Winograd((points,)).unsupported(case) is None:
            high, wide = cheapest_tiles(part, (points,), None).taps
            found.append(f"winograd {points} {high}x{wide}")
    return found
