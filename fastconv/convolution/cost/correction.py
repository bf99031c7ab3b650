"""Corrects the estimated time of a plan by a factor that depends on the sizes of the layer.

The cost model estimates the time of a plan as its work times measured rates. The true time differs: threads wait for
each other, long reductions exceed the cache, and few filters leave some multiply-add units idle. The error depends on
the sizes of the layer, but no simple formula describes it.

Small decision trees predict the logarithm of the error. Each algorithm has trees of its own, whose values are added up.
The exponential of the sum, within bounds, is the factor on the estimated time.

In a tree, all nodes of a level compare the same feature with the same threshold. So a tree is a few comparisons and a
table of leaves. NumPy evaluates all trees of an algorithm at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.convolution.plan import Case
from fastconv.runtime.plan_cache import plans
from fastconv.runtime.records import dataclass

#: The names of the features of a case, in the order in which `features` returns them.
FEATURES = (
    *("filters", "channels", "taps", "positions", "images", "groups", "width", "stride", "threads", "itemsize"),
    *("rows", "cells", "row taps", "bytes", "multiply-adds", "forward", "backward_data", "rank", "padded", "density"),
)
#: The largest factor on an estimated time. The smallest factor is 1 / MOST.
MOST = 8.0


class Trees:
    """The decision trees of one algorithm.

    At level j, tree i compares the feature with index ``features[i, j]`` with ``thresholds[i, j]``. The result is 1 if
    the feature is larger, otherwise 0. The results of all levels are the binary digits of a leaf index, with the first
    level as the highest digit. For example, the results 1, 0, 1 select leaf 5.
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
        """Return the sum of the leaves that the features `values` select, one leaf in each tree."""
        index = (values[self.features] > self.thresholds) @ self._digits + self._first
        return float(self._flat[index].sum())


@dataclass(frozen=True)
class Correction:
    """The decision trees of each algorithm, by its name."""

    trees: Mapping[str, Trees]

    def factor(self, name: str, case: Case) -> float:
        """Return the factor on the estimated time of algorithm `name`. It is 1 if no trees were fitted."""
        found = self.trees.get(name)
        return 1.0 if found is None else bounded(found.value(plans.find(features, case)))


#: The correction that changes nothing, for rates without fitted trees.
NONE = Correction({})


def bounded(exponent: float) -> float:
    """Return the exponential of `exponent`, at least 1 / MOST and at most MOST."""
    return min(max(math.exp(exponent), 1 / MOST), MOST)


def features(case: Case) -> np.ndarray:
    """Return the features of a case as numbers, in the order of `FEATURES`.

    First come the binary logarithms of sizes, then features between 0 and 3. Filters and channels are counted in one
    group.
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
