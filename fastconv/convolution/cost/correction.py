"""The correction of estimates by the sizes of a case.

The time of a plan is not exactly the sum of its work times the rates, because threads wait for each other, long
reductions exceed the cache, and few filters leave units idle. The error depends smoothly on the sizes of a case. So a
polynomial of second degree in the logarithms of the sizes is fitted for each algorithm and op. The exponential of the
polynomial, within bounds, is a factor on the estimate.
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

#: The names of the sizes of a case, in the order of `sizes`.
SIZES = (*("filters", "channels", "taps", "positions", "images", "groups", "width", "stride", "threads", "itemsize"),)
#: The largest factor. The smallest factor is 1 / MOST.
MOST = 3.0


@dataclass(frozen=True)
class Correction:
    """The coefficients of `terms` for each algorithm and op, and the range of each size in the fit."""

    ranges: tuple[tuple[float, float], ...]
    coefficients: Mapping[str, Mapping[str, Sequence[float]]]

    def factor(self, name: str, op: str, geometry: ConvGeometry, dtype: np.dtype, threads: int) -> float:
        """Return the factor on the estimate for algorithm `name`; 1 if no factor was fitted."""
        found = self.coefficients.get(name, {}).get(op)
        if found is None:
            return 1.0
        return bounded(sum(map(mul, found, plans.find(_terms_of, geometry, dtype, threads, self.ranges))))


#: The correction of rates for which no factor was fitted.
NONE = Correction((), {})


def bounded(exponent: float) -> float:
    """Return the exponential of `exponent`, smoothly bounded by 1 / MOST and MOST."""
    limit = math.log(MOST)
    return math.exp(limit * math.tanh(exponent / limit))


def sizes(geometry: ConvGeometry, dtype: np.dtype, threads: int) -> tuple[float, ...]:
    """Return the binary logarithms of the sizes of a case, which must not be 0. Filters and channels are per group."""
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
    """Return the values, clipped to their ranges and scaled to [-1, 1], and then the products of all pairs of them."""
    scaled = [
        2 * (min(max(value, low), high) - low) / (high - low) - 1 if high > low else 0.0
        for value, (low, high) in zip(values, ranges, strict=True)
    ]
    return scaled + [a * b for a, b in combinations_with_replacement(scaled, 2)]
