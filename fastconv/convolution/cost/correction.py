"""The correction of estimates by the sizes of a case.

Time is not quite a sum of amounts of work times rates, because threads wait for each other, long reductions leave the
cache, and few filters keep few units busy. The error depends smoothly on the sizes of a case. Each algorithm and op has
a polynomial of second degree in their logarithms, and its bounded exponential is a factor on the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from operator import mul

import numpy as np

from fastconv.geometry.conv import ConvGeometry
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The sizes of a case, in the order of `sizes`.
SIZES = (*("filters", "channels", "taps", "positions", "images", "groups", "width", "stride", "threads", "itemsize"),)
#: A factor is at most this, and at least its inverse.
MOST = 3.0


@dataclass(frozen=True)
class Correction:
    """The range of each size in the fit, and the coefficients of `terms` by algorithm and op."""

    ranges: tuple[tuple[float, float], ...]
    coefficients: Mapping[str, Mapping[str, Sequence[float]]]

    def factor(self, name: str, op: str, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> float:
        """The factor on the estimate for algorithm `name`; 1 if none was fitted."""
        found = self.coefficients.get(name, {}).get(op)
        if found is None:
            return 1.0
        return bounded(sum(map(mul, found, plans.find(_terms_of, geometry, dtype, threads, self.ranges))))


#: The one of rates without a correction.
NONE = Correction((), {})


def bounded(exponent: float) -> float:
    """The exponential, smoothly bounded by `MOST`."""
    limit = math.log(MOST)
    return math.exp(limit * math.tanh(exponent / limit))


def sizes(geometry: ConvGeometry, dtype: np.dtype, threads: int) -> tuple[float, ...]:
    """The binary logarithms of the sizes of a case, filters and channels of a group; none of them is 0."""
    filters, channels, *_ = geometry.w_shape
    return tuple(
        map(
            math.log2,
            (
                filters // geometry.groups,
                channels,
                geometry.taps,
                geometry.positions,
                geometry.x_shape[0],
                geometry.groups,
                geometry.out_spatial[-1],
                math.prod(axis.stride for axis in geometry.axes),
                threads,
                dtype.itemsize,
            ),
        )
    )


def _terms_of(
    geometry: ConvGeometry, dtype: np.dtype, threads: int, ranges: tuple[tuple[float, float], ...]
) -> list[float]:
    return terms(sizes(geometry, dtype, threads), ranges)


def terms(values: Sequence[float], ranges: Sequence[tuple[float, float]]) -> list[float]:
    """Values scaled from their ranges to -1 to 1, where values beyond count as the end; then products of two each."""
    scaled = [
        2 * (min(max(value, low), high) - low) / (high - low) - 1 if high > low else 0.0
        for value, (low, high) in zip(values, ranges, strict=True)
    ]
    return scaled + [a * b for a, b in combinations_with_replacement(scaled, 2)]
