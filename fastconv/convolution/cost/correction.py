"""The correction of estimates by the sizes of a case.

The time of a plan is not exactly the sum of its work times the rates, because threads wait for each other, long
reductions exceed the cache, and with few filters some units for multiply-adds are idle. The error depends on the sizes
of a case, but no formula of a few terms describes it. So a sum of small decision trees is fitted to the logarithm of
the error for each algorithm. The exponential of the sum, within bounds, is a factor on the estimate.

All nodes of a level of a tree compare the same feature with the same threshold. So a tree is a few comparisons and a
table of leaves, and NumPy evaluates all trees of an algorithm at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.convolution.plan import Case
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The names of the features of a case, in the order of `features`.
FEATURES = (
    *("filters", "channels", "taps", "positions", "images", "groups", "width", "stride", "threads", "itemsize"),
    *("rows", "cells", "row taps", "bytes", "multiply-adds", "forward", "backward_data", "rank", "padded", "density"),
)
#: The largest factor on an estimate. The smallest factor is 1 / MOST.
MOST = 8.0


class Trees:
    """The trees of an algorithm.

    At level j, tree i compares two numbers: the feature whose index is ``features[i, j]``, and ``thresholds[i, j]``.
    The result is 1 if the feature is larger, otherwise 0. The results of all levels are the binary digits of the index
    of a leaf. The result of the first level is the highest digit.
    """

    def __init__(self, features: Any, thresholds: Any, leaves: Any) -> None:
        self.features = np.array(features, np.intp)
        self.thresholds = np.array(thresholds, np.float64)
        self.leaves = np.array(leaves, np.float64)
        count, depth = self.features.shape
        self._digits = 1 << np.arange(depth)[::-1]
        self._first = np.arange(count) << depth
        self._flat = self.leaves.ravel()

    def value(self, values: np.ndarray) -> float:
        """Return the sum of the leaves that the features `values` of a case select: one leaf of each tree."""
        index = (values[self.features] > self.thresholds) @ self._digits + self._first
        return float(self._flat[index].sum())


@dataclass(frozen=True)
class Correction:
    """The trees of each algorithm."""

    trees: Mapping[str, Trees]

    def factor(self, name: str, case: Case) -> float:
        """Return the factor on the estimate for algorithm `name`; 1 if no trees were fitted."""
        found = self.trees.get(name)
        return 1.0 if found is None else bounded(found.value(plans.find(features, case)))


#: The correction of rates for which no trees were fitted.
NONE = Correction({})


def bounded(exponent: float) -> float:
    """Return the exponential of `exponent`, at least 1 / MOST and at most MOST."""
    return min(max(math.exp(exponent), 1 / MOST), MOST)


def features(case: Case) -> np.ndarray:
    """Return the features of a case, which `FEATURES` names.

    The sizes come first, as binary logarithms. The other features are numbers between 0 and 3. The numbers of filters
    and of channels are those of one group.
    """
    geometry, itemsize = case.geometry, case.dtype.itemsize
    filters, channels, *_ = geometry.w_shape
    elements = sum(map(math.prod, (geometry.x_shape, geometry.w_shape, geometry.out_shape)))
    sizes = (
        filters // geometry.groups,
        channels,
        geometry.taps,
        geometry.positions,
        geometry.x_shape[0],
        geometry.groups,
        geometry.out_spatial[-1],
        math.prod(axis.stride for axis in geometry.axes),
        case.threads,
        itemsize,
        channels * geometry.taps,
        math.prod(geometry.x_shape[2:]),
        geometry.kernel[-1],
        elements * itemsize,
        geometry.flops // 2,
    )
    return np.array(
        (
            *(math.log2(max(size, 1)) for size in sizes),
            case.op == "forward",
            case.op == "backward_data",
            geometry.rank,
            geometry.pad_mode != "zeros",
            case.density,
        )
    )
